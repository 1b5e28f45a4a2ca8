"""Successive softmax (eqs. 3-5), Theorem 1, Algorithm 2, and what the paper gets wrong."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from gumbeltopk._generic import successive_softmax as generic
from tests import _reference

TEMPERATURES = (0.03, 0.1, 0.5, 1.0, 5.0)


def key_families(n: int, t: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {
        "gumbel": rng.gumbel(size=n),
        "ties": np.round(rng.normal(size=n)),
        "all tied": np.zeros(n),
        "two clusters, 700 t apart": np.where(np.arange(n) < n // 2, 0.0, -700 * t + rng.uniform(0, t, size=n)),
        "one giant": np.r_[30 * t, rng.normal(size=n - 1) * t],
    }


def some_k(n: int) -> list[int]:
    return sorted({1, 2, n // 2, n - 1, n} & set(range(1, n + 1)))


CASES = [(n, k, t) for n in (1, 2, 7, 100) for k in some_k(n) for t in TEMPERATURES if n < 100 or k in (2, 50, 100)]


@pytest.mark.parametrize(("n", "k", "t"), CASES)
def test_value_and_vjp_against_many_digits(n: int, k: int, t: float) -> None:
    """Forward 1e-14, VJP 1e-13 normwise; 1e-11 for both at t = .03, where each step magnifies by up to beta = 33.

    Normwise is relative to the gradient of a generic point: a gradient that vanishes (n = k, or exact ties in the
    temperature) is compared on the scale 1/t of the terms that cancel in it.
    """
    for name, keys in key_families(n, t).items():
        cotangent = np.random.default_rng(k).normal(size=n)
        with mpmath.workdps(_reference.digits_for(keys, t)):
            steps = _reference.successive_softmax(keys, k, t)
            expected = np.asarray([float(mpmath.fsum(p[i] for p in steps)) for i in range(n)])
            by_keys, by_temperature = _reference.successive_softmax_gradient(keys, k, t, cotangent)
            by_keys, by_temperature = np.asarray([float(x) for x in by_keys]), float(by_temperature)
        value, residuals = gt.relaxed_topk.fwd(keys, k, temperature=t)
        gradient, t_gradient = gt.relaxed_topk.vjp(residuals, cotangent, wrt=("keys", "temperature"))
        value_tolerance, tolerance = (1e-11, 1e-11) if t == 0.03 else (1e-14, 1e-13)
        assert np.max(np.abs(value - expected)) <= value_tolerance * np.max(expected), name
        floor = np.linalg.norm(cotangent) / t * 1e-3
        assert np.linalg.norm(gradient - by_keys) <= tolerance * max(np.linalg.norm(by_keys), floor), name
        t_scale = max(abs(by_temperature), np.linalg.norm(by_keys) * np.ptp(keys) / t, np.linalg.norm(cotangent) / t)
        assert abs(t_gradient - by_temperature) <= tolerance * t_scale, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("keys", "k", "t", "expected"),
    [
        ([200.0, 0.0, 0.0], 2, 1.0, [1.5, 0.25, 0.25]),
        ([100.0, 0.0, 0.0, 0.0], 3, 0.5, [1.0, 2 / 3, 2 / 3, 2 / 3]),
        ([2000.0, 0.0, 0.0], 2, 1.0, [1.5, 0.25, 0.25]),
    ],
)
def test_one_giant_needs_the_exact_complement(to_xp, assert_close, dtype, keys, k, t, expected) -> None:
    """Clamping 1 - p at an epsilon gives (2, 0, 0); the last one needs the log domain."""
    tolerance = 1e-7 if dtype == "float32" else 1e-14 if keys[0] < 700 else 1e-12
    actual = gt.relaxed_topk(to_xp(keys, dtype), k, temperature=t)
    assert_close(actual, expected, rtol=tolerance, dtype=dtype)


def test_eqs_3_to_5_as_written(to_xp, assert_close) -> None:
    keys = np.random.default_rng(0).normal(size=6)
    alpha, t, steps = keys.copy(), 0.7, []
    for _ in range(4):
        p = np.exp(alpha / t) / np.sum(np.exp(alpha / t))
        steps.append(p)
        alpha = alpha + np.log(1 - p)
    assert_close(gt.relaxed_topk(to_xp(keys), 4, temperature=t, steps=True), np.asarray(steps), rtol=1e-12)
    assert_close(gt.relaxed_topk(to_xp(keys), 4, temperature=t), np.sum(steps, axis=0), rtol=1e-12)


def test_two_items_in_closed_form(to_xp, assert_close) -> None:
    """p_j = sigmoid(d (1 - beta)^{j-1} beta) for the item ahead by d."""
    d, beta = 0.8, 2.5
    ahead = 1 / (1 + np.exp(-d * beta * np.asarray([1.0, 1.0 - beta])))
    steps = gt.relaxed_topk(to_xp([d, 0.0]), 2, temperature=1 / beta, steps=True)
    assert_close(steps, np.stack([ahead, 1 - ahead], axis=-1), rtol=1e-13)


def test_theorem_1_order_is_preserved_from_temperature_1() -> None:
    rng = np.random.default_rng(1)
    keys = np.sort(rng.normal(size=(2000, 8)) * 3, axis=-1)
    for t in (1.0, 1.5, 10.0):
        a = gt.relaxed_topk(keys, 5, temperature=t)
        assert np.all(np.diff(a, axis=-1) >= -1e-14)


def test_theorem_1_is_about_t_of_1_and_more() -> None:
    keys = np.sort(np.random.default_rng(1).normal(size=(2000, 8)), axis=-1)
    assert np.any(np.diff(gt.relaxed_topk(keys, 5, temperature=0.3), axis=-1) < -1e-3)


@pytest.mark.parametrize("d", [1e-3, 0.1, 1.0])
def test_two_items_keep_their_order_from_temperature_one_half(d: float) -> None:
    above = gt.relaxed_topk([d, 0.0], 2, temperature=0.5)
    below = gt.relaxed_topk([d, 0.0], 2, temperature=0.45)
    assert above[0] >= above[1] - 1e-15
    assert below[0] < below[1]


def test_entries_above_1_happen_although_algorithm_2_says_otherwise() -> None:
    """n = 20, k = 5, t = .1: more than one draw in two has an entry above 1."""
    a = gt.relaxed_topk(np.random.default_rng(2).gumbel(size=(1000, 20)), 5, temperature=0.1)
    assert np.mean(np.max(a, axis=-1) > 1.0 + 1e-9) > 0.5
    assert np.max(a) > 1.5


def test_the_papers_example_has_keys_1_and_2() -> None:
    """[1.05, 0.95] at t = .4 comes from keys [1, 2], not from [e, e^2]."""
    np.testing.assert_allclose(gt.relaxed_topk([1.0, 2.0], 2, temperature=0.4), [1.05, 0.95], atol=5e-3)
    assert abs(gt.relaxed_topk([np.e, np.e**2], 2, temperature=0.4)[0] - 1.05) > 0.04


@pytest.mark.parametrize("steps", [False, True])
def test_rows_sum_to_k_and_are_not_negative(to_xp, steps) -> None:
    keys = np.random.default_rng(3).gumbel(size=(5, 9)) * np.asarray([[0.0], [1], [10], [300], [3000]])
    a = api.host(gt.relaxed_topk(to_xp(keys), 4, temperature=0.5, steps=steps))
    assert np.all(a >= 0)
    np.testing.assert_allclose(a.sum(axis=-1), np.ones((5, 4)) if steps else np.full(5, 4.0), rtol=1e-14)


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_derivatives_on_every_axis(axis: int, steps: bool) -> None:
    keys = np.random.default_rng(4).normal(size=(3, 4, 5))
    batch = tuple(length for i, length in enumerate(keys.shape) if i != axis % 3)
    for shape in ((), batch, (1, batch[1])):
        temperature = np.random.default_rng(5).uniform(0.5, 2, size=shape)
        gt.testing.check_operator(gt.relaxed_topk, keys, 2, temperature=temperature, axis=axis, steps=steps)


def test_derivatives_in_rows_of_both_domains() -> None:
    """One row falls back to logarithms, its neighbours do not; checked on the neighbours' own and by adjointness."""
    keys = np.asarray([[0.3, 0.1, -0.4], [1500.0, 0.2, 0.0], [0.5, -0.2, 0.1]])
    value, residuals = gt.relaxed_topk.fwd(keys, 3, temperature=0.8)
    assert residuals.arrays[3][:, 0].tolist() == [False, True, False]
    gt.testing.check_adjoint(gt.relaxed_topk, keys, 3, temperature=0.8)
    cotangent = np.random.default_rng(6).normal(size=keys.shape)
    gradient = gt.relaxed_topk.vjp(residuals, cotangent)
    for row in range(3):
        own_value, own = gt.relaxed_topk.fwd(keys[row], 3, temperature=0.8)
        np.testing.assert_array_equal(value[row], own_value)
        np.testing.assert_allclose(gradient[row], gt.relaxed_topk.vjp(own, cotangent[row]), rtol=1e-14)


