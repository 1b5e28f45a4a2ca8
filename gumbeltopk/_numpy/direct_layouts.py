"""How the items of a block of rows lie in its arrays, and the buffers of these arrays."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = Any  # an array of float32 or float64
Index = tuple[Any, Any]

LONGEST_PART = 1024  # of a dot product: the error of a sum in float32 grows with its length
CACHE_LINE = 64
LARGEST_SHORT_ROW = 128
FEWEST_ROWS_ACROSS = 256
ALIGNMENT = 64  # bytes: a cache line; NumPy aligns by 16, and then a pass over three arrays takes twice as long
ITEMS_IN_PART = 10  # the same, where items are added one after the other
FEWEST_STEPS_ACROSS = 4  # below, transposing costs more than it saves


class Layout(Protocol):
    """The operations of a step that depend on the layout. A result per row is (rows,) in every layout."""

    shape: tuple[int, int]
    rows: npt.NDArray[np.intp]
    rows_first: bool

    def along(self, per_row: Floats) -> Floats:
        """Numbers (..., rows), ready to broadcast over the items."""

    def view(self, rows: Floats) -> Floats:
        """An array (rows, n) as seen in this layout."""

    def sum(self, x: Floats) -> Floats:
        """Sum over the items."""

    def dot(self, x: Floats, y: Floats) -> Floats:
        """Sum of x y over the items."""

    def largest(self, x: Floats) -> Floats:
        """Maximum over the items."""

    def at(self, rows: Any, items: Any) -> Index:
        """The index of one item in each of some rows."""

    def pick(self, x: Floats, rows: Any) -> Floats:
        """A copy (some, n) of some rows."""


class RowsFirst:
    """(rows, n)."""

    rows_first = True

    def __init__(self, rows: int, n: int, dtype: Any) -> None:
        self.shape = (rows, n)
        self.rows = np.arange(rows)
        self._ones = np.ones((1, n), dtype=dtype)
        self._parts = -(-n // LONGEST_PART)

    def along(self, per_row: Floats) -> Floats:
        return per_row[..., None]

    def view(self, rows: Floats) -> Floats:
        return rows

    def sum(self, x: Floats) -> Floats:
        return self.dot(x, self._ones)

    def dot(self, x: Floats, y: Floats) -> Floats:
        if self._parts == 1:
            return np.vecdot(x, y)
        length = self.shape[1] // self._parts
        whole = length * self._parts
        x_parts, y_parts = (z[:, :whole].reshape(z.shape[0], self._parts, length) for z in (x, y))
        total = np.add.reduce(np.vecdot(x_parts, y_parts), axis=1, dtype=np.float64)
        return total if whole == self.shape[1] else total + np.vecdot(x[:, whole:], y[:, whole:])

    def largest(self, x: Floats) -> Floats:
        return np.maximum.reduce(x, axis=1)

    def at(self, rows: Any, items: Any) -> Index:
        return rows, items

    def pick(self, x: Floats, rows: Any) -> Floats:
        return x[rows]


class ItemsFirst:
    """(n, rows): for many short rows, where a pass row by row would stop at the end of each row."""

    rows_first = False

    def __init__(self, rows: int, n: int) -> None:
        self.shape = (n, rows)
        self.rows = np.arange(rows)
        self._whole = n - n % ITEMS_IN_PART
        self._parts = (n // ITEMS_IN_PART, ITEMS_IN_PART, rows)

    def along(self, per_row: Floats) -> Floats:
        return per_row[..., None, :]

    def view(self, rows: Floats) -> Floats:
        return rows.T

    def sum(self, x: Floats) -> Floats:
        parts = np.add.reduce(x[: self._whole].reshape(self._parts), axis=1)
        total = np.add.reduce(parts, axis=0)
        return total if self._whole == x.shape[0] else total + np.add.reduce(x[self._whole :], axis=0)

    def dot(self, x: Floats, y: Floats) -> Floats:
        whole = self._whole
        parts = np.einsum("hij,hij->hj", x[:whole].reshape(self._parts), y[:whole].reshape(self._parts))
        total = np.add.reduce(parts, axis=0)
        return total if whole == x.shape[0] else total + np.einsum("ij,ij->j", x[whole:], y[whole:])

    def largest(self, x: Floats) -> Floats:
        return np.maximum.reduce(x, axis=0)

    def at(self, rows: Any, items: Any) -> Index:
        return items, rows

    def pick(self, x: Floats, rows: Any) -> Floats:
        return np.ascontiguousarray(x[:, rows].T)


def _layout(rows: int, n: int, k: int, dtype: Any) -> Layout:
    """The faster layout for a block of this shape."""
    if n <= LARGEST_SHORT_ROW and rows >= FEWEST_ROWS_ACROSS and k >= FEWEST_STEPS_ACROSS:
        return ItemsFirst(rows, n)
    return RowsFirst(rows, n, dtype)


class Scratch:
    """What the blocks of one call have in common: named buffers and layouts."""

    def __init__(self) -> None:
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}
        self._layouts: dict[tuple[Any, ...], Layout] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: Any) -> Floats:
        """An array of any content; the one taken before under this name is gone."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = np.empty(size + CACHE_LINE, dtype=np.uint8)
            address = buffer.__array_interface__["data"][0]
            buffer = self._buffers[name] = buffer[-address % CACHE_LINE :]
        return buffer[:size].view(dtype).reshape(shape)

    def layout(self, rows: int, n: int, k: int, dtype: Any) -> Layout:
        """The layout for blocks of this shape."""
        shape = (rows, n, k, dtype)
        if shape not in self._layouts:
            self._layouts[shape] = _layout(*shape)
        return self._layouts[shape]
