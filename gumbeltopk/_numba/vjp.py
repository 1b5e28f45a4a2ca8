"""The vector-Jacobian product of successive softmax on rows that stay in cache, compiled."""

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
    dot,
    dot_of_part,
    load_centred,
    new_buffer,
    place_of,
    row_of,
    rows_together,
    subtract_series,
    take_beta,
    unload,
)
from gumbeltopk._numba.states import States, fill_firsts, fill_segment, new_states
from gumbeltopk._numpy.direct_layouts import Steps


class Pullback(NamedTuple):
    """What a VJP is given."""

    weights: Any  # (rows, n), of the first softmax, or the keys that give them: see `load_weights`
    plain: Any
    power: Power
    steps: Steps
    keys: Any
    cotangent: Any
    logs: Any  # the series of log(1 - p)
    with_power: Any  # whether the gradient by beta is wanted


class Gradients(NamedTuple):
    """What it fills."""

    by_keys: Any  # (rows, n)
    by_power: Any  # (rows,)
    shrinkages: Any  # (rows,): how the square of the adjoint of log p has shrunk


class Memory(NamedTuple):
    """Of the rows in a buffer: three buffers, and (FOUR,) numbers."""

    x: Any
    t: Any
    g: Any
    y: Any
    factor: Any  # from x to the gradient
    beta: Any
    unit: Any  # of g
    x_held: Any
    sums: Any
    log_sums: Any


@maker
def new_memory(n: int, dtype: Any) -> Memory:
    return Memory(
        new_buffer(n, dtype),
        new_buffer(n, dtype),
        new_buffer(n, dtype),
        np.zeros(FOUR, dtype),
        np.ones(FOUR, dtype),
        np.ones(FOUR),
        np.ones(FOUR),
        np.zeros(FOUR),
        np.zeros(FOUR),
        np.zeros(FOUR),
    )


# --- passes over rows: t = G - beta x / (1 - p), the sum of p t, and x <- x + p (t - y) -----------------


@inner
def pull_row(x: Array, p: Array, g: Array, beta: Any, t: Array) -> Any:
    total, one = p.dtype.type(0), p.dtype.type(1)
    for i in range(p.size):
        t[i] = g[i] - beta * x[i] / (one - p[i])
        total += p[i] * t[i]
    return total


@inner
def pull(memory: Memory, p: Array, place: Place) -> None:
    for r in range(place.count):
        own_x, own, own_g = row_of(memory.x, place, r), row_of(p, place, r), row_of(memory.g, place, r)
        own_t, beta = row_of(memory.t, place, r), p.dtype.type(memory.beta[r])
        memory.sums[r] = 0.0
        for first in range(0, own.size, PART):
            end = first + PART
            memory.sums[r] += pull_row(own_x[first:end], own[first:end], own_g[first:end], beta, own_t[first:end])


@inner
def add_pull_to_row(x: Array, p: Array, t: Array, y: Any) -> None:
    for i in range(p.size):
        x[i] += p[i] * (t[i] - y)


@inner
def add_pull(x: Array, p: Array, t: Array, place: Place, y: Array) -> None:
    for r in range(place.count):
        add_pull_to_row(row_of(x, place, r), row_of(p, place, r), row_of(t, place, r), y[r])


@inner
def log_complements(p: Array, x: Array, place: Place, pullback: Pullback, c: Array, sums: Array) -> None:
    """The sums of x log(1 - p)."""
    for r in range(place.count):
        own, own_x = row_of(p, place, r), row_of(x, place, r)
        sums[r] = 0.0
        for first in range(0, own.size, PART):
            part = own[first : first + PART]
            subtract_series(part, p.dtype.type(0), pullback.logs[0], c[: part.size])
            sums[r] += dot_of_part(own_x[first : first + PART], c[: part.size])


# --- the item held out ----------------------------------------------------------------------------------


@inner
def move(memory: Memory, place: Place, steps: Steps, j: int) -> None:
    """From the items held out in step j + 1 to those of step j."""
    for r in range(place.count):
        own, row = row_of(memory.x, place, r), place.first + r
        after, before = steps.held[j + 1, row], steps.held[j, row]
        if after != before:
            own[after], memory.x_held[r] = memory.x_held[r], own[before]