def test_log_domain_against_many_digits() -> None:
    keys, k, cotangent = np.asarray([1500.0, 0.25, 0.0, -900.0]), 3, np.asarray([0.3, -1.0, 0.7, 0.2])
    with mpmath.workdps(1500):
        steps = _reference.successive_softmax(keys, k, 1.0)
        expected = [float(mpmath.fsum(p[i] for p in steps)) for i in range(4)]
        by_keys, by_temperature = _reference.successive_softmax_gradient(keys, k, 1.0, cotangent)
    value, residuals = gt.relaxed_topk.fwd(keys, k)
    gradient, t_gradient = gt.relaxed_topk.vjp(residuals, cotangent, wrt=("keys", "temperature"))
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(gradient, [float(x) for x in by_keys], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(t_gradient, float(by_temperature), rtol=1e-11)


@pytest.mark.parametrize("t", [1e-3, 0.03, 0.1, 0.5, 1.0, 5.0, 1e3])
@pytest.mark.parametrize("scale", [1.0, 700.0, 1e5, 1e300])
def test_finite_for_every_finite_input(t: float, scale: float) -> None:
    keys = np.random.default_rng(7).normal(size=(6, 7)) * scale
    keys[1] = 0.0
    keys[2, 1:] = -scale
    for k in (1, 3, 7):
        value, residuals = gt.relaxed_topk.fwd(keys, k, temperature=t)
        assert np.all(np.isfinite(value))
        gradient = gt.relaxed_topk.vjp(residuals, np.ones_like(keys))
        tangent = gt.relaxed_topk.jvp(residuals, np.ones_like(keys))
        assert np.all(np.isfinite(gradient))
        assert np.all(np.isfinite(tangent))


def test_largest_keys_that_there_are() -> None:
    np.testing.assert_allclose(gt.relaxed_topk([1.7e308, -1.7e308], 2), [1.5, 0.5])
    assert np.all(np.isfinite(gt.relaxed_topk([1.7e308, -1.7e308, 0.0], 3, temperature=1e-300)))


def test_zero_weight_items_get_no_mass_and_no_gradient(to_xp, assert_close) -> None:
    keys = to_xp([0.5, -np.inf, 0.1, -0.3])
    value, residuals = gt.relaxed_topk.fwd(keys, 2)
    short, short_residuals = gt.relaxed_topk.fwd(to_xp([0.5, 0.1, -0.3]), 2)
    assert_close(value, np.insert(api.host(short), 1, 0.0), rtol=1e-14)
    gradient, by_t = gt.relaxed_topk.vjp(residuals, to_xp([1.0, 5.0, 0.0, 2.0]), wrt=("keys", "temperature"))
    expected, expected_t = gt.relaxed_topk.vjp(short_residuals, to_xp([1.0, 0.0, 2.0]), wrt=("keys", "temperature"))
    assert_close(gradient, np.insert(api.host(expected), 1, 0.0), rtol=1e-13)
    assert_close(by_t, api.host(expected_t), rtol=1e-13)


def test_derivatives_stay_in_their_library(to_xp, assert_close) -> None:
    keys = np.random.default_rng(8).normal(size=(3, 5))
    keys[1, 0] = 1000.0  # a row in logarithms
    tangent, cotangent = np.random.default_rng(9).normal(size=(2, 3, 5))
    temperature = np.asarray([0.5, 1.0, 2.0])
    _, expected = gt.relaxed_topk.fwd(keys, 3, temperature=temperature)
    _, residuals = gt.relaxed_topk.fwd(to_xp(keys), 3, temperature=to_xp(temperature))
    both = ("keys", "temperature")
    for actual, reference in zip(
        gt.relaxed_topk.vjp(residuals, to_xp(cotangent), wrt=both),
        gt.relaxed_topk.vjp(expected, cotangent, wrt=both),
        strict=True,
    ):
        assert_close(actual, reference, rtol=1e-10, atol=1e-13)
    actual = gt.relaxed_topk.jvp(residuals, to_xp(tangent), to_xp(temperature))
    assert_close(actual, gt.relaxed_topk.jvp(expected, tangent, temperature), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("t", [0.03, 0.1, 1.0, 5.0])
def test_float32_gradients(to_xp, assert_close, t: float) -> None:
    """Normwise 1e-6 against float64 on the same float32 keys."""
    keys = np.random.default_rng(10).gumbel(size=(20, 50)).astype(np.float32)
    cotangent = np.random.default_rng(11).normal(size=keys.shape).astype(np.float32)
    _, residuals = gt.relaxed_topk.fwd(to_xp(keys), 5, temperature=t)
    gradient = gt.relaxed_topk.vjp(residuals, to_xp(cotangent))
    _, exact = gt.relaxed_topk.fwd(keys.astype(np.float64), 5, temperature=t)
    expected = gt.relaxed_topk.vjp(exact, cotangent.astype(np.float64))
    error = np.linalg.norm(api.host(gradient) - expected, axis=-1)
    assert np.all(error <= 1e-6 * np.linalg.norm(expected, axis=-1))
    assert_close(gradient, api.host(gradient), dtype="float32")


@pytest.mark.parametrize(("shape", "k"), [((5,), 0), ((0,), 0), ((2, 0), 0), ((0, 4), 2), ((1,), 1)])
def test_edges(to_xp, assert_close, shape, k) -> None:
    keys = to_xp(np.zeros(shape))
    value, residuals = gt.relaxed_topk.fwd(keys, k)
    assert_close(value, np.full(shape, float(k > 0)))
    assert_close(gt.relaxed_topk.vjp(residuals, keys), np.zeros(shape))
    assert_close(gt.relaxed_topk.jvp(residuals, keys), np.zeros(shape))
    assert gt.relaxed_topk(keys, k, steps=True).shape == (*shape[:-1], k, shape[-1])


def test_input_layouts_do_not_matter() -> None:
    keys = np.random.default_rng(12).normal(size=(4, 6))
    expected = gt.relaxed_topk(keys, 2)
    read_only = keys.copy()
    read_only.flags.writeable = False
    for variant in (read_only, np.asfortranarray(keys), keys.astype(">f8"), keys[:, ::-1][:, ::-1], keys.tolist()):
        np.testing.assert_allclose(gt.relaxed_topk(variant, 2), expected, rtol=1e-14)
    assert gt.relaxed_topk(np.arange(4), 2).dtype == np.float64
    half = gt.relaxed_topk(keys.astype(np.float16), 2)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, expected, atol=2e-3)


def test_blocks_of_rows_are_the_same_as_all_rows() -> None:
    """The NumPy core works in blocks; the generic one does not."""
    keys = np.random.default_rng(13).gumbel(size=(3000, 11))
    temperature = np.random.default_rng(14).uniform(0.1, 2, size=3000)
    xp = api.namespace_of(keys)
    with api.quiet():
        expected, _ = generic.forward(keys, temperature[:, None], 1 / temperature[:, None], 4, None, xp)
    np.testing.assert_array_equal(gt.relaxed_topk(keys, 4, temperature=temperature), expected)


def test_algorithm_2_is_keys_and_relaxed_topk(to_xp, assert_close) -> None:
    log_weights, noise = np.random.default_rng(15).normal(size=(2, 3, 5))
    expected = gt.relaxed_topk(log_weights + noise, 2, temperature=0.6)
    relaxed = gt.relaxed_sample(to_xp(log_weights), 2, temperature=0.6, noise=to_xp(noise))
    assert_close(relaxed, expected, rtol=1e-12)
    assert_close(
        gt.relaxed_sample(weights=to_xp(np.exp(log_weights)), k=2, temperature=0.6, noise=to_xp(noise)),
        expected,
        rtol=1e-12,
    )


def test_algorithm_2_at_low_temperature_is_the_exact_sample() -> None:
    weights = np.asarray([0.1, 0.2, 0.3, 0.4, 0.0])
    relaxed = gt.relaxed_sample(weights=np.broadcast_to(weights, (50, 5)), k=2, temperature=1e-4, rng=3)
    chosen = gt.sample(weights=np.broadcast_to(weights, (50, 5)), k=2, rng=3)
    np.testing.assert_allclose(relaxed, gt.k_hot(chosen, 5), atol=1e-3)


def test_algorithm_2_draws_anew_at_each_call() -> None:
    rng = np.random.default_rng(0)
    first, second = (gt.relaxed_sample(np.zeros(5), 2, rng=rng) for _ in range(2))
    assert not np.array_equal(first, second)


def test_noise_survives_large_log_weights() -> None:
    """The relaxation sees no shift of a row, so that 1e30 next to noise of order 1 must not matter."""
    noise = np.random.default_rng(16).gumbel(size=(4, 5))
    expected = gt.relaxed_sample(np.zeros((4, 5)), 2, noise=noise)
    np.testing.assert_array_equal(gt.relaxed_sample(np.full((4, 5), 1e30), 2, noise=noise), expected)


@pytest.mark.parametrize("temperature", [0.5, np.asarray([0.5, 2.0])])
def test_residuals_are_not_the_callers_arrays(temperature) -> None:
    """A training loop changes its parameters in place; that must not reach derivatives that are still to come."""
    keys, cotangent = np.random.default_rng(17).normal(size=(2, 2, 6))
    temperature = np.asarray(temperature)
    _, residuals = gt.relaxed_topk.fwd(keys, 3, temperature=temperature)
    both = ("keys", "temperature")
    before = gt.relaxed_topk.vjp(residuals, cotangent, wrt=both)
    keys *= 3.0
    temperature *= 2.0
    for was, now in zip(before, gt.relaxed_topk.vjp(residuals, cotangent, wrt=both), strict=True):
        np.testing.assert_array_equal(now, was)


@pytest.mark.parametrize("t", [1e-3, 5e-4, 1e-6])
def test_two_tied_items_at_low_temperature(to_xp, assert_close, t) -> None:
    """(1 - p)^beta = 2^-2000 underflows at once; both items are selected all the same."""
    value, residuals = gt.relaxed_topk.fwd(to_xp([0.0, 0.0]), 2, temperature=t)
    assert_close(value, [1.0, 1.0], rtol=1e-11)
    assert np.all(np.isfinite(api.host(gt.relaxed_topk.vjp(residuals, to_xp([1.0, 0.0])))))


def test_an_item_that_only_the_log_domain_sees() -> None:
    """exp loses the last item, which the second step needs: 6.9e-12 in exact arithmetic, by the rule p^2 = v / S."""
    with mpmath.workdps(700):
        steps = _reference.successive_softmax([0.0, -680.0, -705.0], 2, 1.0)
        expected = [float(mpmath.fsum(p[i] for p in steps)) for i in range(3)]
    np.testing.assert_allclose(gt.relaxed_topk([0.0, -680.0, -705.0], 2), expected, rtol=1e-11)


def test_temperatures_whose_inverse_overflows_are_refused() -> None:
    for t in (1e-309, 1e-320):
        with pytest.raises(ValueError, match=f"temperature = {t} is so small that 1 / temperature overflows"):
            gt.relaxed_topk([3.0, 2.0, 1.0], 2, temperature=t)


@pytest.mark.parametrize("k", [1, 2])
def test_derivatives_where_a_difference_of_keys_overflows(k: int) -> None:
    keys = np.asarray([1.7e308, -1e308, -1e308])
    for method in ("direct", "auto"):
        _, residuals = gt.relaxed_topk.fwd(keys, k, temperature=0.03, method=method)
        assert np.isfinite(gt.relaxed_topk.vjp(residuals, np.asarray([1.0, 2.0, -1.0]))).all()
        assert np.isfinite(gt.relaxed_topk.jvp(residuals, np.asarray([1.0, 2.0, -1.0]))).all()
