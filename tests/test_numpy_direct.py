"""The direct form of successive softmax for NumPy rows, against the generic core in float64.

The generic core is itself tested against many digits (`test_relaxed_topk`). Rows of a batch are of one family of keys
each, so that rows of all kinds, and on all ways through the code, are neighbours.
"""

from __future__ import annotations

import tracemalloc
from typing import Any, NamedTuple

import array_api_compat.numpy as xp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gumbeltopk as gt
from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numpy import direct, direct_kernels

TEMPERATURES = (0.03, 0.1, 0.5, 1.0, 5.0)
STEEPEST = 0.03  # a step magnifies errors by up to 1/t: tolerances of 1e-11 there
DTYPES = (np.float32, np.float64)


def key_families(n: int, t: float, seed: int = 0) -> np.ndarray:
    """(families, n): keys as they occur, and adversarial ones."""
    rng = np.random.default_rng([n, seed])
    items = np.arange(n)
    noise = rng.gumbel(size=(3, n))
    giant = rng.normal(size=n) * t
    return np.stack(
        [
            noise[0] + rng.uniform(size=n),
            noise[1] + 2 * rng.normal(size=n),
            noise[2] - np.log1p(items),
            np.round(rng.normal(size=n)),  # ties
            np.full(n, 0.3),  # all tied
            np.where(items < (n + 1) // 2, 0.0, -30 * t) + rng.uniform(0, t, size=n),  # two clusters
            np.where(items < 4, 0.0, -30 * t) + rng.uniform(0, t, size=n),  # the same, but soon used up
            np.where(items == n // 3, 30 * t, giant),
            np.where(items == n // 2, 80 * t, giant),
            -items * min(1.0, 60 / n) * t,  # ladders: geometric weights
            -3.0 * t * np.minimum(items, 20),
            -1.0 * t * items,  # down to where float32, and for n > 700 float64, has no numbers
        ]
    )


class Derivatives(NamedTuple):
    """Value, gradients by keys and temperature, and tangent."""

    a: np.ndarray
    by_keys: np.ndarray
    by_temperature: np.ndarray  # (rows,)
    tangent: np.ndarray


class Directions(NamedTuple):
    """What a derivative is taken along."""

    cotangent: np.ndarray
    key_tangent: np.ndarray
    temperature_tangent: np.ndarray  # (rows, 1)


def directions_for(keys: np.ndarray, seed: int = 1) -> Directions:
    rng = np.random.default_rng([*keys.shape, seed])
    cotangent, key_tangent = rng.normal(size=(2, *keys.shape)).astype(keys.dtype)
    return Directions(cotangent, key_tangent, rng.normal(size=(len(keys), 1)))


def column(temperature: Any) -> np.ndarray:
    return np.reshape(np.asarray(temperature, dtype=np.float64), (-1, 1))


def by_direct_form(keys: np.ndarray, temperature: Any, k: int, along: Directions) -> Derivatives:
    t = column(temperature)
    a, trajectory = direct.forward(keys, t, k, True)
    by_keys, by_temperature = direct.vjp(trajectory, k, along.cotangent)
    tangent = direct.jvp(trajectory, k, along.key_tangent, along.temperature_tangent)
    assert a.dtype == by_keys.dtype == tangent.dtype == keys.dtype
    return Derivatives(a, by_keys, by_temperature[:, 0], tangent)


def by_generic_core(keys: np.ndarray, temperature: Any, k: int, along: Directions) -> Derivatives:
    t = column(temperature)
    power: Any = 1.0 / t if len(t) > 1 else 1.0 / float(t[0, 0])
    every = generic.checkpoint_interval(k)
    wide = Directions(*(array.astype(np.float64) for array in along))
    with np.errstate(all="ignore"):
        a, states = generic.forward(keys.astype(np.float64), t, power, k, every, xp)
        by_keys, by_temperature = generic.vjp(states, power, k, every, wide.cotangent, False, xp)
        tangent = generic.jvp(states, power, k, every, wide.key_tangent, wide.temperature_tangent, False, xp)
    return Derivatives(a, by_keys, by_temperature[:, 0], tangent)


def norms(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows.astype(np.float64), axis=1)


def assert_derivatives_close(
    actual: Derivatives,
    expected: Derivatives,
    keys: np.ndarray,
    temperature: Any,
    along: Directions,
    tolerance: float,
) -> None:
    """Normwise, row by row.

    A derivative that vanishes (k = n; exact ties, for the temperature) is compared on its natural scale. By the keys it
    is the sum of terms p (g - sum p g) / t, which are up to |g| / t and cancel: 1e-2 of that. By the temperature it is
    what cancels in sum x r / t.
    """
    t = column(temperature)[:, 0]
    finite = np.where(np.isfinite(keys), keys, np.nan).astype(np.float64)
    spread = (np.nanmax(finite, axis=1) - np.nanmin(finite, axis=1)) / t
    by_keys = np.maximum(norms(expected.by_keys), 1e-2 * norms(along.cotangent) / t)
    assert np.all(norms(actual.by_keys - expected.by_keys) <= tolerance * by_keys), "gradient by the keys"
    by_t = np.abs(expected.by_temperature) + norms(expected.by_keys) * spread + norms(along.cotangent) / t
    assert np.all(np.abs(actual.by_temperature - expected.by_temperature) <= tolerance * by_t), "by the temperature"
    push = (norms(along.key_tangent) + np.abs(along.temperature_tangent[:, 0]) * (1.0 + spread)) / t
    tangent = np.maximum(norms(expected.tangent), 1e-2 * push)
    assert np.all(norms(actual.tangent - expected.tangent) <= tolerance * tangent), "tangent"


def some_k(n: int) -> list[int]:
    most = n if n <= 300 else 50
    return sorted({1, 2, 9, 50, most} & set(range(1, n + 1)))


CASES = [(n, k) for n in (1, 2, 7, 100, 300, 1000, 5000) for k in some_k(n)]


@pytest.mark.parametrize("t", TEMPERATURES)
@pytest.mark.parametrize(("n", "k"), CASES)
def test_float64(n: int, k: int, t: float) -> None:
    """Value 1e-14 of the largest entry, derivatives 1e-13 normwise; 1e-11 for both at t = .03."""
    keys = key_families(n, t)
    along = directions_for(keys)
    actual, expected = by_direct_form(keys, t, k, along), by_generic_core(keys, t, k, along)
    error = np.max(np.abs(actual.a - expected.a), axis=1) / np.max(expected.a, axis=1)
    assert np.all(error <= (1e-11 if t == STEEPEST else 1e-14))
    assert_derivatives_close(actual, expected, keys, t, along, 1e-11 if t == STEEPEST else 1e-13)


@pytest.mark.parametrize("t", TEMPERATURES)
@pytest.mark.parametrize(("n", "k"), CASES)
def test_float32(n: int, k: int, t: float) -> None:
    """Each entry above 1e-25 to 5e-6, derivatives to 1e-6 normwise, of float64 on the same keys."""
    keys = key_families(n, t).astype(np.float32)
    along = directions_for(keys)
    actual, expected = by_direct_form(keys, t, k, along), by_generic_core(keys, t, k, along)
    counts = expected.a > 1e-25
    assert np.all(np.abs(actual.a - expected.a)[counts] <= 5e-6 * expected.a[counts])
    assert_derivatives_close(actual, expected, keys, t, along, 1e-6)


@pytest.mark.parametrize(("rows", "n", "k"), [(700, 60, 9), (700, 23, 4), (3000, 11, 11), (40, 3000, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_rows(rows: int, n: int, k: int, dtype: Any) -> None:
    """Several blocks, in both layouts: many short rows lie across, items first."""
    keys = np.random.default_rng(n).gumbel(size=(rows, n)).astype(dtype)
    along = directions_for(keys)
    actual, expected = by_direct_form(keys, 1.0, k, along), by_generic_core(keys, 1.0, k, along)
    np.testing.assert_allclose(actual.a, expected.a, rtol=5e-6 if dtype == np.float32 else 1e-13)
    assert_derivatives_close(actual, expected, keys, 1.0, along, 1e-6 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize(("t", "k"), [(0.03, 9), (0.5, 2), (0.5, 50), (1.0, 9), (1.0, 50), (5.0, 9), (0.7, 1)])
def test_adjoint_identity(t: float, k: int) -> None:
    """<g, J u> = <J^T g, u> for keys and temperature together: 1e-12 of the sizes that enter."""
    keys = key_families(100, t)
    along = directions_for(keys)
    found = by_direct_form(keys, t, k, along)
    left = np.vecdot(along.cotangent, found.tangent)
    by_temperature = found.by_temperature * along.temperature_tangent[:, 0]
    right = np.vecdot(found.by_keys, along.key_tangent) + by_temperature
    size = norms(along.cotangent) * norms(found.tangent) + norms(found.by_keys) * norms(along.key_tangent)
    size += np.abs(by_temperature) + norms(along.cotangent) / t
    assert np.all(np.abs(left - right) <= 1e-12 * size)


# --- rows and their neighbours --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_temperature_for_each_row(dtype: Any) -> None:
    """Temperatures with short cuts (1/2, 1, 2), without, and extreme ones side by side: as each row by itself."""
    hottest = 1e90 if dtype == np.float64 else 1e30  # a gradient of 1e-90 is 0 in float32
    temperature = np.asarray([0.03, 0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 2.0, 5.0, 1e3, 1e-3, hottest])
    keys = key_families(300, 0.5).astype(dtype)
    along = directions_for(keys)
    together = by_direct_form(keys, temperature, 9, along)
    for row in range(len(keys)):
        one = np.s_[row : row + 1]
        alone = by_direct_form(keys[one], temperature[row], 9, Directions(*(array[one] for array in along)))
        for batch, single in zip(together, alone, strict=True):
            scale = np.max(np.abs(single))
            np.testing.assert_allclose(batch[one], single, rtol=1e-14, atol=1e-14 * scale)
    tolerance = 1e-6 if dtype == np.float32 else 1e-11
    expected = by_generic_core(keys, temperature, 9, along)
    assert_derivatives_close(together, expected, keys, temperature, along, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t", [0.1, 1.0])
def test_rows_alone_are_bitwise_the_rows_of_a_batch(t: float, dtype: Any) -> None:
    """Whatever the neighbours are, and wherever a block ends: the long rows lie in one layout."""
    keys = np.tile(key_families(700, t), (20, 1)).astype(dtype)
    keys += np.random.default_rng(3).normal(size=keys.shape).astype(dtype) * dtype(t)
    along = directions_for(keys)
    together = by_direct_form(keys, t, 9, along)
    for row in (0, 1, 10, 93, 94, 187, 239):
        one = np.s_[row : row + 1]
        alone = by_direct_form(keys[one], t, 9, Directions(*(array[one] for array in along)))
        for batch, single in zip(together, alone, strict=True):
            np.testing.assert_array_equal(batch[one], single)


def test_short_rows_alone_are_the_rows_of_a_batch_to_rounding() -> None:
    """Alone they lie in the other layout, whose sums are in another order: 1e-15 of the largest entry."""
    keys = np.random.default_rng(4).gumbel(size=(600, 40))
    together, _ = direct.forward(keys, column(1.0), 6, False)
    for row in (0, 1, 299, 599):
        alone, _ = direct.forward(keys[row : row + 1], column(1.0), 6, False)
        assert np.max(np.abs(together[row] - alone)) <= 1e-15 * np.max(alone)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(dtype: Any) -> None:
    keys = np.random.default_rng(5).gumbel(size=(900, 700)).astype(dtype)
    along = directions_for(keys)
    results = []
    try:
        for number in (1, 3):
            gt.set_num_threads(number)
            results.append(by_direct_form(keys, 1.0, 4, along))
    finally:
        gt.set_num_threads(None)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


# --- which arithmetic a row gets ------------------------------------------------------------------


def arithmetics(keys: np.ndarray, t: float, k: int) -> list[int]:
    _, trajectory = direct.forward(keys, column(t), k, True)
    return [int(way) // direct.KINDS for way in trajectory.way]


def test_rows_fall_back_one_by_one() -> None:
    """From float32 to float64, where exp leaves its range, and to the generic core, where float64's does, too."""
    noise = np.random.default_rng(6).gumbel(size=(5, 50))
    noise[1, 0], noise[2, 0], noise[3, 0], noise[4] = 60.0, 300.0, 3000.0, noise[4] + 1e4
    keys = noise.astype(np.float32)
    expected = [direct.FLOAT32, direct.FLOAT32_SHIFTED, direct.FLOAT64, direct.GENERIC, direct.FLOAT32_SHIFTED]
    assert arithmetics(keys, 1.0, 5) == expected
    wide_expected = [direct.FLOAT64, direct.FLOAT64_EXACT, direct.FLOAT64_EXACT, direct.GENERIC, direct.FLOAT64]
    assert arithmetics(noise, 1.0, 5) == wide_expected
    assert arithmetics(keys, 0.9, 5) == [direct.FLOAT64] * 3 + [direct.GENERIC, direct.FLOAT64]
    assert arithmetics(noise, 0.9, 5) == [direct.GENERIC] * 5
    for rows, tolerance in ((keys, 1e-6), (noise, 1e-13)):
        for t in (1.0, 0.9):
            along = directions_for(rows)
            actual, reference = by_direct_form(rows, t, 5, along), by_generic_core(rows, t, 5, along)
            np.testing.assert_allclose(actual.a, reference.a, rtol=5e-6 if rows is keys else 1e-12, atol=1e-25)
            assert_derivatives_close(actual, reference, rows, t, along, tolerance)


def test_float32_only_where_it_is_accurate() -> None:
    keys = np.random.default_rng(7).gumbel(size=(1, 200)).astype(np.float32)
    assert arithmetics(keys, 1.0, 64) == [direct.FLOAT32]
    assert arithmetics(keys, 1.0, 65) == [direct.FLOAT64]
    assert arithmetics(keys, 5.0, 24) == [direct.FLOAT32]
    assert arithmetics(keys, 5.0, 25) == [direct.FLOAT64]
    assert arithmetics(keys, 0.99, 2) == [direct.FLOAT64]


@pytest.mark.parametrize("t", [1.0, 2.0])
@pytest.mark.parametrize("scale", [1e-30, 1e20, 1e30, 1e36])
@pytest.mark.parametrize(("n", "k"), [(2, 2), (31, 12), (100, 9), (600, 16)])
def test_large_and_small_cotangents_in_float32(n: int, k: int, scale: float, t: float) -> None:
    """Whose squares are beyond the largest float32, or 0; with an offset, too: finite, and to 1e-6."""
    rng = np.random.default_rng(33)
    keys, cotangent = rng.gumbel(size=(8, n)).astype(np.float32), rng.normal(size=(8, n))
    cotangent[4:] += 50.0
    cotangent = (scale * cotangent).astype(np.float32)
    _, trajectory = direct.forward(keys, column(t), k, True)
    gradient, _ = direct.vjp(trajectory, k, cotangent)
    _, wide = direct.forward(keys.astype(np.float64), column(t), k, True)
    expected, _ = direct.vjp(wide, k, cotangent.astype(np.float64))
    centred = cotangent.astype(np.float64) - cotangent[np.arange(8), keys.argmax(axis=1)].astype(np.float64)[:, None]
    error = norms((gradient.astype(np.float64) - expected) / scale)
    assert np.all(error <= 1e-6 * (norms(expected / scale) + 1e-2 * norms(centred / scale)))


def test_a_gradient_that_cancels_in_float32_is_computed_again_in_float64() -> None:
    """k = n = 2: a = (p + 1/2, q + 1/2), with p q as gradient, e^-d of its terms. To 1e-6 of itself, always."""
    gap = np.linspace(0.0, 20.0, 50)
    keys = np.stack([gap, np.zeros(50)], axis=1).astype(np.float32)
    _, trajectory = direct.forward(keys, column(1.0), 2, True)
    gradient, _ = direct.vjp(trajectory, 2, np.tile(np.asarray([0.8, -0.3], np.float32), (50, 1)))
    p = 1.0 / (1.0 + np.exp(-keys[:, 0].astype(np.float64)))
    expected = 1.1 * p * p * np.exp(-keys[:, 0].astype(np.float64))
    np.testing.assert_allclose(gradient, np.stack([expected, -expected], axis=1), rtol=1e-6)


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t", [0.2, 1.0, 2.0])
def test_zero_weight_items_change_nothing(t: float, dtype: Any) -> None:
    """Rows with -inf are the rows without these items."""
    keys = np.random.default_rng(9).gumbel(size=(4, 9)).astype(dtype)
    wider = np.insert(keys, [0, 3, 9], -np.inf, axis=1)
    kept = np.flatnonzero(np.isfinite(wider[0]))
    along = directions_for(wider)
    short_along = along._replace(cotangent=along.cotangent[:, kept], key_tangent=along.key_tangent[:, kept])
    for k in (1, 3, 9):
        actual, expected = by_direct_form(wider, t, k, along), by_direct_form(keys, t, k, short_along)
        tolerance = 3e-6 if dtype == np.float32 else 1e-13
        for name in ("a", "by_keys", "tangent"):
            np.testing.assert_array_equal(np.delete(getattr(actual, name), kept, axis=1), 0.0)
        narrowed = Derivatives(*(x[:, kept] if x.ndim == 2 else x for x in actual))
        np.testing.assert_allclose(narrowed.a, expected.a, rtol=tolerance)
        assert_derivatives_close(narrowed, expected, keys, t, short_along, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 6])
def test_layouts_of_the_input_do_not_matter(k: int, dtype: Any) -> None:
    """Read-only, transposed, strided and reversed arrays; the input is left as it was."""
    keys = np.random.default_rng(10).normal(size=(4, 6)).astype(dtype)
    cotangent = np.random.default_rng(11).normal(size=(4, 6)).astype(dtype)
    expected, residuals = gt.relaxed_topk.fwd(keys, k, method="direct")
    expected_gradient = gt.relaxed_topk.vjp(residuals, cotangent)
    read_only, wide = keys.copy(), np.repeat(keys, 2, axis=1)
    read_only.flags.writeable = False
    for variant in (read_only, np.asfortranarray(keys), wide[:, ::2], np.ascontiguousarray(keys[:, ::-1])[:, ::-1]):
        before = variant.copy()
        value, residuals = gt.relaxed_topk.fwd(variant, k, method="direct")
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(gt.relaxed_topk.vjp(residuals, np.asfortranarray(cotangent)), expected_gradient)
        np.testing.assert_array_equal(variant, before)


@pytest.mark.parametrize("k", [1, 3])
def test_a_trajectory_keeps_nothing_of_the_caller(k: int) -> None:
    keys, temperature = np.random.default_rng(12).gumbel(size=(3, 8)), column(1.0)
    a, trajectory = direct.forward(keys, temperature, k, True)
    before, _ = direct.vjp(trajectory, k, np.eye(3, 8))
    a[...], keys[...], temperature[...] = 7.0, 7.0, 7.0
    after, _ = direct.vjp(trajectory, k, np.eye(3, 8))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("t", "expected"), [(1e-3, [1, 1, 0]), (1.0, [1.5, 0.5, 0]), (1e3, [2, 0, 0])])
def test_the_largest_gaps_that_there_are(t: float, expected: list[float], dtype: Any) -> None:
    """What is left of the first item's lead d / t after a step is (1 - 1/t) d / t: all of it, nothing, or less."""
    for gap in (1e30, 1e38 if dtype == np.float32 else 1e290):  # beyond 1e300 t gaps count as 1e300 t
        keys = np.asarray([[gap, 0.0, -gap]], dtype=dtype)
        a, trajectory = direct.forward(keys, column(t), 2, True)
        np.testing.assert_allclose(a, [expected], atol=1e-6)
        gradient, by_temperature = direct.vjp(trajectory, 2, np.asarray([[1.0, 0.5, -1.0]], dtype=dtype))
        tangent = direct.jvp(trajectory, 2, np.asarray([[1.0, 0.5, -1.0]], dtype=dtype), column(0.0))
        assert np.all(np.isfinite(gradient))
        assert np.all(np.isfinite(by_temperature))
        assert np.all(np.isfinite(tangent))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_finite_for_every_finite_input(data: st.DataObject, dtype: Any) -> None:
    width = np.finfo(dtype).bits
    finite = st.floats(allow_nan=False, allow_infinity=False, width=width)
    usual = st.floats(-50, 50, width=width)
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 8)))
    keys = data.draw(hnp.arrays(dtype, shape, elements=data.draw(st.sampled_from([finite, usual]))))
    k = data.draw(st.integers(1, shape[1]))
    t = data.draw(st.one_of(st.sampled_from(TEMPERATURES), st.floats(1e-3, 1e3)))
    along = directions_for(keys)
    a, trajectory = direct.forward(keys, column(t), k, True)
    assert np.all(a >= 0)
    np.testing.assert_allclose(np.sum(a, axis=1, dtype=np.float64), k, rtol=5e-6 if dtype == np.float32 else 1e-13)
    assert not np.any(np.isnan(direct.vjp(trajectory, k, along.cotangent)[0]))
    assert not np.any(np.isnan(direct.jvp(trajectory, k, along.key_tangent, np.zeros((1, 1)))))


# --- memory and settings --------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 40])
def test_a_trajectory_holds_no_k_x_n_array(k: int) -> None:
    """One array like the keys, and up to 32 bytes for each row and step."""
    keys = np.random.default_rng(13).gumbel(size=(5, 400))
    _, trajectory = direct.forward(keys, column(1.0), k, True)
    assert sum(array.nbytes for array in trajectory) <= keys.nbytes + 5 * (32 * k + 16)


def test_a_long_vjp_keeps_only_some_states_at_a_time() -> None:
    """k n numbers would take 160 MB; the states at hand and the other arrays stay below 30 MB."""
    n, k = 20_000, 1000
    keys = np.random.default_rng(14).gumbel(size=(1, n))
    _, trajectory = direct.forward(keys, column(1.0), k, True)
    tracemalloc.start()
    try:
        direct.vjp(trajectory, k, np.ones_like(keys))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30e6


@pytest.mark.parametrize("k", [2, 7, 30])
def test_states_made_again_in_segments_are_the_same(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    keys = key_families(40, 0.4).astype(np.float32)
    along = directions_for(keys)
    whole = by_direct_form(keys, 0.4, k, along)
    monkeypatch.setattr(direct_kernels, "HISTORY_BYTES", 0)
    np.testing.assert_array_equal(by_direct_form(keys, 0.4, k, along).by_keys, whole.by_keys)


def test_settings_of_numpy_are_restored() -> None:
    before = np.geterr(), np.getbufsize()
    _, trajectory = direct.forward(np.asarray([[1e300, 0.0, -1e300]]), column(1e-3), 2, True)
    direct.vjp(trajectory, 2, np.ones((1, 3)))
    assert (np.geterr(), np.getbufsize()) == before
