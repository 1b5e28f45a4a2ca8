"""Many samples from one distribution: first occurrences in streams of draws with replacement, and then keys.

False-alarm rate 1e-6, 2e5 draws unless it says otherwise: the power is that of tests/test_sampling.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from gumbeltopk import sampler as sampler_module
from gumbeltopk._numpy import repeated_draws
from tests import _statistics
from tests.test_keys import layouts
from tests.test_sampling import DRAWS, WEIGHTS, assert_samples, subset_distribution


@pytest.fixture
def streams_for_few(monkeypatch) -> None:
    """Streams for as few items as can be enumerated."""
    monkeypatch.setattr(sampler_module, "FEWEST_ITEMS", 1)


def weights_of(n: int, spread: float = 1.0) -> np.ndarray:
    return np.exp(spread * np.random.default_rng(n).normal(size=n))


# --- the exact distribution -----------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5, 7])
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_the_distribution_of_ordered_samples(streams_for_few, argument: str, n: int) -> None:
    """Streams that go on and streams that give up; zero weights at the beginning, inside and at the end."""
    weights = np.zeros(n + 3)
    weights[1 : n // 2 + 1] = WEIGHTS[: n // 2]
    weights[n // 2 + 2 : n + 2] = WEIGHTS[n // 2 : n]
    with np.errstate(divide="ignore"):
        law = gt.Sampler(**{argument: weights if argument == "weights" else np.log(weights)})
    positive = np.flatnonzero(weights)
    place = np.cumsum(weights > 0) - 1
    for k in {1, min(3, n), n}:
        rows = law.sample(k, DRAWS, rng=k)
        assert (weights[rows] > 0).all()
        assert_samples(place[rows], weights[positive])


@pytest.mark.parametrize("weights", [[1.0, 60.0, 2.0, 0.5, 3.0], [1e6, 1.0, 2.0, 1e9, 4.0], [1e-30, 1e30, 2e-30, 1.0]])
def test_streams_that_give_up(streams_for_few, weights) -> None:
    """One item has nearly all weight: most rows go on by keys, with what they have."""
    law = gt.Sampler(weights=weights)
    assert_samples(law.sample(3, DRAWS, rng=1), weights)
    assert_samples(gt.Sampler(np.log(weights)).sample(3, DRAWS, rng=2), weights)


def test_subsets_of_a_distribution_that_keys_draw() -> None:
    law = gt.Sampler(weights=WEIGHTS)
    rows = np.sort(law.sample(3, DRAWS, rng=3), axis=-1)
    support, probabilities = subset_distribution(tuple(WEIGHTS.tolist()), 3)
    _statistics.assert_distribution(_statistics.count_rows(rows, support), probabilities)


@pytest.mark.parametrize(("n", "k", "draws"), [(100, 40, 20_000), (5000, 30, 20_000), (5000, 1000, 500)])
def test_two_classes_are_wallenius(n: int, k: int, draws: int) -> None:
    first, odds = n // 4, 3.0
    rows = gt.Sampler(weights=np.where(np.arange(n) < first, odds, 1.0)).sample(k, draws, rng=4)
    counts = np.bincount((rows < first).sum(axis=-1), minlength=k + 1)
    _statistics.assert_distribution(counts, stats.nchypergeom_wallenius.pmf(np.arange(k + 1), n, first, k, odds))
    ordered = np.sort(rows, axis=-1)
    assert (ordered[:, 1:] != ordered[:, :-1]).all()


def test_first_picks_are_independent_between_rows() -> None:
    weights = weights_of(70)
    rows = gt.Sampler(weights=weights).sample(2, DRAWS, rng=5)
    _statistics.assert_independent(rows[:, 0], weights / weights.sum())


# --- mutants --------------------------------------------------------------------------------------


def mutant_restart(ends, k, rows, rng):
    """Rows with an item twice are drawn anew."""
    items = repeated_draws.locate(ends, rng.random((rows, k)))
    while True:
        ordered = np.sort(items, axis=-1)
        again = (ordered[:, 1:] == ordered[:, :-1]).any(axis=-1)
        if not again.any():
            return items, np.full(rows, k)
        items[again] = repeated_draws.locate(ends, rng.random((again.sum(), k)))


def mutant_wrong_side(ends, k, rows, rng):
    """A uniform on a coarse grid that ties with a boundary goes to the item below it."""
    drawn = np.searchsorted(ends, np.floor(rng.random((rows, 100)) * 64) / 64 * ends[-1], side="left")
    return repeated_draws.distinct_in_order(drawn, k)


@pytest.mark.parametrize("mutant", [mutant_restart, mutant_wrong_side], ids=lambda mutant: mutant.__name__)
def test_the_mutant_fails(monkeypatch, streams_for_few, mutant) -> None:
    weights = np.asarray([1.0, 2.0, 4.0, 1.0])
    monkeypatch.setattr(repeated_draws, "first_occurrences", mutant)
    with pytest.raises(AssertionError):
        assert_samples(gt.Sampler(weights=weights).sample(2, DRAWS, rng=6), weights)


def test_a_position_on_a_boundary_belongs_to_the_item_behind_it() -> None:
    weights = np.asarray([0.0, 3.0, 0.0, 2.0, 3.0, 0.0])
    items = repeated_draws.locate(np.cumsum(weights), np.arange(8) / 8)
    assert np.bincount(items, minlength=6).tolist() == weights.astype(int).tolist()
    largest = np.nextafter(1.0, 0.0)
    for scale in (1.0, 3.0, 1.1, 1e-300, 1e300):  # the sums are never subnormal: the weights are scaled
        assert repeated_draws.locate(np.cumsum(weights * scale), np.asarray([0.0, largest])).tolist() == [1, 4]


# --- what a sample may not depend on --------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("n", [10, 70, 300, 6000])
def test_smaller_samples_are_the_beginning_of_larger_ones(n: int, spread: float) -> None:
    """Whichever rows give up, and where."""
    law, largest = gt.Sampler(weights=weights_of(n, spread)), min(n, 300)
    full = law.sample(largest, 300, rng=7)
    for k in (0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 65, 200):
        if k <= largest:
            np.testing.assert_array_equal(law.sample(k, 300, rng=7), full[:, :k])
    ordered = np.sort(full, axis=-1)
    assert (ordered[:, 1:] != ordered[:, :-1]).all()


@pytest.mark.parametrize("m", [-900, 37, 900])
def test_weights_times_a_power_of_two_give_the_same_indices(m: int) -> None:
    weights = weights_of(500)
    rows = gt.Sampler(weights=weights * 2.0**m).sample(100, 50, rng=8)
    np.testing.assert_array_equal(rows, gt.Sampler(weights=weights).sample(100, 50, rng=8))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_layout_and_dtype_do_not_matter_and_the_input_stays(dtype, argument: str) -> None:
    values = weights_of(300).astype(dtype)
    expected = gt.Sampler(**{argument: values.astype(np.float64)}).sample(100, 20, rng=9)
    for name, variant in layouts(values[np.newaxis]).items():
        flat = variant[0]
        before = np.asarray(flat).tobytes()
        rows = gt.Sampler(**{argument: flat}).sample(100, 20, rng=9)
        np.testing.assert_array_equal(rows, expected, err_msg=name)
        assert np.asarray(flat).tobytes() == before


def test_later_changes_of_the_weights_do_not_reach_it() -> None:
    weights = weights_of(100, 5.0)
    law = gt.Sampler(weights=weights)
    expected = law.sample(50, 10, rng=10)
    weights[:] = 1.0
    np.testing.assert_array_equal(law.sample(50, 10, rng=10), expected)


def test_shapes_on_every_library(to_xp, library) -> None:
    for n in (5, 100):
        law = gt.Sampler(to_xp(np.zeros(n)))
        for shape, expected in (((), ()), (4, (4,)), ((2, 3), (2, 3)), ((0, 2), (0, 2))):
            rows = law.sample(3, shape, rng=11)
            assert rows.shape == (*expected, 3)
            assert api.namespace_of(rows) is library.xp
            assert api.device_of(rows) == library.device
            assert library.xp.isdtype(rows.dtype, "signed integer")
        assert law.n == n
        assert repr(law) == f"Sampler(n={n})"


@pytest.mark.parametrize("scale", [5e-324, 1e308])
def test_all_weights_tiny_or_huge(scale: float) -> None:
    """2e5 draws: the places are as likely."""
    rows = gt.Sampler(weights=np.full(80, scale)).sample(2, DRAWS, rng=14)
    for picks in rows.T:
        _statistics.assert_distribution(np.bincount(picks, minlength=80), np.ones(80))


def test_counter_based_samples_are_those_of_the_keys() -> None:
    weights = weights_of(100)
    rows = gt.Sampler(weights=weights).sample(5, 3, rng=gt.CounterRNG(12))
    expected = gt.sample(weights=np.broadcast_to(weights, (3, 100)), k=5, rng=gt.CounterRNG(12))
    np.testing.assert_array_equal(rows, expected)


def test_a_generator_moves_on_by_the_same_amount() -> None:
    law, states = gt.Sampler(weights=weights_of(100, 10.0)), set()
    for k in (1, 2, 50):
        rng = np.random.default_rng(13)
        law.sample(k, 20, rng=rng)
        states.add(rng.random())
    assert len(states) == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gt.Sampler(weights=[1.0, -1.0]), ValueError, r"weights\[1\] = -1.0"),
        (lambda: gt.Sampler([0.0, np.nan]), ValueError, r"log_weights\[1\] = nan"),
        (lambda: gt.Sampler(), TypeError, "neither was given"),
        (lambda: gt.Sampler([[0.0]]), ValueError, r"log_weights has shape \(1, 1\); a Sampler has one distribution"),
        (lambda: gt.Sampler([0.0]).sample(2), ValueError, "k = 2 is more than the n = 1 items"),
        (lambda: gt.Sampler([0.0]).sample(1.0), TypeError, "k = 1.0 must be an integer"),
        (lambda: gt.Sampler([0.0]).sample(1, -1), ValueError, r"shape = \(-1,\) has a negative length"),
        (lambda: gt.Sampler(weights=[0.0, 1.0]).sample(2), ValueError, "k = 2 is more than the 1 items of positive"),
        (lambda: gt.Sampler(weights=np.zeros(99)).sample(1), ValueError, "k = 1 is more than the 0 items of positive"),
        (lambda: gt.Sampler(np.zeros(99)).sample(1, rng=1.5), TypeError, "rng = 1.5 is not a seed"),
    ],
)
def test_bad_calls(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_nothing_to_draw() -> None:
    assert gt.Sampler(weights=np.zeros(99)).sample(0, 4, rng=0).shape == (4, 0)
    assert gt.Sampler(weights=[]).sample(0, 4, rng=0).shape == (4, 0)
    with pytest.raises(TypeError, match=r"rng = 1\.5 is not a seed"):
        gt.Sampler(weights=np.ones(99)).sample(0, rng=1.5)
