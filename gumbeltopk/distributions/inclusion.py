"""Inclusion probabilities of sequential sampling: P(i in S) and P(i and j in S), S drawn as in eq. 2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _validation
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk.operator import Facts, Residuals, operator

__all__ = ["inclusion_probabilities", "joint_inclusion_probabilities"]

LARGEST_ERROR = 1e-10  # of pi_i + (1 - pi_i), two integrals, and of sum pi = k
SOURCE = "Xie & Ermon 2019, eq. 2: sums of p(S) over the subsets that have the items"


def _example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.normal(size=(4, 6)), 3), {}


FACTS = Facts(
    differentiable=("log_weights",),
    range="0 <= pi <= 1",
    sums_to_k=True,
    order_preserving="of the log-weights",
    source=SOURCE,
)


def _joint_example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.normal(size=(2, 5)), 3), {}


JOINT_FACTS = Facts(differentiable=("log_weights",), range="0 <= pi <= 1", source=SOURCE)


@operator(FACTS, _example)
def inclusion_probabilities(log_weights: Any, k: int, *, check: bool = True) -> Array:
    """pi_i = P(i in S) of a subset S of k items drawn without replacement (eq. 2).

    Exact, by an integral over the arrival time of the last item that gets in; not the fixed-threshold approximation.
    The sum of a row is k.

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights; -inf is a weight of zero.
    k : int
        Number of items, at most the number of positive weights of every row.
    check : bool
        Whether to look for bad values and at the accuracy reached (on a GPU this waits for the device).

    Returns
    -------
    array, shape (..., n)
        In the dtype of the log-weights; 0 for a weight of zero.

    Raises
    ------
    ValueError, TypeError
        NaN or +inf log-weights, k out of range.
    ArithmeticError
        If sum pi = k, or the sum of the probabilities that an item is in and that it is not, is off by 1e-10.

    Notes
    -----
    The relative error is below 1e-12, also that of tiny probabilities, for ratios of weights up to 1e20. Weights beyond
    e^150 times the (k + 1)-st, or below its e^-150, count as that: their pi or 1 - pi is below 1e-65. A million weights
    take a fifth of a second, but a row takes some seconds where k is near n, or where a thousand items are far heavier
    than all others: two for 1000 giants of a million and k = 1000, or for n = 3000 and k = 2990.

    Sequential sampling is not sampling in proportion to size: pi_i is not k w_i / W.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> gt.inclusion_probabilities(np.log([0.1, 0.2, 0.3, 0.4]), 2).round(7).tolist()
    [0.2345238, 0.4412698, 0.6083333, 0.715873]
    """
    return _value(_prepare(log_weights, k, check))


@inclusion_probabilities.fwd_rule
def _fwd(log_weights: Any, k: int, *, check: bool = True) -> tuple[Array, Residuals]:
    call = _prepare(log_weights, k, check)
    return _value(call), _residuals(inclusion_probabilities.name, call, (*call.batch, call.n))


@inclusion_probabilities.jvp_rule
def _jvp(residuals: Residuals, tangents: Mapping[str, Array]) -> Array:
    return _derivative("inclusion_jacobian_product", residuals, tangents["log_weights"], residuals.shapes[-1])


@inclusion_probabilities.vjp_rule
def _vjp(residuals: Residuals, cotangent: Array, wrt: tuple[str, ...]) -> dict[str, Array]:
    # The Jacobian is symmetric: pi is the gradient of E max_S sum_{i in S} (log w_i + Gumbel noise).
    return {"log_weights": _derivative("inclusion_jacobian_product", residuals, cotangent, residuals.shapes[0])}


def marginal_log_odds(log_weights: Any, k: int) -> Array:
    """log(pi / (1 - pi)), from both integrals, so that neither end loses digits."""
    call = _prepare(log_weights, k, True)
    included, excluded = _probabilities(call)
    with api.quiet():
        return _in_shape_of_the_weights(call.xp.log(included) - call.xp.log(excluded), call)


def covariance(log_weights: Any, k: int) -> Array:
    """pi_ij - pi_i pi_j (..., n, n); on the diagonal pi_i (1 - pi_i)."""
    call = _prepare(log_weights, k, True)
    included, excluded = _probabilities(call)
    xp, n = call.xp, call.n
    wide = call._replace(dtype=included.dtype)
    joint = xp.reshape(_joint_value(wide, None), (-1, n, n))
    place = xp.arange(n, device=api.device_of(included))
    products = included[:, :, None] * included[:, None, :]
    variances = (included * excluded)[:, :, None]
    matrices = xp.where(place[:, None] == place[None, :], variances, joint - products)
    return xp.astype(xp.reshape(matrices, (*call.batch, n, n)), call.dtype, copy=False)


# --- pairs ----------------------------------------------------------------------------------------


@operator(JOINT_FACTS, _joint_example)
def joint_inclusion_probabilities(log_weights: Any, k: int, *, pairs: Any = None, check: bool = True) -> Array:
    """pi_ij = P(i and j in S) of a subset S of k items drawn without replacement (eq. 2).

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights; -inf is a weight of zero.
    k : int
        Number of items, at most the number of positive weights of every row.
    pairs : integer array_like, shape (m, 2), optional
        The pairs wanted, the same for each row. Default: all of them.
    check : bool
        Whether to look for bad values and at the accuracy reached (on a GPU this waits for the device).

    Returns
    -------
    array, shape (..., n, n) or (..., m)
        In the dtype of the log-weights. Symmetric; on the diagonal, and for a pair of an item with itself, pi_i. Off
        the diagonal a row sums to (k - 1) pi_i.

    Raises
    ------
    ValueError, TypeError
        NaN or +inf log-weights, k out of range, pairs of another shape or with an index outside 0 .. n - 1.
    ArithmeticError
        If sums that must be k or k pi_i are off by 1e-10.

    Notes
    -----
    The relative error is below 1e-12, also that of tiny probabilities, for ratios of weights up to 1e20 and far beyond.
    All pairs of 200 NumPy weights take a tenth of a second to two seconds, and longest where weights lie tens of nats
    apart. A few pairs need the matrix of all pairs nowhere. Other libraries take O(n^2 k) or, for m pairs, O(m n k).

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> log_weights = np.log([0.1, 0.2, 0.3, 0.4])
    >>> gt.joint_inclusion_probabilities(log_weights, 2, pairs=[[0, 1], [2, 3], [3, 3]]).round(7).tolist()
    [0.0472222, 0.3714286, 0.715873]
    """
    call = _prepare(log_weights, k, check)
    return _joint_value(call, _check_pairs(pairs, call, check))


@joint_inclusion_probabilities.fwd_rule
def _joint_fwd(log_weights: Any, k: int, *, pairs: Any = None, check: bool = True) -> tuple[Array, Residuals]:
    call = _prepare(log_weights, k, check)
    checked = _check_pairs(pairs, call, check)
    value = _joint_value(call, checked)
    extra = () if checked is None else (checked,)
    return value, _residuals(joint_inclusion_probabilities.name, call, tuple(value.shape), extra)


@joint_inclusion_probabilities.jvp_rule
def _joint_jvp(residuals: Residuals, tangents: Mapping[str, Array]) -> Array:
    pairs = residuals.arrays[1] if residuals.static.has_pairs else None
    return _derivative("joint_inclusion_jvp", residuals, tangents["log_weights"], residuals.shapes[-1], pairs)


@joint_inclusion_probabilities.vjp_rule
def _joint_vjp(residuals: Residuals, cotangent: Array, wrt: tuple[str, ...]) -> dict[str, Array]:
    pairs = residuals.arrays[1] if residuals.static.has_pairs else None
    return {"log_weights": _derivative("joint_inclusion_vjp", residuals, cotangent, residuals.shapes[0], pairs)}


def _check_pairs(pairs: Any, call: _Call, check: bool) -> Array | None:
    if pairs is None:
        return None
    shape = tuple(_validation.as_array(pairs, "pairs").shape)
    if len(shape) != 2 or shape[1] != 2:
        raise ValueError(f"pairs has shape {shape}; pass an array of shape (m, 2), one pair in a row")
    return _validation.adopt_indices(pairs, call.n, call.rows, "log_weights", check, "pairs")


def _joint_value(call: _Call, pairs: Array | None) -> Array:
    xp, k = call.xp, call.k
    shape = (*call.batch, call.n, call.n) if pairs is None else (*call.batch, pairs.shape[0])
    if k == 0 or 0 in call.rows.shape or 0 in shape:
        return xp.zeros(shape, dtype=call.dtype, device=api.device_of(call.rows))
    uncertain, certain = _split(call.rows, k, xp)
    positive = xp.astype(call.rows > -math.inf, call.rows.dtype)
    both = _of_pairs(positive, pairs, xp)
    if call.n > k:
        with api.quiet():
            joint = _dispatch.core("joint_inclusion", xp)(uncertain, k, pairs, xp)
        if call.check and pairs is None:
            _check_row_sums(joint, k, xp)
        both = xp.where(xp.reshape(certain, (-1,) + (1,) * (both.ndim - 1)), both, joint)
    return xp.astype(xp.reshape(both, shape), call.dtype, copy=False)


def _of_pairs(positive: Array, pairs: Array | None, xp: Namespace) -> Array:
    """Whether both items have a positive weight, where all of these are in S."""
    if pairs is None:
        return positive[:, :, None] * positive[:, None, :]
    return xp.take(positive, pairs[:, 0], axis=1) * xp.take(positive, pairs[:, 1], axis=1)


# --- what both share ------------------------------------------------------------------------------


class _Call(NamedTuple):
    """Checked input: one row for each row of weights, in the work dtype."""

    xp: Namespace
    dtype: Any
    batch: tuple[int, ...]
    rows: Array  # (rows, n)
    k: int
    check: bool

    @property
    def n(self) -> int:
        return int(self.rows.shape[-1])


class _Settings(NamedTuple):
    k: int
    has_pairs: bool


def _prepare(log_weights: Any, k: Any, check: bool) -> _Call:
    log_weights = _validation.as_real_array(log_weights, "log_weights")
    if log_weights.ndim == 0:
        raise ValueError("log_weights is 0-dimensional; its last axis holds the n items")
    xp = api.namespace_of(log_weights)
    k = _validation.check_k(k, log_weights.shape[-1])
    if check:
        _validation.check_log_values(log_weights, "log_weights", k, xp)
    wide = xp.astype(log_weights, api.work_float(xp, api.device_of(log_weights)), copy=False)
    return _Call(xp, log_weights.dtype, tuple(log_weights.shape[:-1]), api.flatten_batch(wide, xp), k, check)


def _split(rows: Array, k: int, xp: Namespace) -> tuple[Array, Array]:
    """Rows of more than k positive weights, others replaced by equal weights; and which were replaced (rows, 1).

    With just k positive weights there is one possible subset.
    """
    certain = xp.count_nonzero(rows > -math.inf, axis=-1, keepdims=True) <= k
    return xp.where(certain, 0.0, rows), certain


def _probabilities(call: _Call) -> tuple[Array, Array]:
    """pi and 1 - pi (rows, n), checked."""
    xp, rows, k = call.xp, call.rows, call.k
    included = xp.astype(rows > -math.inf, rows.dtype) * (1.0 if k else 0.0)
    excluded = 1.0 - included
    if k == 0 or 0 in rows.shape or call.n == k:
        return included, excluded
    uncertain, certain = _split(rows, k, xp)
    with api.quiet():
        inside, outside = _dispatch.core("inclusion", xp)(uncertain, k, xp)
    if call.check:
        _check_accuracy(inside, outside, k, xp)
    return xp.where(certain, included, inside), xp.where(certain, excluded, outside)


def _check_accuracy(included: Array, excluded: Array, k: int, xp: Namespace) -> None:
    """Both are integrals of their own."""
    of_items = xp.max(xp.abs(included + excluded - 1.0), axis=-1)
    of_rows = xp.abs(xp.sum(included, axis=-1) / k - 1.0)
    _raise_if_large(xp.maximum(of_items, of_rows), xp)


def _check_row_sums(joint: Array, k: int, xp: Namespace) -> None:
    """A row is k pi_i, the diagonal included."""
    single = xp.linalg.diagonal(joint)
    error = xp.max(xp.abs(xp.sum(joint, axis=-1) - k * single), axis=-1) / k
    _raise_if_large(xp.maximum(error, xp.abs(xp.sum(single, axis=-1) / k - 1.0)), xp)


def _raise_if_large(error: Array, xp: Namespace) -> None:
    good = error <= LARGEST_ERROR
    if not bool(xp.all(good)):
        row, value = _validation.first_bad(error, good)
        raise ArithmeticError(
            f"the inclusion probabilities of row {row} of log_weights miss their sum by {value:.1e}; "
            "please report these log-weights"
        )


def _value(call: _Call) -> Array:
    with api.quiet():
        included = call.xp.clip(_probabilities(call)[0], max=1.0)
    return _in_shape_of_the_weights(included, call)


def _in_shape_of_the_weights(rows: Array, call: _Call) -> Array:
    return call.xp.astype(call.xp.reshape(rows, (*call.batch, call.n)), call.dtype, copy=False)


def _residuals(name: str, call: _Call, result: tuple[int, ...], extra: tuple[Array, ...] = ()) -> Residuals:
    # Copies: the caller may change the arrays in place later.
    arrays = tuple(call.xp.asarray(array, copy=True) for array in (call.rows, *extra))
    shapes = (("log_weights", (*call.batch, call.n), call.dtype), ("result", result, call.dtype))
    return Residuals(name, arrays, _Settings(call.k, bool(extra)), shapes)


def _derivative(
    core: str, residuals: Residuals, direction: Array, result: tuple[str, tuple[int, ...], Any], *options: Any
) -> Array:
    """A linear map at the point of the residuals, which takes a tangent or cotangent to the shape of `result`."""
    rows = residuals.arrays[0]
    xp, k = api.namespace_of(rows), residuals.static.k
    _, shape, dtype = result
    n = rows.shape[-1]
    if k == 0 or n == k or 0 in (*rows.shape, *direction.shape, *shape):
        return xp.zeros(shape, dtype=dtype, device=api.device_of(rows))
    wide = xp.astype(direction, rows.dtype, copy=False)
    wide = xp.reshape(wide, (rows.shape[0], *wide.shape[len(residuals.shapes[0][1]) - 1 :]))
    uncertain, certain = _split(rows, k, xp)
    with api.quiet():
        product = _dispatch.core(core, xp)(uncertain, k, wide, *options, xp)
    product = xp.where(xp.reshape(certain, (-1,) + (1,) * (product.ndim - 1)), 0.0, product)
    return xp.astype(xp.reshape(product, shape), dtype, copy=False)
