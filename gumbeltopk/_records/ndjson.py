"""NDJSON: one object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from gumbeltopk._records.batches import Batch, Collected, Position
from gumbeltopk._records.pieces import Pieces, decode, first_line_end
from gumbeltopk._records.weights import BadRecord, listed, parse_weight, shown

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LINE_END = r"\r?\n"  # a lone carriage return is white space in JSON
LINE = re.compile(r"[^\n]*\n")
KINDS = {str: "the string", bool: "a truth value", type(None): "null", list: "an array", tuple: "an object"}


class Number(str):
    """A JSON number as it is written: as a Python int or float it could overflow, or take minutes to convert."""


class ObjectReader:
    """Objects with a number among their fields; it has no header."""

    def __init__(self, pieces: Pieces, column: str, *, skip: bool = False) -> None:
        self._pieces = pieces
        self._column = column
        self._skip = skip
        self._line = 0
        self._line_end = ""
        self.header = ""
        self.names: list[str] = []

    def begin(self) -> None:
        """Leave out the byte order mark."""
        piece = self._pieces.next(lone_returns=False)
        self._line_end = first_line_end(piece.decode("latin-1"), LINE_END)
        self._pieces.give_back(piece.removeprefix(BYTE_ORDER_MARK))

    def resume(self, position: Position, header: str, names: list[str]) -> None:
        """Go on, instead of `begin`; the pieces begin at this position."""
        self._line, self._line_end = position.line, position.line_end

    def position(self) -> Position:
        """Where the next batch begins."""
        return Position(self._pieces.offset, self._line, self._line_end)

    def batches(self) -> Iterator[Batch]:
        """All records, in order."""
        while piece := self._pieces.next(lone_returns=False):
            text = decode(piece, self._line)
            if not text.endswith("\n"):  # it is the end
                text += self._line_end
            yield self._read(text)

    def _read(self, text: str) -> Batch:
        collected = Collected(self._skip)
        for match in LINE.finditer(text):
            self._line += 1
            line = match.group()
            if not line.strip():
                continue
            try:
                weight = parse_weight(_find_number(line, self._line, self._column), self._line, self._column)
            except BadRecord as error:
                collected.refuse(line, error)
            else:
                collected.take(line, weight)
        return collected.batch()


def _find_number(line: str, number: int, column: str) -> Number:
    members = _members(line, number, column)
    values = [value for name, value in members if name == column]
    if len(values) != 1:
        what = "is there more than once; rename one" if values else "is not there; check -w, or add it"
        raise BadRecord(f"line {number}: field {column!r} {what} (the fields are {listed([n for n, _ in members])})")
    value = values[0]
    if not isinstance(value, Number):
        kind = KINDS[type(value)]
        as_written = f" {shown(value)}" if isinstance(value, str) else ""
        raise BadRecord(f"line {number}, column {column!r}: the weight is {kind}{as_written}; write a number, unquoted")
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
