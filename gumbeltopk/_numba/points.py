"""Successive softmax on the weighted points of the compressed form, and its VJP, as compiled loops.

The formulas are those of `recursion` and `linear_recursion` in `gumbeltopk._numpy.compression`. There a step costs a
handful of NumPy calls, here its arithmetic. The pivot, an item with p > 1/2, is looked for in each step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk._generic.successive_softmax import LARGEST_POWER_BY_PRODUCTS
from gumbeltopk._numba import tiles
from gumbeltopk._numba.compiling import FASTMATH, Array, compiled, inner
from gumbeltopk._numba.powers import Power, power_of
from gumbeltopk._numba.rows import raise_complements
from gumbeltopk._numpy.compression import recursion
from gumbeltopk._numpy.compression.linear_recursion import Columns
from gumbeltopk._numpy.compression.loops import Loops

NO_PIVOT = -1
LANES = 32  # what the compiler takes at a time


def run(p: Array, weights: Array, power: Any, k: int, keep: bool) -> recursion.Run:
    """As `recursion.run`."""
    rows = len(p)
    states = np.empty((k if keep else 0, *p.shape), dtype=p.dtype)
    total, masses = np.empty_like(p), np.empty((k - 1, rows))
    own_power = power_of(np.reshape(np.asarray(power, dtype=np.float64), -1), None, p.dtype.type)
    _RUN_ROWS(p, _as_rows(weights, p.dtype), own_power, k, total, masses, keep, states)
    return recursion.finish(total.astype(np.float64, copy=False), states if keep else None, masses)


def reverse(states: Array, weights: Array, columns: Columns, beta: Any, logs: bool) -> tuple[Array, Array]:
    """As `linear_recursion.reverse`."""
    _, rows, points = states.shape
    dtype, items = states.dtype, columns.items
    g, input_weights = columns.own[:, :items], columns.weights[:, items:points]
    x, by_logs = np.empty(columns.own.shape, dtype), np.zeros(rows)
    g, input_weights, weights = (_as_rows(each, dtype) for each in (g, input_weights, weights))
    _REVERSE_ROWS(np.ascontiguousarray(states), g, input_weights, weights, _of_each_row(beta, rows), logs, x, by_logs)
    return x.astype(np.float64, copy=False), by_logs


NUMBA = Loops(run, reverse, tiles.NUMBA)


def _as_rows(array: Array, dtype: Any) -> Array:
    return np.ascontiguousarray(array, dtype=dtype)


def _of_each_row(power: Any, rows: int) -> Array:
    beta = np.reshape(np.asarray(power, dtype=np.float64), -1)
    return np.ascontiguousarray(np.broadcast_to(beta, (rows,)))


# --- forward --------------------------------------------------------------------------------------


@inner
def small_whole(beta: float) -> int:
    """beta if it is a whole number and small, else 0."""
    return int(beta) if beta == math.floor(beta) and beta <= LARGEST_POWER_BY_PRODUCTS else 0


@inner
def decay(p: Array, weights: Array) -> Any:
    """p <- p (1 - p); returns its sum."""
    one, total = p.dtype.type(1), p.dtype.type(0)
    for i in range(p.size):
        p[i] *= one - p[i]
        total += weights[i] * p[i]
    return total


@inner
def decay_by_whole(p: Array, weights: Array, whole: int, c: Array) -> Any:
    """p <- p (1 - p)^beta for a small whole number; returns its sum."""
    one = p.dtype.type(1)
    for i in range(p.size):
        c[i] = one - p[i]
    for _ in range(whole):
        for i in range(p.size):
            p[i] *= c[i]
    return weighted_sum(p, weights)


@inner
def decay_by_root(p: Array, weights: Array) -> Any:
    """The same for beta = 1/2."""
    one, total = p.dtype.type(1), p.dtype.type(0)
    for i in range(p.size):
        p[i] *= np.sqrt(one - p[i])
        total += weights[i] * p[i]
    return total


@inner
def decay_by_steep_power(p: Array, weights: Array, beta: float) -> Any:
    """The same for beta > 1 in float64: squaring would double the error of a root each time."""
    one, total = p.dtype.type(1), p.dtype.type(0)
    for i in range(p.size):
        p[i] *= (one - p[i]) ** beta
        total += weights[i] * p[i]
    return total


@inner
def decay_by_power(p: Array, weights: Array, power: Power, own: int, c: Array) -> Any:
    """The same for any beta."""
    raise_complements(p, power, own, c, c)
    for i in range(p.size):
        p[i] *= c[i]
    return weighted_sum(p, weights)


@inner
def weighted_sum(p: Array, weights: Array) -> Any:
    """Sum of weights * p."""
    total = p.dtype.type(0)
    for i in range(p.size):
        total += weights[i] * p[i]
    return total


@inner
def sum_of(p: Array) -> Any:
    total = p.dtype.type(0)
    for i in range(p.size):
        total += p[i]
    return total


@inner
def pivot_of(p: Array) -> int:
    """The item with p > 1/2."""
    for i in range(p.size):
        if p[i] > 0.5:
            return i
    return NO_PIVOT


@inner
def rest_of(p: Array, weights: Array, pivot: int) -> Any:
    """1 - p of the pivot without cancellation: what the others add up to."""
    own = p[pivot]
    p[pivot] = 0
    rest = weighted_sum(p, weights)
    p[pivot] = own
    return rest


@inner
def scale_and_add(p: Array, scale: Any, total: Array) -> int:
    """p <- scale p, which the total gets, too; returns how many p are above 1/2."""
    half, count = p.dtype.type(0.5), 0
    for i in range(p.size):
        p[i] *= scale
        total[i] += p[i]
        count += p[i] > half
    return count


@inner
def padded(points: int) -> int:
    return -(-points // LANES) * LANES


def _run_rows(
    first: Array, weights: Array, power: Power, k: int, total: Array, masses: Array, keep: bool, states: Array
) -> None:
    """Fill the total (rows, points), the S (k - 1, rows), and the p^j (k, rows, points), if they are to be kept."""
    rows, points = first.shape
    buffers = np.zeros((4, padded(points)), first.dtype)
    p, own_weights, own_total, c = buffers[0], buffers[1], buffers[2], buffers[3]
    for row in range(rows):
        own = row if power.beta.size > 1 else 0
        beta = power.beta[own]
        whole = small_whole(beta)
        own_total[:] = 0
        for i in range(points):
            p[i], own_weights[i] = first[row, i], weights[row, i]
        pivots = scale_and_add(p, p.dtype.type(1), own_total)
        if keep:
            states[0, row] = first[row]
        for j in range(1, k):
            pivot, at_pivot = NO_PIVOT, 0.0
            if pivots > 0:
                pivot = pivot_of(p)
                at_pivot = p[pivot] * np.float64(rest_of(p, own_weights, pivot)) ** beta
                p[pivot] = 0
            if whole == 1:
                others = decay(p, own_weights)
            elif whole > 1:
                others = decay_by_whole(p, own_weights, whole, c)
            elif beta == 0.5:
                others = decay_by_root(p, own_weights)
            elif beta > 1.0 and p.itemsize == 8:
                others = decay_by_steep_power(p, own_weights, beta)
            else:
                others = decay_by_power(p, own_weights, power, own, c)
            mass = at_pivot + others
            if pivot != NO_PIVOT:
                p[pivot] = at_pivot
            masses[j - 1, row] = mass
            pivots = scale_and_add(p, p.dtype.type(1.0 / mass), own_total)
            if keep:
                for i in range(points):
                    states[j, row, i] = p[i]
        for i in range(points):
            total[row, i] = own_total[i]


# --- the vector-Jacobian product ------------------------------------------------------------------


@inner
def logs_of(p: Array, x: Array, pivot: int) -> float:
    """Sum of x log(1 - p) but for the pivot's."""
    total = 0.0
    for i in range(p.size):
        if i != pivot and p[i] < 1.0:
            total += x[i] * math.log1p(-p[i])
    return total


