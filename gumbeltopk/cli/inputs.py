"""The inputs of a run: opened, told apart from others, and found again at the place where a run was interrupted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gumbeltopk._records import FORMATS, Pieces
from gumbeltopk.cli.failures import BAD_INPUT, FAILED, Failure, reason

STANDARD_INPUT = "-"
BYTES_AT_A_TIME = 1 << 18
COMPARED_BYTES = 1 << 16  # at both ends of a file, and before the place where a run goes on


def common_format(paths: list[str], chosen: str | None) -> str:
    """The format that was asked for, or that all names end in."""
    if chosen:
        return chosen
    forms = {FORMATS.get(Path(path).suffix.lower(), "csv"): path for path in paths}
    if len(forms) > 1:
        which = ", ".join(f"{path} ({form})" for form, path in sorted(forms.items()))
        raise Failure(f"the inputs are of several formats: {which}; give --format, or one format at a time", BAD_INPUT)
    return next(iter(forms))


class Place(NamedTuple):
    """A place in an input and, so that it is found again in the same input only, a digest.

    In a file the digest is that of the bytes before `offset`. A stream has to be read again: there it is that of all
    bytes up to `read_bytes`, which is as far as it had been read.
    """

    offset: int
    read_bytes: int
    digest: str


class Input:
    """A file, or standard input."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "standard input" if path == STANDARD_INPUT else path
        self.is_stream = path == STANDARD_INPUT or not _is_regular(path)

    def size(self) -> int | None:
        """In bytes; None for a stream."""
        with self._named():
            return None if self.is_stream else os.path.getsize(self.path)

    def identity(self) -> dict[str, Any]:
        """What tells the file from others: its size and its ends. Of a stream nothing is known before it is read."""
        if self.is_stream:
            return {"stream": True}
        with self._named(), open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(file.read(COMPARED_BYTES))
            file.seek(max(0, size - COMPARED_BYTES))
            digest.update(file.read(COMPARED_BYTES))
        return {"bytes": size, "ends": digest.hexdigest()}

    @contextlib.contextmanager
    def opened(self, hashed: bool) -> Iterator[Source]:
        """The input, from its beginning; a stream is hashed on request."""
        with contextlib.ExitStack() as stack:
            if self.path == STANDARD_INPUT:
                if sys.stdin is None:
                    raise Failure("standard input is closed; name a FILE, or pipe the records in", FAILED)
                file: BinaryIO = sys.stdin.buffer
            else:
                with self._named():
                    file = stack.enter_context(open(self.path, "rb"))
            yield Source(self, file, hashed)

    def digest_before(self, offset: int) -> str:
        """Of the bytes of a file before this place."""
        with self._named(), open(self.path, "rb") as file:
            file.seek(max(0, offset - COMPARED_BYTES))
            return hashlib.sha256(file.read(min(offset, COMPARED_BYTES))).hexdigest()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Failure(f"{self.name}: {reason(error)}", FAILED) from None


class Source:
    """An open input."""

    def __init__(self, origin: Input, file: BinaryIO, hashed: bool) -> None:
        self._origin = origin
        self._file = file
        self._hash = hashlib.sha256() if hashed and origin.is_stream else None

    def read(self, size: int) -> bytes:
        """The next bytes, b"" at the end."""
        data = self._file.read(size)
        if self._hash is not None:
            self._hash.update(data)
        return data

    def place(self, pieces: Pieces) -> Place:
        """The place that the reader has come to."""
        digest = self._origin.digest_before(pieces.offset) if self._hash is None else self._hash.hexdigest()
        return Place(pieces.offset, pieces.read_bytes, digest)

    def pieces_from(self, place: Place) -> Pieces:
        """The input from this place on."""
        if not self._origin.is_stream:
            self._file.seek(place.offset)
            self._check(place, self._origin.digest_before(place.offset))
            return Pieces(self, offset=place.offset)
        left = place.offset
        while left and (data := self.read(min(left, BYTES_AT_A_TIME))):
            left -= len(data)
        rest = b""
        while len(rest) < place.read_bytes - place.offset and (
            data := self.read(place.read_bytes - place.offset - len(rest))
        ):
            rest += data
        self._check(place, "" if self._hash is None else self._hash.hexdigest())
        return Pieces(self, offset=place.offset, rest=rest)

    def _check(self, place: Place, digest: str) -> None:
        if digest != place.digest:
            raise Failure(
                f"{self._origin.name}: its first {place.read_bytes} bytes are not those of the interrupted run; give "
                "the same input from its beginning, or delete the --state file to begin anew",
                BAD_INPUT,
            )


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # opening it will say what is wrong
