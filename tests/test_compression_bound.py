"""What compression neglects stays below its bound: the theorems of docs/derivations/measure_compression.md, and a
search for counterexamples among keys that are made to break them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from gumbeltopk._numpy.compression import block, bound, driver, measure

LONG = np.longdouble
EPS = float(np.finfo(np.float64).eps)

# Keys in units of the temperature, for rows of n items: (rng, n, k) -> (n,).
FAMILIES: dict[str, Callable[[np.random.Generator, int, int], Any]] = {
    "gumbel": lambda rng, n, k: rng.gumbel(size=n) * 10 ** rng.uniform(-1, 1),
    "all tied": lambda rng, n, k: np.zeros(n),
    "few levels": lambda rng, n, k: np.round(rng.gumbel(size=n)) * 10 ** rng.uniform(-1, 1),
    "ladder": lambda rng, n, k: -np.arange(n) * 10 ** rng.uniform(-3, 0.5),
    "two levels": lambda rng, n, k: np.where(np.arange(n) < rng.integers(1, 2 * k), 10 ** rng.uniform(-1, 2.5), 0.0),
    "a giant": lambda rng, n, k: np.append(rng.gumbel(size=n - 1), 10 ** rng.uniform(0, 2.5)),
    "uniform weights": lambda rng, n, k: np.log(rng.uniform(1e-9, 1.0, size=n)),
    "heavy tail": lambda rng, n, k: np.log(rng.pareto(rng.uniform(0.2, 3.0), size=n) + 1e-9),
    "near ties": lambda rng, n, k: rng.integers(4, size=n) * rng.uniform(0, 9) + 1e-6 * rng.normal(size=n),
    "zero weights": lambda rng, n, k: np.where(np.arange(n) < k + rng.integers(n - k), rng.gumbel(size=n), -np.inf),
    "far from 0": lambda rng, n, k: rng.gumbel(size=n) + 1000.0,
}


def random_case(rng: np.random.Generator, coldest: float, hottest: float) -> tuple[float, Any]:
    """A temperature, and a function (n, k) -> shuffled keys."""
    round_one = rng.random() < 0.3
    t = float(rng.choice([0.1, 0.25, 0.5, 1.0, 2.0, 10.0])) if round_one else 10 ** rng.uniform(coldest, hottest)
    family = list(FAMILIES.values())[rng.integers(len(FAMILIES))]
    return t, lambda n, k: t * rng.permutation(family(rng, n, k))


def direct_form_in_long_double(keys: Any, k: int, t: float) -> Any:
    """k steps on all items of one row; the pivot's complement is the sum of the others."""
    keys, beta = np.asarray(keys, dtype=LONG), 1 / LONG(t)
    with api.quiet():
        p = np.exp((keys - np.max(keys)) / LONG(t))
        p /= np.sum(p)
        total = p.copy()
        for _ in range(k - 1):
            c = 1 - p
            pivot = np.argmax(p)
            c[pivot] = np.sum(p[:pivot]) + np.sum(p[pivot + 1 :])
            p = p * c**beta
            p /= np.sum(p)
            total += p
    return total


def error(a: Any, exact: Any) -> float:
    """Relative to the largest entry."""
    return float(np.max(np.abs(a - exact)) / np.max(exact))


def error_of_the_direct_form(keys: Any, k: int, t: float, exact: Any) -> float:
    return error(gt.relaxed_topk(keys, k, temperature=t, method="direct"), exact)


# --- the theorems -------------------------------------------------------------------------------------


