"""Successive softmax of one row that is cut into shards: one exchange for the value, and one for each derivative.

The k steps are made on m heavy items and P nodes, and all that they need of the light items is the power sums
M_q = sum v^q, v = exp((r - thr) / t). So a shard sends a summary, its m heaviest items and the power sums of its
others, whatever k is. Two things make this work without a first round for the threshold:

* Power sums relative to another threshold are the same but for factors: with v' = v exp((thr - thr') / t),
  M'_q = M_q exp(q (thr - thr') / t). All terms are positive, so that nothing cancels.
* The threshold of a shard, its own m-th largest key, is never above that of the whole row. What is light in its shard
  is light in the row.

Putting two summaries together is associative, so that they can be merged as a tree. What comes out at the end is what
one look at the whole row would have found: its m heaviest items, and the power sums of all others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._numpy import relaxed_topk as whole
from gumbeltopk._numpy.compression import derivatives, linear_recursion, measure
from gumbeltopk._numpy.compression.block import LARGEST_DEGREE, Points, Split, run_points, write_heavy
from gumbeltopk._numpy.settings import quick_and_quiet

Floats = npt.NDArray[Any]
Places = npt.NDArray[np.int64]

DEGREE = LARGEST_DEGREE[8]  # P: a shard sends all powers, because the reach is known only after the run
FEWEST_HEAVY = 2048
HEAVY_OF_STEPS = 6  # m / k: for t >= 1 enough for every row
UNCENTRED = np.zeros((1, 1))


class Summary(NamedTuple):
    """What a shard, or several of them, send: at most m items, and power sums relative to the least of them."""

    keys: Floats  # (c,): finite keys of the heaviest items, in descending order
    places: Places  # (c,): in the row
    power_sums: Floats  # (P,): of the others; zero as long as there are fewer than m


class Solution(NamedTuple):
    """The k steps, as far as a shard needs them to read its items off."""

    threshold: float
    temperature: float
    places: Places  # (c,): of the heavy items, in ascending order
    heavy: Floats  # (c,): their values
    polynomial: Floats  # (1, P): coefficients of the value of a light item of weight v


class Trajectory(NamedTuple):
    """What the derivatives need, beside the solution, at the place where the steps were made."""

    order: Places  # (c,): the heavy items in descending order, as positions in the solution
    points: Points


class Gathered(NamedTuple):
    """The same for a row of fewer than m items: the trajectory of all of them, in their order, in the direct form."""

    arrays: Any
    form: Any
    k: int


class Solved(NamedTuple):
    """The outcome of the k steps."""

    solution: Solution
    trajectory: Trajectory | Gathered
    good: bool  # the tolerance is met
    bound: float  # of what was neglected, relative


class Inputs(NamedTuple):
    """What a shard, or several of them, send of the inputs g of a derivative."""

    positions: Places  # (h,): of their heavy items in the solution
    heavy: Floats  # (h,): g of the heavy items
    power_sums: Floats  # (P,): of g v^q over the light items


class Expansion(NamedTuple):
    """A derivative, as far as a shard needs it: scale (g E(v) + D(v)) for light items."""

    heavy: Floats  # (c,): in the order of the solution
    e: Floats  # (1, P)
    d: Floats  # (1, P)
    scale: float


def heavy_items(k: int) -> int:
    """m."""
    return max(HEAVY_OF_STEPS * k, FEWEST_HEAVY)


# --- summaries ------------------------------------------------------------------------------------


def summarise(keys: Any, first: int, heavy: int, temperature: float) -> Summary:
    """The summary of a shard (n,) whose first item has the place `first` in the row."""
    wide = np.asarray(keys, dtype=np.float64)
    kept = np.arange(len(wide)) if len(wide) <= heavy else np.argpartition(wide, len(wide) - heavy)[-heavy:]
    kept = kept[wide[kept] > -np.inf]
    order = np.lexsort((kept, -wide[kept]))
    kept = kept[order]
    power_sums = np.zeros(DEGREE)
    if len(kept) == heavy < len(wide):
        with quick_and_quiet():
            v = _weights_of_light(wide, float(wide[kept[-1]]), temperature, kept)
            power_sums = measure.power_sums(v, DEGREE)[0]
    return Summary(wide[kept], first + kept, power_sums)


def merge(first: Summary, second: Summary, heavy: int, temperature: float) -> Summary:
    """The summary of both."""
    keys = np.concatenate([first.keys, second.keys])
    places = np.concatenate([first.places, second.places])
    order = np.lexsort((places, -keys))
    kept, others = order[:heavy], order[heavy:]
    power_sums = np.zeros(DEGREE)
    if len(kept) == heavy:
        threshold = keys[kept[-1]]
        with quick_and_quiet():
            power_sums += _relative_to(threshold, first, temperature) + _relative_to(threshold, second, temperature)
            power_sums += measure.power_sums(np.exp((keys[others] - threshold) / temperature)[None], DEGREE)[0]
    return Summary(keys[kept], places[kept], power_sums)


def _relative_to(threshold: float, summary: Summary, temperature: float) -> Floats:
    """The power sums relative to a threshold that is not below the summary's own."""
    if summary.power_sums[0] == 0.0:
        return np.zeros(DEGREE)
    powers = np.arange(1.0, DEGREE + 1.0)
    return np.asarray(summary.power_sums * np.exp(powers * ((summary.keys[-1] - threshold) / temperature)))


