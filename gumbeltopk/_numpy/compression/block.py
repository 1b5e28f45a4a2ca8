"""One try at some rows: split them into heavy items and nodes, run the k steps on these points, read the result off."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numpy.compression import bound, measure, recursion
from gumbeltopk._numpy.compression.loops import NUMPY, Loops
from gumbeltopk._numpy.compression.tiles import TILE, Tiles

Floats = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

LONG_ROW = 1 << 15  # items from which on a row is taken alone
SAMPLE = 1 << 13  # items looked at to find the threshold of a long row
# By item size of the dtype:
TOLERANCE = {4: 5e-8, 8: 1.5e-16}  # what may be neglected of a normaliser: about a rounding unit of the dtype
LARGEST_DEGREE = {4: 9, 8: 15}
ORDER = {4: 10, 8: 18}  # nodes of an octave bin
LARGEST_LAST_TERM = {4: 1e-7, 8: 5e-14}  # of the series on a bin
ESTIMATED_REACH = 1.3  # the estimate is seldom more than this factor too large
HOPELESS_REACH = 2.0  # such a row does not set the degree of all
MOST_FLOAT32_STEPS = 64
SMALLEST_FLOAT32_SHARE = 1e-25  # of an item at the threshold; float32 ends at 1e-38
COLDEST_FLOAT32, HOTTEST_FLOAT32 = 0.5, 1e30
ITEMS_OUT_OF_BINS = 32
FEWEST_STEPS_FOR_BINS = 64


class Effort(NamedTuple):
    """How hard a try at some rows is."""

    heavy: int  # m
    more_degrees: int  # than the estimate asks for
    bins: bool


class Block(NamedTuple):
    """What the derivatives need of some rows."""

    rows: Indices  # (rows,): which ones of the call's
    v: Any  # (rows, n): exp((r - thr) / t), 0 for the heavy items
    kept: Indices  # (rows, m): the heavy items
    log_v: Floats  # (rows, m): (r - thr) / t of the heavy items
    temperature: Floats  # (rows, 1)
    states: Floats  # (k, rows, N): p^j of the points
    weights: Floats  # (rows, N)
    degree: npt.NDArray[np.int64]  # (): P
    out_of_bins: npt.NDArray[np.int64]  # (): how many of the heaviest items are in no bin; m without bins


class Attempt(NamedTuple):
    """The outcome of a try."""

    good: npt.NDArray[np.bool_]  # (rows,): the tolerance is met
    bound: Floats  # (rows,): of what was neglected, relative
    block: Block | None  # with the trajectory, if it was to be kept


class Split(NamedTuple):
    """Rows as heavy items and the power sums of the light ones."""

    v: Any
    kept: Indices
    heavy: Any  # (rows, m): keys
    log_v: Floats
    threshold: Any  # (rows, 1): the key of v = 1
    power_sums: Floats  # (rows, P)


class Points(NamedTuple):
    """What the k steps leave at heavy items and nodes."""

    good: npt.NDArray[np.bool_]  # (rows,): the tolerance is met
    bound: Floats  # (rows,): of what was neglected, relative
    bins: measure.Bins
    out_of_bins: int
    weights: Floats  # (rows, N)
    states: Floats | None  # (k, rows, N), if the trajectory was to be kept
    at_items: Floats  # (rows, items): the value at the heavy items that are in no bin
    at_binned: Floats  # (binned,): and at those that are
    polynomial: Floats  # (rows, P): coefficients of the value of a light item of weight v


def attempt(
    keys: Any, temperature: Floats, power: Any, k: int, effort: Effort, keep: bool, out: Any, loops: Loops = NUMPY
) -> Attempt:
    """Write the relaxed k-hot of some rows, or of one long row, to `out`."""
    rows, n = keys.shape
    t = np.array(np.broadcast_to(temperature, (rows, 1)))
    v = np.empty_like(keys) if keep else out
    split_rows = _split_row if n >= LONG_ROW else _split_rows
    split = split_rows(keys, t, k, effort, v, loops.tiles)
    points = run_points(split, t, power, k, effort.bins, keep, loops)
    measure.evaluate(points.polynomial, split.v, out, loops.tiles)
    write_heavy(out, split.kept, points.bins, points.at_items, points.at_binned)
    block = None
    if points.states is not None:
        fixed = np.asarray(split.power_sums.shape[1]), np.asarray(points.out_of_bins)
        block = Block(np.arange(rows), v, split.kept, split.log_v, t, points.states, points.weights, *fixed)
    return Attempt(points.good, points.bound, block)


def run_points(
    split: Split, t: Floats, power: Any, k: int, with_bins: bool, keep: bool, loops: Loops = NUMPY
) -> Points:
    """The k steps of rows that have been split; the places of their items (`v` and `kept`) do not matter here."""
    rows, heavy = split.heavy.shape
    dtype, degree = split.heavy.dtype, split.power_sums.shape[1]
    size = dtype.itemsize
    out_of_bins = _out_of_bins(split, t, k) if with_bins else heavy
    bins = bins_of(split.log_v, out_of_bins, ORDER[size])
    weights = np.concatenate(
        [
            np.ones((rows, len(bins.exact))),
            np.broadcast_to(measure.bin_weights(bins), (rows, len(bins.log_nodes))),
            measure.node_weights(split.power_sums),
        ],
        axis=1,
    )
    node_v = np.concatenate([np.exp(bins.log_nodes), measure.power_nodes(degree)])
    p, per_v = _first_state(split.heavy[:, bins.exact], split.threshold, t, weights, node_v)
    narrow = dtype == np.float32 and k <= MOST_FLOAT32_STEPS and recursion.holds_out(rows, power)
    if narrow and np.min(per_v) > SMALLEST_FLOAT32_SHARE:
        p = p.astype(np.float32)  # no step magnifies an error, and no share is lost
    result = loops.run(p, weights, power, k, keep)

    at_items, at_bins, at_powers = np.split(result.total, [len(bins.exact), weights.shape[1] - degree], axis=1)
    neglected = bound.neglected(bound.reach(per_v * result.slope, t), degree)
    last_term = measure.last_terms(bins, at_bins[0])
    good = (neglected <= TOLERANCE[size]) & (last_term <= LARGEST_LAST_TERM[size])
    good &= (result.log_mass >= generic.SMALLEST_LOG_MASS) & np.isfinite(result.total).all(axis=-1)
    at_binned = measure.read_bins(bins, at_bins[0])
    polynomial = measure.coefficients(at_powers)
    return Points(
        good, neglected + last_term, bins, out_of_bins, weights, result.states, at_items, at_binned, polynomial
    )


def bins_of(log_v: Floats, out_of_bins: int, order: int) -> measure.Bins:
    """Octave bins of the heavy items of one row, or none for several rows."""
    items = log_v.shape[1]
    return measure.no_bins(items) if out_of_bins == items else measure.octave_bins(log_v[0], out_of_bins, order)


def write_heavy(out: Any, kept: Indices, bins: measure.Bins, at_items: Floats, at_binned: Floats) -> None:
    """Put the heavy items' results in their places."""
    np.put_along_axis(out, kept[:, bins.exact], at_items.astype(out.dtype), axis=1)
    if len(bins.binned):
        out[0, kept[0, bins.binned]] = at_binned


