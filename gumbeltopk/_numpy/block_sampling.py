"""Sequential sampling from one long row by blocks: one pass over the weights, then work for the picks alone.

The row is cut into blocks, and each block b gets a bound B_b, at least the sum of its weights. A *draw* takes block b
with probability B_b / sum B and a position in it, uniform on [0, B_b). The position lies in item i of the block with
probability w_i / B_b, so the draw gives item i with probability w_i / sum B; behind the last item of the block, or in
an item chosen before, it gives nothing, and the next draw follows. Given that a draw gives something new, it is item i
with probability w_i / (the weight not yet chosen), which is eq. 1, *whatever the bounds are*. Nothing is ever started
again: that would be another distribution.

So bounds may be rough, and may stay as they are while items are chosen; they only must not depend on more than the
weights. They are GRID times powers of two: the same for float32 and float64 sums, in any order of summation. The few
sums that lie too near to a bound to tell are added again, in float64 and in one fixed order.

The map from uniforms to items changes (chosen items are taken out) only at the end of a batch of draws, and the sizes
of the batches follow from the draws alone, not from k. So a smaller sample is the beginning of a larger one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._numpy import settings

Values = npt.NDArray[np.floating[Any]]
Weights = npt.NDArray[np.float64]
Integers = Any  # an array of int32 or int64

BLOCK_ITEMS = 1024  # a square number
BLOCKS_IN_TILE = 128  # of 1024 items: half a megabyte of float32, which a second look finds in cache
GRID = 0.685  # between 1/2 and 1, and a number that sums are not likely to be near to
ROUNDING = 2.0**-40  # more than sums in float64 are off
EMPTY = -(1 << 20)  # exponent of the bound of a block without weight
FIRST_BATCH = 32
DRAWS_AT_A_TIME = 256  # 2 MB of weights
SMALLEST_LIMIT = 64
MOST_REFRESHES = 16
LOWEST_EXPONENT_OF_LOGS = -900  # exp(log-weight - largest) is exact down to here and beyond


class Row(NamedTuple):
    """Weights (n,), or log-weights and the largest of them. Blocks of it are weights in float64."""

    values: Values
    block_items: int
    largest_log: float | None = None

    @property
    def blocks(self) -> int:
        """Number of blocks; the last one may be short."""
        return -(-len(self.values) // self.block_items)

    def whole_blocks(self) -> Values:
        """View (blocks, block_items) of all blocks that are not short."""
        count = len(self.values) // self.block_items
        return self.values[: count * self.block_items].reshape(count, self.block_items)

    def short_block(self) -> Values:
        """The items after the whole blocks."""
        return self.values[len(self.values) // self.block_items * self.block_items :]

    def weights(self, values: Values) -> Values:
        """Weights of some values: native and contiguous, of float32 or float64."""
        if self.largest_log is not None:
            with settings.quick_and_quiet():  # a difference may be -inf, and a weight beside the largest one 0
                differences = np.asarray(values, dtype=np.float64) - self.largest_log
                return np.exp(differences, out=differences)
        return np.ascontiguousarray(values, dtype=np.promote_types(values.dtype, np.float32))

    def gather(self, numbers: Integers, removed: Integers) -> Weights:
        """Weights (len(numbers), block_items) of blocks in ascending order, without the removed items (sorted)."""
        whole = self.whole_blocks()
        inside = int(np.searchsorted(numbers, len(whole)))
        weights = np.empty((len(numbers), self.block_items))
        weights[:inside] = self.weights(whole[numbers[:inside]])
        if inside < len(numbers):
            short = self.short_block()
            weights[inside, : len(short)] = self.weights(short)
            weights[inside, len(short) :] = 0.0
        if not len(removed):  # as for the first picks, which are all that a small sample needs
            return weights
        first = np.searchsorted(removed, numbers * self.block_items)
        last = np.searchsorted(removed, (numbers + 1) * self.block_items)
        rows = np.repeat(np.arange(len(numbers)), last - first)
        taken = removed[np.repeat(last - np.cumsum(last - first), last - first) + np.arange(len(rows))]
        weights[rows, taken % self.block_items] = 0.0
        return weights


# --- the pass over the weights --------------------------------------------------------------------


class BlockSums(NamedTuple):
    """Rough sums (blocks,), their dtype, and the smallest weight of all. NaN and infinity show in the sums."""

    sums: Weights
    dtype: Any
    smallest: float


def block_sums(row: Row) -> BlockSums:
    """Sums of all blocks, tile by tile, so that the weights come from memory once."""
    whole, short = row.whole_blocks(), row.weights(row.short_block())
    ones = np.ones(row.block_items, dtype=short.dtype)
    sums = np.zeros(row.blocks, dtype=short.dtype)
    smallest = []
    as_they_are = row.largest_log is None and whole.flags.c_contiguous and whole.dtype == short.dtype
    tile_blocks = max(1, BLOCKS_IN_TILE * BLOCK_ITEMS // row.block_items)
    with settings.quick_and_quiet():
        for first in range(0, len(whole), tile_blocks):
            tile = whole[first : first + tile_blocks]
            tile = tile if as_they_are else row.weights(tile)
            np.vecdot(tile, ones, out=sums[first : first + len(tile)])
            smallest.append(np.minimum.reduce(tile, axis=None))
        if len(short):
            sums[-1] = np.add.reduce(short)
            smallest.append(short.min())
    return BlockSums(sums.astype(np.float64), short.dtype, float(np.min(smallest)))


def bound_exponents(row: Row, rough: BlockSums) -> Integers:
    """For each block the smallest e such that its sum is below GRID 2^e."""
    mantissas, exponents = np.frexp(rough.sums)
    # Sums of n positive terms in any order differ by less than n roundings.
    tolerance = 2 * row.block_items * float(np.finfo(rough.dtype).eps)
    uncertain = ~(np.abs(mantissas - GRID) > tolerance)
    uncertain |= ~np.isfinite(rough.sums)
    bounds = np.where(rough.sums > 0, exponents + (mantissas > GRID), EMPTY)
    nothing = np.zeros(0, dtype=np.int64)
    numbers = np.flatnonzero(uncertain)
    for first in range(0, len(numbers), BLOCKS_IN_TILE):
        part = numbers[first : first + BLOCKS_IN_TILE]
        bounds[part] = exact_bound_exponents(row.gather(part, nothing))
    return bounds


def exact_bound_exponents(weights: Weights) -> Integers:
    """The same from the weights of the blocks themselves, in an order that depends on nothing."""
    with settings.quick_and_quiet():
        sums = np.add.reduce(weights, axis=-1)
        overflown = np.isinf(sums)
        if overflown.any():
            sums[overflown] = np.add.reduce(weights[overflown] * 2.0**-64, axis=-1)
    mantissas, exponents = np.frexp(sums)
    exponents += 64 * overflown
    return np.where(sums > 0, exponents + (mantissas > GRID * (1 - ROUNDING)), EMPTY)


# --- draws ----------------------------------------------------------------------------------------


def draw_items(row: Row, exponents: Integers, cumulative: Weights, removed: Integers, uniforms: Weights) -> Integers:
    """The items of those draws (m, 2) that give one; `removed` items give none.

    In each search a position is below the next end and not below the last one. So an interval of length 0, an item
    of weight zero, is never hit, whatever is rounded.
    """
    drawn = np.searchsorted(cumulative, uniforms[:, 0] * cumulative[-1], side="right")
    blocks, places = np.unique(drawn, return_inverse=True)
    weights, block_exponents = row.gather(blocks, removed), exponents[blocks]
    if block_exponents.min() < -900 or block_exponents.max() > 1000:
        with settings.quick_and_quiet():
            np.ldexp(weights, -block_exponents[:, np.newaxis], out=weights)
        block_exponents = np.zeros_like(block_exponents)
    positions = uniforms[:, 1] * np.ldexp(GRID, block_exponents)[places]
    inside = find_items(weights, places, positions)
    hit = inside < row.block_items
    return drawn[hit] * row.block_items + inside[hit]


def find_items(weights: Weights, rows: Integers, positions: Weights) -> Integers:
    """The item of its row in which each position lies, or the width of the row where it lies behind all.

    Each row is cut into parts, so that only one part for each position must be summed up item by item. A position
    that rounding puts behind the last item of its part lies in none.
    """
    width = weights.shape[-1]
    items_in_part = math.isqrt(width)
    parts = weights.reshape(len(weights), -1, items_in_part)
    part_ends = np.cumsum(np.add.reduce(parts, axis=-1), axis=-1)[rows]
    part = np.count_nonzero(part_ends <= positions[:, np.newaxis], axis=-1)
    behind = part == parts.shape[1]
    part[behind] = 0
    draws = np.arange(len(rows))
    before = np.where(part > 0, part_ends[draws, part - 1], 0.0)
    ends = before[:, np.newaxis] + np.cumsum(parts[rows, part], axis=-1)
    place = np.count_nonzero(ends <= positions[:, np.newaxis], axis=-1)
    return np.where(behind | (place == items_in_part), width, part * items_in_part + place)


def first_occurrences(items: Integers, seen: Integers) -> Integers:
    """Those items that are not among `seen` (sorted), each once, in the order of their first occurrences."""
    distinct, first = np.unique(items, return_index=True)
    before = np.searchsorted(seen, distinct, side="left")
    new = before == np.searchsorted(seen, distinct, side="right")
    return items[np.sort(first[new])]


def merge(seen: Integers, items: Integers) -> Integers:
    """Both, sorted: the stable sort merges what is sorted already."""
    return np.sort(np.concatenate([seen, np.sort(items)]), kind="stable")


def first_picks(row: Row, rough: BlockSums, k: int, rng: np.random.Generator, limit: int | None = None) -> Integers:
    """The first picks of a sequential sample, in order: k of them, or fewer where another method must go on.

    This one ends after about `limit` picks, after too many refreshes, or when nothing is left that it could draw. What
    it leaves is to be sampled in the same way from the other items: the picks of eq. 1 have no memory but the set of
    those that are gone. `rng` is then in a state that does not depend on k.
    """
    limit = max(row.blocks, SMALLEST_LIMIT) if limit is None else limit
    exponents = bound_exponents(row, rough)
    chosen = seen = removed = np.zeros(0, dtype=np.int64)
    batch, refreshes = FIRST_BATCH, 0
    while len(chosen) < limit and refreshes <= MOST_REFRESHES:
        highest = int(exponents.max())
        if highest == EMPTY or (row.largest_log is not None and highest < LOWEST_EXPONENT_OF_LOGS):
            break
        with settings.quick_and_quiet():
            cumulative = np.cumsum(np.ldexp(1.0, exponents - highest))
        uniforms = rng.random((batch, 2))
        before, looked_at = len(chosen), 0
        while looked_at < batch and len(chosen) < k:
            part = min(3 * (k - len(chosen)) // 2 + 8, DRAWS_AT_A_TIME)
            items = draw_items(row, exponents, cumulative, removed, uniforms[looked_at : looked_at + part])
            new = first_occurrences(items, seen)
            chosen, seen = np.concatenate([chosen, new]), merge(seen, new)
            looked_at += part
        if len(chosen) >= k:
            break
        if 4 * (len(chosen) - before) < batch:
            touched = np.unique(chosen[len(removed) :] // row.block_items)
            removed = seen
            exponents[touched] = exact_bound_exponents(row.gather(touched, removed))
            batch, refreshes = FIRST_BATCH, refreshes + 1
        else:
            batch *= 2
    return chosen[:k]