def test_trajectories_stay_below_their_majorants_on_a_disc() -> None:
    """|f_j| <= R / (1 - R / X_j), and what the derivatives are made of: q_j, and v f_j'(v)."""
    rng = np.random.default_rng(0)
    closest = 0.0
    for _ in range(300):
        k, t = int(rng.integers(1, 12)), 10 ** rng.uniform(-2, 2)
        z_of_step = 10 ** rng.uniform(-1, 1, size=k)
        radius = min(t, 1.0) / np.sum(1 / z_of_step) * rng.choice([0.3, 0.7, 0.95, 0.999])
        circle = radius * np.exp(2j * np.pi * np.arange(128) / 128)
        f, logarithmic_derivative, sigma = circle.copy(), np.ones_like(circle), 0.0
        for z in z_of_step:
            majorant = radius / (1 - radius * sigma / min(t, 1.0))
            assert np.all(np.abs(f) <= majorant * (1 + 1e-12))
            assert np.all(np.abs(f * logarithmic_derivative) <= majorant**2 / radius * (1 + 1e-12))
            closest = max(closest, float(np.max(np.abs(f)) / majorant))
            sigma += 1 / z
            q = f / z / (1 - f / z) / t
            assert np.all(np.abs(q) <= radius / z / (1 - radius * sigma / min(t, 1.0)) / t * (1 + 1e-12))
            f, logarithmic_derivative = f * (1 - f / z) ** (1 / t), logarithmic_derivative * (1 - q)
    assert closest > 0.9  # the majorant is not far off


def test_the_bound_of_the_interpolation_error_holds_for_the_majorant_itself() -> None:
    """b(v) = 1 / (1 - v / X) errs most at v = 1, by 1 / ((1 - 1/X) T_P(2 X - 1)), which is the bound.

    No other b with this majorant errs more: the divided differences of all powers of v are positive.
    """
    for degree in range(bound.SMALLEST_DEGREE, 16):
        for reach in (2.0, 3.0, 5.0, 20.0, 300.0):
            exact = 1.0 / ((1.0 - 1.0 / reach) * math.cosh(degree * math.acosh(2.0 * reach - 1.0)))
            claimed = float(bound.neglected(np.asarray([reach]), degree)[0])
            assert claimed == pytest.approx(exact, rel=1e-12)
            if exact > 1e-12:  # what is measured, where rounding does not hide it
                x, v = measure.power_nodes(degree), np.linspace(0.0, 1.0, 301)[1:]
                read = np.empty((1, 300))
                measure.evaluate(measure.coefficients((x / (1 - x / reach))[None]), v[None], read)
                measured = np.max(np.abs(read[0] / v - 1 / (1 - v / reach)))
                assert measured == pytest.approx(exact, rel=1e-3, abs=1e-13)


def test_the_majorants_of_the_derivatives_err_by_a_factor_and_its_square_more() -> None:
    """1 / (1 - v/X)^2 and 1 / (1 - v/X)^3, by P' and P'^2; their errors at v = 1, in 150 digits."""
    with mpmath.workdps(150):
        for degree in (3, 5, 9, 15):
            x = [(1 + mpmath.cos((2 * c + 1) * mpmath.pi / (2 * degree))) / 2 for c in range(degree)]
            for reach in (mpmath.mpf("1.51"), mpmath.mpf(3), mpmath.mpf(20), mpmath.mpf(5000)):
                root = mpmath.sqrt(1 - 1 / reach)
                factor = degree / root + 1 / root**2
                errors = [abs(1 - read_at_one(x, [(1 - c / reach) ** -m for c in x], reach, m)) for m in (1, 2, 3)]
                bound_ = mpmath.mpf(float(bound.neglected(np.asarray([float(reach)]), degree)[0]))
                assert abs(errors[0] * (1 - 1 / reach) ** -1 / bound_ - 1) < 1e-9
                assert errors[1] * (1 - 1 / reach) ** -2 <= factor * bound_ * (1 + 1e-9)
                assert errors[2] * (1 - 1 / reach) ** -3 <= factor**2 * bound_ * (1 + 1e-9)


def read_at_one(x: list[Any], values: list[Any], reach: Any, power: int) -> Any:
    """The interpolating polynomial at 1 (Lagrange), over the function (1 - v / reach)^-power there."""
    total = mpmath.mpf(0)
    for c, value in enumerate(values):
        total += value * mpmath.fprod((1 - other) / (x[c] - other) for i, other in enumerate(x) if i != c)
    return total * (1 - 1 / reach) ** power


def error_of_reading(functions: Any, degree: int) -> float:
    """|interpolation error of b(v)|, b(v) = value / v; values at 40 places v and then at the nodes."""
    v, read = np.linspace(0.0, 1.0, 41)[None, 1:], np.empty((1, 40))
    measure.evaluate(measure.coefficients(functions[None, 40:]), v, read)
    return float(np.max(np.abs(read - functions[:40]) / v))


