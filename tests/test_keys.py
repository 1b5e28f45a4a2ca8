"""Arrival times and Gumbel keys (Algorithm 1): r = log w + g = -log T, T = E / w."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from tests import _statistics
from tests.test_random import own_generator

SMALLEST, LARGEST = 5e-324, 1e308
WIDE_WEIGHTS = [SMALLEST, 1e-323, 2.3e-308, 1e-300, 1e-16, 1.0, 1e17, 1e300, LARGEST]


# --- the definition -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rng", [0, gt.CounterRNG(0)], ids=["int", "counter"])
def test_keys_are_minus_the_log_of_arrival_times(to_xp, assert_close, dtype, rng) -> None:
    log_weights = to_xp([[0.5, -1.0, -np.inf], [3.0, 0.0, 2.0]], dtype)
    keys = gt.gumbel_keys(log_weights, rng=rng)
    assert_close(gt.log_arrival_times(log_weights, rng=rng), -api.host(keys), rtol=0, dtype=dtype)


def test_keys_are_log_weights_plus_noise(to_xp, assert_close) -> None:
    """r = log w - log E with the unit exponentials of the generator, in C order."""
    weights = np.random.default_rng(0).exponential(size=(2, 3, 4))
    expected = np.log(weights) - np.log(np.random.default_rng(1).standard_exponential((2, 3, 4)))
    rng = np.random.default_rng(1)
    assert_close(gt.gumbel_keys(weights=to_xp(weights), rng=rng), expected, rtol=1e-13, atol=1e-15)
    rng = np.random.default_rng(1)
    assert_close(gt.gumbel_keys(to_xp(np.log(weights)), rng=rng), expected, rtol=1e-13, atol=1e-15)


def test_weights_and_log_weights_agree(to_xp, assert_close) -> None:
    weights = np.asarray([0.0, 1e-300, 0.25, 1.0, 3.0, 1e300])
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    for rng in (3, gt.CounterRNG(3)):
        keys = gt.gumbel_keys(weights=to_xp(weights), rng=rng)
        assert_close(keys, api.host(gt.gumbel_keys(to_xp(log_weights), rng=rng)), rtol=1e-14)


def test_weights_from_the_smallest_to_the_largest_float(to_xp, assert_close) -> None:
    """All keys are finite, and each is the noise plus log w to the last digits."""
    noise = api.host(gt.gumbel_keys(to_xp(np.zeros(9)), rng=4))
    keys = gt.gumbel_keys(weights=to_xp(WIDE_WEIGHTS), rng=4)
    assert_close(keys, [math.log(w) + g for w, g in zip(WIDE_WEIGHTS, noise, strict=True)], rtol=1e-14)
    assert np.all(np.isfinite(api.host(keys)))


def test_log_weights_from_the_smallest_to_the_largest_float(to_xp) -> None:
    largest = np.finfo(np.float64).max
    keys = api.host(gt.gumbel_keys(to_xp([-largest, -1e30, 0.0, 1e30, largest]), rng=5))
    assert np.all(np.isfinite(keys))
    assert np.all(np.diff(keys) > 0)


def test_weight_zero_has_the_key_minus_infinity(to_xp, assert_close) -> None:
    expected = [False, True, True, False]
    for keys in (
        gt.gumbel_keys(to_xp([0.0, -np.inf, -np.inf, -700.0]), rng=6),
        gt.gumbel_keys(weights=to_xp([1.0, 0.0, -0.0, SMALLEST]), rng=6),
    ):
        assert (api.host(keys) == -np.inf).tolist() == expected
        assert np.isfinite(api.host(keys)).tolist() == [not zero for zero in expected]
    never = gt.log_arrival_times(weights=to_xp([0.0]), rng=6)
    assert_close(never, [np.inf])


def test_a_constant_in_the_log_weights_is_a_constant_in_the_keys(to_xp, assert_close) -> None:
    log_weights = np.random.default_rng(7).normal(size=20)
    keys = api.host(gt.gumbel_keys(to_xp(log_weights), rng=7))
    for c in (-1e6, -700.0, 1.0, 1e3, 1e9):
        assert_close(gt.gumbel_keys(to_xp(log_weights + c), rng=7), keys + c, rtol=1e-15, atol=1e-14)


# --- the distribution of the noise ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_is_gumbel_far_into_the_tails(dtype) -> None:
    """1e6 draws in 18 cells, out to 5e-5 on both sides: an rms error of 1.2 % of the cells is found."""
    assert _statistics.smallest_error_found(1_000_000, 18) < 0.012
    _statistics.assert_gumbel(gt.gumbel_keys(np.zeros(1_000_000, dtype), rng=8))


def test_noise_is_gumbel_by_the_largest_gap_of_the_distribution_functions() -> None:
    """Kolmogorov-Smirnov: a gap of 2 % is found with power 1 - 1e-6."""
    keys = gt.gumbel_keys(np.log(np.full(100_000, 3.0)), rng=9)
    assert stats.kstest(keys - np.log(3.0), stats.gumbel_r.cdf).pvalue >= _statistics.ALPHA


def test_times_are_exponential_of_the_rate_of_the_weight() -> None:
    """P(T > t) = exp(-w t), and the items are independent: the minimum has the rate of the sum."""
    weights = np.asarray([0.2, 1.0, 5.0])
    times = np.exp(gt.log_arrival_times(weights=np.broadcast_to(weights, (100_000, 3)), rng=10))
    for item, w in enumerate(weights):
        assert stats.kstest(times[:, item] * w, "expon").pvalue >= _statistics.ALPHA
    assert stats.kstest(times.min(axis=-1) * weights.sum(), "expon").pvalue >= _statistics.ALPHA


def test_noise_of_every_library_is_gumbel(to_xp) -> None:
    """With a seed: the generator that the library falls back on. 1e5 draws: an rms error of 3.6 % is found."""
    assert _statistics.smallest_error_found(100_000, 18) < 0.037
    _statistics.assert_gumbel(api.host(gt.gumbel_keys(to_xp(np.zeros(100_000)), rng=11)))


def test_noise_of_the_librarys_own_generator_is_gumbel(library, to_xp) -> None:
    noise = api.host(gt.gumbel_keys(to_xp(np.zeros(100_000)), rng=own_generator(library, 12)))
    _statistics.assert_gumbel(noise)
    _statistics.assert_distinct(noise)


def test_a_million_keys_are_all_different() -> None:
    _statistics.assert_distinct(gt.gumbel_keys(np.zeros(1_000_000), rng=13))


def test_the_largest_float32_keys_of_ten_million_are_all_different() -> None:
    """Of float32 uniforms the hundred largest would share some two hundred values, and end at 16.64."""
    rng = np.random.default_rng(14)
    largest = [np.sort(gt.gumbel_keys(np.zeros(1_000_000, np.float32), rng=rng))[-100:] for _ in range(10)]
    _statistics.assert_distinct(np.sort(np.concatenate(largest))[-100:])


# --- dtypes, shapes and layouts -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_is_kept_and_rounded_once(to_xp, assert_close, dtype) -> None:
    log_weights = np.random.default_rng(15).normal(size=(3, 50)).astype(dtype)
    exact = gt.gumbel_keys(log_weights.astype(np.float64), rng=gt.CounterRNG(15))
    rounding = {"rtol": 1e-15, "atol": 1e-15} if dtype == "float64" else {"rtol": 6e-8}
    assert_close(gt.gumbel_keys(to_xp(log_weights), rng=gt.CounterRNG(15)), exact, **rounding, dtype=dtype)


def test_float16_is_rounded_once() -> None:
    log_weights = np.random.default_rng(16).normal(size=100).astype(np.float16)
    exact = gt.gumbel_keys(log_weights.astype(np.float64), rng=16)
    keys = gt.gumbel_keys(log_weights, rng=16)
    assert keys.dtype == np.float16
    np.testing.assert_array_equal(keys, exact.astype(np.float16))


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "uint64"])
def test_integers_are_weights(to_xp, library, assert_close, dtype) -> None:
    keys = gt.gumbel_keys(weights=to_xp([3, 0, 100], dtype), rng=gt.CounterRNG(17))
    floating = "float32" if library.name == "torch" else "float64"  # the library's default
    expected = gt.gumbel_keys(weights=[3.0, 0.0, 100.0], rng=gt.CounterRNG(17))
    assert_close(keys, expected, rtol=1e-6 if floating == "float32" else 1e-14, dtype=floating)


@pytest.mark.parametrize("shape", [(1,), (0,), (2, 0), (0, 3), (2, 3, 4)])
def test_shapes(to_xp, assert_close, shape) -> None:
    expected = gt.gumbel_keys(np.zeros(shape), rng=gt.CounterRNG(18))
    assert_close(gt.gumbel_keys(to_xp(np.zeros(shape)), rng=gt.CounterRNG(18)), expected, rtol=1e-13)
    assert gt.gumbel_keys(to_xp(np.zeros(shape)), rng=18).shape == shape


def layouts(array: np.ndarray) -> dict[str, np.ndarray]:
    """The same values, laid out in memory in every way that NumPy has."""
    read_only = array.copy()
    read_only.flags.writeable = False
    spread = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    spread[..., ::2] = array
    return {
        "read-only": read_only,
        "every second": spread[..., ::2],
        "negative strides": array[..., ::-1].copy()[..., ::-1],
        "fortran": np.asfortranarray(array),
        "big-endian": array.astype(array.dtype.newbyteorder(">")),
        "broadcast": np.broadcast_to(array, (1, *array.shape))[0],
        "list": array.tolist(),
    }


@pytest.mark.parametrize("name", layouts(np.zeros((1, 1))))
@pytest.mark.parametrize("argument", ["log_weights", "weights"])
def test_the_layout_does_not_matter_and_the_input_stays(name, argument) -> None:
    values = np.random.default_rng(19).exponential(size=(3, 5))
    variant = layouts(values)[name]
    before = np.asarray(variant).tobytes()
    keys = gt.gumbel_keys(**{argument: variant}, rng=19)
    np.testing.assert_allclose(keys, gt.gumbel_keys(**{argument: values}, rng=19), rtol=1e-15)
    assert keys.dtype == np.dtype("=f8")
    assert np.asarray(variant).tobytes() == before


def test_without_checks_good_input_gives_the_same(to_xp, assert_close) -> None:
    weights = np.asarray([[0.5, 0.0, 2.0]])
    for argument in ("weights", "log_weights"):
        checked = gt.gumbel_keys(**{argument: to_xp(weights)}, rng=gt.CounterRNG(20))
        unchecked = gt.gumbel_keys(**{argument: to_xp(weights)}, rng=gt.CounterRNG(20), check=False)
        assert_close(unchecked, api.host(checked), rtol=0)
