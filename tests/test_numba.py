"""The direct form in loops that numba compiles: all that is true of NumPy's kernels is true of these.

The tests of `test_numpy_direct` run here again, with the loops also where NumPy's passes would be taken because they
are as fast. What follows them is about the loops alone.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk._numpy import direct
from tests import _reference

numba = pytest.importorskip("numba", reason="numba is not installed: pip install gumbeltopk[numba]")

from llvmlite.binding import get_host_cpu_features  # noqa: E402

from gumbeltopk._numba import compiling, direct_kernels, forward, powers  # noqa: E402
from gumbeltopk._numba.direct_kernels import NUMBA  # noqa: E402
from tests.test_numpy_direct import (  # noqa: E402, F401
    DTYPES,
    by_direct_form,
    column,
    directions_for,
    key_families,
    norms,
    test_a_gradient_that_cancels_in_float32_is_computed_again_in_float64,
    test_a_temperature_for_each_row,
    test_a_trajectory_holds_no_k_x_n_array,
    test_a_trajectory_keeps_nothing_of_the_caller,
    test_adjoint_identity,
    test_float32,
    test_float32_only_where_it_is_accurate,
    test_float64,
    test_large_and_small_cotangents_in_float32,
    test_layouts_of_the_input_do_not_matter,
    test_many_rows,
    test_rows_alone_are_bitwise_the_rows_of_a_batch,
    test_rows_fall_back_one_by_one,
    test_the_largest_gaps_that_there_are,
    test_threads_change_no_bit,
    test_zero_weight_items_change_nothing,
)


@pytest.fixture(autouse=True, scope="module")
def compiled_kernels() -> Any:
    """`direct` and the public functions use the loops, whatever pays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct.forward, "__defaults__", (NUMBA,))
        patch.setattr(direct.vjp, "__defaults__", (True, NUMBA))
        patch.setattr(direct.jvp, "__defaults__", (NUMBA,))
        patch.setattr(direct_kernels, "_pays", lambda block, k: True)
        gt.use_numba(True)
        yield
        gt.use_numba(None)


# --- the value and its gradient, in many digits ---------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_leader_far_ahead(dtype: Any) -> None:
    """1 - p of the leader is e^-200 and e^-200: what is left goes to the others, in equal parts."""
    a, _ = direct.forward(np.asarray([[200.0, 0.0, 0.0]], dtype), column(1.0), 2, False)
    np.testing.assert_allclose(a, [[1.5, 0.25, 0.25]], rtol=1e-6 if dtype == np.float32 else 1e-15)
    a, _ = direct.forward(np.asarray([[100.0, 0.0, 0.0, 0.0]], dtype), column(0.5), 3, False)
    np.testing.assert_allclose(a, [[1.0, 2 / 3, 2 / 3, 2 / 3]], rtol=1e-6 if dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.7, 1.0, 1.7, 2.0])
def test_many_digits(t: float, dtype: Any) -> None:
    """Against the recursion of the paper in mpmath: powers by products, by series, and by series and squares."""
    rng = np.random.default_rng(20)
    keys, cotangent = rng.gumbel(size=(2, 1, 40)).astype(dtype)
    a, trajectory = direct.forward(keys, column(t), 6, True)
    gradient, by_temperature = direct.vjp(trajectory, 6, cotangent)
    with mpmath.workdps(_reference.digits_for(keys[0], t)):
        exact = [float(mpmath.fsum(p)) for p in zip(*_reference.successive_softmax(keys[0], 6, t), strict=True)]
        by_keys, by_t = _reference.successive_softmax_gradient(keys[0], 6, t, cotangent[0])
        by_keys, by_t = np.asarray([float(x) for x in by_keys]), float(by_t)
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(a[0], exact, rtol=5 * tolerance)
    assert np.linalg.norm(gradient[0] - by_keys) <= tolerance * np.linalg.norm(by_keys)
    assert abs(by_temperature[0, 0] - by_t) <= 10 * tolerance * (abs(by_t) + np.linalg.norm(by_keys) / t)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [1e-3, 0.2, 0.5, 0.77, 1.0, 1.5, 3.3, 10.7, 33.3])
def test_series_of_powers_and_logarithms(beta: float, dtype: Any) -> None:
    """(1 - p)^beta to 2 beta + 1 units in the last place; log(1 - p), relative to itself, to 2."""
    unit = np.finfo(dtype).eps
    p = np.concatenate([np.geomspace(1e-30, 1e-3, 50), np.linspace(1e-3, 0.5, 200)]).astype(dtype)
    y = dtype(4) * p - dtype(1)
    power = powers.power_of(np.asarray([beta]), None, dtype)
    found = (dtype(1) - p * np.polyval(power.series[0], y)) ** dtype(2) ** power.squarings[0].astype(dtype)
    exact = np.asarray([float((1 - mpmath.mpf(float(x))) ** mpmath.mpf(beta)) for x in p])
    assert np.max(np.abs(found / exact - 1)) <= (2 * beta + 1) * unit
    logs = -p * np.polyval(powers.log_series(dtype)[0], y)
    exact_logs = np.asarray([float(mpmath.log1p(-mpmath.mpf(float(x)))) for x in p])
    assert np.max(np.abs(logs / exact_logs - 1)) <= 2 * unit


