"""Inclusion probabilities of pairs: those of single items, in the rows from which one item is taken away.

Items i and j are both in S if and only if they come before the (k - 1)-st of the others:
    pi_ij = Int a_i a_j f_{-ij} d tau,
and f_{-ij} d tau is X_j ds of `inclusion`, for k - 1 in the row without item i. All notation is as there.

The cores return matrices (rows, n, n) with the single items on the diagonal or, if they are given `pairs` of indices
(m, 2), the entries of these (rows, m). A row is made n times, each time without one item; or m times, without the first
item of each pair, if these are fewer.
"""

from __future__ import annotations

import math

from gumbeltopk import _array_api as api
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._generic import inclusion
from gumbeltopk._generic.inclusion import Block, Nodes, arrivals, integrate


def probabilities(log_weights: Array, k: int, pairs: Array | None, xp: Namespace) -> Array:
    """pi_ij = P(i and j in S), pi_i on the diagonal."""
    single, _ = inclusion.probabilities(log_weights, k, xp)
    if k == 1:
        return _of_single(single, pairs, xp)
    removed = _removed(log_weights, pairs, xp)
    without, own = _without(log_weights, k, removed, xp)

    def integrand(block: Block) -> Array:
        gone = arrivals(own[block.rows, :], block.s, xp)
        return gone.arrived * block.x.arrived * block.density

    joint = _split_rows(integrate(without, k - 2, None, integrand, xp), removed, xp)
    return _with_single(joint, single, pairs, xp)


def jvp(log_weights: Array, k: int, tangent: Array, pairs: Array | None, xp: Namespace) -> Array:
    """The tangent of `probabilities`, from that of the log-weights (rows, n).

    pi_ij = Int (a_i a_j)' P(N_{-ij} <= k - 2) d tau, and the steps of `inclusion.jacobian_product` give T_ij + T_ji,
        T_ij = Int h_i a_j sum_m (u_i - u_m) h_m P(N_{-ijm} = k - 2) ds,
    both of them in the row without item i.
    """
    single = inclusion.jacobian_product(log_weights, k, tangent, xp)
    if k == 1:
        return _of_single(single, pairs, xp)
    removed = _removed(log_weights, pairs, xp)
    without, own = _without(log_weights, k, removed, xp)
    rows, n = tangent.shape
    of_all = xp.reshape(xp.broadcast_to(tangent[:, None, :], (rows, removed.shape[0], n)), (-1, n))
    of_removed = xp.reshape(xp.take(tangent, removed, axis=1), (-1, 1, 1))

    def integrand(block: Block) -> Array:
        gone = arrivals(own[block.rows, :], block.s, xp)
        by_removed = gone.hazard * block.x.arrived * (of_removed[block.rows, :, :] * block.density - block.weighted)
        by_others = gone.arrived * block.x.hazard * (of_all[block.rows, None, :] * block.density - block.weighted)
        return by_removed + by_others

    joint = _split_rows(integrate(without, k - 2, of_all, integrand, xp), removed, xp)
    return _with_single(joint, single, pairs, xp)


def vjp(log_weights: Array, k: int, cotangent: Array, pairs: Array | None, xp: Namespace) -> Array:
    """Gradient (rows, n) of sum_ij c_ij pi_ij, c the cotangent.

    With the symmetric g = c + c^T off the diagonal, the adjoint of T is
        sum_j Int a_j sum_r (g_mj - g_rj) h_m h_r P(N_{-mjr} = k - 2) ds:
    for each j, the Jacobian product of column j of g, in the row without item j.
    """
    n = log_weights.shape[-1]
    if pairs is not None and 2 * pairs.shape[0] >= n:
        cotangent, pairs = _matrices_of(cotangent, pairs, n, xp), None
    if pairs is None:
        removed, of_single, columns = _columns_of_matrices(cotangent, xp)
    else:
        removed, of_single, columns = _columns_of_pairs(cotangent, pairs, n, xp)
    gradient = inclusion.jacobian_product(log_weights, k, of_single, xp)
    if k == 1:
        return gradient
    without, own = _without(log_weights, k, removed, xp)
    columns = xp.reshape(columns, (-1, n))

    def integrand(block: Block) -> Array:
        gone = arrivals(own[block.rows, :], block.s, xp)
        change = columns[block.rows, None, :] * block.density - block.weighted
        return gone.arrived * block.x.hazard * change

    return gradient + xp.sum(_split_rows(integrate(without, k - 2, columns, integrand, xp), removed, xp), axis=1)


# --- rows without one item ------------------------------------------------------------------------