@inner
def logs_of_nodes(p: Array, input_weights: Array, weights: Array, x_e: Array, x_d: Array) -> float:
    """The same of the nodes."""
    total = 0.0
    for i in range(p.size):
        total += (input_weights[i] * x_e[i] + weights[i] * x_d[i]) * math.log1p(-p[i])
    return total


@inner
def pull_of_items(p: Array, g: Array, g_pivot: Any, beta: Any, x: Array, h: Array) -> Any:
    """h = p (g - g_i) - beta p x / (1 - p) of the items, and their sum."""
    one, total = p.dtype.type(1), p.dtype.type(0)
    for i in range(p.size):
        h[i] = p[i] * (g[i] - g_pivot - beta * x[i] / (one - p[i]))
        total += h[i]
    return total


@inner
def pull_of_nodes(
    p: Array, g_pivot: Any, input_weights: Array, weights: Array, beta: Any, x_e: Array, x_d: Array, h: Array
) -> Any:
    """x + h of E and of D at the nodes, and the sum of h."""
    one, total = p.dtype.type(1), p.dtype.type(0)
    for i in range(p.size):
        q = beta * p[i] / (one - p[i])
        h_e = p[i] - q * x_e[i]
        h_d = -p[i] * g_pivot - q * x_d[i]
        total += input_weights[i] * h_e + weights[i] * h_d
        x_e[i] += h_e
        h[i] = h_d
    return total


