"""A byte stream in pieces that end with a line end."""

from __future__ import annotations

import re
from typing import Protocol

from gumbeltopk._records.weights import BadRecord

PIECE_BYTES = 1 << 19


class Readable(Protocol):
    """An open binary file."""

    def read(self, size: int, /) -> bytes: ...


class Pieces:
    """Pieces of about PIECE_BYTES, cut after line ends, and what a reader gives back of them."""

    def __init__(self, file: Readable, *, offset: int = 0, rest: bytes = b"") -> None:
        self._file = file
        self._rest = rest
        self._wants_more = False
        self._has_ended = False
        self.read_bytes = offset + len(rest)  # of the stream, so far

    @property
    def offset(self) -> int:
        """Bytes of the stream that were handed over and not given back."""
        return self.read_bytes - len(self._rest)

    @property
    def at_end(self) -> bool:
        """Whether there is nothing after the last piece."""
        return self._has_ended and not self._rest

    def next(self, lone_returns: bool) -> bytes:
        """The next piece, b"" after the last one; `lone_returns` says whether a carriage return alone ends a line.

        Each read is at least as long as what is there: a record of many pieces is looked at a logarithmic number of
        times.
        """
        piece = self._rest
        length = 0 if self._wants_more else _length_of_lines(piece, lone_returns)
        while not length and not self._has_ended:
            data = self._file.read(max(PIECE_BYTES, len(piece)))
            self._has_ended = not data
            self.read_bytes += len(data)
            piece += data
            length = _length_of_lines(piece, lone_returns)
        if self._has_ended:
            length = len(piece)
        self._rest, self._wants_more = piece[length:], False
        return piece[:length]

    def give_back(self, rest: bytes, wants_more: bool = False) -> None:
        """Put the end of the last piece, or all of it, in front of the next one, which may have to be longer."""
        self._rest = rest + self._rest
        self._wants_more = wants_more


def _length_of_lines(piece: bytes, lone_returns: bool) -> int:
    """Of whole lines. A carriage return that comes last may be half of a line end."""
    after_newline = piece.rfind(b"\n") + 1
    after_return = piece.rfind(b"\r", 0, len(piece) - 1) + 1 if lone_returns else 0
    return max(after_newline, after_return)


def decode(piece: bytes, line: int) -> str:
    """The text of a piece that follows `line` lines."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError as error:
        bad_line = line + piece[: error.start].count(b"\n") + 1
        raise BadRecord(
            f"line {bad_line}: byte 0x{piece[error.start]:02x} is not UTF-8; convert the file, for example with "
            "iconv -f latin1 -t utf-8 (or unpack it, if it is compressed)"
        ) from None


def first_line_end(text: str, line_end: str) -> str:
    """That of the first line, or a newline, for a last line that has none."""
    found = re.search(line_end, text)
    return found.group() if found else "\n"
