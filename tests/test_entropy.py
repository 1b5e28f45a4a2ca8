"""Entropy and mode of sequential samples, ordered (eq. 1) and as subsets (eq. 2), and partial rankings."""

from __future__ import annotations

import itertools
from typing import Any

import mpmath
import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from tests import _reference

LAWS = pytest.mark.parametrize("law", [gt.PlackettLuce, gt.SubsetDistribution], ids=lambda law: law.__name__)
WEIGHTS = {
    "uniform": np.ones(6),
    "zipf": 1 / np.arange(1.0, 7.0),
    "log-normal(3)": np.exp(3 * np.random.default_rng(0).normal(size=6)),
    "ratio 1e20": 10.0 ** np.linspace(-10, 10, 6),
    "ties": np.asarray([2.0, 1.0, 2.0, 1.0, 1.0, 2.0]),
    "a zero": np.asarray([1.0, 0.0, 3.0, 2.0, 0.5, 1.0]),
    "nearly certain": np.asarray([1e30, 1e18, 1e6, 1e-6, 1e-18, 1e-30]),
    "one giant": np.asarray([1e15, 1.0, 2.0, 3.0, 4.0, 5.0]),
    "k giants for some k": np.asarray([1e15, 2e15, 3e15, 1.0, 1.0, 2.0]),
}


def probabilities(law: Any, weights: Any, k: int) -> dict[tuple[int, ...], Any]:
    """Eqs. 1 and 2 in exact rationals, over the whole support."""
    if law is gt.PlackettLuce:
        support, p = itertools.permutations(range(6), k), _reference.ordered_probability
    else:
        support, p = itertools.combinations(range(6), k), _reference.subset_probability
    positive = (each for each in support if all(weights[i] > 0 for i in each))
    return {each: p(weights, each) for each in positive}


def logarithm(p: Any) -> Any:
    return mpmath.log(mpmath.mpf(p.numerator) / p.denominator)


@LAWS
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("k", range(6))
def test_entropy_against_enumeration(law: Any, name: str, k: int) -> None:
    """Relative error 1e-12, also where one outcome has nearly all the probability and the entropy is 1e-10."""
    p = probabilities(law, WEIGHTS[name], k).values()
    with mpmath.workdps(60):
        expected = float(-mpmath.fsum(logarithm(each) * each.numerator / each.denominator for each in p))
    entropy = law(weights=WEIGHTS[name], k=k).entropy()
    np.testing.assert_allclose(entropy, expected, rtol=1e-12, atol=0)
    assert not np.signbit(entropy)


@LAWS
@pytest.mark.parametrize("name", ["nearly certain", "one giant", "k giants for some k"])
@pytest.mark.parametrize("k", range(1, 6))
def test_log_p_of_what_is_nearly_certain_keeps_its_digits(law: Any, name: str, k: int) -> None:
    """Relative error 1e-12 of log p itself, down to log p = -1e-12."""
    exact = probabilities(law, WEIGHTS[name], k)
    log_p = law(weights=WEIGHTS[name], k=k).logpmf(list(exact))
    with mpmath.workdps(60):
        np.testing.assert_allclose(log_p, [float(logarithm(p)) for p in exact.values()], rtol=1e-12, atol=0)


@pytest.mark.parametrize("k", [1, 10, 300])
@pytest.mark.parametrize("odds", [1e4, 1e9, 1e16])
def test_log_p_of_all_giants(k: int, odds: float, to_xp, assert_close) -> None:
    """k giants of k + 50 items: p is a product of k factors in exact numbers. A batch with an unlikely subset."""
    log_weights = np.where(np.arange(k + 50) < k, np.log(odds), 0.0)
    with mpmath.workdps(60):
        giant = mpmath.exp(mpmath.mpf(float(np.log(odds))))
        expected = -mpmath.fsum(mpmath.log1p(50 / (giant * left)) for left in range(1, k + 1))
    subsets = [list(range(k)), list(range(50, k + 50))]
    log_p = gt.subset_logpmf(to_xp(log_weights), to_xp(np.asarray(subsets)))
    assert_close(log_p[0, ...], float(expected), rtol=1e-12)
    assert_close(log_p[1, ...], gt.subset_logpmf(log_weights, subsets[1]), rtol=1e-12)


def test_reference_value(to_xp, assert_close) -> None:
    """w = (.1, .2, .3, .4), k = 2."""
    assert_close(gt.SubsetDistribution(weights=to_xp([0.1, 0.2, 0.3, 0.4]), k=2).entropy(), 1.5856897006, rtol=1e-10)


@LAWS
def test_equal_weights(law: Any) -> None:
    """The logarithm of the number of samples."""
    number = 12 * 11 * 10 * 9 if law is gt.PlackettLuce else 495
    np.testing.assert_allclose(law(np.zeros(12), 4).entropy(), np.log(number), rtol=1e-13)
    whole = np.log(24.0) if law is gt.PlackettLuce else 0.0
    np.testing.assert_allclose(law(np.zeros(4), 4).entropy(), whole, atol=1e-14)


@LAWS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_entropy_of_a_batch_in_every_library(law: Any, dtype: str, to_xp, assert_close) -> None:
    log_weights = np.random.default_rng(1).normal(size=(2, 3, 7)).astype(dtype)
    expected = [[law(row.astype(np.float64), 3).entropy() for row in rows] for rows in log_weights]
    rtol = 1e-12 if dtype == "float64" else 1e-6
    assert_close(law(to_xp(log_weights), 3).entropy(), expected, rtol=rtol, dtype=dtype)