def _weights_of_light(keys: Floats, threshold: float, temperature: float, heavy: Any) -> Floats:
    """(1, n): v of all items, and 0 for the heavy ones."""
    v = np.subtract(keys, threshold)
    np.divide(v, temperature, out=v)
    np.exp(v, out=v)
    v[heavy] = 0.0
    return v[None]


# --- the value ------------------------------------------------------------------------------------


def solve(summary: Summary, k: int, heavy: int, temperature: float, keep: bool) -> Solved:
    """The k steps, from the summary of the whole row."""
    ascending = np.argsort(summary.places)
    if len(summary.keys) < heavy or k == 0:
        return _solve_gathered(summary.keys[ascending], summary.places[ascending], k, temperature, keep)
    order = np.empty_like(ascending)
    order[ascending] = np.arange(len(ascending))
    threshold = float(summary.keys[-1])
    log_v = ((summary.keys - threshold) / temperature)[None]
    split = Split(None, order[None], summary.keys[None], log_v, np.asarray([[threshold]]), summary.power_sums[None])
    with quick_and_quiet():
        points = run_points(split, np.asarray([[temperature]]), 1.0 / temperature, k, True, keep)
        if not points.good[0]:
            points = run_points(split, np.asarray([[temperature]]), 1.0 / temperature, k, False, keep)
    values = _of_heavy(points, points.at_items, points.at_binned)[ascending]
    solution = Solution(threshold, temperature, summary.places[ascending], values, points.polynomial)
    return Solved(solution, Trajectory(order, points), bool(points.good[0]), float(points.bound[0]))


def _solve_gathered(keys: Floats, places: Places, k: int, temperature: float, keep: bool) -> Solved:
    """All items are there: nothing is neglected, and items of key -inf, the only light ones, get 0."""
    values, arrays, form = np.zeros(len(keys)), None, None
    if k:
        with quick_and_quiet():
            t = np.asarray([[temperature]])
            result = whole.forward(keys[None], t, 1.0 / temperature, k, "direct", False, keep, np)
        values, arrays, form = result.a[0], result.trajectory, result.form
    solution = Solution(np.inf, temperature, places, values, np.zeros((1, DEGREE)))
    return Solved(solution, Gathered(arrays, form, k), True, 0.0)


def _of_heavy(points: Points, at_items: Floats, at_binned: Floats) -> Floats:
    """(c,): what was found for items and bins, in descending order of keys."""
    heavy = np.empty((1, len(points.bins.exact) + len(points.bins.binned)))
    write_heavy(heavy, np.arange(heavy.shape[1])[None], points.bins, at_items, at_binned)
    return np.asarray(heavy[0])


def read(keys: Any, first: int, solution: Solution) -> Floats:
    """The relaxed k-hot vector of a shard (n,)."""
    v, inside, own = _light_and_heavy(keys, first, solution)
    with quick_and_quiet():
        measure.evaluate(solution.polynomial, v, v)
    v[0, own] = solution.heavy[inside]
    return np.asarray(v[0])


def _light_and_heavy(keys: Any, first: int, solution: Solution) -> tuple[Floats, slice, Places]:
    """v (1, n), which heavy items of the solution lie in the shard, and their places there."""
    wide = np.asarray(keys, dtype=np.float64)
    start, stop = np.searchsorted(solution.places, (first, first + len(wide)))
    inside = slice(int(start), int(stop))
    own = solution.places[inside] - first
    with quick_and_quiet():
        return _weights_of_light(wide, solution.threshold, solution.temperature, own), inside, own


