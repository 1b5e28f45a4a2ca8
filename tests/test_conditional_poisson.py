"""ConditionalPoisson: values, derivatives, samples and the fit, against enumeration with many digits."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from tests import _statistics

N = 9
RNG = np.random.default_rng(0)
LOGITS = {
    "uniform": np.zeros(N),
    "zipf": -np.log(np.arange(1.0, N + 1.0)),
    "normal(3)": 3 * RNG.normal(size=N),
    "mass on few": np.log(np.asarray([1e6, 2e6, 1e-3, 2e-3, 1e-3, 5e-4, 1e-3, 3e-3, 1e-3])),
    "ratio 1e20": np.log(10.0 ** np.linspace(-10, 10, N)),
    "two giants of ratio 1e20": np.log(np.asarray([1e20, 3e20, 1, 2, 3, 4, 5, 6, 7])),
    "ties": np.asarray([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0, -1.0]),
    "never selected": np.asarray([0.3, -np.inf, 1.0, -np.inf, -2.0, 0.0, 0.1, 5.0, 2.0]),
}
GAPS = {
    "gap of 200": np.asarray([0.0, 0.5, 1.0, 0.0, -200.0, -201.0, -200.5, -203.0, -200.0]),
    "gap of 700": np.asarray([0.0, 0.5, 1.0, 0.0, -700.0, -701.0, -700.5, -703.0, -700.0]),
}


class Exact:
    """The definitions, by enumeration with many digits."""

    def __init__(self, logits: Any, k: int, digits: int = 700) -> None:
        with mpmath.workdps(digits):
            self.logits = [mpmath.mpf(float(each)) for each in logits]
            self.subsets = list(itertools.combinations(range(len(self.logits)), k))
            masses = [mpmath.exp(mpmath.fsum(self.logits[i] for i in subset)) for subset in self.subsets]
            self.z = mpmath.fsum(masses)
            self.p = [mass / self.z for mass in masses]
            self.included = self._sums(lambda i, subset: i in subset)
            self.excluded = self._sums(lambda i, subset: i not in subset)
            self.entropy = -mpmath.fsum(p * mpmath.log(p) for p in self.p if p > 0)

    def _sums(self, counts: Any) -> list[Any]:
        return [
            mpmath.fsum(p for p, subset in zip(self.p, self.subsets, strict=True) if counts(i, subset))
            for i in range(len(self.logits))
        ]

    def covariance_product(self, v: Any, digits: int = 700) -> list[Any]:
        """E[s_i (s.v - E s.v)], the sum over the subsets as it stands."""
        with mpmath.workdps(digits):
            totals = [mpmath.fsum(mpmath.mpf(float(v[i])) for i in subset) for subset in self.subsets]
            mean = mpmath.fsum(p * total for p, total in zip(self.p, totals, strict=True))
            return [
                mpmath.fsum(
                    p * (total - mean)
                    for p, total, subset in zip(self.p, totals, self.subsets, strict=True)
                    if i in subset
                )
                for i in range(len(self.logits))
            ]


def largest_relative_error(values: Any, exact: Any) -> float:
    """Relative to the exact number, or to 1e-300 where that is smaller."""
    errors = [
        abs(mpmath.mpf(float(value)) / number - 1)
        if number > 1e-300
        else abs(mpmath.mpf(float(value)) - number) / 1e-300
        for value, number in zip(np.ravel(values), exact, strict=True)
    ]
    return float(max(errors))


def possible(sizes: Any) -> list[tuple[str, int]]:
    """(name, k) for the laws that have k items."""
    laws = {**LOGITS, **GAPS}
    return [(name, k) for name, logits in laws.items() for k in sizes if k <= np.count_nonzero(logits > -np.inf)]


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "k"), possible(range(N + 1)))
def test_values_against_enumeration_with_many_digits(name: str, k: int) -> None:
    """log Z, marginals, entropy and p(S): relative errors below 1e-12, however small the number."""
    logits = {**LOGITS, **GAPS}[name]
    exact = Exact(logits, k)
    law = gt.ConditionalPoisson(logits, k)
    log_z = mpmath.log(exact.z)
    assert abs(float(law.log_normalizer()) - log_z) <= 1e-12 * max(1, abs(log_z))
    assert largest_relative_error(law.marginals(), exact.included) <= 1e-12
    assert largest_relative_error(law.entropy(), [exact.entropy]) <= 1e-12
    assert largest_relative_error(law.pmf(exact.subsets), exact.p) <= 1e-12
    assert abs(law.marginals().sum() - k) <= 1e-13 * max(k, 1)


def test_reference_values(to_xp, assert_close) -> None:
    """w = (.1, .2, .3, .4), k = 2: the products .02 .03 .04 .06 .08 .12 over their sum .35."""
    law = gt.ConditionalPoisson(to_xp(np.log([0.1, 0.2, 0.3, 0.4])), 2)
    support = law.enumerate_support()
    p = np.asarray([0.02, 0.03, 0.04, 0.06, 0.08, 0.12]) / 0.35
    assert_close(law.pmf(support), p)
    marginals = np.asarray([0.09, 0.16, 0.21, 0.24]) / 0.35
    for values in (law.marginals(), law.inclusion_probabilities(), law.mean()):
        assert_close(values, marginals)
    assert_close(law.entropy(), -np.sum(p * np.log(p)))
    assert_close(law.log_normalizer(), np.log(0.35))
    assert api.host(law.mode()).tolist() == [2, 3]


def log_space_recursion(logits: Any, k: int) -> tuple[float, np.ndarray]:
    """log e_j of all items and of all items after each one would need n k numbers; log Z alone needs k."""
    log_e = np.full(k + 1, -np.inf)
    log_e[0] = 0.0
    for theta in logits:
        log_e[1:] = np.logaddexp(log_e[1:], log_e[:-1] + theta)
    return log_e[k], log_e


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0, 30.0])
def test_many_items_against_the_recursion_in_logs(spread: float) -> None:
    """n = 2000, k = 150: log Z to 1e-12, and the marginals through log e_{k-1} of the other items to 1e-10."""
    n, k = 2000, 150
    logits = spread * np.random.default_rng(1).normal(size=n)
    log_z, _ = log_space_recursion(logits, k)
    law = gt.ConditionalPoisson(logits, k)
    assert abs(law.log_normalizer() - log_z) <= 1e-12 * abs(log_z)
    order = np.argsort(logits)
    marginals = law.marginals()
    for i in order[[0, 1, n // 2, n - k - 1, n - k, n - 1]]:
        others, _ = log_space_recursion(np.delete(logits, i), k - 1)
        expected = np.exp(logits[i] + others - log_z)
        assert abs(marginals[i] - expected) <= 1e-10 * expected


def test_equal_logits_in_closed_form() -> None:
    """Z = n choose k and mu = k / n, also where n choose k overflows."""
    for n, k in [(1, 1), (2, 1), (1000, 500), (50_000, 7), (50_000, 49_999), (100_000, 40_000)]:
        law = gt.ConditionalPoisson(np.zeros(n), k)
        log_number = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        assert abs(law.log_normalizer() - log_number) <= 1e-10 * max(1.0, log_number)
        assert abs(law.entropy() - log_number) <= 1e-10 * max(1.0, log_number)
        np.testing.assert_allclose(law.marginals(), k / n, rtol=1e-12)


@pytest.mark.parametrize("gap", [9.0, 12.2, 20.0])
def test_two_classes_in_closed_form(gap: float) -> None:
    """200 items above, 200 below, k = 200: Z e^{-200 theta} = sum_d (200 choose d)^2 e^{-gap d}; few swaps and many."""
    masses = [math.comb(200, d) ** 2 * mpmath.exp(-gap * d) for d in range(60)]
    law = gt.ConditionalPoisson(np.where(np.arange(400) % 2, 0.0, -gap), 200)
    assert abs(law.log_normalizer() - mpmath.log(mpmath.fsum(masses))) <= 1e-13
    swapped = mpmath.fsum(d * mass for d, mass in enumerate(masses)) / mpmath.fsum(masses) / 200
    np.testing.assert_allclose(law.marginals()[::2], float(swapped), rtol=1e-12)


@pytest.mark.parametrize("name", LOGITS)
def test_a_constant_changes_nothing_but_log_z(name: str) -> None:
    law, shifted = gt.ConditionalPoisson(LOGITS[name], 3), gt.ConditionalPoisson(LOGITS[name] + 1024.0, 3)
    np.testing.assert_allclose(shifted.marginals(), law.marginals(), rtol=1e-11)
    np.testing.assert_allclose(shifted.log_normalizer() - 3 * 1024.0, law.log_normalizer(), atol=1e-11)


@pytest.mark.parametrize("name", ["normal(3)", "zipf", "ratio 1e20"])
def test_the_complement_has_the_opposite_logits(name: str) -> None:
    """P(S) at theta, k is P(complement of S) at -theta, n - k."""
    logits = LOGITS[name]
    for k in range(1, N):
        inside, outside = gt.ConditionalPoisson(logits, k), gt.ConditionalPoisson(-logits, N - k)
        np.testing.assert_allclose(inside.marginals(), 1 - outside.marginals(), rtol=0, atol=1e-14)
        np.testing.assert_allclose(inside.entropy(), outside.entropy(), rtol=1e-12)


def test_rows_of_a_batch_are_as_rows_alone(to_xp, assert_close) -> None:
    """Rows with many swaps and rows with few go different ways, and come back in order."""
    logits = np.stack([*LOGITS.values(), *GAPS.values()])[np.random.default_rng(2).permutation(10)].reshape(5, 2, N)
    v = np.random.default_rng(3).normal(size=logits.shape)
    value, residuals = gt.conditional_poisson_marginals.fwd(to_xp(logits), 4)
    moved = gt.conditional_poisson_marginals.jvp(residuals, to_xp(v))
    law = gt.ConditionalPoisson(to_xp(logits), 4)
    rows = list(np.ndindex(5, 2))
    alone = [gt.ConditionalPoisson(logits[row], 4) for row in rows]
    for actual, expected in [
        (value, [each.marginals() for each in alone]),
        (law.log_normalizer(), [each.log_normalizer() for each in alone]),
        (law.entropy(), [each.entropy() for each in alone]),
        (law.mode(), [each.mode() for each in alone]),
    ]:
        expected = np.stack(expected).reshape(actual.shape)
        dtype = "int64" if expected.dtype.kind == "i" else "float64"
        assert_close(actual, expected, rtol=1e-12, dtype=dtype)
    for row in rows:
        _, own = gt.conditional_poisson_marginals.fwd(logits[row], 4)
        expected = gt.conditional_poisson_marginals.jvp(own, v[row])
        np.testing.assert_allclose(api.host(moved)[row], expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_more_rows_and_items_than_a_block(monkeypatch) -> None:
    from gumbeltopk._generic import swap_circle, swap_tree

    logits = np.random.default_rng(4).normal(size=(7, 30)) * np.asarray(
        [[1.0], [60.0], [1.0], [1.0], [80.0], [2.0], [1.0]]
    )
    v = np.random.default_rng(5).normal(size=logits.shape)

    def everything() -> list[Any]:
        value, residuals = gt.conditional_poisson_marginals.fwd(logits, 6)
        return [
            value,
            gt.conditional_poisson_log_normalizer(logits, 6),
            gt.conditional_poisson_marginals.vjp(residuals, v),
        ]

    whole = everything()
    monkeypatch.setattr(swap_circle, "LARGEST_BLOCK", 100)
    monkeypatch.setattr(swap_tree, "LARGEST_BLOCK", 100)
    for actual, expected in zip(everything(), whole, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15 * np.abs(expected).max())


def test_single_precision_is_rounded_once(to_xp, assert_close) -> None:
    logits = (3 * np.random.default_rng(6).normal(size=(4, 20))).astype(np.float32)
    exact = gt.ConditionalPoisson(logits.astype(np.float64), 5)
    law = gt.ConditionalPoisson(to_xp(logits), 5)
    assert_close(law.marginals(), exact.marginals(), rtol=6e-8, dtype="float32")
    assert_close(law.log_normalizer(), exact.log_normalizer(), rtol=6e-8, dtype="float32")
    assert_close(law.entropy(), exact.entropy(), rtol=6e-8, dtype="float32")


def test_shapes_without_items_or_rows(to_xp, assert_close) -> None:
    for shape, k in [((0,), 0), ((3, 0), 0), ((0, 4), 2), ((2, 4), 0), ((2, 4), 4)]:
        logits = np.arange(math.prod(shape), dtype=float).reshape(shape)
        law = gt.ConditionalPoisson(to_xp(logits), k)
        assert_close(law.marginals(), np.full(shape, float(k > 0)))
        assert_close(law.log_normalizer(), logits.sum(axis=-1) if k else np.zeros(shape[:-1]))
        assert_close(law.entropy(), np.zeros(shape[:-1]))
        assert tuple(law.sample(3, rng=0).shape) == (3, *shape[:-1], k)
        _, residuals = gt.conditional_poisson_marginals.fwd(to_xp(logits), k)
        assert_close(gt.conditional_poisson_marginals.vjp(residuals, to_xp(logits)), np.zeros(shape))
    assert gt.ConditionalPoisson(np.asarray([1.0, 2.0]), 2).logpmf([1, 0]) == 0.0


def test_as_many_items_as_finite_logits(to_xp, assert_close) -> None:
    """One subset only, although k < n."""
    law = gt.ConditionalPoisson(to_xp([0.5, -np.inf, 2.0, -np.inf, 700.0]), 3)
    assert_close(law.marginals(), [1.0, 0.0, 1.0, 0.0, 1.0])
    assert_close(law.log_normalizer(), 702.5)
    assert_close(law.logpmf([[0, 2, 4], [0, 1, 4]]), [0.0, -np.inf])
    assert_close(law.entropy(), 0.0, atol=1e-300)
    assert api.host(law.sample(2, rng=0)).tolist() == [[0, 2, 4]] * 2


# --- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "k"), possible((1, 2, 4, 8)))
def test_products_with_the_covariance(name: str, k: int) -> None:
    """Normwise 1e-10, and for the vector of ones, where all cancels, 1e-13 of the largest covariance."""
    logits = {**LOGITS, **GAPS}[name]
    finite = np.where(logits > -np.inf, logits, -5000.0)
    exact = Exact(finite, k, digits=3000 if name == "never selected" else 700)
    _, residuals = gt.conditional_poisson_marginals.fwd(logits, k)
    rng = np.random.default_rng(k)
    scale = max(max(exact.included[i] * exact.excluded[i] for i in range(N)), mpmath.mpf(1e-300))
    for v in (rng.normal(size=N), 1.0 + 1e-3 * rng.normal(size=N), np.eye(N)[0], np.eye(N)[N - 1], np.ones(N)):
        expected = exact.covariance_product(v)
        for product in (
            gt.conditional_poisson_marginals.jvp(residuals, v),
            gt.conditional_poisson_marginals.vjp(residuals, v),
        ):
            error = max(abs(mpmath.mpf(float(a)) - b) for a, b in zip(product, expected, strict=True))
            assert error <= max(1e-10 * max(abs(b) for b in expected), 1e-13 * scale)


@pytest.mark.parametrize(("name", "k"), possible((1, 4, 8)))
def test_the_score_against_enumeration_with_many_digits(name: str, k: int) -> None:
    """d log p(S) / d theta: P(i is not in) for the items of S, minus P(i is in) for the others, to 1e-12 each."""
    logits = {**LOGITS, **GAPS}[name]
    exact = Exact(logits, k)
    for subset in (exact.subsets[0], exact.subsets[-1]):
        if not np.all(logits[list(subset)] > -np.inf):
            continue
        _, residuals = gt.conditional_poisson_logpmf.fwd(logits, subset)
        score = gt.conditional_poisson_logpmf.vjp(residuals, 1.0)
        signed = np.where(gt.k_hot(subset, N), 1.0, -1.0)
        expected = [(exact.excluded if sign > 0 else exact.included)[i] for i, sign in enumerate(signed)]
        assert largest_relative_error(signed * score, expected) <= 1e-12


@pytest.mark.parametrize("name", ["zipf", "ratio 1e20"])
def test_a_large_constant_in_a_tangent_does_not_matter(name: str) -> None:
    """Cov 1 = 0. The tangents are whole numbers, so that adding 2^40 to them rounds nothing."""
    _, residuals = gt.conditional_poisson_marginals.fwd(LOGITS[name], 4)
    v = np.arange(N, dtype=float) ** 2
    expected = gt.conditional_poisson_marginals.jvp(residuals, v)
    product = gt.conditional_poisson_marginals.jvp(residuals, v + 2.0**40)
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["zipf", "normal(3)", "mass on few", "ties"])
def test_derivatives_are_those_of_the_value(name: str) -> None:
    for k in (1, 4, 8):
        gt.testing.check_operator(gt.conditional_poisson_log_normalizer, LOGITS[name], k)
        gt.testing.check_operator(gt.conditional_poisson_marginals, LOGITS[name], k)
        gt.testing.check_operator(gt.conditional_poisson_logpmf, LOGITS[name], np.arange(k))


@pytest.mark.parametrize(
    ("logits_shape", "indices_shape"), [((6,), ()), ((4, 6), (4,)), ((6,), (3, 2)), ((2, 1, 6), (3,))]
)
def test_derivatives_with_broadcast_batches(logits_shape: Any, indices_shape: Any) -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(size=logits_shape)
    indices = rng.permuted(np.broadcast_to(np.arange(6), (*indices_shape, 6)), axis=-1)[..., :3]
    gt.testing.check_operator(gt.conditional_poisson_logpmf, logits, indices)


def test_the_gradient_of_log_z_is_the_marginals_and_the_score_is_what_is_left() -> None:
    logits = LOGITS["normal(3)"]
    _, of_log_z = gt.conditional_poisson_log_normalizer.fwd(logits, 4)
    _, of_log_p = gt.conditional_poisson_logpmf.fwd(logits, [8, 1, 0, 5])
    marginals = gt.conditional_poisson_marginals(logits, 4)
    np.testing.assert_array_equal(gt.conditional_poisson_log_normalizer.vjp(of_log_z, 1.0), marginals)
    score = gt.conditional_poisson_logpmf.vjp(of_log_p, 1.0)
    np.testing.assert_allclose(score, gt.k_hot([8, 1, 0, 5], N) - marginals, rtol=0, atol=1e-15)


# --- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uniform", "normal(3)", "mass on few", "never selected"])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_samples_have_the_distribution(name: str, k: int) -> None:
    """2e5 draws, at most 84 cells: an rms error of 3.3 % of the cells is missed with probability 1e-6."""
    law = gt.ConditionalPoisson(LOGITS[name], k)
    support = law.enumerate_support()
    assert _statistics.smallest_error_found(200_000, len(support)) < 0.033
    draws = law.sample(200_000, rng=11)
    assert np.all(np.diff(draws, axis=-1) > 0)
    _statistics.assert_distribution(_statistics.count_rows(draws, support), law.pmf(support))


def test_samples_of_a_batch_come_from_their_own_rows() -> None:
    logits = np.stack([LOGITS["zipf"], LOGITS["zipf"][::-1], LOGITS["ratio 1e20"]])
    draws = gt.ConditionalPoisson(logits, 2).sample((20_000,), rng=12)
    assert draws.shape == (20_000, 3, 2)
    for row in range(3):
        law = gt.ConditionalPoisson(logits[row], 2)
        support = law.enumerate_support()
        _statistics.assert_distribution(_statistics.count_rows(draws[:, row], support), law.pmf(support))


def test_consecutive_samples_are_independent() -> None:
    law = gt.ConditionalPoisson(LOGITS["zipf"][:4], 2)
    support = law.enumerate_support()
    draws = law.sample(100_000, rng=13)
    codes = np.searchsorted(support @ [4, 1], draws @ [4, 1])
    _statistics.assert_independent(codes, law.pmf(support))


@pytest.mark.parametrize("rng", [0, gt.CounterRNG(0), np.random.SeedSequence(5)], ids=["int", "counter", "sequence"])
def test_samples_in_every_library(to_xp, library, rng: Any) -> None:
    law = gt.ConditionalPoisson(to_xp(np.random.default_rng(8).normal(size=(2, 12))), 5)
    draws = law.sample((3, 4), rng=rng)
    assert api.namespace_of(draws) is library.xp
    assert api.device_of(draws) == library.device
    draws = api.host(draws)
    assert draws.shape == (3, 4, 2, 5)
    assert np.all(np.diff(draws, axis=-1) > 0)
    np.testing.assert_array_equal(api.host(law.sample((3, 4), rng=rng)), draws)


@pytest.mark.parametrize("shift", [0.0, 2.0], ids=["few swaps", "many swaps"])
def test_samples_where_few_of_many_items_are_swapped(shift: float) -> None:
    """300 items, k = 3, by trials that touch the swapped items only; 5e4 draws.

    How often each item is there: the three of a draw exclude each other, so the test is conservative; an rms error of
    4.9 % is found. And how many of the first half are there, which sees whether swaps balance: an rms error of 4.6 %.
    """
    from gumbeltopk._numpy import conditional_poisson as of_numpy

    n, k, draws_of_each = 300, 3, 50_000
    assert _statistics.smallest_error_found(k * draws_of_each, n) < 0.049
    assert _statistics.smallest_error_found(draws_of_each, k + 1) < 0.046
    logits = np.where(np.arange(n) < 20, 2.0 + shift, np.where(np.arange(n) < 150, 0.0, -3.0))
    law = gt.ConditionalPoisson(np.stack([logits, logits[::-1]]), k)
    calls = []
    original = of_numpy._swap
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_numpy, "_swap", lambda *args: calls.append(original(*args)))
        draws = law.sample(draws_of_each, rng=15)
    assert len(calls) == 2
    assert np.all(np.diff(draws, axis=-1) > 0)
    for items in (draws[:, 0], n - 1 - draws[:, 1]):
        marginals = law.marginals()[0]
        _statistics.assert_distribution(np.bincount(items.ravel(), minlength=n), marginals / k)
        counts = np.bincount((items < 150).sum(axis=-1), minlength=k + 1)
        weights = np.exp(logits)
        halves = [elementary(weights[:150], k)[j] * elementary(weights[150:], k)[k - j] for j in range(k + 1)]
        _statistics.assert_distribution(counts, np.asarray(halves) / np.sum(halves))


def elementary(weights: Any, k: int) -> Any:
    """The elementary symmetric polynomials of degrees 0 .. k."""
    e = np.zeros(k + 1)
    e[0] = 1.0
    for w in weights:
        e[1:] += w * e[:-1]
    return e


def test_samples_of_many_items() -> None:
    """n = 20,000, k = 500: the mean of sum of the selected logits is within 5 standard errors of its expectation."""
    logits = np.random.default_rng(9).normal(size=20_000)
    law = gt.ConditionalPoisson(logits, 500)
    draws = law.sample(20, rng=14)
    assert draws.shape == (20, 500)
    _, residuals = gt.conditional_poisson_marginals.fwd(logits, 500)
    deviation = math.sqrt(logits @ gt.conditional_poisson_marginals.jvp(residuals, logits) / 20)
    assert abs(logits[draws].sum(axis=-1).mean() - logits @ law.marginals()) < 5 * deviation


# --- the fit --------------------------------------------------------------------------------------


def random_marginals(n: int, k: int, spread: float, seed: int) -> Any:
    logits = spread * np.random.default_rng(seed).normal(size=n)
    return gt.ConditionalPoisson(logits, k).marginals(), logits


@pytest.mark.parametrize(("n", "k"), [(2, 1), (3, 1), (3, 2), (9, 4), (40, 39), (500, 20)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_the_fit_finds_the_logits_again(n: int, k: int, spread: float) -> None:
    pi, logits = random_marginals(n, k, spread, n)
    law = gt.ConditionalPoisson.from_marginals(pi)
    assert law.k == k
    np.testing.assert_allclose(law.marginals(), pi, rtol=1e-11)
    difference = law.logits - logits
    assert np.ptp(difference) <= 1e-9 * (1 + np.abs(logits).max())


@pytest.mark.parametrize(
    "pi",
    [
        [1e-12, 1 - 1e-12],
        [1e-9, 2e-9, 1 - 3e-9],
        [0.5, 0.5, 1e-6, 1 - 1e-6],
        [0.999, 0.999, 0.002 - 1e-9, 1e-9],
        [0.9, 0.9, 0.1, 0.1],
        [0.99, 0.99, 0.99, 0.03],
    ],
)
def test_the_fit_of_marginals_near_0_and_1(pi: Any) -> None:
    """Small ones to 1e-10, but for the rounding of 1 - pi of those near 1, with which they must agree."""
    law = gt.ConditionalPoisson.from_marginals(pi)
    np.testing.assert_allclose(law.marginals(), pi, rtol=1e-10, atol=1e-16)


def test_the_fit_of_a_batch_in_every_library(to_xp, assert_close) -> None:
    pi = np.stack([random_marginals(8, 3, spread, 1)[0] for spread in (0.0, 1.0, 4.0)])
    law = gt.ConditionalPoisson.from_marginals(to_xp(pi))
    assert_close(law.marginals(), pi, rtol=1e-11)
    law = gt.ConditionalPoisson.from_marginals(to_xp(pi, "float32"), 3)
    assert_close(law.marginals(), pi, rtol=1e-5, dtype="float32")


def test_the_fit_of_many_items() -> None:
    pi, _ = random_marginals(20_000, 300, 2.0, 3)
    np.testing.assert_allclose(gt.ConditionalPoisson.from_marginals(pi).marginals(), pi, rtol=1e-10)


@pytest.mark.parametrize(
    ("pi", "k", "message"),
    [
        ([0.5, 0.5, 1.0], None, r"marginals\[2\] = 1.0 is not between 0 and 1"),
        ([[0.5, 0.5], [0.0, 1.0]], None, r"marginals\[1, 0\] = 0.0 is not between 0 and 1"),
        ([0.5, float("nan")], None, r"marginals\[1\] = nan is not between"),
        ([0.5, 0.7], None, r"marginals sum to 1.2, not to k = 1, a whole number"),
        ([0.5, 0.5], 2, r"marginals sum to 1.0, not to k = 2"),
        ([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.3, 0.3]], None, r"marginals sum to 1.0 in row 1, not to k = 2"),
    ],
)
def test_marginals_that_no_distribution_has(pi: Any, k: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gt.ConditionalPoisson.from_marginals(pi, k)


# --- what is refused ------------------------------------------------------------------------------

CALLS = {
    "log_normalizer": gt.conditional_poisson_log_normalizer,
    "marginals": gt.conditional_poisson_marginals,
    "marginals.fwd": gt.conditional_poisson_marginals.fwd,
    "logpmf": lambda logits, k: gt.conditional_poisson_logpmf(logits, np.arange(k)),
    "class": gt.ConditionalPoisson,
}


@pytest.mark.parametrize("call", CALLS)
def test_bad_logits(call: str) -> None:
    for value in (math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"logits\[1\] = {value}; .*-inf for an item that is never sel"):
            CALLS[call](np.asarray([0.0, value, 1.0]), 1)
    with pytest.raises(ValueError, match=r"k = 2 is more than the 1 finite entries in rows \[1\] of logits"):
        CALLS[call](np.asarray([[0.0, 1.0, -np.inf], [0.0, -np.inf, -np.inf]]), 2)
    with pytest.raises(TypeError, match="logits has dtype bool"):
        CALLS[call](np.asarray([True, False]), 1)
    with pytest.raises(ValueError, match="logits is 0-dimensional"):
        CALLS[call](np.asarray(1.0), 1)


def test_bad_subsets_and_k() -> None:
    law = gt.ConditionalPoisson(np.zeros(4), 2)
    with pytest.raises(ValueError, match="indices lists 3 items in a row, but this distribution draws k = 2"):
        law.logpmf([0, 1, 2])
    with pytest.raises(ValueError, match="has item 1 more than once"):
        law.logpmf([1, 1])
    with pytest.raises(ValueError, match="is not one of the n = 4 items"):
        law.logpmf([1, 4])
    with pytest.raises(ValueError, match="k = 5 is more than the n = 4 items"):
        gt.ConditionalPoisson(np.zeros(4), 5)
    with pytest.raises(ValueError, match="which does not broadcast with"):
        gt.conditional_poisson_logpmf(np.zeros((2, 4)), np.zeros((3, 1), dtype=int))
    with pytest.raises(ValueError, match="too many to list"):
        gt.ConditionalPoisson(np.zeros(100), 50).enumerate_support()


def test_messages_speak_of_logits_and_not_of_weights() -> None:
    array_api_strict = pytest.importorskip("array_api_strict")
    law = gt.ConditionalPoisson(np.zeros(4), 2)
    with pytest.raises(TypeError, match=r"and the logits \(numpy\) are of two array libraries"):
        law.logpmf(array_api_strict.asarray([0, 1]))
    with pytest.raises(ValueError, match=r"2 finite entries of logits; lower k or make more entries finite"):
        gt.ConditionalPoisson([0.0, 1.0, -np.inf], 3)


def test_later_changes_of_the_callers_logits_do_not_reach_a_distribution() -> None:
    logits = np.asarray([1.0, 2.0, 3.0])
    law = gt.ConditionalPoisson(logits, 1)
    before = law.marginals()
    logits[:] = 0.0
    np.testing.assert_array_equal(law.marginals(), before)
    assert repr(law) == "ConditionalPoisson(n=3, k=1, batch=())"
