"""The cores of inclusion probabilities of pairs for NumPy arrays, by the contour integrals of `inclusion_contour`.

With v_i = r a_i / B_i, rho_i = h_i / B_i, R = sum rho_i and U = sum u_i rho_i, all of them functions of z,
    pi_ij         = Int [z^{k-2}] G a_i a_j / (B_i B_j) (R - rho_i - rho_j) ds,
    its tangent   = T_ij + T_ji,   T_ij = Int [z^{k-2}] G rho_i a_j / B_j (u_i (R - rho_j) - (U - u_j rho_j)) ds.
Each node adds matrices of a low rank, and all nodes together are a matrix product. Selected pairs of a long row need
the items of these only; all other items may be compressed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._generic import joint_inclusion as generic
from gumbeltopk._numpy import inclusion, inclusion_contour, inclusion_measure
from gumbeltopk._numpy.inclusion import Row
from gumbeltopk._numpy.inclusion_contour import Contour

Floats = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

SMALLEST_WORK = 20_000  # n^2 k, below which dynamic programming over all rows at once is faster
LARGEST_WORK_TO_COUNT = 1 << 22  # n^2 k, above which it would take too long
FAR_APART, PLACES = 8.0, 3  # nats between the weights that many places above and below the k-th


class Items(NamedTuple):
    """Items at all nodes of a contour (items, nodes)."""

    v: Floats
    rho: Floats
    scaled_rho: Floats  # r rho


def probabilities(log_weights: Floats, k: int, pairs: Indices | None, xp: Any) -> Floats:
    """As the generic `probabilities`."""
    counted = _to_count(log_weights, k)
    if np.all(counted):
        return np.asarray(generic.probabilities(log_weights, k, pairs, xp))
    joint = np.zeros((*log_weights.shape, log_weights.shape[1]) if pairs is None else (len(log_weights), len(pairs)))
    if np.any(counted):
        joint[counted] = generic.probabilities(log_weights[counted], k, pairs, xp)
    single, _ = inclusion.probabilities(log_weights, k, xp)
    for i in np.flatnonzero(~counted):
        positive = np.flatnonzero(log_weights[i] > -np.inf)
        logs = log_weights[i, positive]
        if pairs is None:
            joint[i][np.ix_(positive, positive)] = _matrix(logs, k)
        else:
            chosen, own = _among(positive, pairs, log_weights[i])
            joint[i, chosen] = _entries(logs, k, own)
        _write_single(joint[i], single[i], pairs)
    return joint


def jvp(log_weights: Floats, k: int, tangent: Floats, pairs: Indices | None, xp: Any) -> Floats:
    """As the generic `jvp`."""
    counted = _to_count(log_weights, k)
    if np.all(counted):
        return np.asarray(generic.jvp(log_weights, k, tangent, pairs, xp))
    joint = np.zeros((*log_weights.shape, log_weights.shape[1]) if pairs is None else (len(log_weights), len(pairs)))
    if np.any(counted):
        joint[counted] = generic.jvp(log_weights[counted], k, tangent[counted], pairs, xp)
    single = inclusion.jacobian_product(log_weights, k, tangent, xp)
    for i in np.flatnonzero(~counted):
        positive = np.flatnonzero(log_weights[i] > -np.inf)
        logs, u = log_weights[i, positive], tangent[i, positive]
        if pairs is None:
            joint[i][np.ix_(positive, positive)] = _matrix_jvp(logs, k, u)
        else:
            chosen, own = _among(positive, pairs, log_weights[i])
            joint[i, chosen] = _entries_jvp(logs, k, u, own)
        _write_single(joint[i], single[i], pairs)
    return joint


def vjp(log_weights: Floats, k: int, cotangent: Floats, pairs: Indices | None, xp: Any) -> Floats:
    """As the generic `vjp`."""
    counted = _to_count(log_weights, k)
    if np.all(counted):
        return np.asarray(generic.vjp(log_weights, k, cotangent, pairs, xp))
    gradient, of_single = np.zeros_like(log_weights), np.zeros_like(log_weights)
    for i in np.flatnonzero(~counted):
        positive, g = np.flatnonzero(log_weights[i] > -np.inf), cotangent[i]
        logs = log_weights[i, positive]
        if pairs is None:
            of_single[i] = np.diagonal(g)
            symmetric = (g + g.T)[np.ix_(positive, positive)]
            np.fill_diagonal(symmetric, 0.0)
            gradient[i, positive] = _matrix_vjp(logs, k, symmetric)
        else:
            same = pairs[:, 0] == pairs[:, 1]
            np.add.at(of_single[i], pairs[same, 0], g[same])
            chosen, own = _among(positive, pairs, log_weights[i])
            gradient[i, positive] = _entries_vjp(logs, k, g[chosen], own)
    gradient += inclusion.jacobian_product(log_weights, k, of_single, xp)
    if np.any(counted):
        gradient[counted] = generic.vjp(log_weights[counted], k, cotangent[counted], pairs, xp)
    return gradient


def _to_count(log_weights: Floats, k: int) -> npt.NDArray[np.bool_]:
    """(rows,): where dynamic programming is fast enough, or needed.

    If at some time the number of arrivals is all but certain, e.g. because k - 1 items are far heavier than the others,
    no circle is right for all pairs: tiny probabilities would have only small absolute errors. So it is where the
    weights of the places about k are far apart, but for rows that are too long to be counted.
    """
    rows, n = log_weights.shape
    work = n * n * k
    if k == 1 or work <= SMALLEST_WORK:
        return np.ones(rows, dtype=bool)
    if work > LARGEST_WORK_TO_COUNT:
        return np.zeros(rows, dtype=bool)
    first, last = max(0, n - k - PLACES), min(n - 1, n - k + PLACES)
    ordered = np.partition(log_weights, (first, last), axis=-1)
    return np.asarray(ordered[:, last] - np.maximum(ordered[:, first], -1e300) > FAR_APART)


def _write_single(joint: Floats, single: Floats, pairs: Indices | None) -> None:
    """The entries of an item with itself."""
    if pairs is None:
        np.fill_diagonal(joint, single)
    else:
        same = pairs[:, 0] == pairs[:, 1]
        joint[same] = single[pairs[same, 0]]


def _among(positive: Indices, pairs: Indices, row: Floats) -> tuple[Indices, Indices]:
    """Which pairs are of two items of positive weight, and where these are among the positive ones."""
    chosen = np.flatnonzero(np.all(row[pairs] > -np.inf, axis=-1) & (pairs[:, 0] != pairs[:, 1]))
    return chosen, np.asarray(np.searchsorted(positive, pairs[chosen]))


# --- nodes ----------------------------------------------------------------------------------------


def _contours(row: Row, k: int) -> Iterator[Contour]:
    return inclusion_contour.along(row.measure.logs, row.measure.counts, row.for_light, row.spacing, k)


def _items(logs: Floats, contour: Contour) -> Items:
    item = inclusion_contour.tilt(logs, contour.saddle.s, contour.saddle.zeta)
    inverse = 1.0 / inclusion_contour.factors(item.r, contour.turn)
    scaled = item.x * inclusion_contour.waiting(item, contour)
    factors = (item.r, item.x * item.rest, scaled)
    return Items(*(np.moveaxis(each[:, :, None] * inverse, 1, 0).reshape(len(logs), -1) for each in factors))


def _weight(contour: Contour) -> Floats:
    """(nodes,): of the coefficient of z^{k-2}, not z^{k-1}."""
    return np.asarray((contour.weight * (1.0 + contour.turn)).ravel())


def _real_product(x: Floats, y: Floats) -> Floats:
    """The real part of x y^T."""
    return np.asarray(x.real @ y.real.T - x.imag @ y.imag.T)


# --- all pairs ------------------------------------------------------------------------------------


def _matrix(log_weights: Floats, k: int) -> Floats:
    row = inclusion.prepare(log_weights, k, first=k - 1, compressed=False)
    half = np.zeros((len(log_weights),) * 2)
    for contour in _contours(row, k):
        item, hazard = _items(row.measure.logs, contour), contour.hazard.ravel()
        half += _real_product(_weight(contour) * item.v * (0.5 * hazard - item.rho), item.v)
    return half + half.T


def _matrix_jvp(log_weights: Floats, k: int, u: Floats) -> Floats:
    row = inclusion.prepare(log_weights, k, first=k - 1, compressed=False)
    half, u = np.zeros((len(log_weights),) * 2), u[:, None]
    for contour in _contours(row, k):
        item, hazard = _items(row.measure.logs, contour), contour.hazard.ravel()
        weighted = np.sum(u * item.rho, axis=0)
        rate = _weight(contour) * item.scaled_rho
        half += _real_product(rate * (u * hazard - weighted), item.v)
        half += _real_product(rate, u * item.rho * item.v) - u * _real_product(rate, item.rho * item.v)
    return half + half.T


def _matrix_vjp(log_weights: Floats, k: int, g: Floats) -> Floats:
    """The adjoint of T: the gradient by log w_m is Int [z^{k-2}] G rho_m times

    (g v (R - rho))_m - rho^T g v + v_m (g rho)_m.
    """
    row = inclusion.prepare(log_weights, k, first=k - 1, compressed=False)
    gradient = np.zeros(len(log_weights))
    for contour in _contours(row, k):
        item, hazard = _items(row.measure.logs, contour), contour.hazard.ravel()
        of_v, of_rho = _times_complex(g, item.v * (hazard - item.rho)), _times_complex(g, item.rho)
        change = of_v - np.sum(item.v * of_rho, axis=0) + item.v * of_rho
        gradient += np.sum((_weight(contour) * item.scaled_rho * change).real, axis=-1)
    return gradient


def _times_complex(real: Floats, values: Floats) -> Floats:
    return np.asarray(real @ values.real + 1j * (real @ values.imag))


# --- selected pairs -------------------------------------------------------------------------------


def _entries(log_weights: Floats, k: int, pairs: Indices) -> Floats:
    row = inclusion.prepare(log_weights, k, first=k - 1)
    joint = np.zeros(len(pairs))
    for contour, i, j in _both(row, k, pairs):
        total = contour.hazard.ravel() - i.rho - j.rho
        joint += np.sum((_weight(contour) * i.v * j.v * total).real, axis=-1)
    return joint


def _entries_jvp(log_weights: Floats, k: int, u: Floats, pairs: Indices) -> Floats:
    row = inclusion.prepare(log_weights, k, first=k - 1)
    counts = inclusion_measure.weigh(row.measure, u)
    u_i, u_j = (u[pairs[:, place], None] for place in (0, 1))
    joint = np.zeros(len(pairs))
    for contour, i, j in _both(row, k, pairs):
        hazard, weighted = contour.hazard.ravel(), _total(row, contour, counts)
        change = i.scaled_rho * j.v * (u_i * (hazard - j.rho) - weighted + u_j * j.rho)
        change += j.scaled_rho * i.v * (u_j * (hazard - i.rho) - weighted + u_i * i.rho)
        joint += np.sum((_weight(contour) * change).real, axis=-1)
    return joint


def _entries_vjp(log_weights: Floats, k: int, g: Floats, pairs: Indices) -> Floats:
    """As `_matrix_vjp`; items that are in no pair share one function of their weight."""
    row = inclusion.prepare(log_weights, k, first=k - 1)
    logs = row.measure.logs
    shared, of_i, of_j = np.zeros(len(logs)), np.zeros(len(pairs)), np.zeros(len(pairs))
    for contour, i, j in _both(row, k, pairs):
        weight, hazard = _weight(contour), contour.hazard.ravel()
        of_i += np.sum((weight * i.scaled_rho * (j.v * (hazard - j.rho) + i.v * j.rho)).real, axis=-1)
        of_j += np.sum((weight * j.scaled_rho * (i.v * (hazard - i.rho) + j.v * i.rho)).real, axis=-1)
        of_all = weight * (g @ (i.rho * j.v + j.rho * i.v))
        for part in inclusion_contour.parts(contour.turn, len(logs)):
            shared[part] += np.sum((_items(logs[part], contour).scaled_rho * of_all).real, axis=-1)
    gradient = np.empty_like(log_weights)
    inclusion_measure.read(row.measure, shared, gradient)
    np.negative(gradient, out=gradient)
    np.add.at(gradient, pairs[:, 0], g * of_i)
    np.add.at(gradient, pairs[:, 1], g * of_j)
    return gradient


def _both(row: Row, k: int, pairs: Indices) -> Iterator[tuple[Contour, Items, Items]]:
    """The first and the second items of the pairs at the nodes of each contour."""
    for contour in _contours(row, k):
        yield contour, _items(row.logs[pairs[:, 0]], contour), _items(row.logs[pairs[:, 1]], contour)


def _total(row: Row, contour: Contour, counts: Floats) -> Floats:
    """sum counts rho (nodes,)."""
    logs, total = row.measure.logs, np.zeros_like(contour.hazard)
    for part in inclusion_contour.parts(contour.turn, len(logs)):
        item = inclusion_contour.tilt(logs[part], contour.saddle.s, contour.saddle.zeta)
        inverse = 1.0 / inclusion_contour.factors(item.r, contour.turn)
        total += inclusion_contour.total_hazard(item, inverse, counts[part])
    return np.asarray(total.ravel())
