"""The vector-Jacobian product of successive softmax on rows that stay in cache, compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk._numba.compiling import Array, inner
from gumbeltopk._numba.powers import Power
from gumbeltopk._numba.rows import (
    FOUR,
    PART,
    SHORT,
    Place,
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
from gumbeltopk._numba.states import advance, start

# --- passes over rows: t = G - beta x / (1 - p), and the sum of p t ---------------------------------------


@inner
def pull_of_item(x: Array, p: Array, g: Array, i: int, beta: Any, t: Array) -> Any:
    own = g[i] - beta * x[i] / (p.dtype.type(1) - p[i])
    t[i] = own
    return p[i] * own


@inner
def pull_of_four(x: Array, p: Array, g: Array, beta: Array, t: Array, length: int, sums: Array) -> None:
    beta_0, beta_1, beta_2, beta_3 = beta[0], beta[1], beta[2], beta[3]
    sum_0 = sum_1 = sum_2 = sum_3 = p.dtype.type(0)
    for i in range(length):
        sum_0 += pull_of_item(x, p, g, i, beta_0, t)
        sum_1 += pull_of_item(x, p, g, i + SHORT, beta_1, t)
        sum_2 += pull_of_item(x, p, g, i + 2 * SHORT, beta_2, t)
        sum_3 += pull_of_item(x, p, g, i + 3 * SHORT, beta_3, t)
    sums[0], sums[1], sums[2], sums[3] = sum_0, sum_1, sum_2, sum_3


@inner
def pull_of_part(x: Array, p: Array, g: Array, beta: Any, t: Array) -> Any:
    total = p.dtype.type(0)
    for i in range(p.size):
        total += pull_of_item(x, p, g, i, beta, t)
    return total


@inner
def pull(x: Array, p: Array, g: Array, place: Place, beta: Array, t: Array, sums: Array) -> None:
    if place.together:
        pull_of_four(x, p, g, beta, t, place.length, sums)
        return
    sums[0] = 0.0
    for first in range(0, place.length, PART):
        end = first + PART
        sums[0] += pull_of_part(x[first:end], p[first:end], g[first:end], beta[0], t[first:end])


# --- x <- x + p (t - y) -----------------------------------------------------------------------------------


@inner
def add_pull_of_item(x: Array, p: Array, t: Array, i: int, y: Any) -> None:
    x[i] += p[i] * (t[i] - y)


@inner
def add_pull(x: Array, p: Array, t: Array, place: Place, y: Array) -> None:
    y_0, y_1, y_2, y_3 = y[0], y[1], y[2], y[3]
    if place.together:
        for i in range(place.length):
            add_pull_of_item(x, p, t, i, y_0)
            add_pull_of_item(x, p, t, i + SHORT, y_1)
            add_pull_of_item(x, p, t, i + 2 * SHORT, y_2)
            add_pull_of_item(x, p, t, i + 3 * SHORT, y_3)
    else:
        for i in range(x.size):
            add_pull_of_item(x, p, t, i, y_0)


# --- the adjoint of log p, step by step downwards -----------------------------------------------------------


@inner
def log_complements(p: Array, x: Array, place: Place, logs: Array, c: Array, sums: Array) -> None:
    """The sums of x log(1 - p)."""
    for r in range(place.count):
        own, own_x = row_of(p, place, r), row_of(x, place, r)
        sums[r] = 0.0
        for first in range(0, own.size, PART):
            part = own[first : first + PART]
            subtract_series(part, p.dtype.type(0), logs, c[: part.size])
            sums[r] += dot_of_part(own_x[first : first + PART], c[: part.size])


@inner
def move(x: Array, place: Place, held: Array, j: int, x_held: Array) -> None:
    """From the items held out in step j + 1 to those of step j."""
    for r in range(place.count):
        own, row = row_of(x, place, r), place.first + r
        after, before = held[j + 1, row], held[j, row]
        if after != before:
            own[after], x_held[r] = x_held[r], own[before]


@inner
def balance(
    g: Array,
    place: Place,
    beta: Array,
    held: Array,
    shares: Array,
    j: int,
    is_last: bool,
    sums: Array,
    x_held: Array,
    y: Array,
) -> None:
    """y = G_i + h - beta x_i P / R and the next x_i, from the sums of p t."""
    for r in range(place.count):
        row = place.first + r
        share, rest = shares[j, 0, row], shares[j, 1, row]
        g_held = np.float64(g[r * SHORT + held[j, row]])
        h = sums[r] - g_held * rest
        y[r] = g_held + h - (0.0 if is_last else x_held[r] * beta[r] * share / rest)
        x_held[r] = x_held[r] * (rest + (1.0 - beta[r]) * share) - share * h


@inner
def fill_states(
    states: Array,
    place: Place,
    power: Power,
    held: Array,
    shares: Array,
    masses: Array,
    j: int,
    scales: Array,
    c: Array,
    square: Array,
) -> int:
    """p^{j+1}, ... after p^j = states[0], as far as there is room and as there are steps; their number."""
    number: int = min(states.shape[0], masses.shape[0] - j)
    for i in range(number - 1):
        advance(states[i], states[i + 1], place, power, held, shares, masses, j + i, scales, c, square)
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
    x, t, g = new_buffer(n, dtype), new_buffer(n, dtype), new_buffer(n, dtype)
    firsts = np.zeros((-(-k // length), x.size), dtype)
    states = np.zeros((length, x.size), dtype)
    c, square = np.empty(PART, dtype), np.empty(PART, dtype)
    narrow, scales, y = np.ones(FOUR, dtype), np.zeros(FOUR, dtype), np.zeros(FOUR, dtype)
    beta, sums, x_held = np.ones(FOUR), np.zeros(FOUR), np.zeros(FOUR)
    for first in range(0, rows, rows_together(n)):
        place = place_of(first, rows, n)
        take_beta(power, place, beta)
        for r in range(place.count):
            narrow[r] = beta[r]
        start(weights, place, held, masses, firsts[0])
        for segment in range(firsts.shape[0] - 1):
            states[0] = firsts[segment]
            fill_states(states, place, power, held, shares, masses, segment * length, scales, c, square)
            advance(
                states[-1],
                firsts[segment + 1],
                place,
                power,
                held,
                shares,
                masses,
                (segment + 1) * length - 1,
                scales,
                c,
                square,
            )
        load_centred(cotangent, place, held, g, False)
        x[:], x_held[:], by_power[first : first + place.count] = 0, 0, 0
        for segment in range(firsts.shape[0] - 1, -1, -1):
            states[0] = firsts[segment]
            number = fill_states(states, place, power, held, shares, masses, segment * length, scales, c, square)
            for i in range(number - 1, -1, -1):
                p, j = states[i], segment * length + i
                if j == k - 1:
                    dot(p, g, place, sums)
                    balance(g, place, beta, held, shares, j, j == k - 1, sums, x_held, y)
                    add_pull(x, p, g, place, y)
                    dot(x, x, place, sums)
                    for r in range(place.count):
                        shrinkages[first + r] = sums[r] + x_held[r] * x_held[r]
                    continue
                if power.whole != 1:
                    move(x, place, held, j, x_held)
                if with_power:
                    log_complements(p, x, place, logs[0], c, sums)
                    for r in range(place.count):
                        by_power[first + r] += x_held[r] * math.log(shares[j, 1, first + r]) + sums[r]
                pull(x, p, g, place, narrow, t, sums)
                balance(g, place, beta, held, shares, j, j == k - 1, sums, x_held, y)
                add_pull(x, p, t, place, y)
        dot(x, x, place, sums)
        for r in range(place.count):
            shrinkages[first + r] /= sums[r] + x_held[r] * x_held[r]
            x[r * SHORT + held[0, first + r]] = x_held[r]
        if with_power:
            load_centred(keys, place, held, t, True)
            dot(x, t, place, sums)
            for r in range(place.count):
                by_power[first + r] += sums[r]
        unload(x, place, narrow, gradient)
