"""Inclusion probabilities: against all subsets with many digits, against identities, and one core against the other."""

from __future__ import annotations

import functools
import math
from typing import Any

import array_api_compat.numpy as numpy_xp
import mpmath
import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from gumbeltopk._generic import inclusion as generic
from gumbeltopk._generic import joint_inclusion as generic_joint
from gumbeltopk._numpy import inclusion as native
from gumbeltopk._numpy import inclusion_nodes
from gumbeltopk._numpy import joint_inclusion as native_joint
from tests import _reference

N = 7
LOG_WEIGHTS = {
    "uniform": np.zeros(N),
    "zipf": -np.log(np.arange(1.0, N + 1)),
    "log-normal(3)": 3 * np.random.default_rng(0).normal(size=N),
    "mass on few": np.log([1e6, 1e6, 1e-3, 2e-3, 1e-3, 5e-4, 1e-3]),
    "ratio 1e20": np.log(10) * np.linspace(-10, 10, N),
    "two giants of ratio 1e20": np.log([1e20, 3e20, 1, 2, 3, 4, 5]),
    "three levels": np.log([1e20, 2e20, 1, 2, 1e-20, 2e-20, 5e-20]),
}
each_law = pytest.mark.parametrize("name", LOG_WEIGHTS)
each_k = pytest.mark.parametrize("k", range(1, N))
DIGITS = 250  # 1 - pi is as small as 1e-100 here


def subset_table(weights: list[Any], k: int) -> dict[int, Any]:
    """p(S) of all subsets of k items, by the sums over subsets in mpmath: p(A + i) += p(A) w_i / (W - w(A))."""
    table = {0: mpmath.mpf(1)}
    for _ in range(k):
        following: dict[int, Any] = {}
        for mask, p in table.items():
            left = mpmath.fsum(w for i, w in enumerate(weights) if not mask >> i & 1)
            for i, w in enumerate(weights):
                if not mask >> i & 1:
                    following[mask | 1 << i] = following.get(mask | 1 << i, mpmath.mpf(0)) + p * w / left
        table = following
    return table


def joint_matrix(weights: list[Any], k: int) -> list[list[Any]]:
    """pi_ij, and pi_i on the diagonal."""
    table, items = subset_table(weights, k), range(len(weights))
    return [
        [mpmath.fsum(p for mask, p in table.items() if mask >> i & 1 and mask >> j & 1) for j in items] for i in items
    ]


