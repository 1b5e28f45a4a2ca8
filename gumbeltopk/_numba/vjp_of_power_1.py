"""The vector-Jacobian product of successive softmax for t = 1, compiled: one pass over a row in each step.

For beta = 1 the adjoint x of log p^{j+1} is always a multiple of p (1 - p), p = p^j. Without these factors it is v, the
adjoint of the weights of step j + 1 on the scale of those of step j:

    x = p (1 - p) v,   x / (1 - p) = p v,
    t = G - p v,   y = sum p t,   v <- (v (1 - 2 p) + G - y) / S,

where S is the mass of step j, the sum of p (1 - p) in the step before. Nothing is divided by complements, and the v of
a step and the sum for the next one are made together. In the first step, at the end, x = p (v (1 - 2 p) + G - y).

v grows like 1 / S while p becomes small. In float32 the product of the S is above 1e-33 (see `DEEPEST_FLOAT32_GAP`), so
that v has room as long as G is of order 1: each row of G is scaled by a power of two.
"""

from __future__ import annotations

import math
from typing import Any

from gumbeltopk._numba.compiling import Array, inner
from gumbeltopk._numba.powers import Power
from gumbeltopk._numba.rows import DISTANCE, PART, Place, clear, decay, dot, place_of, row_of, rows_together
from gumbeltopk._numba.states import States, fill_firsts, fill_segment, new_states
from gumbeltopk._numba.vjp import (
    Gradients,
    Memory,
    Pullback,
    add_logs_of_rests,
    balance,
    finish,
    log_complements,
    new_memory,
    shrinkage,
)
from gumbeltopk._numpy.direct_layouts import Steps

LARGEST_EXPONENT = 120  # of the powers of two by which G is scaled
SMALL = 2.0**-30  # times all magnitudes of a row, which do not overflow when they are added then

# --- passes over rows -------------------------------------------------------------------------------------


@inner
def pulled(v: Array, p: Array, g: Array, i: int, y: Any) -> Any:
    one, two = p.dtype.type(1), p.dtype.type(2)
    return v[i] * (one - two * p[i]) + (g[i] - y)


@inner
def step_of_item(v: Array, p: Array, before: Array, g: Array, i: int, y: Any, scale: Any) -> Any:
    own = pulled(v, p, g, i, y) * scale
    v[i] = own
    return before[i] * (g[i] - before[i] * own)


@inner
def step_of_four(
    v: Array, p: Array, before: Array, g: Array, y: Array, scales: Array, length: int, sums: Array
) -> None:
    y_0, y_1, y_2, y_3 = y[0], y[1], y[2], y[3]
    scale_0, scale_1, scale_2, scale_3 = scales[0], scales[1], scales[2], scales[3]
    sum_0 = sum_1 = sum_2 = sum_3 = p.dtype.type(0)
    for i in range(length):
        sum_0 += step_of_item(v, p, before, g, i, y_0, scale_0)
        sum_1 += step_of_item(v, p, before, g, i + DISTANCE, y_1, scale_1)
        sum_2 += step_of_item(v, p, before, g, i + 2 * DISTANCE, y_2, scale_2)
        sum_3 += step_of_item(v, p, before, g, i + 3 * DISTANCE, y_3, scale_3)
    sums[0], sums[1], sums[2], sums[3] = sum_0, sum_1, sum_2, sum_3


@inner
def step_of_part(v: Array, p: Array, before: Array, g: Array, y: Any, scale: Any) -> Any:
    total = p.dtype.type(0)
    for i in range(p.size):
        total += step_of_item(v, p, before, g, i, y, scale)
    return total


@inner
def step(memory: Memory, p: Array, before: Array, place: Place, scales: Array) -> None:
    """The next v, and the sums of p t one step further down, where p is `before`."""
    v, g, y, sums = memory.x, memory.g, memory.y, memory.sums
    if place.together:
        step_of_four(v, p, before, g, y, scales, place.length, sums)
        return
    sums[0] = 0.0
    for first in range(0, place.length, PART):
        end = first + PART
        own_v, own_g = v[first:end], g[first:end]
        sums[0] += step_of_part(own_v, p[first:end], before[first:end], own_g, y[0], scales[0])


@inner
def square_of_row(v: Array, p: Array, g: Array, y: Any) -> Any:
    total = p.dtype.type(0)
    for i in range(p.size):
        x = p[i] * pulled(v, p, g, i, y)
        total += x * x
    return total


@inner
def squares(memory: Memory, p: Array, place: Place) -> None:
    """The sums of x^2, x = p (v (1 - 2 p) + G - y)."""
    for r in range(place.count):
        own_v, own, own_g = row_of(memory.x, place, r), row_of(p, place, r), row_of(memory.g, place, r)
        memory.sums[r] = square_of_row(own_v, own, own_g, memory.y[r]) + memory.x_held[r] * memory.x_held[r]


@inner
def finish_row(v: Array, p: Array, g: Array, y: Any) -> None:
    for i in range(p.size):
        v[i] = p[i] * pulled(v, p, g, i, y)


