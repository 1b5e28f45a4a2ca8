"""Eq. 1 (PlackettLuce), eq. 2 (SubsetDistribution): values, scores, support, and oracles nobody here wrote."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy import stats

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from tests import _reference

WEIGHTS = {
    "uniform": np.ones(7),
    "zipf": 1 / np.arange(1.0, 8.0),
    "log-normal(3)": np.exp(3 * np.random.default_rng(0).normal(size=7)),
    "mass on few": np.asarray([1e6, 1e6, 1e-3, 2e-3, 1e-3, 5e-4, 1e-3]),
    "ratio 1e20": 10.0 ** np.linspace(-10, 10, 7),
    "two giants of ratio 1e20": np.asarray([1e20, 3e20, 1, 2, 3, 4, 5]),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("k", range(1, 8))
def test_subset_logpmf_and_score_against_many_digits(name: str, k: int) -> None:
    """Relative error of p <= 1e-12, and of its gradient normwise, on weight ratios up to 1e20."""
    weights = WEIGHTS[name]
    subsets = [list(range(k)), list(range(7 - k, 7)), sorted(np.random.default_rng(k).permutation(7)[:k].tolist())]
    value, residuals = gt.subset_logpmf.fwd(np.log(weights), subsets)
    scores = residuals.arrays[0]
    for row, subset in enumerate(subsets):
        with mpmath.workdps(180):
            given = [mpmath.exp(mpmath.mpf(float(log_weight))) for log_weight in np.log(weights)]
            p = _reference.subset_probability_by_dynamic_programming(given, subset)
        score = _reference.gradient_by_log_weights(_log_probability_of(subset), given)
        assert abs(float(mpmath.exp(mpmath.mpf(float(value[row]))) / p - 1)) <= 1e-12
        if k == 7:
            np.testing.assert_array_equal(scores[row], 0.0)
        else:
            assert np.linalg.norm(scores[row] - score) <= 1e-12 * np.linalg.norm(score)
            assert abs(scores[row].sum()) <= 1e-13 * np.abs(scores[row]).sum()


def _log_probability_of(subset: list[int]) -> Callable[[list[Any]], Any]:
    return lambda weights: mpmath.log(_reference.subset_probability_by_dynamic_programming(weights, subset))


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_ordered_logpmf_against_exact_rationals(name: str, k: int) -> None:
    weights = WEIGHTS[name]
    for order in (list(range(k)), list(range(7))[::-1][:k]):
        expected = _reference.ordered_probability(weights, order)
        log_p = float(gt.ordered_logpmf(np.log(weights), order))
        with mpmath.workdps(40):
            exact = float(mpmath.log(mpmath.mpf(expected.numerator) / expected.denominator))
        assert abs(log_p - exact) <= 1e-13 * max(1.0, abs(exact))


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_the_score_of_ordered_samples_against_many_digits(name: str, k: int) -> None:
    """The gradient of eq. 1, 1e-12 normwise."""
    with mpmath.workdps(180):
        given = [mpmath.exp(mpmath.mpf(float(log_weight))) for log_weight in np.log(WEIGHTS[name])]
    for order in (list(range(k)), list(range(7))[::-1][:k]):
        _, residuals = gt.ordered_logpmf.fwd(np.log(WEIGHTS[name]), order)
        score = _reference.gradient_by_log_weights(_log_probability_of_order(order), given)
        found = gt.ordered_logpmf.vjp(residuals, 1.0)
        assert np.linalg.norm(found - score) <= 1e-12 * np.linalg.norm(score)
        u = np.random.default_rng(k).normal(size=7)
        assert abs(gt.ordered_logpmf.jvp(residuals, u) - score @ u) <= 1e-12 * np.abs(score * u).sum()


def _log_probability_of_order(order: list[int]) -> Callable[[list[Any]], Any]:
    def log_probability(weights: list[Any]) -> Any:
        left = [mpmath.fsum(w for i, w in enumerate(weights) if i not in order[:j]) for j in range(len(order))]
        return mpmath.fsum(mpmath.log(weights[i] / total) for i, total in zip(order, left, strict=True))

    return log_probability


def test_reference_values(to_xp, assert_close) -> None:
    """w = (.1, .2, .3, .4), k = 2."""
    subsets = gt.SubsetDistribution(weights=to_xp([0.1, 0.2, 0.3, 0.4]), k=2)
    support = subsets.enumerate_support()
    assert api.host(support).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    expected = [0.0472222, 0.0761905, 0.1111111, 0.1607143, 0.2333333, 0.3714286]
    assert_close(subsets.pmf(support), expected, rtol=0, atol=5e-8)
    inclusion = api.host(subsets.pmf(support)) @ gt.k_hot(api.host(support), 4)
    np.testing.assert_allclose(inclusion, [0.2345238, 0.4412698, 0.6083333, 0.7158730], atol=5e-8)
    entropy = -np.sum(api.host(subsets.pmf(support)) * api.host(subsets.logpmf(support)))
    assert abs(entropy - 1.5856897006) < 1e-10


def test_pmf_sums_to_1_and_the_orders_sum_to_the_subset(to_xp) -> None:
    weights = np.exp(2 * np.random.default_rng(1).normal(size=6))
    for k in range(7):
        subsets = gt.SubsetDistribution(weights=to_xp(weights), k=k)
        ranking = gt.PlackettLuce(weights=to_xp(weights), k=k)
        support, orders = subsets.enumerate_support(), ranking.enumerate_support()
        assert support.shape == (math.comb(6, k), k)
        assert orders.shape == (math.perm(6, k), k)
        p, q = api.host(subsets.pmf(support)), api.host(ranking.pmf(orders))
        np.testing.assert_allclose([p.sum(), q.sum()], 1.0, rtol=1e-12)
        place = {tuple(row): i for i, row in enumerate(api.host(support).tolist())}
        summed = np.zeros(len(place))
        for order, probability in zip(api.host(orders).tolist(), np.atleast_1d(q), strict=True):
            summed[place[tuple(sorted(order))]] += probability
        np.testing.assert_allclose(p, summed, rtol=1e-12)


def _two_class_counts(n: int, first: int, k: int, odds: float) -> list[Fraction]:
    """P(count of the first class = 0 .. k) by following the k draws, in exact rationals."""
    probabilities = [Fraction(1)]
    for drawn in range(k):
        following = [Fraction(0)] * (drawn + 2)
        for count, p in enumerate(probabilities):
            heavy = Fraction(odds) * max(first - count, 0)
            light = Fraction(max(n - first - (drawn - count), 0))
            if p:
                following[count + 1] += p * heavy / (heavy + light)
                following[count] += p * light / (heavy + light)
        probabilities = following
    return probabilities


@pytest.mark.parametrize(("odds", "k"), [(0.25, 10), (3.0, 30), (50.0, 17)])
def test_two_classes_are_wallenius(odds: float, k: int) -> None:
    """n = 60 with two weight classes: the count of the first class is scipy's noncentral hypergeometric.

    Relative error 1e-12 against exact rationals down to p = 1e-28. SciPy's own error is absolute, 4e-16: it is asked
    for that where p is small.
    """
    n, first = 60, 25
    log_weights = np.where(np.arange(n) < first, np.log(odds), 0.0)
    exact = _two_class_counts(n, first, k, odds)
    for count in range(max(0, k - (n - first)), min(k, first) + 1):
        subset = [*range(count), *range(first, first + k - count)]
        log_p = float(gt.SubsetDistribution(log_weights, k).logpmf(subset))
        p = math.exp(log_p) * math.comb(first, count) * math.comb(n - first, k - count)
        assert abs(p / float(exact[count]) - 1) <= 1e-12
        expected = stats.nchypergeom_wallenius.pmf(count, n, first, k, odds)
        assert abs(p - expected) <= 1e-13 * expected + 1e-15


@pytest.mark.parametrize("k", [5, 50])
@pytest.mark.parametrize("which", ["heaviest", "lightest", "any"])
@pytest.mark.parametrize("spread", [3.0, 10.0])
def test_subset_logpmf_against_quadrature_with_many_digits(k: int, which: str, spread: float) -> None:
    """Where most of S is sure to come early, the peak of the integrand is as wide as for a few items: to 1e-12."""
    rng = np.random.default_rng(k)
    log_weights = spread * rng.normal(size=2 * k + 3)
    order = np.argsort(log_weights)
    subset = {"heaviest": order[-k:], "lightest": order[:k], "any": rng.permutation(order)[:k]}[which]
    others = np.setdiff1d(order, subset)
    with mpmath.workdps(20):
        weight = mpmath.fsum(mpmath.exp(mpmath.mpf(float(each))) for each in log_weights[others])
        shares = [mpmath.exp(mpmath.mpf(float(each))) / weight for each in log_weights[subset]]

        def integrand(s: Any) -> Any:
            x = mpmath.exp(s)
            return x * mpmath.exp(-x) * mpmath.fprod(-mpmath.expm1(-x * share) / min(share, 1) for share in shares)

        scale = mpmath.fsum(mpmath.log(min(share, 1)) for share in shares)  # quad stops at absolute errors
        exact = float(scale + mpmath.log(mpmath.quad(integrand, np.arange(-60.0, 7.0, 3.0).tolist())))
    assert gt.subset_logpmf(log_weights, subset) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("light", [-38.0, -36.0, -25.0])
def test_many_light_items_before_a_heavy_one(light: float) -> None:
    """p = k! prod b_i (1 + O(b k)) with b_i = e^light: products of 24 factors of that size would be 0."""
    k = 48
    log_weights = np.append(np.full(k, light), 0.0)
    expected = math.lgamma(k + 1) + k * light
    assert gt.subset_logpmf(log_weights, np.arange(k)) == pytest.approx(
        expected, rel=1e-12, abs=k * k * math.exp(light)
    )


@pytest.mark.parametrize("op", [gt.ordered_logpmf, gt.subset_logpmf], ids=lambda op: op.name)
@pytest.mark.parametrize(
    ("weights_shape", "indices_shape"), [((6,), ()), ((4, 6), (4,)), ((6,), (3, 2)), ((2, 1, 6), (3,))]
)
def test_derivatives_with_broadcast_batches(op, weights_shape, indices_shape) -> None:
    rng = np.random.default_rng(2)
    log_weights = rng.normal(size=weights_shape)
    indices = rng.permuted(np.broadcast_to(np.arange(6), (*indices_shape, 6)), axis=-1)[..., :3]
    gt.testing.check_operator(op, log_weights, indices)


@pytest.mark.parametrize("op", [gt.ordered_logpmf, gt.subset_logpmf], ids=lambda op: op.name)
def test_every_library_agrees_with_numpy(op, to_xp, assert_close) -> None:
    args, _ = op.example(np.random.default_rng(3))
    expected, residuals = op.fwd(*args)
    value, own = op.fwd(*(to_xp(a) for a in args))
    assert_close(value, expected, rtol=1e-12)
    cotangent = np.asarray([1.0, -2.0, 0.5, 3.0])
    assert_close(op.vjp(own, to_xp(cotangent)), op.vjp(residuals, cotangent), rtol=1e-11, atol=1e-14)
    assert_close(op.jvp(own, to_xp(args[0])), op.jvp(residuals, args[0]), rtol=1e-11, atol=1e-14)
    single = tuple(to_xp(a, "float32" if a.dtype.kind == "f" else None) for a in args)
    assert_close(op(*single), expected, rtol=2e-6, dtype="float32")


@pytest.mark.parametrize("op", [gt.ordered_logpmf, gt.subset_logpmf], ids=lambda op: op.name)
def test_zero_weights(op) -> None:
    log_weights = np.asarray([0.0, -np.inf, 0.5, 1.0])
    value, residuals = op.fwd(log_weights, [[0, 2], [0, 1]])
    assert value[1] == -np.inf
    without = op(log_weights[[0, 2, 3]], [0, 1])
    assert abs(value[0] - without) < 1e-14
    assert np.all(np.isfinite(residuals.arrays[0]))
    light = op.fwd(np.asarray([0.0, -300.0, 0.5, 1.0]), [0, 1])[1].arrays[0]
    np.testing.assert_allclose(residuals.arrays[0][1], light, rtol=1e-12, atol=1e-100)


def test_scale_does_not_matter() -> None:
    log_weights = np.random.default_rng(4).normal(size=5)
    for op in (gt.ordered_logpmf, gt.subset_logpmf):
        expected = op(log_weights, [0, 3])
        np.testing.assert_allclose(op(log_weights + 600.0, [0, 3]), expected, rtol=1e-12)
        np.testing.assert_allclose(op(log_weights - 1e6, [0, 3]), expected, rtol=1e-9)


def test_order_matters_for_one_and_not_for_the_other() -> None:
    log_weights = np.log([0.1, 0.2, 0.3, 0.4])
    assert gt.ordered_logpmf(log_weights, [3, 0]) != gt.ordered_logpmf(log_weights, [0, 3])
    assert gt.subset_logpmf(log_weights, [3, 0]) == pytest.approx(gt.subset_logpmf(log_weights, [0, 3]), rel=1e-14)


def test_large_k_in_one_row() -> None:
    """No k! terms: k = 500 of 1000 equal weights is 1 over the number of subsets."""
    log_p = gt.subset_logpmf(np.zeros(1000), np.arange(500))
    expected = -(math.lgamma(1001) - 2 * math.lgamma(501))
    assert abs(log_p - expected) < 1e-10 * abs(expected)


@pytest.mark.parametrize("law", [gt.SubsetDistribution, gt.PlackettLuce])
def test_the_support_of_a_batch_meets_every_row_of_weights(law, to_xp) -> None:
    weights = np.asarray([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    batch = law(weights=to_xp(weights), k=2)
    p = api.host(batch.pmf(batch.enumerate_support()))
    for row in range(3):
        single = law(weights=weights[row], k=2)
        np.testing.assert_allclose(p[:, row], single.pmf(single.enumerate_support()), rtol=1e-13)
    np.testing.assert_allclose(p.sum(axis=0), 1.0, rtol=1e-13)


def test_later_changes_of_the_callers_weights_do_not_reach_a_distribution() -> None:
    weights = np.asarray([1.0, 2.0, 3.0])
    law = gt.SubsetDistribution(weights=weights, k=1)
    weights[:] = 1.0
    np.testing.assert_allclose(law.pmf([[0], [1], [2]]), [1 / 6, 2 / 6, 3 / 6], rtol=1e-13)


def test_rows_in_several_blocks_are_as_rows_alone() -> None:
    """12,000 rows of k = 10 are more than one block; one very wide row must not change the others."""
    log_weights = np.random.default_rng(9).normal(size=(12_000, 20))
    log_weights[7] *= 100.0
    value, residuals = gt.subset_logpmf.fwd(log_weights, np.arange(10))
    for row in (0, 7, 1091, 1093, 5000, 11_999):
        alone, of_row = gt.subset_logpmf.fwd(log_weights[row], np.arange(10))
        np.testing.assert_allclose(value[row], alone, rtol=1e-12)
        np.testing.assert_allclose(residuals.arrays[0][row], of_row.arrays[0], rtol=1e-11, atol=1e-15)


def test_the_score_of_a_large_subset_in_flat_memory() -> None:
    """k = 3000 of 6000 equal weights: by symmetry every selected item has the same score, and all sum to 0."""
    _, residuals = gt.subset_logpmf.fwd(np.zeros(6000), np.arange(3000))
    score = residuals.arrays[0]
    assert np.ptp(score[:3000]) <= 1e-12
    assert abs(score.sum()) <= 1e-10


def test_an_item_twice_is_found_even_if_not_side_by_side() -> None:
    with pytest.raises(ValueError, match="has item 0 more than once"):
        gt.subset_logpmf(np.zeros(3), [0, 1, 0])


def test_log_p_beyond_the_largest_float_is_minus_infinity_and_not_nan() -> None:
    for log_weights in ([1e308, 0.0, -1e308], [0.0, -1e308, -1e308]):
        log_p, residuals = gt.subset_logpmf.fwd(np.asarray(log_weights), [1, 2])
        assert log_p == -np.inf
        assert np.isfinite(gt.subset_logpmf.vjp(residuals, np.asarray(1.0))).all()
    assert gt.subset_logpmf([0.0, -1e300, -1e300], [1, 2]) == -2e300


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_moments_and_modes_of_a_batch_in_every_library(dtype: str, to_xp, assert_close) -> None:
    """mean, cov, joint inclusion, log-odds and mode of each row are those of the row alone, rounded once."""
    log_weights = np.random.default_rng(10).normal(size=(2, 3, 6)).astype(dtype)
    batch = gt.SubsetDistribution(to_xp(log_weights), 3)
    rows = [[gt.SubsetDistribution(row.astype(np.float64), 3) for row in rows] for rows in log_weights]
    rtol = 1e-12 if dtype == "float64" else 1e-7
    for name in ("mean", "cov", "inclusion_probabilities", "joint_inclusion_probabilities", "marginal_log_odds"):
        expected = [[getattr(law, name)() for law in some] for some in rows]
        assert_close(getattr(batch, name)(), expected, rtol=rtol, atol=0.1 * rtol, dtype=dtype)
    for law in (gt.SubsetDistribution, gt.PlackettLuce):
        expected = [[law(row, 3).mode() for row in some] for some in log_weights]
        np.testing.assert_array_equal(api.host(law(to_xp(log_weights), 3).mode()), expected)
