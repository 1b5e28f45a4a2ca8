"""The chosen records, with columns that were asked for, on standard output or in a file."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from gumbeltopk._records import DELIMITERS
from gumbeltopk._records.parquet import import_pyarrow
from gumbeltopk.cli.failures import BAD_INPUT, FAILED, Failure, reason
from gumbeltopk.cli.state import Description

LINE_ENDS = "\r\n"

Columns = dict[str, list[float]]  # name: a number for each record


def write_sample(description: Description, records: Sequence[bytes], added: Columns, path: str | None) -> None:
    """Header and records in order of selection."""
    if description.form == "parquet":
        data = _parquet(description, records, added, as_parquet=path is not None)
    elif description.form == "ndjson":
        data = b"".join(_object(record, values) for record, values in _with_values(records, added))
    else:
        data = _table(description, records, added)
    if path is None:
        _write_to_standard_output(data)
        return
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise Failure(f"cannot write -o {path}: {reason(error)}", FAILED) from None


def _with_values(records: Sequence[bytes], added: Columns) -> Iterable[tuple[bytes, dict[str, float]]]:
    for place, record in enumerate(records):
        yield record, {name: values[place] for name, values in added.items()}


def _write_to_standard_output(data: bytes) -> None:
    """The bytes as they are, whatever the terminal's locale."""
    sys.stdout.flush()
    left = memoryview(data)
    while left:  # an unbuffered standard output (PYTHONUNBUFFERED) may take a part of a long text only
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.buffer.flush()


def _check_new(names: Iterable[str], added: Columns) -> None:
    for name in set(names) & set(added):
        raise Failure(f"the input has a column {name!r} already; rename it, or do without the new one", BAD_INPUT)


# --- CSV and TSV ------------------------------------------------------------------------------------


def _table(description: Description, records: Sequence[bytes], added: Columns) -> bytes:
    _check_new(description.names, added)
    delimiter = DELIMITERS[description.form]
    lines = [_longer(description.header.encode("utf-8"), delimiter, list(added))]
    lines += [
        _longer(record, delimiter, [repr(value) for value in values.values()])
        for record, values in _with_values(records, added)
    ]
    return b"".join(lines)


def _longer(record: bytes, delimiter: str, fields: list[str]) -> bytes:
    """With further fields before the line end."""
    content = record.rstrip(LINE_ENDS.encode("ascii"))
    return content + "".join(delimiter + field for field in fields).encode("ascii") + record[len(content) :]


# --- NDJSON -----------------------------------------------------------------------------------------


def _object(record: bytes, values: dict[str, float]) -> bytes:
    """With further members; it has one at least, that of the weight."""
    if not values:
        return record
    text = record.decode("utf-8")
    _check_new(json.loads(text, parse_int=str), {name: [] for name in values})
    content = text.rstrip()[:-1].rstrip()  # without the brace
    members = "".join(f", {json.dumps(name)}: {value!r}" for name, value in values.items())
    return (content + members + text[len(content) :]).encode("utf-8")


# --- Parquet ----------------------------------------------------------------------------------------


def _parquet(description: Description, records: Sequence[bytes], added: Columns, as_parquet: bool) -> bytes:
    pa = import_pyarrow()
    schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(description.header)))
    _check_new(schema.names, added)
    rows = [pa.ipc.open_stream(record).read_all() for record in records]
    table: Any = pa.concat_tables(rows) if rows else schema.empty_table()
    for name, values in added.items():
        table = table.append_column(name, pa.array(values, type=pa.float64()))
    sink = io.BytesIO()
    if as_parquet:
        pa.parquet.write_table(table, sink)
        return sink.getvalue()
    try:
        pa.csv.write_csv(table, sink, pa.csv.WriteOptions(quoting_style="needed"))
    except pa.ArrowException as error:
        raise Failure(f"the rows cannot be written as CSV ({error}); write Parquet, with -o FILE", BAD_INPUT) from None
    return sink.getvalue()
