"""Many items as few weighted nodes: the two levels of measure compression.

Given the normalisers of successive softmax, what happens to an item is an analytic function of its own weight v. Sums
over items therefore need only the measure sum_i delta_{v_i}, and results are read off polynomials in v.

* Power nodes: light items, 0 <= v <= 1. Nodes x_c are the Chebyshev points of (0, 1]; the weights reproduce the power
  sums M_q = sum v^q, q = 1 .. P, so that polynomials without constant term are summed exactly.
* Octave bins: items with 1 < v, sorted. Each bin [2^b, 2^{b+1}) has Q Chebyshev points; the weights reproduce the sums
  of all polynomials of degree below Q on the bin.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk import _threads

Floats = npt.NDArray[Any]
# Terms of a float32 sum before it goes on in float64 (equal terms err together): of one row, and of several.
SUMMED, SUMMED_IN_ROWS = 1024, 4096
TILE = 1 << 16  # items at a time: they stay in cache


# --- power nodes ------------------------------------------------------------------------------------


@functools.cache
def power_nodes(degree: int) -> Floats:
    """Chebyshev points of (0, 1]."""
    return np.asarray(0.5 + 0.5 * np.cos((2.0 * np.arange(degree) + 1.0) * np.pi / (2.0 * degree)))


@functools.cache
def _vandermonde(degree: int) -> Floats:
    """V[q - 1, c] = x_c^q."""
    return np.asarray(power_nodes(degree)[None, :] ** np.arange(1, degree + 1)[:, None])


def node_weights(power_sums: Floats) -> Floats:
    """(rows, P) weights w with sum_c w_c x_c^q = M_q.

    V is badly conditioned, but the residual of Gaussian elimination is small, and only the residual matters.
    """
    return np.linalg.solve(_vandermonde(power_sums.shape[-1]), power_sums.T).T


def coefficients(values: Floats) -> Floats:
    """(rows, P) coefficients of v^1 .. v^P of the polynomial with these values at the nodes."""
    return np.linalg.solve(_vandermonde(values.shape[-1]).T, values.T).T


def power_sums(v: Any, degree: int, factor: Any = None, centre: Any = None, fill: Any = None) -> Floats:
    """(rows, P): sum over a row of v^q, or of (factor - centre) * v^q, tile by tile; `centre` is (rows, 1).

    ``fill(rows, columns)``, of two slices, may write the tile of `v` while it is in cache.
    """
    rows, n = v.shape

    def sums_of_tile(tile: tuple[slice, slice]) -> Floats:
        if fill is not None:
            fill(*tile)
        own = v[tile]
        own_factor = None if factor is None else _centred(factor, centre, tile)
        return _power_sums_of_tile(own, degree, own_factor, _scratch(degree // 2 + 2, own))

    tiles = _tiles(rows, n)
    parts = _threads.map_blocks(sums_of_tile, tiles, v.size)
    sums = np.zeros((rows, degree))
    for (block, _), part in zip(tiles, parts, strict=True):
        sums[block] += part
    return sums


def _centred(g: Any, centre: Any, tile: tuple[slice, slice]) -> Any:
    return g[tile] if centre is None else g[tile] - centre[tile[0]]


def _scratch(parts: int, tile: Any) -> Any:
    """(parts, ...) uninitialised memory of the tile's shape and dtype."""
    return np.empty((parts, *tile.shape), dtype=tile.dtype)