@functools.cache
def exact(name: str, k: int) -> tuple[list[list[Any]], np.ndarray[Any, Any]]:
    """pi_ij in mpmath; and d pi_ij / d log w_m (n, n, n), by differences with so many digits that they are exact."""
    with mpmath.workdps(2 * DIGITS):
        weights = [mpmath.exp(mpmath.mpf(float(log_weight))) for log_weight in LOG_WEIGHTS[name]]
        step = mpmath.mpf(10) ** -(DIGITS // 2)
        derivative = np.empty((N, N, N))
        for m in range(N):
            up, down = (
                joint_matrix([w * mpmath.exp(sign * step) if i == m else w for i, w in enumerate(weights)], k)
                for sign in (1, -1)
            )
            for i in range(N):
                for j in range(N):
                    derivative[i, j, m] = float((up[i][j] - down[i][j]) / (2 * step))
        return joint_matrix(weights, k), derivative


def largest_relative_error(value: Any, expected: list[list[Any]]) -> float:
    with mpmath.workdps(2 * DIGITS):
        pairs = zip(np.ravel(value), (x for row in expected for x in row), strict=True)
        return max(abs(float(mpmath.mpf(float(v)) / x - 1)) for v, x in pairs if abs(x) > 1e-290)


def assert_rows_close(value: Any, expected: Any, normwise: float, entrywise: float) -> None:
    error, size = np.abs(value - expected), np.linalg.norm(expected, axis=-1, keepdims=True)
    assert np.all(np.linalg.norm(error, axis=-1, keepdims=True) <= normwise * size)
    assert np.all(error <= entrywise * np.abs(expected) + 1e-290)


@each_law
@each_k
def test_probabilities_against_all_subsets(name: str, k: int) -> None:
    """Relative error 1e-12 entry by entry, however small; of single items and of pairs."""
    expected, _ = exact(name, k)
    log_weights = LOG_WEIGHTS[name]
    value = gt.inclusion_probabilities(log_weights, k)
    assert largest_relative_error(value, [[expected[i][i] for i in range(N)]]) <= 1e-12
    joint = gt.joint_inclusion_probabilities(log_weights, k)
    if k == 1:
        np.testing.assert_array_equal(joint - np.diag(np.diag(joint)), 0.0)
    else:
        assert largest_relative_error(joint, expected) <= 1e-12
    with mpmath.workdps(2 * DIGITS):
        log_odds = [float(mpmath.log(expected[i][i] / (1 - expected[i][i]))) for i in range(N)]
    own = gt.SubsetDistribution(log_weights, k).marginal_log_odds()
    np.testing.assert_allclose(own, log_odds, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["uniform", "zipf", "log-normal(3)", "mass on few", "ratio 1e20"])
@pytest.mark.parametrize("k", [4, 11])
def test_probabilities_of_twelve_items_against_all_subsets(name: str, k: int) -> None:
    """n = 12: relative error 1e-12 of single items and of pairs."""
    n = 12
    log_weights = {
        "uniform": np.zeros(n),
        "zipf": -np.log(np.arange(1.0, n + 1)),
        "log-normal(3)": 3 * np.random.default_rng(0).normal(size=n),
        "mass on few": np.where(np.arange(n) < 2, 14.0, -0.1 * np.arange(n)),
        "ratio 1e20": np.log(10) * np.linspace(-10, 10, n),
    }[name]
    with mpmath.workdps(DIGITS):
        expected = joint_matrix([mpmath.exp(mpmath.mpf(float(log_weight))) for log_weight in log_weights], k)
    joint = gt.joint_inclusion_probabilities(log_weights, k)
    assert largest_relative_error(joint, expected) <= 1e-12
    single = [[expected[i][i] for i in range(n)]]
    assert largest_relative_error(gt.inclusion_probabilities(log_weights, k), single) <= 1e-12


@each_law
@each_k
def test_the_jacobian_against_all_subsets(name: str, k: int) -> None:
    """JVP and VJP, row by row 1e-12 normwise and 1e-10 entry by entry."""
    derivative = np.einsum("iim->im", exact(name, k)[1])
    _, residuals = gt.inclusion_probabilities.fwd(np.tile(LOG_WEIGHTS[name], (N, 1)), k)
    columns = gt.inclusion_probabilities.jvp(residuals, np.eye(N))
    rows = gt.inclusion_probabilities.vjp(residuals, np.eye(N))
    assert_rows_close(columns, derivative.T, 1e-12, 1e-10)
    assert_rows_close(rows, derivative, 1e-12, 1e-10)


@each_law
@pytest.mark.parametrize("k", [2, 3, 6])
def test_the_jacobian_of_pairs_against_all_subsets(name: str, k: int) -> None:
    derivative = exact(name, k)[1]
    _, residuals = gt.joint_inclusion_probabilities.fwd(np.tile(LOG_WEIGHTS[name], (N, 1)), k)
    tangents = gt.joint_inclusion_probabilities.jvp(residuals, np.eye(N))
    for m in range(N):
        # Some pairs move by less than the rounding of the sum of two integrals, h_i a_j and a_i h_j.
        error = np.abs(tangents[m] - derivative[:, :, m])
        assert np.all(error <= 1e-10 * np.abs(derivative[:, :, m]) + 1e-14 * np.abs(derivative).max(axis=-1))
    cotangents = np.random.default_rng(1).normal(size=(N, N, N))
    gradients = gt.joint_inclusion_probabilities.vjp(residuals, cotangents)
    expected = np.einsum("bij,ijm->bm", cotangents, derivative)
    largest = np.einsum("bij,ijm->bm", np.abs(cotangents), np.abs(derivative))
    np.testing.assert_array_less(np.abs(gradients - expected), 1e-12 * largest + 1e-300)


def test_reference_values(to_xp, assert_close) -> None:
    """w = (.1, .2, .3, .4), k = 2; and w = (.4, .3, .2, .1), k = 3."""
    log_weights = to_xp(np.log([0.1, 0.2, 0.3, 0.4]))
    expected = [0.2345238, 0.4412698, 0.6083333, 0.7158730]
    assert_close(gt.inclusion_probabilities(log_weights, 2), expected, rtol=0, atol=5e-8)
    off_diagonal = [0.0472222, 0.0761905, 0.1111111, 0.1607143, 0.2333333, 0.3714286]
    pairs = to_xp([[0, 1], [0, 2], [3, 0], [1, 2], [1, 3], [2, 3]])
    assert_close(gt.joint_inclusion_probabilities(log_weights, 2, pairs=pairs), off_diagonal, rtol=0, atol=5e-8)
    flipped = gt.inclusion_probabilities(to_xp(np.log([0.4, 0.3, 0.2, 0.1])), 3)
    assert_close(flipped, 3 * np.asarray([0.3074074, 0.2900794, 0.2529101, 0.1496032]), rtol=0, atol=2e-7)


def test_one_draw_is_a_softmax(to_xp, assert_close) -> None:
    log_weights = np.random.default_rng(2).normal(size=(3, 6))
    p = np.exp(log_weights) / np.exp(log_weights).sum(axis=-1, keepdims=True)
    value, residuals = gt.inclusion_probabilities.fwd(to_xp(log_weights), 1)
    assert_close(value, p, rtol=1e-13)
    v = np.random.default_rng(3).normal(size=p.shape)
    expected = p * (v - (p * v).sum(axis=-1, keepdims=True))
    assert_close(gt.inclusion_probabilities.vjp(residuals, to_xp(v)), expected, rtol=0, atol=1e-14)


def test_all_but_one_is_the_last_of_the_reverse_order() -> None:
    """k = n - 1 of equal weights leaves each out with probability 1 / n; of others, the light ones more often."""
    np.testing.assert_allclose(gt.inclusion_probabilities(np.zeros(9), 8), 8 / 9, rtol=1e-13)
    pi = gt.inclusion_probabilities(np.log([1.0, 2.0, 4.0]), 2)
    # 1 - pi_i is the probability of being the last one, by eq. 1
    last = [float(_reference.subset_probability([1, 2, 4], pair)) for pair in ([1, 2], [0, 2], [0, 1])]
    np.testing.assert_allclose(1 - pi, last, rtol=1e-12)


# --- identities -----------------------------------------------------------------------------------

SIZES = [(5, 2), (40, 7), (40, 39), (300, 30), (2000, 150)]


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_sums(n: int, k: int) -> None:
    """sum_i pi_i = k; sum_i d pi_i = 0; a common factor of the weights moves nothing; J is symmetric."""
    rng = np.random.default_rng(n + k)
    log_weights = 2 * rng.normal(size=n)
    value, residuals = gt.inclusion_probabilities.fwd(log_weights, k)
    assert abs(value.sum() / k - 1) <= 1e-12
    u, v = rng.normal(size=(2, n))
    tangent = gt.inclusion_probabilities.jvp(residuals, u)
    gradient = gt.inclusion_probabilities.vjp(residuals, v)
    size = np.abs(v * tangent).sum()
    assert abs(tangent.sum()) <= 1e-12 * np.abs(tangent).sum()
    assert np.abs(gt.inclusion_probabilities.jvp(residuals, np.ones(n))).max() <= 1e-12
    assert abs(v @ tangent - gradient @ u) <= 1e-12 * size
    assert u @ tangent > 0  # the Hessian of a convex function
    np.testing.assert_allclose(gt.inclusion_probabilities(log_weights + 700.0, k), value, rtol=1e-10)


@pytest.mark.parametrize(("n", "k"), [(5, 2), (40, 7), (40, 38), (200, 20)])
def test_sums_of_pairs(n: int, k: int) -> None:
    """sum_{j != i} pi_ij = (k - 1) pi_i, and so for the tangents; the covariance sums to 0 and is not negative."""
    rng = np.random.default_rng(n + k)
    log_weights = 2 * rng.normal(size=n)
    joint, residuals = gt.joint_inclusion_probabilities.fwd(log_weights, k)
    pi = gt.inclusion_probabilities(log_weights, k)
    np.testing.assert_allclose(np.diag(joint), pi, rtol=1e-12)
    np.testing.assert_allclose(joint.sum(axis=-1), k * pi, rtol=1e-12)
    np.testing.assert_allclose(joint, joint.T, rtol=1e-12)
    u, v = rng.normal(size=n), rng.normal(size=(n, n))
    tangent = gt.joint_inclusion_probabilities.jvp(residuals, u)
    np.testing.assert_allclose(tangent.sum(axis=-1), k * np.diag(tangent), rtol=0, atol=1e-12)
    gradient = gt.joint_inclusion_probabilities.vjp(residuals, v)
    assert abs(np.sum(v * tangent) - gradient @ u) <= 1e-12 * np.abs(v * tangent).sum()
    covariance = gt.SubsetDistribution(log_weights, k).cov()
    np.testing.assert_allclose(covariance.sum(axis=-1), 0.0, atol=1e-12)
    assert np.linalg.eigvalsh(covariance).min() >= -1e-12


def test_a_heavier_item_is_in_more_often() -> None:
    log_weights = np.sort(np.random.default_rng(5).normal(size=(20, 30)), axis=-1)
    assert np.all(np.diff(gt.inclusion_probabilities(log_weights, 9), axis=-1) > 0)


def test_frequencies_of_samples() -> None:
    """2e5 draws: each frequency within 5.5 standard errors (false alarm of 12 items: 5e-7)."""
    log_weights = np.random.default_rng(6).normal(size=12)
    subsets = gt.SubsetDistribution(log_weights, 5)
    drawn = gt.k_hot(subsets.sample(200_000, rng=7), 12).mean(axis=0)
    pi = subsets.mean()
    assert np.all(np.abs(drawn - pi) <= 5.5 * np.sqrt(pi * (1 - pi) / 200_000))


# --- the two cores --------------------------------------------------------------------------------

_rng = np.random.default_rng(8)
LAWS_OF_300 = {
    "uniform(0, 1)": np.log(_rng.random(300)),
    "exponential": np.log(_rng.exponential(size=300)),
    "zipf": -np.log(np.arange(1.0, 301.0)),
    "log-normal(3)": 3 * _rng.normal(size=300),
    "ratio 1e20": 46 * _rng.random(300),
    "equal": np.zeros(300),
}


def giants(number: int) -> np.ndarray[Any, Any]:
    """That many items 1e20 times as heavy as the others."""
    return np.where(np.arange(300) < number, 46.0, 0.0) + np.random.default_rng(9).random(300)


@pytest.mark.parametrize("k", [1, 5, 30])
@pytest.mark.parametrize("name", [*LAWS_OF_300, "k - 1 giants", "k giants", "k + 1 giants"])
@np.errstate(all="ignore")
def test_contour_integrals_and_dynamic_programming_agree(name: str, k: int) -> None:
    """pi and 1 - pi to 1e-12 entry by entry, J u to 1e-12 normwise, where both know the answer."""
    shift = {"k - 1 giants": -1, "k giants": 0, "k + 1 giants": 1}
    log_weights = giants(k + shift[name]) if name in shift else LAWS_OF_300[name]
    expected = generic.probabilities(log_weights[None, :], k, numpy_xp)
    value = native._probabilities_of_row(log_weights, k)
    for mine, other in zip(value, expected, strict=True):
        np.testing.assert_allclose(mine, other[0], rtol=1e-12, atol=1e-290)
    direction = np.random.default_rng(10).normal(size=300)
    product = native._jacobian_product_of_row(log_weights, k, direction)
    other = generic.jacobian_product(log_weights[None, :], k, direction[None, :], numpy_xp)[0]
    assert np.linalg.norm(product - other) <= 1e-12 * np.linalg.norm(other)


@pytest.mark.parametrize("k", [10, 1000])
def test_a_million_items(k: int) -> None:
    """sum = k within 1e-10; and equal weights with one item of twice the weight, by a closed integral."""
    n = 1_000_000
    log_weights = np.zeros(n)
    log_weights[3] = math.log(2.0)
    pi = gt.inclusion_probabilities(log_weights, k)
    assert abs(pi.sum() / k - 1) <= 1e-10
    # The k-th of n - 1 unit exponentials is at T, exp(-T) ~ Beta(n - k, k): E exp(-2 T) is a ratio of factorials.
    excluded = (n - k) * (n - k + 1) / (n * (n + 1.0))
    assert abs(pi[3] / (1 - excluded) - 1) <= 1e-10
    np.testing.assert_allclose(pi[[0, -1]], (k - pi[3]) / (n - 1), rtol=1e-12)


@pytest.mark.parametrize("name", ["exponential", "zipf", "log-normal(3)", "ladder", "k - 1 giants", "k giants"])
@np.errstate(all="ignore")
def test_pairs_by_contour_integrals_and_dynamic_programming_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """n = 24, k = 6, all pairs and some: 1e-12 entry by entry, tangents and gradients normwise."""
    n, k = 24, 6
    rng = np.random.default_rng(16)
    log_weights = {
        "exponential": np.log(rng.exponential(size=n)),
        "zipf": -np.log(np.arange(1.0, n + 1)),
        "log-normal(3)": 3 * rng.normal(size=n),
        "ladder": -1.3 * np.arange(n),
        "k - 1 giants": np.where(np.arange(n) < k - 1, 46.0, 0.0),
        "k giants": np.where(np.arange(n) < k, 46.0, 0.0),
    }[name]
    rows = np.stack([log_weights, np.where(np.arange(n) == 3, -np.inf, log_weights)])
    pairs = np.asarray([[0, 1], [n - 1, n - 2], [5, 5], [3, 0], [0, 1], [n - 1, n - 1]])
    u, g, g_of_pairs = rng.normal(size=(2, n)), rng.normal(size=(2, n, n)), rng.normal(size=(2, len(pairs)))
    monkeypatch.setattr(native_joint, "SMALLEST_WORK", 0)
    for some, cotangent in ((None, g), (pairs, g_of_pairs)):
        for core, direction in (("probabilities", None), ("jvp", u), ("vjp", cotangent)):
            given = (rows, k, some) if direction is None else (rows, k, direction, some)
            mine, other = (getattr(module, core)(*given, numpy_xp) for module in (native_joint, generic_joint))
            if core == "probabilities":
                np.testing.assert_allclose(mine, other, rtol=1e-12)
            else:
                assert np.linalg.norm(mine - other) <= 1e-12 * np.linalg.norm(other)


def test_pairs_of_a_million_items() -> None:
    """Of equal weights pi_ij = k (k - 1) / (n (n - 1)); and the two derivatives are adjoint."""
    n, k = 1_000_000, 100
    pairs = np.asarray([[0, 1], [5, 999_999], [7, 7]])
    value = gt.joint_inclusion_probabilities(np.zeros(n), k, pairs=pairs)
    np.testing.assert_allclose(value, [k * (k - 1) / n / (n - 1)] * 2 + [k / n], rtol=1e-11)
    rng = np.random.default_rng(17)
    _, residuals = gt.joint_inclusion_probabilities.fwd(rng.normal(size=n), k, pairs=pairs)
    u, v = rng.normal(size=n), np.asarray([1.0, -0.5, 1e-3])
    tangent = gt.joint_inclusion_probabilities.jvp(residuals, u)
    gradient = gt.joint_inclusion_probabilities.vjp(residuals, v)
    assert abs(v @ tangent - gradient @ u) <= 1e-11 * np.abs(v * tangent).sum()
    assert abs(gradient.sum()) <= 1e-11 * np.abs(gradient).sum()


def test_rows_of_a_batch_are_as_rows_alone(to_xp, assert_close) -> None:
    log_weights = np.random.default_rng(11).normal(size=(2, 3, 8)) * np.asarray([1.0, 5.0, 20.0])[:, None]
    expected = np.stack([[gt.inclusion_probabilities(row, 3) for row in rows] for rows in log_weights])
    assert_close(gt.inclusion_probabilities(to_xp(log_weights), 3), expected, rtol=1e-12)
    single = gt.inclusion_probabilities(to_xp(log_weights, "float32"), 3)
    wide = gt.inclusion_probabilities(log_weights.astype(np.float32).astype(np.float64), 3)
    assert_close(single, wide, rtol=1e-7, dtype="float32")


# --- edges ----------------------------------------------------------------------------------------


def test_zero_weights_and_certain_items(to_xp, assert_close) -> None:
    """-inf is never in; where only k weights are positive these are always in, and nothing moves."""
    log_weights = np.asarray([[0.0, -np.inf, 1.0, -1.0], [0.0, -np.inf, 1.0, -np.inf]])
    value, residuals = gt.inclusion_probabilities.fwd(to_xp(log_weights), 2)
    first = gt.inclusion_probabilities(log_weights[0, [0, 2, 3]], 2)
    expected = np.asarray([[first[0], 0.0, first[1], first[2]], [1.0, 0.0, 1.0, 0.0]])
    assert_close(value, expected, rtol=1e-12)
    gradient = api.host(gt.inclusion_probabilities.vjp(residuals, to_xp(np.arange(8.0).reshape(2, 4))))
    assert np.all(gradient[:, 1] == 0)
    assert np.all(gradient[1] == 0)
    assert np.all(gradient[0, [0, 2, 3]] != 0)
    joint, of_pairs = gt.joint_inclusion_probabilities.fwd(to_xp(log_weights), 2)
    assert_close(joint[1, ...], [[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], rtol=1e-13)
    assert np.all(api.host(gt.joint_inclusion_probabilities.jvp(of_pairs, to_xp(np.ones((2, 4)))))[1] == 0)
    odds = gt.SubsetDistribution(log_weights, 2).marginal_log_odds()
    assert odds[1].tolist() == [np.inf, -np.inf, np.inf, -np.inf]


@pytest.mark.parametrize(("shape", "k"), [((4,), 0), ((4,), 4), ((0,), 0), ((0, 3), 2), ((2, 0), 0), ((1,), 1)])
def test_empty_and_full(shape: tuple[int, ...], k: int, to_xp, assert_close) -> None:
    log_weights = np.zeros(shape)
    value, residuals = gt.inclusion_probabilities.fwd(to_xp(log_weights), k)
    assert_close(value, np.full(shape, 1.0 if k == shape[-1] and k else 0.0))
    assert_close(gt.inclusion_probabilities.vjp(residuals, value), np.zeros(shape))
    joint, residuals = gt.joint_inclusion_probabilities.fwd(to_xp(log_weights), k)
    assert_close(joint, np.full((*shape, shape[-1]), 1.0 if k == shape[-1] and k else 0.0))
    assert_close(gt.joint_inclusion_probabilities.vjp(residuals, joint), np.zeros(shape))
    assert_close(gt.joint_inclusion_probabilities.jvp(residuals, to_xp(log_weights)), np.zeros(joint.shape))


def test_extreme_log_weights_end() -> None:
    """1e300 nats apart: certain in float64, and no attempt to walk there."""
    pi = gt.inclusion_probabilities(np.asarray([1e300, 0.0, -1e300, 1.0]), 2)
    np.testing.assert_allclose(pi, [1.0, 1 / (1 + math.e), 0.0, math.e / (1 + math.e)], atol=1e-60, rtol=1e-12)


def test_bad_input() -> None:
    for op in (gt.inclusion_probabilities, gt.joint_inclusion_probabilities):
        with pytest.raises(ValueError, match=r"log_weights\[1\] = nan"):
            op([0.0, np.nan, 1.0], 1)
        with pytest.raises(ValueError, match="k = 3 is more than the 2 items of positive weight"):
            op([0.0, -np.inf, 1.0], 3)
        with pytest.raises(ValueError, match="log_weights is 0-dimensional"):
            op(0.0, 0)
        with pytest.raises(TypeError, match=r"k = 1\.5 must be an integer"):
            op([0.0, 1.0], 1.5)
    with pytest.raises(ValueError, match=r"pairs\[0, 1\] = 3 is not one of the n = 3 items"):
        gt.joint_inclusion_probabilities(np.zeros(3), 2, pairs=[[0, 3]])
    with pytest.raises(ValueError, match=r"pairs has shape \(3,\); pass an array of shape \(m, 2\)"):
        gt.joint_inclusion_probabilities(np.zeros(3), 2, pairs=[0, 1, 2])
    with pytest.raises(ValueError, match=r"pairs has shape \(\); pass an array of shape \(m, 2\)"):
        gt.joint_inclusion_probabilities(np.zeros(3), 2, pairs=1)


def test_a_value_that_misses_its_sum_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generic, "WIDEST_SPACING", 1.5)
    monkeypatch.setattr(generic, "SPACING_OF_A_BELL", 1.5)
    with pytest.raises(ArithmeticError, match=r"row \[0\] of log_weights miss their sum by"):
        gt.inclusion_probabilities(np.zeros(6), 2)
    with pytest.raises(ArithmeticError, match="miss their sum by"):
        gt.joint_inclusion_probabilities(np.zeros(6), 2)


# --- Horvitz and Thompson -------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 5])
def test_horvitz_thompson_is_unbiased_and_so_is_its_variance(k: int, to_xp) -> None:
    """Over all subsets: E estimate = total, E variance estimate = variance."""
    rng = np.random.default_rng(15)
    values = rng.normal(size=6)
    subsets = gt.SubsetDistribution(to_xp(rng.normal(size=6)), k)
    support = subsets.enumerate_support()
    sampled = to_xp(values[api.host(support)])
    joint = subsets.joint_inclusion_probabilities()
    estimate, variance = gt.horvitz_thompson(sampled, support, subsets.inclusion_probabilities(), joint)
    p, estimate, variance = api.host(subsets.pmf(support)), api.host(estimate), api.host(variance)
    assert abs(p @ estimate - values.sum()) <= 1e-12
    exact_variance = p @ (estimate - values.sum()) ** 2
    assert abs(p @ variance / exact_variance - 1) <= 1e-10


def test_horvitz_thompson_broadcasts_and_keeps_the_dtype() -> None:
    inclusion = np.asarray([[0.5, 0.5, 1.0], [0.25, 0.75, 1.0]], dtype=np.float32)
    estimate = gt.horvitz_thompson(np.asarray([1.0, 2.0], dtype=np.float32), [[0, 2], [2, 1]], inclusion)
    assert estimate.dtype == np.float32
    np.testing.assert_allclose(estimate, [4.0, 1 + 2 / 0.75], rtol=1e-6)


JOINT = np.asarray([[0.5, 0.2, 0.3], [0.2, 0.6, 0.4], [0.3, 0.4, 0.9]])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({(0, 2): 0.25}, r"joint\[0, 2\] is 0\.25, but 0\.3 in the other order of both items"),
        ({(2, 2): 0.8}, r"joint\[2, 2\] is 0\.8, but 0\.9 in inclusion, of an item with itself"),
        ({(0, 2): 0.55, (2, 0): 0.55}, r"joint\[0, 2\] is 0\.55, above the 0\.5 in inclusion of one of both items"),
        ({(0, 2): np.nan, (2, 0): np.nan}, r"joint\[0, 2\] = nan, of what was sampled"),
    ],
    ids=["not symmetric", "another diagonal", "above its items", "nan"],
)
def test_horvitz_thompson_refuses_pairs_that_do_not_belong_to_the_items(entries: Any, message: str, to_xp) -> None:
    """The rows and columns of items that were not sampled are not looked at."""
    inclusion, joint = np.diag(JOINT), JOINT.copy()
    for place, value in entries.items():
        joint[place] = value
    with pytest.raises(ValueError, match=message):
        gt.horvitz_thompson(to_xp([1.0, 2.0]), to_xp([0, 2]), to_xp(inclusion), to_xp(joint))
    both = np.stack([JOINT, joint])
    with pytest.raises(ValueError, match=r"in row \(1,\)"):
        gt.horvitz_thompson(to_xp(np.ones((2, 2))), to_xp([0, 2]), to_xp(inclusion), to_xp(both))
    if (2, 2) not in entries:
        gt.horvitz_thompson([1.0, 2.0], [0, 1], inclusion, joint)


