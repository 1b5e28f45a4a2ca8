"""Inclusion probabilities of pairs: those of single items, in the rows from which one item is taken away.

Items i and j are both in S if and only if they come before the (k - 1)-st of the others:
    pi_ij = Int a_i a_j f_{-ij} d tau,
and f_{-ij} d tau is X_j ds of `inclusion`, for k - 1 in the row without item i. All notation is as there.

The cores return matrices (rows, n, n) with the single items on the diagonal or, if they are given `pairs` of indices
(m, 2), the entries of these (rows, m).
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
        return _entries(_with_diagonal(xp.zeros_like(single[:, :, None]), single, xp), pairs, xp)
    without, own = _without_each_item(inclusion.make_nodes(log_weights, k - 1, k, xp), xp)

    def integrand(block: Block) -> Array:
        removed = arrivals(own[block.rows, :], block.s, xp)
        return removed.arrived * block.x.arrived * block.density

    matrices = _as_matrices(integrate(without, k - 2, None, integrand, xp), xp)
    return _entries(_with_diagonal(matrices, single, xp), pairs, xp)


def jvp(log_weights: Array, k: int, tangent: Array, pairs: Array | None, xp: Namespace) -> Array:
    """The tangent of `probabilities`, from that of the log-weights (rows, n).

    pi_ij = Int (a_i a_j)' P(N_{-ij} <= k - 2) d tau, and the steps of `inclusion.jacobian_product` give T_ij + T_ji,
        T_ij = Int h_i a_j sum_m (u_i - u_m) h_m P(N_{-ijm} = k - 2) ds.
    """
    single = inclusion.jacobian_product(log_weights, k, tangent, xp)
    if k == 1:
        return _entries(_with_diagonal(xp.zeros_like(single[:, :, None]), single, xp), pairs, xp)
    without, own = _without_each_item(inclusion.make_nodes(log_weights, k - 1, k, xp), xp)
    rows, n = tangent.shape
    of_all = xp.reshape(xp.broadcast_to(tangent[:, None, :], (rows, n, n)), (rows * n, n))
    of_removed = xp.reshape(tangent, (rows * n, 1, 1))

    def integrand(block: Block) -> Array:
        removed = arrivals(own[block.rows, :], block.s, xp)
        change = of_removed[block.rows, :, :] * block.density - block.weighted
        return removed.hazard * block.x.arrived * change

    half = _as_matrices(integrate(without, k - 2, of_all, integrand, xp), xp)
    return _entries(_with_diagonal(half + xp.matrix_transpose(half), single, xp), pairs, xp)


def vjp(log_weights: Array, k: int, cotangent: Array, pairs: Array | None, xp: Namespace) -> Array:
    """Gradient (rows, n) of sum_ij c_ij pi_ij, c the cotangent.

    With the symmetric g = c + c^T off the diagonal, the adjoint of T is
        sum_j Int a_j sum_r (g_mj - g_rj) h_m h_r P(N_{-mjr} = k - 2) ds:
    for each j, the Jacobian product of column j of g, in the row without item j.
    """
    n = log_weights.shape[-1]
    matrices = _matrices_of(cotangent, pairs, n, xp)
    gradient = inclusion.jacobian_product(log_weights, k, xp.linalg.diagonal(matrices), xp)
    if k == 1:
        return gradient
    without, own = _without_each_item(inclusion.make_nodes(log_weights, k - 1, k, xp), xp)
    g = matrices + xp.matrix_transpose(matrices)
    columns = xp.reshape(_with_diagonal(g, xp.zeros_like(gradient), xp), (-1, n))

    def integrand(block: Block) -> Array:
        removed = arrivals(own[block.rows, :], block.s, xp)
        change = columns[block.rows, None, :] * block.density - block.weighted
        return removed.arrived * block.x.hazard * change

    return gradient + xp.sum(_as_matrices(integrate(without, k - 2, columns, integrand, xp), xp), axis=1)


def _without_each_item(nodes: Nodes, xp: Namespace) -> tuple[Nodes, Array]:
    """Each row n times, each time without one of its items; and the log-weights (rows * n, 1) of those items."""
    rows, n = nodes.log_weights.shape
    others = xp.where(_diagonal(nodes.log_weights, xp), -math.inf, nodes.log_weights[:, None, :])
    left, spacing = (
        xp.reshape(xp.broadcast_to(each, (rows, n)), (rows * n, 1)) for each in (nodes.left, nodes.spacing)
    )
    without = Nodes(xp.reshape(others, (rows * n, n)), left, spacing, nodes.number)
    return without, xp.reshape(nodes.log_weights, (rows * n, 1))


def _diagonal(like: Array, xp: Namespace) -> Array:
    """(n, n): where i = j."""
    place = xp.arange(like.shape[-1], device=api.device_of(like))
    return place[:, None] == place[None, :]


def _as_matrices(array: Array, xp: Namespace) -> Array:
    """(rows * n, n) -> (rows, n, n)."""
    n = array.shape[-1]
    return xp.reshape(array, (-1, n, n))


def _with_diagonal(matrices: Array, diagonal: Array, xp: Namespace) -> Array:
    return xp.where(_diagonal(diagonal, xp), diagonal[:, :, None], matrices)


def _entries(matrices: Array, pairs: Array | None, xp: Namespace) -> Array:
    """(rows, m), or all of them."""
    if pairs is None:
        return matrices
    n = matrices.shape[-1]
    flat = xp.reshape(matrices, (matrices.shape[0], n * n))
    return xp.take(flat, pairs[:, 0] * n + pairs[:, 1], axis=1)


def _matrices_of(cotangent: Array, pairs: Array | None, n: int, xp: Namespace) -> Array:
    """The adjoint of `_entries`: a pair that is listed twice counts twice."""
    if pairs is None:
        return cotangent
    items = xp.arange(n, device=api.device_of(cotangent))
    first, second = (xp.astype(pairs[:, place, None] == items, cotangent.dtype) for place in (0, 1))
    return xp.matmul(xp.matrix_transpose(cotangent[:, :, None] * first), second)
