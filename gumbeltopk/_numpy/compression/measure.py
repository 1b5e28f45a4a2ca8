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
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk import _threads
from gumbeltopk._numpy.compression.tiles import NUMPY, TILE, Tiles

Floats = npt.NDArray[Any]
Tile = tuple[slice, slice]  # rows and columns


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


def power_sums(v: Any, degree: int, tiles: Tiles = NUMPY, fill: Any = None) -> Floats:
    """(rows, P): sums over a row of v^q, tile by tile.

    ``fill(rows, columns)``, of two slices, may write the tile of `v` while it is in cache.
    """

    def sums_of_tile(tile: Tile) -> Floats:
        if fill is not None:
            fill(*tile)
        return tiles.power_sums(v[tile], degree)

    return _sums(sums_of_tile, v, degree)


def products(v: Any, degree: int, g: Any, centre: Any, tiles: Tiles = NUMPY) -> Floats:
    """(rows, P): sums over a row of (g - centre) v^q, tile by tile; `centre` is (rows, 1)."""

    def sums_of_tile(tile: Tile) -> Floats:
        return tiles.products(v[tile], degree, g[tile], centre[tile[0]])

    return _sums(sums_of_tile, v, degree)


def _sums(sums_of_tile: Callable[[Tile], Floats], v: Any, degree: int) -> Floats:
    tiles = _tiles(*v.shape)
    parts = _threads.map_blocks(sums_of_tile, tiles, v.size)
    sums = np.zeros((v.shape[0], degree))
    for (rows, _), part in zip(tiles, parts, strict=True):
        sums[rows] += part
    return sums


def evaluate(polynomial: Floats, v: Any, out: Any, tiles: Tiles = NUMPY) -> None:
    """out = sum_q co_q v^q from the coefficients (rows, P), tile by tile; `out` may be `v`."""
    co = polynomial.astype(v.dtype)

    def evaluate_tile(tile: Tile) -> None:
        tiles.polynomial(co[tile[0]], v[tile], out[tile])

    _threads.map_blocks(evaluate_tile, _tiles(*v.shape), v.size)


def evaluate_pair(e: Floats, d: Floats, v: Any, g: Any, centre: Any, out: Any, tiles: Tiles = NUMPY) -> None:
    """out = (g - centre) E(v) + D(v) from the coefficients of both polynomials (rows, P); `centre` is (rows, 1)."""
    e, d = e.astype(v.dtype), d.astype(v.dtype)

    def evaluate_tile(tile: Tile) -> None:
        rows = tile[0]
        tiles.pair(e[rows], d[rows], v[tile], g[tile], centre[rows], out[tile])

    _threads.map_blocks(evaluate_tile, _tiles(*v.shape), v.size)


def _tiles(rows: int, n: int) -> list[Tile]:
    """(rows, columns) of tiles: blocks of whole rows, or parts of one long row."""
    if n > TILE:
        starts = range(0, n, TILE)
        return [(slice(row, row + 1), slice(i, min(i + TILE, n))) for row in range(rows) for i in starts]
    rows_in_block = max(1, TILE // max(n, 1))
    return [(slice(i, min(i + rows_in_block, rows)), slice(0, n)) for i in range(0, rows, rows_in_block)]


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
