"""The cores of inclusion probabilities of pairs for NumPy arrays, by the contour integrals of `inclusion_contour`.

With v_i = r a_i / B_i, rho_i = h_i / B_i, R = sum rho_i and U = sum u_i rho_i, all of them functions of z,
    pi_ij         = Int [z^{k-2}] G a_i a_j / (B_i B_j) (R - rho_i - rho_j) ds,
    its tangent   = T_ij + T_ji,   T_ij = Int [z^{k-2}] G rho_i a_j / B_j (u_i (R - rho_j) - (U - u_j rho_j)) ds.
Each node adds matrices of a low rank, and all nodes together are a matrix product. Selected pairs of a long row need
the items of these only; all other items may be compressed.

Sums over the circle cancel where the tilted N_{-ijm}, m the item that arrives, is hardly ever k - 2. If at some time
the number of arrivals is all but certain, as it is when k items are far heavier than the others, one circle does not
suit all pairs: of two light items in S it should see N near k - 2, of a light and a heavy one k - 1, and of two heavy
ones k, all half a step above, because m may be heavy or light. Each pair takes the circle on which its terms are
smallest: they have the same sum on all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._generic import joint_inclusion as generic
from gumbeltopk._numpy import inclusion, inclusion_contour, inclusion_measure
from gumbeltopk._numpy.inclusion import Row
from gumbeltopk._numpy.inclusion_contour import Contour, Saddle

Floats = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

SMALLEST_WORK = 20_000  # n^2 k, below which dynamic programming over all rows at once is faster


class Items(NamedTuple):
    """Items at all nodes of a contour (items, nodes)."""

    v: Floats
    rho: Floats
    scaled_rho: Floats  # r rho


def probabilities(log_weights: Floats, k: int, pairs: Indices | None, xp: Any) -> Floats:
    """As the generic `probabilities`."""
    if is_small(log_weights, k):
        return np.asarray(generic.probabilities(log_weights, k, pairs, xp))
    joint = np.zeros((*log_weights.shape, log_weights.shape[1]) if pairs is None else (len(log_weights), len(pairs)))
    single, _ = inclusion.probabilities(log_weights, k, xp)
    for i, row in enumerate(log_weights):
        positive = np.flatnonzero(row > -np.inf)
        if k == 1:
            pass  # no two items are in S
        elif pairs is None:
            joint[i][np.ix_(positive, positive)] = _matrix(row[positive], k)
        else:
            chosen, own = _among(positive, pairs, row)
            joint[i, chosen] = _entries(row[positive], k, own)
        _write_single(joint[i], single[i], pairs)
    return joint


def jvp(log_weights: Floats, k: int, tangent: Floats, pairs: Indices | None, xp: Any) -> Floats:
    """As the generic `jvp`."""
    if is_small(log_weights, k):
        return np.asarray(generic.jvp(log_weights, k, tangent, pairs, xp))
    joint = np.zeros((*log_weights.shape, log_weights.shape[1]) if pairs is None else (len(log_weights), len(pairs)))
    single = inclusion.jacobian_product(log_weights, k, tangent, xp)
    for i, row in enumerate(log_weights):
        positive = np.flatnonzero(row > -np.inf)
        logs, u = row[positive], tangent[i, positive]
        if k == 1:
            pass
        elif pairs is None:
            joint[i][np.ix_(positive, positive)] = _matrix_jvp(logs, k, u)
        else:
            chosen, own = _among(positive, pairs, row)
            joint[i, chosen] = _entries_jvp(logs, k, u, own)
        _write_single(joint[i], single[i], pairs)
    return joint


def vjp(log_weights: Floats, k: int, cotangent: Floats, pairs: Indices | None, xp: Any) -> Floats:
    """As the generic `vjp`."""
    if is_small(log_weights, k):
        return np.asarray(generic.vjp(log_weights, k, cotangent, pairs, xp))
    gradient, of_single = np.zeros_like(log_weights), np.zeros_like(log_weights)
    for i, row in enumerate(log_weights):
        positive, g = np.flatnonzero(row > -np.inf), cotangent[i]
        logs = row[positive]
        if pairs is None:
            of_single[i] = np.diagonal(g)
            symmetric = (g + g.T)[np.ix_(positive, positive)]
            np.fill_diagonal(symmetric, 0.0)
            gradient[i, positive] = _matrix_vjp(logs, k, symmetric) if k > 1 else 0.0
        else:
            same = pairs[:, 0] == pairs[:, 1]
            np.add.at(of_single[i], pairs[same, 0], g[same])
            chosen, own = _among(positive, pairs, row)
            gradient[i, positive] = _entries_vjp(logs, k, g[chosen], own) if k > 1 else 0.0
    return np.asarray(gradient + inclusion.jacobian_product(log_weights, k, of_single, xp))


def is_small(log_weights: Floats, k: int) -> bool:
    """Whether dynamic programming is fast enough."""
    return bool(log_weights.shape[-1] ** 2 * k <= SMALLEST_WORK)


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


def _row(log_weights: Floats, k: int, compressed: bool) -> Row:
    """With one circle; or with three, for two light items, for a light and a heavy one, and for two heavy ones."""
    return inclusion.make_row(log_weights, k, k - 1, (k - 1.5, k - 0.5, k + 0.5), compressed)


def _size_of_terms(row: Row, saddle: Saddle, k: int) -> Floats:
    """(T,): of the terms of a pair, but for its own tilted probabilities, where the circle crosses the real axis."""
    item = inclusion_contour.tilt(row.measure.logs, saddle.s, saddle.zeta)
    hazard = np.vecdot(item.x * item.rest, row.measure.counts)
    return np.asarray(np.exp(inclusion_contour.height(saddle, k)) * hazard)


def _tilted(logs: Floats, saddle: Saddle) -> Floats:
    """r (T, items)."""
    return inclusion_contour.tilt(logs, saddle.s, saddle.zeta).r


def _contours(row: Row, saddle: Saddle, k: int) -> Iterator[Contour]:
    return inclusion_contour.along(row.measure.logs, row.measure.counts, saddle, k)


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


class Block(NamedTuple):
    """Pairs that share a circle: those of `items` for which `belongs` (items, items) is 1 and not 0."""

    saddle: Saddle
    items: Indices
    belongs: Floats


Half = Callable[[Contour, Items, Indices], Floats]  # of the nodes, and the items with their numbers


def _matrix(log_weights: Floats, k: int) -> Floats:
    def half(contour: Contour, item: Items, numbers: Indices) -> Floats:
        return _real_product(_weight(contour) * item.v * (0.5 * contour.hazard.ravel() - item.rho), item.v)

    return _symmetric_sum(_row(log_weights, k, compressed=False), k, half)


def _matrix_jvp(log_weights: Floats, k: int, u: Floats) -> Floats:
    row = _row(log_weights, k, compressed=False)

    def half(contour: Contour, item: Items, numbers: Indices) -> Floats:
        own, hazard, weighted = u[numbers, None], contour.hazard.ravel(), _total(row, contour, u)
        rate = _weight(contour) * item.scaled_rho
        part = _real_product(rate * (own * hazard - weighted), item.v)
        part += _real_product(rate, own * item.rho * item.v)
        part -= own * _real_product(rate, item.rho * item.v)
        return part

    return _symmetric_sum(row, k, half)


def _symmetric_sum(row: Row, k: int, half: Half) -> Floats:
    """half + half^T of all pairs, summed over all nodes."""
    matrix = np.zeros((len(row.logs),) * 2)
    for block in _blocks(row, k):
        total = np.zeros((len(block.items),) * 2)
        for contour in _contours(row, block.saddle, k):
            total += half(contour, _items(row.logs[block.items], contour), block.items)
        matrix[np.ix_(block.items, block.items)] += block.belongs * (total + total.T)
    return matrix


def _matrix_vjp(log_weights: Floats, k: int, g: Floats) -> Floats:
    """The adjoint of T: the gradient by log w_m is Int [z^{k-2}] G rho_m times

    (g v (R - rho))_m - rho^T g v + v_m (g rho)_m.
    """
    row = _row(log_weights, k, compressed=False)
    gradient = np.zeros(len(log_weights))
    for block in _blocks(row, k):
        own = g[np.ix_(block.items, block.items)] * block.belongs
        for contour in _contours(row, block.saddle, k):
            item = _items(row.logs, contour)
            v, rho = item.v[block.items], item.rho[block.items]
            of_v, of_rho = _times_complex(own, v * (contour.hazard.ravel() - rho)), v * _times_complex(own, rho)
            rate = _weight(contour) * item.scaled_rho
            gradient[block.items] += np.sum((rate[block.items] * (of_v + of_rho)).real, axis=-1)
            gradient -= np.sum((rate * np.sum(of_rho, axis=0)).real, axis=-1)
    return gradient


def _blocks(row: Row, k: int) -> Iterator[Block]:
    """All pairs of two items, circle by circle."""
    others = 1.0 - np.eye(len(row.logs))
    if len(row.saddles) == 1:
        yield Block(row.saddles[0], np.arange(len(row.logs)), others)
        return
    sizes = []
    for saddle in row.saddles:
        r = _tilted(row.logs, saddle)
        half = (0.5 * _size_of_terms(row, saddle, k)[:, None] * r).T @ r
        sizes.append(half + half.T)  # symmetric to the last digit: both orders of a pair take one circle
    best = np.argmin(sizes, axis=0)
    for number, saddle in enumerate(row.saddles):
        belongs = others * (best == number)
        items = np.flatnonzero(np.any(belongs, axis=0))
        if len(items):
            yield Block(saddle, items, belongs[np.ix_(items, items)])


def _times_complex(real: Floats, values: Floats) -> Floats:
    return np.asarray(real @ values.real + 1j * (real @ values.imag))


# --- selected pairs -------------------------------------------------------------------------------


def _entries(log_weights: Floats, k: int, pairs: Indices) -> Floats:
    row = _row(log_weights, k, compressed=True)
    joint = np.zeros(len(pairs))
    for contour, own, i, j in _both(row, k, pairs):
        total = contour.hazard.ravel() - i.rho - j.rho
        joint[own] += np.sum((_weight(contour) * i.v * j.v * total).real, axis=-1)
    return joint


def _entries_jvp(log_weights: Floats, k: int, u: Floats, pairs: Indices) -> Floats:
    row = _row(log_weights, k, compressed=True)
    counts = inclusion_measure.weigh(row.measure, u)
    joint = np.zeros(len(pairs))
    for contour, own, i, j in _both(row, k, pairs):
        u_i, u_j = (u[pairs[own, place], None] for place in (0, 1))
        hazard, weighted = contour.hazard.ravel(), _total(row, contour, counts)
        change = i.scaled_rho * j.v * (u_i * (hazard - j.rho) - weighted + u_j * j.rho)
        change += j.scaled_rho * i.v * (u_j * (hazard - i.rho) - weighted + u_i * i.rho)
        joint[own] += np.sum((_weight(contour) * change).real, axis=-1)
    return joint


def _entries_vjp(log_weights: Floats, k: int, g: Floats, pairs: Indices) -> Floats:
    """As `_matrix_vjp`; items that are in no pair share one function of their weight."""
    row = _row(log_weights, k, compressed=True)
    logs = row.measure.logs
    shared, of_i, of_j = np.zeros(len(logs)), np.zeros(len(pairs)), np.zeros(len(pairs))
    for contour, own, i, j in _both(row, k, pairs):
        weight, hazard = _weight(contour), contour.hazard.ravel()
        of_i[own] += np.sum((weight * i.scaled_rho * (j.v * (hazard - j.rho) + i.v * j.rho)).real, axis=-1)
        of_j[own] += np.sum((weight * j.scaled_rho * (i.v * (hazard - i.rho) + j.v * i.rho)).real, axis=-1)
        of_all = weight * (g[own] @ (i.rho * j.v + j.rho * i.v))
        for part in inclusion_contour.parts(contour.turn, len(logs)):
            shared[part] += np.sum((_items(logs[part], contour).scaled_rho * of_all).real, axis=-1)
    gradient = np.empty_like(log_weights)
    inclusion_measure.read(row.measure, shared, gradient)
    np.negative(gradient, out=gradient)
    np.add.at(gradient, pairs[:, 0], g * of_i)
    np.add.at(gradient, pairs[:, 1], g * of_j)
    return gradient


def _both(row: Row, k: int, pairs: Indices) -> Iterator[tuple[Contour, Indices, Items, Items]]:
    """Pairs that share a circle, and their first and second items at the nodes of each contour."""
    best = _best_circle(row, k, pairs)
    for number, saddle in enumerate(row.saddles):
        own = np.flatnonzero(best == number)
        if not len(own):
            continue
        for contour in _contours(row, saddle, k):
            yield contour, own, _items(row.logs[pairs[own, 0]], contour), _items(row.logs[pairs[own, 1]], contour)


def _best_circle(row: Row, k: int, pairs: Indices) -> Indices:
    """(pairs,): where the terms are smallest."""
    if len(row.saddles) == 1:
        return np.zeros(len(pairs), dtype=np.intp)
    sizes = []
    for saddle in row.saddles:
        both = _tilted(row.logs[pairs[:, 0]], saddle) * _tilted(row.logs[pairs[:, 1]], saddle)
        sizes.append(_size_of_terms(row, saddle, k) @ both)
    return np.asarray(np.argmin(sizes, axis=0))


def _total(row: Row, contour: Contour, counts: Floats) -> Floats:
    """sum counts rho (nodes,)."""
    logs, total = row.measure.logs, np.zeros_like(contour.hazard)
    for part in inclusion_contour.parts(contour.turn, len(logs)):
        item = inclusion_contour.tilt(logs[part], contour.saddle.s, contour.saddle.zeta)
        inverse = 1.0 / inclusion_contour.factors(item.r, contour.turn)
        total += inclusion_contour.total_hazard(item, inverse, counts[part])
    return np.asarray(total.ravel())
