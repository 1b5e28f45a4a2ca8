"""Gumbel keys given the selected order, and given their maximum: together with these they are plain Gumbel keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from tests import _statistics

WEIGHTS = np.asarray([0.1, 2.0, 0.7, 5.0, 0.02])
DRAWS = 210_000


def assert_keys_of(keys: Any, weights: Any) -> None:
    """Each item's noise is Gumbel far into the tails, and that of any two items is independent.

    2.1e5 draws in 18 cells: an rms error of 2.6 % of the cells is found; in the 16 cells of a pair, one of 2.6 %, too.
    """
    assert _statistics.smallest_error_found(len(keys), 18) < 0.026
    noise = keys - np.log(weights)
    quarters = np.searchsorted(stats.gumbel_r.ppf([0.25, 0.5, 0.75]), noise)
    for i in range(len(weights)):
        _statistics.assert_gumbel(noise[:, i])
        for j in range(i):
            cells = np.bincount(4 * quarters[:, i] + quarters[:, j], minlength=16)
            _statistics.assert_distribution(cells, np.full(16, 1 / 16))


@pytest.mark.parametrize("k", range(6))
def test_keys_given_a_sample_are_gumbel_keys(k: int) -> None:
    order = gt.sample(weights=np.broadcast_to(WEIGHTS, (DRAWS, 5)), k=k, rng=k)
    assert_keys_of(gt.conditional_keys(np.log(WEIGHTS), order, rng=100 + k), WEIGHTS)


def test_keys_given_their_maximum_are_gumbel_keys() -> None:
    largest = np.log(WEIGHTS.sum()) + gt.gumbel_keys(np.zeros(DRAWS), rng=1)
    keys = gt.gumbel_keys_given_maximum(np.broadcast_to(np.log(WEIGHTS), (DRAWS, 5)), largest, rng=2)
    np.testing.assert_array_equal(keys.max(axis=-1), largest)
    assert_keys_of(keys, WEIGHTS)


@pytest.mark.parametrize("order", [[3, 1, 2], [4, 0, 3], [0], [2, 4, 0, 1, 3]])
def test_the_order_is_the_given_one(order: list[int]) -> None:
    """However improbable it is: 4 before 0 before 3 has a probability of 2e-5."""
    keys = gt.conditional_keys(np.log(WEIGHTS), np.broadcast_to(order, (1000, len(order))), rng=3)
    np.testing.assert_array_equal(
        np.argsort(-keys, axis=-1)[:, : len(order)], np.broadcast_to(order, (1000, len(order)))
    )


def test_times_given_an_order_are_sums_of_waiting_times() -> None:
    """T_1 ~ Exp(W), T_2 - T_1 ~ Exp(W - w_1), and independent. 2e4 draws: a gap of 4.5 % is found."""
    keys = gt.conditional_keys(np.log(WEIGHTS), np.broadcast_to([4, 3], (20_000, 2)), rng=4)
    times = np.exp(-keys)
    first, second = times[:, 4], times[:, 3] - times[:, 4]
    rest = times[:, [0, 1, 2]] - times[:, [3]]
    for waiting, rate in [(first, WEIGHTS.sum()), (second, WEIGHTS.sum() - 0.02), *zip(rest.T, WEIGHTS, strict=False)]:
        assert stats.kstest(waiting * rate, "expon").pvalue >= _statistics.ALPHA
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(20_000)


def test_who_has_the_maximum_does_not_depend_on_it() -> None:
    for maximum in (-3.0, 10.0):
        keys = gt.gumbel_keys_given_maximum(np.broadcast_to(np.log(WEIGHTS), (50_000, 5)), maximum, rng=5)
        counts = np.bincount((keys == maximum).argmax(axis=-1), minlength=5)
        _statistics.assert_distribution(counts, WEIGHTS / WEIGHTS.sum())


def test_weights_of_any_size_and_none() -> None:
    log_weights = np.asarray([-700.0, 700.0, -np.inf, 0.0, -1e30])
    keys = gt.conditional_keys(log_weights, [0, 1, 4], rng=6)
    assert np.isneginf(keys[2])
    assert np.all(np.isfinite(keys[[0, 1, 3, 4]]))
    assert keys[0] > keys[1] > keys[4] >= keys[3]
    keys = gt.gumbel_keys_given_maximum(log_weights, -1e3, rng=7)
    assert keys.max() == -1e3
    assert np.isneginf(keys[2])
    assert np.all(np.isfinite(keys[[0, 1, 3, 4]]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rng", [gt.CounterRNG(8), 8], ids=["counter", "int"])
def test_every_library(dtype: str, rng: Any, to_xp, library, assert_close) -> None:
    log_weights = np.random.default_rng(9).normal(size=(2, 3, 6)).astype(dtype)
    indices = np.asarray([[0, 5], [1, 2], [4, 3]])
    keys = gt.conditional_keys(to_xp(log_weights, dtype), to_xp(indices), rng=rng)
    rtol = 1e-12 if dtype == "float64" else 1e-6
    own_draws = library.name == "cupy" and rng == 8
    expected = api.host(keys) if own_draws else gt.conditional_keys(log_weights, indices, rng=rng)
    assert_close(keys, expected, rtol=rtol, atol=1e-15, dtype=dtype)
    maximum = np.asarray([0.5, 1.0, -1.0]).astype(dtype)
    keys = gt.gumbel_keys_given_maximum(to_xp(log_weights, dtype), to_xp(maximum, dtype), rng=rng)
    expected = api.host(keys) if own_draws else gt.gumbel_keys_given_maximum(log_weights, maximum, rng=rng)
    assert_close(keys, expected, rtol=rtol, atol=1e-15, dtype=dtype)


def test_shapes_without_rows_or_selected_items(to_xp) -> None:
    assert tuple(gt.conditional_keys(to_xp(np.zeros((0, 4))), to_xp(np.zeros((0, 2), dtype=int)), rng=0).shape) == (
        0,
        4,
    )
    keys = gt.conditional_keys(to_xp(np.zeros((2, 4))), to_xp(np.zeros((2, 0), dtype=int)), rng=gt.CounterRNG(1))
    plain = gt.gumbel_keys(np.zeros((2, 4)), rng=gt.CounterRNG(1))
    np.testing.assert_allclose(api.host(keys), plain, rtol=1e-13)
    assert tuple(gt.gumbel_keys_given_maximum(to_xp(np.zeros((0, 4))), 1.0, rng=0).shape) == (0, 4)


def test_what_is_refused(to_xp) -> None:
    weights = to_xp([0.0, -np.inf, 1.0])
    with pytest.raises(ValueError, match=r"indices\[1\] = 1 is an item of weight zero, which is never selected"):
        gt.conditional_keys(weights, to_xp([0, 1]))
    with pytest.raises(ValueError, match="has item 2 more than once"):
        gt.conditional_keys(weights, to_xp([2, 2]))
    with pytest.raises(ValueError, match=r"indices\[0\] = 3 is not one of the n = 3 items"):
        gt.conditional_keys(weights, to_xp([3]))
    with pytest.raises(ValueError, match=r"log_weights\[0\] = nan"):
        gt.conditional_keys(to_xp([np.nan, 0.0]), to_xp([1]))
    with pytest.raises(ValueError, match=r"maximum has shape \(3,\), which does not broadcast to the batch shape \(\)"):
        gt.gumbel_keys_given_maximum(weights, to_xp([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="maximum = inf is not the key of an item of positive weight"):
        gt.gumbel_keys_given_maximum(weights, np.inf)
    with pytest.raises(ValueError, match="k = 1 is more than the 0 items of positive weight"):
        gt.gumbel_keys_given_maximum(to_xp([-np.inf, -np.inf]), 0.0)
