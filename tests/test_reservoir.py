"""Reservoirs: the distribution of `sample`, whatever way the stream came; counters, merging, items, bad input."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import gumbeltopk as gt
from gumbeltopk._numpy import clocks
from gumbeltopk._streams import chunks as _chunks
from gumbeltopk._streams import kept as _kept
from gumbeltopk._streams import state as _reservoir_state
from gumbeltopk._streams.running_weight import RunningWeight
from tests import _reference, _statistics

REPRODUCIBLE = settings(deadline=None, derandomize=True, max_examples=100)
SEED = 20240229

WEIGHTS = np.asarray([0.4, 0.1, 0.5, 0.3, 0.2])
ORDERS = list(itertools.permutations(range(5), 2))
PROBABILITIES = [float(_reference.ordered_probability(WEIGHTS, order)) for order in ORDERS]


def state(reservoir: gt.Reservoir):
    """All of a reservoir, for comparison."""
    header, members = _reservoir_state.encode(reservoir._core)
    return header, {name: array.tolist() for name, array in members.items()}


# --- the distribution -----------------------------------------------------------------------------
#
# The ordered pairs of five items, by eq. 1. 10,000 draws find relative errors of the 20 cells of 12 % rms with power
# 1 - 1e-6; the mutants below are much further off, and the cores are tested with more power further down.
# Chunks are diluted with items of weight 0, so that Poisson clocks are at work and not the keys of all items.

DRAWS = 10_000
DILUTION = 100


def diluted(first: int, last: int):
    """The weights of items first .. last - 1, each the first of DILUTION; so item i has number DILUTION * i."""
    chunk = np.zeros(((last - first), DILUTION))
    chunk[:, 0] = WEIGHTS[first:last]
    return chunk.ravel()


def by_one_chunk(rng):
    reservoir = gt.Reservoir(2, rng=rng)
    reservoir.update(WEIGHTS)
    return reservoir.sample()


def by_two_chunks(rng):
    reservoir = gt.Reservoir(2, rng=rng)
    reservoir.update(diluted(0, 2))
    reservoir.update(diluted(2, 5))
    return reservoir.sample() // DILUTION


def by_three_chunks(rng):
    reservoir = gt.Reservoir(2, rng=rng)
    for first, last in ((0, 3), (3, 4), (4, 5)):
        reservoir.update(diluted(first, last))
    return reservoir.sample() // DILUTION


def by_single_items(rng):
    reservoir = gt.Reservoir(2, rng=rng)
    for item, weight in enumerate(WEIGHTS.tolist()):
        reservoir.add(item, weight)
    return reservoir.sample()


def by_an_iterator(rng):
    reservoir = gt.Reservoir(2, rng=rng)
    reservoir.extend(enumerate(WEIGHTS.tolist()))
    return reservoir.sample()


def by_chunks_and_single_items(rng):
    """The jump of item 2 is still pending when a chunk comes, and item 4 needs a new one."""
    reservoir = gt.Reservoir(2, rng=rng)
    reservoir.update(diluted(0, 2))
    reservoir.add(2 * DILUTION, WEIGHTS[2])
    reservoir.update(diluted(3, 4), start=3 * DILUTION)
    reservoir.extend([(4 * DILUTION, WEIGHTS[4])])
    return np.asarray(reservoir.sample()) // DILUTION


def by_merging(rng):
    parts = [gt.Reservoir(2, rng=rng) for _ in range(3)]
    parts[0].update(WEIGHTS[:2])
    parts[1].extend(enumerate(WEIGHTS[2:4].tolist(), start=2))
    parts[2].add(4, WEIGHTS[4])
    parts[1].merge(parts[2])
    return (parts[0] | parts[1]).sample()


def by_merging_and_going_on(rng):
    parts = [gt.Reservoir(2, rng=rng) for _ in range(2)]
    parts[0].extend(enumerate(WEIGHTS[:3].tolist()))
    parts[1].update(WEIGHTS[3:4], items=[3])
    parts[0].merge(parts[1])
    parts[0].add(4, WEIGHTS[4])
    return parts[0].sample()


def by_counters(rng):
    reservoir = gt.Reservoir(2, rng=gt.CounterRNG(int(rng.integers(2**63))))
    reservoir.update(WEIGHTS[3:], start=3)
    reservoir.update(WEIGHTS[:3], start=0)
    return reservoir.sample()


WAYS = [
    by_one_chunk,
    by_two_chunks,
    by_three_chunks,
    by_single_items,
    by_an_iterator,
    by_chunks_and_single_items,
    by_merging,
    by_merging_and_going_on,
    by_counters,
]


def pair_counts(way, draws: int = DRAWS):
    rng = np.random.default_rng(SEED)
    return _statistics.count_rows([list(way(rng))[:2] for _ in range(draws)], ORDERS)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_pairs_have_the_probabilities_of_eq_1(way) -> None:
    _statistics.assert_distribution(pair_counts(way), PROBABILITIES)


def test_the_pairs_are_not_those_of_probability_proportional_to_size() -> None:
    """The same test tells the two designs apart: as many counts as pps expects for its inclusions are refused."""
    inclusion = np.asarray([sum(p for p, o in zip(PROBABILITIES, ORDERS, strict=True) if i in o) for i in range(5)])
    by_size = 2 * WEIGHTS / WEIGHTS.sum()
    assert _statistics.distribution_p_value(DRAWS * by_size, inclusion) < _statistics.ALPHA


def threshold_of_the_earliest(kept, k):
    return float(kept.log_times[0]) if kept.size == k else math.inf


def threshold_of_the_last_newcomer(kept, k):
    return float(kept.log_times[np.argmax(kept.numbers)]) if kept.size == k else math.inf


def last_event_of_each(positions, log_times):
    found, times = ORIGINAL_FIRST_OF_EACH(positions, -log_times)
    return found, -times


def uniform_arrival(weight, log_threshold, rng):
    return log_threshold + math.log(1.0 - rng.random())


def fresh_arrival(weight, log_threshold, rng):
    """The item's own exponential, which may well be beyond the threshold that it is known to have beaten."""
    return math.log(rng.standard_exponential()) - math.log(weight)