def test_the_functions_of_the_derivatives_are_within_a_factor_and_its_square_of_the_bound() -> None:
    """E and D, and what is summed over for y_j: q_j E_{j+1} and q_j D_{j+1}, for |y_j| = 1."""
    rng = np.random.default_rng(7)
    for _ in range(300):
        k, t, degree, reach = int(rng.integers(1, 12)), 10 ** rng.uniform(-2, 2), int(rng.integers(3, 8)), 3.0
        z_of_step = 10 ** rng.uniform(-1, 1, size=k)
        z_of_step *= reach * np.sum(1 / z_of_step) / min(t, 1.0)
        allowed = float(bound.neglected(np.asarray([reach]), degree)[0])
        factor = degree / math.sqrt(1.0 - 1.0 / reach) + 1.0 / (1.0 - 1.0 / reach)
        f = np.append(np.linspace(0.0, 1.0, 41)[1:], measure.power_nodes(degree))
        steps = []
        for z in z_of_step:
            steps.append((f / z, f / z / (1 - f / z) / t, z))
            f = f * (1 - f / z) ** (1 / t)
        e = d = np.zeros_like(f)
        for p, q, z in reversed(steps):
            assert error_of_reading(q * e, degree) <= factor**2 * allowed / z
            assert error_of_reading(q * d, degree) <= factor**2 * allowed / z
            e, d = e * (1 - q) + p, d * (1 - q) - p * rng.choice([-1.0, 1.0])
        assert error_of_reading(e, degree) <= factor * allowed * np.sum(1 / z_of_step)
        assert error_of_reading(d, degree) <= factor * allowed * np.sum(1 / z_of_step)


def attempt_at_degree(keys: Any, k: int, t: float, heavy: int, degree: int, keep: bool) -> tuple[Any, block.Attempt]:
    """a and the attempt with P = `degree`, where every tolerance is infinite: `block.TOLERANCE` is patched."""
    a = np.empty((1, len(keys)))
    effort = block.Effort(heavy, degree - bound.SMALLEST_DEGREE, False)
    with api.quiet():
        return a[0], block.attempt(keys[None], np.asarray([[t]]), 1 / t, k, effort, keep, a)


@pytest.fixture
def no_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "TOLERANCE", {4: np.inf, 8: np.inf})


@pytest.mark.usefixtures("no_tolerance")
def test_each_normaliser_is_within_its_bound() -> None:
    """The computed Z_j differ from the sums of the trajectories that they define by less than bound * L_j / (1 - 1/X).

    L_j is the light items' share of Z_j. Rounding of k sums and of (1 - p)^beta: 20 k eps / min(t, 1).
    """
    rng = np.random.default_rng(1)
    compared, closest = 0, 0.0
    while compared < 200:
        t, keys_of = random_case(rng, -0.7, 1.5)
        k, heavy, degree = int(rng.integers(2, 20)), int(rng.integers(1, 40)), int(rng.integers(3, 9))
        keys = keys_of(heavy + int(rng.integers(k + 20, 300)), k)
        _, attempt = attempt_at_degree(keys, k, t, heavy, degree, True)
        states = attempt.block.states[:, 0].astype(LONG)
        if not attempt.good[0] or not 1e-10 < attempt.bound[0] < np.inf or np.max(states) > 0.9:
            continue
        nodes, light = measure.power_nodes(degree), attempt.block.v[0] > 0.0
        z = nodes[0] / states[0, -degree]
        threshold = np.min(keys[attempt.block.kept], where=np.isfinite(keys[attempt.block.kept]), initial=np.inf)
        f = np.exp((keys.astype(LONG) - threshold) / LONG(t))
        sigma, errors = 0.0, []
        for p in states:
            share = np.sum(f[light]) / np.sum(f)
            errors.append((float(abs(z / np.sum(f) - 1)), float(share)))
            sigma += float(1 / z)
            f = f * (1 - f / z) ** (1 / LONG(t))
            z = z * np.sum(attempt.block.weights[0] * p * (1 - p) ** (1 / LONG(t)))
        reach = min(t, 1.0) / sigma
        for found, share in errors:
            allowed = attempt.bound[0] * share / (1 - 1 / reach)
            rounding = 20 * k * EPS / min(t, 1.0)
            assert found <= allowed + rounding
            closest = max(closest, (found - rounding) / max(allowed, rounding))
        compared += 1
    assert closest > 0.005  # the bound is 20 to 80 times what is possible


