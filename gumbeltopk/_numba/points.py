"""Successive softmax on the weighted points of the compressed form, and its VJP, as compiled loops.

The formulas are those of `recursion` and `linear_recursion` in `gumbeltopk._numpy.compression`. There a step costs a
handful of NumPy calls, here its arithmetic. The pivot, an item with p > 1/2, is looked for in each step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk._generic.successive_softmax import LARGEST_POWER_BY_PRODUCTS
from gumbeltopk._numba.compiling import FASTMATH, Array, compiled, inner, without_nan
from gumbeltopk._numpy.compression import recursion
from gumbeltopk._numpy.compression.linear_recursion import Columns
from gumbeltopk._numpy.compression.loops import Loops

NO_PIVOT = -1


def run(p: Array, weights: Array, power: Any, k: int, keep: bool) -> recursion.Run:
    """As `recursion.run`."""
    rows = len(p)
    states = np.empty((k if keep else 1, *p.shape), dtype=p.dtype)
    total, masses = np.empty(p.shape), np.empty((k - 1, rows))
    _RUN_ROWS(p, np.ascontiguousarray(weights), _of_each_row(power, rows), k, keep, states, total, masses)
    return recursion.finish(total, states if keep else None, masses)


def reverse(states: Array, weights: Array, columns: Columns, beta: Any, logs: bool) -> tuple[Array, Array]:
    """As `linear_recursion.reverse`."""
    _, rows, points = states.shape
    items = columns.items
    g, input_weights = columns.own[:, :items], columns.weights[:, items:points]
    x, by_logs = np.zeros_like(columns.own), np.zeros(rows)
    g, input_weights, weights = (np.ascontiguousarray(each) for each in (g, input_weights, weights))
    _REVERSE_ROWS(np.ascontiguousarray(states), g, input_weights, weights, _of_each_row(beta, rows), logs, x, by_logs)
    return x, by_logs


NUMBA = Loops(run, reverse)


def _of_each_row(power: Any, rows: int) -> Array:
    beta = np.reshape(np.asarray(power, dtype=np.float64), -1)
    return np.ascontiguousarray(np.broadcast_to(beta, (rows,)))


# --- forward --------------------------------------------------------------------------------------


@inner
def small_whole(beta: float) -> int:
    """beta if it is a whole number and small, else 0."""
    return int(beta) if beta == math.floor(beta) and beta <= LARGEST_POWER_BY_PRODUCTS else 0


@inner
def raised(base: float, beta: float, whole: int) -> float:
    """base^beta; by products for a small whole number."""
    if whole == 0:
        return math.sqrt(base) if beta == 0.5 else base**beta
    result = base
    for _ in range(whole - 1):
        result *= base
    return result


@inner
def decay(p: Array, beta: float, whole: int) -> None:
    """p <- p (1 - p)^beta."""
    if whole == 1:
        for i in range(p.size):
            p[i] *= 1.0 - p[i]
    else:
        for i in range(p.size):
            p[i] *= raised(1.0 - p[i], beta, whole)


@inner
def weighted_sum(p: Array, weights: Array) -> float:
    """Sum of weights * p."""
    total = 0.0
    for i in range(p.size):
        total += weights[i] * p[i]
    return total


@without_nan
def largest(p: Array) -> float:
    """The largest p; of any value if there is a NaN."""
    result = 0.0
    for i in range(p.size):
        result = max(result, p[i])
    return result


@inner
def pivot_of(p: Array) -> int:
    """The item with p > 1/2, if there is one."""
    if not largest(p) > 0.5:
        return NO_PIVOT
    for i in range(p.size):
        if p[i] > 0.5:
            return i
    return NO_PIVOT


@inner
def rest_of(p: Array, weights: Array, pivot: int) -> float:
    """1 - p of the pivot without cancellation: what the others add up to."""
    own = p[pivot]
    p[pivot] = 0.0
    rest = weighted_sum(p, weights)
    p[pivot] = own
    return rest


@inner
def step(p: Array, weights: Array, beta: float, whole: int) -> float:
    """p <- p (1 - p)^beta / S; returns S."""
    pivot = pivot_of(p)
    if pivot == NO_PIVOT:
        decay(p, beta, whole)
    else:
        at_pivot = p[pivot] * raised(rest_of(p, weights, pivot), beta, whole)
        p[pivot] = 0.0
        decay(p, beta, whole)
        p[pivot] = at_pivot
    mass = weighted_sum(p, weights)
    scale = 1.0 / mass
    for i in range(p.size):
        p[i] *= scale
    return mass


def _run_rows(
    first: Array, weights: Array, power: Array, k: int, keep: bool, states: Array, total: Array, masses: Array
) -> None:
    """Fill the total (rows, points), the S (k - 1, rows) and, if `keep`, the p^j (k, rows, points)."""
    p = np.empty(first.shape[1])
    for row in range(first.shape[0]):
        own_total, beta = total[row], power[row]
        whole = small_whole(beta)
        for i in range(p.size):
            p[i] = own_total[i] = first[row, i]
        if keep:
            states[0, row] = first[row]
        for j in range(1, k):
            masses[j - 1, row] = step(p, weights[row], beta, whole)
            for i in range(p.size):
                own_total[i] += p[i]
            if keep:
                state = states[j, row]
                for i in range(p.size):
                    state[i] = p[i]


# --- the vector-Jacobian product ------------------------------------------------------------------


@inner
def logs_of_row(p: Array, pivot: int, rest: float, input_weights: Array, weights: Array, x: Array) -> float:
    """Sum of x log(1 - p) over all columns."""
    items, nodes = p.size - input_weights.size, input_weights.size
    total = 0.0
    for i in range(items):
        if i != pivot and p[i] < 1.0:
            total += x[i] * math.log1p(-p[i])
    for c in range(nodes):
        own = input_weights[c] * x[items + c] + weights[items + c] * x[p.size + c]
        total += own * math.log1p(-p[items + c])
    if pivot != NO_PIVOT and rest > 0.0:
        total += x[pivot] * math.log(rest)
    return total


@inner
def reverse_step(
    p: Array,
    pivot: int,
    rest: float,
    g: Array,
    input_weights: Array,
    weights: Array,
    beta: float,
    x: Array,
    h: Array,
) -> None:
    """One step of the adjoint x of [items, E at the nodes, D at the nodes]; h is scratch of the same shape."""
    items, nodes = g.size, input_weights.size
    e, d = items, p.size  # where the columns of E and D begin
    g_pivot = x_pivot = p_pivot = pull = 0.0
    if pivot != NO_PIVOT:
        g_pivot, x_pivot, p_pivot = g[pivot], x[pivot], p[pivot]
        pull = beta * x_pivot * p_pivot / rest if rest > 0.0 else 0.0
        p[pivot] = 0.0
    total = 0.0
    for i in range(items):
        h[i] = p[i] * (g[i] - g_pivot - beta * x[i] / (1.0 - p[i]))
        total += h[i]
    for c in range(nodes):
        q = beta * p[e + c] / (1.0 - p[e + c])
        h[e + c] = p[e + c] - q * x[e + c]
        h[d + c] = -p[e + c] * g_pivot - q * x[d + c]
        total += input_weights[c] * h[e + c] + weights[e + c] * h[d + c]
    shared = pull - total
    for i in range(items):
        x[i] += h[i] + p[i] * shared
    for c in range(nodes):
        x[e + c] += h[e + c]
        x[d + c] += h[d + c] + p[e + c] * shared
    if pivot != NO_PIVOT:
        p[pivot] = p_pivot
        x[pivot] = x_pivot * (rest + (1.0 - beta) * p_pivot) - p_pivot * total


def _reverse_rows(
    states: Array,
    g: Array,
    input_weights: Array,
    weights: Array,
    power: Array,
    logs: bool,
    x: Array,
    by_logs: Array,
) -> None:
    """Fill the adjoints x (rows, columns), which are 0, and the sums of x_{j+1} log(1 - p^j) (rows,)."""
    k, rows, points = states.shape
    p, h = np.empty(points), np.empty(x.shape[1])
    for row in range(rows):
        for j in range(k - 1, -1, -1):
            state = states[j, row]
            for i in range(points):
                p[i] = state[i]
            pivot = pivot_of(p)
            rest = 0.0 if pivot == NO_PIVOT else rest_of(p, weights[row], pivot)
            if logs and j < k - 1:
                by_logs[row] += logs_of_row(p, pivot, rest, input_weights[row], weights[row], x[row])
            reverse_step(p, pivot, rest, g[row], input_weights[row], weights[row], power[row], x[row], h)


_RUN_ROWS = compiled(_run_rows, fastmath=FASTMATH)
_REVERSE_ROWS = compiled(_reverse_rows, fastmath=FASTMATH)