@inner
def balance(memory: Memory, place: Place, steps: Steps, j: int) -> None:
    """y = G_i + h - beta x_i P / R and the next x_i, from the sums of p t."""
    g, beta, x_held = memory.g, memory.beta, memory.x_held
    is_last = j == steps.masses.shape[0] - 1
    for r in range(place.count):
        row = place.first + r
        share, rest = steps.shares[j, 0, row], steps.shares[j, 1, row]
        g_held = np.float64(g[r * DISTANCE + steps.held[j, row]])
        h = memory.sums[r] - g_held * rest
        memory.y[r] = g_held + h - (0.0 if is_last else x_held[r] * beta[r] * share / rest)
        x_held[r] = x_held[r] * (rest + (1.0 - beta[r]) * share) - share * h


@inner
def add_logs_of_rests(memory: Memory, place: Place, steps: Steps, j: int, by_power: Array) -> None:
    """The sums of x log(1 - p), with those of the items held out, to the gradient by beta."""
    for r in range(place.count):
        row = place.first + r
        by_power[row] += memory.x_held[r] * math.log(steps.shares[j, 1, row]) + memory.log_sums[r]


@inner
def shrinkage(at_first: float, in_the_end: float) -> float:
    """Of a square; NaN where it overflows."""
    if at_first == 0.0 and in_the_end == 0.0:
        return 0.0
    return at_first / in_the_end if in_the_end < math.inf else math.nan


@inner
def finish(memory: Memory, place: Place, pullback: Pullback, gradients: Gradients) -> None:
    """The gradients by the keys, which are beta x, and by beta, for which the keys are needed."""
    x, t, sums = memory.x, memory.t, memory.sums
    for r in range(place.count):
        memory.factor[r] = memory.beta[r] * memory.unit[r]
        x[r * DISTANCE + pullback.steps.held[0, place.first + r]] = memory.x_held[r]
    if pullback.with_power:
        load_centred(pullback.keys, place, pullback.steps, t, True)
        dot(x, t, place, sums)
        for r in range(place.count):
            gradients.by_power[place.first + r] = (gradients.by_power[place.first + r] + sums[r]) * memory.unit[r]
    unload(x, place, memory.factor, gradients.by_keys)


# --- the adjoint of log p, step by step downwards -----------------------------------------------------------


@inner
def pull_back(pullback: Pullback, place: Place, states: States, memory: Memory, gradients: Gradients) -> None:
    """Rows that are in a buffer together."""
    power, steps = pullback.power, pullback.steps
    x, t, g, y, sums, x_held = memory.x, memory.t, memory.g, memory.y, memory.sums, memory.x_held
    k, length = steps.masses.shape[0], states.at_hand.shape[0]
    take_beta(power, place, memory.beta)
    for r in range(place.count):
        x_held[r], gradients.by_power[place.first + r] = 0, 0
    clear(x, place)
    load_centred(pullback.cotangent, place, steps, g, False)
    fill_firsts(states, pullback.weights, pullback.plain, place, power, steps)
    for segment in range(states.firsts.shape[0] - 1, -1, -1):
        number = fill_segment(states, segment, place, power, steps)
        for i in range(number - 1, -1, -1):
            p, j = states.at_hand[i], segment * length + i
            if j == k - 1:
                dot(p, g, place, sums)
                balance(memory, place, steps, j)
                add_pull(x, p, g, place, y)
                dot(x, x, place, sums)
                for r in range(place.count):
                    gradients.shrinkages[place.first + r] = sums[r] + x_held[r] * x_held[r]
                continue
            move(memory, place, steps, j)
            if pullback.with_power:
                log_complements(p, x, place, pullback, states.c, memory.log_sums)
                add_logs_of_rests(memory, place, steps, j, gradients.by_power)
            pull(memory, p, place)
            balance(memory, place, steps, j)
            add_pull(x, p, t, place, y)
    dot(x, x, place, sums)
    for r in range(place.count):
        row = place.first + r
        gradients.shrinkages[row] = shrinkage(gradients.shrinkages[row], sums[r] + x_held[r] * x_held[r])
    finish(memory, place, pullback, gradients)


def vjp_rows(
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
    """Fill the gradients by the keys (rows, n) and, if wanted, by beta (rows,), and how the square of x has shrunk.

    `length` states are at hand at a time; those of longer trajectories are made twice. `logs` is the series of
    log(1 - p).
    """
    rows, n = weights.shape
    steps = Steps(held, shares, masses)
    pullback = Pullback(weights, plain, power, steps, keys, cotangent, logs, with_power)
    gradients = Gradients(by_keys, by_power, shrinkages)
    states, memory = new_states(masses.shape[0], length, n, weights.dtype), new_memory(n, weights.dtype)
    for first in range(0, rows, rows_together(n)):
        pull_back(pullback, place_of(first, rows, n), states, memory, gradients)