def jump_that_forgets_the_threshold(log_threshold, rng):
    return float(rng.standard_exponential())


def keep_only_if_there_is_room(first, second, k):
    return first if first.size == k else ORIGINAL_FIRST_ARRIVALS(first, second, k)


def go_on_with_a_jump_that_has_ended(running):
    """The restart is forgotten: each later item arrives."""


ORIGINAL_FIRST_OF_EACH = clocks.first_of_each
ORIGINAL_FIRST_ARRIVALS = _kept.first_arrivals

MUTANTS = [
    (_chunks, "log_threshold", threshold_of_the_earliest, by_two_chunks),
    (_chunks, "log_threshold", threshold_of_the_earliest, by_single_items),
    (_chunks, "log_threshold", threshold_of_the_last_newcomer, by_three_chunks),
    (_chunks, "log_threshold", threshold_of_the_last_newcomer, by_an_iterator),
    (clocks, "first_of_each", last_event_of_each, by_two_chunks),
    (clocks, "log_arrival_after_jump", uniform_arrival, by_an_iterator),
    (clocks, "log_arrival_after_jump", fresh_arrival, by_an_iterator),
    (clocks, "draw_jump", jump_that_forgets_the_threshold, by_single_items),
    (RunningWeight, "drop_jump", go_on_with_a_jump_that_has_ended, by_an_iterator),
    (_kept, "first_arrivals", keep_only_if_there_is_room, by_merging),
    (_kept, "first_arrivals", keep_only_if_there_is_room, by_two_chunks),
]


@pytest.mark.parametrize(("where", "name", "mutant", "way"), MUTANTS, ids=lambda x: getattr(x, "__name__", x))
def test_mutants_are_found(where, name, mutant, way, monkeypatch) -> None:
    monkeypatch.setattr(where, name, mutant)
    assert _statistics.distribution_p_value(pair_counts(way, 5_000), PROBABILITIES) < _statistics.ALPHA


# --- the cores, in many copies at once ------------------------------------------------------------


