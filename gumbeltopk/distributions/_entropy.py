"""Entropies of samples without replacement: exactly over all subsets, or estimated from samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _random, _sample_by_keys, _validation, sampling
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._generic import subset_layers

LARGEST_TABLE = 2_000_000  # items in all subsets of one size
LARGEST_BLOCK = 1 << 20  # items of samples at a time


class EntropyEstimate(NamedTuple):
    """An unbiased estimate of an entropy, from samples.

    Attributes
    ----------
    value : array
        The mean over the samples.
    standard_error : array
        Of the mean, estimated from the same samples.
    """

    value: Array
    standard_error: Array


def check_method(method: Any, samples: Any) -> int:
    """The number of samples, for a method that there is."""
    if not isinstance(method, str) or method not in ("exact", "mc"):
        raise ValueError(f"method = {method!r} is not known; choose 'exact' or 'mc'")
    number = _validation.as_integer(samples, "samples")
    if number < 2:
        raise ValueError(f"samples = {number} gives no standard error; pass 2 or more")
    return number


def exact(name: str, log_weights: Array, k: int) -> Array:
    """The entropy by the core `name`, a few rows at a time."""
    n = log_weights.shape[-1]
    size = subset_layers.table_size(n, k)
    if size > LARGEST_TABLE:
        raise ValueError(
            f"method = 'exact' would list all subsets of up to k = {k} of n = {n} items, which are too many; pass 'mc'"
        )
    xp = api.namespace_of(log_weights)
    rows = _wide_rows(log_weights, xp)
    in_block = max(1, LARGEST_TABLE // max(size, 1))
    core = _dispatch.core(name, xp)
    with api.quiet():
        blocks = [slice(i, min(i + in_block, rows.shape[0])) for i in range(0, rows.shape[0], in_block)]
        parts = [core(rows[block, :], k, xp) for block in blocks]
    values = xp.concat(parts, axis=0) if parts else rows[:, 0]
    return xp.astype(xp.reshape(values, log_weights.shape[:-1]), log_weights.dtype, copy=False)


def from_samples(
    log_weights: Array, k: int, samples: int, rng: Any, surprise: Callable[[Array, Array], Array]
) -> EntropyEstimate:
    """Mean and standard error of surprise(log_weights, indices) over samples, a block of them at a time."""
    xp = api.namespace_of(log_weights)
    in_block = max(1, LARGEST_BLOCK // max(math.prod(log_weights.shape), 1))
    if isinstance(rng, _random.CounterRNG):
        in_block = samples  # a second block would have the draws of the first
    else:
        rng = _random.Exponentials(rng, xp, api.device_of(log_weights)).rng
    parts = []
    for first in range(0, samples, in_block):
        number = min(in_block, samples - first)
        rows = xp.broadcast_to(log_weights, (number, *log_weights.shape))
        parts.append(surprise(rows, _sample_by_keys.draw(rows, True, k, rng, xp)))
    values = xp.concat(parts, axis=0)
    mean = xp.mean(values, axis=0)
    error = xp.sqrt(xp.sum((values - mean) ** 2, axis=0) / (samples * (samples - 1)))
    dtype = log_weights.dtype
    return EntropyEstimate(xp.astype(mean, dtype, copy=False), xp.astype(error, dtype, copy=False))


def sum_of_step_entropies(log_weights: Array, indices: Array) -> Array:
    """sum_j H(next item | the j items drawn so far) (...): its mean over ordered samples is their entropy.

    By the chain rule; it varies much less than -log p. A set of weight W with the mean log-weight m (by weight) has
    the entropy log W - m. From the last step back to the first the items return one by one to those not drawn.
    """
    xp = api.namespace_of(log_weights)
    n, k = log_weights.shape[-1], indices.shape[-1]
    logs, items = _wide_rows(log_weights, xp), api.flatten_batch(indices, xp)
    with api.quiet():
        undrawn = xp.where(sampling.selection_mask(items, n, xp), -math.inf, logs)
        log_total, mean = _total_and_mean(undrawn, xp)
        drawn = xp.take_along_axis(logs, items, axis=-1)
        entropy = xp.zeros_like(log_total)
        for step in range(k - 1, -1, -1):
            own = drawn[:, step]
            log_total = xp.logaddexp(log_total, own)
            mean = mean + (own - mean) * xp.exp(own - log_total)
            entropy = entropy + xp.clip(log_total - mean, min=0.0)
    return xp.reshape(entropy, log_weights.shape[:-1])


def _total_and_mean(logs: Array, xp: Namespace) -> tuple[Array, Array]:
    """log of the total weight (rows,), and the mean of the log-weights by weight; -inf and 0 of no weight."""
    top = xp.max(logs, axis=-1, keepdims=True)
    top = xp.where(top > -math.inf, top, 0.0)
    weights = xp.exp(logs - top)
    total = xp.sum(weights, axis=-1)
    mean = xp.sum(weights * xp.where(weights > 0, logs, 0.0), axis=-1) / xp.where(total > 0, total, 1.0)
    return top[:, 0] + xp.log(total), mean


def _wide_rows(array: Array, xp: Namespace) -> Array:
    return api.flatten_batch(xp.astype(array, api.work_float(xp, api.device_of(array)), copy=False), xp)
