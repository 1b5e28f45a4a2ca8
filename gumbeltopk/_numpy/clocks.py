"""Poisson clocks: the items of a chunk that arrive before a threshold, in one pass over the weights.

Item i arrives for the first time at T_i ~ Exp(w_i): the first event of a Poisson process of rate w_i. All items of a
chunk together are one process of rate W = sum w, each event of which belongs to item i with probability w_i / W. So
the events before the threshold T are N ~ Poisson(W T) in number, at N uniform times, and only they are looked up.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]

BLOCK_ITEMS = 256  # items of a block: an event costs one cumulative sum over its block
EVENTS_AT_A_TIME = 1024  # events located together: memory stays flat
ITEMS_PER_EVENT = 8  # with more events than this, an exponential for every item is cheaper
SMALLEST_SUM = 2.0**-900  # far from the subnormal numbers, among which products with uniforms lose their digits
LARGEST_LOG = 600.0  # exp of it, of its negative and of sums of such numbers neither overflow nor vanish
NEGLIGIBLE_HAZARD = 2.0**-60
ONES = np.ones(BLOCK_ITEMS)


def block_sums(blocks: Floats) -> Floats:
    """Sums of the blocks (m, length), length <= BLOCK_ITEMS."""
    sums: Floats = np.vecdot(blocks, ONES[: blocks.shape[-1]])
    return sums


def expected_events(total: float, log_threshold: float) -> float:
    """W T, or +inf where only an exponential for every item is safe."""
    if total == 0:
        return 0.0
    if not SMALLEST_SUM < total < math.inf:
        return math.inf
    log_mean = math.log(total) + log_threshold
    return math.exp(log_mean) if log_mean < LARGEST_LOG else math.inf


def arrivals_by_events(
    blocks: Floats, sums: Floats, log_threshold: float, mean: float, rng: np.random.Generator
) -> tuple[Positions, Floats]:
    """Positions in the chunk, and log arrival times, of the items that arrive before the threshold."""
    events = int(rng.poisson(mean))
    if events == 0:
        return np.empty(0, dtype=np.int64), np.empty(0)
    located = [
        _locate(blocks, sums, min(EVENTS_AT_A_TIME, events - first), rng)
        for first in range(0, events, EVENTS_AT_A_TIME)
    ]
    return first_of_each(np.concatenate(located), log_threshold + log_uniform(events, rng))


def arrivals_of_equal_items(
    count: int, log_threshold: float, mean: float, rng: np.random.Generator
) -> tuple[Positions, Floats]:
    """The same for `count` items of weight 1, without looking at them."""
    events = int(rng.poisson(mean))
    return first_of_each(rng.integers(count, size=events), log_threshold + log_uniform(events, rng))


def log_uniform(size: int, rng: np.random.Generator) -> Floats:
    """log U of uniforms in (0, 1]."""
    return np.log1p(-rng.random(size))


def first_of_each(positions: Positions, log_times: Floats) -> tuple[Positions, Floats]:
    """An item is taken at its first event; its later ones do not count."""
    if len(positions) < 2:
        return positions, log_times
    order = np.lexsort((log_times, positions))
    positions, log_times = positions[order], log_times[order]
    is_first = np.concatenate(([True], positions[1:] != positions[:-1]))
    return positions[is_first], log_times[is_first]


def _locate(blocks: Floats, sums: Floats, events: int, rng: np.random.Generator) -> Positions:
    """Positions drawn with probabilities by weight: the block first, then the item within it."""
    ends = np.cumsum(sums)
    block = np.searchsorted(ends, _uniform_below(ends[-1:], (events,), rng), side="right")
    within = np.cumsum(blocks[block], axis=1)
    # Strictly below the sum and never on the near side of an item without weight: such an item cannot be hit.
    item = np.count_nonzero(within <= _uniform_below(within[:, -1:], (events, 1), rng), axis=1)
    positions: Positions = block * blocks.shape[1] + item
    return positions


def _uniform_below(end: Floats, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Uniform in [0, end), where the product could round up to `end`."""
    return np.minimum(rng.random(shape) * end, np.nextafter(end, 0.0))


def arrivals_by_keys(
    weights: Floats, exponentials: Floats, k: int, log_threshold: float = math.inf
) -> tuple[Positions, Floats]:
    """The k earliest items, by log T = log E - log w, of those that do not arrive after the threshold; with ties."""
    log_times = np.log(exponentials) - np.log(weights)
    if k < len(log_times):
        log_threshold = min(log_threshold, float(np.partition(log_times, k - 1)[k - 1]))
    positions = np.flatnonzero((log_times <= log_threshold) & (weights > 0))
    return positions, log_times[positions]


# --- one item at a time -----------------------------------------------------------------------------


def can_jump(log_threshold: float) -> bool:
    """Whether 1 / T and w T are safe, so that items may be skipped by their weight."""
    return -LARGEST_LOG < log_threshold < LARGEST_LOG


def draw_jump(log_threshold: float, rng: np.random.Generator) -> float:
    """The weight that passes until the next arrival before the threshold T: X = Exp(1) / T (A-ExpJ).

    Items of weights w_1, w_2, ... all arrive later than T with probability exp(-(w_1 + w_2 + ...) T).
    """
    return float(rng.standard_exponential()) * math.exp(-log_threshold)


def log_arrival_after_jump(weight: float, log_threshold: float, rng: np.random.Generator) -> float:
    """log T' of an item that is known to arrive before T: T' = -log(1 - U (1 - exp(-w T))) / w.

    expm1 and log1p keep the digits that exp(-w T) loses next to 1. For a tiny hazard w T, the time is U T.
    """
    uniform = max(rng.random(), 2.0**-54)
    hazard = weight * math.exp(log_threshold)
    if hazard < NEGLIGIBLE_HAZARD:
        return log_threshold + math.log(uniform)
    return math.log(-math.log1p(uniform * math.expm1(-hazard))) - math.log(weight)
