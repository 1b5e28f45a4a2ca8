"""Chunks of a stream: the kept items before it, the chunk, and the kept items after it.

A chunk is taken in pieces that stay in cache. Only items that arrive before the threshold, the k-th earliest arrival so
far, matter; three ways to find them: Poisson clocks, an exponential for each item (as long as there is no threshold, or
where weights are too extreme for sums), and counter-based keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _random
from gumbeltopk._array_api import Array
from gumbeltopk._numpy import clocks
from gumbeltopk._streams import kept as _kept
from gumbeltopk._streams import validation as _stream_validation
from gumbeltopk._streams.kept import Kept
from gumbeltopk._streams.running_weight import exact_sum

PIECE_ITEMS = 1 << 16
COUNTER_MARGIN = 1.0 + 2.0**-20  # far above the rounding errors of w T

Arrivals = tuple[Array, Array]  # positions and log arrival times


def take_weighted(kept: Kept, weights: Array, items: Any, start: int, k: int, rng: Any) -> tuple[Kept, int]:
    """Kept items after a chunk of weights (n,), and the sum of the weights in exact units."""
    units = 0
    for first, blocks in _pieces(weights):
        sums, total = _checked_sums(blocks, first, start + first)
        piece = blocks.ravel()
        positions, log_times = _arrivals(kept, blocks, sums, total, start + first, k, rng)
        kept = _with_arrivals(kept, positions, log_times, piece[positions], first, start, items, k)
        units += exact_sum(piece, total)
    return kept, units


def take_equal(kept: Kept, count: int, items: Any, start: int, k: int, rng: Any) -> Kept:
    """Kept items after a chunk of `count` items of weight 1."""
    first = 0
    while first < count:
        threshold = log_threshold(kept, k)
        length = _length_of_equal_piece(count - first, threshold, k)
        mean = clocks.expected_events(float(length), threshold)
        if isinstance(rng, _random.CounterRNG) or mean * clocks.ITEMS_PER_EVENT > length:
            length = min(length, PIECE_ITEMS)
            positions, log_times = _arrivals_by_keys(np.ones(length), threshold, start + first, k, rng)
        else:
            positions, log_times = clocks.arrivals_of_equal_items(length, threshold, mean, rng)
        kept = _with_arrivals(kept, positions, log_times, np.ones(len(positions)), first, start, items, k)
        first += length
    return kept


def log_threshold(kept: Kept, k: int) -> float:
    """log T of the k-th earliest item, +inf as long as there are fewer."""
    return float(kept.log_times[-1]) if kept.size == k else math.inf


def _with_arrivals(
    kept: Kept, positions: Array, log_times: Array, weights: Array, first: int, start: int, items: Any, k: int
) -> Kept:
    """Merge the arrivals of the piece that begins at item `first` of its chunk."""
    if len(positions) == 0:
        return kept
    in_chunk = positions + first
    return _kept.first_arrivals(kept, Kept(log_times, weights, start + in_chunk, _kept.pick(items, in_chunk)), k)


# --- pieces -----------------------------------------------------------------------------------------


def _pieces(weights: Array) -> Iterator[tuple[int, Array]]:
    """(first, blocks) of pieces in order: whole blocks (m, BLOCK_ITEMS), and what is left at the end as one block."""
    for first in range(0, len(weights), PIECE_ITEMS):
        piece = np.ascontiguousarray(weights[first : first + PIECE_ITEMS], dtype=np.float64)
        whole = len(piece) // clocks.BLOCK_ITEMS * clocks.BLOCK_ITEMS
        if whole:
            yield first, piece[:whole].reshape(-1, clocks.BLOCK_ITEMS)
        if whole < len(piece):
            yield first + whole, piece[None, whole:]


def _length_of_equal_piece(left: int, threshold: float, k: int) -> int:
    """So many items of weight 1 that about 4 k arrive, and not less than PIECE_ITEMS."""
    log_length = math.log(4 * k + 64) - threshold
    length = left if log_length > clocks.LARGEST_LOG else int(math.exp(log_length))
    return min(left, max(length, PIECE_ITEMS))


def _checked_sums(blocks: Array, index: int, number: int) -> tuple[Array, float]:
    """Sums of the blocks and of all of them, inf where finite weights overflow; bad weights raise."""
    with api.quiet():
        sums = clocks.block_sums(blocks)
        total = float(sums.sum())
    if not (total < math.inf and blocks.min() >= 0):  # a NaN or an inf shows in the sum
        _stream_validation.check_chunk_weights(blocks.ravel(), index, number)
    return sums, total


# --- arrivals ---------------------------------------------------------------------------------------


def _arrivals(kept: Kept, blocks: Array, sums: Array, total: float, number: int, k: int, rng: Any) -> Arrivals:
    """All items of a piece that may be among the k earliest; `number` is that of the first."""
    threshold = log_threshold(kept, k)
    if not isinstance(rng, _random.CounterRNG):
        mean = clocks.expected_events(total, threshold)
        if mean * clocks.ITEMS_PER_EVENT <= blocks.size:
            return clocks.arrivals_by_events(blocks, sums, threshold, mean, rng)
    return _arrivals_by_keys(blocks.ravel(), threshold, number, k, rng)


def _arrivals_by_keys(weights: Array, threshold: float, number: int, k: int, rng: Any) -> Arrivals:
    if isinstance(rng, _random.CounterRNG):
        return _counter_arrivals(weights, rng.words(number, len(weights)), threshold, k)
    exponentials = _random.standard_exponential(rng, weights.shape, np, "cpu")
    with api.quiet():
        return clocks.arrivals_by_keys(weights, exponentials, k, threshold)


def _counter_arrivals(weights: Array, words: Array, threshold: float, k: int) -> Arrivals:
    """E = -log(1 - u) >= u, so that only items with u <= w T need their exponential."""
    uniforms = _random.uniform_of_words(words)
    candidates = np.arange(len(weights))
    with api.quiet():
        if clocks.can_jump(threshold):
            candidates = np.flatnonzero(uniforms <= weights * (math.exp(threshold) * COUNTER_MARGIN))
        exponentials = _random.exponential_of_uniform(uniforms[candidates])
        positions, log_times = clocks.arrivals_by_keys(weights[candidates], exponentials, k, threshold)
    return candidates[positions], log_times


def late_arrival(kept: Kept, item: Any, weight: float, number: int, k: int, rng: Any) -> Kept:
    """One item where jumps are not safe: by its own key."""
    one = np.asarray([weight])
    positions, log_times = _arrivals_by_keys(one, log_threshold(kept, k), number, k, rng)
    return _with_arrivals(kept, positions, log_times, one[positions], 0, number, [item], k)