def test_the_steepest_powers() -> None:
    """From 2^62 on (1 - p)^beta is 1 or nothing: finite, and the others of equal keys share the mass."""
    for beta in (1e18, 1e19, 1e60, 1e79):
        a, _ = direct.forward(np.asarray([[1.0, 0.0, 0.0]], np.float32), column(1 / beta), 2, False)
        np.testing.assert_allclose(a, [[1.0, 0.5, 0.5]], rtol=1e-6)


# --- rows that share a buffer ------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.4, 1.0, 1.6])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [5, 33, 100, 512, 513])
def test_short_rows_are_bitwise_the_same_at_every_place(n: int, dtype: Any, t: float) -> None:
    """Four rows of up to 512 items lie in one buffer; a row alone leaves three places empty."""
    keys = (key_families(n, t)[:7] + np.random.default_rng(21).normal(size=(7, n)) * t).astype(dtype)
    along = directions_for(keys)
    together = by_direct_form(keys, t, min(n, 6), along)
    for row in range(7):
        one = np.s_[row : row + 1]
        alone = by_direct_form(keys[one], t, min(n, 6), type(along)(*(x[one] for x in along)))
        for batch, single in zip(together, alone, strict=True):
            np.testing.assert_array_equal(batch[one], single)


def test_a_row_that_is_lost_harms_no_neighbour() -> None:
    """Its masses are 0 and its p NaN, as is what it leaves in the buffer."""
    keys = np.random.default_rng(22).gumbel(size=(8, 50)).astype(np.float32)
    broken = keys.copy()
    broken[2, 0] = 3000.0
    for t in (0.9, 1.0):
        a, trajectory = direct.forward(broken, column(t), 5, True)
        expected, sound = direct.forward(keys, column(t), 5, True)
        others = np.arange(8) != 2
        assert trajectory.way[2] // direct.KINDS == direct.GENERIC
        np.testing.assert_array_equal(a[others], expected[others])
        gradient, _ = direct.vjp(trajectory, 5, keys)
        np.testing.assert_array_equal(gradient[others], direct.vjp(sound, 5, keys)[0][others])