# --- derivatives ----------------------------------------------------------------------------------


def summarise_inputs(g: Any, keys: Any, first: int, solution: Solution) -> Inputs:
    """What a shard sends of its inputs (n,)."""
    v, inside, own = _light_and_heavy(keys, first, solution)
    wide = np.asarray(g, dtype=np.float64)
    with quick_and_quiet():
        sums = measure.products(v, DEGREE, wide[None], UNCENTRED)[0]
    return Inputs(np.arange(inside.start, inside.stop), wide[own], sums)


def merge_inputs(first: Inputs, second: Inputs) -> Inputs:
    """What both send."""
    return Inputs(
        np.concatenate([first.positions, second.positions]),
        np.concatenate([first.heavy, second.heavy]),
        first.power_sums + second.power_sums,
    )


def vjp(inputs: Inputs, trajectory: Trajectory | Gathered, temperature: float) -> Expansion:
    """The gradient by the keys, for the cotangent g of the value."""
    power, g = 1.0 / temperature, _inputs_of_heavy(inputs)
    with quick_and_quiet():
        if isinstance(trajectory, Gathered):
            arrays, form, k = trajectory
            gradient = whole.vjp(arrays, form, power, k, False, g[None], False, np)[0] if k else np.zeros((1, len(g)))
            return _expansion_of_gathered(gradient)
        columns, points = _columns(g, inputs, trajectory), trajectory.points
        x, _ = linear_recursion.reverse(_states(points), points.weights, columns, power, False)
        return _expansion(x, g, trajectory, power)


def jvp(inputs: Inputs, trajectory: Trajectory | Gathered, temperature: float) -> Expansion:
    """The tangent of the value, for the tangent g of the keys."""
    power, g = 1.0 / temperature, _inputs_of_heavy(inputs)
    still = np.zeros((1, 1))  # the temperature does not move
    with quick_and_quiet():
        if isinstance(trajectory, Gathered):
            arrays, form, k = trajectory
            tangent = whole.jvp(arrays, form, power, k, False, g[None], still, np) if k else np.zeros((1, len(g)))
            return _expansion_of_gathered(tangent)
        columns, points = _columns(g, inputs, trajectory), trajectory.points
        total = linear_recursion.tangent(_states(points), points.weights, columns, power, 0.0)
        return _expansion(total, g, trajectory, power)


def _states(points: Points) -> Floats:
    if points.states is None:
        raise ValueError("no trajectory was kept: solve the row with keep=True")
    return points.states


def _inputs_of_heavy(inputs: Inputs) -> Floats:
    """(c,): g of the heavy items in the order of the solution."""
    g = np.empty(len(inputs.positions))
    g[inputs.positions] = inputs.heavy
    return g


def _columns(g: Floats, inputs: Inputs, trajectory: Trajectory) -> linear_recursion.Columns:
    points = trajectory.points
    heavy = g[trajectory.order][None]
    return derivatives.columns_of_inputs(points.bins, heavy, inputs.power_sums[None], points.weights)


def _expansion(columns: Floats, g: Floats, trajectory: Trajectory, scale: float) -> Expansion:
    order, points = trajectory
    at = derivatives.read_columns(points.bins, columns, DEGREE)
    heavy = np.empty(len(order))
    heavy[order] = _of_heavy(points, at.items, at.binned(g[order[points.bins.binned]]))
    return Expansion(scale * heavy, at.e, at.d, scale)


def _expansion_of_gathered(values: Floats) -> Expansion:
    nothing = np.zeros((1, DEGREE))
    return Expansion(values[0], nothing, nothing, 1.0)


def read_expansion(g: Any, keys: Any, first: int, solution: Solution, expansion: Expansion) -> Floats:
    """The derivative of a shard (n,)."""
    v, inside, own = _light_and_heavy(keys, first, solution)
    wide = np.asarray(g, dtype=np.float64)[None]
    result = np.empty_like(v)
    with quick_and_quiet():
        measure.evaluate_pair(expansion.e, expansion.d, v, wide, UNCENTRED, result)
    result *= expansion.scale
    result[0, own] = expansion.heavy[inside]
    return np.asarray(result[0])
