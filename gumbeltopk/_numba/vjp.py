"""The vector-Jacobian product of successive softmax on tiles of rows, compiled."""

from __future__ import annotations

import math

import numpy as np

from gumbeltopk._numba.compiling import Array, inner
from gumbeltopk._numba.powers import Power
from gumbeltopk._numba.states import advance, start
from gumbeltopk._numba.tiles import (
    LANES,
    PART,
    Buffers,
    Lanes,
    Place,
    dot,
    fill_row,
    flush,
    load_centred,
    new_buffers,
    new_tile,
    slot,
    spread,
    subtract_series,
    sum_of_row,
    take_lanes,
    unload,
    width_of,
)
from gumbeltopk._numpy.direct_layouts import Steps


@inner
def pull(x: Array, p: Array, g: Array, beta: Array, t: Array, buffers: Buffers) -> None:
    """t = G - beta x / (1 - p), and the sum of p t."""
    one = p.dtype.type(1)
    buffers.sums[:] = 0
    for first in range(0, p.shape[0], PART):
        for i in range(first, min(first + PART, p.shape[0])):
            for lane in range(LANES):
                own = g[i, lane] - beta[lane] * x[i, lane] / (one - p[i, lane])
                t[i, lane] = own
                buffers.part[lane] += p[i, lane] * own
        flush(buffers)


@inner
def add_pull(x: Array, p: Array, t: Array, y: Array) -> None:
    """x <- x + p (t - y)."""
    for i in range(p.shape[0]):
        for lane in range(LANES):
            x[i, lane] += p[i, lane] * (t[i, lane] - y[lane])


@inner
def log_complements(p: Array, x: Array, logs: Array, buffers: Buffers) -> None:
    """The sum of x log(1 - p)."""
    buffers.sums[:] = 0
    for first in range(0, p.shape[0], PART):
        end = min(first + PART, p.shape[0])
        subtract_series(p, first, end, p.dtype.type(0), logs, buffers.c)
        for i in range(first, end):
            for lane in range(LANES):
                buffers.part[lane] += x[i, lane] * buffers.c[i - first, lane]
        flush(buffers)


@inner
def move(x: Array, place: Place, steps: Steps, j: int, x_held: Array) -> None:
    """From the items held out in step j + 1 to those of step j."""
    for r in range(place.count):
        after, before = steps.held[j + 1, place.first + r], steps.held[j, place.first + r]
        if after != before:
            x[slot(place, r, after)] = x_held[r]
            x_held[r] = x[slot(place, r, before)]


@inner
def balance(g: Array, place: Place, power: Power, steps: Steps, j: int, sums: Array, x_held: Array, y: Array) -> None:
    """y = G_i + h - beta x_i P / R and the next x_i, from the sums of p t."""
    for r in range(place.count):
        row = place.first + r
        item, share, rest = steps.held[j, row], steps.shares[j, 0, row], steps.shares[j, 1, row]
        beta = power.beta[row if power.beta.size > 1 else 0]
        g_held = np.float64(g[slot(place, r, item)])
        h = sum_of_row(sums, place, r) - g_held * rest
        of_held = x_held[r] * beta * share / rest if j < steps.masses.shape[0] - 1 else 0.0
        fill_row(y, place, r, g_held + h - of_held)
        x_held[r] = x_held[r] * (rest + (1.0 - beta) * share) - share * h


@inner
def multiply(x: Array, factor: Array) -> None:
    for i in range(x.shape[0]):
        for lane in range(LANES):
            x[i, lane] *= factor[lane]


@inner
def fill_states(states: Array, place: Place, power: Power, lanes: Lanes, steps: Steps, j: int, buffers: Buffers) -> int:
    """p^{j+1}, ... after p^j = states[0], as far as there is room and as there are steps; their number."""
    number: int = min(states.shape[0], steps.masses.shape[0] - j)
    for i in range(number - 1):
        advance(states[i], states[i + 1], place, power, lanes, steps, j + i, buffers)
    return number


def vjp_rows(
    weights: Array,
    power: Power,
    held: Array,
    shares: Array,
    masses: Array,
    keys: Array,
    cotangent: Array,
    length: int,
    logs: Array,
    with_power: bool,
    gradient: Array,
    by_power: Array,
    shrinkages: Array,
) -> None:
    """Fill the gradients by the keys (rows, n) and, if wanted, by beta (rows,), and how the square of x has shrunk.

    `length` states are at hand at a time; those of longer trajectories are made twice. `logs` is the series of
    log(1 - p).
    """
    (rows, n), k, dtype = weights.shape, masses.shape[0], weights.dtype
    steps = Steps(held, shares, masses)
    width = width_of(n)
    x, t, g = new_tile(n, dtype), new_tile(n, dtype), new_tile(n, dtype)
    firsts = np.zeros((-(-k // length), *x.shape), dtype)
    states = np.zeros((length, *x.shape), dtype)
    y, x_held, buffers = np.zeros(LANES, dtype), np.zeros(LANES), new_buffers(dtype)
    spread_logs = spread(logs)
    for first in range(0, rows, LANES // width):
        place = Place(first, min(LANES // width, rows - first), width)
        lanes = take_lanes(power, place, dtype)
        start(weights, place, steps, firsts[0])
        for segment in range(firsts.shape[0] - 1):
            states[0] = firsts[segment]
            j = segment * length
            fill_states(states, place, power, lanes, steps, j, buffers)
            advance(states[-1], firsts[segment + 1], place, power, lanes, steps, j + length - 1, buffers)
        load_centred(cotangent, place, steps.held, g)
        x[:], x_held[:], by_power[first : first + place.count] = 0, 0, 0
        for segment in range(firsts.shape[0] - 1, -1, -1):
            states[0] = firsts[segment]
            number = fill_states(states, place, power, lanes, steps, segment * length, buffers)
            for i in range(number - 1, -1, -1):
                p, j = states[i], segment * length + i
                if j == k - 1:
                    dot(p, g, buffers)
                    balance(g, place, power, steps, j, buffers.sums, x_held, y)
                    add_pull(x, p, g, y)
                    dot(x, x, buffers)
                    for r in range(place.count):
                        shrinkages[first + r] = sum_of_row(buffers.sums, place, r) + x_held[r] * x_held[r]
                    continue
                move(x, place, steps, j, x_held)
                if with_power:
                    log_complements(p, x, spread_logs, buffers)
                    for r in range(place.count):
                        of_held = x_held[r] * math.log(steps.shares[j, 1, first + r])
                        by_power[first + r] += sum_of_row(buffers.sums, place, r) + of_held
                pull(x, p, g, lanes.beta, t, buffers)
                balance(g, place, power, steps, j, buffers.sums, x_held, y)
                add_pull(x, p, t, y)
        dot(x, x, buffers)
        for r in range(place.count):
            row, item = first + r, steps.held[0, first + r]
            shrinkages[row] /= sum_of_row(buffers.sums, place, r) + x_held[r] * x_held[r]
            x[slot(place, r, item)] = x_held[r]
        if with_power:
            load_centred(keys, place, steps.held, t)
            dot(x, t, buffers)
            for r in range(place.count):
                by_power[first + r] += sum_of_row(buffers.sums, place, r)
        multiply(x, lanes.beta)
        unload(x, place, gradient)
