"""The statistical tests have teeth: samplers with the well-known mistakes fail them, the correct one passes.

All get the draws, the weights and the false-alarm rate of tests/test_sampling.py and tests/test_keys.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

import gumbeltopk as gt
from tests import _reference, _statistics

DRAWS = 200_000
NOISE_DRAWS = 1_000_000
WEIGHTS = np.asarray([1.0, 2.0, 3.0, 4.0, 0.0])
K = 2
ORDERED = list(itertools.permutations(range(5), K))
ORDERED_PROBABILITIES = np.asarray([float(_reference.ordered_probability(WEIGHTS, order)) for order in ORDERED])

Sampler = Callable[[np.ndarray, int, int, np.random.Generator], np.ndarray]


# --- samplers: (weights, k, draws, rng) -> (draws, k) items in order of selection --------------------


def largest(keys: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-keys, axis=-1, kind="stable")[:, :k]


def log_of(weights: np.ndarray) -> np.ndarray:
    return np.log(weights, out=np.full(len(weights), -np.inf), where=weights > 0)


def correct(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    return largest(log_of(weights) - np.log(rng.standard_exponential((draws, len(weights)))), k)


def of_the_package(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    return gt.sample(weights=np.broadcast_to(weights, (draws, len(weights))), k=k, rng=rng)


def proportional_to_size(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic sampling in random order: the inclusion probabilities are k w / W, another design."""
    order = rng.permuted(np.tile(np.arange(len(weights)), (draws, 1)), axis=-1)
    ends = np.cumsum(weights[order] * (k / weights.sum()), axis=-1)
    ticks = rng.random((draws, 1)) + np.arange(k)
    places = np.minimum((ends[:, None, :] <= ticks[..., None]).sum(axis=-1), len(weights) - 1)
    return np.take_along_axis(order, places, axis=-1)


