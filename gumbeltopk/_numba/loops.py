"""The compiled loops of `direct_kernels`: all k steps of a row while it lies in the first-level cache.

The recursion and its derivatives are those of `gumbeltopk._numpy.direct_kernels`, whose comments derive them: each row
holds out one item, its share P and the sum R of the others are float64 numbers outside of the array, and its slot in
the array is 0. The others have p <= 1/2.

Rows are copied to buffers whose length is a multiple of LANES, with zeros at the end, which no formula moves. So there
are no remainders to do item by item, and a row is computed in the same order wherever it stands.

`reassociating` loops may sum in any order, which is what lets them use vector registers. It does no harm to a
complement 1 - p: with p <= 1/2 no order of p, p^2 and 1 cancels, and R is made of scalars, outside of these loops. Sums
are taken over TILE items in the dtype of the array, and of the tiles in float64.

All compiled code is in this file: the compiler's cache on disk looks for changes in the file of the function that is
called, not in the files of the functions that it calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np

FloatArray = Any  # numba sees the types
Loop = TypeVar("Loop", bound=Callable[..., Any])

LANES = 32  # four registers of 256 bits in float32: what the compiler takes at a time
TILE = 2048
TERMS_FLOAT32 = 10  # of the series for (1 - p)^root / p and log(1 - p) / p: 1e-9
TERMS_FLOAT64 = 20  # 2e-16
SMALLEST_FLOAT32 = 1e-30  # what goes back to its slot below it would lose digits


class Power(NamedTuple):
    """beta = root 2^squarings of each row, or of all rows, with root <= 1; (1 - p)^root = 1 - p series(4 p - 1)."""

    beta: FloatArray  # (rows,) or (1,)
    root: FloatArray  # (rows,) or (1,)
    squarings: FloatArray  # (rows,) or (1,)
    series: FloatArray  # (rows, terms) or (1, terms), highest power first, in the dtype of the recursion


def _compiler(**options: Any) -> Callable[[Loop], Loop]:
    def compile_later(function: Loop) -> Loop:
        settings = {"nogil": True, "error_model": "numpy", **options}
        try:
            compiled: Loop = numba.njit(cache=True, **settings)(function)
        except RuntimeError:  # no folder that a cache could be written to
            compiled = numba.njit(**settings)(function)
        return compiled

    return compile_later


compiled = _compiler()
contracting = _compiler(fastmath={"contract"})  # products and sums in one rounding
reassociating = _compiler(fastmath={"contract", "reassoc"})
without_nan = _compiler(fastmath={"nnan", "nsz"})


# --- passes over one row ----------------------------------------------------------------------------


@reassociating
def _sum_of_tile(x: FloatArray) -> Any:
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i]
    return total


@compiled
def _sum(x: FloatArray) -> float:
    total = 0.0
    for first in range(0, x.size, TILE):
        total += _sum_of_tile(x[first : first + TILE])
    return total


@reassociating
def _dot_of_tile(x: FloatArray, y: FloatArray) -> Any:
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@compiled
def _dot(x: FloatArray, y: FloatArray) -> float:
    total = 0.0
    for first in range(0, x.size, TILE):
        total += _dot_of_tile(x[first : first + TILE], y[first : first + TILE])
    return total


@without_nan
def _largest(x: FloatArray) -> Any:
    largest = x[0]
    for i in range(x.size):
        if x[i] > largest:
            largest = x[i]
    return largest


@compiled
def _index_of(x: FloatArray, value: Any) -> int:
    for i in range(x.size):
        if x[i] == value:
            return i
    return 0


@contracting
def _scale_and_add(p: FloatArray, scale: Any, total: FloatArray) -> None:
    for i in range(p.size):
        p[i] *= scale
        total[i] += p[i]


@contracting
def _subtract_series(p: FloatArray, constant: Any, series: FloatArray, out: FloatArray) -> None:
    """constant - p series(4 p - 1)."""
    one, four = p.dtype.type(1), p.dtype.type(4)
    if p.itemsize == 4:
        for i in range(p.size):
            y = four * p[i] - one
            value = series[0]
            for term in range(1, TERMS_FLOAT32):
                value = value * y + series[term]
            out[i] = constant - p[i] * value
    else:
        for i in range(p.size):
            y = four * p[i] - one
            value = series[0]
            for term in range(1, TERMS_FLOAT64):
                value = value * y + series[term]
            out[i] = constant - p[i] * value


@contracting
def _raise_complements(p: FloatArray, root: float, squarings: int, series: FloatArray, out: FloatArray) -> None:
    """(1 - p)^beta, with a rounding error of about beta units: that of rounding 1 - p."""
    one = p.dtype.type(1)
    if root == 1.0:
        for i in range(p.size):
            out[i] = one - p[i]
    else:
        _subtract_series(p, one, series, out)
    for _ in range(squarings):
        for i in range(p.size):
            out[i] *= out[i]


# --- the forward pass -----------------------------------------------------------------------------


@reassociating
def _step_of_tile(p: FloatArray, scale: Any, total: FloatArray) -> Any:
    one, others = p.dtype.type(1), p.dtype.type(0)
    for i in range(p.size):
        state = p[i] * scale
        total[i] += state
        weight = state * (one - state)
        p[i] = weight
        others += weight
    return others


@compiled
def _step_of_power_1(p: FloatArray, scale: Any, total: FloatArray) -> float:
    """Scale p, add it to the total, replace it by p (1 - p), and return the sum of that."""
    others = 0.0
    for first in range(0, p.size, TILE):
        others += _step_of_tile(p[first : first + TILE], scale, total[first : first + TILE])
    return others


@reassociating
def _multiply_tile(p: FloatArray, c: FloatArray) -> Any:
    others = p.dtype.type(0)
    for i in range(p.size):
        weight = p[i] * c[i]
        p[i] = weight
        others += weight
    return others


@compiled
def _multiply_and_sum(p: FloatArray, c: FloatArray) -> float:
    others = 0.0
    for first in range(0, p.size, TILE):
        others += _multiply_tile(p[first : first + TILE], c[first : first + TILE])
    return others


@compiled
def _start(weights: FloatArray, held: int, p: FloatArray) -> None:
    """The weights of the others."""
    p[: weights.size] = weights
    p[held] = 0


@compiled
def _record(top: float, others: float, shares: FloatArray, masses: FloatArray, j: int) -> None:
    masses[j] = top + others
    shares[j, 0] = top / masses[j]
    shares[j, 1] = others / masses[j]


@compiled
def _run_power_1(p: FloatArray, total: FloatArray, shares: FloatArray, masses: FloatArray) -> float:
    """All steps for beta = 1, where the item held out stays the largest; return the sum of its shares."""
    held_total = shares[0, 0]
    for j in range(1, masses.size):
        others = _step_of_power_1(p, p.dtype.type(1.0 / masses[j - 1]), total)
        _record(shares[j - 1, 0] * shares[j - 1, 1], others, shares, masses, j)
        held_total += shares[j, 0]
    _scale_and_add(p, p.dtype.type(1.0 / masses[-1]), total)
    return held_total


@compiled
def _run(
    p: FloatArray,
    c: FloatArray,
    total: FloatArray,
    power: Power,
    own: int,
    held: FloatArray,
    shares: FloatArray,
    masses: FloatArray,
) -> tuple[float, bool]:
    """All steps for any beta; return the sum of the shares that are not in the total, and whether digits were lost."""
    beta, root, squarings, series = power.beta[own], power.root[own], power.squarings[own], power.series[own]
    held_total, lost = shares[0, 0], False
    _scale_and_add(p, p.dtype.type(1.0 / masses[0]), total)
    for j in range(1, masses.size):
        held[j] = held[j - 1]
        _raise_complements(p, root, squarings, series, c)
        others = _multiply_and_sum(p, c)
        _record(shares[j - 1, 0] * shares[j - 1, 1] ** beta, others, shares, masses, j)
        if not masses[j] > 0.0:
            return held_total, True
        held_total += shares[j, 0]
        _scale_and_add(p, p.dtype.type(1.0 / masses[j]), total)
        if beta > 1.0:
            largest = _largest(p)
            if largest > 0.5:
                lost |= p.itemsize == 4 and shares[j, 0] < SMALLEST_FLOAT32
                old, held[j] = held[j], _index_of(p, largest)
                total[old] += held_total
                held_total = 0.0
                p[old], shares[j, 0], p[held[j]] = shares[j, 0], p[held[j]], 0
                shares[j, 1] = _sum(p)
    return held_total, lost


@compiled
def _padded(n: int) -> int:
    return -(-n // LANES) * LANES


@compiled
def forward_rows(
    weights: FloatArray,
    power: Power,
    held: FloatArray,
    shares: FloatArray,
    masses: FloatArray,
    a: FloatArray,
    lost: FloatArray,
) -> None:
    """Fill a (rows, n), the records (rows, k) of the steps, and the flags of rows that lost digits.

    The weights (rows, n) are those of the first softmax, in the dtype of the recursion; the items held out first are
    known.
    """
    rows, n = weights.shape
    p, total = np.zeros(_padded(n), weights.dtype), np.empty(_padded(n), weights.dtype)
    c = np.empty(_padded(n), weights.dtype)
    for row in range(rows):
        own = row if power.beta.size > 1 else 0
        _start(weights[row], held[row, 0], p)
        _record(float(weights[row, held[row, 0]]), _sum(p), shares[row], masses[row], 0)
        total[:] = 0
        if power.beta[own] == 1.0:
            held[row, 1:] = held[row, 0]
            held_total = _run_power_1(p, total, shares[row], masses[row])
        else:
            held_total, lost[row] = _run(p, c, total, power, own, held[row], shares[row], masses[row])
        a[row] = total[:n]
        a[row, held[row, -1]] += held_total


# --- the states once more, for the derivatives ------------------------------------------------------


@contracting
def _advance_power_1(p: FloatArray, scale: Any, following: FloatArray) -> None:
    one = p.dtype.type(1)
    for i in range(p.size):
        following[i] = p[i] * (one - p[i]) * scale


@contracting
def _advance_any_power(p: FloatArray, c: FloatArray, scale: Any, following: FloatArray) -> None:
    for i in range(p.size):
        following[i] = p[i] * c[i] * scale


@compiled
def _advance(
    p: FloatArray,
    c: FloatArray,
    following: FloatArray,
    power: Power,
    own: int,
    held: FloatArray,
    shares: FloatArray,
    masses: FloatArray,
    j: int,
) -> None:
    """p^{j+1} from p^j."""
    beta, scale = power.beta[own], p.dtype.type(1.0 / masses[j + 1])
    if beta == 1.0:
        _advance_power_1(p, scale, following)
        return
    _raise_complements(p, power.root[own], power.squarings[own], power.series[own], c)
    _advance_any_power(p, c, scale, following)
    if held[j] != held[j + 1]:
        following[held[j]] = shares[j, 0] * shares[j, 1] ** beta / masses[j + 1]
        following[held[j + 1]] = 0


# --- the vector-Jacobian product --------------------------------------------------------------------


@reassociating
def _pull_of_tile(x: FloatArray, p: FloatArray, g: FloatArray, beta: Any, t: FloatArray) -> Any:
    one, h = p.dtype.type(1), p.dtype.type(0)
    for i in range(p.size):
        pull = g[i] - beta * x[i] / (one - p[i])
        t[i] = pull
        h += p[i] * pull
    return h


@compiled
def _pull(x: FloatArray, p: FloatArray, g: FloatArray, beta: Any, t: FloatArray) -> float:
    """t = g - beta x / (1 - p), and the sum of p t."""
    h = 0.0
    for first in range(0, p.size, TILE):
        tile = slice(first, first + TILE)
        h += _pull_of_tile(x[tile], p[tile], g[tile], beta, t[tile])
    return h


@contracting
def _descend(x: FloatArray, p: FloatArray, t: FloatArray, y: Any) -> None:
    for i in range(p.size):
        x[i] += p[i] * (t[i] - y)


@compiled
def _fill_states(
    states: FloatArray,
    c: FloatArray,
    power: Power,
    own: int,
    held: FloatArray,
    shares: FloatArray,
    masses: FloatArray,
    first: int,
) -> int:
    """p^{j+1} after p^j = states[0], j = first, as far as there is room and as there are steps; their number."""
    number = min(states.shape[0], masses.size - first)
    for i in range(number - 1):
        _advance(states[i], c, states[i + 1], power, own, held, shares, masses, first + i)
    return number


@compiled
def vjp_rows(
    weights: FloatArray,
    power: Power,
    held: FloatArray,
    shares: FloatArray,
    masses: FloatArray,
    g: FloatArray,
    length: int,
    logs: FloatArray,
    centred: FloatArray,
    x_of_rows: FloatArray,
    by_power: FloatArray,
) -> None:
    """Fill x (rows, n), the gradient by the keys over beta, and the gradient by beta (rows,).

    g is the cotangent less its value at the item held out first. `length` states are at hand at a time; those of longer
    trajectories are made twice. `logs` is the series of log(1 - p); the keys less their maximum, `centred`, are (0, 0)
    where the gradient by beta is not wanted.
    """
    rows, n = weights.shape
    k, dtype = masses.shape[1], weights.dtype
    firsts = np.zeros((-(-k // length), _padded(n)), dtype)
    states = np.zeros((length, _padded(n)), dtype)
    buffers = np.zeros((4, _padded(n)), dtype)
    x, t, c, g_padded = buffers[0], buffers[1], buffers[2], buffers[3]
    for row in range(rows):
        own = row if power.beta.size > 1 else 0
        beta = power.beta[own]
        beta_narrow = x.dtype.type(beta)
        _start(weights[row], held[row, 0], firsts[0])
        firsts[0] *= x.dtype.type(1.0 / masses[row, 0])
        for segment in range(firsts.shape[0] - 1):
            states[0] = firsts[segment]
            _fill_states(states, c, power, own, held[row], shares[row], masses[row], segment * length)
            end = (segment + 1) * length - 1
            _advance(states[-1], c, firsts[segment + 1], power, own, held[row], shares[row], masses[row], end)
        g_padded[:n] = g[row]
        x[:] = 0
        x_held = 0.0
        for segment in range(firsts.shape[0] - 1, -1, -1):
            states[0] = firsts[segment]
            number = _fill_states(states, c, power, own, held[row], shares[row], masses[row], segment * length)
            for j in range(segment * length + number - 1, segment * length - 1, -1):
                p = states[j - segment * length]
                share, rest = shares[row, j, 0], shares[row, j, 1]
                if j < k - 1 and held[row, j] != held[row, j + 1]:
                    x[held[row, j + 1]] = x_held
                    x_held = float(x[held[row, j]])
                if j < k - 1 and centred.size > 0:
                    _subtract_series(p, x.dtype.type(0), logs, c)
                    by_power[row] += _dot(x, c) + x_held * math.log(rest)
                g_held = float(g_padded[held[row, j]])
                h = _pull(x, p, g_padded, beta_narrow, t) - g_held * rest
                y = h + g_held
                if j < k - 1:
                    y -= beta * share / rest * x_held
                _descend(x, p, t, x.dtype.type(y))
                x_held = x_held * (rest + (1.0 - beta) * share) - share * h
        x[held[row, 0]] = x_held
        x_of_rows[row] = x[:n]
        if centred.size > 0:
            by_power[row] += _dot(x_of_rows[row], centred[row])


# --- the Jacobian-vector product ----------------------------------------------------------------------


@contracting
def _tangent_of_state(p: FloatArray, d: FloatArray, s: Any, t: FloatArray, total: FloatArray) -> None:
    for i in range(p.size):
        t[i] = p[i] * (d[i] - s)
        total[i] += t[i]


@contracting
def _ascend(d: FloatArray, p: FloatArray, t: FloatArray, beta: Any, shift: Any) -> None:
    one = p.dtype.type(1)
    for i in range(p.size):
        d[i] -= beta * t[i] / (one - p[i]) + shift


@contracting
def _add_multiple(d: FloatArray, factor: Any, c: FloatArray) -> None:
    for i in range(d.size):
        d[i] += factor * c[i]


@compiled
def jvp_rows(
    weights: FloatArray,
    power: Power,
    held: FloatArray,
    shares: FloatArray,
    masses: FloatArray,
    tangent_of_logs: FloatArray,
    dbeta: FloatArray,
    logs: FloatArray,
    tangent: FloatArray,
) -> None:
    """Fill the tangent (rows, n) of a, from that of the logarithms of the weights and that of beta, (rows,) or (1,)."""
    rows, n = weights.shape
    k, dtype = masses.shape[1], weights.dtype
    buffers = np.zeros((6, _padded(n)), dtype)
    p, following, d, t, c, total = buffers[0], buffers[1], buffers[2], buffers[3], buffers[4], buffers[5]
    for row in range(rows):
        own = row if power.beta.size > 1 else 0
        beta, dbeta_own = power.beta[own], dbeta[row if dbeta.size > 1 else 0]
        _start(weights[row], held[row, 0], p)
        p *= p.dtype.type(1.0 / masses[row, 0])
        d[:n] = tangent_of_logs[row]
        d[:n] -= d[held[row, 0]]
        d[n:] = 0
        total[:] = 0
        for j in range(k):
            slot = held[row, j]
            share, rest = shares[row, j, 0], shares[row, j, 1]
            s = _dot(p, d)
            _tangent_of_state(p, d, p.dtype.type(s), t, total)
            total[slot] -= share * s
            if j < k - 1:
                shift = beta * share * s / rest
                if dbeta_own != 0.0:
                    shift += dbeta_own * math.log(rest)
                    _subtract_series(p, p.dtype.type(0), logs, c)
                    _add_multiple(d, p.dtype.type(dbeta_own), c)
                _ascend(d, p, t, p.dtype.type(beta), p.dtype.type(shift))
                d[slot] = 0
                _advance(p, c, following, power, own, held[row], shares[row], masses[row], j)
                p, following = following, p
                if held[row, j + 1] != slot:
                    d -= d[held[row, j + 1]]
        tangent[row] = total[:n]
