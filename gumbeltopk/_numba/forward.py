"""The forward pass of successive softmax on rows that stay in cache, compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk._numba.compiling import Array, inner, without_nan
from gumbeltopk._numba.powers import Power
from gumbeltopk._numba.rows import (
    FOUR,
    PART,
    SHORT,
    Place,
    decay,
    load,
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
        sum_1 += step_of_item(p, i + SHORT, scale_1, total)
        sum_2 += step_of_item(p, i + 2 * SHORT, scale_2, total)
        sum_3 += step_of_item(p, i + 3 * SHORT, scale_3, total)
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
def first_step(p: Array, place: Place, held: Array, shares: Array, masses: Array, scales: Array) -> None:
    """Hold out the largest item of each row, whose weights are in p."""
    for r in range(place.count):
        own, row = row_of(p, place, r), place.first + r
        top = np.float64(own[held[0, row]])
        own[held[0, row]] = 0
        others = sum_of_row(own)
        masses[0, row] = top + others
        shares[0, 0, row], shares[0, 1, row] = top / masses[0, row], others / masses[0, row]
        scales[r] = 1.0 / masses[0, row]


@without_nan
def largest_of(p: Array) -> Any:
    largest = p.dtype.type(0)
    for i in range(p.size):
        largest = p[i] if p[i] > largest else largest
    return largest


@inner
def index_of(p: Array, value: Any) -> int:
    for i in range(p.size):
        if p[i] == value:
            return i
    return 0


@inner
def next_step(
    place: Place, j: int, sums: Array, beta: Array, held: Array, shares: Array, masses: Array, scales: Array
) -> None:
    """Record step j, with the items held out in the step before, and find what to scale p by."""
    for r in range(place.count):
        row = place.first + r
        share, rest = shares[j - 1, 0, row], shares[j - 1, 1, row]
        top = share * (rest if beta[r] == 1.0 else rest ** beta[r])
        mass = top + sums[r]
        scale = 1.0 / mass
        held[j, row], masses[j, row], scales[r] = held[j - 1, row], mass, scale
        shares[j, 0, row], shares[j, 1, row] = top * scale, sums[r] * scale


@inner
def move(
    p: Array, total: Array, place: Place, j: int, held: Array, shares: Array, masses: Array, held_since: Array
) -> None:
    """Where another item has come to p > 1/2 in step j, hold that one out from here on.

    The one before goes back to its slot, and its shares, all but the last, to the total: what is in the slots will be
    scaled and added to the total in the next step.
    """
    for r in range(place.count):
        own, row = row_of(p, place, r), place.first + r
        mass = masses[j, row]
        if not mass > 0.0:  # the row is lost, and may have become NaN
            continue
        largest = largest_of(own)
        if largest > 0.5 * mass:
            old, new = held[j, row], index_of(own, largest)
            row_of(total, place, r)[old] += sum_of_shares(shares, row, held_since[r], j)
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
def product_of_masses(shares: Array, masses: Array, row: int) -> float:
    """Of all steps but the first; NaN where R has become too small."""
    result, smallest_rest = 1.0, 1.0
    for j in range(1, masses.shape[0]):
        result *= masses[j, row]
        smallest_rest = min(smallest_rest, shares[j - 1, 1, row])
    return result if smallest_rest >= SMALLEST_REST else math.nan


def forward_rows(
    weights: Array, power: Power, held: Array, shares: Array, masses: Array, a: Array, products: Array
) -> None:
    """Fill a (rows, n), the records of the steps, and the products of the masses, NaN where digits were lost.

    The weights (rows, n) are those of the first softmax, up to a factor of the row; `held[0]` is known.
    """
    (rows, n), k, dtype = weights.shape, masses.shape[0], weights.dtype
    p, total = new_buffer(n, dtype), new_buffer(n, dtype)
    c, square = np.empty(PART, dtype), np.empty(PART, dtype)
    scales, ones, sums, beta = np.zeros(FOUR, dtype), np.ones(FOUR, dtype), np.zeros(FOUR), np.ones(FOUR)
    held_since, moves = np.zeros(FOUR, np.int64), np.max(power.beta) > 1.0
    for first in range(0, rows, rows_together(n)):
        place = place_of(first, rows, n)
        take_beta(power, place, beta)
        load(weights, place, p)
        first_step(p, place, held, shares, masses, scales)
        total[:], held_since[:] = 0, 0
        for j in range(1, k):
            if power.whole == 1:
                step_of_power_1(p, scales, total, place, sums)
            else:
                step_of_any_power(p, scales, total, place, power, c, square, sums)
            next_step(place, j, sums, beta, held, shares, masses, scales)
            if moves:
                move(p, total, place, j, held, shares, masses, held_since)
        for r in range(place.count):
            own_total, row = row_of(total, place, r), first + r
            scale_and_add(row_of(p, place, r), scales[r], own_total)
            own_total[held[k - 1, row]] += sum_of_shares(shares, row, held_since[r], k)
            products[row] = product_of_masses(shares, masses, row)
        unload(total, place, ones, a)