def test_horvitz_thompson_allows_for_the_rounding_of_float32() -> None:
    subsets = gt.SubsetDistribution(np.random.default_rng(18).normal(size=12).astype(np.float32), 9)
    wide = gt.SubsetDistribution(subsets.log_weights.astype(np.float64), 9)
    sample = np.arange(9)
    for inclusion in (subsets, wide):
        for joint in (subsets, wide):
            matrix = joint.joint_inclusion_probabilities()
            gt.horvitz_thompson(np.ones(9), sample, inclusion.inclusion_probabilities(), matrix)


def test_horvitz_thompson_refuses_what_cannot_have_been_sampled() -> None:
    with pytest.raises(ValueError, match=r"inclusion\[2\] = 0\.0, of what was sampled"):
        gt.horvitz_thompson([1.0, 2.0], [0, 2], [0.5, 0.5, 0.0])
    with pytest.raises(ValueError, match=r"joint\[0, 1\] = 0\.0, of what was sampled"):
        gt.horvitz_thompson([1.0, 2.0], [0, 1], [0.5, 0.5, 1.0], np.eye(3))
    with pytest.raises(ValueError, match=r"inclusion\[1\] = 1\.5 in row \(1,\)"):
        gt.horvitz_thompson([[1.0], [2.0]], [[0], [1]], [0.5, 1.5, 0.5])
    with pytest.raises(ValueError, match=r"values has shape \(3,\), but indices lists k = 2"):
        gt.horvitz_thompson([1.0, 2.0, 3.0], [0, 1], [0.5, 0.5, 1.0])
    with pytest.raises(ValueError, match="joint is of no use with k = 1"):
        gt.horvitz_thompson([1.0], [0], [0.5, 0.5], np.eye(2))
    with pytest.raises(ValueError, match="the batch shapes do not broadcast"):
        gt.horvitz_thompson(np.ones((2, 1)), np.zeros((3, 1), dtype=int), [0.5, 0.5])
    with pytest.raises(ValueError, match="more than once"):
        gt.horvitz_thompson([1.0, 2.0], [0, 0], [0.5, 0.5])


