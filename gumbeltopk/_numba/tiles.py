"""Rows in tiles of LANES numbers abreast, and the passes over a tile.

A tile is (length, LANES). Where rows are short, each lane is a row of its own; a longer row takes several lanes: of its
`width` lanes, item i lies in lane i % width, at i // width. So the vector registers are full whatever n is, what a row
needs stays in the first-level cache, and the scalar work of a step is done for many rows at once. What is not taken is
filled with zeros, which no formula moves. The width depends on n alone and lanes do not mix: a row has the same bits
wherever it stands.

Sums are taken over PART items of a lane in the dtype of the recursion, and of these in float64.

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

LANES = 32  # two or four registers in float32
PART = 16
LONGEST_LANE = 128  # where there are lanes to be had: a few arrays of a tile fit into the first-level cache


class Lanes(NamedTuple):
    """beta of the lanes. (1 - p)^beta by products where beta is a `whole` number, else by its series, squared."""

    beta: Array  # (LANES,) in the dtype of the recursion
    whole: Any  # 0 where beta is none
    squarings: Array  # (LANES,)
    most_squarings: Any
    series: Array  # (terms, LANES) in the dtype of the recursion


class Place(NamedTuple):
    """Which rows are in a tile."""

    first: Any
    count: Any
    width: Any  # lanes of a row


class Buffers(NamedTuple):
    """Memory for what a pass over a tile needs."""

    part: Array  # (LANES,): sums over a part, 0 between passes
    sums: Array  # (LANES,), in float64: what a pass has summed
    c: Array  # (PART, LANES)
    square: Array  # (PART, LANES)


@inner
def width_of(n: int) -> int:
    """How many lanes a row takes."""
    width = 1
    while width < LANES and width * LONGEST_LANE < n:
        width *= 2
    return width


@inner
def new_tile(n: int, dtype: Any) -> Array:
    """A tile of zeros for rows of n items."""
    return np.zeros((-(-n // width_of(n)), LANES), dtype)


@inner
def new_buffers(dtype: Any) -> Buffers:
    return Buffers(
        np.zeros(LANES, dtype), np.zeros(LANES), np.empty((PART, LANES), dtype), np.empty((PART, LANES), dtype)
    )


@inner
def slot(place: Place, r: int, item: int) -> tuple[int, int]:
    """Where an item of row r lies."""
    return item // place.width, r * place.width + item % place.width


@inner
def load(rows: Array, place: Place, tile: Array) -> None:
    """Put rows into a tile, and zeros around them."""
    n, width = rows.shape[1], place.width
    tile[:] = 0
    if width == 1:
        for i in range(n):
            for r in range(place.count):
                tile[i, r] = rows[place.first + r, i]
        return
    for r in range(place.count):
        row, lanes = rows[place.first + r], tile[:, r * width : (r + 1) * width]
        for i in range(n // width):
            for lane in range(width):
                lanes[i, lane] = row[i * width + lane]
        for lane in range(n % width):
            lanes[n // width, lane] = row[n - n % width + lane]


@inner
def unload(tile: Array, place: Place, rows: Array) -> None:
    """The inverse of `load`."""
    n, width = rows.shape[1], place.width
    if width == 1:
        for r in range(place.count):
            for i in range(n):
                rows[place.first + r, i] = tile[i, r]
        return
    for r in range(place.count):
        row, lanes = rows[place.first + r], tile[:, r * width : (r + 1) * width]
        for i in range(n // width):
            for lane in range(width):
                row[i * width + lane] = lanes[i, lane]
        for lane in range(n % width):
            row[n - n % width + lane] = lanes[n // width, lane]


@inner
def lanes_of(place: Place, r: int) -> Any:
    """The lanes of row r."""
    return range(r * place.width, (r + 1) * place.width)


@inner
def sum_of_row(of_lanes: Array, place: Place, r: int) -> float:
    """What the lanes of row r add up to."""
    total = 0.0
    for lane in lanes_of(place, r):
        total += of_lanes[lane]
    return total


@inner
def fill_row(of_lanes: Array, place: Place, r: int, value: Any) -> None:
    """The same number in all lanes of row r."""
    for lane in lanes_of(place, r):
        of_lanes[lane] = value


@inner
def take_lanes(power: Power, place: Place, dtype: Any) -> Lanes:
    """The powers of the lanes."""
    terms = power.series.shape[1]
    lanes = Lanes(
        np.ones(LANES, dtype),
        power.whole,
        np.zeros(LANES, np.int64),
        power.most_squarings,
        np.zeros((terms, LANES), dtype),
    )
    for r in range(place.count):
        own = place.first + r if power.beta.size > 1 else 0
        for lane in lanes_of(place, r):
            lanes.beta[lane] = power.beta[own]
            lanes.squarings[lane] = power.squarings[own]
            for term in range(terms):
                lanes.series[term, lane] = power.series[own, term]
    return lanes


@inner
def spread(series: Array) -> Array:
    """A series (1, terms) for all lanes."""
    in_lanes = np.empty((series.shape[1], LANES), series.dtype)
    for term in range(series.shape[1]):
        in_lanes[term] = series[0, term]
    return in_lanes


@inner
def load_centred(rows: Array, place: Place, held: Array, tile: Array) -> None:
    """Put rows, less their values at the items held out first, into a tile; 0 for keys of -inf."""
    load(rows, place, tile)
    centre = np.zeros(LANES, tile.dtype)
    for r in range(place.count):
        fill_row(centre, place, r, rows[place.first + r, held[0, place.first + r]])
    for i in range(tile.shape[0]):
        for lane in range(LANES):
            tile[i, lane] = tile[i, lane] - centre[lane] if tile[i, lane] > -math.inf else 0.0


# --- sums over the items of each lane -----------------------------------------------------------------


@inner
def flush(buffers: Buffers) -> None:
    """Add the sums of a part to those in float64, and start again."""
    for lane in range(LANES):
        buffers.sums[lane] += buffers.part[lane]
        buffers.part[lane] = 0


@inner
def dot(x: Array, y: Array, buffers: Buffers) -> None:
    """The sum of x y of each lane."""
    part = buffers.part
    buffers.sums[:] = 0
    for first in range(0, x.shape[0], PART):
        for i in range(first, min(first + PART, x.shape[0])):
            for lane in range(LANES):
                part[lane] += x[i, lane] * y[i, lane]
        flush(buffers)


@inner
def add_up(x: Array, buffers: Buffers) -> None:
    """The sum of x of each lane."""
    part = buffers.part
    buffers.sums[:] = 0
    for first in range(0, x.shape[0], PART):
        for i in range(first, min(first + PART, x.shape[0])):
            for lane in range(LANES):
                part[lane] += x[i, lane]
        flush(buffers)


# --- powers of 1 - p ------------------------------------------------------------------------------------


@inner
def subtract_series(p: Array, first: int, end: int, constant: Any, series: Array, out: Array) -> None:
    """constant - p series(4 p - 1) of items first .. end, in a tile of their own."""
    one, four = p.dtype.type(1), p.dtype.type(4)
    for i in range(first, end):
        for lane in range(LANES):
            y = four * p[i, lane] - one
            value = series[0, lane]
            if p.itemsize == 4:  # the numbers of terms are constants, for the compiler
                for term in range(1, 10):
                    value = value * y + series[term, lane]
            else:
                for term in range(1, 20):
                    value = value * y + series[term, lane]
            out[i - first, lane] = constant - p[i, lane] * value


@inner
def raise_complements(p: Array, first: int, end: int, lanes: Lanes, buffers: Buffers) -> None:
    """(1 - p)^beta of items first .. end in `buffers.c`."""
    c, square = buffers.c, buffers.square
    one = p.dtype.type(1)
    if lanes.whole == 0:
        subtract_series(p, first, end, one, lanes.series, c)
        for squaring in range(lanes.most_squarings):
            for i in range(end - first):
                for lane in range(LANES):
                    c[i, lane] *= c[i, lane] if squaring < lanes.squarings[lane] else one
        return
    for i in range(first, end):
        for lane in range(LANES):
            square[i - first, lane] = one - p[i, lane]
            c[i - first, lane] = square[i - first, lane] if lanes.whole & 1 else one
    remaining = lanes.whole >> 1
    while remaining:
        odd = remaining & 1
        for i in range(end - first):
            for lane in range(LANES):
                square[i, lane] *= square[i, lane]
                c[i, lane] *= square[i, lane] if odd else one
        remaining >>= 1


@exact
def decay(p: Any, one: Any) -> Any:
    """p (1 - p)."""
    return p * (one - p)


@exact
def product(p: Any, c: Any) -> Any:
    """p c, neither reordered nor in one rounding with what follows."""
    return p * c
