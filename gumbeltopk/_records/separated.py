"""CSV and TSV: rows as the csv module reads them, with the text of each, from pieces of the input.

Plain rows are taken apart at once (`plain`). The careful way goes by the csv module, row by row, and it alone decides
what is a row and what is wrong with one; the fast way gives up where it is in doubt.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from typing import NamedTuple

from gumbeltopk._records.batches import Batch, Collected, Position
from gumbeltopk._records.pieces import Pieces, decode, first_line_end
from gumbeltopk._records.plain import read_plain
from gumbeltopk._records.weights import BadRecord, listed, parse_weight

DELIMITERS = {"csv": ",", "tsv": "\t"}
BYTE_ORDER_MARK = "\ufeff"
LINE_END = r"\r\n?|\n"
# Lines of a text that ends with a line end. (io.StringIO would do, but it takes four bytes a character.)
LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)")
LONGEST_FIELD = 2**31 - 1  # all that a C long holds on every system; the default of csv is 131072
CAREFUL_BYTES = 1 << 16  # taken row by row before the fast way is tried again
ADVICE = "check its quotes and --format"


class Row(NamedTuple):
    """Number of its first line in the text, from 0; text; fields, or what is wrong."""

    line: int
    text: str
    fields: list[str]
    complaint: str = ""
    is_cut_short: bool = False  # the text ended within quotes


class TableReader:
    """A table with a header, of which all rows have the same number of fields."""

    def __init__(self, pieces: Pieces, delimiter: str, column: str, *, skip: bool = False) -> None:
        self._pieces = pieces
        self._delimiter = delimiter
        self._column = column
        self._skip = skip
        self._line = 0
        self._line_end = ""
        self.header = ""
        self.names: list[str] = []

    def begin(self) -> None:
        """Read the header."""
        while True:
            text = decode(self._pieces.next(lone_returns=True), 0)
            is_last = self._pieces.at_end
            mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
            self._line_end = first_line_end(text, LINE_END)
            body = self._with_line_end(text[len(mark) :], is_last)
            with _long_fields():
                row = next(_split_rows(body, self._delimiter), None)
            if is_last or (row is not None and not row.is_cut_short):
                break
            self._pieces.give_back(text.encode("utf-8"), wants_more=True)
        if row is None:
            raise BadRecord("the input is empty; it needs a header line")
        if row.complaint:
            raise BadRecord(f"the record that begins in line {row.line + 1}: {row.complaint}; {ADVICE}")
        length = len(body) - len(body.lstrip("\r\n")) + len(row.text)  # with the empty lines before it
        self._pieces.give_back(text[len(mark) + length :].encode("utf-8"))
        self._line = _count_lines(body[:length])
        self.header, self.names = mark + row.text, row.fields
        self._place = self._find_column()

    def _find_column(self) -> int:
        names, column = self.names, self._column
        if names.count(column) != 1:
            what = "is there more than once; rename one" if column in names else "is not there; check -w and --format"
            raise BadRecord(f"column {column!r} {what} (the columns are {listed(names)})")
        return names.index(column)

    def resume(self, position: Position, header: str, names: list[str]) -> None:
        """Go on, instead of `begin`; the pieces begin at this position."""
        self.header, self.names, self._place = header, names, names.index(self._column)
        self._line, self._line_end = position.line, position.line_end

    def position(self) -> Position:
        """Where the next batch begins."""
        return Position(self._pieces.offset, self._line, self._line_end)

    def batches(self) -> Iterator[Batch]:
        """All records, in order."""
        while piece := self._pieces.next(lone_returns=True):
            yield self._read_at_once(piece) or self._read_carefully(piece)

    def _read_at_once(self, piece: bytes) -> Batch | None:
        """The rows that end in a piece, if they are plain."""
        is_last = self._pieces.at_end
        text = piece + self._line_end.encode("ascii") if is_last and not piece.endswith((b"\n", b"\r")) else piece
        found = read_plain(text, self._delimiter, len(self.names), self._place)
        if found is None or (is_last and found[1] < len(text)):  # a quote that is never closed
            return None
        batch, length = found
        self._line += text.count(b"\n", 0, length) + _lone_returns(text[:length])
        self._pieces.give_back(piece[length:], wants_more=length < len(piece))
        return batch

    def _read_carefully(self, piece: bytes) -> Batch:
        """Some rows; none, if the first does not end in this piece."""
        is_last = self._pieces.at_end
        size = CAREFUL_BYTES
        while True:
            length = piece.find(b"\n", size) + 1 or len(piece)
            is_all = length == len(piece)
            part = self._with_line_end(decode(piece[:length], self._line), is_last and is_all)
            batch, rest = self._take_apart(part, is_last and is_all)
            if len(rest) < len(part):
                self._pieces.give_back(rest.encode("utf-8") + piece[length:])
                return batch
            if is_all:
                self._pieces.give_back(piece, wants_more=True)
                return batch
            size *= 2

    def _take_apart(self, text: str, is_last: bool) -> tuple[Batch, str]:
        """The records of a text by the csv module, and what is left of it: a record that does not end in it."""
        collected = Collected(self._skip)
        rest = ""
        with _long_fields():
            for row in _split_rows(text, self._delimiter):
                if row.is_cut_short and not is_last:
                    rest = row.text
                else:
                    self._take(row, collected)
        self._line += _count_lines(text) - _count_lines(rest)
        return collected.batch(), rest

    def _take(self, row: Row, collected: Collected) -> None:
        line = self._line + row.line + 1
        if row.is_cut_short:  # it may be a quote too many in the middle, that has swallowed all the rest
            raise BadRecord(f"the record that begins in line {line}: {row.complaint}; {ADVICE}")
        try:
            weight = self._weight_of(row, line)
        except BadRecord as error:
            collected.refuse(row.text, error)
        else:
            collected.take(row.text, weight)

    def _weight_of(self, row: Row, line: int) -> float:
        if row.complaint:
            raise BadRecord(f"the record that begins in line {line}: {row.complaint}; {ADVICE}")
        if len(row.fields) != len(self.names):
            raise BadRecord(f"line {line}: {len(row.fields)} fields, but the header has {len(self.names)}; {ADVICE}")
        return parse_weight(row.fields[self._place], line, self._column)

    def _with_line_end(self, text: str, is_last: bool) -> str:
        """The last record may be written before others, so it needs a line end: that of the first line."""
        return text + self._line_end if is_last and text and text[-1] not in "\r\n" else text


def _split_rows(text: str, delimiter: str) -> Iterator[Row]:
    """The rows of a text that ends with a line end; empty lines are no rows."""
    lines: list[str] = []  # those that the reader has taken for the row at hand: quoted fields may have line ends
    is_used_up = False

    def tapped() -> Iterator[str]:
        nonlocal is_used_up
        for match in LINE.finditer(text):
            lines.append(match.group())
            yield lines[-1]
        is_used_up = True

    reader = csv.reader(tapped(), delimiter=delimiter, strict=True)
    while True:
        fields: list[str] = []
        complaint = ""
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            complaint = str(error)
        if fields or complaint:
            yield Row(reader.line_num - len(lines), "".join(lines), fields, complaint, is_used_up)
        lines.clear()


def _lone_returns(text: bytes) -> int:
    return text.count(b"\r") - text.count(b"\r\n") if b"\r" in text else 0


def _count_lines(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    # The csv module has this setting for the whole process only.
    usual = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(usual)
