"""The forward pass of successive softmax on rows that stay in cache, compiled."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from gumbeltopk._numba.compiling import Array, inner, maker
from gumbeltopk._numba.powers import Power
from gumbeltopk._numba.rows import (
    DISTANCE,
    FOUR,
    PART,
    Place,
    clear,
    decay,
    load_weights,
    new_buffer,
    place_of,
    product,
    raise_complements,
    row_of,
    rows_together,
    sum_of_row,
    take_beta,
    unload,
)
from gumbeltopk._numpy.direct_layouts import Steps

SMALLEST_REST = 1e-200  # the derivatives divide by R


# --- passes over rows: scale p, add it to the total, replace it by p (1 - p)^beta, and sum that -----------


@inner
def step_of_item(p: Array, i: int, scale: Any, total: Array) -> Any:
    state = p[i] * scale
    total[i] += state
    weight = decay(state, p.dtype.type(1))
    p[i] = weight
    return weight


@inner
def step_of_four(p: Array, scales: Array, total: Array, length: int, sums: Array) -> None:
    """FOUR rows, for beta = 1."""
    scale_0, scale_1, scale_2, scale_3 = scales[0], scales[1], scales[2], scales[3]
    sum_0 = sum_1 = sum_2 = sum_3 = p.dtype.type(0)
    for i in range(length):
        sum_0 += step_of_item(p, i, scale_0, total)
        sum_1 += step_of_item(p, i + DISTANCE, scale_1, total)
        sum_2 += step_of_item(p, i + 2 * DISTANCE, scale_2, total)
        sum_3 += step_of_item(p, i + 3 * DISTANCE, scale_3, total)
    sums[0], sums[1], sums[2], sums[3] = sum_0, sum_1, sum_2, sum_3


@inner
def step_of_part(p: Array, scale: Any, total: Array) -> Any:
    others = p.dtype.type(0)
    for i in range(p.size):
        others += step_of_item(p, i, scale, total)
    return others


@inner
def step_of_power_1(p: Array, scales: Array, total: Array, place: Place, sums: Array) -> None:
    """For beta = 1. It does not see `Power`, whose arrays cost a count of references wherever it is handed on."""
    if place.together:
        step_of_four(p, scales, total, place.length, sums)
        return
    sums[0] = 0.0
    for first in range(0, p.size, PART):
        sums[0] += step_of_part(p[first : first + PART], scales[0], total[first : first + PART])


@inner
def scale_and_add(p: Array, scale: Any, total: Array) -> None:
    for i in range(p.size):
        p[i] *= scale
        total[i] += p[i]


@inner
def multiply_and_sum(p: Array, c: Array) -> Any:
    others = p.dtype.type(0)
    for i in range(p.size):
        weight = product(p[i], c[i])
        p[i] = weight
        others += weight
    return others


@inner
def step_of_row(p: Array, scale: Any, total: Array, power: Power, own: int, c: Array, square: Array) -> float:
    others = 0.0
    for first in range(0, p.size, PART):
        part = p[first : first + PART]
        scale_and_add(part, scale, total[first : first + PART])
        raise_complements(part, power, own, c[: part.size], square[: part.size])
        others += multiply_and_sum(part, c[: part.size])
    return others


@inner
def step_of_any_power(
    p: Array, scales: Array, total: Array, place: Place, power: Power, c: Array, square: Array, sums: Array
) -> None:
    for r in range(place.count):
        own = place.first + r if power.beta.size > 1 else 0
        sums[r] = step_of_row(row_of(p, place, r), scales[r], row_of(total, place, r), power, own, c, square)


# --- the item held out ------------------------------------------------------------------------------------


@inner
def first_step(p: Array, place: Place, steps: Steps, scales: Array) -> None:
    """Hold out the largest item of each row, whose weights are in p."""
    for r in range(place.count):
        own, row = row_of(p, place, r), place.first + r
        held = steps.held[0, row]
        top = np.float64(own[held])
        own[held] = 0
        others = sum_of_row(own)
        mass = top + others
        steps.masses[0, row], scales[r] = mass, 1.0 / mass
        steps.shares[0, 0, row], steps.shares[0, 1, row] = top / mass, others / mass


@inner
def next_step(place: Place, j: int, sums: Array, beta: Array, steps: Steps, scales: Array) -> None:
    """Record step j, with the items held out in the step before, and find what to scale p by."""
    held, shares, masses = steps.held, steps.shares, steps.masses
    for r in range(place.count):
        row = place.first + r
        share, rest = shares[j - 1, 0, row], shares[j - 1, 1, row]
        top = share * (rest if beta[r] == 1.0 else rest ** beta[r])
        mass = top + sums[r]
        scale = 1.0 / mass
        held[j, row], masses[j, row], scales[r] = held[j - 1, row], mass, scale
        shares[j, 0, row], shares[j, 1, row] = top * scale, sums[r] * scale


@inner
def number_above(p: Array, threshold: Any) -> int:
    number = 0
    for i in range(p.size):
        number += p[i] > threshold
    return number


@inner
def index_above(p: Array, threshold: Any) -> int:
    """Of the item above a threshold; -1 if there is none."""
    if number_above(p, threshold) > 0:
        for i in range(p.size):
            if p[i] > threshold:
                return i
    return -1


@inner
def move(p: Array, total: Array, place: Place, j: int, steps: Steps, held_since: Array) -> None:
    """Where another item has come to p > 1/2 in step j, hold that one out from here on.

    The one before goes back to its slot, and its shares, all but the last, to the total: what is in the slots will be
    scaled and added to the total in the next step.
    """
    held, shares = steps.held, steps.shares
    for r in range(place.count):
        own, row = row_of(p, place, r), place.first + r
        mass = steps.masses[j, row]
        if not mass > 0.0:  # the row is lost, and may have become NaN
            continue
        new = index_above(own, 0.5 * mass)
        if new >= 0:
            old, largest = held[j, row], np.float64(own[new])
            total[r * DISTANCE + old] += sum_of_shares(shares, row, held_since[r], j)
            own[old], own[new] = shares[j, 0, row] * mass, 0
            held[j, row], held_since[r] = new, j
            shares[j, 0, row], shares[j, 1, row] = largest / mass, sum_of_row(own) / mass


@inner
def sum_of_shares(shares: Array, row: int, first: int, end: int) -> float:
    """Of the steps first .. end - 1."""
    total = 0.0
    for j in range(first, end):
        total += shares[j, 0, row]
    return total


@inner
def product_of_masses(steps: Steps, row: int) -> float:
    """Of all steps but the first; NaN where R has become too small."""
    result, smallest_rest = 1.0, 1.0
    for j in range(1, steps.masses.shape[0]):
        result *= steps.masses[j, row]
        smallest_rest = min(smallest_rest, steps.shares[j - 1, 1, row])
    return result if smallest_rest >= SMALLEST_REST else math.nan


# --- step by step -----------------------------------------------------------------------------------------


class Memory(NamedTuple):
    """Of the rows in a buffer: two buffers, two times (PART,), and (FOUR,) numbers."""

    p: Any
    total: Any
    c: Any
    square: Any
    scales: Any
    ones: Any
    sums: Any
    beta: Any
    held_since: Any


@maker
def new_memory(n: int, dtype: Any) -> Memory:
    return Memory(
        new_buffer(n, dtype),
        new_buffer(n, dtype),
        np.empty(PART, dtype),
        np.empty(PART, dtype),
        np.zeros(FOUR, dtype),
        np.ones(FOUR, dtype),
        np.zeros(FOUR),
        np.ones(FOUR),
        np.zeros(FOUR, np.int64),
    )


@inner
def run(
    weights: Array, plain: bool, power: Power, steps: Steps, place: Place, memory: Memory, a: Array, products: Array
) -> None:
    """Rows that are in a buffer together."""
    p, total, scales, sums, held_since = memory.p, memory.total, memory.scales, memory.sums, memory.held_since
    k = steps.masses.shape[0]
    take_beta(power, place, memory.beta)
    load_weights(weights, plain, place, power, p)
    clear(total, place)
    first_step(p, place, steps, scales)
    moves = False
    for r in range(place.count):
        held_since[r] = 0
        moves = moves or memory.beta[r] > 1.0
    for j in range(1, k):
        if power.whole == 1:
            step_of_power_1(p, scales, total, place, sums)
        else:
            step_of_any_power(p, scales, total, place, power, memory.c, memory.square, sums)
        next_step(place, j, sums, memory.beta, steps, scales)
        if moves:
            move(p, total, place, j, steps, held_since)
    for r in range(place.count):
        row = place.first + r
        scale_and_add(row_of(p, place, r), scales[r], row_of(total, place, r))
        total[r * DISTANCE + steps.held[k - 1, row]] += sum_of_shares(steps.shares, row, held_since[r], k)
        products[row] = product_of_masses(steps, row)
    unload(total, place, memory.ones, a)


def forward_rows(
    weights: Array, plain: bool, power: Power, held: Array, shares: Array, masses: Array, a: Array, products: Array
) -> None:
    """Fill a (rows, n), the records of the steps, and the products of the masses, NaN where digits were lost.

    The weights (rows, n) are those of the first softmax, up to a factor of the row, or, if `plain`, the keys of which
    exp(beta r) is to be taken; `held[0]` is known.
    """
    rows, n = weights.shape
    steps = Steps(held, shares, masses)
    memory = new_memory(n, weights.dtype)
    for first in range(0, rows, rows_together(n)):
        run(weights, plain, power, steps, place_of(first, rows, n), memory, a, products)
