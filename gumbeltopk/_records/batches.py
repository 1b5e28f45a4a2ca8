"""What a reader hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np

Weights = np.ndarray[Any, np.dtype[np.float64]]
Letters = np.ndarray[Any, np.dtype[np.uint8]]
Places = np.ndarray[Any, np.dtype[np.intp]]


class Position(NamedTuple):
    """Where a record begins: bytes (rows in Parquet) and lines before it; and the line end of the first line."""

    offset: int
    line: int
    line_end: str


class Batch(NamedTuple):
    """Consecutive records, with their line ends; a skipped one weighs 0, so that all keep their numbers."""

    weights: Weights
    records: Sequence[bytes]
    skipped: int = 0
    complaint: str = ""  # about the first that was skipped


class Slices(Sequence[bytes]):
    """Records as slices of a piece: only those that are asked for become objects of their own."""

    def __init__(self, piece: bytes, starts: Places, ends: Places) -> None:
        self._piece, self._starts, self._ends = piece, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return Slices(self._piece, self._starts[index], self._ends[index])
        return self._piece[self._starts[index] : self._ends[index]]


class Encoded(Sequence[bytes]):
    """Records that were taken apart as text."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return Encoded(self._texts[index])
        return self._texts[index].encode("utf-8")


class Collected:
    """Weights and texts of a batch that is taken record by record, and what to do about bad ones."""

    def __init__(self, skip: bool) -> None:
        self._skip = skip
        self._weights: list[float] = []
        self._texts: list[str] = []
        self._skipped = 0
        self._complaint = ""

    def take(self, text: str, weight: float) -> None:
        """A good record."""
        self._weights.append(weight)
        self._texts.append(text)

    def refuse(self, text: str, error: ValueError) -> None:
        """A bad one: it is raised, or counted and given weight 0."""
        if not self._skip:
            raise error
        self._skipped += 1
        self._complaint = self._complaint or str(error)
        self.take(text, 0.0)

    def batch(self) -> Batch:
        """All of them."""
        return Batch(np.asarray(self._weights, dtype=np.float64), Encoded(self._texts), self._skipped, self._complaint)
