"""Inclusion probabilities of pairs whose weights are far apart: against exact counts of two classes; and their cost."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as numpy_xp
import mpmath
import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from gumbeltopk._generic import joint_inclusion as generic
from gumbeltopk._numpy import joint_inclusion as native
from tests._reference import two_classes

# --- two classes ----------------------------------------------------------------------------------


def relative_error(value: Any, exact: Any) -> float:
    return float(abs(mpmath.mpf(float(value)) / exact - 1)) if exact > 0 else float(abs(value))


@pytest.mark.parametrize("gap", [3.0, 7.5, 30.0, 140.0])
@pytest.mark.parametrize(("n", "k"), [(50, 47), (50, 25), (40, 37), (80, 3)])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_pairs_across_a_gap(gap: float, n: int, k: int, more: int) -> None:
    """As many heavy items as are drawn, one less and one more: relative errors 1e-12, also of 1e-120."""
    heavy = k + more
    log_weights = np.where(np.arange(n) < heavy, gap, 0.0)
    exact = two_classes(n, heavy, k, gap)
    matrix = gt.joint_inclusion_probabilities(log_weights, k)
    pairs = {"two heavy": (0, 1), "two light": (n - 2, n - 1), "both": (0, n - 1), "heavy": (0, 0), "light": (-1, -1)}
    values = gt.joint_inclusion_probabilities(log_weights, k, pairs=[(i % n, j % n) for i, j in pairs.values()])
    for (name, (i, j)), value in zip(pairs.items(), values, strict=True):
        assert relative_error(matrix[i, j], exact[name]) <= 1e-12
        assert relative_error(value, exact[name]) <= 1e-12


# --- several gaps ---------------------------------------------------------------------------------


def far_apart(name: str, n: int) -> Any:
    levels = np.random.default_rng(4).permutation(np.arange(n) % 3)
    return {
        "ladder of 1": -1.0 * np.arange(n),
        "ladder of 8": -8.0 * np.arange(n),
        "ladder of 20": -20.0 * np.arange(n),
        "three levels": np.asarray([0.0, -5.0, -15.0])[levels],
        "three levels, spread": np.asarray([0.0, -9.0, -40.0])[levels] + 3 * np.random.default_rng(5).normal(size=n),
    }[name]


@pytest.mark.parametrize("name", ["ladder of 1", "ladder of 8", "ladder of 20", "three levels", "three levels, spread"])
@pytest.mark.parametrize(("n", "k"), [(14, 2), (14, 5), (14, 13), (18, 9)])
@pytest.mark.parametrize("selected", [False, True], ids=["all pairs", "selected pairs"])
def test_contour_integrals_and_dynamic_programming_agree_across_gaps(
    name: str, n: int, k: int, selected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values 1e-12 entry by entry, tangents 1e-12 of the probability, gradients 1e-12 normwise."""
    monkeypatch.setattr(native, "SMALLEST_WORK", 0)
    rng = np.random.default_rng(6)
    rows = far_apart(name, n)[None, :]
    pairs = np.stack(np.triu_indices(n, 1), axis=-1)[::3] if selected else None
    u, g = rng.normal(size=(1, n)), rng.normal(size=(1, len(pairs)) if selected else (1, n, n))
    with api.quiet():
        value, expected = (core.probabilities(rows, k, pairs, numpy_xp) for core in (native, generic))
        tangent, other = (core.jvp(rows, k, u, pairs, numpy_xp) for core in (native, generic))
        gradient, same = (core.vjp(rows, k, g, pairs, numpy_xp) for core in (native, generic))
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-290)
    assert np.all(np.abs(tangent - other) <= 1e-12 * expected + 1e-290)
    assert np.linalg.norm(gradient - same) <= 1e-12 * np.linalg.norm(same)


# --- cost -----------------------------------------------------------------------------------------


