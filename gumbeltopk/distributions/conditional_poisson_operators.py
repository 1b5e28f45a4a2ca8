"""log Z, marginals and log p(S) of the fixed-size exponential family (conditional Poisson sampling), as operators.

p(S) = exp(sum_{i in S} theta_i) / Z over the subsets of k items. The gradient of log Z is the vector of marginals, and
their Jacobian is the covariance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _validation, sampling
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk.operator import Facts, Residuals, operator

__all__ = [
    "conditional_poisson_log_normalizer",
    "conditional_poisson_logpmf",
    "conditional_poisson_marginals",
]

SOURCE = "Chen, Dempster & Liu 1994, Weighted finite population sampling to maximize entropy"


class Setting(NamedTuple):
    """What a call fixes."""

    k: int


def _example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (2.0 * rng.normal(size=(4, 6)), 3), {}


def _example_of_subsets(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (2.0 * rng.normal(size=(4, 6)), rng.permuted(np.tile(np.arange(6), (4, 1)), axis=1)[:, :3]), {}


def check_logits(logits: Any, k: Any, check: bool) -> tuple[Array, int, Namespace]:
    logits = _validation.as_real_array(logits, "logits")
    if logits.ndim == 0:
        raise ValueError("logits is 0-dimensional; its last axis holds the n items")
    k = _validation.check_k(k, logits.shape[-1])
    xp = api.namespace_of(logits)
    if check:
        _validation.check_log_values(logits, "logits", k, xp)
    return logits, k, xp


def wide_rows(array: Array, xp: Namespace) -> Array:
    """(rows, n) in the work dtype."""
    return api.flatten_batch(xp.astype(array, api.work_float(xp, api.device_of(array)), copy=False), xp)


# --- log Z ----------------------------------------------------------------------------------------


@operator(Facts(differentiable=("logits",), range="all real numbers", source=SOURCE), _example)
def conditional_poisson_log_normalizer(logits: Any, k: Any, *, check: bool = True) -> Array:
    """log Z, the logarithm of the sum of exp(sum_{i in S} logits_i) over all subsets of k items.

    Its gradient is the vector of inclusion probabilities, `conditional_poisson_marginals`.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Log-odds of the items, up to a constant; -inf is an item that is never selected.
    k : int
        Number of items of a subset, at most the finite logits of every row.
    check : bool
        Whether to look for bad values (on a GPU this waits for the device).

    Returns
    -------
    array, shape (...)
        In the dtype of the logits. The relative error is below 1e-12, in float64.

    Raises
    ------
    ValueError, TypeError
        NaN or +inf logits; k more than the finite logits of a row.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> log_z = gt.conditional_poisson_log_normalizer(np.log([1.0, 2.0, 3.0]), 2)
    >>> float(np.exp(log_z).round(12))  # 1 * 2 + 1 * 3 + 2 * 3
    11.0
    """
    logits, k, xp = check_logits(logits, k, check)
    with api.quiet():
        log_z = _dispatch.core("conditional_poisson_log_normalizer", xp)(wide_rows(logits, xp), k, xp)
    return xp.astype(xp.reshape(log_z, logits.shape[:-1]), logits.dtype, copy=False)


@conditional_poisson_log_normalizer.fwd_rule
def _log_normalizer_fwd(logits: Any, k: Any, *, check: bool = True) -> tuple[Array, Residuals]:
    logits, k, xp = check_logits(logits, k, check)
    with api.quiet():
        log_z, included, _ = _dispatch.core("conditional_poisson_marginals", xp)(wide_rows(logits, xp), k, xp)
    shape = tuple(logits.shape)
    shapes = (("logits", shape, logits.dtype), ("result", shape[:-1], logits.dtype))
    residuals = Residuals("conditional_poisson_log_normalizer", (xp.reshape(included, shape),), Setting(k), shapes)
    return xp.astype(xp.reshape(log_z, shape[:-1]), logits.dtype, copy=False), residuals


def _gradient_jvp(residuals: Residuals, tangents: Mapping[str, Array]) -> Array:
    """<gradient, d logits> of each row."""
    (gradient,) = residuals.arrays
    xp = api.namespace_of(gradient)
    tangent = xp.astype(tangents["logits"], gradient.dtype, copy=False)
    return xp.astype(xp.sum(gradient * tangent, axis=-1), residuals.shapes[-1][2], copy=False)


def _gradient_vjp(residuals: Residuals, cotangent: Array, wrt: tuple[str, ...]) -> dict[str, Array]:
    """Gradient times cotangent, summed over the subsets that share their logits."""
    (gradient,) = residuals.arrays
    xp = api.namespace_of(gradient)
    _, shape, dtype = residuals.shapes[0]
    product = gradient * xp.astype(cotangent, gradient.dtype, copy=False)[..., None]
    return {"logits": xp.astype(api.sum_to_shape(product, shape, xp), dtype, copy=False)}


conditional_poisson_log_normalizer.jvp_rule(_gradient_jvp)
conditional_poisson_log_normalizer.vjp_rule(_gradient_vjp)


# --- marginals ------------------------------------------------------------------------------------


@operator(
    Facts(
        differentiable=("logits",),
        range="0 <= mu_i <= 1",
        sums_to_k=True,
        order_preserving="of the logits",
        source=SOURCE,
    ),
    _example,
)
def conditional_poisson_marginals(logits: Any, k: Any, *, check: bool = True) -> Array:
    """Inclusion probabilities P(i in S): the gradient of log Z. Their Jacobian is the covariance of the indicators.

    Parameters and errors as for `conditional_poisson_log_normalizer`.

    Returns
    -------
    array, shape (..., n)
        In the dtype of the logits; they sum to k. The relative error of each is below 1e-12, in float64.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> mu = gt.conditional_poisson_marginals(np.log([1.0, 2.0, 3.0]), 2)
    >>> (11 * mu).round(12).tolist()
    [5.0, 8.0, 9.0]
    """
    logits, k, xp = check_logits(logits, k, check)
    with api.quiet():
        _, included, _ = _dispatch.core("conditional_poisson_marginals", xp)(wide_rows(logits, xp), k, xp)
    return xp.astype(xp.reshape(included, logits.shape), logits.dtype, copy=False)


@conditional_poisson_marginals.fwd_rule
def _marginals_fwd(logits: Any, k: Any, *, check: bool = True) -> tuple[Array, Residuals]:
    logits, k, _ = check_logits(logits, k, check)
    shape = tuple(logits.shape)
    shapes = (("logits", shape, logits.dtype), ("result", shape, logits.dtype))
    residuals = Residuals("conditional_poisson_marginals", (logits,), Setting(k), shapes)
    return conditional_poisson_marginals(logits, k, check=False), residuals


# d mu_i / d theta_j = E[s_i s_j] - mu_i mu_j for the indicators s, so that J = J^T = Cov: both maps are Cov v.


def _covariance_product(residuals: Residuals, vector: Array) -> Array:
    (logits,) = residuals.arrays
    xp = api.namespace_of(logits)
    core = _dispatch.core("conditional_poisson_covariance_product", xp)
    with api.quiet():
        product = core(wide_rows(logits, xp), residuals.static.k, wide_rows(vector, xp), xp)
    return xp.astype(xp.reshape(product, logits.shape), logits.dtype, copy=False)


@conditional_poisson_marginals.jvp_rule
def _marginals_jvp(residuals: Residuals, tangents: Mapping[str, Array]) -> Array:
    return _covariance_product(residuals, tangents["logits"])


@conditional_poisson_marginals.vjp_rule
def _marginals_vjp(residuals: Residuals, cotangent: Array, wrt: tuple[str, ...]) -> dict[str, Array]:
    return {"logits": _covariance_product(residuals, cotangent)}


# --- log p(S) -------------------------------------------------------------------------------------


@operator(Facts(differentiable=("logits",), range="log p <= 0", source=SOURCE), _example_of_subsets)
def conditional_poisson_logpmf(logits: Any, indices: Any, *, check: bool = True) -> Array:
    """log p(S) = sum_{i in S} logits_i - log Z of subsets.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Log-odds of the items, up to a constant; -inf is an item that is never selected.
    indices : integer array_like, shape (..., k)
        The items of each subset, in any order. The batch axes of both broadcast.
    check : bool
        Whether to look for bad values (on a GPU this waits for the device).

    Returns
    -------
    array, the common batch shape
        In the dtype of the logits; -inf for a subset with an item that is never selected.

    Raises
    ------
    ValueError, TypeError
        An index outside 0 .. n - 1 or twice in a row; NaN or +inf logits; fewer than k finite logits in a row.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> log_p = gt.conditional_poisson_logpmf(np.log([1.0, 2.0, 3.0]), [[0, 1], [1, 2]])
    >>> (11 * np.exp(log_p)).round(12).tolist()
    [2.0, 6.0]
    """
    logits, selected, k, xp = _check_subsets(logits, indices, check)
    with api.quiet():
        inside, cost, excess = _dispatch.core("conditional_poisson_costs", xp)(wide_rows(logits, xp), k, xp)
    inside, cost = xp.reshape(inside, logits.shape), xp.reshape(cost, logits.shape)
    swapped = selected != inside
    log_p = 0.0 - xp.sum(xp.where(swapped, cost, 0.0), axis=-1) - xp.reshape(excess, logits.shape[:-1])
    return xp.astype(log_p, logits.dtype, copy=False)


@conditional_poisson_logpmf.fwd_rule
def _logpmf_fwd(logits: Any, indices: Any, *, check: bool = True) -> tuple[Array, Residuals]:
    logits, selected, k, xp = _check_subsets(logits, indices, check)
    with api.quiet():
        _, included, excluded = _dispatch.core("conditional_poisson_marginals", xp)(wide_rows(logits, xp), k, xp)
    score = xp.where(selected, xp.reshape(excluded, logits.shape), -xp.reshape(included, logits.shape))
    value = conditional_poisson_logpmf(logits, indices, check=check)
    shapes = (("logits", tuple(logits.shape), logits.dtype), ("result", tuple(value.shape), logits.dtype))
    return value, Residuals("conditional_poisson_logpmf", (score,), Setting(k), shapes)


conditional_poisson_logpmf.jvp_rule(_gradient_jvp)
conditional_poisson_logpmf.vjp_rule(_gradient_vjp)


def _check_subsets(logits: Any, indices: Any, check: bool) -> tuple[Array, Array, int, Namespace]:
    """The logits (..., n), and the subsets as truth values (..., n)."""
    logits = _validation.as_real_array(logits, "logits")
    if logits.ndim == 0:
        raise ValueError("logits is 0-dimensional; its last axis holds the n items")
    n = logits.shape[-1]
    indices = _validation.adopt_indices(indices, n, logits, "logits", check)
    if check:
        _validation.check_distinct(indices)
    logits, k, xp = check_logits(logits, indices.shape[-1], check)
    _validation.common_batch(tuple(logits.shape[:-1]), tuple(indices.shape[:-1]), "logits")
    return logits, sampling.selection_mask(indices, n, xp), k, xp
