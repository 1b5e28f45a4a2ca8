"""Weighted sampling without replacement from arrays (Algorithm 1): single rows and batches, in one pass.

This is *sequential* sampling (successive draws, Plackett-Luce): the first item is drawn with probability w_i / W, the
next one among the rest in the same way, and so on. The inclusion probabilities are not k w_i / W: that would be
another design, probability proportional to size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _random, _validation, keys
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._numpy import selection as numpy_selection

__all__ = ["k_hot", "sample"]

SMALLEST_EXPONENTIAL = float(np.finfo(np.float64).smallest_normal)  # a draw of exactly 0 would be an infinite key
BLOCK_ITEMS = 1 << 15  # items drawn at a time on NumPy: the block stays in cache and memory stays flat


def sample(
    log_weights: Any = None,
    k: Any = None,
    *,
    weights: Any = None,
    rng: Any = None,
    axis: int = -1,
    check: bool = True,
) -> Array:
    """Draw k items without replacement from each row, with probabilities by weight (Algorithm 1, eq. 1).

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights, not necessarily normalised; -inf is a weight of zero, which is never drawn.
    k : int
        Number of items, at most the number of positive weights of every row.
    weights : array_like, shape (..., n)
        The weights themselves, instead of `log_weights`. No logarithm is taken then.
    rng : None, int, SeedSequence, Generator or CounterRNG
        After SPEC 7.
    axis : int
        The axis of the items; all others are batch axes.
    check : bool
        Whether to look for bad weights (on a GPU this waits for the device).

    Returns
    -------
    integer array, shape (..., k)
        Indices along `axis` in order of selection, on the last axis; the batch axes keep their order.

    Raises
    ------
    ValueError, TypeError
        Bad weights, or k more than the items of positive weight of a row (the rows are listed).

    See Also
    --------
    k_hot : the indices as a vector of zeros and ones.
    relaxed_sample : the continuous relaxation, with gradients.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> gt.sample(weights=np.asarray([0.0, 1.0, 0.0, 5.0]), k=2, rng=0).tolist()
    [3, 1]
    >>> gt.sample(np.zeros((4096, 100)), 10, rng=0).shape
    (4096, 10)
    """
    given, in_logs = _validation.check_weights_or_log_weights(log_weights, weights)
    axis = _validation.check_axis(axis, given.ndim, "log_weights" if in_logs else "weights")
    if k is None:
        raise TypeError("k is missing: pass the number of items to draw, e.g. sample(weights=w, k=10)")
    k = _validation.check_k(k, given.shape[axis])
    xp = api.namespace_of(given)
    rows = api.move_items_last(given, axis, xp)
    if check:
        keys.check_values(given, in_logs, k, xp, axis)
    return draw(rows, in_logs, k, rng, xp)


def draw(rows: Array, in_logs: bool, k: int, rng: Any, xp: Namespace) -> Array:
    """`sample` of checked rows (..., n); the rows may be a broadcast view."""
    device = api.device_of(rows)
    if k == 0 or 0 in rows.shape:
        return xp.zeros((*rows.shape[:-1], k), dtype=api.index_dtype(xp, device), device=device)
    if not api.is_numpy_namespace(xp) or math.prod(rows.shape) <= BLOCK_ITEMS or isinstance(rng, _random.CounterRNG):
        exponentials = _random.standard_exponential(rng, tuple(rows.shape), xp, device)
        return select_first(rows, in_logs, k, exponentials, xp)
    return _draw_in_blocks(rows, in_logs, k, _random.numpy_generator(rng), xp)


def select_first(
    rows: Array, in_logs: bool, k: int, exponentials: Array, xp: Namespace, scratch: Array | None = None
) -> Array:
    """The k earliest arrivals of each row: by T itself where that is safe, else by log T."""
    if api.is_numpy_namespace(xp):  # elsewhere a look at the times would wait for the device
        with api.quiet():
            weights = np.exp(rows, out=scratch, dtype=np.float64) if in_logs else rows
            times = np.divide(exponentials, weights, out=scratch)
        indices = numpy_selection.first_safe_arrivals(times, k)
        if indices is not None:
            return indices
    if not in_logs:
        return _dispatch.core("first_arrivals", xp)(keys.log_times(rows, False, exponentials, xp), k, xp)
    logs = _relative_to_the_largest(xp.astype(rows, exponentials.dtype, copy=False), xp)
    return _first_by_log_times(xp.log(exponentials), logs, k, xp)


def _first_by_log_times(log_exponentials: Array, logs: Array, k: int, xp: Namespace) -> Array:
    """The k smallest log E - log w, ties of the rounded difference decided by what was rounded off.

    Beside a log-weight of -1e17, a mask say, the noise is lost in the difference; among several such items it must
    still decide.
    """
    with api.quiet():
        times = log_exponentials - logs
        virtual = times - log_exponentials  # TwoDiff: times + rounded_off = log E - log w exactly
        rounded_off = (log_exponentials - (times - virtual)) - (logs + virtual)
    rounded_off = xp.where(xp.isfinite(rounded_off), rounded_off, 0.0)
    order = xp.argsort(rounded_off, axis=-1, stable=True)
    first = xp.argsort(xp.take_along_axis(times, order, axis=-1), axis=-1, stable=True)[..., :k]
    return xp.take_along_axis(order, first, axis=-1)


def _relative_to_the_largest(logs: Array, xp: Namespace) -> Array:
    """Log-weights up to a constant of the row: beside a log-weight of 1e30, say, the noise would be rounded away."""
    largest = xp.max(logs, axis=-1, keepdims=True)
    with api.quiet():  # a gap beyond the largest float is -inf: such an item comes last
        return logs - xp.where(largest > -math.inf, largest, 0.0)


class _BlockSampler:
    """Samples one block of rows after the other, in memory that is taken once."""

    def __init__(self, items: int, in_logs: bool, rng: np.random.Generator, xp: Namespace) -> None:
        self.in_logs = in_logs
        self.rng = rng
        self.xp = xp
        self.exponentials = np.empty(items)
        self.times = np.empty(items)

    def __call__(self, rows: Any, k: int) -> tuple[Any, Any]:
        """Indices (rows, k), and the exponentials of all items, which the next call overwrites."""
        exponentials = self.exponentials[: rows.size].reshape(rows.shape)
        self.rng.standard_exponential(out=exponentials)
        np.maximum(exponentials, SMALLEST_EXPONENTIAL, out=exponentials)
        times = self.times[: rows.size].reshape(rows.shape)
        return select_first(rows, self.in_logs, k, exponentials, self.xp, scratch=times), exponentials


def _draw_in_blocks(rows: Any, in_logs: bool, k: int, rng: np.random.Generator, xp: Namespace) -> Any:
    # The draws are made in C order, so the result is that of one pass over the whole array.
    batch, n = rows.shape[:-1], rows.shape[-1]
    indices = np.empty((math.prod(batch), k), dtype=np.int64)
    flat_rows = _flat_row_getter(rows)
    items_in_part = max(BLOCK_ITEMS, 8 * k)
    rows_in_block = max(1, BLOCK_ITEMS // n)
    sample_block = _BlockSampler(min(rows_in_block * n, items_in_part), in_logs, rng, xp)
    for first in range(0, len(indices), rows_in_block):
        block = flat_rows(first, min(first + rows_in_block, len(indices)))
        if n <= items_in_part:
            indices[first : first + len(block)], _ = sample_block(block, k)
        else:
            indices[first] = _select_from_parts(block, k, items_in_part, sample_block)
    return indices.reshape(*batch, k)


def _select_from_parts(row: Any, k: int, items_in_part: int, sample_part: _BlockSampler) -> Any:
    """One long row (1, n): the k earliest of each part of it, then the k earliest of those."""
    items, rows, exponentials = [], [], []
    for first in range(0, row.shape[-1], items_in_part):
        part = row[:, first : first + items_in_part]
        chosen, drawn = sample_part(part, min(k, part.shape[-1]))
        items.append(first + chosen)
        rows.append(np.take_along_axis(part, chosen, axis=-1))
        exponentials.append(np.take_along_axis(drawn, chosen, axis=-1))
    finalists, finalist_exponentials = np.concatenate(rows, axis=-1), np.concatenate(exponentials, axis=-1)
    winners = select_first(finalists, sample_part.in_logs, k, finalist_exponentials, sample_part.xp)
    return np.take_along_axis(np.concatenate(items, axis=-1), winners, axis=-1)


def _flat_row_getter(rows: Any) -> Any:
    """A function (first, last) -> rows first .. last - 1 in C order, without copying a broadcast array whole."""
    batch = rows.shape[:-1]
    if len(batch) == 1:
        return lambda first, last: rows[first:last]
    if len(batch) == 0:
        return lambda first, last: rows[None]
    if rows.flags.c_contiguous:
        flat = rows.reshape(-1, rows.shape[-1])
        return lambda first, last: flat[first:last]
    return lambda first, last: rows[np.unravel_index(np.arange(first, last), batch)]


def k_hot(indices: Any, n: Any, *, dtype: Any = None) -> Array:
    """The indices of subsets as vectors with k ones.

    Parameters
    ----------
    indices : integer array_like, shape (..., k)
        Distinct items of each row.
    n : int
        Number of items.
    dtype : dtype, optional
        Of the result, in the array's own library. Default: its default floating dtype.

    Returns
    -------
    array, shape (..., n)

    Raises
    ------
    ValueError, TypeError
        An index outside 0 .. n - 1, or twice in a row.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.k_hot([[3, 1], [0, 2]], 4).tolist()
    [[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]]
    """
    n = _validation.as_integer(n, "n")
    if n < 0:
        raise ValueError(f"n = {n} is negative; pass the number of items")
    indices = _validation.check_indices(indices, n)
    _validation.check_distinct(indices)
    xp = api.namespace_of(indices)
    device = api.device_of(indices)
    selected = selection_mask(indices, n, xp)
    return xp.astype(selected, api.default_float(xp, device) if dtype is None else dtype)


def selection_mask(indices: Array, n: int, xp: Namespace) -> Array:
    """(..., n) truth values: is the item among the indices of its row?"""
    device = api.device_of(indices)
    rows = api.flatten_batch(indices, xp)
    nothing = xp.zeros((rows.shape[0], n), dtype=xp.bool, device=device)
    everything = xp.ones(rows.shape, dtype=xp.bool, device=device)
    mask = _dispatch.core("put_along_rows", xp)(nothing, rows, everything, xp)
    return xp.reshape(mask, (*indices.shape[:-1], n))
