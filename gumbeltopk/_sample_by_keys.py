"""Sampling by keys: the k earliest arrivals of each row, for every array library; on NumPy in memory that stays flat.

Rows have their items last and are checked. `needed`, where it is given, is the number of picks of each row that
matter: a row with fewer items of positive weight has no more, and what stands behind them is left to the caller.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _random, keys
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._numpy import selection as numpy_selection

SHORT_ROW = 1 << 11  # of more items, one partition of bit patterns is faster than one of positions
BLOCK_ITEMS = 1 << 15  # items drawn at a time on NumPy: the block stays in cache and memory stays flat


def draw(rows: Array, in_logs: bool, k: int, rng: Any, xp: Namespace, needed: Array | None = None) -> Array:
    """`sample` of checked rows (..., n); the rows may be a broadcast view."""
    if k > 0 and needed is None and _is_short_row(rows) and isinstance(rng, np.random.Generator):
        return _draw_short_row(rows, in_logs, k, rng, xp)
    device = api.device_of(rows)
    if k == 0 or 0 in rows.shape:
        _random.standard_exponential(rng, (0,), xp, device)  # looks at `rng`, and draws nothing
        return xp.zeros((*rows.shape[:-1], k), dtype=api.index_dtype(xp, device), device=device)
    if not api.is_numpy_namespace(xp) or math.prod(rows.shape) <= BLOCK_ITEMS or isinstance(rng, _random.CounterRNG):
        exponentials = _random.standard_exponential(rng, tuple(rows.shape), xp, device)
        return select_first(rows, in_logs, k, exponentials, xp, needed=needed)
    return _draw_in_blocks(rows, in_logs, k, _random.numpy_generator(rng), xp, needed)


def _is_short_row(rows: Array) -> bool:
    return type(rows) is np.ndarray and rows.ndim == 1 and len(rows) <= SHORT_ROW


def _draw_short_row(row: Any, in_logs: bool, k: int, rng: np.random.Generator, xp: Namespace) -> Any:
    """The same draws and the same picks, with as few calls of NumPy as it takes: they are what a short row costs."""
    exponentials = rng.standard_exponential(len(row))
    with api.quiet():
        times = exponentials / (np.exp(row, dtype=np.float64) if in_logs else row)
    indices = numpy_selection.first_distinct_arrivals(times, k)
    if indices is None:  # among other reasons, for an exponential of 0
        np.maximum(exponentials, _random.SMALLEST_EXPONENTIAL, out=exponentials)
        return select_first(row, in_logs, k, exponentials, xp)
    return indices


def select_first(
    rows: Array,
    in_logs: bool,
    k: int,
    exponentials: Array,
    xp: Namespace,
    scratch: Array | None = None,
    needed: Array | None = None,
) -> Array:
    """The k earliest arrivals of each row: by T itself where that is safe, else by log T."""
    if api.is_numpy_namespace(xp):  # elsewhere a look at the times would wait for the device
        with api.quiet():
            weights = np.exp(rows, out=scratch, dtype=np.float64) if in_logs else rows
            times = np.divide(exponentials, weights, out=scratch)
        indices = _first_safe_arrivals(times, k, needed)
        if indices is not None:
            return indices
    if not in_logs:
        return _dispatch.core("first_arrivals", xp)(keys.log_times(rows, False, exponentials, xp), k, xp)
    return _first_by_log_times(xp.log(exponentials), xp.astype(rows, exponentials.dtype, copy=False), k, xp)


def _first_safe_arrivals(times: Any, k: int, needed: Any) -> Any:
    n = times.shape[-1]
    if times.size > n or n * k * k <= numpy_selection.LARGEST_N_K_SQUARED or needed is not None:
        return numpy_selection.first_safe_arrivals(times, k, needed)
    indices = numpy_selection.first_arrivals_of_long_row(times.reshape(1, n), k)
    return None if indices is None else indices.reshape(*times.shape[:-1], k)


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


class _BlockSampler:
    """Samples one block of rows after the other, in memory that is taken once."""

    def __init__(self, items: int, in_logs: bool, rng: np.random.Generator, xp: Namespace) -> None:
        self.in_logs = in_logs
        self.rng = rng
        self.xp = xp
        self.exponentials = np.empty(items)
        self.times = np.empty(items)

    def __call__(self, rows: Any, k: int, needed: Any = None) -> tuple[Any, Any]:
        """Indices (rows, k), and the exponentials of all items, which the next call overwrites."""
        exponentials = self.exponentials[: rows.size].reshape(rows.shape)
        self.rng.standard_exponential(out=exponentials)
        np.maximum(exponentials, _random.SMALLEST_EXPONENTIAL, out=exponentials)
        times = self.times[: rows.size].reshape(rows.shape)
        return select_first(rows, self.in_logs, k, exponentials, self.xp, times, needed), exponentials


def _draw_in_blocks(rows: Any, in_logs: bool, k: int, rng: np.random.Generator, xp: Namespace, needed: Any) -> Any:
    # The draws are made in C order, so the result is that of one pass over the whole array.
    batch, n = rows.shape[:-1], rows.shape[-1]
    indices = np.empty((math.prod(batch), k), dtype=np.int64)
    flat_rows = _flat_row_getter(rows)
    flat_needed = None if needed is None else needed.reshape(-1)
    items_in_part = max(BLOCK_ITEMS, 8 * k)
    rows_in_block = max(1, BLOCK_ITEMS // n)
    sample_block = _BlockSampler(min(rows_in_block * n, items_in_part), in_logs, rng, xp)
    for first in range(0, len(indices), rows_in_block):
        block = flat_rows(first, min(first + rows_in_block, len(indices)))
        block_needed = None if flat_needed is None else flat_needed[first : first + len(block)]
        if n <= items_in_part:
            indices[first : first + len(block)], _ = sample_block(block, k, block_needed)
        else:
            indices[first] = _select_from_parts(block, k, items_in_part, sample_block, block_needed)
    return indices.reshape(*batch, k)


def _select_from_parts(row: Any, k: int, items_in_part: int, sample_part: _BlockSampler, needed: Any) -> Any:
    """One long row (1, n): the k earliest of each part of it, then the k earliest of those."""
    items, rows, exponentials = [], [], []
    for first in range(0, row.shape[-1], items_in_part):
        part = row[:, first : first + items_in_part]
        part_k = min(k, part.shape[-1])
        part_needed = None if needed is None else np.minimum(count_positive(part, sample_part.in_logs, np), part_k)
        chosen, drawn = sample_part(part, part_k, part_needed)
        items.append(first + chosen)
        rows.append(np.take_along_axis(part, chosen, axis=-1))
        exponentials.append(np.take_along_axis(drawn, chosen, axis=-1))
    finalists, finalist_exponentials = np.concatenate(rows, axis=-1), np.concatenate(exponentials, axis=-1)
    winners = select_first(finalists, sample_part.in_logs, k, finalist_exponentials, sample_part.xp, needed=needed)
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


def go_on(row: Any, in_logs: bool, chosen: Any, k: int, rng: np.random.Generator) -> Any:
    """`chosen`, the first picks of a row (n,), and others up to k, or fewer where there are no more."""
    left = row.copy()
    left[chosen] = -math.inf if in_logs else 0.0
    more = min(k - len(chosen), int(count_positive(left, in_logs, np)))
    return np.concatenate([chosen, draw(left, in_logs, more, rng, api.namespace_of(left))])


def count_positive(rows: Array, in_logs: bool, xp: Namespace) -> Array:
    """Number of items of positive weight in each row."""
    return xp.count_nonzero(rows > (-math.inf if in_logs else 0.0), axis=-1)