def restart_on_duplicates(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """k draws with replacement, all of them anew if an item appears twice."""
    rows = rng.choice(len(weights), size=(3 * draws, k), p=weights / weights.sum())
    ordered = np.sort(rows, axis=-1)
    return rows[np.all(ordered[:, 1:] != ordered[:, :-1], axis=-1)][:draws]


def wrong_side_of_a_boundary(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Sequential draws by integer cumulative sums; a draw that ties with a boundary goes to the item below it."""
    left = np.tile(weights.astype(np.int64), (draws, 1))
    chosen = []
    for _ in range(k):
        ends = np.cumsum(left, axis=-1)
        ticks = rng.integers(0, ends[:, -1])[:, None]
        chosen.append((ends < ticks).sum(axis=-1))  # right is: ends <= ticks
        np.put_along_axis(left, chosen[-1][:, None], 0, axis=-1)
    return np.stack(chosen, axis=-1)


def wrong_sign_of_the_noise(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    return largest(log_of(weights) + np.log(rng.standard_exponential((draws, len(weights)))), k)


def exponential_for_gumbel(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    return largest(log_of(weights) - np.log1p(-rng.random((draws, len(weights)))), k)


def frozen_noise(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    return np.tile(correct(weights, k, 1, rng), (draws, 1))


def frozen_in_pairs(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Every draw is used twice: the probabilities are right, the draws are not independent."""
    return np.repeat(correct(weights, k, draws // 2, rng), 2, axis=0)


def powers_at_tiny_weights(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Algorithm 1 as it is printed, u^(1/w), with the same weights on another scale: most keys underflow to 0."""
    small = np.where(weights > 0, weights, 1e-30) * 1e-3
    with np.errstate(under="ignore"):
        return largest(rng.random((draws, len(weights))) ** (1 / small), k)


def second_and_third(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The order statistics are off by one."""
    return correct(weights, k + 1, draws, rng)[:, 1:]


MUTANTS = (
    proportional_to_size,
    restart_on_duplicates,
    wrong_side_of_a_boundary,
    wrong_sign_of_the_noise,
    exponential_for_gumbel,
    frozen_noise,
    frozen_in_pairs,
    powers_at_tiny_weights,
    second_and_third,
)


def check_samples(sampler: Sampler, seed: int) -> None:
    """The tests of tests/test_sampling.py."""
    rows = sampler(WEIGHTS, K, DRAWS, np.random.default_rng(seed))
    assert rows.shape == (DRAWS, K)
    _statistics.assert_distribution(_statistics.count_rows(rows, ORDERED), ORDERED_PROBABILITIES)
    _statistics.assert_independent(rows[:, 0], WEIGHTS / WEIGHTS.sum())


@pytest.mark.parametrize("sampler", [correct, of_the_package], ids=lambda sampler: sampler.__name__)
def test_the_correct_sampler_passes(sampler: Sampler) -> None:
    """Ten times: a test that is too strict would show."""
    for seed in range(10):
        check_samples(sampler, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sampler", MUTANTS, ids=lambda sampler: sampler.__name__)
def test_the_mutant_fails(sampler: Sampler, seed: int) -> None:
    with pytest.raises(AssertionError):
        check_samples(sampler, seed)


def test_the_mutants_are_what_they_say() -> None:
    """Where a mistake leaves no trace in some cell probabilities, the mutant shows that it is the intended one."""
    rng = np.random.default_rng(0)
    rows = proportional_to_size(WEIGHTS, K, DRAWS, rng)
    inclusion = np.bincount(rows.ravel(), minlength=5) / DRAWS
    np.testing.assert_allclose(inclusion, K * WEIGHTS / WEIGHTS.sum(), atol=0.005)
    first = np.bincount(restart_on_duplicates(WEIGHTS, 1, DRAWS, rng)[:, 0], minlength=5) / DRAWS
    np.testing.assert_allclose(first, WEIGHTS / WEIGHTS.sum(), atol=0.005)
    assert (wrong_side_of_a_boundary(WEIGHTS[::-1], 1, DRAWS, rng) == 0).any()  # an item of weight zero


CLASSES, COPIES = WEIGHTS[:4], 10


def picks_of(sampler: Sampler, k: int = 20) -> np.ndarray:
    """The class of each of 200,000 picks."""
    rows = sampler(np.repeat(CLASSES, COPIES), k, DRAWS // k, np.random.default_rng(1))
    return rows // COPIES


def with_a_weight_that_is_off(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    return correct(weights * np.where(np.arange(len(weights)) < COPIES, 1.1, 1.0), k, draws, rng)


def as_if_nothing_were_taken_out(weights: np.ndarray, k: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draws with replacement, of which none is told to be a repeat."""
    return rng.choice(len(weights), size=(draws, k), p=weights / weights.sum())


@pytest.mark.parametrize("sampler", [correct, of_the_package], ids=lambda sampler: sampler.__name__)
def test_correct_picks_pass(sampler: Sampler) -> None:
    _statistics.assert_sequential(picks_of(sampler), CLASSES, COPIES)


PICK_MUTANTS = (
    with_a_weight_that_is_off,
    as_if_nothing_were_taken_out,
    proportional_to_size,
    wrong_sign_of_the_noise,
    exponential_for_gumbel,
    frozen_in_pairs,
    second_and_third,
)


@pytest.mark.parametrize("mutant", PICK_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_mutant_picks_fail(mutant: Sampler) -> None:
    with pytest.raises(AssertionError):
        _statistics.assert_sequential(picks_of(mutant), CLASSES, COPIES)


# --- noise ----------------------------------------------------------------------------------------


def noise_of_float32_uniforms(rng: np.random.Generator) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return -np.log(-np.log(rng.random(NOISE_DRAWS, dtype=np.float32)))


def noise_of_the_wrong_sign(rng: np.random.Generator) -> np.ndarray:
    return np.log(rng.standard_exponential(NOISE_DRAWS))


def noise_that_is_exponential(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_exponential(NOISE_DRAWS)


def noise_drawn_once(rng: np.random.Generator) -> np.ndarray:
    return np.tile(rng.gumbel(size=NOISE_DRAWS // 2), 2)


def noise_with_a_clamped_uniform(rng: np.random.Generator) -> np.ndarray:
    """The tail above 9.2 is cut: 1e-4 of the draws."""
    return -np.log(-np.log(np.clip(rng.random(NOISE_DRAWS), 1e-4, 1 - 1e-4)))


def noise_of_a_normal_tail(rng: np.random.Generator) -> np.ndarray:
    """Right but for 1 in 1000 draws: above 6.9 noise is replaced by the normal distribution's tail."""
    noise = rng.gumbel(size=NOISE_DRAWS)
    return np.where(noise > 6.9, 6.9 + np.abs(rng.normal(size=NOISE_DRAWS)), noise)


NOISE_MUTANTS = (
    noise_of_float32_uniforms,
    noise_of_the_wrong_sign,
    noise_that_is_exponential,
    noise_drawn_once,
    noise_with_a_clamped_uniform,
    noise_of_a_normal_tail,
)


def check_noise(noise: np.ndarray) -> None:
    """The tests of tests/test_keys.py."""
    _statistics.assert_distinct(noise)
    _statistics.assert_gumbel(noise)


def test_gumbel_noise_passes() -> None:
    for seed in range(5):
        check_noise(np.random.default_rng(seed).gumbel(size=NOISE_DRAWS))


@pytest.mark.parametrize("mutant", NOISE_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_mutant_noise_fails(mutant: Callable[[np.random.Generator], np.ndarray]) -> None:
    noise: Any = mutant(np.random.default_rng(0))
    with pytest.raises(AssertionError):
        check_noise(noise)


# --- the helpers themselves -----------------------------------------------------------------------


def test_p_value_is_the_likelihood_ratio_test_of_scipy() -> None:
    """Within 1 percent: what Williams' correction amounts to in large cells."""
    counts, probabilities = np.asarray([520, 1010, 1470]), np.asarray([1, 2, 3]) / 6
    expected = stats.power_divergence(counts, 3000 * probabilities, lambda_="log-likelihood").pvalue
    assert _statistics.distribution_p_value(counts, probabilities) == pytest.approx(expected, rel=0.01)


def test_p_values_of_correct_counts_are_uniform() -> None:
    probabilities = np.asarray([0.005, 0.01, 0.04, 0.1, 0.2, 0.3, 0.345])
    counts = np.random.default_rng(0).multinomial(5000, probabilities, size=4000)
    p_values = [_statistics.distribution_p_value(row, probabilities) for row in counts]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-6


@pytest.mark.parametrize("expected", [20, 50, 1000])
def test_false_alarms_are_one_in_a_million_out_to_the_smallest_cell(expected: int) -> None:
    """Exactly, by summing the binomial distribution over all counts that raise the alarm."""
    draws = 100_000
    counts = np.arange(3 * expected + 100)
    alarms = [
        _statistics.distribution_p_value([count, draws - count], [expected, draws - expected]) < _statistics.ALPHA
        for count in counts
    ]
    rate = stats.binom.pmf(counts, draws, expected / draws)[alarms].sum()
    assert 0.2e-6 < rate < 1.2e-6


def test_rare_cells_are_joined_and_not_dropped() -> None:
    probabilities = np.asarray([0.5, 0.4995, 0.0001, 0.0001, 0.0001, 0.0001, 0.0001])
    right, wrong = np.asarray([5000, 4995, 1, 1, 1, 1, 1]), np.asarray([4990, 4900, 22, 22, 22, 22, 22])
    assert _statistics.distribution_p_value(right, probabilities) > 0.5
    assert _statistics.distribution_p_value(wrong, probabilities) < 1e-6
    # One draw in a cell that expects 1/1000 of one happens in one run out of 1000.
    assert _statistics.distribution_p_value([5000, 4999, 1], [0.5, 0.4999999, 0.0000001]) == pytest.approx(
        2e-3, rel=0.01
    )


def test_joint_cells_have_enough_draws_and_lose_none() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        expected = rng.uniform(0.01, 19.9, size=rng.integers(1, 40))
        joint_counts, joint_expected = _statistics._join_rare_cells(np.ones(len(expected)), expected)
        assert joint_counts.sum() == len(expected)
        assert joint_expected.sum() == pytest.approx(expected.sum())
        assert joint_expected.min() >= min(_statistics.FEWEST_EXPECTED, expected.sum() * (1 - 1e-12))


def test_an_impossible_draw_is_an_error() -> None:
    with pytest.raises(AssertionError, match="p-value 0"):
        _statistics.assert_distribution([10_000, 1], [1.0, 0.0])
    _statistics.assert_distribution([10_000, 0], [1.0, 0.0])


def test_the_stated_power_is_the_real_one() -> None:
    """200 runs with the stated error are all found; half of that error is mostly missed."""
    cells = 12
    error = _statistics.smallest_error_found(DRAWS, cells)
    right = np.full(cells, 1 / cells)
    signs = np.resize([1.0, -1.0], cells)
    rng = np.random.default_rng(1)

    def share_found(size: float) -> float:
        counts = rng.multinomial(DRAWS, right * (1 + size * signs), size=200)
        return float(np.mean([_statistics.distribution_p_value(row, right) < _statistics.ALPHA for row in counts]))

    assert share_found(error) == 1.0
    assert share_found(error / 2) < 0.5


def test_power_as_designed() -> None:
    """The promise: with 2e5 draws in a dozen cells, a 2.6 % rms relative error is found with power 1 - 1e-6."""
    assert _statistics.smallest_error_found(DRAWS, 12) <= 0.026


def test_count_rows_counts_each_row_of_the_support_in_its_place() -> None:
    support = [(0, 1), (2, 0), (1, 2), (0, 2)]
    rows = np.asarray([(2, 0)] * 3 + [(0, 2)] * 2 + [(0, 1)])
    assert _statistics.count_rows(rows, support).tolist() == [1, 3, 0, 2]
    assert _statistics.count_rows(np.empty((5, 0), dtype=int), [()]).tolist() == [5]


@pytest.mark.parametrize("row", [(1, 1), (3, 3), (1, 0), (-1, 2)])
def test_count_rows_refuses_a_row_outside_the_support(row: tuple[int, int]) -> None:
    with pytest.raises(AssertionError):
        _statistics.count_rows(np.asarray([(0, 1), row]), [(0, 1), (2, 0), (1, 2), (0, 2)])


def test_gumbel_cells_are_those_of_scipy() -> None:
    edges, probabilities = _statistics.gumbel_cells()
    assert np.all(np.diff(edges) > 0)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(np.cumsum(probabilities)[:-1], stats.gumbel_r.cdf(edges), rtol=1e-10)
    np.testing.assert_allclose(probabilities[-1], stats.gumbel_r.sf(edges[-1]), rtol=1e-10)


def test_distinct_values() -> None:
    _statistics.assert_distinct([1.0, 2.0, 3.0])
    with pytest.raises(AssertionError, match="1 ties"):
        _statistics.assert_distinct([1.0, 2.0, 2.0])
    with pytest.raises(AssertionError, match="infinite"):
        _statistics.assert_distinct([1.0, np.inf])
