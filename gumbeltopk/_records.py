"""Records of CSV, TSV and NDJSON text: each with its text as it stands and its weight."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

FORMATS = {".csv": "csv", ".tsv": "tsv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
DELIMITERS = {"csv": ",", "tsv": "\t"}
BYTE_ORDER_MARK = "\ufeff"
SEPARATED_END = r"\r\n?|\n"
NDJSON_END = r"\r?\n"  # a lone carriage return is white space in JSON
# Lines of a text that ends with a line end. (io.StringIO would do, but it takes four bytes a character.)
SEPARATED_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)")
NDJSON_LINE = re.compile(r"[^\n]*\n")
LONGEST_FIELD = 2**31 - 1  # all that a C long holds on every system; the default of csv is 131072
LONGEST_SHOWN = 60  # characters of a value in a message
MOST_SHOWN = 20  # columns in a message
KINDS = {str: "the string", bool: "a truth value", type(None): "null", list: "an array", tuple: "an object"}


class Records(NamedTuple):
    """A header (empty for NDJSON) and the records, as text with their line ends, and the weight of each record."""

    header: str
    texts: list[str]
    weights: list[float]


class BadRecord(ValueError):
    """Data that cannot be read; the message says where and what to do."""


class Number(str):
    """A JSON number as it is written: as a Python int or float it could overflow, or take minutes to convert."""


def read_records(text: str, form: str, column: str) -> Records:
    """Split `text` into records and take the weights from `column`."""
    without_mark = text.removeprefix(BYTE_ORDER_MARK)
    mark = text[: len(text) - len(without_mark)]
    if form == "ndjson":
        return _read_ndjson(_with_last_line_end(without_mark, NDJSON_END), column)
    with _long_fields():
        records = _read_separated(_with_last_line_end(without_mark, SEPARATED_END), DELIMITERS[form], column)
    return records._replace(header=mark + records.header)


def _with_last_line_end(text: str, line_end: str) -> str:
    """The last record may be written before others, so it needs a line end: that of the first line."""
    if not text or re.fullmatch(line_end, text[-1]):
        return text
    found = re.search(line_end, text)
    return text + (found.group() if found else "\n")


# --- CSV and TSV ------------------------------------------------------------------------------------


def _read_separated(text: str, delimiter: str, column: str) -> Records:
    rows = _split_separated(text, delimiter)
    _, header, names = next(rows, (0, "", []))
    if not header:
        raise BadRecord("the input is empty; it needs a header line")
    place = _find_column(names, column)
    records = Records(header, [], [])
    for line, raw, fields in rows:
        if len(fields) != len(names):
            raise BadRecord(
                f"line {line}: {len(fields)} fields, but the header has {len(names)}; check its quotes and --format"
            )
        records.texts.append(raw)
        records.weights.append(_weight(fields[place], line, column))
    return records


def _split_separated(text: str, delimiter: str) -> Iterator[tuple[int, str, list[str]]]:
    """(number of its first line, text, fields) of each record; empty lines are no records."""
    lines: list[str] = []  # those that the reader has taken for the record at hand: quoted fields may have line ends

    def tapped() -> Iterator[str]:
        for match in SEPARATED_LINE.finditer(text):
            lines.append(match.group())
            yield lines[-1]

    reader = csv.reader(tapped(), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num - len(lines) + 1, "".join(lines), fields
            lines.clear()
    except csv.Error as error:
        first = reader.line_num - len(lines) + 1
        raise BadRecord(f"the record that begins in line {first}: {error}; check its quotes and --format") from None


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    # The csv module has this setting for the whole process only.
    usual = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


def _find_column(names: list[str], column: str) -> int:
    if names.count(column) != 1:
        what = "is there more than once; rename one" if column in names else "is not there; check -w and --format"
        raise BadRecord(f"column {column!r} {what} (the columns are {_listed(names)})")
    return names.index(column)


# --- NDJSON -----------------------------------------------------------------------------------------


def _read_ndjson(text: str, column: str) -> Records:
    records = Records("", [], [])
    for number, match in enumerate(NDJSON_LINE.finditer(text), start=1):
        line = match.group()
        if line.strip():
            records.texts.append(line)
            records.weights.append(_weight(_find_number(line, number, column), number, column))
    return records


def _find_number(line: str, number: int, column: str) -> Number:
    members = _members(line, number, column)
    values = [value for name, value in members if name == column]
    if len(values) != 1:
        what = "is there more than once; rename one" if values else "is not there; check -w, or add it"
        raise BadRecord(f"line {number}: field {column!r} {what} (the fields are {_listed([n for n, _ in members])})")
    value = values[0]
    if not isinstance(value, Number):
        kind = KINDS[type(value)]
        shown = f" {_shown(value)}" if isinstance(value, str) else ""
        raise BadRecord(f"line {number}, column {column!r}: the weight is {kind}{shown}; write a number, unquoted")
    return value


def _members(line: str, number: int, column: str) -> tuple[tuple[str, object], ...]:
    try:
        # Objects become tuples of pairs, which arrays never are: so a name that is there twice is seen.
        record = json.loads(line, object_pairs_hook=tuple, parse_int=Number, parse_float=Number, parse_constant=Number)
    except json.JSONDecodeError as error:
        what = f"{error.msg} at character {error.colno}"
        raise BadRecord(f"line {number} is not JSON ({what}); write one object a line, or check --format") from None
    except RecursionError:
        raise BadRecord(f"line {number} is nested too deeply; take out what is not needed") from None
    if not isinstance(record, tuple):
        raise BadRecord(
            f"line {number} is not an object; write one object a line, such as {{{json.dumps(column)}: 1.5}}"
        )
    return record


# --- values -----------------------------------------------------------------------------------------


def _weight(text: str, line: int, column: str) -> float:
    where = f"line {line}, column {column!r}: the weight"
    if not text.strip():
        raise BadRecord(f"{where} is empty; write 0 for a row that is never to be drawn")
    try:
        weight = float(text)
    except ValueError:
        raise BadRecord(f"{where} {_shown(text)} is not a number; write one such as 0.5") from None
    if "_" in text:
        raise BadRecord(f"{where} {_shown(text)} is not a number; write it without underscores")
    if not 0.0 <= weight < math.inf:
        raise BadRecord(f"{where} {_shown(text)} must be finite and not negative; 0 is a row that is never drawn")
    if weight == 0 and re.match(r"[\s+-]*[0.]*[1-9]", text):
        raise BadRecord(f"{where} {_shown(text)} is too small for a float64; scale the whole column")
    return weight


def _shown(text: str) -> str:
    return repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}..."


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(_shown, names[:MOST_SHOWN]))
    return shown if len(names) <= MOST_SHOWN else f"{shown} and {len(names) - MOST_SHOWN} more"