def _out_of_bins(split: Split, t: Floats, k: int) -> int:
    """How many of the heaviest items of a long row stay as they are. At low temperatures every selected item counts."""
    heavy = split.heavy.shape[1]
    number = ITEMS_OUT_OF_BINS if t[0, 0] >= 0.67 else int(1.3 * k) + 64
    return number if k >= FEWEST_STEPS_FOR_BINS and heavy > 2 * number else heavy


def _degree(log_v: Floats, light: Floats, t: Floats, k: int, effort: Effort, size: int) -> int:
    """P from an estimate of the reach; hopeless rows do not count."""
    estimated = bound.reach(bound.estimate_slope(log_v, light, t, k), t)
    promising = estimated[estimated > HOPELESS_REACH]
    reach = float(np.min(promising)) / ESTIMATED_REACH if len(promising) else HOPELESS_REACH
    degree = bound.degree_for(reach, TOLERANCE[size], LARGEST_DEGREE[size])
    return min(degree + effort.more_degrees, LARGEST_DEGREE[size])


def _first_state(heavy: Any, threshold: Any, t: Floats, weights: Floats, node_v: Floats) -> tuple[Floats, Floats]:
    """p^1 of the points (rows, N), and p^1 per v (rows,)."""
    wide = heavy.astype(np.float64)
    top = np.max(wide, axis=-1, keepdims=True)
    if heavy.dtype == np.float64:
        shifted, correction = generic.exponents(wide, t, np)
        items = np.exp(shifted) * (1.0 + correction)
    else:
        shifted = (wide - top) / t
        items = np.exp(shifted)
    items = np.where(shifted < -generic.DEEPEST_GAP, 0.0, items)
    per_v = np.exp((threshold.astype(np.float64) - top) / t)
    p = np.concatenate([items, node_v * per_v], axis=1)
    total = np.vecdot(weights, p)[:, None]
    return p / total, (per_v / total)[:, 0]


# --- rows that are taken together -------------------------------------------------------------------