@inner
def adjoint_of_logs(memory: Memory, p: Array, place: Place) -> None:
    """This x in the place of v."""
    for r in range(place.count):
        finish_row(row_of(memory.x, place, r), row_of(p, place, r), row_of(memory.g, place, r), memory.y[r])


@inner
def adjoint_of_complements(v: Array, p: Array, place: Place, x: Array) -> None:
    """x = p (1 - p) v, the adjoint of log(1 - p)."""
    one = p.dtype.type(1)
    for r in range(place.count):
        own_v, own, own_x = row_of(v, place, r), row_of(p, place, r), row_of(x, place, r)
        for i in range(place.length):
            own_x[i] = decay(own[i], one) * own_v[i]


# --- the scale of G ---------------------------------------------------------------------------------------


@inner
def magnitude(g: Array) -> float:
    """SMALL times the sum of the magnitudes."""
    small, total = g.dtype.type(SMALL), g.dtype.type(0)
    for i in range(g.size):
        total += abs(g[i]) * small
    return float(total)


@inner
def subtract_scaled(g: Array, scale: Any, centre: Any, out: Array) -> None:
    for i in range(g.size):
        out[i] = out.dtype.type(g[i]) * scale - centre


@inner
def load_moderate(pullback: Pullback, place: Place, g: Array, unit: Array) -> None:
    """The cotangents less those at the items held out, in units of a power of two."""
    for r in range(place.count):
        row = place.first + r
        own = pullback.cotangent[row]
        size = magnitude(own)
        exponent = math.frexp(size / SMALL)[1] if 0.0 < size < math.inf else 0
        exponent = min(max(exponent, -LARGEST_EXPONENT), LARGEST_EXPONENT)
        unit[r] = math.ldexp(1.0, exponent)
        scale = g.dtype.type(1.0 / unit[r])
        centre = g.dtype.type(own[pullback.steps.held[0, row]]) * scale
        subtract_scaled(own, scale, centre, g[r * DISTANCE : r * DISTANCE + own.size])


# --- step by step downwards -------------------------------------------------------------------------------


@inner
def pull_back(pullback: Pullback, place: Place, states: States, memory: Memory, gradients: Gradients) -> None:
    """Rows that are in a buffer together. `memory.x` is v until the end, and `memory.beta` stays 1."""
    power, steps, scales, v = pullback.power, pullback.steps, states.scales, memory.x
    k, length = steps.masses.shape[0], states.at_hand.shape[0]
    for r in range(place.count):
        memory.x_held[r], gradients.by_power[place.first + r] = 0, 0
    clear(v, place)
    load_moderate(pullback, place, memory.g, memory.unit)
    fill_firsts(states, pullback.weights, pullback.plain, place, power, steps)
    for segment in range(states.firsts.shape[0] - 1, -1, -1):
        number = fill_segment(states, segment, place, power, steps)
        for i in range(number - 1, -1, -1):
            p, j = states.at_hand[i], segment * length + i
            if j == k - 1:
                dot(p, memory.g, place, memory.sums)
                balance(memory, place, steps, j)
                squares(memory, p, place)
                for r in range(place.count):
                    gradients.shrinkages[place.first + r] = memory.sums[r]
                continue
            after = states.at_hand[i + 1] if i + 1 < number else states.firsts[segment + 1]
            for r in range(place.count):
                scales[r] = 1.0 / steps.masses[j + 1, place.first + r]
            step(memory, after, p, place, scales)
            if pullback.with_power:
                adjoint_of_complements(v, p, place, memory.t)
                log_complements(p, memory.t, place, pullback, states.c, memory.log_sums)
                add_logs_of_rests(memory, place, steps, j, gradients.by_power)
            balance(memory, place, steps, j)
    squares(memory, states.firsts[0], place)
    adjoint_of_logs(memory, states.firsts[0], place)
    for r in range(place.count):
        row = place.first + r
        gradients.shrinkages[row] = shrinkage(gradients.shrinkages[row], memory.sums[r])
    finish(memory, place, pullback, gradients)


def vjp_rows_of_power_1(
    weights: Array,
    plain: bool,
    power: Power,
    held: Array,
    shares: Array,
    masses: Array,
    keys: Array,
    cotangent: Array,
    length: int,
    logs: Array,
    with_power: bool,
    by_keys: Array,
    by_power: Array,
    shrinkages: Array,
) -> None:
    """As `vjp_rows`."""
    rows, n = weights.shape
    steps = Steps(held, shares, masses)
    pullback = Pullback(weights, plain, power, steps, keys, cotangent, logs, with_power)
    gradients = Gradients(by_keys, by_power, shrinkages)
    states, memory = new_states(masses.shape[0], length, n, weights.dtype), new_memory(n, weights.dtype)
    for first in range(0, rows, rows_together(n)):
        pull_back(pullback, place_of(first, rows, n), states, memory, gradients)