def test_clocks_let_each_item_arrive_by_its_own_exponential() -> None:
    """200,000 copies of five items, as one chunk: which of the five arrive before T, 32 cells, and when.

    Power: 2.8 % rms relative errors of the cells. The time of an item is a truncated exponential, so its distribution
    function there is uniform.
    """
    copies, threshold = 200_000, 1.5
    weights = np.tile(WEIGHTS, copies)
    blocks = weights[: len(weights) // 256 * 256].reshape(-1, 256)
    copies = blocks.size // 5
    mean = clocks.expected_events(float(blocks.sum()), math.log(threshold))
    rng = np.random.default_rng(SEED)
    sums = clocks.block_sums(blocks)
    positions, log_times = clocks.arrivals_by_events(blocks, sums, math.log(threshold), mean, rng)
    assert (np.diff(positions) > 0).all()
    arrives = np.zeros(blocks.size, dtype=bool)
    arrives[positions] = True
    cells = arrives[: copies * 5].reshape(-1, 5) @ (1 << np.arange(5))
    p = -np.expm1(-WEIGHTS * threshold)
    exact = [math.prod(p[i] if cell >> i & 1 else 1 - p[i] for i in range(5)) for cell in range(32)]
    _statistics.assert_distribution(np.bincount(cells, minlength=32), exact)
    for item in range(5):
        times = np.exp(log_times[positions % 5 == item])
        uniform = np.expm1(-WEIGHTS[item] * times) / np.expm1(-WEIGHTS[item] * threshold)
        _statistics.assert_distribution(np.histogram(uniform, bins=20, range=(0, 1))[0], np.full(20, 0.05))


@pytest.mark.parametrize("hazard", [1e-300, 1e-25, 1e-16, 1e-3, 1.0, 5.0, 700.0])
def test_the_arrival_after_a_jump_is_a_truncated_exponential(hazard: float) -> None:
    """1 - exp(-w T') is uniform up to 1 - exp(-w T), at hazards w T where exp(-w T) is 1 or 0 in float64."""
    rng = np.random.default_rng(SEED)
    weight, log_threshold = 2.0**-20, math.log(hazard) + 20 * math.log(2.0)
    log_times = np.asarray([clocks.log_arrival_after_jump(weight, log_threshold, rng) for _ in range(50_000)])
    assert (log_times <= log_threshold).all()
    if hazard < 1e-20:
        uniform = np.exp(log_times - log_threshold)
    else:
        uniform = np.expm1(-weight * np.exp(log_times)) / np.expm1(-hazard)
    _statistics.assert_distribution(np.histogram(uniform, bins=20, range=(0, 1 + 1e-12))[0], np.full(20, 0.05))
    assert len(np.unique(log_times)) == len(log_times)


def test_two_classes_of_weights_follow_the_wallenius_distribution() -> None:
    """An oracle of scipy's: how many of the 8 first of 2000 items of weights 1 and 3 are heavy, in five chunks."""
    weights = np.tile([1.0, 3.0], 1000)
    rng = np.random.default_rng(SEED)
    heavy = []
    for _ in range(2500):
        reservoir = gt.Reservoir(8, rng=rng)
        for first in range(0, 2000, 400):
            reservoir.update(weights[first : first + 400])
        heavy.append(int((reservoir.weights == 3).sum()))
    exact = stats.nchypergeom_wallenius(2000, 1000, 8, 3.0).pmf(np.arange(9))
    _statistics.assert_distribution(np.bincount(heavy, minlength=9), exact)


def numbers_of_equal_weights(take, runs: int, k: int, n: int, bins: int = 20):
    """Counts of the kept items by their place in a stream of equal weights; uniform."""
    rng = np.random.default_rng(SEED)
    counts = np.zeros(bins, dtype=int)
    for _ in range(runs):
        reservoir = gt.Reservoir(k, rng=rng)
        take(reservoir)
        assert reservoir.count == n
        assert (np.diff(reservoir.log_arrival_times) > 0).all()
        counts += np.bincount(np.asarray(reservoir.sample()) * bins // n, minlength=bins)
    return counts


def large_pieces(reservoir):
    reservoir.update(count=100)
    reservoir.update(np.ones(99_900, dtype=np.float32))
    reservoir.update(count=900_000)


def count_alone(reservoir):
    reservoir.update(count=10**15)


def pairs_of_equal_weight(weight):
    return lambda reservoir: reservoir.extend((i, weight) for i in range(1000))


def chunks_of_equal_weight(weight):
    def take(reservoir):
        for _ in range(4):
            reservoir.update(np.full(1000, weight))

    return take


# 5e-324 and 1e308 are beyond what sums and products can hold: keys of all items, or the clocks would be biased.
EQUAL = [
    pytest.param(large_pieces, 100, 200, 1_000_000, id="pieces"),
    pytest.param(count_alone, 100, 200, 10**15, id="count"),
    *(pytest.param(pairs_of_equal_weight(w), 100, 100, 1000, id=f"pairs of {w}") for w in (1.0, 5e-324, 1e308)),
    *(pytest.param(chunks_of_equal_weight(w), 200, 50, 4000, id=f"chunks of {w}") for w in (3.0, 5e-324, 1e308)),
]


@pytest.mark.parametrize(("take", "runs", "k", "n"), EQUAL)
def test_no_place_in_a_stream_of_equal_weights_is_better(take, runs, k, n) -> None:
    """10,000 kept items in 20 cells: power for errors of 12 % rms. (Without replacement: a little conservative.)"""
    _statistics.assert_distribution(numbers_of_equal_weights(take, runs, k, n), np.full(20, 0.05))


def test_extreme_weights_in_one_stream() -> None:
    """The heavy items come first, whatever way the stream takes; the light ones fill up."""
    weights = np.concatenate([np.full(500, 5e-324), [1e308, 1.7e308], np.ones(3), np.full(500, 5e-324)])
    for take in (
        lambda r: r.update(weights),
        lambda r: r.extend(enumerate(weights.tolist())),
        lambda r: [r.update(weights[i : i + 100]) for i in range(0, 1005, 100)],
    ):
        reservoir = gt.Reservoir(10, rng=SEED)
        take(reservoir)
        found = np.asarray(reservoir.sample()).tolist()
        assert set(found[:2]) == {500, 501}
        assert set(found[2:5]) == {502, 503, 504}
        assert np.isfinite(reservoir.log_arrival_times).all()
        assert reservoir.total_weight == math.inf


# --- counters -------------------------------------------------------------------------------------


@st.composite
def streams(draw):
    """Weights of a stream, and a partition of it in some order."""
    exponents = st.integers(-40, 40)
    weights = draw(st.lists(st.one_of(st.just(0.0), exponents.map(lambda e: 1.5**e)), min_size=1, max_size=60))
    cuts = sorted(draw(st.sets(st.integers(1, len(weights)), max_size=6)) | {0, len(weights)})
    chunks = draw(st.permutations(list(itertools.pairwise(cuts))))
    return np.asarray(weights), chunks


@REPRODUCIBLE
@given(streams(), st.integers(1, 8), st.data())
def test_counters_give_one_sample_for_every_way(stream, k, data) -> None:
    """Any chunking, any order, any grouping into merged reservoirs, chunks or single items: bit for bit the same."""
    weights, chunks = stream
    counters = gt.CounterRNG(k)
    whole = gt.Reservoir(k, rng=counters)
    whole.update(weights)
    workers = [gt.Reservoir(k, rng=counters) for _ in range(3)]
    for first, last in chunks:
        worker, way = workers[data.draw(st.integers(0, 2))], data.draw(st.sampled_from(["update", "extend", "add"]))
        if way == "update":
            worker.update(weights[first:last], items=range(first, last), start=first)
        elif way == "extend":
            worker.extend(zip(range(first, last), weights[first:last].tolist(), strict=True), start=first)
        else:
            for i in range(first, last):
                worker.add(i, weights[i], number=i)
    merged = workers[2] | (workers[0] | workers[1])
    assert list(merged.sample()) == whole.sample().tolist()
    np.testing.assert_array_equal(merged.numbers, whole.numbers)
    np.testing.assert_array_equal(merged.log_arrival_times, whole.log_arrival_times)
    np.testing.assert_array_equal(merged.weights, whole.weights)
    assert merged.count == whole.count == len(weights)
    assert merged.total_weight == pytest.approx(whole.total_weight, rel=1e-14)


@pytest.mark.parametrize("scale", [1.0, 1e300, 1e-310])
def test_counters_give_what_sample_gives(scale: float) -> None:
    rng = np.random.default_rng(SEED)
    weights = rng.gamma(0.3, size=200_000) * scale
    reservoir = gt.Reservoir(50, rng=gt.CounterRNG(3))
    for first in range(0, len(weights), 30_011):
        reservoir.update(weights[first : first + 30_011])
    assert reservoir.sample().tolist() == gt.sample(weights=weights, k=50, rng=gt.CounterRNG(3)).tolist()
    log_times = gt.log_arrival_times(weights=weights, rng=gt.CounterRNG(3))
    np.testing.assert_array_equal(reservoir.log_arrival_times, log_times[reservoir.sample()])


def test_counters_give_one_sample_of_a_stream_without_weights() -> None:
    counted, listed = (gt.Reservoir(5, rng=gt.CounterRNG(1)) for _ in range(2))
    counted.update(count=100_000)
    listed.update(np.ones(40_000, dtype=int))
    listed.update(items=np.arange(40_000, 100_000))
    assert (
        counted.sample().tolist() == listed.sample() == gt.sample(np.zeros(100_000), 5, rng=gt.CounterRNG(1)).tolist()
    )


# --- what a reservoir tells -----------------------------------------------------------------------


def test_less_than_k_items_are_all_in_it() -> None:
    reservoir = gt.Reservoir(10, rng=0)
    assert (len(reservoir), reservoir.count, reservoir.total_weight) == (0, 0, 0.0)
    assert reservoir.sample().tolist() == []
    reservoir.update([0.0, 2.0, 0.0, 1.0])
    reservoir.add("x", 0.0)
    reservoir.add("y", 3.0)
    assert set(reservoir.sample()) == {1, 3, "y"}
    assert sorted(reservoir.weights.tolist()) == [1.0, 2.0, 3.0]
    assert (len(reservoir), reservoir.count, reservoir.total_weight, reservoir.k) == (3, 6, 6.0, 10)
    assert repr(reservoir) == "Reservoir(k=10, kept=3, count=6, total_weight=6, rng=PCG64)"


def test_items_of_weight_zero_are_never_kept() -> None:
    weights = np.zeros(100_000)
    weights[::10] = np.random.default_rng(SEED).gamma(1.0, size=10_000)
    for k in (10, 1000):
        for take in (
            lambda r: r.update(weights),
            lambda r: [r.update(weights[i : i + 1000]) for i in range(0, 100_000, 1000)],
            lambda r: r.extend(enumerate(weights.tolist())),
        ):
            reservoir = gt.Reservoir(k, rng=1)
            take(reservoir)
            assert (reservoir.weights > 0).all()
            np.testing.assert_array_equal(weights[np.asarray(reservoir.sample())], reservoir.weights)


@pytest.mark.parametrize("way", ["update", "add", "extend"])
def test_the_total_of_many_small_weights_is_exact(way: str) -> None:
    """Beside 2^53, a weight of 0.1 is rounded away in a float sum."""
    reservoir = gt.Reservoir(1, rng=0)
    weights = [2.0**53, *([0.1] * 50_000), 5e-324]
    if way == "update":
        for first in range(0, len(weights), 100):
            reservoir.update(weights[first : first + 100])
    elif way == "extend":
        reservoir.extend(enumerate(weights))
    else:
        for weight in weights:
            reservoir.add(None, weight)
    expected = math.fsum(weights)
    assert reservoir.total_weight - 2.0**53 == pytest.approx(expected - 2.0**53, rel=1e-3 if way == "update" else 1e-9)


def test_items_of_all_kinds() -> None:
    table = np.arange(40.0).reshape(20, 2)
    for items, expected in [
        (None, np.arange(20)),
        (table, table),
        (np.asarray([f"name {i}" for i in range(20)]), np.asarray([f"name {i}" for i in range(20)])),
        (tuple("abcdefghijklmnopqrst"), list("abcdefghijklmnopqrst")),
        (np.asarray([{i} for i in range(20)], dtype=object), [{i} for i in range(20)]),
    ]:
        reservoir = gt.Reservoir(20, rng=0)
        reservoir.update(np.ones(7), None if items is None else items[:7])
        reservoir.update(np.ones(13), None if items is None else items[7:])
        sample, order = reservoir.sample(), reservoir.numbers
        assert type(sample) is type(expected)
        if isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(sample, expected[order])
            assert sample.dtype == expected.dtype
        else:
            assert sample == [expected[i] for i in order]


def test_what_is_given_out_or_taken_in_is_copied() -> None:
    rows = np.ones((3, 2))
    reservoir = gt.Reservoir(3, rng=0)
    reservoir.update(np.ones(3), rows)
    rows[:] = 7.0
    before = state(reservoir)
    for array in (reservoir.sample(), reservoir.weights, reservoir.log_arrival_times, reservoir.numbers):
        array[:] = 0
    assert state(reservoir) == before


def test_looking_draws_nothing() -> None:
    """A reservoir that is looked at after each item goes on like one that is not."""
    quiet, watched = (gt.Reservoir(3, rng=5) for _ in range(2))
    for i in range(200):
        for reservoir in (quiet, watched):
            reservoir.add(i, 1.0 + i % 7)
        watched.sample(), len(watched), repr(watched), copy.copy(watched)
    assert state(quiet)[1] == state(watched)[1]
    assert quiet._core.rng.bit_generator.state == watched._core.rng.bit_generator.state


def test_extend_is_add_in_a_loop() -> None:
    pairs = [(i, w) for i, w in enumerate(np.random.default_rng(1).gamma(1.0, size=5000).tolist())]
    looped, extended = (gt.Reservoir(7, rng=2) for _ in range(2))
    for pair in pairs:
        looped.add(*pair)
    extended.extend(iter(pairs))
    assert looped.sample() == extended.sample()
    assert looped.total_weight == pytest.approx(extended.total_weight, rel=1e-15)


def test_memory_is_flat() -> None:
    """Ten million weights (a view of one) in one call, in less than four pieces of memory."""
    weights = np.broadcast_to(np.float32(1.5), (10_000_000,))
    reservoir = gt.Reservoir(100, rng=0)
    reservoir.update(weights[:100_000])
    tracemalloc.start()
    reservoir.update(weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 8 * _chunks.PIECE_ITEMS


# --- merging --------------------------------------------------------------------------------------


def test_merging_takes_the_earliest_of_both() -> None:
    parts = [gt.Reservoir(4, rng=seed) for seed in range(3)]
    for part in parts:
        part.update(np.ones(50))
    a, b, c = parts
    times = np.sort(np.concatenate([part.log_arrival_times for part in parts]))[:4]
    for merged in ((a | b) | c, a | (b | c), (c | a) | b):
        np.testing.assert_array_equal(merged.log_arrival_times, times)
        assert (merged.count, merged.total_weight) == (150, 150.0)
    assert a.count == 50


def used_generator(seed: int) -> np.random.Generator:
    rng = np.random.default_rng(seed)
    rng.random(10)
    return rng


def test_what_cannot_be_merged() -> None:
    a, b = gt.Reservoir(3, rng=0), gt.Reservoir(3, rng=1)
    a.update(np.ones(10), np.arange(10))
    b.update(np.ones(10), np.arange(10.0))
    before = state(a)
    for other, error, message in [
        (gt.Reservoir(2), ValueError, "other keeps k = 2 items, and this reservoir 3"),
        ([1, 2], TypeError, "other is of type list"),
        (a, ValueError, "both reservoirs hold the same stream"),
        (copy.copy(a), ValueError, "both reservoirs hold the same stream"),
        (gt.Reservoir(3, rng=2) | a, ValueError, "both reservoirs hold the same stream"),
        (gt.Reservoir(3, rng=0), ValueError, "were seeded alike"),
        (gt.Reservoir(3, rng=np.random.PCG64(0)), ValueError, "were seeded alike"),
        (gt.Reservoir(3, rng=used_generator(0)), ValueError, "were seeded alike"),
        (pickle.loads(pickle.dumps(gt.Reservoir(3, rng=a._core.rng))), ValueError, "were seeded alike"),
        (b, TypeError, "items has dtype float64, but those before had int64"),
    ]:
        with pytest.raises(error, match=message):
            a.merge(other)
        assert state(a) == before
    with pytest.raises(TypeError, match="unsupported operand"):
        a | 3


@pytest.mark.parametrize("kind", [np.random.default_rng, np.random.PCG64])
def test_one_generator_may_serve_several_reservoirs(kind: Any) -> None:
    """NumPy makes a Generator of its own of a bit generator for each; the numbers still come from one place."""
    rng = kind(0)
    a, b = gt.Reservoir(3, rng=rng), gt.Reservoir(3, rng=rng)
    a.update(np.ones(10))
    b.update(np.ones(10))
    assert len(set((a | b).log_arrival_times.tolist())) == 3


def test_generators_without_a_seed_are_told_by_their_state() -> None:
    """Philox by key and counter, as workers may have it: other counters are other numbers."""
    a, b, c = (gt.Reservoir(3, rng=np.random.Generator(np.random.Philox(key=1, counter=n))) for n in (0, 2**128, 0))
    assert (a | b).count == 0
    with pytest.raises(ValueError, match="were seeded alike"):
        a.merge(c)


def test_item_numbers_may_not_come_twice_under_one_counter_seed() -> None:
    a, b, c = (gt.Reservoir(3, rng=gt.CounterRNG(seed)) for seed in (0, 0, 1))
    for reservoir in (a, b, c):
        reservoir.update(np.ones(100), start=50)
    before = state(a)
    for act, message in [
        (lambda: a.merge(b), r"items of the numbers 50 .. 149 are there twice under CounterRNG\(0\)"),
        (lambda: a.update(np.ones(10), start=45), r"numbers 50 .. 54 are there twice"),
        (lambda: a.update(np.ones(10)), r"numbers 100 .. 109 are there twice"),
        (lambda: a.update(np.ones(1000), start=0), r"numbers 50 .. 149 are there twice"),
        (lambda: a.add("x", number=149), r"numbers 149 .. 149 are there twice"),
        (lambda: a.extend([("x", 1.0)], start=50), r"numbers 50 .. 50 are there twice"),
    ]:
        with pytest.raises(ValueError, match=message):
            act()
        assert state(a) == before
    assert (a | c).count == 200
    a.update(np.ones(50), start=0)
    a.update(np.ones(1), start=150)
    assert a._core.provenance.numbers == {0: ((0, 151),)}


# --- bad input ------------------------------------------------------------------------------------

BAD_WEIGHTS = [
    ([1.0, math.nan], ValueError, r"weights\[1\] = nan \(item number 101\); pass finite numbers"),
    ([1.0, 2.0, -1.0, -2.0], ValueError, r"weights\[2\] = -1.0 \(item number 102\)"),
    ([math.inf], ValueError, r"weights\[0\] = inf \(item number 100\)"),
    ([math.inf, -math.inf], ValueError, r"weights\[0\] = inf"),
    (np.r_[np.ones(70_000), -5e-324], ValueError, r"weights\[70000\] = -5e-324 \(item number 70100\)"),
    ([True, False], TypeError, "weights has dtype bool"),
    (["1"], TypeError, "weights has dtype"),
    ([1j], TypeError, "weights has dtype complex128"),
    ([[1.0]], ValueError, r"weights has shape \(1, 1\)"),
    (1.0, ValueError, r"weights has shape \(\)"),
    (np.ma.masked_array([1.0], [True]), TypeError, "weights is a masked array"),
]


def reservoirs():
    """One of each kind of generator, with 100 items, and a jump that is pending where there are jumps."""
    for rng in (np.random.default_rng(0), np.random.Generator(np.random.Philox(1)), gt.CounterRNG(0)):
        reservoir = gt.Reservoir(3, rng=rng)
        reservoir.extend((i, 1.0) for i in range(100))
        yield reservoir


@pytest.mark.parametrize(("weights", "error", "message"), BAD_WEIGHTS)
def test_bad_weights_are_named_and_nothing_changes(weights, error, message) -> None:
    for reservoir in reservoirs():
        before = state(reservoir)
        with pytest.raises(error, match=message):
            reservoir.update(weights)
        assert state(reservoir) == before


BAD_WEIGHT = [
    (math.nan, ValueError, "weight = nan of item number 100; pass finite numbers that are not negative"),
    (-0.5, ValueError, "weight = -0.5 of item number 100"),
    (math.inf, ValueError, "weight = inf of item number 100"),
    pytest.param(10**400, ValueError, r"weight = 10{96}\.\.\. of item number 100 is beyond the largest", id="10**400"),
    pytest.param(10**9999, ValueError, "weight = <int> of item number 100 is beyond the largest float", id="10**9999"),
    (True, TypeError, "weight = True of item number 100 must be a number, not bool"),
    (np.True_, TypeError, "must be a number"),
    ("1.0", TypeError, "weight = '1.0' of item number 100 must be a number, not str"),
    (None, TypeError, "not NoneType"),
    (1j, TypeError, "not complex"),
]


@pytest.mark.parametrize(("weight", "error", "message"), BAD_WEIGHT)
def test_a_bad_weight_is_named_and_nothing_changes(weight, error, message) -> None:
    for reservoir in reservoirs():
        before = state(reservoir)
        with pytest.raises(error, match=message):
            reservoir.add("x", weight)
        assert state(reservoir) == before
        with pytest.raises(error, match=message.replace("100", "3100")):
            reservoir.extend(itertools.chain(((i, 1.0) for i in range(3000)), [("x", weight)]))
        assert state(reservoir) == before


def test_an_iterator_that_breaks_changes_nothing() -> None:
    def broken():
        yield from ((i, 100.0) for i in range(2000))
        raise KeyError("the source has gone")

    for reservoir in reservoirs():
        before = state(reservoir)
        with pytest.raises(KeyError, match="the source has gone"):
            reservoir.extend(broken())
        for pair in (("x", 1.0, 2.0), ("x",), "x", 3):
            with pytest.raises(TypeError, match=re.escape(f"pairs has {pair!r} as item number 3101; pass pairs")):
                reservoir.extend([*[("x", 1.0)] * 3001, pair])
        with pytest.raises(TypeError, match="pairs = 3 cannot be iterated over; pass an iterable of pairs"):
            reservoir.extend(3)
        assert state(reservoir) == before


BAD_CALLS = [
    (lambda r: r.update(), TypeError, "pass weights, or items= or count="),
    (lambda r: r.update([1.0], count=1), TypeError, "pass weights or count=, not both"),
    (lambda r: r.update(count=-1), ValueError, "count = -1 is negative"),
    (lambda r: r.update(count=2.0), TypeError, "count = 2.0 must be an integer"),
    (lambda r: r.update(count=2**70), ValueError, "count = 1180591620717411303424 is more than the 2"),
    (lambda r: r.update([1.0], [1, 2]), ValueError, "items has 2 entries, but there are 1 weights"),
    (lambda r: r.update(items=[1, 2], count=3), ValueError, "items has 2 entries"),
    (lambda r: r.update([1.0], "x"), TypeError, "items is of type str"),
    (lambda r: r.update([1.0], {1}), TypeError, "items is of type set"),
    (lambda r: r.update([1.0], np.asarray(1)), ValueError, "items is 0-dimensional"),
    (lambda r: r.update([1.0], np.ma.masked_array([1], [True])), TypeError, "MaskedArray"),
    (lambda r: r.update([1.0], start=-1), ValueError, "start = -1"),
    (lambda r: r.update([1.0], start=2**63), ValueError, "start = 9223372036854775808"),
    (lambda r: r.add("x", number=True), TypeError, "number = True is a truth value"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_bad_calls_change_nothing(call, error, message) -> None:
    for reservoir in reservoirs():
        before = state(reservoir)
        with pytest.raises(error, match=message):
            call(reservoir)
        assert state(reservoir) == before


def test_arrays_of_items_must_agree() -> None:
    reservoir = gt.Reservoir(3, rng=0)
    reservoir.update(np.ones(4), np.arange(8).reshape(4, 2))
    for items, error, message in [
        (np.ones((4, 2)), TypeError, "items has dtype float64, but those before had int64"),
        (np.arange(4), ValueError, r"items has rows of shape \(\), but those before had \(2,\)"),
    ]:
        with pytest.raises(error, match=message):
            reservoir.update(np.ones(4), items)
    assert reservoir.count == 4


@pytest.mark.parametrize(
    ("k", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError), (None, TypeError)]
)
def test_bad_k(k, error) -> None:
    with pytest.raises(error, match="k = "):
        gt.Reservoir(k)


def test_other_libraries_arrays_are_refused() -> None:
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="weights is an array of array_api_strict; a reservoir is on the host"):
        gt.Reservoir(3).update(strict.asarray([1.0]))


def test_weights_of_all_dtypes_and_layouts() -> None:
    weights = np.arange(1.0, 2001.0)
    expected = gt.Reservoir(3, rng=0)
    expected.update(weights)
    for same in (
        weights.astype(np.float32),
        weights.astype(np.int16),
        weights.astype(">f8"),
        np.repeat(weights, 3)[::3],
        weights[::-1].copy()[::-1],
        weights.tolist(),
    ):
        reservoir = gt.Reservoir(3, rng=0)
        reservoir.update(same)
        assert reservoir.sample().tolist() == expected.sample().tolist()


@pytest.mark.parametrize("rng", [0, gt.CounterRNG(0)])
def test_item_numbers_end_at_the_largest_integer(rng: Any) -> None:
    reservoir = gt.Reservoir(2, rng=rng)
    with pytest.raises(ValueError, match="gives items numbers outside"):
        reservoir.extend([("a", 1.0), ("b", 1.0), ("c", 1.0)], start=2**63 - 2)
    assert reservoir.count == 0
    reservoir = gt.Reservoir(2, rng=0)
    reservoir.update(count=2**63 - 1)
    with pytest.raises(ValueError, match="gives items numbers outside"):
        reservoir.add("one more")


def test_the_iterable_of_extend_must_not_use_the_reservoir() -> None:
    reservoir = gt.Reservoir(2, rng=0)

    def pairs() -> Any:
        for i in range(100):
            reservoir.add(i)
            yield i, 1.0

    with pytest.raises(RuntimeError, match="uses the reservoir that it feeds"):
        reservoir.extend(pairs())
    assert reservoir.count == 0
    reservoir.add(1)
    assert reservoir.count == 1


def test_times_stay_times_beside_other_objects() -> None:
    reservoir = gt.Reservoir(3, rng=0)
    days = np.asarray(["2020-01-01", "2021-01-01"], dtype="datetime64[ns]")
    reservoir.update([1.0, 1.0], days)
    reservoir.add("x", 1.0)
    assert {str(item) for item in reservoir.sample()} == {"x", *map(str, days)}


class ZeroUniforms(np.random.Generator):
    """All uniforms are 0, which comes once in 2^53 draws."""

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return np.zeros(size)


def test_a_uniform_of_exactly_0_hits_no_item_without_weight() -> None:
    blocks = np.zeros((3, 4))
    blocks[1, 2:] = 1.0
    positions = clocks._locate(blocks, clocks.block_sums(blocks), 5, ZeroUniforms(np.random.PCG64(0)))
    assert positions.tolist() == [6] * 5