def _removed(log_weights: Array, pairs: Array | None, xp: Namespace) -> Array:
    """The items to leave out, one after the other: each of them, or the first ones of fewer pairs."""
    n = log_weights.shape[-1]
    if pairs is None or _are_many(pairs, n):
        return xp.arange(n, device=api.device_of(log_weights))
    return pairs[:, 0]


def _are_many(pairs: Array, n: int) -> bool:
    return bool(pairs.shape[0] >= n)


def _without(log_weights: Array, k: int, removed: Array, xp: Namespace) -> tuple[Nodes, Array]:
    """Nodes of each row once for each removed item (rows * removed, n); and the log-weights of those items."""
    nodes = inclusion.make_nodes(log_weights, k - 1, k, xp)
    rows, n = log_weights.shape
    copies = removed.shape[0]
    items = xp.arange(n, device=api.device_of(log_weights))
    is_removed = removed[:, None] == items[None, :]
    others = xp.where(is_removed[None, :, :], -math.inf, nodes.log_weights[:, None, :])
    left, spacing = (
        xp.reshape(xp.broadcast_to(each, (rows, copies)), (rows * copies, 1)) for each in (nodes.left, nodes.spacing)
    )
    own = xp.reshape(xp.take(nodes.log_weights, removed, axis=1), (rows * copies, 1))
    return Nodes(xp.reshape(others, (rows * copies, n)), left, spacing, nodes.number), own


def _split_rows(array: Array, removed: Array, xp: Namespace) -> Array:
    """(rows * removed, n) -> (rows, removed, n)."""
    return xp.reshape(array, (-1, removed.shape[0], array.shape[-1]))


def _with_single(joint: Array, single: Array, pairs: Array | None, xp: Namespace) -> Array:
    """Pairs of two items from (rows, removed, n), and of an item with itself from (rows, n)."""
    n = single.shape[-1]
    if pairs is None:
        return _with_diagonal(joint, single, xp)
    first, second = pairs[:, 0], pairs[:, 1]
    in_order = xp.arange(pairs.shape[0], dtype=first.dtype, device=api.device_of(single))
    place = first if _are_many(pairs, n) else in_order
    flat = xp.reshape(joint, (joint.shape[0], -1))
    return xp.where(first == second, xp.take(single, first, axis=1), xp.take(flat, place * n + second, axis=1))


def _of_single(single: Array, pairs: Array | None, xp: Namespace) -> Array:
    """One draw has no two items."""
    if pairs is None:
        return _with_diagonal(xp.zeros_like(single[:, :, None]), single, xp)
    return xp.where(pairs[:, 0] == pairs[:, 1], xp.take(single, pairs[:, 0], axis=1), 0.0)


# --- cotangents -----------------------------------------------------------------------------------


def _columns_of_matrices(matrices: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """The items to leave out, the diagonal of c (rows, n), and the columns of g (rows, n, n)."""
    diagonal = xp.linalg.diagonal(matrices)
    g = _with_diagonal(matrices + xp.matrix_transpose(matrices), xp.zeros_like(diagonal), xp)
    return xp.arange(matrices.shape[-1], device=api.device_of(matrices)), diagonal, g


def _columns_of_pairs(cotangent: Array, pairs: Array, n: int, xp: Namespace) -> tuple[Array, Array, Array]:
    """The same for pairs, of which each has two columns with one entry (rows, 2 m, n)."""
    items = xp.arange(n, device=api.device_of(cotangent))
    same = xp.astype(pairs[:, 0] == pairs[:, 1], cotangent.dtype)
    first, second = (xp.astype(pairs[:, place, None] == items, cotangent.dtype) for place in (0, 1))
    of_single = xp.matmul(cotangent * same, first)
    of_pairs = (cotangent * (1.0 - same))[:, :, None]
    columns = xp.concat([of_pairs * first, of_pairs * second], axis=1)
    return xp.concat([pairs[:, 1], pairs[:, 0]], axis=0), of_single, columns


def _diagonal(like: Array, xp: Namespace) -> Array:
    """(n, n): where i = j."""
    place = xp.arange(like.shape[-1], device=api.device_of(like))
    return place[:, None] == place[None, :]


def _with_diagonal(matrices: Array, diagonal: Array, xp: Namespace) -> Array:
    return xp.where(_diagonal(diagonal, xp), diagonal[:, :, None], matrices)


def _matrices_of(cotangent: Array, pairs: Array, n: int, xp: Namespace) -> Array:
    """Cotangents of pairs as matrices: a pair that is listed twice counts twice."""
    items = xp.arange(n, device=api.device_of(cotangent))
    first, second = (xp.astype(pairs[:, place, None] == items, cotangent.dtype) for place in (0, 1))
    return xp.matmul(xp.matrix_transpose(cotangent[:, :, None] * first), second)