@pytest.mark.usefixtures("no_tolerance")
@pytest.mark.parametrize(("size", "heavy_for_a_step"), [(4, 4.8), (8, 5.9)])
def test_enough_heavy_items_always_give_the_reach_for_t_of_1_and_more(size: int, heavy_for_a_step: float) -> None:
    """m >= k / (x (1 - x)), 1/x the reach that the largest degree needs: by Theorem 1, whatever the keys."""
    rng = np.random.default_rng(8)
    tolerance, compared = {4: 5e-8, 8: 1.5e-16}[size], 0
    while compared < 200:
        t, keys_of = random_case(rng, 0.0, 2.0)
        k = int(rng.integers(2, 20))
        heavy = math.ceil(heavy_for_a_step * k)
        keys = keys_of(heavy + int(rng.integers(k, 300)), k)
        _, attempt = attempt_at_degree(keys, k, max(t, 1.0), heavy, block.LARGEST_DEGREE[size], False)
        if attempt.good[0] and np.count_nonzero(np.isfinite(keys)) > heavy:
            assert attempt.bound[0] <= tolerance, f"t = {t}, k = {k}"
            compared += 1


@pytest.mark.usefixtures("no_tolerance")
def test_the_bound_is_never_below_the_true_error_of_compression() -> None:
    """1,500 random cases with few nodes, so that what is neglected is above rounding, in two thirds of them far above.

    The allowance for rounding is 16 k eps of the largest entry, or 4 times the direct form's own error: at low
    temperatures a step magnifies both.
    """
    rng = np.random.default_rng(2)
    compared = far_above_rounding = 0
    for _ in range(6000):
        if compared == 1500:
            break
        t, keys_of = random_case(rng, -1.7, 2.0)
        k, degree = int(rng.integers(2, 40)), int(rng.integers(3, 9))
        heavy = int(rng.integers(1, 3 * k))
        keys = keys_of(heavy + k + int(rng.integers(10, 300)), k)
        a, attempt = attempt_at_degree(keys, k, t, heavy, degree, False)
        if not attempt.good[0] or not np.isfinite(attempt.bound[0]):
            continue
        exact = direct_form_in_long_double(keys, k, t)
        allowance = max(16 * k * EPS, 4 * error_of_the_direct_form(keys, k, t, exact))
        assert error(a, exact) <= attempt.bound[0] + allowance, f"t = {t}, k = {k}, m = {heavy}, P = {degree}"
        compared += 1
        far_above_rounding += attempt.bound[0] > 100 * allowance
    assert compared == 1500
    assert far_above_rounding > 1000


# --- rows that pass -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_pass_are_as_exact_as_the_direct_form(dtype: str) -> None:
    """600 rows: within 1e-12 or, float32, 5e-6 of the largest entry, or 4 times the direct form's own error."""
    rng = np.random.default_rng(3)
    floor = 1e-12 if dtype == "float64" else 5e-6
    compared = 0
    for _ in range(3000):
        if compared >= 600:
            break
        t, keys_of = random_case(rng, -2.0, 2.0)
        k, rows = int(rng.integers(2, 50)), int(rng.integers(1, 4))
        n = int(rng.integers(max(128, 4 * k), 500))
        keys = np.stack([keys_of(n, k) for _ in range(rows)]).astype(dtype)
        with api.quiet():
            outcome = driver.forward(keys, np.asarray([[t]]), 1 / t, k, False)
        for row in np.setdiff1d(np.arange(rows), outcome.left):
            exact = direct_form_in_long_double(keys[row], k, t)
            assert outcome.bound[row] <= floor
            found = error(outcome.a[row], exact)
            if found > floor:
                assert found <= 4 * error_of_the_direct_form(keys[row], k, t, exact), f"t = {t}, k = {k}, n = {n}"
            compared += 1
    assert compared >= 600


