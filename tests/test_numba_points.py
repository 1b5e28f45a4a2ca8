"""The compiled loops on weighted points do the same as NumPy's."""

from pathlib import Path

import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk._numpy.compression import linear_recursion
from gumbeltopk._numpy.compression.loops import NUMPY

pytest.importorskip("numba", reason="numba, the extra `numba`, is not installed")

from gumbeltopk._numba import compiling
from gumbeltopk._numba.points import _RUN_ROWS, NUMBA

POWERS = (0.3, 0.5, 1.0, 2.0, 2.5, 12.0, 30.0)


def points(rng, rows, items, nodes, giant):
    """p^1 and weights; the first item, the heaviest, comes to p > 1/2 if it is a giant of 80 or more."""
    p = rng.uniform(0.1, 1.0, size=(rows, items + nodes))
    p[:, 0] = giant
    p[:, items:] *= 0.05
    weights = np.ones_like(p)
    weights[:, items:] = rng.uniform(1.0, 9.0, size=(rows, nodes))
    return p / np.sum(weights * p, axis=1, keepdims=True), weights


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("giant", [1.0, 80.0, 1e12])
@pytest.mark.parametrize("rows", [1, 3])
def test_value_and_vjp_are_the_same(power, giant, rows):
    rng = np.random.default_rng(1)
    p, weights = points(rng, rows, 12, 4, giant)
    numpys, compileds = (loops.run(p.copy(), weights, power, 8, True) for loops in (NUMPY, NUMBA))
    for name in ("total", "states", "log_mass", "slope"):
        expected = getattr(numpys, name)
        np.testing.assert_allclose(getattr(compileds, name), expected, rtol=1e-10, atol=1e-13, err_msg=name)
    columns = linear_recursion.columns(rng.normal(size=(rows, 12)), rng.normal(size=(rows, 4)), weights)
    results = [loops.reverse(numpys.states, weights, columns, power, True) for loops in (NUMPY, NUMBA)]
    for found, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * np.max(np.abs(expected)))


def test_each_row_has_its_own_power_and_does_not_look_at_its_neighbours():
    rng = np.random.default_rng(2)
    p, weights = points(rng, 3, 10, 3, 1.0)
    power = np.asarray([[1.0], [0.5], [3.0]])
    together = NUMBA.run(p, weights, power, 6, False).total
    for row in range(3):
        alone = NUMBA.run(p[row : row + 1], weights[row : row + 1], float(power[row, 0]), 6, False).total
        assert (together[row] == alone[0]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("t", [0.1, 1.0, 3.0])
@pytest.mark.parametrize(("shape", "k"), [((1, 40_000), 100), ((6, 800), 20)])
def test_relaxed_topk_agrees_with_and_without_numba(dtype, t, shape, k):
    rng = np.random.default_rng(3)
    keys, cotangent = rng.gumbel(size=(2, *shape)).astype(dtype)
    results = []
    for wanted in (False, True):
        gt.use_numba(wanted)
        try:
            a, residuals = gt.relaxed_topk.fwd(keys, k, temperature=t, method="compressed")
            gradients = gt.relaxed_topk.vjp(residuals, cotangent, wrt=("keys", "temperature"))
        finally:
            gt.use_numba(None)
        results.append((a, *gradients))
    tolerance = 2e-6 if dtype == "float32" else 1e-11
    (a, by_keys, by_temperature), expected = results
    assert np.linalg.norm(a - expected[0]) <= tolerance * np.linalg.norm(expected[0])
    assert np.linalg.norm(by_keys - expected[1]) <= tolerance * np.linalg.norm(expected[1])
    # The derivative by the temperature is a sum of terms of both signs; rounding is on the scale of the terms.
    terms = np.sum(np.abs(expected[1].astype("float64") * keys)) / t
    assert abs(by_temperature - expected[2]) <= 0.2 * tolerance * terms


def test_loops_compiled_from_other_sources_are_not_found_in_the_cache(tmp_path):
    """numba itself would take a function from its cache though one that it calls, in another file, has changed."""
    for folder in ("_numba", "_numpy", "_generic"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "part.py").write_text("x = 1\n", encoding="utf-8")
    before = compiling.fingerprint(tmp_path)
    assert compiling.fingerprint(tmp_path) == before
    (tmp_path / "_generic" / "part.py").write_text("x = 2\n", encoding="utf-8")
    assert compiling.fingerprint(tmp_path) != before
    NUMBA.run(np.asarray([[0.5, 0.3, 0.2]]), np.ones((1, 3)), 1.0, 2, False)
    names = [path.name for path in Path(_RUN_ROWS.stats.cache_path).glob("*.nbi")]
    assert any("_run_rows_" + compiling.SOURCES in name for name in names)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_bad_cotangent_does_not_vanish(bad):
    keys, cotangent = np.random.default_rng(4).gumbel(size=(1, 200)), np.ones((1, 200))
    cotangent[0, 3] = bad
    gt.use_numba(True)
    try:
        _, residuals = gt.relaxed_topk.fwd(keys, 5, method="direct")
        gradient = gt.relaxed_topk.vjp(residuals, cotangent)
    finally:
        gt.use_numba(None)
    assert np.isnan(gradient).any()
