"""The block method for long rows: the exact distribution of its draws, and what its picks may not depend on.

One long row tests many samples at once: if the weights of 7 items are repeated in 200,000 groups, the arrival times
are independent, so the orders within the groups are independent samples of 7 items. The core is given blocks of 1, 4
and 9 items. Statistical tests have the false-alarm rate 1e-6 of tests/_statistics.py; with 2e5 groups the power is
1 - 1e-6 against root mean square relative errors of the cell probabilities of 2.4 % (7 cells), 4.5 % (210 cells) and
7.3 % (5040 cells).
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import gumbeltopk as gt
from gumbeltopk import _sample_by_blocks
from gumbeltopk._numpy import block_sampling
from tests import _statistics
from tests.test_keys import layouts
from tests.test_sampling import DRAWS, WEIGHTS, assert_samples, ordered_distribution

LONG = _sample_by_blocks.SHORTEST_ROW + 777  # the last block is short
CONCENTRATED = np.asarray([1.0, 60.0, 2.0, 0.5, 3.0, 0.7, 1.2])


def picks_of(weights, k: int, block_items: int, seed: int, limit: int | None = None) -> np.ndarray:
    """A sample (k,), or less of it, by the core alone."""
    row = block_sampling.Row(np.asarray(weights), block_items)
    limit = len(weights) if limit is None else limit
    return block_sampling.first_picks(row, block_sampling.block_sums(row), k, np.random.default_rng(seed), limit)


def orders_in_groups(order: np.ndarray, n: int) -> np.ndarray:
    """The order (groups, n) of the items of each group from the order of all items."""
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return np.argsort(ranks.reshape(-1, n), axis=-1)


def assert_all_sizes(rows: np.ndarray, weights) -> None:
    for k in range(1, len(weights) + 1):
        assert_samples(rows[:, :k], weights)


@pytest.fixture
def in_large_steps(monkeypatch) -> None:
    """Many picks of one row: what is drawn at a time is bounded for the sake of memory alone."""
    monkeypatch.setattr(block_sampling, "DRAWS_AT_A_TIME", 1 << 18)


def long_weights(dtype=np.float64, spread: float = 1.0) -> np.ndarray:
    return np.exp(spread * np.random.default_rng(0).normal(size=LONG)).astype(dtype)


# --- the exact distribution -----------------------------------------------------------------------


def test_the_power_is_as_stated() -> None:
    for cells, error in ((7, 0.024), (210, 0.045), (5040, 0.073)):
        assert _statistics.smallest_error_found(DRAWS, cells) < error


@pytest.mark.parametrize("block_items", [1, 4, 9])
def test_a_draw_gives_each_item_by_its_weight_whatever_is_removed(block_items: int) -> None:
    """2e5 draws for every kind of set that is gone: nothing, one item, a whole block, all but two."""
    for number, removed in enumerate(([], [4], [0, 1, 2, 3], [0, 2, 3, 4, 5])):
        row = block_sampling.Row(WEIGHTS, block_items)
        exponents = block_sampling.bound_exponents(row, block_sampling.block_sums(row))
        uniforms = np.random.default_rng(number).random((DRAWS, 2))
        items = block_sampling.draw_items(
            row, exponents, np.cumsum(np.ldexp(1.0, exponents)), np.asarray(removed, dtype=int), uniforms
        )
        left = WEIGHTS.copy()
        left[removed] = 0.0
        _statistics.assert_distribution(np.bincount(items, minlength=7), left)
        # The bound is GRID times a power of two, less than twice the weight of the block.
        bounds = block_sampling.GRID * np.ldexp(1.0, exponents).sum()
        _statistics.assert_distribution([len(items), DRAWS - len(items)], [left.sum(), bounds - left.sum()])
        _statistics.assert_independent(items, left / left.sum())


@pytest.mark.parametrize(
    ("weights", "block_items"), [(WEIGHTS, 4), (CONCENTRATED, 9), (WEIGHTS[:6], 9), (WEIGHTS[:5], 1)]
)
def test_samples_by_the_core(monkeypatch, in_large_steps, weights, block_items: int) -> None:
    """With a dozen refreshes on the way, between which the map of draws to items is out of date."""
    refreshes = []
    exact = block_sampling.exact_bound_exponents
    monkeypatch.setattr(
        block_sampling, "exact_bound_exponents", lambda blocks: refreshes.append(len(blocks)) or exact(blocks)
    )
    monkeypatch.setattr(block_sampling, "MOST_REFRESHES", 1000)
    order = picks_of(np.tile(weights, DRAWS), DRAWS * len(weights), block_items, seed=block_items)
    assert len(order) == DRAWS * len(weights)
    assert len(refreshes) > 5
    assert_all_sizes(orders_in_groups(order, len(weights)), weights)


def test_seven_items_and_a_few_blocks() -> None:
    """The groups are never as small as this: 4000 samples of k = 3, 210 cells, errors of 32 % are found."""
    assert _statistics.smallest_error_found(4000, 210) < 0.32
    rows = np.asarray([picks_of(CONCENTRATED, 3, 4, seed) for seed in range(4000)])
    for k in (1, 2, 3):
        orders, probabilities = ordered_distribution(tuple(CONCENTRATED.tolist()), k)
        _statistics.assert_distribution(_statistics.count_rows(rows[:, :k], orders), probabilities)


@pytest.mark.parametrize("block_items", [4, 25, 64])
def test_picks_of_many_short_rows(block_items: int) -> None:
    """200,000 picks, 100 of each of 2000 rows of 7 classes of 30 items, whose blocks are refreshed on the way.

    Power 1 - 1e-6: errors of 4.6 % in the 20 cells of a third of the picks.
    """
    assert _statistics.smallest_error_found(2000 * 33, 20) < 0.046
    weights = np.repeat(CONCENTRATED, 30)
    rows = np.asarray([picks_of(weights, 100, block_items, seed) for seed in range(2000)])
    _statistics.assert_sequential(rows // 30, CONCENTRATED, 30)


def test_picks_of_many_short_rows_by_the_public_function() -> None:
    """200,000 picks, 100 of each of 2000 rows: the first 64 or so by blocks, the others by keys."""
    for argument, given in (("weights", CONCENTRATED), ("log_weights", np.log(CONCENTRATED))):
        rows = gt.sample(**{argument: np.tile(np.repeat(given, 30), (2000, 1))}, k=100, rng=18, method="blocks")
        _statistics.assert_sequential(rows // 30, CONCENTRATED, 30)


@pytest.mark.parametrize("argument", ["weights", "log_weights"])
@pytest.mark.parametrize("limit", [64, 400_000])
def test_blocks_and_then_keys(monkeypatch, in_large_steps, argument: str, limit: int) -> None:
    """All items by the public function; the method changes after 64 picks, or in the middle of most groups."""
    monkeypatch.setattr(block_sampling, "SMALLEST_LIMIT", limit)
    weights = np.tile(WEIGHTS[:5], DRAWS)
    given = weights if argument == "weights" else np.log(weights)
    order = gt.sample(**{argument: given}, k=len(weights), rng=limit)
    assert_all_sizes(orders_in_groups(order, 5), WEIGHTS[:5])


def test_picks_of_concentrated_weights() -> None:
    """200,000 picks, 100 of each of 2000 rows of 6 classes of 30 items, two of which weigh nearly all."""
    weights = np.asarray([1e6, 1.0, 2.0, 3.0, 0.0, 1e9, 4.0])
    rows = gt.sample(weights=np.tile(np.repeat(weights, 30), (2000, 1)), k=100, rng=19, method="blocks")
    _statistics.assert_sequential(rows // 30, weights, 30)


def test_concentrated_weights_go_to_the_keys() -> None:
    """7 items of which two weigh nearly all: 3000 draws, errors of 34 % are found in the first 42 cells."""
    assert _statistics.smallest_error_found(3000, 42) < 0.34
    weights = np.asarray([1e6, 1.0, 2.0, 3.0, 0.0, 1e9, 4.0])
    rows = np.asarray([gt.sample(weights=weights, k=4, rng=seed, method="blocks") for seed in range(3000)])
    orders, probabilities = ordered_distribution(tuple(weights.tolist()), 4)
    _statistics.assert_distribution(_statistics.count_rows(rows, orders), probabilities)


@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_a_long_row_has_the_wallenius_distribution(argument: str) -> None:
    """Two classes, k = 300, 700 draws, 210,000 picks: the mean share of the first class, 0.6, is known to 0.5 %."""
    first, k, odds = LONG // 3, 300, 3.0
    weights = np.where(np.arange(LONG) < first, odds, 1.0)
    given = {argument: weights if argument == "weights" else np.log(weights)}
    rng = np.random.default_rng(4)
    rows = np.asarray([gt.sample(**given, k=k, rng=rng) for _ in range(700)])
    _statistics.assert_sequential((rows >= first).astype(int), [odds, 1.0], [first, LONG - first])
    counts = np.bincount((rows < first).sum(axis=-1), minlength=k + 1)
    _statistics.assert_distribution(counts, stats.nchypergeom_wallenius.pmf(np.arange(k + 1), LONG, first, k, odds))
    places = np.bincount(rows[rows < first] * 8 // first, minlength=8)
    _statistics.assert_distribution(places, np.full(8, 1 / 8))
    assert all(len(np.unique(row)) == k for row in rows)


# --- mutants --------------------------------------------------------------------------------------


def streams(weights, draws: int, length: int) -> np.ndarray:
    """Draws with replacement (draws, length) by the core."""
    row = block_sampling.Row(np.asarray(weights), 4)
    exponents = block_sampling.bound_exponents(row, block_sampling.block_sums(row))
    uniforms = np.random.default_rng(5).random((3 * draws * length, 2))
    cumulative = np.cumsum(np.ldexp(1.0, exponents))
    items = block_sampling.draw_items(row, exponents, cumulative, np.zeros(0, dtype=int), uniforms)
    return items[: draws * length].reshape(draws, length)


def distinct(rows: np.ndarray, k: int) -> np.ndarray:
    return np.asarray([list(dict.fromkeys(row))[:k] for row in rows.tolist() if len(set(row)) >= k])


def test_restarting_fails_where_going_on_passes() -> None:
    rows = streams(WEIGHTS[:4], 2 * DRAWS, 2)
    restarted = rows[rows[:, 0] != rows[:, 1]]
    with pytest.raises(AssertionError):
        assert_samples(restarted, WEIGHTS[:4])
    assert_samples(distinct(streams(WEIGHTS[:4], 20_000, 40), 2), WEIGHTS[:4])


def mutant_without_rejection(weights, rows, positions):
    """A position behind the last item of a block goes to the last item."""
    return np.minimum(FIND_ITEMS(weights, rows, positions), weights.shape[-1] - 1)


def mutant_of_bounds(weights, rows, positions):
    """A block by its bound, and an item in it by weight: the bounds are taken for sums."""
    ends = np.cumsum(weights, axis=-1)
    return FIND_ITEMS(weights, rows, positions / positions.max() * ends[rows, -1] * (1 - 1e-9))


FIND_ITEMS = block_sampling.find_items


@pytest.mark.parametrize("mutant", [mutant_without_rejection, mutant_of_bounds], ids=lambda mutant: mutant.__name__)
def test_the_mutant_fails(monkeypatch, in_large_steps, mutant) -> None:
    monkeypatch.setattr(block_sampling, "MOST_REFRESHES", 1000)
    monkeypatch.setattr(block_sampling, "find_items", mutant)
    with pytest.raises(AssertionError):
        assert_samples(orders_in_groups(picks_of(np.tile(WEIGHTS, DRAWS), 7 * DRAWS, 4, seed=6), 7)[:, :1], WEIGHTS)


def test_a_position_on_a_boundary_belongs_to_the_item_behind_it() -> None:
    """Integer weights and all integer positions: each item gets as many as it weighs, zero ones none."""
    weights = np.asarray([[0.0, 3.0, 0.0, 2.0, 1.0, 0.0, 0.0, 4.0, 0.0]])
    positions = np.arange(10.0)
    items = block_sampling.find_items(weights, np.zeros(10, dtype=int), positions)
    assert np.bincount(items, minlength=9).tolist() == weights[0].astype(int).tolist()
    assert block_sampling.find_items(weights, np.zeros(2, dtype=int), np.asarray([10.0, 12.0])).tolist() == [9, 9]


# --- what a sample may not depend on --------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0, 20.0, 100.0])
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_smaller_samples_are_the_beginning_of_larger_ones(argument: str, spread: float) -> None:
    """For flat weights, for concentrated ones (refreshes), and for those that are left to the keys."""
    logs = spread * np.random.default_rng(7).normal(size=LONG)
    given = {argument: logs if argument == "log_weights" else np.exp(logs)}
    full = gt.sample(**given, k=2000, rng=7)
    for k in (1, 2, 7, 8, 9, 31, 32, 33, 100, 513, 1000, 1999):
        np.testing.assert_array_equal(gt.sample(**given, k=k, rng=7), full[:k])
    assert len(np.unique(full)) == 2000


def test_rows_and_the_generator_do_not_depend_on_k() -> None:
    batch = np.stack([long_weights(), long_weights(spread=3.0)])
    states = []
    for k in (1, 20, 900):
        rng = np.random.default_rng(8)
        rows = gt.sample(weights=batch, k=k, rng=rng)
        np.testing.assert_array_equal(rows, gt.sample(weights=batch, k=900, rng=8)[:, :k])
        states.append(rng.random())
    assert len(set(states)) == 1
    each = gt.sample(weights=batch, k=np.asarray([5, 3]), rng=8)
    np.testing.assert_array_equal(each, np.where(np.arange(5) < [[5], [3]], rows[:, :5], -1))


@pytest.mark.parametrize("m", [-900, -500, -1, 37, 900])
@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_weights_times_a_power_of_two_give_the_same_indices(m: int, spread: float) -> None:
    weights = long_weights(spread=spread)
    weights = np.minimum(weights, 2.0**60)
    scaled = gt.sample(weights=weights * 2.0**m, k=300, rng=9)
    np.testing.assert_array_equal(scaled, gt.sample(weights=weights, k=300, rng=9))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_dtype_and_layout_do_not_matter_and_the_input_stays(dtype, argument: str) -> None:
    """Equal to the sample of the contiguous float64 copy, though its sums are made in another precision."""
    values = long_weights(dtype)
    expected = gt.sample(**{argument: values.astype(np.float64)}, k=1500, rng=10)
    variants = {name: row[0] for name, row in layouts(values[np.newaxis]).items() if name != "list"}
    for variant in (values, *variants.values()):
        before = np.asarray(variant).tobytes()
        np.testing.assert_array_equal(gt.sample(**{argument: variant}, k=1500, rng=10), expected)
        assert np.asarray(variant).tobytes() == before


@pytest.mark.parametrize("value", [block_sampling.GRID / 1024, block_sampling.GRID * (1 + 1e-7), 0.75, 3e38])
def test_sums_at_a_bound_are_told_apart_alike_in_every_precision(value: float) -> None:
    """All sums lie at a bound, where rounding decides, or overflow in float32."""
    weights = np.full(LONG, value, dtype=np.float32) * np.linspace(0.9999999, 1.0, LONG, dtype=np.float32)
    rows = [gt.sample(weights=weights.astype(dtype), k=1500, rng=11) for dtype in (np.float32, np.float64)]
    np.testing.assert_array_equal(*rows)


def test_where_is_a_weight_of_zero() -> None:
    weights, where = long_weights(), np.arange(LONG) % 3 == 0
    expected = gt.sample(weights=np.where(where, weights, 0.0), k=500, rng=12)
    masked = np.where(where, weights, np.nan)
    np.testing.assert_array_equal(gt.sample(weights=masked, where=where, k=500, rng=12), expected)
    assert (expected % 3 == 0).all()


def test_the_items_axis_may_be_the_first() -> None:
    batch = np.stack([long_weights(), long_weights(spread=2.0)])
    first = gt.sample(weights=np.ascontiguousarray(batch.T), k=20, axis=0, rng=13)
    np.testing.assert_array_equal(first, gt.sample(weights=batch, k=20, rng=13))


# --- extreme weights, few weights -----------------------------------------------------------------


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e308])
def test_all_weights_tiny_or_huge(scale: float) -> None:
    """Sums that overflow and sums of subnormal numbers: the places are as likely. 2000 picks, 8 cells."""
    picks = gt.sample(weights=np.full(LONG, scale), k=2000, rng=14)
    _statistics.assert_distribution(np.bincount(picks * 8 // LONG, minlength=8), np.full(8, 1 / 8))


def test_from_the_largest_to_the_smallest_float() -> None:
    """Once the giants are gone, the others are drawn by weight."""
    weights = np.zeros(LONG)
    items = [5, 1024, 70_000, LONG - 1]
    weights[items] = [1e308, 1e-300, 5e-324, 1.0]
    assert gt.sample(weights=weights, k=4, rng=15).tolist() == [5, LONG - 1, 1024, 70_000]
    logs = np.full(LONG, -np.inf)
    logs[items] = [1e30, -1e5, -1e30, 0.0]
    assert gt.sample(logs, 4, rng=15).tolist() == [5, LONG - 1, 1024, 70_000]


def test_a_weight_of_zero_is_never_drawn() -> None:
    weights = np.where(np.arange(LONG) % 64 < 63, 0.0, 1.0)
    weights[: LONG // 2] = 0.0
    for seed in range(20):
        assert (weights[gt.sample(weights=weights, k=2000, rng=seed)] > 0).all()


def test_too_few_items() -> None:
    weights = np.zeros(LONG)
    weights[[3, 5000]] = 1.0
    with pytest.raises(ValueError, match="k = 3 is more than the 2 items of positive weight of weights"):
        gt.sample(weights=weights, k=3, rng=16)
    with pytest.raises(ValueError, match=r"in rows \[1\]"):
        gt.sample(weights=np.stack([np.ones(LONG), weights]), k=3, rng=16)
    indices, mask = gt.sample(weights=weights, k=3, rng=16, on_short="pad", return_mask=True)
    assert sorted(indices.tolist()) == [-1, 3, 5000]
    assert mask.tolist() == [True, True, False]
    assert gt.sample(weights=np.zeros(LONG), k=2, rng=16, on_short="pad").tolist() == [-1, -1]
    assert gt.sample(np.full(LONG, -np.inf), 2, rng=16, on_short="pad").tolist() == [-1, -1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e-30, -np.inf])
@pytest.mark.parametrize("place", [0, 100_000, LONG - 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_bad_weight_among_many_is_found(bad: float, place: int, dtype) -> None:
    weights = np.full(LONG, 1e9, dtype=dtype)
    weights[place] = bad
    with pytest.raises(ValueError, match=rf"weights\[{place}\] = "):
        gt.sample(weights=weights, k=2, rng=17)
    if not bad < 0:
        with pytest.raises(ValueError, match=rf"log_weights\[{place}\] = "):
            gt.sample(weights, 2, rng=17)


def test_where_blocks_cannot_be_had(to_xp, library) -> None:
    if library.name != "numpy":
        with pytest.raises(ValueError, match="method = 'blocks' is for NumPy arrays"):
            gt.sample(weights=to_xp([1.0, 2.0]), k=1, method="blocks")
    with pytest.raises(ValueError, match="method = 'blocks' has no draw for each item"):
        gt.sample(weights=[1.0, 2.0], k=1, method="blocks", rng=gt.CounterRNG(0))
    with pytest.raises(ValueError, match="method = 'block' is not known"):
        gt.sample(weights=[1.0, 2.0], k=1, method="block")
