"""Blocks of rows: how they are computed, how their items lie in arrays, and the memory of these arrays."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]  # float32 or float64
Doubles = npt.NDArray[np.float64]
Items = npt.NDArray[np.int32]
Index = tuple[Any, Any]

LARGEST_SHORT_ROW = 128
FEWEST_ROWS_ACROSS = 256
FEWEST_STEPS_ACROSS = 4  # below, transposing costs more than it saves
LONGEST_PART = 1024  # of a sum: its error in float32 grows with the length; OpenBLAS starts threads from 10,000
ITEMS_IN_PART = 10  # the same, where items are added one after the other
ALIGNMENT = 64  # bytes; where NumPy's 16 split vectors over cache lines, a pass takes up to twice as long
ONES = {dtype: np.ones((), dtype=dtype) for dtype in (np.float32, np.float64)}  # NumPy is slower with a Python float

PLAIN, SHIFTED, EXACT = range(3)


class Path(NamedTuple):
    """How the rows of a block are computed."""

    dtype: Any  # of the recursion: float32 or float64
    start: int  # exponents r / t (PLAIN), (r - max r) / t in float64 (SHIFTED), or that in double-double (EXACT)
    exponent: float | None  # beta, where (1 - p)^beta has a short cut
    moves: bool  # whether another item may come to p > 1/2: beta > 1


class Block(NamedTuple):
    """Rows on the same path."""

    keys: Floats  # (rows, n), contiguous, float32 or float64
    temperature: Doubles  # (rows, 1) or (1, 1)
    path: Path


class Steps(NamedTuple):
    """What a row leaves of its steps, and all that the derivatives need besides the keys. Rows are on the last axis."""

    held: Items  # (k, rows): the item held out in step j; the first is given to the forward pass
    shares: Doubles  # (k, 2, rows): its P, and R
    masses: Doubles  # (k, rows): what p^j was divided by; S from the second on


# --- layouts --------------------------------------------------------------------------------------


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
        self._ones = np.ones((1, n), dtype=dtype)  # their dot product is faster than a sum
        self._parts = -(-n // LONGEST_PART)
        self._whole = n - n % self._parts

    def along(self, per_row: Floats) -> Floats:
        return per_row[..., None]

    def view(self, rows: Floats) -> Floats:
        return rows

    def sum(self, x: Floats) -> Floats:
        return self.dot(x, self._ones)

    def dot(self, x: Floats, y: Floats) -> Floats:
        if self._parts == 1:
            short: Floats = np.vecdot(x, y)
            return short
        whole = self._whole
        x_parts, y_parts = (z[:, :whole].reshape(z.shape[0], self._parts, -1) for z in (x, y))
        total: Doubles = np.add.reduce(np.vecdot(x_parts, y_parts), axis=1, dtype=np.float64)
        if whole < x.shape[1]:
            total += np.vecdot(x[:, whole:], y[:, whole:])
        return total

    def largest(self, x: Floats) -> Floats:
        result: Floats = np.maximum.reduce(x, axis=1)
        return result

    def at(self, rows: Any, items: Any) -> Index:
        return rows, items

    def pick(self, x: Floats, rows: Any) -> Floats:
        picked: Floats = x[rows]
        return picked


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
        total: Floats = np.add.reduce(parts, axis=0)
        return total if self._whole == x.shape[0] else total + np.add.reduce(x[self._whole :], axis=0)

    def dot(self, x: Floats, y: Floats) -> Floats:
        whole = self._whole
        parts = np.einsum("hij,hij->hj", x[:whole].reshape(self._parts), y[:whole].reshape(self._parts))
        total: Floats = np.add.reduce(parts, axis=0)
        return total if whole == x.shape[0] else total + np.einsum("ij,ij->j", x[whole:], y[whole:])

    def largest(self, x: Floats) -> Floats:
        result: Floats = np.maximum.reduce(x, axis=0)
        return result

    def at(self, rows: Any, items: Any) -> Index:
        return items, rows

    def pick(self, x: Floats, rows: Any) -> Floats:
        return np.ascontiguousarray(x[:, rows].T)


def layout_of(rows: int, n: int, k: int, dtype: Any) -> Layout:
    """The faster layout for a block of this shape."""
    if n <= LARGEST_SHORT_ROW and rows >= FEWEST_ROWS_ACROSS and k >= FEWEST_STEPS_ACROSS:
        return ItemsFirst(rows, n)
    return RowsFirst(rows, n, dtype)


class Scratch(threading.local):
    """Named arrays, whose memory the next block of the same call uses again; each thread has its own."""

    def __init__(self) -> None:
        self._memory: dict[str, npt.NDArray[np.uint8]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: Any) -> Floats:
        """An array of any content; the one taken before under this name is gone."""
        return self.take_several(name, 1, shape, dtype)[0]

    def take_several(self, name: str, number: int, shape: tuple[int, ...], dtype: Any) -> list[Floats]:
        """A list of arrays."""
        size = np.dtype(dtype).itemsize
        for length in shape:
            size *= length
        stride = -(-size // ALIGNMENT) * ALIGNMENT
        memory = self._memory.get(name)
        if memory is None or memory.size < number * stride:
            unaligned = np.empty(number * stride + ALIGNMENT, dtype=np.uint8)
            memory = self._memory[name] = unaligned[-unaligned.ctypes.data % ALIGNMENT :]
        return [memory[i * stride : i * stride + size].view(dtype).reshape(shape) for i in range(number)]


# --- a block at work ------------------------------------------------------------------------------


class Work:
    """A block in its layout: its numbers in the dtype of the recursion, and its arrays."""

    def __init__(self, block: Block, k: int, scratch: Scratch) -> None:
        rows, n = block.keys.shape
        self.block, self.k, self._scratch = block, k, scratch
        self.dtype = block.path.dtype
        self.exponent = block.path.exponent
        self.layout: Layout = layout_of(rows, n, k, self.dtype)
        self.one = ONES[self.dtype]
        self.beta: Doubles = 1.0 / block.temperature[:, 0]  # (rows,) or (1,)
        self.beta_along: Floats = self.layout.along(self.beta.astype(self.dtype))

    def take(self, name: str) -> Floats:
        """An array of any content, in the layout."""
        return self._scratch.take(name, self.layout.shape, self.dtype)

    def take_several(self, name: str, number: int) -> list[Floats]:
        """A list of them."""
        return self._scratch.take_several(name, number, self.layout.shape, self.dtype)

    def usable(self, rows: Floats) -> bool:
        """Whether an array (rows, n) is in this layout and dtype as it is."""
        return self.layout.rows_first and rows.dtype == self.dtype

    def read(self, rows: Floats, buffer: Floats) -> Floats:
        """An array (rows, n) in this layout and dtype: itself, or copied to the buffer."""
        if self.usable(rows):
            return rows
        np.copyto(buffer, self.layout.view(rows))
        return buffer

    def output(self, name: str, result: Floats) -> Floats:
        """What to compute `result` (rows, n) in: itself, or a buffer; see `deliver`."""
        return result if self.usable(result) else self.take(name)

    def deliver(self, array: Floats, result: Floats) -> None:
        """Fill `result` (rows, n) from `array`, in the layout, unless it is already there."""
        if array is not result:
            np.copyto(self.layout.view(result), array, casting="same_kind")

    def decay(self, p: Floats, out: Floats) -> None:
        """p (1 - p)^beta in `out`."""
        np.subtract(self.one, p, out)
        if self.exponent is None:
            np.log(out, out)
            np.multiply(out, self.beta_along, out)
            np.exp(out, out)
        elif self.exponent == 0.5:
            np.sqrt(out, out)
        elif self.exponent == 2.0:
            np.multiply(out, out, out)
        elif self.exponent != 1.0:
            _raise_by_products(out, int(self.exponent), self.take("square"))
        np.multiply(out, p, out)

    def decay_held(self, shares: Doubles, out: Doubles | None = None) -> Doubles:
        """P R^beta (rows,)."""
        share, rest = shares
        result: Doubles = np.multiply(share, rest if self.exponent == 1.0 else np.power(rest, self.beta), out)
        return result


def _raise_by_products(c: Floats, exponent: int, square: Floats) -> None:
    np.copyto(square, c)
    remaining = exponent - 1
    while remaining:
        if remaining & 1:
            np.multiply(c, square, c)
        remaining >>= 1
        if remaining:
            np.multiply(square, square, square)