@inner
def add_pull(p: Array, h: Array, shared: Any, x: Array) -> None:
    """x <- x + h + p shared."""
    for i in range(p.size):
        x[i] += h[i] + p[i] * shared


@inner
def load_state(state: Array, p: Array, p_of_nodes: Array, items: int) -> int:
    """Returns how many p are above 1/2."""
    half, count = p.dtype.type(0.5), 0
    for i in range(items):
        p[i] = state[i]
        count += state[i] > half
    for i in range(items, state.size):
        p_of_nodes[i - items] = state[i]
    return count


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
    """Fill the adjoints x (rows, columns) and the sums of x_{j+1} log(1 - p^j) (rows,)."""
    (k, rows, points), items, dtype = states.shape, g.shape[1], states.dtype
    nodes = points - items
    of_items, of_nodes = np.zeros((4, padded(items)), dtype), np.zeros((6, padded(nodes)), dtype)
    p, own_g, own_x, h = of_items[0], of_items[1], of_items[2], of_items[3]
    at, inputs, counts, x_e, x_d, h_d = of_nodes[0], of_nodes[1], of_nodes[2], of_nodes[3], of_nodes[4], of_nodes[5]
    for row in range(rows):
        own_x[:], x_e[:], x_d[:] = 0, 0, 0
        for i in range(items):
            own_g[i] = g[row, i]
        for i in range(nodes):
            inputs[i], counts[i] = input_weights[row, i], weights[row, items + i]
        beta = dtype.type(power[row])
        for j in range(k - 1, -1, -1):
            pivots = load_state(states[j, row], p, at, items)
            pivot = NO_PIVOT if pivots == 0 else pivot_of(p)
            rest = g_pivot = x_pivot = p_pivot = pull = 0.0
            if pivot != NO_PIVOT:
                g_pivot, x_pivot, p_pivot = np.float64(own_g[pivot]), np.float64(own_x[pivot]), np.float64(p[pivot])
                p[pivot] = 0
                rest = np.float64(sum_of(p) + weighted_sum(at, counts))
                pull = beta * x_pivot * p_pivot / rest if rest > 0.0 else 0.0
            if logs and j < k - 1:
                by_logs[row] += logs_of(p, own_x, pivot) + logs_of_nodes(at, inputs, counts, x_e, x_d)
                if rest > 0.0:
                    by_logs[row] += x_pivot * math.log(rest)
            narrow = dtype.type(g_pivot)
            total = pull_of_items(p, own_g, narrow, beta, own_x, h)
            total += pull_of_nodes(at, narrow, inputs, counts, beta, x_e, x_d, h_d)
            shared = dtype.type(pull - total)
            add_pull(p, h, shared, own_x)
            add_pull(at, h_d, shared, x_d)
            if pivot != NO_PIVOT:
                own_x[pivot] = x_pivot * (rest + (1.0 - beta) * p_pivot) - p_pivot * total
        for i in range(items):
            x[row, i] = own_x[i]
        for i in range(nodes):
            x[row, items + i], x[row, points + i] = x_e[i], x_d[i]


_RUN_ROWS = compiled(_run_rows, fastmath=FASTMATH)
_REVERSE_ROWS = compiled(_reverse_rows, fastmath=FASTMATH)
