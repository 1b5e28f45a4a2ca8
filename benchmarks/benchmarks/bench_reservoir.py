"""Reservoirs: items a second of a stream of chunks, beside the plain sum of the same chunks, and of an iterator."""

import statistics

import numpy as np

import gumbeltopk as gt

from .common import generator, interleaved_seconds, three_digits

CHUNK_ITEMS = 65_536
CHUNKS = 1_526  # 1e8 items
DISTINCT_CHUNKS = 64  # 32 MB, so that the weights come from memory or the last cache, not from the first ones
PAIRS = 10_000_000
SIZES = [10, 1000]
LENGTHS = [1_000_000, 100_000_000]
SEED = 1  # not that of the weights: gamma(1) weights of the same stream would be the very exponentials


def float_chunks():
    """Chunks of float64 weights."""
    return list(generator().gamma(1.0, size=(DISTINCT_CHUNKS, CHUNK_ITEMS)) + 1e-3)


def sum_of(chunks):
    """The floor: one pass over the weights."""
    for number in range(CHUNKS):
        np.add.reduce(chunks[number % DISTINCT_CHUNKS])


def sample_of(chunks, k, rng):
    """A whole stream, from an empty reservoir."""
    reservoir = gt.Reservoir(k, rng=rng)
    for number in range(CHUNKS):
        reservoir.update(chunks[number % DISTINCT_CHUNKS])
    return reservoir


def million_items_a_second(items, seconds):
    return three_digits(items / seconds / 1e6)


class ReservoirOfChunks:
    params = SIZES
    param_names = ("k",)
    timeout = 120

    def setup(self, k):
        chunks = float_chunks()
        self.functions = [lambda: sum_of(chunks), lambda: sample_of(chunks, k, SEED)]

    def track_items(self, k):
        return million_items_a_second(CHUNKS * CHUNK_ITEMS, min(seconds[1] for seconds in self.rounds()))

    def track_items_of_the_sum(self, k):
        return million_items_a_second(CHUNKS * CHUNK_ITEMS, min(seconds[0] for seconds in self.rounds()))

    def track_ratio_to_the_sum(self, k):
        return three_digits(statistics.median(sampled / summed for summed, sampled in self.rounds()))

    def rounds(self):
        return interleaved_seconds(self.functions)

    track_items.unit = track_items_of_the_sum.unit = "million items a second"
    track_ratio_to_the_sum.unit = "times the time of np.add.reduce"


class ReservoirOfPairs:
    """`extend` of 1e7 pairs from `zip(range(n), list_of_floats)`, and the empty loop over the same pairs."""

    timeout = 120

    def setup(self):
        weights = (generator().gamma(1.0, size=PAIRS) + 1e-3).tolist()

        def empty_loop():
            for _item, _weight in zip(range(PAIRS), weights, strict=True):
                pass

        def extend():
            gt.Reservoir(10, rng=SEED).extend(zip(range(PAIRS), weights, strict=True))

        self.functions = [empty_loop, extend]

    def track_items(self):
        return million_items_a_second(PAIRS, min(seconds[1] for seconds in interleaved_seconds(self.functions)))

    def track_items_of_the_empty_loop(self):
        return million_items_a_second(PAIRS, min(seconds[0] for seconds in interleaved_seconds(self.functions)))

    track_items.unit = track_items_of_the_empty_loop.unit = "million items a second"


class ReservoirWithCounters:
    """Keys for each item: what one answer for every chunking costs."""

    timeout = 120

    def setup(self):
        self.chunks = float_chunks()

    def time_1e8_items(self):
        sample_of(self.chunks, 10, gt.CounterRNG(SEED))


class ReservoirMemory:
    """Flat: the same from 1e6 to 1e8 items."""

    params = LENGTHS
    param_names = ("n",)

    def peakmem_update(self, n):
        gt.Reservoir(10, rng=SEED).update(np.broadcast_to(1.5, (n,)))
