"""Buffers of rows, and the passes over them, compiled.

A row of more than SHORT items has a buffer of its own. Shorter rows are put together, FOUR to a buffer, at a distance
of SHORT: their sums, and what is done with these between two passes, do not wait for each other. Buffers end with
zeros, up to a multiple of LANES, so that there are no remainders to do item by item. What happens to a row depends
neither on its neighbours nor on its place.

Sums are taken over PART items in the dtype of the recursion, and of these in float64.

The loops may be reordered (see `compiling`). That does no harm to a complement 1 - p: with p <= 1/2 no order of 1, p
and p^2 cancels, and R, the complement of the item held out, is a sum of positive numbers. But p (1 - p)^beta is
computed exactly as it is written, so that the states that a derivative makes again are those of the forward pass to the
last bit: where all items are tied, errors of the same sign in all of them would add up.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from gumbeltopk._numba.compiling import Array, exact, inner
from gumbeltopk._numba.powers import Power

FOUR = 4
SHORT = 512
LANES = 32  # four registers of 256 bits in float32: what the compiler takes at a time
PART = 2048


class Place(NamedTuple):
    """Which rows are in a buffer, and how they lie."""

    first: Any
    count: Any
    length: Any  # of a row with its zeros
    together: Any  # whether there are FOUR, some of which may be absent


@inner
def rows_together(n: int) -> int:
    return FOUR if n <= SHORT else 1


@inner
def place_of(first: int, rows: int, n: int) -> Place:
    return Place(first, min(rows_together(n), rows - first), -(-n // LANES) * LANES, n <= SHORT)


@inner
def take_beta(power: Power, place: Place, beta: Array) -> None:
    """beta of each row."""
    for r in range(place.count):
        beta[r] = power.beta[place.first + r if power.beta.size > 1 else 0]


@inner
def new_buffer(n: int, dtype: Any) -> Array:
    """Of zeros."""
    return np.zeros(FOUR * SHORT if n <= SHORT else -(-n // LANES) * LANES, dtype)


@inner
def row_of(buffer: Array, place: Place, r: int) -> Array:
    """Row r, with its zeros."""
    return buffer[r * SHORT : r * SHORT + place.length]


@inner
def load(rows: Array, place: Place, buffer: Array) -> None:
    """Put rows into a buffer, and zeros around them."""
    buffer[:] = 0
    for r in range(place.count):
        for i in range(rows.shape[1]):
            buffer[r * SHORT + i] = rows[place.first + r, i]


@inner
def load_centred(rows: Array, place: Place, held: Array, buffer: Array, keys: bool) -> None:
    """The same, less the values at the items held out first; 0 for -inf, if these are `keys`."""
    buffer[:] = 0
    for r in range(place.count):
        row = place.first + r
        centre = buffer.dtype.type(rows[row, held[0, row]])
        for i in range(rows.shape[1]):
            value = buffer.dtype.type(rows[row, i])
            vanished = keys and value == -math.inf
            buffer[r * SHORT + i] = buffer.dtype.type(0) if vanished else value - centre


@inner
def unload(buffer: Array, place: Place, factor: Any, rows: Array) -> None:
    """Take rows out, times a factor each."""
    for r in range(place.count):
        for i in range(rows.shape[1]):
            rows[place.first + r, i] = buffer[r * SHORT + i] * factor[r]


# --- sums -----------------------------------------------------------------------------------------------


@inner
def dot_of_part(x: Array, y: Array) -> Any:
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@inner
def dot_of_row(x: Array, y: Array) -> float:
    total = 0.0
    for first in range(0, x.size, PART):
        total += dot_of_part(x[first : first + PART], y[first : first + PART])
    return total


@inner
def dot(x: Array, y: Array, place: Place, sums: Array) -> None:
    """The sum of x y of each row."""
    if not place.together:
        sums[0] = dot_of_row(x, y)
        return
    for r in range(place.count):
        total = x.dtype.type(0)
        for i in range(place.length):
            total += x[r * SHORT + i] * y[r * SHORT + i]
        sums[r] = total


@inner
def sum_of_part(x: Array) -> Any:
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i]
    return total


@inner
def sum_of_row(x: Array) -> float:
    total = 0.0
    for first in range(0, x.size, PART):
        total += sum_of_part(x[first : first + PART])
    return total


# --- powers of 1 - p ------------------------------------------------------------------------------------


@inner
def subtract_series(p: Array, constant: Any, series: Array, out: Array) -> None:
    """constant - p series(4 p - 1)."""
    one, four = p.dtype.type(1), p.dtype.type(4)
    if p.itemsize == 4:  # the numbers of terms are constants, for the compiler
        for i in range(p.size):
            y = four * p[i] - one
            value = series[0]
            for term in range(1, 10):
                value = value * y + series[term]
            out[i] = constant - p[i] * value
    else:
        for i in range(p.size):
            y = four * p[i] - one
            value = series[0]
            for term in range(1, 20):
                value = value * y + series[term]
            out[i] = constant - p[i] * value


@inner
def raise_complements(p: Array, power: Power, own: int, c: Array, square: Array) -> None:
    """(1 - p)^beta in `c`."""
    one = p.dtype.type(1)
    if power.whole == 0:
        subtract_series(p, one, power.series[own], c)
        for _ in range(power.squarings[own]):
            for i in range(p.size):
                c[i] *= c[i]
        return
    for i in range(p.size):
        c[i] = one - p[i]
    remaining = power.whole
    while remaining & 1 == 0:
        for i in range(p.size):
            c[i] *= c[i]
        remaining >>= 1
    if remaining > 1:
        square[: p.size] = c
    while remaining > 1:
        remaining >>= 1
        for i in range(p.size):
            square[i] *= square[i]
        if remaining & 1:
            for i in range(p.size):
                c[i] *= square[i]


@exact
def decay(p: Any, one: Any) -> Any:
    """p (1 - p)."""
    return p * (one - p)


@exact
def product(p: Any, c: Any) -> Any:
    """p c, neither reordered nor in one rounding with what follows."""
    return p * c
