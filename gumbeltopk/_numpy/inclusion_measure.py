"""Many items as few weighted points, by the octaves of their weights: for functions that are smooth in the weight.

An octave of more items than two for each of its Chebyshev points is replaced by these points, with multiplicities that
reproduce the sums of all polynomials in w of a degree below ORDER. Results at the points are interpolated to the items.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk import _threads
from gumbeltopk._numpy.compression.measure import chebyshev_points

Floats = npt.NDArray[Any]
ORDER = 16
TILE = 1 << 13  # items at a time: they stay in cache, and dot products on one thread


class Measure(NamedTuple):
    """Points in place of items: first the items that are kept, then the points of the octaves."""

    logs: Floats  # (points,)
    counts: Floats  # (points,)
    kept: npt.NDArray[np.intp]  # items
    binned: npt.NDArray[np.intp]  # the other items, octave by octave
    place: Floats  # (binned,), of an item in its octave, from -1 to 1
    tiles: list[tuple[int, slice]]  # (octave, part of `binned`)


def compress(logs: Floats, first_kept_octave: float) -> Measure:
    """The measure of items of the log-weights (n,); octaves from `first_kept_octave` on are kept item by item."""
    mantissa, octave = np.frexp(np.exp(logs))
    order = np.argsort(octave.astype(np.int16), kind="stable")  # a radix sort
    octave = octave[order]
    starts = np.flatnonzero(np.concatenate([[True], octave[1:] != octave[:-1]]))
    sizes = np.diff(np.append(starts, len(octave)))
    crowded = (sizes > 2 * ORDER) & (octave[starts] < first_kept_octave)
    chosen = np.repeat(crowded, sizes)
    binned, kept = order[chosen], order[~chosen]
    place = 4.0 * mantissa[binned] - 3.0
    tiles = _tiles(sizes[crowded])
    bottoms = octave[starts[crowded]] * math.log(2.0)
    nodes = (bottoms[:, None] + np.log(0.25 * (3.0 + chebyshev_points(ORDER)))).ravel()
    counts = np.concatenate([np.ones(len(kept)), _point_weights(place, None, tiles)])
    return Measure(np.concatenate([logs[kept], nodes]), counts, kept, binned, place, tiles)


def of_items(logs: Floats) -> Measure:
    """The measure of the items themselves."""
    nothing = np.empty(0, dtype=np.intp)
    return Measure(logs, np.ones(len(logs)), np.arange(len(logs)), nothing, np.empty(0), [])


def _tiles(sizes: npt.NDArray[np.intp]) -> list[tuple[int, slice]]:
    ends = np.cumsum(sizes).tolist()
    return [
        (octave, slice(start, min(start + TILE, end)))
        for octave, (end, size) in enumerate(zip(ends, sizes.tolist(), strict=True))
        for start in range(end - size, end, TILE)
    ]


def weigh(measure: Measure, factor: Floats) -> Floats:
    """Multiplicities (points,) of the measure in which an item counts `factor` (n,) times."""
    of_points = _point_weights(measure.place, factor[measure.binned], measure.tiles)
    return np.concatenate([factor[measure.kept], of_points])


def _point_weights(place: Floats, factor: Floats | None, tiles: list[tuple[int, slice]]) -> Floats:
    """Moments by Chebyshev polynomials, and from them the multiplicities, by discrete orthogonality."""
    if not tiles:
        return np.empty(0)

    def moments_of_tile(tile: tuple[int, slice]) -> Floats:
        u = place[tile[1]]
        own = np.ones(len(u)) if factor is None else factor[tile[1]]
        double, moments = 2.0 * u, np.empty(ORDER)
        before, now = own, own * u
        moments[0], moments[1] = np.sum(before), np.sum(now)
        for q in range(2, ORDER):
            before, now = now, double * now - before
            moments[q] = np.sum(now)
        return moments

    moments = np.zeros((tiles[-1][0] + 1, ORDER))
    for (octave, _), part in zip(tiles, _threads.map_blocks(moments_of_tile, tiles, len(place) * ORDER), strict=True):
        moments[octave] += part
    return np.asarray((moments @ _transform()).ravel())


def _transform() -> Floats:
    """C[q, c] = T_q(u_c) * (2 / Q), halved for q = 0."""
    at = np.arccos(chebyshev_points(ORDER))
    table = np.cos(np.arange(ORDER)[:, None] * at) * (2.0 / ORDER)
    table[0] *= 0.5
    return np.asarray(table)


def read(measure: Measure, values: Floats, out: Floats) -> None:
    """Write the values (points,) to the items (n,)."""
    kept = len(measure.kept)
    out[measure.kept] = values[:kept]
    if not measure.tiles:
        return
    series = values[kept:].reshape(-1, ORDER) @ _transform().T
    of_binned = np.empty(len(measure.place))

    def evaluate_tile(tile: tuple[int, slice]) -> None:
        """Clenshaw's recursion."""
        u = measure.place[tile[1]]
        coefficients = series[tile[0]].tolist()
        double = 2.0 * u
        later, now = np.zeros(len(u)), np.full(len(u), coefficients[-1])
        for coefficient in coefficients[-2:0:-1]:
            np.subtract(double * now, later, out=later)
            later += coefficient
            later, now = now, later
        of_binned[tile[1]] = u * now - later + coefficients[0]

    _threads.map_blocks(evaluate_tile, measure.tiles, len(measure.place) * ORDER)
    out[measure.binned] = of_binned
