"""What the two log-pmf operators share: rows of selected log-weights, and derivatives from a score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _validation, sampling
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._generic.successive_softmax import log_sum_exp
from gumbeltopk.operator import Residuals


class Rows(NamedTuple):
    """One row for each subset, log-weights in the work dtype."""

    xp: Namespace
    dtype: Any
    log_weights_shape: tuple[int, ...]
    batch: tuple[int, ...]
    log_weights: Array  # (rows, n)
    indices: Array  # (rows, k)
    outside: Array  # (rows, n): not selected
    selected: Array  # (rows, k)
    complement: Array  # (rows, 1): log of the weight that is not selected


def prepare(log_weights: Any, indices: Any, check: bool) -> Rows:
    """Check the input of a log-pmf and lay it out in rows."""
    log_weights = _validation.as_real_array(log_weights, "log_weights")
    if log_weights.ndim == 0:
        raise ValueError("log_weights is 0-dimensional; its last axis holds the n items")
    xp = api.namespace_of(log_weights)
    n = log_weights.shape[-1]
    indices = _validation.adopt_indices(indices, n, log_weights, "log_weights", check)
    if check:
        _validation.check_log_values(log_weights, "log_weights", 0, xp)
        _validation.check_distinct(indices)
    _validation.check_k(indices.shape[-1], n)
    batch = _validation.common_batch(tuple(log_weights.shape[:-1]), tuple(indices.shape[:-1]), "log_weights")
    wide = xp.astype(log_weights, api.work_float(xp, api.device_of(log_weights)), copy=False)
    wide = api.flatten_batch(xp.broadcast_to(wide, (*batch, n)), xp)
    flat = api.flatten_batch(xp.broadcast_to(indices, (*batch, indices.shape[-1])), xp)
    outside = ~sampling.selection_mask(flat, n, xp)
    selected = xp.take_along_axis(wide, flat, axis=-1)
    with api.quiet():
        complement = _log_total(xp.where(outside, wide, -math.inf), xp)
    return Rows(xp, log_weights.dtype, tuple(log_weights.shape), batch, wide, flat, outside, selected, complement)


def _log_total(logs: Array, xp: Namespace) -> Array:
    if logs.shape[-1] == 0:
        return xp.full((logs.shape[0], 1), -math.inf, dtype=logs.dtype, device=api.device_of(logs))
    return log_sum_exp(logs, xp)


def value(name: str, log_weights: Any, indices: Any, check: bool) -> Array:
    """The log-pmf by the core `name`."""
    return _value_of(name, prepare(log_weights, indices, check))


def forward(name: str, log_weights: Any, indices: Any, check: bool) -> tuple[Array, Residuals]:
    """The log-pmf and its score, by the cores `name` and its twin `..._score`."""
    rows = prepare(log_weights, indices, check)
    if _is_empty(rows):
        gradient = rows.xp.zeros_like(rows.log_weights)
    else:
        with api.quiet():
            core = _dispatch.core(name.replace("logpmf", "score"), rows.xp)
            gradient = full_score(rows, *core(rows.selected, rows.complement, rows.xp))
    # The score is all that the derivatives of a number need.
    shapes = (("log_weights", rows.log_weights_shape, rows.dtype), ("result", rows.batch, rows.dtype))
    gradient = rows.xp.reshape(gradient, (*rows.batch, gradient.shape[-1]))
    return _value_of(name, rows), Residuals(name, (gradient,), None, shapes)


def _value_of(name: str, rows: Rows) -> Array:
    xp = rows.xp
    if _is_empty(rows):
        return xp.zeros(rows.batch, dtype=rows.dtype, device=api.device_of(rows.log_weights))
    with api.quiet():
        log_p = _dispatch.core(name, xp)(rows.selected, rows.complement, xp)
    return xp.astype(xp.reshape(log_p, rows.batch), rows.dtype, copy=False)


def _is_empty(rows: Rows) -> bool:
    """No subset, or only the empty subset, whose probability is 1."""
    return 0 in rows.selected.shape


def full_score(rows: Rows, at_selected: Array, at_complement: Array) -> Array:
    """The gradient (rows, n) from its entries at the selected items and its total over the others.

    The others share their total by weight.
    """
    xp = rows.xp
    total = xp.where(rows.complement > -math.inf, rows.complement, 0.0)
    gradient = xp.where(rows.outside, xp.exp(rows.log_weights - total) * at_complement, 0.0)
    return _dispatch.core("put_along_rows", xp)(gradient, rows.indices, at_selected, xp)


def jvp(residuals: Residuals, tangents: Mapping[str, Array]) -> Array:
    """<score, dl> of each row."""
    (gradient,) = residuals.arrays
    xp = api.namespace_of(gradient)
    tangent = xp.astype(tangents["log_weights"], gradient.dtype, copy=False)
    return xp.astype(xp.sum(gradient * tangent, axis=-1), residuals.shapes[-1][2], copy=False)


def vjp(residuals: Residuals, cotangent: Array, wrt: tuple[str, ...]) -> dict[str, Array]:
    """Score times cotangent, summed over the subsets that share their log-weights."""
    (gradient,) = residuals.arrays
    xp = api.namespace_of(gradient)
    _, shape, dtype = residuals.shapes[0]
    product = gradient * xp.astype(cotangent, gradient.dtype, copy=False)[..., None]
    return {"log_weights": xp.astype(api.sum_to_shape(product, shape, xp), dtype, copy=False)}
