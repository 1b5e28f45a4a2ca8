"""The direct form in NumPy: against the generic core, as linear maps, and row by row."""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat.numpy as xp
import numpy as np
import pytest

from gumbeltopk import _array_api as api
from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numpy import direct, direct_layouts

TEMPERATURES = (0.03, 0.1, 0.5, 1.0, 5.0)
FLOOR = 1e-3  # of |cotangent| / t: a gradient below is what is left when terms cancel, as for n = k or exact ties


class Derivatives(NamedTuple):
    value: Any
    by_keys: Any
    by_temperature: Any  # (rows, 1)
    tangent: Any


def by_generic_core(keys, temperature, k: int, cotangent, dkeys, dtemperature) -> Derivatives:
    keys, cotangent, dkeys = (array.astype(np.float64) for array in (keys, cotangent, dkeys))
    power = 1.0 / temperature if temperature.shape[0] > 1 else float(1.0 / temperature[0, 0])
    every = generic.checkpoint_interval(k)
    with api.quiet():
        value, trajectory = generic.forward(keys, temperature, power, k, every, xp)
        by_keys, by_temperature = generic.vjp(trajectory, power, k, every, cotangent, False, xp)
        tangent = generic.jvp(trajectory, power, k, every, dkeys, dtemperature, False, xp)
    return Derivatives(value, by_keys, by_temperature, tangent)


def by_direct_core(keys, temperature, k: int, cotangent, dkeys, dtemperature) -> Derivatives:
    value, trajectory = direct.forward(keys, temperature, k, True)
    by_keys, by_temperature = direct.vjp(trajectory, k, cotangent)
    return Derivatives(value, by_keys, by_temperature, direct.jvp(trajectory, k, dkeys, dtemperature))


def one_temperature(t: float) -> np.ndarray:
    return np.full((1, 1), t)