def _tiles(rows: int, n: int) -> list[tuple[slice, slice]]:
    """(rows, columns) of tiles: blocks of whole rows, or parts of one long row."""
    if n > TILE:
        starts = range(0, n, TILE)
        return [(slice(row, row + 1), slice(i, min(i + TILE, n))) for row in range(rows) for i in starts]
    rows_in_block = max(1, TILE // max(n, 1))
    return [(slice(i, min(i + rows_in_block, rows)), slice(0, n)) for i in range(0, rows, rows_in_block)]


def _power_sums_of_tile(v: Any, degree: int, factor: Any, scratch: Any) -> Floats:
    """M_{a + b} = v^a . v^b: half of the powers are enough."""
    half = (degree + 1) // 2
    powers = [v]
    for a in range(1, half):
        powers.append(np.multiply(powers[-1], v, out=scratch[a]))
    sums = np.empty((v.shape[0], degree))
    if factor is None:
        sums[:, 0] = _dots(v, _ones(v.shape[1], v.dtype))  # faster than add.reduce
        for q in range(2, degree + 1):
            sums[:, q - 1] = _dots(powers[q // 2 - 1], powers[(q + 1) // 2 - 1])
        return sums
    sums[:, 0] = _dots(factor, v)
    low = np.multiply(factor, v, out=scratch[0])  # factor * v
    for q in range(2, min(half + 1, degree) + 1):
        sums[:, q - 1] = _dots(low, powers[q - 2])
    if degree > half + 1:
        high = np.multiply(low, powers[half - 1], out=scratch[half])  # factor * v^{half + 1}
        for q in range(half + 2, degree + 1):
            sums[:, q - 1] = _dots(high, powers[q - half - 2])
    return sums


@functools.lru_cache(maxsize=8)
def _ones(n: int, dtype: Any) -> Any:
    ones = np.ones((1, n), dtype=dtype)
    ones.flags.writeable = False
    return ones


def row_sums(v: Any) -> Floats:
    """(rows,): sum of v."""
    return power_sums(v, 1)[:, 0]


def _dots(a: Any, b: Any) -> Any:
    """Row by row a . b, in pieces that keep float32 accurate. `np.vecdot`, unlike `dot`, stays on one thread."""
    n = a.shape[1]
    length = SUMMED if a.shape[0] == 1 else SUMMED_IN_ROWS
    if a.dtype == np.float64 or n <= 2 * length:
        return np.vecdot(a, b)
    whole = n - n % length
    if a.shape[0] == 1:
        pieces = np.vecdot(a[0, :whole].reshape(-1, length), b[0, :whole].reshape(-1, length))
        total = np.add.reduce(pieces, dtype=np.float64)
    else:
        total = sum(np.vecdot(a[:, i : i + length], b[:, i : i + length]) for i in range(0, whole, length))
    return total + np.vecdot(a[:, whole:], b[:, whole:])


def evaluate(polynomial: Floats, v: Any, out: Any) -> None:
    """out = sum_q co_q v^q from the coefficients (rows, P), by Horner's rule, tile by tile; `out` may be `v`."""
    co = polynomial.astype(v.dtype)

    def evaluate_tile(tile: tuple[slice, slice]) -> None:
        own = v[tile]
        _horner(_as_columns(co[tile[0]]), own, out[tile], _scratch(1, own)[0])

    _threads.map_blocks(evaluate_tile, _tiles(*v.shape), v.size)


def evaluate_pair(e: Floats, d: Floats, v: Any, g: Any, out: Any, centre: Any = None) -> None:
    """out = (g - centre) E(v) + D(v) from the coefficients of both polynomials (rows, P); `centre` is (rows, 1)."""
    e, d = e.astype(v.dtype), d.astype(v.dtype)

    def evaluate_tile(tile: tuple[slice, slice]) -> None:
        own = v[tile]
        first, second = _scratch(2, own)
        _horner(_as_columns(e[tile[0]]), own, first, first)
        np.multiply(first, _centred(g, centre, tile), out=first)
        _horner(_as_columns(d[tile[0]]), own, second, second)
        np.add(first, second, out=out[tile])

    _threads.map_blocks(evaluate_tile, _tiles(*v.shape), v.size)


def _as_columns(coefficients_of_rows: Any) -> Any:
    """(P,) for one row, else (P, rows, 1)."""
    if len(coefficients_of_rows) == 1:
        return coefficients_of_rows[0]
    return np.ascontiguousarray(coefficients_of_rows.T)[:, :, None]


def _horner(co: Any, v: Any, out: Any, scratch: Any) -> None:
    np.multiply(v, co[-1], out=scratch)
    for q in range(co.shape[0] - 2, -1, -1):
        np.add(scratch, co[q], out=scratch)
        np.multiply(scratch, v, out=out if q == 0 else scratch)


# --- octave bins ------------------------------------------------------------------------------------


class Bins(NamedTuple):
    """Which of the sorted items are binned, and the Chebyshev polynomials at them."""

    exact: npt.NDArray[np.intp]  # positions of the items that are kept as they are
    binned: npt.NDArray[np.intp]  # positions of the others, bin by bin
    starts: npt.NDArray[np.intp]  # of the bins, in `binned`
    basis: Floats  # (Q, binned): T_q of the place in the bin
    log_nodes: Floats  # (bins * Q,): log v of the nodes


def octave_bins(log_v: Floats, exact: int, order: int) -> Bins:
    """Bins for the items after the first `exact` ones; `log_v` descends.

    A bin of few items is not worth its nodes: these items stay as they are.
    """
    octave = np.floor(log_v[exact:] / math.log(2.0))
    starts = np.flatnonzero(np.concatenate([[True], octave[1:] != octave[:-1]]))
    sizes = np.diff(np.append(starts, len(octave)))
    crowded = sizes > 2 * order
    chosen = np.repeat(crowded, sizes)
    binned = exact + np.flatnonzero(chosen)
    kept = np.concatenate([np.arange(exact), exact + np.flatnonzero(~chosen)])
    own_octave = octave[chosen]
    u = 2.0 * np.exp(log_v[binned] - own_octave * math.log(2.0)) - 3.0
    basis = np.empty((order, len(binned)))
    basis[0] = 1.0
    basis[1] = u
    for q in range(2, order):
        np.multiply(2.0 * u, basis[q - 1], out=basis[q])
        basis[q] -= basis[q - 2]
    bottoms = octave[starts[crowded]]
    log_nodes = (bottoms[:, None] * math.log(2.0) + np.log(0.5 * (3.0 + chebyshev_points(order)))[None, :]).ravel()
    bin_starts = np.cumsum(np.append(0, sizes[crowded]))[:-1]
    return Bins(kept, binned, bin_starts, basis, log_nodes)


def no_bins(items: int) -> Bins:
    """All items stay as they are."""
    nothing = np.empty(0, dtype=np.intp)
    return Bins(np.arange(items), nothing, nothing, np.empty((1, 0)), np.empty(0))


@functools.cache
def chebyshev_points(order: int) -> Floats:
    """Zeros of T_Q."""
    return np.asarray(np.cos((2.0 * np.arange(order) + 1.0) * np.pi / (2.0 * order)))


@functools.cache
def _transform(order: int) -> Floats:
    """C[q, c] = T_q(u_c) * (2 / Q), halved for q = 0: interpolation at the Chebyshev points, by orthogonality."""
    angles = (2.0 * np.arange(order) + 1.0) * np.pi / (2.0 * order)
    table = np.cos(np.arange(order)[:, None] * angles[None, :]) * (2.0 / order)
    table[0] *= 0.5
    return np.asarray(table)


def bin_weights(bins: Bins, factor: Floats | None = None) -> Floats:
    """(bins * Q,): node weights of the measure sum delta_v, or sum factor delta_v, of the binned items."""
    terms = bins.basis if factor is None else bins.basis * factor
    if not len(bins.starts):
        return np.empty(0)
    moments = np.add.reduceat(terms, bins.starts, axis=1)  # (Q, bins)
    return np.asarray((moments.T @ _transform(len(bins.basis))).ravel())


def read_bins(bins: Bins, values: Floats) -> Floats:
    """Values at the nodes (bins * Q,) interpolated to the binned items."""
    order, items = bins.basis.shape
    if not items:
        return np.empty(0)
    series = _transform(order) @ values.reshape(-1, order).T  # (Q, bins)
    sizes = np.diff(np.append(bins.starts, items))
    return np.asarray(np.einsum("qi,qi->i", bins.basis, np.repeat(series, sizes, axis=1)))


def last_terms(bins: Bins, values: Floats) -> float:
    """Largest of the last two Chebyshev coefficients, relative to the first: what interpolation may have missed."""
    order = len(bins.basis)
    if not len(values):
        return 0.0
    series = np.abs(_transform(order) @ values.reshape(-1, order).T)
    return float(np.max(np.max(series[-2:], axis=0) / series[0]))
