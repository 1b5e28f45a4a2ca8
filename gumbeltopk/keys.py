"""Arrival times and Gumbel keys (Algorithm 1 of the paper and its Gumbel-max extension).

Item i of weight w_i arrives at T_i = E_i / w_i with a unit exponential E_i. Its Gumbel key is
r_i = log w_i + g_i = -log T_i with Gumbel noise g_i = -log E_i: the k largest keys are the k earliest arrivals.
The paper's Algorithm 1 orders by u_i^(1/w_i), the same order: u^(1/w) = exp(-T). It is never formed here, because
it is exactly 0 or exactly 1 for most draws as soon as weights are far from 1.
"""

from __future__ import annotations

import math
from typing import Any

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _random, _validation
from gumbeltopk._array_api import Array

__all__ = ["conditional_keys", "gumbel_keys", "gumbel_keys_given_maximum", "log_arrival_times"]


def gumbel_keys(
    log_weights: Any = None, *, weights: Any = None, rng: Any = None, start: int = 0, check: bool = True
) -> Array:
    """Gumbel keys r = log w + g, one for each item.

    The k items of largest keys are a weighted sample without replacement (Algorithm 1).

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights, not necessarily normalised; -inf is a weight of zero.
    weights : array_like, shape (..., n)
        The weights themselves, instead of `log_weights`.
    rng : None, int, SeedSequence, Generator or CounterRNG
        After SPEC 7. With `CounterRNG(seed)` the key of an item depends on the seed and its number alone.
    start : int
        Number of the first item; the others follow in C order. For `CounterRNG` only.
    check : bool
        Whether to look for NaN, +inf and negative weights (on a GPU this waits for the device).

    Returns
    -------
    array, shape (..., n)
        Keys in the dtype of the weights. A zero-weight item has the key -inf.

    Raises
    ------
    ValueError, TypeError
        Weights that are NaN, negative or infinite; both or neither of `log_weights` and `weights`.

    Notes
    -----
    The noise is drawn in float64. A float16 or float32 result is rounded at the end, so that ties can appear
    there; `sample` does not round. In float64, too, the noise is below the rounding of a key beside log-weights beyond
    1e15; `sample` is exact there.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> gt.gumbel_keys(np.log([0.1, 0.2, 0.7]), rng=0).shape
    (3,)
    """
    return -log_arrival_times(log_weights, weights=weights, rng=rng, start=start, check=check)


def log_arrival_times(
    log_weights: Any = None, *, weights: Any = None, rng: Any = None, start: int = 0, check: bool = True
) -> Array:
    """Logarithms of the arrival times, log T = log E - log w = -r.

    Parameters and errors as for `gumbel_keys`; with the same `rng` the two differ only in sign.

    Returns
    -------
    array, shape (..., n)
        In the dtype of the weights; +inf (never arrives) for a zero-weight item.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> w = np.asarray([0.1, 0.2, 0.7])
    >>> log_times = gt.log_arrival_times(weights=w, rng=0)
    >>> bool((log_times == -gt.gumbel_keys(weights=w, rng=0)).all())
    True
    """
    given, in_logs = _validation.check_weights_or_log_weights(log_weights, weights)
    _validation.check_axis(-1, given.ndim, "log_weights" if in_logs else "weights")
    start = _validation.as_integer(start, "start")
    if start < 0:
        raise ValueError(f"start = {start} is negative; item numbers begin at 0")
    xp = api.namespace_of(given)
    if check:
        check_values(given, in_logs, 0, xp)
    exponentials = _random.standard_exponential(rng, tuple(given.shape), xp, api.device_of(given), start=start)
    return xp.astype(log_times(given, in_logs, exponentials, xp), given.dtype, copy=False)


# --- keys given what has been selected ------------------------------------------------------------


