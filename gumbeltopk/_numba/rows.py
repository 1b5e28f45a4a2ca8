"""Buffers of rows, and the passes over them, compiled.

A row of more than SHORT items has a buffer of its own. Shorter rows are put together, FOUR to a buffer, one every
DISTANCE items: their sums, and what is done with these between two passes, do not wait for each other. Buffers end with
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

from gumbeltopk._numba.compiling import Array, exact, inner, maker
from gumbeltopk._numba.exponentials import exponential
from gumbeltopk._numba.powers import Power
from gumbeltopk._numpy.direct_layouts import Steps

FOUR = 4
SHORT = 512
LANES = 32  # four registers of 256 bits in float32: what the compiler takes at a time
DISTANCE = SHORT + LANES  # no power of 2, at which rows and states would meet in the cache
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
def buffer_size(n: int) -> int:
    return FOUR * DISTANCE if n <= SHORT else -(-n // LANES) * LANES


@maker
def new_buffer(n: int, dtype: Any) -> Array:
    """Of zeros."""
    return np.zeros(buffer_size(n), dtype)


@maker
def row_of(buffer: Array, place: Place, r: int) -> Array:
    """Row r, with its zeros."""
    return buffer[r * DISTANCE : r * DISTANCE + place.length]


@inner
def clear_row(row: Array) -> None:
    for i in range(row.size):
        row[i] = 0


@inner
def clear(buffer: Array, place: Place) -> None:
    for r in range(FOUR if place.together else 1):
        clear_row(row_of(buffer, place, r))


@inner
def copy(buffer: Array, place: Place, out: Array) -> None:
    for r in range(FOUR if place.together else 1):
        copy_row(row_of(buffer, place, r), row_of(out, place, r))


@inner
def copy_row(row: Array, out: Array) -> None:
    for i in range(row.size):
        out[i] = row[i]


@inner
def copy_row_scaled(row: Array, factor: Any, out: Array) -> None:
    for i in range(out.size):
        out[i] = row[i] * factor


@inner
def copy_row_centred(row: Array, centre: Any, keys: bool, out: Array) -> None:
    zero = out.dtype.type(0)
    for i in range(row.size):
        value = out.dtype.type(row[i])
        out[i] = zero if keys and value == -math.inf else value - centre


@inner
def load(rows: Array, place: Place, buffer: Array) -> None:
    """Put rows into a buffer. Zeros behind them stay zeros; rows that are absent are left as they are."""
    for r in range(place.count):
        copy_row(rows[place.first + r], row_of(buffer, place, r))


@inner
def copy_row_of_exponentials(keys: Array, beta: Any, out: Array) -> None:
    for i in range(keys.size):
        out[i] = exponential(keys[i] * beta)


@inner
def load_weights(weights: Array, plain: bool, place: Place, power: Power, buffer: Array) -> None:
    """The same for the weights of the first softmax, or for the keys r whose exp(beta r) are `plain` enough to be."""
    if not plain:
        load(weights, place, buffer)
        return
    for r in range(place.count):
        row = place.first + r
        beta = np.float32(power.beta[row if power.beta.size > 1 else 0])
        copy_row_of_exponentials(weights[row], beta, row_of(buffer, place, r))


@inner
def load_centred(rows: Array, place: Place, steps: Steps, buffer: Array, keys: bool) -> None:
    """The same, less the values at the items held out first; 0 for -inf, if these are `keys`."""
    for r in range(place.count):
        own = rows[place.first + r]
        centre = buffer.dtype.type(own[steps.held[0, place.first + r]])
        copy_row_centred(own, centre, keys, row_of(buffer, place, r))


@inner
def unload(buffer: Array, place: Place, factor: Any, rows: Array) -> None:
    """Take rows out, times a factor each."""
    for r in range(place.count):
        copy_row_scaled(row_of(buffer, place, r), factor[r], rows[place.first + r])


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
    for r in range(place.count):
        sums[r] = dot_of_row(row_of(x, place, r), row_of(y, place, r))


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
        for i in range(p.size):
            square[i] = c[i]
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
