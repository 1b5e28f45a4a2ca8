"""The compressed form of successive softmax: as exact as the direct form, whatever the keys."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest
from numpy.polynomial import chebyshev

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numpy import crossover
from gumbeltopk._numpy.compression import bound, driver, linear_recursion, measure, recursion, steps_at_once
from gumbeltopk._numpy.compression.block import LONG_ROW

TEMPERATURES = (0.03, 0.1, 0.5, 1.0, 5.0)
SHORT, LONG = 3000, LONG_ROW + 5000


def key_families(n: int, t: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    ladder = -0.5 * t * np.minimum(np.arange(n) // 3, 400)
    return {
        "gumbel": rng.gumbel(size=n),
        "normal logits": rng.gumbel(size=n) + 2 * rng.normal(size=n),
        "zipf logits": rng.gumbel(size=n) - np.log(np.arange(1.0, n + 1)),
        "ties": np.round(2 * rng.normal(size=n)),
        "all tied": np.zeros(n),
        "two clusters": np.where(np.arange(n) % 2, 0.0, -3.0) + 1e-3 * rng.normal(size=n),
        "one giant": np.r_[80 * t, rng.normal(size=n - 1)],
        "geometric ladder": rng.permutation(ladder),
        "sorted": np.sort(rng.gumbel(size=n)),
    }


def direct_form(keys: np.ndarray, k: int, t: float, cotangent: np.ndarray, dt: float) -> tuple[Any, ...]:
    """Value, both gradients and a tangent by the generic core in float64."""
    rows, temperature, every = keys[None].astype(np.float64), np.asarray([[t]]), 16
    wide = cotangent[None].astype(np.float64)
    with api.quiet():
        value, trajectory = generic.forward(rows, temperature, 1 / t, k, every, xp)
        gradient, by_temperature = generic.vjp(trajectory, 1 / t, k, every, wide, False, xp)
        tangent = generic.jvp(trajectory, 1 / t, k, every, wide, np.asarray([[dt]]), False, xp)
    return value[0], gradient[0], float(by_temperature[0, 0]), tangent[0]


def assert_accurate(keys: np.ndarray, k: int, t: float) -> None:
    """float64: 1e-12 relative for a_i > 1e-25, derivatives 1e-12 normwise; float32: 5e-6 and 1e-6.

    At t = .03 a step may magnify rounding by beta = 33, in the reference as here: 1e-9 for the float64 derivatives.
    """
    cotangent = np.random.default_rng(k).normal(size=keys.shape).astype(keys.dtype)
    expected, by_keys, by_temperature, tangent = direct_form(keys, k, t, cotangent, 0.3)
    value, residuals = gt.relaxed_topk.fwd(keys, k, temperature=t, method="compressed")
    np.testing.assert_array_equal(gt.relaxed_topk(keys, k, temperature=t, method="compressed"), value)
    double = keys.dtype == np.float64
    counted = expected > 1e-25
    assert np.max(np.abs(value[counted] / expected[counted] - 1)) <= (1e-12 if double else 5e-6)
    tolerance = (1e-9 if t == 0.03 else 1e-12) if double else 1e-6
    gradient, t_gradient = gt.relaxed_topk.vjp(residuals, cotangent, wrt=("keys", "temperature"))
    # A gradient may vanish (ties): then the terms that cancel in it set the scale.
    scale = max(np.linalg.norm(by_keys), 1e-3 * np.linalg.norm(expected * cotangent) / t)
    assert np.linalg.norm(gradient - by_keys) <= tolerance * scale
    assert abs(t_gradient - by_temperature) <= 10 * tolerance * max(
        abs(by_temperature), scale * np.ptp(keys) / t, scale
    )
    actual = gt.relaxed_topk.jvp(residuals, cotangent, 0.3)
    assert np.linalg.norm(actual - tangent) <= 10 * tolerance * max(np.linalg.norm(tangent), scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("t", TEMPERATURES)
@pytest.mark.parametrize("family", key_families(8, 1.0))
@pytest.mark.parametrize(("n", "k"), [(SHORT, 5), (SHORT, 60), (LONG, 5), (LONG, 100)])
def test_as_exact_as_the_direct_form(n: int, k: int, family: str, t: float, dtype: str) -> None:
    assert_accurate(key_families(n, t)[family].astype(dtype), k, t)


@pytest.mark.parametrize("n", [200, LONG])
@pytest.mark.parametrize("k", [20, 21])
def test_zero_weights_have_no_mass_and_no_gradient(n: int, k: int) -> None:
    """Only 21 items are there, fewer than are kept."""
    keys = np.full(n, -np.inf)
    there = np.random.default_rng(0).permutation(n)[:21]
    keys[there] = np.random.default_rng(1).normal(size=21)
    cotangent = np.random.default_rng(2).normal(size=n)
    value, residuals = gt.relaxed_topk.fwd(keys, k, temperature=0.7, method="compressed")
    short, of_short = gt.relaxed_topk.fwd(keys[there], k, temperature=0.7)
    np.testing.assert_allclose(value[there], short, rtol=1e-13)
    assert np.count_nonzero(value) == 21
    both = ("keys", "temperature")
    gradient, t_gradient = gt.relaxed_topk.vjp(residuals, cotangent, wrt=both)
    expected, t_expected = gt.relaxed_topk.vjp(of_short, cotangent[there], wrt=both)
    np.testing.assert_allclose(gradient[there], expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(t_gradient, t_expected, rtol=1e-11)
    assert np.count_nonzero(gradient) == 21


def test_rows_of_every_fate_in_one_call() -> None:
    """Own temperatures, an axis in front, rows that are tried again and rows that end in the direct form."""
    rng = np.random.default_rng(3)
    keys = rng.gumbel(size=(700, 12))
    keys[:, 3] = 0.0  # tied
    keys[:, 4] = np.round(keys[:, 4])
    keys[:350, 5] += 3.0
    keys[0, 6] = 5000.0  # underflow
    temperature = np.asarray([1, 0.03, 5, 0.03, 0.1, 0.05, 1, 0.5, 2, 0.3, 1.5, 0.02])
    cotangent, tangent = rng.normal(size=(2, 700, 12))
    results = []
    for method in ("direct", "compressed"):
        value, residuals = gt.relaxed_topk.fwd(keys, 20, temperature=temperature, axis=0, method=method)
        gradients = gt.relaxed_topk.vjp(residuals, cotangent, wrt=("keys", "temperature"))
        results.append((value, *gradients, gt.relaxed_topk.jvp(residuals, tangent, temperature)))
    form = residuals.static.form
    assert form[1] >= 2, "rows were tried again"
    assert form[2], "and some went to the direct form"
    for expected, actual in zip(*results, strict=True):
        norm = np.linalg.norm(expected, axis=0)
        assert np.all(np.linalg.norm(actual - expected, axis=0) <= 1e-9 * norm)


@pytest.mark.parametrize("n", [SHORT, LONG])
def test_residuals_hold_no_k_by_n_array(n: int) -> None:
    """O(n) plus k (m + P)."""
    k = 200
    _, residuals = gt.relaxed_topk.fwd(np.random.default_rng(4).gumbel(size=n), k, method="compressed")
    assert sum(array.size for array in residuals.arrays) <= 4 * n + k * 600 + 40_000
    assert max(array.size for array in residuals.arrays) < k * n / 4


@pytest.mark.parametrize("t", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("n", [SHORT, LONG])
def test_derivatives_are_adjoint_and_linear(n: int, t: float) -> None:
    rng = np.random.default_rng(5)
    keys = rng.gumbel(size=(2, n))
    _, residuals = gt.relaxed_topk.fwd(keys, 40, temperature=t, method="compressed")
    u, v, w = rng.normal(size=(3, 2, n))
    forward, backward = gt.relaxed_topk.jvp(residuals, u), gt.relaxed_topk.vjp(residuals, v)
    scale = np.sum(np.abs(forward * v)) + np.sum(np.abs(backward * u))
    assert abs(np.sum(forward * v) - np.sum(backward * u)) <= 1e-12 * scale
    both = gt.relaxed_topk.vjp(residuals, 2.0 * v - 3.0 * w)
    np.testing.assert_allclose(both, 2.0 * backward - 3.0 * gt.relaxed_topk.vjp(residuals, w), atol=1e-12)


def test_methods_that_there_are() -> None:
    with pytest.raises(ValueError, match="method = 'fast' is not known; choose 'auto', 'direct' or 'compressed'"):
        gt.relaxed_topk([1.0, 2.0], 1, method="fast")
    with pytest.raises(ValueError, match="makes no steps of all items; pass 'auto' or 'direct' with steps=True"):
        gt.relaxed_topk([1.0, 2.0], 1, method="compressed", steps=True)


def test_compression_is_for_numpy(to_xp, library) -> None:
    keys = to_xp(np.zeros(9))
    if library.name == "numpy":
        assert gt.relaxed_topk(keys, 2, method="compressed").shape == (9,)
    else:
        with pytest.raises(ValueError, match="method = 'compressed' is for NumPy arrays"):
            gt.relaxed_topk(keys, 2, method="compressed")


# --- the parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2, 3, 8, 15])
def test_power_nodes_sum_polynomials_without_constant_term(degree: int) -> None:
    v = np.random.default_rng(degree).uniform(size=(3, 400)) ** 2
    factor = np.random.default_rng(9).normal(size=v.shape)
    x = measure.power_nodes(degree)
    for f in (None, factor):
        sums = (
            measure.power_sums(v, degree) if f is None else measure.products(v, degree, f + 5.0, np.full((3, 1), 5.0))
        )
        weights = measure.node_weights(sums)
        for q in range(1, degree + 1):
            exact = np.sum(v**q if f is None else f * v**q, axis=-1)
            np.testing.assert_allclose(np.sum(weights * x**q, axis=-1), exact, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("degree", [2, 3, 8, 15])
def test_polynomials_are_read_off_exactly(degree: int) -> None:
    """And an entire function to rounding."""
    v = np.random.default_rng(degree).uniform(size=(2, 50))
    x = measure.power_nodes(degree)
    values = np.stack([np.sin(x) * x, x]) if degree == 15 else np.stack([x**degree, x])
    expected = np.stack([np.sin(v[0]) * v[0] if degree == 15 else v[0] ** degree, v[1]])
    out = np.empty_like(v)
    measure.evaluate(measure.coefficients(values), v, out)
    assert np.all(np.abs(out - expected) <= 1e-13 * v)  # b(v) = a(v) / v is what is interpolated


def test_octave_bins_sum_and_interpolate_polynomials() -> None:
    log_v = np.sort(np.random.default_rng(6).uniform(0, 3, size=2000))[::-1]
    bins = measure.octave_bins(log_v, 100, 12)
    assert np.array_equal(np.sort(np.r_[bins.exact, bins.binned]), np.arange(2000))
    nodes, v = np.exp(bins.log_nodes), np.exp(log_v[bins.binned])
    polynomial = lambda x: chebyshev.chebval(x / 32, np.arange(1.0, 13.0))  # noqa: E731
    np.testing.assert_allclose(measure.bin_weights(bins) @ polynomial(nodes), np.sum(polynomial(v)), rtol=1e-12)
    np.testing.assert_allclose(measure.read_bins(bins, polynomial(nodes)), polynomial(v), rtol=1e-11)
    assert measure.last_terms(bins, nodes**3) < 1e-14
    assert measure.last_terms(bins, np.abs(nodes - 1.5)) > 1e-3


def test_holding_out_the_heaviest_is_the_same_as_looking_for_the_pivot() -> None:
    """For beta <= 1; one row has a giant, one has none."""
    rng = np.random.default_rng(7)
    p = rng.uniform(size=(2, 30))
    p[:, 0] = [500.0, 1.5]
    weights = np.ones_like(p)
    weights[:, 25:] = rng.uniform(1, 9, size=(2, 5))
    p /= np.sum(weights * p, axis=-1, keepdims=True)
    for power in (1.0, 0.5, 0.3):
        held, looked = (
            run(p, weights, power, 12, True) for run in (recursion._run_holding_out, recursion._run_in_chunks)
        )
        for actual, expected in zip(held, looked, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-13)
        columns = linear_recursion.columns(rng.normal(size=(2, 25)), rng.normal(size=(2, 5)), weights)
        results = [
            reverse(held.states, weights, columns, power, True)
            for reverse in (linear_recursion._reverse_holding_out, linear_recursion._reverse_in_chunks)
        ]
        for actual, expected in zip(*results, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-13)


def test_the_estimate_of_the_slope_is_not_too_small() -> None:
    """It sets the degree: too large costs time, too small another try. Below, steps are too large for it."""
    rng = np.random.default_rng(8)
    for t in (0.5, 1.0, 5.0):
        keys = np.sort(rng.gumbel(size=(4, 4000)), axis=-1)[:, ::-1]
        log_v = (keys - keys[:, 99:100]) / t
        light = np.sum(np.exp(log_v[:, 100:]), axis=-1)
        temperature = np.full((4, 1), t)
        estimated = bound.estimate_slope(log_v[:, :100], light, temperature, 50)
        a, v = gt.relaxed_topk(keys, 50, temperature=t)[:, -1], np.exp(log_v[:, -1])  # the lightest item: a = sigma v
        assert np.all(estimated >= 0.7 * a / v)


def test_the_degree_grows_as_the_reach_shrinks() -> None:
    degrees = [bound.degree_for(reach, 1.5e-16, 15) for reach in (1000.0, 100.0, 30.0, 10.0, 5.0)]
    assert degrees == sorted(degrees)
    assert np.all(bound.neglected(np.asarray([1.0, 1.4]), 9) == np.inf)


# --- threads ------------------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Any:
    yield gt.set_num_threads
    gt.set_num_threads(None)


@pytest.mark.parametrize("shape", [(1, 400_000), (3, LONG), (900, 700)])
def test_every_number_of_threads_gives_the_same_bits(threads, shape) -> None:
    keys = np.random.default_rng(10).gumbel(size=shape).astype(np.float32)
    cotangent = np.random.default_rng(11).normal(size=shape).astype(np.float32)
    results = []
    for number in (1, 2, 3):
        threads(number)
        value, residuals = gt.relaxed_topk.fwd(keys, 30, method="compressed")
        both = gt.relaxed_topk.vjp(residuals, cotangent, wrt=("keys", "temperature"))
        results.append((value, *both, gt.relaxed_topk.jvp(residuals, cotangent)))
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_the_number_of_threads_is_a_setting(threads) -> None:
    threads(3)
    assert gt.get_num_threads() == 3
    for bad, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match=f"number = {bad}"):
            gt.set_num_threads(bad)
    assert gt.get_num_threads() == 3


@pytest.mark.parametrize(("text", "shown"), [("2", "2"), ("", None), ("two", "GUMBELTOPK_NUM_THREADS = 'two'")])
def test_the_environment_sets_the_default(text: str, shown: str | None) -> None:
    code = "import gumbeltopk as gt; print(gt.get_num_threads())"
    run = subprocess.run(
        [sys.executable, "-c", code], env={"GUMBELTOPK_NUM_THREADS": text, "PATH": ""}, capture_output=True, text=True
    )
    assert (shown or "") in run.stdout + run.stderr
    assert (run.returncode == 0) == (text != "two")


def test_efforts_keep_at_most_half_of_the_items() -> None:
    assert driver.efforts(50, 40) == []
    assert all(effort.heavy <= 500 for effort in driver.efforts(1000, 100))


@pytest.mark.parametrize("power", [1.0, 0.4, 2.5])
def test_several_reverse_steps_at_once_are_the_same_as_one_by_one(power: float, monkeypatch: Any) -> None:
    rng = np.random.default_rng(9)
    items, nodes = 45, 6
    weights = np.ones((1, items + nodes))
    weights[:, items:] = rng.uniform(1.0, 30.0, size=nodes)
    p = rng.uniform(size=weights.shape)
    p /= np.sum(weights * p)
    states = recursion.run(p, weights, power, 70, True).states
    columns = linear_recursion.columns(rng.normal(size=(1, items)), rng.normal(size=(1, nodes)), weights)
    taken, several_steps = [], steps_at_once.reverse

    def reverse(*arguments: Any) -> Any:
        taken.append(several_steps(*arguments))
        return taken[-1]

    monkeypatch.setattr(steps_at_once, "reverse", reverse)
    at_once = linear_recursion.reverse(states, weights, columns, power, True)
    assert None not in taken
    monkeypatch.setattr(steps_at_once, "reverse", lambda *arguments: None)
    one_by_one = linear_recursion.reverse(states, weights, columns, power, True)
    for actual, expected in zip(at_once, one_by_one, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 40_000), (1, 2_000)])
def test_a_temperature_for_each_row_of_blocks_of_one_row(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(10)
    keys, cotangent = rng.gumbel(size=(2, *shape))
    temperature = np.asarray([1.0, 1.5, 2.0])[: shape[0]]
    _, residuals = gt.relaxed_topk.fwd(keys, 20, temperature=temperature, method="compressed")
    together = gt.relaxed_topk.vjp(residuals, cotangent)
    for row in range(shape[0]):
        _, residuals = gt.relaxed_topk.fwd(keys[row], 20, temperature=float(temperature[row]), method="compressed")
        np.testing.assert_allclose(together[row], gt.relaxed_topk.vjp(residuals, cotangent[row]), rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 2_000), (3, 2_000), (1, 40_000)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
def test_a_constant_in_the_input_of_a_derivative_does_not_matter(
    shape: tuple[int, int], dtype: str, tolerance: float
) -> None:
    rng = np.random.default_rng(11)
    keys = rng.gumbel(size=shape).astype(dtype)
    direction = np.round(1024 * rng.normal(size=shape)) / 1024
    shifted = (direction + 4096.0).astype(dtype)  # exact
    _, exact = gt.relaxed_topk.fwd(keys.astype(np.float64), 70, method="direct")
    _, residuals = gt.relaxed_topk.fwd(keys, 70, method="compressed")
    for derivative in (gt.relaxed_topk.vjp, gt.relaxed_topk.jvp):
        expected = derivative(exact, direction)
        assert np.linalg.norm(derivative(residuals, shifted) - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("t", [30.0, 1e3, 1e6])
@pytest.mark.parametrize("method", ["direct", "compressed"])
def test_derivatives_by_a_high_temperature_keep_their_digits(k: int, t: float, method: str) -> None:
    """Weights are nearly equal there; float32 ones do not tell the keys any more."""
    rng = np.random.default_rng(12)
    keys, cotangent = rng.gumbel(size=(2, 1, 500)).astype(np.float32)
    tangents = (np.zeros((1, 500), dtype=np.float32), np.asarray(1.0))
    both = ("keys", "temperature")
    results = []
    for own_keys, own_method in ((keys, method), (keys.astype(np.float64), "direct")):
        _, residuals = gt.relaxed_topk.fwd(own_keys, k, temperature=t, method=own_method)
        _, by_t = gt.relaxed_topk.vjp(residuals, cotangent.astype(own_keys.dtype), wrt=both)
        tangent = gt.relaxed_topk.jvp(residuals, *(each.astype(own_keys.dtype) for each in tangents), wrt=both)
        results.append((float(by_t), tangent))
    (by_t, tangent), (exact_by_t, exact_tangent) = results
    assert tangent.dtype == np.float32
    assert np.linalg.norm(tangent - exact_tangent) <= 1e-6 * np.linalg.norm(exact_tangent)
    # By Cauchy-Schwarz, what rounding of g may do to <g, tangent>.
    assert abs(by_t - exact_by_t) <= 1e-6 * np.linalg.norm(cotangent) * np.linalg.norm(exact_tangent)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_auto_compresses_where_there_is_much_to_save(double: bool, compiled: bool) -> None:
    assert crossover.prefers_compressed(1, 1_000_000, 10, 1.0, double, compiled)
    assert crossover.prefers_compressed(1, 1_000_000, 100, 1.0, double, compiled)
    assert crossover.prefers_compressed(64, 5_000, 50, 1.0, double, compiled)
    assert not crossover.prefers_compressed(1, 100, 5, 1.0, double, compiled)
    assert not crossover.prefers_compressed(1_000, 100, 9, 1.0, double, compiled)
    assert not crossover.prefers_compressed(1, 1_000_000, 1, 1.0, double, compiled)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_large_cotangents_of_float32(compiled: bool, rows: int) -> None:
    """Sums in the recursion may be beyond float32 where the gradient is not."""
    if compiled:
        pytest.importorskip("numba", reason="numba, the extra `numba`, is not installed")
    rng = np.random.default_rng(30)
    keys, cotangent = rng.gumbel(size=(2, rows, 300)).astype(np.float32)
    cotangent[0, np.argmax(keys[0])] = 1e37
    gt.use_numba(compiled)
    try:
        _, residuals = gt.relaxed_topk.fwd(keys, 7, method="compressed")
        found = gt.relaxed_topk.vjp(residuals, cotangent)
    finally:
        gt.use_numba(None)
    _, residuals = gt.relaxed_topk.fwd(keys.astype(np.float64), 7, method="direct")
    exact = gt.relaxed_topk.vjp(residuals, cotangent.astype(np.float64))
    for row in range(rows):
        assert np.linalg.norm(found[row] - exact[row]) <= 1e-6 * np.linalg.norm(exact[row])
