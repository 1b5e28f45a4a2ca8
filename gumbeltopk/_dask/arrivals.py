"""The k earliest arrivals of a block, and of the arrivals of several blocks (Algorithm 1 with counter-based keys).

The order is that of log T = log E - log w, then of the item's number. log T is kept as the unevaluated sum of a float64
and of what was rounded off it: beside a log-weight of 1e17 the noise is lost in the first and is still in the second.
Both depend on the seed, the item's number and its weight alone, and the order is total. So the k earliest do not depend
on how the items were cut into blocks, nor on the order in which blocks are put together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _random, keys
from gumbeltopk._array_api import Array
from gumbeltopk._dask import checks
from gumbeltopk._random import CounterRNG

ARRIVAL = np.dtype([("log_time", np.float64), ("rounded_off", np.float64), ("number", np.int64)])
PIECE_ITEMS = 1 << 16  # items looked at together: memory stays flat
MARGIN = 1.0 + 2.0**-20  # above the rounding errors of w T, as long as log T is below the next number
LARGEST_LOG_TIME = 2.0**29


def of_block(
    block: Any, *, argument: str, in_logs: bool, k: int, n: int, rng: CounterRNG, block_info: Any = None
) -> Array:
    """The min(k, columns) earliest arrivals of each row of a block, in order; weights of zero arrive at infinity.

    The block is (rows, columns), or (columns,), at some place of an array (.., n), which Dask tells in `block_info`.
    """
    origin = tuple(first for first, _ in block_info[0]["array-location"])
    block = checks.check_block(block, argument, in_logs, origin)
    batch, columns = block.shape[:-1], block.shape[-1]
    values = np.atleast_2d(block)
    first_row = origin[0] if batch else 0
    starts = np.arange(first_row, first_row + len(values)) * n + origin[-1]
    found = np.empty((len(values), min(k, columns)), dtype=ARRIVAL)
    rows_at_a_time = max(1, PIECE_ITEMS // max(1, columns))
    for first in range(0, len(values), rows_at_a_time):
        part = slice(first, first + rows_at_a_time)
        found[part] = _of_rows(values[part], in_logs, k, starts[part], rng)
    return found.reshape(*batch, found.shape[1])


def earliest(arrivals: Array, k: int) -> Array:
    """The k earliest of each row, in order."""
    order = np.lexsort((arrivals["number"], arrivals["rounded_off"], arrivals["log_time"]), axis=-1)
    return np.take_along_axis(arrivals, order[..., :k], axis=-1)


def places(first: Array, *, argument: str, k: int, n: int) -> Array:
    """Places in their rows of the k earliest arrivals (.., k), all of which must be of positive weight."""
    checks.check_enough(first, argument, k, n)
    return first["number"] % max(n, 1)


def _of_rows(values: Array, in_logs: bool, k: int, starts: Array, rng: CounterRNG) -> Array:
    """Of rows of at most PIECE_ITEMS items, or of one longer row, piece by piece."""
    columns = values.shape[1]
    best = np.empty((len(values), 0), dtype=ARRIVAL)
    for first in range(0, columns, PIECE_ITEMS):
        piece = values[:, first : first + PIECE_ITEMS].astype(np.float64, copy=False)
        numbers = starts[:, None] + np.arange(first, first + piece.shape[1])
        uniforms = _random.uniform_of_words(_words(numbers, rng))
        if len(piece) == 1:
            threshold = best["log_time"][0, -1] if best.shape[1] == k > 0 else np.inf
            early = _early(piece[0], uniforms[0], in_logs, k, threshold)
            piece, uniforms, numbers = piece[:, early], uniforms[:, early], numbers[:, early]
        best = earliest(np.concatenate([best, _arrivals(piece, uniforms, numbers, in_logs)], axis=1), k)
    return best


def _words(numbers: Array, rng: CounterRNG) -> Array:
    """Random words of items whose numbers are consecutive in each row, and maybe from row to row."""
    first, last = int(numbers[0, 0]), int(numbers[-1, -1])
    if last - first + 1 == numbers.size:
        return rng.words(first, numbers.size).reshape(numbers.shape)
    return np.stack([rng.words(int(start), numbers.shape[1]) for start in numbers[:, 0]])


def _arrivals(values: Array, uniforms: Array, numbers: Array, in_logs: bool) -> Array:
    """log T = log E - log w of all items, as a sum of two."""
    arrivals = np.empty(values.shape, dtype=ARRIVAL)
    logs = values if in_logs else keys.log_of_weights(values, np)
    with api.quiet():
        log_exponentials = np.log(_random.exponential_of_uniform(uniforms))
        times = log_exponentials - logs
        virtual = times - log_exponentials  # TwoDiff: times + rounded_off = log E - log w exactly
        rounded_off = (log_exponentials - (times - virtual)) - (logs + virtual)
    arrivals["log_time"] = times
    arrivals["rounded_off"] = np.where(np.isfinite(rounded_off), rounded_off, 0.0)
    arrivals["number"] = numbers
    return arrivals


def _early(values: Array, uniforms: Array, in_logs: bool, k: int, threshold: float) -> Array:
    """Places of all items that may be among the k earliest, the k-th so far being at log T = `threshold`.

    E = -log(1 - u) >= u, so that those with u > w T need no logarithm.
    """
    with api.quiet():
        if abs(threshold) < LARGEST_LOG_TIME and (in_logs or abs(threshold) < 600.0):
            limit = np.exp(values + threshold) if in_logs else values * np.exp(threshold)
            return np.flatnonzero(uniforms <= limit * MARGIN)
    return np.arange(len(values))