def test_rows_of_more_than_a_few_items_are_never_counted_for_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamic programming of 140 items, 70 of them drawn, would take a minute: whatever the weights, it is not used."""

    def refuse(*args: Any) -> None:
        raise AssertionError("dynamic programming")

    monkeypatch.setattr(generic, "integrate", refuse)
    for log_weights, pairs in ((np.where(np.arange(60) < 30, 30.0, 0.0), None), (-8.0 * np.arange(60), [[0, 59]])):
        _, residuals = gt.joint_inclusion_probabilities.fwd(log_weights, 30, pairs=pairs)
        gt.joint_inclusion_probabilities.jvp(residuals, np.ones(60))
        gt.joint_inclusion_probabilities.vjp(residuals, np.ones((60, 60) if pairs is None else 1))


def test_few_pairs_take_away_only_their_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pairs of 40 items: three rows without an item, six for the gradient, and not forty."""
    rows = []
    original = generic.integrate
    monkeypatch.setattr(
        generic, "integrate", lambda nodes, *rest: rows.append(len(nodes.left)) or original(nodes, *rest)
    )
    log_weights, pairs = np.random.default_rng(7).normal(size=(1, 40)), np.asarray([[0, 1], [39, 3], [5, 5]])
    generic.probabilities(log_weights, 3, pairs, numpy_xp)
    generic.jvp(log_weights, 3, log_weights, pairs, numpy_xp)
    generic.vjp(log_weights, 3, np.ones((1, 3)), pairs, numpy_xp)
    assert rows == [3, 3, 6]


@pytest.mark.parametrize("number", [2, 5, 40], ids=["few", "half as many as items", "more than items"])
def test_selected_pairs_are_entries_of_the_matrix_however_many(number: int, to_xp, assert_close) -> None:
    rng = np.random.default_rng(8)
    log_weights, pairs = rng.normal(size=(2, 8)), rng.integers(0, 8, size=(number, 2))
    if number == 5:
        pairs = np.asarray([[0, 1], [1, 0], [4, 4], [5, 2], [0, 1]])
    matrix, of_matrix = gt.joint_inclusion_probabilities.fwd(log_weights, 3)
    value, residuals = gt.joint_inclusion_probabilities.fwd(to_xp(log_weights), 3, pairs=to_xp(pairs))
    assert_close(value, matrix[:, pairs[:, 0], pairs[:, 1]], rtol=1e-12)
    u, v = rng.normal(size=(2, 8)), rng.normal(size=(2, number))
    tangent = gt.joint_inclusion_probabilities.jvp(of_matrix, u)[:, pairs[:, 0], pairs[:, 1]]
    assert_close(gt.joint_inclusion_probabilities.jvp(residuals, to_xp(u)), tangent, rtol=0, atol=1e-13)
    cotangent = np.zeros((2, 8, 8))
    np.add.at(cotangent, (slice(None), pairs[:, 0], pairs[:, 1]), v)
    gradient = gt.joint_inclusion_probabilities.vjp(of_matrix, cotangent)
    assert_close(gt.joint_inclusion_probabilities.vjp(residuals, to_xp(v)), gradient, rtol=0, atol=1e-13)


def test_one_draw_of_a_million_items_has_no_pairs() -> None:
    """k = 1: pi of single items on the diagonal, 0 elsewhere."""
    n = 1_000_000
    value, residuals = gt.joint_inclusion_probabilities.fwd(np.zeros(n), 1, pairs=[[3, 3], [3, 4]])
    np.testing.assert_allclose(value, [1 / n, 0.0], rtol=1e-12)
    gradient = gt.joint_inclusion_probabilities.vjp(residuals, np.asarray([1.0, 5.0]))
    np.testing.assert_allclose(gradient[[3, 4]], [(n - 1) / n**2, -1 / n**2], rtol=1e-9)


def test_no_pairs(to_xp, assert_close) -> None:
    value, residuals = gt.joint_inclusion_probabilities.fwd(
        to_xp(np.zeros(4)), 2, pairs=to_xp(np.zeros((0, 2), dtype=int))
    )
    assert_close(value, np.zeros(0))
    assert_close(gt.joint_inclusion_probabilities.jvp(residuals, to_xp(np.ones(4))), np.zeros(0))
    assert_close(gt.joint_inclusion_probabilities.vjp(residuals, to_xp(np.zeros(0))), np.zeros(4))