def _split_rows(keys: Any, t: Floats, k: int, effort: Effort, v: Any, tiles: Tiles) -> Split:
    """The m heaviest items of each row, by partition."""
    n, m = keys.shape[1], effort.heavy
    kept = np.argpartition(keys, n - m, axis=-1)[:, n - m :]
    heavy = np.take_along_axis(keys, kept, axis=-1)
    rows, heaviest = np.arange(len(keys)), np.argmax(heavy, axis=-1)
    for array in kept, heavy:  # the heaviest first
        array[rows, heaviest], array[:, 0] = array[:, 0].copy(), array[rows, heaviest]
    # The least finite key, so that items of zero weight get v = 0.
    threshold = np.min(np.where(np.isfinite(heavy), heavy, np.inf), axis=-1, keepdims=True)
    _exponentials(keys, threshold, t, v, tiles)
    np.put_along_axis(v, kept, 0.0, axis=-1)
    log_v = (heavy.astype(np.float64) - threshold) / t
    light = measure.power_sums(v, 1, tiles)[:, 0]
    degree = _degree(log_v, light, t, k, effort, keys.dtype.itemsize)
    return Split(v, kept, heavy, log_v, threshold, measure.power_sums(v, degree, tiles))


# --- one long row -----------------------------------------------------------------------------------


def _split_row(keys: Any, t: Floats, k: int, effort: Effort, v: Any, tiles: Tiles) -> Split:
    """About m of the heaviest items, heaviest first, by a threshold from a sample."""
    n, m = keys.shape[1], effort.heavy
    threshold, light = _threshold_of_row(keys[0], t[0, 0], m)
    kept = tiles.above(keys[0], threshold)
    if len(kept) > 4 * m:  # the sample was not like the row
        threshold = np.partition(keys[0], n - m)[n - m]
        kept = tiles.above(keys[0], threshold)
    if not len(kept):  # they are all tied
        kept = np.asarray([np.argmax(keys[0])])
    heavy = keys[0, kept]
    if threshold == -np.inf:  # so that items of zero weight get v = 0
        threshold = np.min(heavy)
    log_v = (heavy.astype(np.float64) - np.float64(threshold)) / t[0]
    degree = _degree(log_v[None], np.asarray([light]), t, k, effort, keys.dtype.itemsize)
    fill = _filler(keys, threshold, t, v, kept, tiles)
    order = np.argsort(-log_v)
    return Split(
        v,
        kept[None, order],
        heavy[None, order],
        log_v[None, order],
        np.asarray([[threshold]]),
        measure.power_sums(v, degree, tiles, fill),
    )


def _threshold_of_row(keys: Any, temperature: float, m: int) -> tuple[Any, float]:
    """About the m-th largest key, and the sum of v over the lighter items, both from a strided sample."""
    stride = max(1, len(keys) // SAMPLE)
    sample = keys[::stride]
    place = len(sample) - max(1, round(m / stride))
    sample = np.partition(sample, place)
    threshold = sample[place]
    if threshold == -np.inf:
        return threshold, 0.0
    light = np.exp((sample[:place] - threshold) * sample.dtype.type(1.0 / temperature))
    return threshold, float(np.add.reduce(light, dtype=np.float64)) * stride


def _filler(keys: Any, threshold: Any, t: Floats, v: Any, kept: Indices, tiles: Tiles) -> Any:
    """Writes v = exp((r - thr) / t) tile by tile, with 0 for the kept items."""
    bounds = np.searchsorted(kept, np.arange(0, keys.shape[1] + TILE, TILE)).tolist()
    wide, scale = _wants_wide(v.dtype, t), _scale(v.dtype, t)

    def fill(rows: slice, columns: slice) -> None:
        tile = v[rows, columns]
        if wide:
            _wide_exponentials(keys[rows, columns], threshold, t, tile)
        else:
            tiles.exponentials(keys[rows, columns], threshold, scale, tile)
        number = columns.start // TILE
        first, last = bounds[number], bounds[number + 1]
        if last > first:
            tile[0, kept[first:last] - columns.start] = 0.0

    return fill


def _wants_wide(dtype: Any, t: Floats) -> bool:
    """Whether the exponents are to be float64: where 1 / t magnifies the rounding of a float32 difference, and where a
    difference that overflows float32 matters.
    """
    return bool(dtype == np.float32 and not COLDEST_FLOAT32 <= np.min(t) <= np.max(t) <= HOTTEST_FLOAT32)


def _scale(dtype: Any, t: Floats) -> Any:
    """1 / t, or None where that is 1 in all rows."""
    return (1.0 / t).astype(dtype) if np.any(t != 1.0) else None


def _exponentials(keys: Any, threshold: Any, t: Floats, out: Any, tiles: Tiles) -> None:
    """exp((r - thr) / t)."""
    if not _wants_wide(out.dtype, t):
        tiles.exponentials(keys, threshold, _scale(out.dtype, t), out)
        return
    rows_at_a_time = max(1, TILE // keys.shape[1])
    for first in range(0, len(keys), rows_at_a_time):
        rows = slice(first, first + rows_at_a_time)
        _wide_exponentials(keys[rows], threshold[rows], t[rows], out[rows])


def _wide_exponentials(keys: Any, threshold: Any, t: Floats, out: Any) -> None:
    """exp((r - thr) / t) with a float64 exponent."""
    wide = keys.astype(np.float64)
    np.subtract(wide, threshold, wide)
    np.multiply(wide, 1.0 / t, wide)
    out[...] = np.exp(wide, wide)
