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
from gumbeltopk import _random, _validation
from gumbeltopk._array_api import Array

__all__ = ["gumbel_keys", "log_arrival_times"]


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
