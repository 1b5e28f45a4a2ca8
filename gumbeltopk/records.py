"""Records of CSV, TSV and NDJSON text: each with its text as it stands, its weight and its line number."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import NamedTuple

FORMATS = {".csv": "csv", ".tsv": "tsv", ".ndjson": "ndjson", ".jsonl": "ndjson"}


class Records(NamedTuple):
    """A header (empty for NDJSON), the records as text, and the weight of each."""

    header: str
    texts: list[str]
    weights: list[float]


class BadRecord(ValueError):
    """Data that cannot be read; the message says where and what to do."""


def read_records(text: str, form: str, column: str) -> Records:
    """Split `text` into records and take the weights from `column`."""
    text = text.removeprefix("\ufeff")
    return (
        _read_ndjson(text, column)
        if form == "ndjson"
        else _read_separated(text, "\t" if form == "tsv" else ",", column)
    )


def _read_separated(text: str, delimiter: str, column: str) -> Records:
    consumed: list[str] = []  # the lines that the reader has taken for the record at hand

    def tapped() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            consumed.append(line)
            yield line

    reader = csv.reader(tapped(), delimiter=delimiter, strict=True)
    records: list[str] = []
    weights: list[float] = []
    header: list[str] | None = None
    header_text = ""
    try:
        for fields in reader:
            raw, first_line = "".join(consumed), reader.line_num - len(consumed) + 1
            consumed.clear()
            if not fields:
                continue  # an empty line
            if header is None:
                header, header_text = fields, raw
                place = _find_column(header, column)
                continue
            if len(fields) != len(header):
                raise BadRecord(f"line {first_line}: {len(fields)} fields, but the header has {len(header)}")
            records.append(raw)
            weights.append(_weight(fields[place], first_line, column))
    except csv.Error as error:
        raise BadRecord(f"line {reader.line_num}: {error}; check the quotes and the --format") from None
    if header is None:
        raise BadRecord("the input is empty; it needs a header line")
    return Records(header_text, records, weights)


def _find_column(header: list[str], column: str) -> int:
    if header.count(column) != 1:
        what = "is there more than once" if column in header else "is not there"
        raise BadRecord(f"column {column!r} {what}; the columns are {', '.join(map(repr, header))}")
    return header.index(column)


def _read_ndjson(text: str, column: str) -> Records:
    records: list[str] = []
    weights: list[float] = []
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadRecord(f"line {number}: not JSON ({error}); each line is one object") from None
        if not isinstance(record, dict):
            raise BadRecord(f"line {number}: not an object; each line is one object like {{{column!r}: 1.5}}")
        if column not in record:
            raise BadRecord(f"line {number}: no field {column!r}; the fields are {', '.join(map(repr, record))}")
        value = record[column]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadRecord(f"line {number}, column {column!r}: the weight {value!r} is not a number")
        records.append(line)
        weights.append(_weight(str(value), number, column))
    return Records("", records, weights)


def _weight(text: str, line: int, column: str) -> float:
    try:
        weight = float(text) if "_" not in text else math.nan  # Python's 1_000 is no number in data
    except ValueError:
        raise BadRecord(f"line {line}, column {column!r}: the weight {text!r} is not a number") from None
    if not 0.0 <= weight < math.inf:
        raise BadRecord(f"line {line}, column {column!r}: the weight {text} must be finite and not negative")
    return weight