@pytest.mark.parametrize("gap", [40.0, 80.0, 140.0])
@pytest.mark.parametrize("giants", [19, 20, 21])
def test_contour_integrals_across_a_gap(gap: float, giants: int) -> None:
    """As many giants as are drawn, one less and one more: tiny probabilities keep their digits as well."""
    n, k = 60, 20
    log_weights = np.where(np.arange(n) < giants, 0.0, -gap) + 0.1 * np.random.default_rng(0).normal(size=n)
    direction = np.random.default_rng(1).normal(size=n)
    with api.quiet():
        (included,), (excluded,) = generic.probabilities(log_weights[None], k, numpy_xp)
        found = native._probabilities_of_row(log_weights, k)
        (product,) = generic.jacobian_product(log_weights[None], k, direction[None], numpy_xp)
        error = np.abs(native._jacobian_product_of_row(log_weights, k, direction) - product)
    np.testing.assert_allclose(found[0], included, rtol=1e-12)
    np.testing.assert_allclose(found[1], excluded, rtol=1e-12)
    assert np.all(error <= 1e-11 * np.minimum(included, excluded))


NAMES_OF_CLASSES = ("heavy", "light", "no heavy", "no light")


@pytest.mark.parametrize(("n", "k"), [(400, 200), (500, 40), (200, 197), (100_000, 60)])
@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("gap", [3.0, 20.0, 140.0])
@np.errstate(all="ignore")
def test_two_classes_with_nodes_where_the_items_are(n: int, k: int, more: int, gap: float) -> None:
    """pi and 1 - pi to 1e-12 against exact counts, where k giants stand before the rest: a few nodes cross the gap."""
    heavy = k + more
    exact = _reference.two_classes(n, heavy, k, gap)
    included, excluded = native._probabilities_of_row(np.where(np.arange(n) < heavy, gap, 0.0), k)
    for value, name in zip((included[0], included[-1], excluded[0], excluded[-1]), NAMES_OF_CLASSES, strict=True):
        with mpmath.workdps(30):
            assert abs(mpmath.mpf(float(value)) / exact[name] - 1) <= 1e-12