def conditional_keys(log_weights: Any, indices: Any, *, rng: Any = None, check: bool = True) -> Array:
    """Gumbel keys of all items, given which items were selected and in which order.

    If `indices` are a sample without replacement, these keys have the distribution of `gumbel_keys`: a sample that was
    drawn in another way, or observed, gets the keys that may have led to it.

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights; -inf is a weight of zero.
    indices : integer array_like, shape (..., k)
        The items of positive weight that were selected, in order of selection. The batch axes of both broadcast.
    rng : None, int, SeedSequence, Generator or CounterRNG
        After SPEC 7.
    check : bool
        Whether to look for bad values (on a GPU this waits for the device).

    Returns
    -------
    array, the common batch shape + (n,)
        Keys in the dtype of the log-weights: descending along `indices`, and the others below them (up to rounding).

    Raises
    ------
    ValueError, TypeError
        An index outside 0 .. n - 1, twice in a row, or of an item of weight zero; NaN or +inf log-weights.

    See Also
    --------
    gumbel_keys_given_maximum : given the largest key instead.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> keys = gt.conditional_keys(np.log([0.1, 0.2, 0.3, 0.4]), [0, 2], rng=0)
    >>> np.argsort(-keys)[:2].tolist()
    [0, 2]
    """
    log_weights = _validation.as_real_array(log_weights, "log_weights")
    _validation.check_axis(-1, log_weights.ndim, "log_weights")
    xp, n = api.namespace_of(log_weights), log_weights.shape[-1]
    indices = _validation.adopt_indices(indices, n, log_weights, "log_weights", check)
    _validation.check_k(indices.shape[-1], n)
    if check:
        check_values(log_weights, True, 0, xp)
        _validation.check_distinct(indices)
    batch = _validation.common_batch(tuple(log_weights.shape[:-1]), tuple(indices.shape[:-1]), "log_weights")
    exponentials = _random.standard_exponential(rng, (*batch, n), xp, api.device_of(log_weights))
    wide = xp.broadcast_to(xp.astype(log_weights, exponentials.dtype, copy=False), (*batch, n))
    indices = xp.broadcast_to(indices, (*batch, indices.shape[-1]))
    if check:
        _check_selected(wide, indices, xp)
    rows, order, draws = (api.flatten_batch(array, xp) for array in (wide, indices, exponentials))
    with api.quiet():
        keys = _keys_in_order(rows, order, draws, xp)
    return xp.astype(xp.reshape(keys, (*batch, n)), log_weights.dtype, copy=False)


def _check_selected(log_weights: Array, indices: Array, xp: api.Namespace) -> None:
    possible = xp.take_along_axis(log_weights, indices, axis=-1) > -math.inf
    if not bool(xp.all(possible)):
        index, item = _validation.first_bad(indices, possible)
        raise ValueError(f"indices{index} = {item} is an item of weight zero, which is never selected")


# The items arrive at the times T_i, and what has not arrived has no memory. The first arrival comes at an Exp(W) time,
# whoever it is; the next one after another Exp(W less the weight that has arrived); and so on. After the k-th, every
# item that is left needs another Exp(w_i) time. The key is -log T.


def _keys_in_order(log_weights: Array, indices: Array, exponentials: Array, xp: api.Namespace) -> Array:
    """Keys (rows, n), the items `indices` (rows, k) first and in this order."""
    k = indices.shape[-1]
    put = _dispatch.core("put_along_rows", xp)
    selected = xp.take_along_axis(log_weights, indices, axis=-1)
    log_exponentials = xp.log(exponentials)
    gaps = xp.take_along_axis(log_exponentials, indices, axis=-1)
    left = _log_total(put(log_weights, indices, xp.full_like(selected, -math.inf), xp), xp)
    log_rates = []  # of the items that have not arrived before step k - 1, .., 0: sums of what is left, no differences
    for step in range(k - 1, -1, -1):
        left = xp.logaddexp(left, selected[:, step])
        log_rates.append(left)
    log_time = xp.full_like(left, -math.inf)
    log_times_of_selected = []
    for step in range(k):
        log_time = xp.logaddexp(log_time, gaps[:, step] - log_rates[k - 1 - step])
        log_times_of_selected.append(log_time)
    log_times_of_all = xp.logaddexp(log_time[:, None], log_exponentials - log_weights)
    if not k:
        return -log_times_of_all
    return -put(log_times_of_all, indices, xp.stack(log_times_of_selected, axis=-1), xp)