@pytest.mark.parametrize("gap", [60.0, 88.0, 95.0, 104.0, 300.0])
@pytest.mark.parametrize("t", [1.0, 3.0])
def test_float32_rows_with_one_giant(gap: float, t: float) -> None:
    """Weights of e^-95 are no normal float32; all digits of the others are in them."""
    rng = np.random.default_rng(4)
    keys = rng.gumbel(size=(3, 512)).astype(np.float32)
    keys[:, 7] += np.float32(gap * t)
    cotangent = rng.normal(size=keys.shape).astype(np.float32)
    value, residuals = gt.relaxed_topk.fwd(keys, 4, temperature=t, method="compressed")
    for row in range(3):
        exact = direct_form_in_long_double(keys[row], 4, t)
        np.testing.assert_allclose(value[row], exact.astype(float), rtol=5e-6, atol=1e-35)
    _, reference = gt.relaxed_topk.fwd(keys.astype(np.float64), 4, temperature=t, method="direct")
    expected = gt.relaxed_topk.vjp(reference, cotangent.astype(np.float64))
    found = gt.relaxed_topk.vjp(residuals, cotangent)
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected) + 1e-35


@pytest.mark.parametrize(("depth", "k"), [(300.0, 500), (570.0, 850), (590.0, 870), (620.0, 920)])
def test_items_that_only_late_steps_reach(depth: float, k: int) -> None:
    """Two items share each step until S_1 .. S_j = 2^-j has come down to the e^-depth of all others."""
    keys = np.random.default_rng(5).gumbel(size=4096) - depth
    keys[[7, 9]] = 0.0
    a = gt.relaxed_topk(keys, k, method="compressed")
    exact = direct_form_in_long_double(keys, k, 1.0)
    assert error(a, exact) <= 1e-12


def test_differences_of_keys_beyond_the_range_of_float32() -> None:
    keys = np.repeat(np.asarray([3e38, -3e38], dtype=np.float32), 1000)
    a = gt.relaxed_topk(keys, 5, temperature=1e39, method="compressed")
    np.testing.assert_allclose(a, direct_form_in_long_double(keys, 5, 1e39).astype(float), rtol=5e-6)


def keys_for_bins(rng: np.random.Generator, n: int, case: int) -> Any:
    """Keys in units of the temperature whose heavy items crowd in octaves."""
    strong = rng.permutation(n)[: int(rng.integers(200, 2000))]
    keys = rng.gumbel(size=n)
    match case % 4:
        case 0:
            keys *= 10 ** rng.uniform(-1, 1.5)
        case 1:
            keys = rng.choice(rng.uniform(0, 10 ** rng.uniform(0, 2.5), size=int(rng.integers(3, 200))), size=n)
        case 2:
            keys = -rng.uniform(0, 10 ** rng.uniform(0, 1.7), size=n)
            keys[strong] = rng.uniform(0, rng.uniform(0.1, 6), size=len(strong))
        case 3:
            keys = keys * 10 ** rng.uniform(0, 1.5)
            keys[strong] += rng.choice([0, 1, 2.5, 5, 20], size=len(strong))
    return keys


@pytest.mark.parametrize("t", [0.05, 0.3, 1.0, 5.0])
def test_octave_bins_of_clusters_ties_and_gaps(t: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bins have no proof, only the test of the last terms: what passes it is as exact as the direct form.

    Rows of 4,096 items count as long here.
    """
    monkeypatch.setattr(block, "LONG_ROW", 4096)
    monkeypatch.setattr(driver, "LONG_ROW", 4096)
    made: list[measure.Bins] = []
    bins_of = block.bins_of
    monkeypatch.setattr(block, "bins_of", lambda *arguments: made.append(bins_of(*arguments)) or made[-1])
    rng = np.random.default_rng(6)
    passed, n = 0, 4200
    for case in range(40):
        k = int(rng.integers(64, 150))
        keys, a = t * keys_for_bins(rng, n, case), np.empty((1, n))
        with api.quiet():
            attempt = block.attempt(keys[None], np.asarray([[t]]), 1 / t, k, driver.efforts(n, k)[0], False, a)
        if attempt.good[0] and len(made[-1].binned):
            passed += 1
            assert error(a[0], gt.relaxed_topk(keys, k, temperature=t, method="direct")) <= 1e-12
    assert passed >= 5, "too few rows with bins are left to say anything"