@LAWS
def test_estimates_are_within_their_standard_errors(law: Any) -> None:
    """2e4 samples, 5 standard errors, 15 rows: a correct estimate fails once in 1e5 seeds."""
    log_weights = 1.5 * np.random.default_rng(2).normal(size=(15, 8))
    batch = law(log_weights, 4)
    value, error = batch.entropy("mc", rng=3, samples=20_000)
    assert np.all(np.abs(value - batch.entropy()) < 5 * error)
    assert np.all(error < 0.03)
    assert np.all(error > 0)


@LAWS
def test_estimates_are_the_same_in_every_library(law: Any, to_xp, assert_close) -> None:
    log_weights = np.random.default_rng(2).normal(size=(2, 6))
    expected = law(log_weights, 3).entropy("mc", rng=np.random.default_rng(3), samples=20)
    found = law(to_xp(log_weights), 3).entropy("mc", rng=np.random.default_rng(3), samples=20)
    assert isinstance(found, gt.EntropyEstimate)
    assert_close(found.value, expected.value, rtol=1e-12)
    assert_close(found.standard_error, expected.standard_error, rtol=1e-10)


def test_the_standard_error_is_that_of_repetitions() -> None:
    """200 estimates of 50 samples each: their spread is the standard error to within 5 standard errors of a spread."""
    law = gt.SubsetDistribution(np.random.default_rng(4).normal(size=8), 3)
    rng = np.random.default_rng(5)
    estimates = [law.entropy("mc", rng=rng, samples=50) for _ in range(200)]
    spread = np.std([float(each.value) for each in estimates])
    stated = np.mean([float(each.standard_error) for each in estimates])
    assert abs(spread / stated - 1) < 5 / np.sqrt(2 * 200)


def test_step_entropies_vary_less_than_log_p() -> None:
    """Equal weights: every step has the entropy of its number of items, and the estimate is exact."""
    estimate = gt.PlackettLuce(np.zeros(1000), 10).entropy("mc", rng=6, samples=10)
    np.testing.assert_allclose(estimate.value, np.log(np.arange(991.0, 1001.0)).sum(), rtol=1e-13)
    assert estimate.standard_error < 1e-12


@LAWS
def test_more_samples_than_a_block(law: Any, monkeypatch) -> None:
    from gumbeltopk.distributions import _entropy

    batch = law(np.random.default_rng(7).normal(size=(2, 5)), 2)
    whole = batch.entropy("mc", rng=np.random.default_rng(8), samples=100)
    monkeypatch.setattr(_entropy, "LARGEST_BLOCK", 70)
    monkeypatch.setattr(_entropy, "LARGEST_TABLE", 50)
    parts = batch.entropy("mc", rng=np.random.default_rng(8), samples=100)
    np.testing.assert_allclose(parts.value, whole.value, rtol=1e-12)
    assert batch.entropy().shape == (2,)


@LAWS
def test_what_entropy_refuses(law: Any) -> None:
    with pytest.raises(ValueError, match="k = 20 of n = 60 items, which are too many; pass 'mc'"):
        law(np.zeros(60), 20).entropy()
    with pytest.raises(ValueError, match="method = 'sampled' is not known"):
        law(np.zeros(4), 2).entropy("sampled")
    with pytest.raises(ValueError, match="samples = 1 gives no standard error"):
        law(np.zeros(4), 2).entropy("mc", samples=1)


# --- modes ----------------------------------------------------------------------------------------


@LAWS
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("k", range(6))
def test_nothing_is_more_probable_than_the_mode(law: Any, name: str, k: int) -> None:
    p = probabilities(law, WEIGHTS[name], k)
    assert p[tuple(law(weights=WEIGHTS[name], k=k).mode().tolist())] >= max(p.values()) * (1 - 1e-14)


@LAWS
def test_ties_of_the_mode_go_to_the_lower_items(law: Any, to_xp) -> None:
    mode = api.host(law(weights=to_xp([[1.0, 2.0, 2.0, 2.0], [3.0, 1.0, 1.0, 4.0]]), k=2).mode())
    assert mode.tolist() == ([[1, 2], [3, 0]] if law is gt.PlackettLuce else [[1, 2], [0, 3]])


# --- partial rankings -----------------------------------------------------------------------------


def test_a_partial_ranking_has_the_probability_of_all_that_begin_with_it(to_xp, assert_close) -> None:
    weights = np.exp(np.random.default_rng(9).normal(size=5))
    law = gt.PlackettLuce(weights=to_xp(weights), k=4)
    support = law.enumerate_support()
    p, orders = api.host(law.pmf(support)), api.host(support)
    for m in range(5):
        for prefix in itertools.permutations(range(5), m):
            whole = p[np.all(orders[:, :m] == prefix, axis=-1)].sum()
            assert_close(law.pmf(to_xp(np.asarray(prefix, dtype=np.int64))), whole)
    with pytest.raises(ValueError, match="indices lists 5 items in a row, but this distribution draws k = 4"):
        law.logpmf(to_xp(np.arange(5)))


@LAWS
def test_a_method_that_is_no_name(law: Any) -> None:
    for method in (np.asarray(["mc", "exact"]), None, ["mc"]):
        with pytest.raises(ValueError, match="is not known; choose 'exact' or 'mc'"):
            law(np.zeros(4), 2).entropy(method)


def test_log_p_of_what_is_certain_is_zero_and_not_minus_zero() -> None:
    for op in (gt.ordered_logpmf, gt.subset_logpmf, gt.conditional_poisson_logpmf):
        for logs, indices in (([0.0, 1.0], []), ([0.0, -np.inf], [0])):
            log_p = op(np.asarray(logs), np.asarray(indices, dtype=int))
            assert log_p == 0
            assert not np.signbit(log_p)
