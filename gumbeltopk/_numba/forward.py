"""The forward pass of successive softmax on tiles of rows, compiled."""

from __future__ import annotations

import math

import numpy as np

from gumbeltopk._numba.compiling import Array, inner
from gumbeltopk._numba.powers import Power
from gumbeltopk._numba.tiles import (
    LANES,
    PART,
    Buffers,
    Lanes,
    Place,
    add_up,
    decay,
    fill_row,
    flush,
    lanes_of,
    load,
    new_buffers,
    new_tile,
    product,
    raise_complements,
    slot,
    sum_of_row,
    take_lanes,
    unload,
    width_of,
)
from gumbeltopk._numpy.direct_layouts import Steps

SMALLEST_REST = 1e-200  # the derivatives divide by R


@inner
def step_of_power_1(p: Array, scale: Array, total: Array, buffers: Buffers) -> None:
    """Scale p, add it to the total, replace it by p (1 - p), and sum that."""
    one = p.dtype.type(1)
    for first in range(0, p.shape[0], PART):
        for i in range(first, min(first + PART, p.shape[0])):
            for lane in range(LANES):
                state = p[i, lane] * scale[lane]
                total[i, lane] += state
                weight = decay(state, one)
                p[i, lane] = weight
                buffers.part[lane] += weight
        flush(buffers)


@inner
def step_of_any_power(p: Array, scale: Array, total: Array, lanes: Lanes, buffers: Buffers) -> None:
    """The same with p (1 - p)^beta."""
    for first in range(0, p.shape[0], PART):
        end = min(first + PART, p.shape[0])
        for i in range(first, end):
            for lane in range(LANES):
                p[i, lane] *= scale[lane]
                total[i, lane] += p[i, lane]
        raise_complements(p, first, end, lanes, buffers)
        for i in range(first, end):
            for lane in range(LANES):
                weight = product(p[i, lane], buffers.c[i - first, lane])
                p[i, lane] = weight
                buffers.part[lane] += weight
        flush(buffers)


@inner
def record(steps: Steps, j: int, row: int, item: int, top: float, others: float) -> float:
    """Write step j of a row down; returns what to scale p by."""
    mass = top + others
    scale = 1.0 / mass
    steps.held[j, row], steps.masses[j, row] = item, mass
    steps.shares[j, 0, row], steps.shares[j, 1, row] = top * scale, others * scale
    return scale


@inner
def first_step(p: Array, place: Place, steps: Steps, scale: Array, buffers: Buffers) -> None:
    """Hold out the largest item of each row, whose weights are in p."""
    tops = np.empty(place.count)
    for r in range(place.count):
        own = slot(place, r, steps.held[0, place.first + r])
        tops[r] = p[own]
        p[own] = 0
    add_up(p, buffers)
    for r in range(place.count):
        row, others = place.first + r, sum_of_row(buffers.sums, place, r)
        fill_row(scale, place, r, record(steps, 0, row, steps.held[0, row], tops[r], others))


@inner
def largest_of_lanes(p: Array, largest: Array) -> None:
    """The largest p of each lane."""
    largest[:] = 0
    for i in range(p.shape[0]):
        for lane in range(LANES):
            largest[lane] = p[i, lane] if p[i, lane] > largest[lane] else largest[lane]


@inner
def largest_item(p: Array, place: Place, r: int) -> int:
    """The item of row r with the largest p."""
    largest, item = p.dtype.type(0), 0
    for i in range(p.shape[0]):
        for lane in lanes_of(place, r):
            if p[i, lane] > largest:
                largest, item = p[i, lane], i * place.width + lane % place.width
    return item


@inner
def move(
    p: Array, total: Array, place: Place, r: int, old: int, top: float, held_total: float
) -> tuple[int, float, float]:
    """Hold out the largest of the others, and put the item before back into its slot.

    Returns the item, its weight, and the sum of the other weights.
    """
    new = largest_item(p, place, r)
    total[slot(place, r, old)] += held_total
    p[slot(place, r, old)] = top
    top = np.float64(p[slot(place, r, new)])
    p[slot(place, r, new)] = 0
    others = 0.0
    for i in range(p.shape[0]):
        for lane in lanes_of(place, r):
            others += p[i, lane]
    return new, top, others


@inner
def finish(total: Array, p: Array, scale: Array) -> None:
    """Add the last p, scaled."""
    for i in range(p.shape[0]):
        for lane in range(LANES):
            total[i, lane] += p[i, lane] * scale[lane]


@inner
def product_of_masses(steps: Steps, row: int) -> float:
    """Of all steps but the first; NaN where R has become too small."""
    product, smallest_rest = 1.0, 1.0
    for j in range(1, steps.masses.shape[0]):
        product *= steps.masses[j, row]
        smallest_rest = min(smallest_rest, steps.shares[j - 1, 1, row])
    return product if smallest_rest >= SMALLEST_REST else math.nan


def forward_rows(
    weights: Array, power: Power, held: Array, shares: Array, masses: Array, a: Array, products: Array
) -> None:
    """Fill a (rows, n), the records of the steps, and the products of the masses, NaN where digits were lost.

    The weights (rows, n) are those of the first softmax, up to a factor of the row; `held[0]` is known.
    """
    (rows, n), k, dtype = weights.shape, masses.shape[0], weights.dtype
    steps = Steps(held, shares, masses)
    width = width_of(n)
    p, total = new_tile(n, dtype), new_tile(n, dtype)
    scale, largest, held_total, buffers = (
        np.zeros(LANES, dtype),
        np.zeros(LANES, dtype),
        np.empty(LANES),
        new_buffers(dtype),
    )
    for first in range(0, rows, LANES // width):
        place = Place(first, min(LANES // width, rows - first), width)
        lanes = take_lanes(power, place, dtype)
        load(weights, place, p)
        first_step(p, place, steps, scale, buffers)
        held_total[: place.count] = steps.shares[0, 0, first : first + place.count]
        total[:] = 0
        for j in range(1, k):
            buffers.sums[:] = 0
            if power.whole == 1:
                step_of_power_1(p, scale, total, buffers)
            else:
                step_of_any_power(p, scale, total, lanes, buffers)
                largest_of_lanes(p, largest)
            for r in range(place.count):
                row, item = first + r, steps.held[j - 1, first + r]
                share, rest = steps.shares[j - 1, 0, row], steps.shares[j - 1, 1, row]
                beta = power.beta[row if power.beta.size > 1 else 0]
                top, others = share * (rest if beta == 1.0 else rest**beta), sum_of_row(buffers.sums, place, r)
                new_scale = record(steps, j, row, item, top, others)
                if beta > 1.0 and np.max(largest[r * width : (r + 1) * width]) * new_scale > 0.5:
                    item, top, others = move(p, total, place, r, item, top, held_total[r])
                    held_total[r], steps.held[j, row] = 0.0, item
                    steps.shares[j, 0, row], steps.shares[j, 1, row] = top * new_scale, others * new_scale
                held_total[r] += steps.shares[j, 0, row]
                fill_row(scale, place, r, new_scale)
        finish(total, p, scale)
        for r in range(place.count):
            total[slot(place, r, steps.held[k - 1, first + r])] += held_total[r]
            products[first + r] = product_of_masses(steps, first + r)
        unload(total, place, a)