@pytest.mark.parametrize("seed", range(8))
@np.errstate(all="ignore")
def test_nodes_where_the_items_are_and_equally_spaced_ones_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of some size, spread and distance: pi and 1 - pi to 1e-12, J u to 1e-12 normwise."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, 150)
    log_weights = rng.choice([0.0, 2.0, 5.0, 12.0, 30.0, 140.0], 3)[group] + rng.choice([0.0, 0.1, 2.0]) * rng.normal(
        size=150
    )
    k, u = int(np.count_nonzero(group == 0)), rng.normal(size=150)
    results = []
    for worthwhile in (0.0, math.inf):
        monkeypatch.setattr(inclusion_nodes, "WORTHWHILE", worthwhile)
        product = native._jacobian_product_of_row(log_weights, k, u)
        results.append((*native._probabilities_of_row(log_weights, k), product))
    np.testing.assert_allclose(results[0][:2], results[1][:2], rtol=1e-12, atol=1e-290)
    assert np.linalg.norm(results[0][2] - results[1][2]) <= 1e-12 * np.linalg.norm(results[0][2])


@np.errstate(all="ignore")
def test_a_thousand_giants_need_few_more_nodes_for_a_wider_gap() -> None:
    """Equally spaced ones would be 3,000, at 1,200 points each."""
    rest = np.random.default_rng(3).normal(size=100_000)
    narrow, wide = (native.prepare(np.where(np.arange(100_000) < 1000, gap, 0.0) + rest, 1000) for gap in (20.0, 46.0))
    assert len(wide.saddles[0].s) < len(narrow.saddles[0].s) + 10 * (46.0 - 20.0) + 10
    assert len(wide.saddles[0].s) < 1300


def test_a_row_whose_contour_gives_nan_goes_to_dynamic_programming(monkeypatch) -> None:
    log_weights = np.random.default_rng(2).normal(size=(1, 100))
    expected = native.probabilities(log_weights, 20, numpy_xp)[0]
    monkeypatch.setattr(native, "_probabilities_of_row", lambda row, k: (np.full_like(row, np.nan),) * 2)
    np.testing.assert_allclose(native.probabilities(log_weights, 20, numpy_xp)[0], expected, rtol=1e-12)
