"""Rows that are not alike: masks, a k for each row, rows with too few items, rows of different lengths.

False-alarm rate 1e-6, 2e5 draws unless it says otherwise: the power is that of tests/test_sampling.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from gumbeltopk import ragged
from tests import _statistics
from tests.test_keys import layouts
from tests.test_sampling import DRAWS, WEIGHTS, assert_samples, ordered_distribution, repeated

LENGTHS = np.asarray([5, 3, 0, 7, 1, 2, 4, 6])


def ragged_batch(lengths, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights of all rows and the offsets of the rows."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.random.default_rng(seed).exponential(size=offsets[-1]) + 0.01, offsets


# --- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_samples_of_the_items_that_the_mask_keeps(argument: str) -> None:
    where = np.asarray([True, False, True, True, True])
    values = WEIGHTS[:5] if argument == "weights" else np.log(WEIGHTS[:5])
    rows = gt.sample(**{argument: repeated(values)}, where=where, k=3, rng=1)
    assert_samples(rows, np.where(where, WEIGHTS[:5], 0.0))


@pytest.mark.parametrize(("argument", "zero"), [("weights", 0.0), ("log_weights", -np.inf)])
def test_a_mask_is_a_weight_of_zero(to_xp, argument: str, zero: float) -> None:
    """The same draws; what the mask hides may be anything."""
    values = np.random.default_rng(2).exponential(size=(4, 1, 6))
    where = np.random.default_rng(3).random((3, 6)) < 0.7
    expected = gt.sample(**{argument: np.where(where, values, zero)}, k=5, on_short="pad", rng=gt.CounterRNG(4))
    for hidden in (np.nan, -1.0, np.inf):
        masked = np.where(where[[0, 1, 2]], values, hidden)
        rows = gt.sample(
            **{argument: to_xp(masked)}, where=to_xp(where, None), k=5, on_short="pad", rng=gt.CounterRNG(4)
        )
        np.testing.assert_array_equal(api.host(rows), expected)
    rows = gt.sample(**{argument: to_xp(values)}, where=to_xp(where, None), k=5, on_short="pad", rng=gt.CounterRNG(4))
    assert rows.shape == (4, 3, 5)
    np.testing.assert_array_equal(api.host(rows), expected)


def test_a_mask_along_another_axis() -> None:
    values, where = np.random.default_rng(5).exponential(size=(6, 4)), np.arange(6)[:, None] % 2 == 0
    rows = gt.sample(weights=values, where=where, k=3, axis=0, rng=6)
    assert (np.sort(rows, axis=-1) == [0, 2, 4]).all()


def test_masks_that_cannot_be(to_xp) -> None:
    with pytest.raises(TypeError, match="where has dtype"):
        gt.sample(to_xp(np.zeros(3)), 1, where=to_xp([1, 0, 1], None))
    with pytest.raises(TypeError, match="where has dtype"):
        gt.sample(to_xp(np.zeros(3)), 1, where=[1, 0, 1])
    with pytest.raises(ValueError, match=r"where has shape \(2,\), which does not broadcast with \(3,\)"):
        gt.sample(to_xp(np.zeros(3)), 1, where=to_xp([True, False], None))
    with pytest.raises(ValueError, match="k = 2 is more than the 1 items of positive weight"):
        gt.sample(weights=to_xp([np.nan, 1.0]), k=2, where=[False, True])


# --- a k for each row, and padding ----------------------------------------------------------------


def test_each_row_has_its_own_k() -> None:
    """Rows with k = 0 .. 4 in turn, in one call."""
    ks = np.resize(np.arange(5), DRAWS)
    rows, mask = gt.sample(weights=repeated(WEIGHTS[:5]), k=ks, rng=7, return_mask=True)
    assert rows.shape == (DRAWS, 4)
    np.testing.assert_array_equal(mask, np.arange(4) < ks[:, None])
    np.testing.assert_array_equal(mask, rows >= 0)
    for k in range(1, 5):
        assert_samples(rows[ks == k, :k], WEIGHTS[:5])
    np.testing.assert_array_equal(rows, np.where(mask, gt.sample(weights=repeated(WEIGHTS[:5]), k=4, rng=7), -1))


@pytest.mark.parametrize("n", [6, 300, 50_000])
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_rows_with_too_few_items_are_padded_and_the_others_stay(argument: str, n: int) -> None:
    """In whatever parts the rows are worked on."""
    weights = np.random.default_rng(8).exponential(size=(5, n))
    k = min(n, 40)
    weights[1] = 0.0
    weights[3, 2:] = 0.0
    with np.errstate(divide="ignore"):
        values = weights if argument == "weights" else np.log(weights)
    rows, mask = gt.sample(**{argument: values}, k=k, on_short="pad", return_mask=True, rng=9)
    assert mask.sum(axis=-1).tolist() == [k, 0, k, 2, k]
    assert sorted(rows[3, :2].tolist()) == [0, 1]
    full = gt.sample(**{argument: np.where(weights > 0, values, values[0])}, k=k, rng=9)
    np.testing.assert_array_equal(rows[[0, 2, 4]], full[[0, 2, 4]])


def test_a_padded_row_has_the_distribution_of_its_items() -> None:
    """Even among weights of the smallest and of the largest floats."""
    for weights in ([0.0, 2.0, 0.0, 1.0, 3.0], [0.0, 2e-320, 0.0, 1e-320, 3e-320], [1e308, 0.0, 5e-324, 3e-310, 0.0]):
        rows = gt.sample(weights=repeated(weights), k=5, on_short="pad", rng=10)
        assert (rows[:, 3:] == -1).all()
        assert_samples(rows[:, :3], weights)


def test_k_of_rows_on_every_library(to_xp, library) -> None:
    values = np.zeros((2, 3, 4))
    for k in (np.asarray([1, 0, 3]), np.asarray([[2], [4]])):
        rows, mask = gt.sample(to_xp(values), to_xp(k, None), rng=11, return_mask=True)
        assert api.namespace_of(rows, mask) is library.xp
        assert api.device_of(rows) == library.device
        counts = np.broadcast_to(k, (2, 3))
        np.testing.assert_array_equal(api.host(mask), np.arange(k.max()) < counts[..., None])
        np.testing.assert_array_equal(api.host(rows) >= 0, api.host(mask))


def test_k_of_rows_may_be_a_list() -> None:
    weights = np.ones((2, 3, 4))
    for k in ([1, 0, 3], [[2], [4]], ((1, 2, 3), (3, 2, 1))):
        rows = gt.sample(weights=weights, k=k, rng=22)
        np.testing.assert_array_equal(rows, gt.sample(weights=weights, k=np.asarray(k), rng=22))
    assert gt.sample(weights=np.ones((0, 4)), k=[], rng=22).shape == (0, 0)
    ragged_rows = gt.sample_ragged(weights=np.ones(9), offsets=[0, 4, 9], k=[2, 3], rng=22)
    assert (ragged_rows >= 0).sum(axis=-1).tolist() == [2, 3]


def test_more_than_n_items_may_be_wanted_where_rows_are_padded(to_xp) -> None:
    rows = api.host(gt.sample(to_xp(np.zeros((2, 3))), 5, on_short="pad", rng=12))
    assert (np.sort(rows[:, :3], axis=-1) == [0, 1, 2]).all()
    assert (rows[:, 3:] == -1).all()


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (np.asarray([1, 4]), ValueError, r"k\[1\] = 4; pass numbers from 0 to n = 3"),
        (np.asarray([1, -1]), ValueError, r"k\[1\] = -1; pass numbers from 0 to n = 3"),
        (np.asarray([1, 2, 3]), ValueError, r"k has shape \(3,\), which does not broadcast to the batch shape \(2,\)"),
        (np.asarray([[1, 2]]), ValueError, r"k has shape \(1, 2\), which does not broadcast to the batch shape \(2,\)"),
        (np.asarray([1.0, 2.0]), TypeError, "k has dtype float64; pass integers"),
        (np.asarray([True, False]), TypeError, "k has dtype bool; pass integers"),
        ([True, False], TypeError, "k has dtype bool; pass integers"),
        ([1, 2.0], TypeError, "k has dtype float64; pass integers"),
        ([1, None], TypeError, "k has dtype object; pass integers"),
        (["1", "2"], TypeError, "k has dtype <U1; pass integers"),
        ([[1], [1, 2]], TypeError, "k cannot be made into an array"),
        ([1, 4], ValueError, r"k\[1\] = 4; pass numbers from 0 to n = 3"),
        ([1, 2, 3], ValueError, r"k has shape \(3,\), which does not broadcast to the batch shape \(2,\)"),
        (np.asarray([1, 3]), ValueError, r"k = 3 is more than the 2 items of positive weight in rows \[1\] of weights"),
    ],
)
def test_bad_k_of_rows(k, error, message: str) -> None:
    with pytest.raises(error, match=message):
        gt.sample(weights=np.asarray([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]), k=k)


def test_a_word_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="on_short = 'skip' is not known; choose from 'raise', 'pad'"):
        gt.sample([0.0], 1, on_short="skip")


# --- rows of different lengths --------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_each_ragged_row_has_the_distribution_of_its_items(argument: str) -> None:
    """Rows of 1 to 7 items in turn, all with the first weights of the same list."""
    lengths = np.resize(LENGTHS, 8 * DRAWS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = WEIGHTS[np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)]
    values = flat if argument == "weights" else np.log(flat)
    rows = gt.sample_ragged(**{argument: values}, offsets=offsets, k=3, on_short="pad", rng=13)
    local = np.where(rows >= 0, rows - offsets[:-1, None], -1)
    for length in range(8):
        k, of_length = min(length, 3), local[lengths == length]
        assert (of_length[:, k:] == -1).all()
        if k:
            assert_samples(of_length[:, :k], WEIGHTS[:length])


@pytest.mark.parametrize("width", [1, 7, 8, 9, 100, 40_000])
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_ragged_rows_of_one_length_are_a_batch(to_xp, argument: str, width: int) -> None:
    """The same draws, in one flat array with something before and behind the rows."""
    rows, k = max(3, 3000 // width), min(width, 4)
    flat = np.random.default_rng(14).normal(size=rows * width) * 3
    flat = np.exp(flat) if argument == "weights" else flat
    expected = gt.sample(**{argument: flat.reshape(rows, width)}, k=k, rng=gt.CounterRNG(15))
    offsets = np.arange(rows + 1) * width
    positions = gt.sample_ragged(**{argument: to_xp(flat)}, offsets=offsets, k=k, rng=gt.CounterRNG(15))
    np.testing.assert_array_equal(api.host(positions) - offsets[:-1, None], expected)
    inner = gt.sample_ragged(**{argument: to_xp(flat)}, offsets=offsets[1:-1], k=k, rng=gt.CounterRNG(15))
    np.testing.assert_array_equal(api.host(inner), api.host(positions)[1:-1])


@given(lengths=st.lists(st.integers(0, 70), max_size=30), k=st.integers(0, 9), seed=st.integers(0, 100))
def test_ragged_rows_one_by_one(lengths: list[int], k: int, seed: int) -> None:
    """Any lengths in any order: each row is the order of its own keys."""
    weights, offsets = ragged_batch(np.asarray(lengths, dtype=int), seed)
    weights[::5] = 0.0
    rows, mask = gt.sample_ragged(
        weights=weights, offsets=offsets, k=k, on_short="pad", return_mask=True, rng=gt.CounterRNG(seed)
    )
    keys = gt.gumbel_keys(weights=weights, rng=gt.CounterRNG(seed)) if len(weights) else weights
    assert rows.shape == mask.shape == (len(lengths), k)
    for row, begin, end in zip(rows, offsets[:-1], offsets[1:], strict=True):
        order = begin + np.argsort(-keys[begin:end])[: np.count_nonzero(weights[begin:end])]
        expected = np.full(k, -1)
        expected[: min(k, len(order))] = order[:k]
        np.testing.assert_array_equal(row, expected)


def test_each_ragged_row_has_its_own_k(to_xp, library) -> None:
    weights, offsets = ragged_batch(LENGTHS)
    k = np.asarray([2, 3, 0, 1, 1, 0, 4, 6])
    rows = gt.sample_ragged(weights=to_xp(weights), offsets=offsets, k=k, rng=16)
    assert api.namespace_of(rows) is library.xp
    assert api.device_of(rows) == library.device
    mask = api.host(rows) >= 0
    np.testing.assert_array_equal(mask, np.arange(6) < k[:, None])


def test_smaller_ragged_samples_are_the_beginning_of_larger_ones() -> None:
    weights, offsets = ragged_batch(np.random.default_rng(17).integers(20, 90, size=500))
    full = gt.sample_ragged(weights=weights, offsets=offsets, k=20, rng=18)
    for k in (0, 1, 2, 7, 19):
        np.testing.assert_array_equal(gt.sample_ragged(weights=weights, offsets=offsets, k=k, rng=18), full[:, :k])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ragged_samples_in_any_layout(dtype) -> None:
    weights, offsets = ragged_batch(LENGTHS)
    values = weights.astype(dtype)
    expected = gt.sample_ragged(weights=values.astype(np.float64), offsets=offsets, k=2, on_short="pad", rng=19)
    for name, variant in layouts(values[np.newaxis]).items():
        flat = variant[0]
        before = np.asarray(flat).tobytes()
        rows = gt.sample_ragged(weights=flat, offsets=offsets, k=2, on_short="pad", rng=19)
        np.testing.assert_array_equal(rows, expected, err_msg=name)
        assert np.asarray(flat).tobytes() == before
    scaled = gt.sample_ragged(weights=weights * 2.0**-900, offsets=offsets, k=2, on_short="pad", rng=19)
    unscaled = gt.sample_ragged(weights=weights, offsets=offsets, k=2, on_short="pad", rng=19)
    np.testing.assert_array_equal(scaled, unscaled)


def test_rows_are_laid_side_by_side_with_others_of_their_length() -> None:
    """Each row once, not too much at a time, and the table at most twice as wide as its rows."""
    lengths = np.random.default_rng(20).integers(0, 3000, size=400)
    lengths[7] = 50_000
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    seen = []
    for rows, width in ragged._buckets(offsets, 10_000):
        seen += rows.tolist()
        assert (lengths[rows] <= width).all()
        assert (2 * lengths[rows] > width).all() or width == 1
        assert len(rows) * width <= 10_000 or len(rows) == 1
    assert sorted(seen) == list(range(400))


@pytest.mark.parametrize(
    ("offsets", "error", "message"),
    [
        (None, TypeError, "offsets is missing"),
        ([0, 2, 1], ValueError, r"offsets\[2\] = 1 is less than the one before"),
        ([0, 5], ValueError, r"offsets\[1\] = 5 is outside the flat array; pass numbers from 0 to 4"),
        ([-1, 2], ValueError, r"offsets\[0\] = -1 is outside the flat array"),
        ([0.0, 2.0], TypeError, "offsets has dtype float64; pass integers"),
        ([[0, 2]], ValueError, r"offsets has shape \(1, 2\)"),
        ([], ValueError, r"offsets has shape \(0,\)"),
        ([0, 1, 4], ValueError, r"k = 2 is more than the 1 items of positive weight in rows \[0\] of weights"),
    ],
)
def test_bad_offsets(offsets, error, message: str) -> None:
    with pytest.raises(error, match=message):
        gt.sample_ragged(weights=[1.0, 2.0, 3.0, 4.0], offsets=offsets, k=2)


def test_bad_ragged_weights() -> None:
    with pytest.raises(ValueError, match=r"weights\[2\] = -1.0"):
        gt.sample_ragged(weights=[1.0, 2.0, -1.0], offsets=[0, 3], k=1)
    with pytest.raises(ValueError, match=r"weights has shape \(1, 2\)"):
        gt.sample_ragged(weights=[[1.0, 2.0]], offsets=[0, 2], k=1)
    with pytest.raises(TypeError, match="k is missing"):
        gt.sample_ragged(weights=[1.0, 2.0], offsets=[0, 2])


# --- mutants --------------------------------------------------------------------------------------


def test_padding_that_takes_part_fails() -> None:
    """If the items that fill a row up had the weight of another row's items, the shares would show it."""
    weights = np.asarray([1.0, 2.0, 3.0, 0.0])
    rows = gt.sample(weights=repeated([1.0, 2.0, 3.0, 0.5]), k=2, rng=21)
    rows = rows[(rows < 3).all(axis=-1)]  # drawn with the filling, and only then thrown away
    orders, probabilities = ordered_distribution(tuple(weights[:3].tolist()), 2)
    with pytest.raises(AssertionError):
        _statistics.assert_distribution(_statistics.count_rows(rows, orders), probabilities)
