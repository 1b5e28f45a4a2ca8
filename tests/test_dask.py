"""Samples of Dask arrays and reservoirs of Dask partitions: those of `sample` and `Reservoir`, for all chunks."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gumbeltopk as gt
from tests import _reference, _statistics

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
db = pytest.importorskip("dask.bag")
gtd = pytest.importorskip("gumbeltopk.dask")

REPRODUCIBLE = settings(deadline=None, derandomize=True, max_examples=60)
SEED = 20240301


@pytest.fixture(autouse=True)
def _on_one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def cut(n: int, cuts) -> tuple[int, ...]:
    """Chunks of n items with these cuts; a cut that is there twice makes an empty chunk."""
    return tuple(np.diff([0, *sorted(cuts), n]).tolist())


def in_chunks(array, *chunks):
    return da.from_array(np.asarray(array), chunks=chunks)


# --- the same as `sample`, for all chunks ---------------------------------------------------------


@REPRODUCIBLE
@given(data=st.data())
def test_every_chunking_gives_the_sample_of_the_array(data) -> None:
    n = data.draw(st.integers(1, 40))
    k = data.draw(st.integers(0, n))
    seed = data.draw(st.integers(0, 2**70))
    weights = 10.0 ** np.asarray(data.draw(st.lists(st.floats(-300, 300), min_size=n, max_size=n)))
    chunks = cut(n, data.draw(st.lists(st.integers(0, n), max_size=6)))
    expected = gt.sample(weights=weights, k=k, rng=gt.CounterRNG(seed)).tolist()
    by_weights = gtd.sample(weights=in_chunks(weights, chunks), k=k, rng=seed, split_every=2)
    assert by_weights.shape == (k,)
    assert by_weights.dtype == np.int64
    assert by_weights.compute().tolist() == expected
    by_logs = gtd.sample(in_chunks(np.log(weights), chunks), k, rng=gt.CounterRNG(seed))
    assert by_logs.compute().tolist() == expected


@pytest.mark.parametrize("k", [1, 7, 1000, 70_000])
def test_long_chunks_are_looked_at_in_pieces(k: int) -> None:
    """Chunks of several pieces, where the threshold of the earlier pieces passes over most items."""
    weights = np.random.default_rng(SEED).lognormal(3.0, size=300_000)
    weights[:70_000:2] = 0.0
    expected = gt.sample(weights=weights, k=k, rng=gt.CounterRNG(5))
    for chunks in (300_000, 150_001, (1, 199_999, 100_000)):
        own = gtd.sample(weights=in_chunks(weights, chunks), k=k, rng=5).compute()
        np.testing.assert_array_equal(own, expected)
        with np.errstate(divide="ignore"):
            own = gtd.sample(in_chunks(np.log(weights), chunks), k, rng=5).compute()
        np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize("chunks", [(30, 200), (7, 200), (30, 60), (7, 33), (1, 90)])
def test_rows_are_sampled_as_by_sample(chunks) -> None:
    weights = np.random.default_rng(SEED).lognormal(2.0, size=(30, 200)).astype(np.float32)
    expected = gt.sample(weights=weights, k=4, rng=gt.CounterRNG(8))
    own = gtd.sample(weights=in_chunks(weights, *chunks), k=4, rng=8)
    assert own.shape == (30, 4)
    np.testing.assert_array_equal(own.compute(), expected)


def test_k_equals_n_over_several_chunks() -> None:
    """Where dask.array.argtopk fails."""
    order = gtd.sample(weights=in_chunks(np.ones(5), 2), k=5, rng=0).compute()
    assert order.tolist() == gt.sample(weights=np.ones(5), k=5, rng=gt.CounterRNG(0)).tolist()


def test_noise_decides_beside_log_weights_that_swallow_it() -> None:
    """At -1e17 the sum of log-weight and noise is rounded to multiples of 16: masked items must not come by number."""
    logs = np.full(60, -1e17)
    logs[7] = 0.0
    samples = {chunk: gtd.sample(in_chunks(logs, chunk), 30, rng=4).compute().tolist() for chunk in (60, 13, 1)}
    assert samples[60] == samples[13] == samples[1] == gt.sample(logs, 30, rng=gt.CounterRNG(4)).tolist()
    assert samples[60][0] == 7
    assert sorted(samples[60][1:]) != samples[60][1:]


def test_light_items_are_told_apart_beside_a_huge_one() -> None:
    """After log-weight 1e30, log-weights -5 and -7 are drawn with odds e^2; 400 draws find odds of 1."""
    logs = np.tile([1e30, -5.0, -7.0], (400, 1))
    second = [gtd.sample(in_chunks(logs, 100, chunk), 2, rng=SEED).compute()[:, 1] for chunk in (3, 2, 1)]
    np.testing.assert_array_equal(second[0], second[1])
    np.testing.assert_array_equal(second[0], second[2])
    odds = 1 / (1 + math.exp(-2.0))
    _statistics.assert_distribution(np.bincount(second[0], minlength=3)[1:], [odds, 1 - odds])


def test_integers_and_an_empty_array_are_taken() -> None:
    assert gtd.sample(weights=in_chunks([0, 3, 0], 2), k=1, rng=0).compute().tolist() == [1]
    assert gtd.sample(weights=in_chunks(np.empty(0), 1), k=0, rng=0).compute().shape == (0,)


def test_a_fresh_seed_is_drawn_at_the_call() -> None:
    first, second = (gtd.sample(weights=in_chunks(np.ones(1000), 100), k=20) for _ in range(2))
    assert first.compute().tolist() == first.compute().tolist() != second.compute().tolist()


# --- the distribution -----------------------------------------------------------------------------

WEIGHTS = np.asarray([0.05, 0.3, 0.25, 0.1, 0.3])
PAIRS = np.asarray(list(itertools.permutations(range(5), 2)))
ROWS = 200_000


def count_pairs(rng, chunks=(40_000, 2)) -> np.ndarray:
    weights = da.from_array(np.broadcast_to(WEIGHTS, (ROWS, 5)), chunks=chunks)
    return _statistics.count_rows(gtd.sample(weights=weights, k=2, rng=rng).compute(), PAIRS)


def test_ordered_pairs_have_the_probabilities_of_eq_1() -> None:
    """200,000 rows in 15 chunks: with power 1 - 1e-6, relative errors of 2.7 % rms of the 20 cells are found."""
    assert _statistics.smallest_error_found(ROWS, len(PAIRS)) < 0.027
    probabilities = [float(_reference.ordered_probability(WEIGHTS, pair)) for pair in PAIRS]
    counts = count_pairs(SEED)
    _statistics.assert_distribution(counts, probabilities)
    # The test has teeth: sampling pairs with probabilities by the product of their weights is found out.
    by_size = [WEIGHTS[i] * WEIGHTS[j] for i, j in PAIRS]
    assert _statistics.distribution_p_value(counts, np.asarray(by_size) / np.sum(by_size)) < _statistics.ALPHA


def test_seeds_are_independent() -> None:
    """First items under two seeds are independent: 25 cells, 200,000 rows."""
    weights = da.from_array(np.broadcast_to(WEIGHTS, (ROWS, 5)), chunks=(40_000, 5))
    one, two = (gtd.sample(weights=weights, k=1, rng=seed).compute()[:, 0] for seed in (0, 1))
    _statistics.assert_distribution(np.bincount(5 * one + two, minlength=25), np.outer(WEIGHTS, WEIGHTS).ravel())


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "index", "value"),
    [([1, 1, 1, np.nan, 1], 3, "nan"), ([1, -2.0, 1, 1, 1], 1, "-2.0"), ([1] * 4 + [np.inf], 4, "inf")],
)
def test_bad_weights_are_named_by_their_index_in_the_array(weights, index: int, value: str) -> None:
    lazy = gtd.sample(weights=in_chunks(weights, 2), k=1, rng=0)
    with pytest.raises(ValueError, match=rf"weights\[{index}\] = {value}; pass finite numbers that are not negative"):
        lazy.compute()
    lazy = gtd.sample(weights=in_chunks([[1.0] * 5, weights], 1, 2), k=1, rng=0)
    with pytest.raises(ValueError, match=rf"weights\[1, {index}\] = {value}"):
        lazy.compute()


def test_bad_log_weights_are_named() -> None:
    with pytest.raises(ValueError, match=r"log_weights\[2\] = inf; pass finite numbers, or -inf for a weight of zero"):
        gtd.sample(in_chunks([0.0, 1.0, np.inf], 2), 1, rng=0).compute()


def test_too_few_items_of_positive_weight() -> None:
    with pytest.raises(ValueError, match=r"k = 3 is more than the 2 items of positive weight of weights"):
        gtd.sample(weights=in_chunks([0.0, 1.0, 0.0, 2.0, 0.0], 2), k=3, rng=0).compute()
    logs = np.zeros((5, 3))
    logs[1, 1] = logs[4, :2] = -np.inf
    with pytest.raises(ValueError, match=r"more than the 1 items of positive weight in rows \[1, 4\] of log_weights"):
        gtd.sample(in_chunks(logs, 5, 2), 3, rng=0).compute()


@pytest.mark.parametrize("rng", [np.random.default_rng(0), np.random.SeedSequence(0), True, 1.0, "seed"])
def test_other_generators_are_refused_with_a_reason(rng) -> None:
    with pytest.raises(TypeError, match=r"pass an int or a CounterRNG: workers share no generator"):
        gtd.sample(weights=in_chunks(np.ones(3), 2), k=1, rng=rng)


def test_what_is_known_at_the_call_is_refused_at_the_call() -> None:
    ones = in_chunks(np.ones(3), 2)
    with pytest.raises(TypeError, match=r"exactly one of log_weights and weights=; both were given"):
        gtd.sample(ones, 1, weights=ones)
    with pytest.raises(TypeError, match=r"neither was given"):
        gtd.sample(k=1)
    with pytest.raises(TypeError, match=r"k is missing"):
        gtd.sample(weights=ones)
    with pytest.raises(ValueError, match=r"k = 4 is more than the n = 3 items"):
        gtd.sample(weights=ones, k=4)
    with pytest.raises(TypeError, match=r"weights is of type ndarray; pass a Dask array, or call gumbeltopk.sample"):
        gtd.sample(weights=np.ones(3), k=1)
    with pytest.raises(ValueError, match=r"weights has 3 dimensions; pass shape \(n,\) or \(rows, n\)"):
        gtd.sample(weights=da.ones((2, 2, 2)), k=1)
    with pytest.raises(TypeError, match=r"weights has dtype bool"):
        gtd.sample(weights=ones > 0, k=1)
    with pytest.raises(ValueError, match=r"chunks of unknown size; call weights.compute_chunk_sizes\(\) first"):
        gtd.sample(weights=ones[ones > 0], k=1)
    with pytest.raises(ValueError, match=r"seed = -1 is negative"):
        gtd.sample(weights=ones, k=1, rng=-1)


# --- workers --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of distributed: ports that are taken, sockets that it closes late
def test_workers_of_a_cluster_give_the_same() -> None:
    distributed = pytest.importorskip("distributed")
    weights = np.random.default_rng(SEED).exponential(size=5000)
    items = db.from_sequence(weights.tolist(), npartitions=7)
    keys = in_chunks(np.log(weights), 700)

    def everything():
        reservoir = gtd.reservoir_reduce(items, 6, weight=float, rng=1, split_every=2)
        indices = gtd.sample(weights=in_chunks(weights, 300), k=9, rng=2)
        relaxed, residuals = gtd.relaxed_topk.fwd(keys, 3, split_every=2)
        gradient = gtd.relaxed_topk.vjp(residuals, keys)
        results = dask.compute(reservoir, indices, relaxed, gradient)
        return [results[0].sample(), *(part.tolist() for part in results[1:])]

    alone = everything()
    with (
        dask.config.set(scheduler=None),
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        assert everything() == alone


# --- reservoirs of partitions ---------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3, 10])
def test_counters_give_the_reservoir_of_all_items(partitions: int) -> None:
    weights = np.random.default_rng(SEED).lognormal(2.0, size=1000)
    whole = gt.Reservoir(8, rng=gt.CounterRNG(3))
    whole.update(weights)
    items = db.from_sequence(weights.tolist(), npartitions=partitions)
    merged = gtd.reservoir_reduce(items, 8, weight=float, rng=gt.CounterRNG(3), split_every=2).compute()
    assert merged.sample() == weights[whole.sample()].tolist()
    assert merged.numbers.tolist() == whole.numbers.tolist()
    assert merged.count == 1000
    assert merged.total_weight == pytest.approx(whole.total_weight, rel=1e-15)


def test_a_seed_gives_one_result_whatever_the_tree() -> None:
    items = db.from_sequence(range(300), npartitions=9)
    samples = [gtd.reservoir_reduce(items, 5, rng=1, split_every=number).compute().sample() for number in (2, 3, 20)]
    assert samples[0] == samples[1] == samples[2]
    assert samples[0] != gtd.reservoir_reduce(items, 5, rng=2).compute().sample()
    sequence = gtd.reservoir_reduce(items, 5, rng=np.random.SeedSequence(1)).compute()
    assert len(set(sequence.sample())) == 5


def test_picks_from_partitions_are_by_weight_among_what_is_left() -> None:
    """200,000 picks: 100 of 300 items in five classes, in 3 partitions, under 2000 seeds.

    Power 1 - 1e-6: relative errors of 4.6 % rms in the 20 cells of a third of the picks.
    """
    assert _statistics.smallest_error_found(2000 * 33, 20) < 0.046
    items = db.from_sequence(range(300), npartitions=3)
    make = [gtd.reservoir_reduce(items, 100, weight=lambda i: WEIGHTS[i // 60], rng=seed) for seed in range(2000)]
    picks = np.asarray([reservoir.sample() for reservoir in dask.compute(*make)])
    _statistics.assert_sequential(picks // 60, WEIGHTS, 60)


def test_first_items_of_partitions_have_the_right_distribution() -> None:
    """First of 5 items in 3 partitions under 1,000 seeds: relative errors of 33 % rms are found with power 1 - 1e-6."""
    items = db.from_sequence(range(5), partition_size=2)
    assert _statistics.smallest_error_found(1000, 5) < 0.33
    make = [gtd.reservoir_reduce(items, 1, weight=WEIGHTS.__getitem__, rng=seed) for seed in range(1000)]
    first = [reservoir.sample()[0] for reservoir in dask.compute(*make)]
    _statistics.assert_distribution(np.bincount(first, minlength=5), WEIGHTS)


def test_generators_are_not_those_of_data_from_the_same_seed() -> None:
    """Weights from the children of SeedSequence(0), as Dask makes them: all items would arrive at the same time."""
    children = np.random.SeedSequence(0).spawn(2)
    data = [np.random.default_rng(child).standard_exponential(50).tolist() for child in children]
    items = db.from_sequence([*data[0], *data[1]], npartitions=2)
    merged = gtd.reservoir_reduce(items, 100, weight=float, rng=0).compute()
    assert np.ptp(merged.log_arrival_times) > 1.0


def test_fields_are_weights() -> None:
    items = db.from_sequence([{"name": "ann", "weight": 0.0}, {"name": "ben", "weight": 2.0}], npartitions=2)
    merged = gtd.reservoir_reduce(items, 2, weight="weight", rng=0).compute()
    assert merged.sample() == [{"name": "ben", "weight": 2.0}]


def test_a_merged_reservoir_goes_on() -> None:
    merged = gtd.reservoir_reduce(db.from_sequence(range(10), npartitions=3), 4, rng=0).compute()
    merged = pickle.loads(pickle.dumps(merged))
    merged.add("another")
    assert merged.count == 11


@pytest.mark.parametrize("rng", [0, gt.CounterRNG(0)])
def test_rows_of_a_data_frame_are_dicts(rng) -> None:
    dd = pytest.importorskip("dask.dataframe")
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"name": [f"name {i}" for i in range(100)], "size": np.arange(100.0)})
    lazy = dd.from_pandas(frame, npartitions=4)
    merged = gtd.reservoir_reduce(lazy, 100, weight="size", rng=rng).compute()
    assert merged.total_weight == 4950
    kept = pd.DataFrame(merged.sample()).sort_values("size", ignore_index=True)
    pd.testing.assert_frame_equal(kept, frame.iloc[1:].reset_index(drop=True), check_dtype=False)
    doubled = gtd.reservoir_reduce(lazy, 3, weight=lambda part: 2 * part["size"], rng=rng).compute()
    assert doubled.total_weight == 9900
    if isinstance(rng, gt.CounterRNG):
        assert merged.numbers[:3].tolist() == gt.sample(weights=np.arange(100.0), k=3, rng=rng).tolist()


def test_bad_reservoirs() -> None:
    items = db.from_sequence([1.0, 2.0, -1.0, 3.0], partition_size=2)
    with pytest.raises(ValueError, match=r"partition 1: weight = -1.0 of item number 0"):
        gtd.reservoir_reduce(items, 2, weight=float, rng=0).compute()
    with pytest.raises(TypeError, match=r"collection is of type list; pass a Dask bag or data frame"):
        gtd.reservoir_reduce([1, 2], 2)
    with pytest.raises(TypeError, match=r"collection is of type Array"):
        gtd.reservoir_reduce(da.ones(3), 2)
    with pytest.raises(ValueError, match=r"k = 0 keeps nothing"):
        gtd.reservoir_reduce(items, 0)
    with pytest.raises(ValueError, match=r"split_every = 1 puts nothing together"):
        gtd.reservoir_reduce(items, 1, split_every=1)
    with pytest.raises(TypeError, match=r"each partition needs one of its own"):
        gtd.reservoir_reduce(items, 1, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"rng = -1 is negative"):
        gtd.reservoir_reduce(items, 1, rng=-1)