def _log_total(logs: Array, xp: api.Namespace) -> Array:
    """log of the total weight (rows,); -inf for none."""
    if not logs.shape[-1]:
        return xp.sum(logs, axis=-1) - math.inf
    top = xp.max(logs, axis=-1, keepdims=True)
    top = xp.where(top > -math.inf, top, 0.0)
    return top[:, 0] + xp.log(xp.sum(xp.exp(logs - top), axis=-1))


def gumbel_keys_given_maximum(log_weights: Any, maximum: Any, *, rng: Any = None, check: bool = True) -> Array:
    """Gumbel keys of all items, given the largest key: one step of top-down sampling.

    The largest of all keys is log W plus Gumbel noise, W the total weight. With `maximum` drawn in this way the keys
    have the distribution of `gumbel_keys`: a tree can be sampled from its root, the keys of the children given that of
    the parent (Kool, van Hoof & Welling 2019, Stochastic beams and where to find them).

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights; -inf is a weight of zero. Each row needs a positive weight.
    maximum : array_like
        The largest key of each row, finite: one number, or one for each row, without an axis for the items.
    rng : None, int, SeedSequence, Generator or CounterRNG
        After SPEC 7.
    check : bool
        Whether to look for bad values (on a GPU this waits for the device).

    Returns
    -------
    array, shape (..., n)
        Keys in the dtype of the log-weights. The largest one is `maximum`; where it is depends on the weights alone.

    Raises
    ------
    ValueError, TypeError
        NaN or +inf log-weights, a row without a positive weight; a maximum that is not finite or of the wrong shape.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> keys = gt.gumbel_keys_given_maximum(np.log([0.1, 0.2, 0.7]), 1.5, rng=0)
    >>> float(keys.max())
    1.5
    """
    log_weights = _validation.as_real_array(log_weights, "log_weights")
    _validation.check_axis(-1, log_weights.ndim, "log_weights")
    xp, shape = api.namespace_of(log_weights), tuple(log_weights.shape)
    if check:
        check_values(log_weights, True, 1, xp)
    maximum = _validation.check_maximum(maximum, log_weights, shape[:-1], check)
    exponentials = _random.standard_exponential(rng, (2, *shape), xp, api.device_of(log_weights))
    if 0 in shape:
        return xp.asarray(log_weights, copy=True)
    log_exponentials = xp.log(exponentials)
    wide = xp.astype(log_weights, exponentials.dtype, copy=False)
    # Who comes first does not depend on when: it is drawn by weight, from exponentials of its own. Each of the others
    # needs another Exp(w_i) time from then on.
    with api.quiet():
        first = xp.argmin(log_exponentials[0, ...] - wide, axis=-1, keepdims=True)
        largest = xp.astype(xp.broadcast_to(maximum, shape[:-1]), wide.dtype)[..., None]
        keys = -xp.logaddexp(-largest, log_exponentials[1, ...] - wide)
    items = xp.arange(shape[-1], dtype=first.dtype, device=api.device_of(log_weights))
    return xp.astype(xp.where(items == first, largest, keys), log_weights.dtype, copy=False)


# --- for `sample`, too ----------------------------------------------------------------------------


def check_values(given: Array, in_logs: bool, k: int, xp: api.Namespace, axis: int = -1) -> None:
    """Check weights or log-weights, with at least k positive ones in each row along `axis`."""
    if in_logs:
        _validation.check_log_values(given, "log_weights", k, xp, axis)
    else:
        _validation.check_weight_values(given, k, xp, axis)


def log_of_weights(weights: Array, xp: api.Namespace) -> Array:
    """log w in the work dtype, with -inf for zero and without a warning."""
    wide = xp.astype(weights, api.work_float(xp, api.device_of(weights)), copy=False)
    positive = wide > 0
    return xp.where(positive, xp.log(xp.where(positive, wide, 1.0)), -math.inf)


def log_times(given: Array, in_logs: bool, exponentials: Array, xp: api.Namespace) -> Array:
    """log E - log w in the work dtype."""
    logs = xp.astype(given, exponentials.dtype, copy=False) if in_logs else log_of_weights(given, xp)
    return xp.log(exponentials) - logs