@pytest.mark.parametrize("n", [40, 600])
@pytest.mark.parametrize(("t", "k"), [(0.4, 23), (1.0, 23), (1.0, direct_kernels.MOST_STEPS_OF_WEIGHTS), (2.0, 23)])
def test_states_made_again_in_segments_are_the_same(monkeypatch: pytest.MonkeyPatch, t: float, k: int, n: int) -> None:
    keys = key_families(n, t).astype(np.float32)
    along = directions_for(keys)
    whole = by_direct_form(keys, t, k, along)
    monkeypatch.setattr(direct_kernels, "HISTORY_BYTES", 0)
    for found, expected in zip(by_direct_form(keys, t, k, along), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


# --- the adjoints of the weights, for t = 1 -----------------------------------------------------------------


def gradients(keys: np.ndarray, k: int, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """By the keys, and by the temperature, at t = 1."""
    _, trajectory = direct.forward(keys, column(1.0), k, True)
    return direct.vjp(trajectory, k, cotangent)


@pytest.mark.parametrize("n", [3, 40, 600, 3000])
@pytest.mark.parametrize("k", [2, 3, 16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-13)])
def test_the_adjoint_of_the_weights_is_that_of_their_logarithms(
    monkeypatch: pytest.MonkeyPatch, n: int, k: int, dtype: Any, tolerance: float
) -> None:
    """The rule with v and the one with x = p (1 - p) v: errors add up, so to twice the tolerance."""
    keys = key_families(n, 1.0).astype(dtype)
    keys = keys[np.isfinite(keys).sum(axis=1) >= k] if k <= n else keys[:0]
    cotangent = np.random.default_rng(30).normal(size=keys.shape).astype(dtype)
    by_weights = gradients(keys, k, cotangent)
    monkeypatch.setattr(direct_kernels, "MOST_STEPS_OF_WEIGHTS", 0)
    by_logarithms = gradients(keys, k, cotangent)
    scale = norms(by_logarithms[0]) + 1e-2 * norms(cotangent)
    assert np.all(norms(by_weights[0] - by_logarithms[0]) <= 2 * tolerance * scale)
    assert by_weights[1] is not None
    assert by_logarithms[1] is not None
    terms = np.nansum(np.abs(by_logarithms[0] * np.where(np.isfinite(keys), keys, 0.0)), axis=1)
    assert np.all(np.abs(by_weights[1] - by_logarithms[1])[:, 0] <= 20 * tolerance * (terms + norms(cotangent)))


@pytest.mark.parametrize("gap", [0.0, 30.0, 69.0])
@pytest.mark.parametrize("exponent", [-118, -20, 0, 70, 125])
def test_a_power_of_two_in_the_cotangent_comes_out_again(gap: float, exponent: int) -> None:
    """In float32, whatever the weights: v may grow to e^gap, and the cotangent to the largest float."""
    rng = np.random.default_rng(31)
    keys, cotangent = rng.normal(size=(2, 9, 200)).astype(np.float32)
    keys[:, 17] += np.float32(gap)
    keys[:, 5] = np.float32(-np.inf)
    cotangent /= np.float32(2.0) * np.abs(cotangent).max()
    plain, by_t = gradients(keys, 7, cotangent)
    scaled, scaled_by_t = gradients(keys, 7, np.ldexp(cotangent, exponent).astype(np.float32))
    assert by_t is not None
    assert scaled_by_t is not None
    back = np.ldexp(scaled.astype(np.float64), -exponent)
    np.testing.assert_allclose(back, plain, rtol=1e-6, atol=2.0 ** (-149 - exponent) if exponent < 0 else 0.0)
    np.testing.assert_allclose(np.ldexp(scaled_by_t, -exponent), by_t, rtol=1e-6)


def test_the_absent_rows_of_a_buffer_harm_nobody() -> None:
    """The last buffer of 4 rows holds what is left of the rows before, which may be of any size."""
    rng = np.random.default_rng(32)
    keys, cotangent = rng.normal(size=(2, 5, 70)).astype(np.float32)
    keys[:4] *= 15.0
    cotangent[:4] *= 1e30
    alone, _ = gradients(keys[4:], 6, cotangent[4:])
    together, _ = gradients(keys, 6, cotangent)
    np.testing.assert_array_equal(together[4:], alone)


@pytest.mark.parametrize("t", [1.0, 1.6, 3.0])
def test_tied_items_keep_their_digits_in_float32(t: float) -> None:
    """An error that is the same in all items is seen by no sum of states that are made again: to 1e-6 in 60 steps."""
    keys, cotangent = np.full((1, 300), 0.3, np.float32), np.random.default_rng(23).normal(size=(1, 300))
    _, trajectory = direct.forward(keys, column(t), 60 if t < 2 else 24, True)
    gradient, _ = direct.vjp(trajectory, trajectory.masses.shape[0], cotangent.astype(np.float32))
    _, wide = direct.forward(keys.astype(np.float64), column(t), trajectory.masses.shape[0], True)
    expected, _ = direct.vjp(wide, trajectory.masses.shape[0], cotangent)
    assert np.all(norms(gradient - expected) <= 1e-6 * norms(expected))


# --- compiled, and how ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not get_host_cpu_features().get("avx"), reason="no registers of 256 bits")
@pytest.mark.parametrize("dtype", [numba.float32, numba.float64])
def test_steps_run_in_vector_registers(dtype: Any) -> None:
    """Packed products in registers of 256 bits or more."""
    array = numba.types.Array(dtype, 1, "C")
    sums = numba.types.Array(numba.float64, 1, "C")
    step = numba.njit(
        numba.void(array, array, array, numba.int64, sums), fastmath=compiling.FASTMATH, error_model="numpy"
    )(forward.step_of_four.py_func)
    (assembly,) = step.inspect_asm().values()
    kind = "s" if dtype == numba.float32 else "d"
    packed = [line for line in assembly.splitlines() if f"vmulp{kind}" in line and ("ymm" in line or "zmm" in line)]
    assert len(packed) >= 4


def test_a_loop_without_a_file_is_compiled_but_not_kept() -> None:
    """As where no folder can be written to."""
    namespace: dict[str, Any] = {}
    exec("def twice(x):\n    return x + x", namespace)
    assert compiling.compiled(namespace["twice"])(2.5) == 5.0


def test_public_functions_agree_with_numpy() -> None:
    """Value to 5e-6, gradient to 2e-6 normwise, in float32."""
    rng = np.random.default_rng(24)
    for rows, n, k, t in [(30, 100, 9, 1.0), (5, 1000, 4, 0.7), (50, 20, 3, 2.0), (4, 300, 1, 1.0)]:
        keys = rng.gumbel(size=(rows, n)).astype(np.float32)
        results = []
        for wanted in (True, False):
            gt.use_numba(wanted)
            value, residuals = gt.relaxed_topk.fwd(keys, k, temperature=t, method="direct")
            results.append((value, gt.relaxed_topk.vjp(residuals, keys)))
        gt.use_numba(True)
        np.testing.assert_allclose(results[0][0], results[1][0], rtol=5e-6)
        assert np.all(norms(results[0][1] - results[1][1]) <= 2e-6 * norms(results[1][1]))