def key_families(n: int, t: float, rows: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    gumbel, noise = rng.gumbel(size=(rows, n)), rng.normal(size=(rows, n)) * t
    items = np.arange(n)
    giant = items == n // 3
    within = rng.uniform(0, t, size=(rows, n))
    return {
        "uniform logits": gumbel + rng.uniform(size=(rows, n)),
        "normal logits": gumbel + 2 * rng.normal(size=(rows, n)),
        "Zipf logits": gumbel - np.log(items + 1.0),
        "ties": np.round(rng.normal(size=(rows, n))),
        "all tied": np.zeros((rows, n)),
        "two clusters": np.where(items < n // 2, 0.0, -30 * t) + within,
        "a few items 30 t ahead": np.where(items < min(4, n - 1), 0.0, -30 * t) + within,
        "giant by 30 t": np.where(giant, 30 * t, noise),
        "giant by 80 t": np.where(giant, 80 * t, noise),
        "ladder": np.broadcast_to(-t * np.minimum(items, 60.0), (rows, n)),
        "steep ladder": np.broadcast_to(-3 * t * np.minimum(items, 20.0), (rows, n)),
    }


def directions(keys: np.ndarray, seed: int = 0, t: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A cotangent, a tangent of the keys, and one of the temperature t."""
    cotangent, dkeys = np.random.default_rng(seed).normal(size=(2, *keys.shape)).astype(keys.dtype)
    return cotangent, dkeys, np.full((1, 1), 0.37 * t)


def norm(array: Any) -> np.ndarray:
    return np.linalg.norm(np.asarray(array, dtype=np.float64), axis=1)


def errors(actual: Derivatives, expected: Derivatives, keys, t: float, cotangent, dkeys) -> Derivatives:
    """Row by row, relative: of the value to its maximum, of the derivatives normwise."""
    size = norm(expected.by_keys)
    by_temperature_scale = np.maximum(size * np.ptp(keys, axis=1), norm(cotangent)) / t
    return Derivatives(
        np.max(np.abs(actual.value - expected.value), axis=1) / np.max(expected.value, axis=1),
        norm(actual.by_keys - expected.by_keys) / np.maximum(size, FLOOR * norm(cotangent) / t),
        np.abs(actual.by_temperature - expected.by_temperature)[:, 0]
        / np.maximum(np.abs(expected.by_temperature[:, 0]), by_temperature_scale),
        norm(actual.tangent - expected.tangent) / np.maximum(norm(expected.tangent), FLOOR * norm(dkeys) / t),
    )


def sensitivity(keys: np.ndarray, t: float, k: int, cotangent, dkeys, dt, draws: int = 3) -> Derivatives:
    """How far the generic core moves, row by row, when the exponents r / t are changed by a rounding unit of float64.

    For beta <= 1 steps do not magnify errors, and no allowance is made: 0. For beta > 1 they do, by up to beta each.
    No core is right to within less: at t = .1 both differ from many digits by as much as from each other.
    """
    if t >= 1:
        return Derivatives(*np.zeros((4, len(keys))))
    given = (one_temperature(t), k, cotangent, dkeys, dt)
    wide = keys.astype(np.float64)
    expected = by_generic_core(wide, *given)
    rng = np.random.default_rng(20)
    moves = []
    for _ in range(draws):
        moved = wide + (np.abs(wide) + t) * 2.0**-52 * rng.choice([-1.0, 1.0], size=wide.shape)
        moves.append(errors(by_generic_core(moved, *given), expected, keys, t, cotangent, dkeys))
    return Derivatives(*np.max(np.asarray(moves), axis=0))


# --- float64 --------------------------------------------------------------------------------------

SIZES = [(1, 1), (2, 2), (7, 1), (7, 2), (7, 7), (100, 2), (100, 9), (100, 50), (100, 100), (1500, 5)]


@pytest.mark.parametrize(("n", "k"), SIZES)
@pytest.mark.parametrize("t", TEMPERATURES)
def test_float64_is_as_the_generic_core(n: int, k: int, t: float) -> None:
    """Value 1e-14, derivatives 1e-13 (1e-11 at t = .03), and for beta > 1 what rounding units may come to."""
    of_derivatives = 1e-11 if t == 0.03 else 1e-13
    for name, keys in key_families(n, t).items():
        cotangent, dkeys, dt = directions(keys, t=t)
        given = (one_temperature(t), k, cotangent, dkeys, dt)
        found = errors(by_direct_core(keys, *given), by_generic_core(keys, *given), keys, t, cotangent, dkeys)
        allowance = sensitivity(keys, t, k, cotangent, dkeys, dt)
        for quantity, bar in zip(Derivatives._fields, (1e-14, *[of_derivatives] * 3), strict=True):
            error, unit = getattr(found, quantity), getattr(allowance, quantity)
            assert np.all(error <= bar + 5 * unit), (name, quantity, error, unit)


def test_exponents_are_not_rounded_far_below_the_largest_key() -> None:
    """After its first step a giant leaves all to items 400 t below: rounded exponents would be off by 400 units."""
    keys = np.random.default_rng(21).normal(size=(20, 30))
    keys[:, 0] = 400.0
    actual, _ = direct.forward(keys, one_temperature(1.0), 3, False)
    with api.quiet():
        expected, _ = generic.forward(keys, one_temperature(1.0), 1.0, 3, None, xp)
    np.testing.assert_allclose(actual, expected, rtol=3e-15)


# --- float32 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(7, 2), (7, 5), (100, 1), (100, 2), (100, 9), (100, 50), (1000, 9), (5000, 50)])
@pytest.mark.parametrize("t", [*TEMPERATURES, 0.7, 2.0, 1e3])
def test_float32_is_close_to_float64_on_the_same_keys(n: int, k: int, t: float) -> None:
    """a to 5e-6 relative wherever it is above 1e-25, the VJP by the keys and the JVP to 1e-6 normwise."""
    for name, family in key_families(n, t, rows=20 if n <= 100 else 3).items():
        keys = family.astype(np.float32)
        cotangent, dkeys, dt = directions(keys, t=t)
        given = (one_temperature(t), k, cotangent, dkeys, dt)
        expected, actual = by_generic_core(keys, *given), by_direct_core(keys, *given)
        assert actual.value.dtype == actual.by_keys.dtype == actual.tangent.dtype == np.float32
        seen = expected.value > 1e-25
        np.testing.assert_allclose(actual.value[seen], expected.value[seen], rtol=5e-6, err_msg=name)
        found = errors(actual, expected, keys, t, cotangent, dkeys)
        allowance = sensitivity(keys, t, k, cotangent, dkeys, dt, draws=1)
        for quantity, bar in (("by_keys", 1e-6), ("tangent", 1e-6), ("by_temperature", 5e-6)):
            error, unit = getattr(found, quantity), getattr(allowance, quantity)
            assert np.all(error <= bar + 5 * unit), (name, quantity, error, unit)


def test_float32_runs_in_float32_where_it_may_and_only_there() -> None:
    keys = np.random.default_rng(0).gumbel(size=(3, 20)).astype(np.float32)
    assert set(direct.ways(keys, one_temperature(1.0), 9)) == {direct.FLOAT32}
    assert set(direct.ways(keys + 1000, one_temperature(1.0), 9)) == {direct.FLOAT32_SHIFTED}
    for t, k, scale in ((0.9, 9, 1), (1.0, 65, 1), (5.0, 25, 1), (1.0, 9, 1000)):
        assert set(direct.ways(keys * np.float32(scale), one_temperature(t), k)) == {direct.FLOAT64}


def test_a_cancelling_vjp_is_made_again_in_float64() -> None:
    """Two items share nearly everything: at beta = 1 their second step does not depend on the keys at all."""
    keys = np.asarray([[0.0, -3.0, -6.0, -9.0, -12.0, -15.0, -18.0]] * 50, dtype=np.float32)
    cotangent = np.random.default_rng(1).normal(size=keys.shape).astype(np.float32)
    narrow = []

    def spy(*arguments: Any) -> Any:
        shrinkage = direct.NUMPY.vjp_block(*arguments)
        if arguments[0].path.dtype == np.float32:
            narrow.append(shrinkage)
        return shrinkage

    _, trajectory = direct.forward(keys, one_temperature(1.0), 3, True)
    gradient, _ = direct.vjp(trajectory, 3, cotangent, kernels=direct.NUMPY._replace(vjp_block=spy))
    again = np.concatenate(narrow) > direct.LARGEST_FLOAT32_SHRINKAGE
    assert again.any()
    _, wide = direct.forward(keys.astype(np.float64), one_temperature(1.0), 3, True)
    expected, _ = direct.vjp(wide, 3, cotangent.astype(np.float64))
    error = norm(gradient - expected) / norm(expected)
    assert np.all(error[again] <= 1e-7)


# --- rows do not know of each other ---------------------------------------------------------------


def mixed_rows(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows of every way, with their temperatures."""
    rng = np.random.default_rng(3)
    keys = rng.gumbel(size=(60, 30))
    keys[1::6] += 1000.0
    keys[2::6, 0] += 60.0
    keys[3::6, 0] += 2000.0  # underflows
    keys[4::6, 5:9] = -np.inf
    temperature = rng.choice([0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 5.0], size=(60, 1))
    return keys.astype(dtype), temperature


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_alone_is_the_row_in_a_batch(dtype) -> None:
    keys, temperature = mixed_rows(dtype)
    cotangent, dkeys, dt = directions(keys)
    together = by_direct_core(keys, temperature, 6, cotangent, dkeys, dt)
    for row in range(len(keys)):
        some = slice(row, row + 1)
        alone = by_direct_core(keys[some], temperature[some], 6, cotangent[some], dkeys[some], dt)
        for whole, own in zip(together, alone, strict=True):
            np.testing.assert_array_equal(own[0], whole[row])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_of_any_size_give_the_same(dtype) -> None:
    keys, temperature = mixed_rows(dtype)
    cotangent, dkeys, dt = directions(keys)
    whole = by_direct_core(keys, temperature, 6, cotangent, dkeys, dt)
    small = direct.NUMPY._replace(rows_in_block=lambda n, k, dtype, derivative: 16)
    value, trajectory = direct.forward(keys, temperature, 6, True, small)
    by_keys, by_temperature = direct.vjp(trajectory, 6, cotangent, True, small)
    cut = Derivatives(value, by_keys, by_temperature, direct.jvp(trajectory, 6, dkeys, dt, small))
    for expected, actual in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("t", [0.3, 1.0, 5.0])
def test_both_layouts_hold_the_same_arithmetic(dtype, tolerance: float, t: float, monkeypatch) -> None:
    """Many short rows lie items first; only the order of the additions differs."""
    keys = np.random.default_rng(4).gumbel(size=(300, 23)).astype(dtype)
    given = (one_temperature(t), 6, *directions(keys))
    items_first = by_direct_core(keys, *given)
    monkeypatch.setattr(direct_layouts, "LARGEST_SHORT_ROW", 0)
    rows_first = by_direct_core(keys, *given)
    found = errors(items_first, rows_first, keys, t, given[2], given[3])
    magnified = 100 if t < 1 else 1  # beta = 3.3 magnifies rounding
    for quantity, scale in zip(found, (1, 10, 10, 10), strict=True):
        assert np.all(quantity <= tolerance * scale * magnified)
    assert any(np.any(a != b) for a, b in zip(items_first, rows_first, strict=True)), "one layout was tested twice"


def test_long_trajectories_are_made_again_in_segments(monkeypatch) -> None:
    keys = np.random.default_rng(5).gumbel(size=(4, 30))
    for t in (0.2, 1.0):
        given = (one_temperature(t), 17, *directions(keys))
        expected = by_direct_core(keys, *given)
        monkeypatch.setattr(direct.direct_kernels, "HISTORY_BYTES", 0)
        actual = by_direct_core(keys, *given)
        monkeypatch.undo()
        np.testing.assert_array_equal(actual.by_keys, expected.by_keys)
        np.testing.assert_array_equal(actual.by_temperature, expected.by_temperature)


def test_long_rows_are_summed_in_parts() -> None:
    """More items than fit in one part, and a rest that is none."""
    keys = np.random.default_rng(6).gumbel(size=(2, 2 * direct_layouts.LONGEST_PART + 902))
    given = (one_temperature(1.0), 4, *directions(keys))
    found = errors(by_direct_core(keys, *given), by_generic_core(keys, *given), keys, 1.0, given[2], given[3])
    for quantity in found:
        assert np.all(quantity <= 1e-13)


# --- what holds of the maps -----------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 2, 6])
def test_vjp_is_the_adjoint_of_jvp(t: float, k: int) -> None:
    """In keys and temperature, rows of all ways: <g, J (dr, dt)> = <J* g, (dr, dt)> to 1e-12 of its terms."""
    keys, _ = mixed_rows(np.float64)
    cotangent, dkeys, _ = directions(keys)
    dt = np.random.default_rng(7).normal(size=(len(keys), 1))
    temperature = np.full((len(keys), 1), t)
    result = by_direct_core(keys, temperature, k, cotangent, dkeys, dt)
    finite = np.isfinite(keys)
    forwards = cotangent * result.tangent
    backwards = np.where(finite, result.by_keys * dkeys, 0.0)
    by_t = result.by_temperature * dt
    gap = np.abs(forwards.sum(axis=1) - backwards.sum(axis=1) - by_t[:, 0])
    spread = np.ptp(np.where(finite, keys, keys.max(axis=1, keepdims=True)), axis=1)
    terms = np.abs(forwards).sum(axis=1) + np.abs(backwards).sum(axis=1) + np.abs(by_t[:, 0])
    assert np.all(gap <= 1e-12 * (terms + norm(result.by_keys) * spread / t + 1 / t))


@pytest.mark.parametrize("t", [0.3, 1.0])
def test_vjp_and_jvp_are_linear(t: float) -> None:
    keys = np.random.default_rng(8).gumbel(size=(4, 12))
    (g1, d1, t1), (g2, d2, t2) = directions(keys, 1), directions(keys, 2)
    _, trajectory = direct.forward(keys, one_temperature(t), 4, True)
    for actual, expected in zip(
        direct.vjp(trajectory, 4, 2 * g1 - 3 * g2),
        (2 * a - 3 * b for a, b in zip(direct.vjp(trajectory, 4, g1), direct.vjp(trajectory, 4, g2), strict=True)),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)
    actual = direct.jvp(trajectory, 4, 2 * d1 - 3 * d2, 2 * t1 - 3 * t2)
    expected = 2 * direct.jvp(trajectory, 4, d1, t1) - 3 * direct.jvp(trajectory, 4, d2, t2)
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


def test_the_vjp_by_the_keys_alone_is_the_same() -> None:
    keys, temperature = mixed_rows(np.float64)
    cotangent, _, _ = directions(keys)
    _, trajectory = direct.forward(keys, temperature, 5, True)
    by_keys, nothing = direct.vjp(trajectory, 5, cotangent, by_temperature=False)
    assert nothing is None
    np.testing.assert_array_equal(by_keys, direct.vjp(trajectory, 5, cotangent)[0])


def test_a_constant_cotangent_has_no_gradient() -> None:
    """The sum of a is k whatever the keys: exactly 0 here, because the constant is taken off first."""
    keys = np.random.default_rng(9).gumbel(size=(5, 40))
    for t in (0.2, 1.0, 4.0):
        _, trajectory = direct.forward(keys, one_temperature(t), 5, True)
        by_keys, by_temperature = direct.vjp(trajectory, 5, np.full(keys.shape, 1e6))
        assert not by_keys.any()
        assert not by_temperature.any()


def test_k_of_1_is_softmax() -> None:
    keys = np.random.default_rng(10).gumbel(size=(4, 50))
    cotangent, _, _ = directions(keys)
    p = np.exp(keys / 0.7) / np.exp(keys / 0.7).sum(axis=1, keepdims=True)
    a, trajectory = direct.forward(keys, one_temperature(0.7), 1, True)
    np.testing.assert_allclose(a, p, rtol=1e-14)
    expected = p * (cotangent - (p * cotangent).sum(axis=1, keepdims=True)) / 0.7
    np.testing.assert_allclose(direct.vjp(trajectory, 1, cotangent)[0], expected, rtol=1e-12, atol=1e-16)


# --- hard rows and odd input ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_underflow_are_as_the_generic_core(dtype) -> None:
    keys = np.asarray([[1500, 0.25, 0, -900], [0.3, 0.2, 0.1, 0], [700, 1, 0, 0.5], [2000, 0, 0, 0]], dtype=dtype)
    given = (one_temperature(1.0), 3, *directions(keys))
    actual, expected = by_direct_core(keys, *given), by_generic_core(keys, *given)
    _, trajectory = direct.forward(keys, one_temperature(1.0), 3, True)
    assert (trajectory.way == direct.GENERIC).tolist() == [True, False, True, True]
    tolerance = 1e-13 if dtype == np.float64 else 2e-6
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_items_of_zero_weight_take_no_part() -> None:
    for dtype, tolerance in ((np.float32, 2e-6), (np.float64, 1e-13)):
        keys = np.asarray([[0.5, -np.inf, 0.1, -0.3], [-np.inf, 3.0, 90.0, 0.0]], dtype=dtype)
        present = np.isfinite(keys)
        cotangent, dkeys, dt = directions(keys)
        for t in (0.4, 1.0):
            result = by_direct_core(keys, one_temperature(t), 2, cotangent, dkeys, dt)
            short = by_direct_core(
                keys[present].reshape(2, 3),
                one_temperature(t),
                2,
                cotangent[present].reshape(2, 3),
                dkeys[present].reshape(2, 3),
                dt,
            )
            for full, own in (
                (result.value, short.value),
                (result.by_keys, short.by_keys),
                (result.tangent, short.tangent),
            ):
                assert not full[~present].any()
                np.testing.assert_allclose(full[present].reshape(2, 3), own, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(result.by_temperature, short.by_temperature, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("t", [1e-3, 0.03, 0.5, 1.0, 5.0, 1e3])
def test_finite_and_of_the_right_sum_for_every_finite_input(dtype, t: float) -> None:
    rng = np.random.default_rng(11)
    tolerance = 1e-13 if dtype == np.float64 else 1e-6
    for scale in (1.0, 700.0, 1e5, 1e30, 1e300 if dtype == np.float64 else 1e37):
        keys = (rng.normal(size=(6, 7)) * scale).astype(dtype)
        keys[1] = 0.0
        keys[2, 1:] = -scale
        cotangent, dkeys, _ = directions(keys)
        for k in (1, 3, 7):
            value, trajectory = direct.forward(keys, one_temperature(t), k, True)
            assert np.all(value >= 0)
            np.testing.assert_allclose(value.sum(axis=1, dtype=np.float64), k, rtol=tolerance)
            assert np.all(np.isfinite(direct.vjp(trajectory, k, cotangent)[0]))
            assert np.all(np.isfinite(direct.jvp(trajectory, k, dkeys, one_temperature(0.0))))


def test_layout_of_the_input_does_not_matter_and_input_is_not_written_to() -> None:
    keys = np.random.default_rng(12).gumbel(size=(6, 9))
    cotangent, dkeys, dt = directions(keys)
    temperature = one_temperature(0.8)
    expected = by_direct_core(keys, temperature, 3, cotangent, dkeys, dt)
    for change in (
        np.asfortranarray,
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda array: array[:, ::-1].copy()[:, ::-1],
    ):
        variants = [change(array) for array in (keys, cotangent, dkeys)]
        before = [variant.copy() for variant in variants]
        for variant in (*variants, temperature):
            variant.flags.writeable = False
        for actual, wanted in zip(
            by_direct_core(variants[0], temperature, 3, *variants[1:], dt), expected, strict=True
        ):
            np.testing.assert_array_equal(actual, wanted)
        for variant, copy in zip(variants, before, strict=True):
            np.testing.assert_array_equal(variant, copy)


def test_no_rows() -> None:
    for dtype in (np.float32, np.float64):
        keys = np.empty((0, 5), dtype=dtype)
        result = by_direct_core(keys, one_temperature(1.0), 2, keys, keys, one_temperature(0.0))
        assert [quantity.shape for quantity in result] == [(0, 5), (0, 5), (0, 1), (0, 5)]


def test_numpys_settings_are_as_before() -> None:
    before = np.geterr(), np.getbufsize()
    keys = np.zeros((2, 3))
    by_direct_core(keys, one_temperature(1.0), 2, *directions(keys))
    assert (np.geterr(), np.getbufsize()) == before


def test_the_trajectory_keeps_no_states() -> None:
    rows, n, k = 4, 500, 60
    _, trajectory = direct.forward(np.random.default_rng(13).gumbel(size=(rows, n)), one_temperature(1.0), k, True)
    assert trajectory._fields[0] == "keys"
    assert sum(array.size for array in trajectory[1:]) <= 1 + rows * (1 + 4 * k)
