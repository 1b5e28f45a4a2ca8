"""The public gradient checks find the errors that people make, and leave correct operators alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk.operator import Facts, Operator, operator

# --- a complete operator of a user, in plain array code for every library ---------------------------------------------
#
# A smooth step s = (1 + tanh(x / 2t)) / 2, entry by entry, by x and by the temperature t:
#     ds = s (1 - s) (dx / t - x dt / t^2).


def _example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.normal(size=(2, 3)),), {"temperature": 0.7}


@operator(Facts(differentiable=("x", "temperature"), range="0 < s < 1"), _example)
def smooth_step(x: Any, *, temperature: Any = 1.0) -> Any:
    """A smooth step from 0 to 1, as wide as the temperature."""
    xp = array_api_compat.array_namespace(x)
    return 0.5 * (1.0 + xp.tanh(x / (2.0 * temperature)))


@smooth_step.fwd_rule
def fwd(x: Any, *, temperature: Any = 1.0) -> tuple[Any, gt.Residuals]:
    value = smooth_step(x, temperature=temperature)
    slope = value * (1.0 - value) / temperature  # ds / dx
    shapes = (
        ("x", tuple(x.shape), x.dtype),
        ("temperature", np.shape(temperature), x.dtype),
        ("result", tuple(value.shape), value.dtype),
    )
    return value, gt.Residuals("smooth_step", (slope, -slope * x / temperature), None, shapes)


@smooth_step.jvp_rule
def jvp(residuals: gt.Residuals, tangents: Any) -> Any:
    by_x, by_temperature = residuals.arrays
    derivative = 0.0 * by_x
    if "x" in tangents:
        derivative = derivative + by_x * tangents["x"]
    if "temperature" in tangents:
        derivative = derivative + by_temperature * tangents["temperature"]
    return derivative


@smooth_step.vjp_rule
def vjp(residuals: gt.Residuals, cotangent: Any, wrt: tuple[str, ...]) -> Any:
    by_x, by_temperature = residuals.arrays
    xp = array_api_compat.array_namespace(by_x)
    return {"x": by_x * cotangent, "temperature": xp.sum(by_temperature * cotangent)}


POINT = np.asarray([[0.3, -1.2, 0.8], [2.0, 0.1, -0.4]])
T = 0.7
SLOPE = 1.0 / (4.0 * T * np.cosh(POINT / (2.0 * T)) ** 2)  # ds / dx again, another way

CHECKS = (gt.testing.check_operator, gt.testing.check_jvp, gt.testing.check_vjp, gt.testing.check_adjoint)


def with_rules(**rules: Callable[..., Any]) -> Operator[Any]:
    """The smooth step with some of its rules replaced."""
    wrong = Operator(smooth_step.value, smooth_step.facts, smooth_step.example)
    for name, rule in ({"fwd": fwd, "jvp": jvp, "vjp": vjp} | rules).items():
        getattr(wrong, f"{name}_rule")(rule)
    return wrong


def disagreement(check: Any, op: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check(op, *args, **kwargs)
    return str(caught.value)


def numbers_in(message: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+(?:e[+-]?\d+)?", message)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("temperature", [0.7, "array"])
def test_a_correct_operator_passes_in_every_library(to_xp, check, dtype: str, temperature: Any) -> None:
    temperature = to_xp(0.7, dtype) if temperature == "array" else temperature
    check(smooth_step, to_xp(POINT, dtype), temperature=temperature)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_correct_operator_passes_in_half_precision(check) -> None:
    check(smooth_step, POINT.astype(np.float16), temperature=np.float16(0.7))


# --- planted errors -------------------------------------------------------------------------------


def test_wrong_sign(to_xp) -> None:
    """The direction is shown, and both numbers: what is claimed, and its negative."""
    wrong = with_rules(jvp=lambda residuals, tangents: -jvp(residuals, tangents))
    for check in (gt.testing.check_jvp, gt.testing.check_operator, gt.testing.check_adjoint):
        message = disagreement(check, wrong, to_xp(POINT), temperature=T)
        claimed, measured = numbers_in(message)[:2]
        assert message.startswith("smooth_step")
        assert claimed == pytest.approx(-measured, rel=1e-7)
        assert re.search(r"along (coordinate \[\d, \d\]|random (direction|pair) \d of seed 0): ", message)


def test_missing_factor(to_xp) -> None:
    """The entry along a coordinate is the slope there, claimed with a factor that should not be."""
    wrong = with_rules(jvp=lambda residuals, tangents: T * jvp(residuals, tangents))
    message = disagreement(gt.testing.check_jvp, wrong, to_xp(POINT), temperature=T)
    claimed, measured = numbers_in(message)[:2]
    assert claimed == pytest.approx(T * measured, rel=1e-7)
    where = re.match(r"smooth_step.jvp by x is wrong along coordinate \[(\d), (\d)\]: entry \[\1, \2\] is", message)
    assert where is not None
    assert measured == pytest.approx(SLOPE[int(where[1]), int(where[2])], rel=1e-7)


def test_missing_factor_in_both_derivatives_is_not_seen_by_adjointness_alone() -> None:
    wrong = with_rules(
        jvp=lambda residuals, tangents: T * jvp(residuals, tangents),
        vjp=lambda residuals, cotangent, wrt: {
            name: T * gradient for name, gradient in vjp(residuals, cotangent, wrt).items()
        },
    )
    gt.testing.check_adjoint(wrong, POINT, temperature=T)
    assert "jvp by x is wrong" in disagreement(gt.testing.check_operator, wrong, POINT, temperature=T)
    assert "vjp by x is wrong" in disagreement(gt.testing.check_vjp, wrong, POINT, temperature=T)


@operator(Facts(differentiable=("x",), range="all real numbers"), lambda rng: ((rng.normal(size=4),), {}))
def running_sum(x: Any) -> Any:
    """Sum of the entries up to each one; the adjoint sums from each one on."""
    return np.cumsum(x)


@running_sum.fwd_rule
def _running_sum_fwd(x: Any) -> tuple[Any, gt.Residuals]:
    return np.cumsum(x), gt.Residuals(
        "running_sum", (x,), None, (("x", x.shape, x.dtype), ("result", x.shape, x.dtype))
    )


@running_sum.jvp_rule
def _running_sum_jvp(residuals: gt.Residuals, tangents: Any) -> Any:
    return np.cumsum(tangents["x"])


@pytest.mark.parametrize("check", [gt.testing.check_vjp, gt.testing.check_adjoint, gt.testing.check_operator])
def test_vjp_that_is_not_the_adjoint(check) -> None:
    """J^T is a sum from behind; J itself is not symmetric."""
    running_sum.vjp_rule(lambda residuals, cotangent, wrt: {"x": np.cumsum(cotangent[::-1])[::-1]})
    check(running_sum, np.asarray([1.0, -2.0, 0.5, 3.0]))
    running_sum.vjp_rule(lambda residuals, cotangent, wrt: {"x": np.cumsum(cotangent)})
    message = disagreement(check, running_sum, np.asarray([1.0, -2.0, 0.5, 3.0]))
    assert message.startswith("running_sum")
    assert ("not adjoint" in message) == (check is not gt.testing.check_vjp)
    assert "<J^T v, u> is" in message


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_wrong_temperature_gradient(to_xp, check) -> None:
    """t^2 forgotten once. The message names the temperature, not x."""

    def without_t(residuals: gt.Residuals, cotangent: Any, wrt: tuple[str, ...]) -> Any:
        right = vjp(residuals, cotangent, wrt)
        return {**right, "temperature": right["temperature"] * T}

    wrong = with_rules(vjp=without_t)
    if check is gt.testing.check_jvp:
        check(wrong, to_xp(POINT), temperature=T)
        return
    message = disagreement(check, wrong, to_xp(POINT), temperature=T)
    assert "by temperature" in message
    claimed, measured = numbers_in(message)[:2]
    if check is gt.testing.check_vjp:
        assert claimed == pytest.approx(T * measured, rel=1e-7)


def one_entry_off(index: Any, factor: float) -> Callable[..., Any]:
    def off(residuals: gt.Residuals, tangents: Any) -> Any:
        derivative = np.array(jvp(residuals, tangents))
        derivative[index] *= factor
        return derivative

    return off


@pytest.mark.parametrize("index", [(0, 0), (1, 2)])
@pytest.mark.parametrize("factor", [0.0, 1.001, 1.0 + 1e-6])
def test_error_in_one_coordinate_only(index: tuple[int, int], factor: float) -> None:
    wrong = with_rules(jvp=one_entry_off(index, factor))
    for check in (gt.testing.check_jvp, gt.testing.check_adjoint):
        disagreement(check, wrong, POINT, temperature=T)
    message = disagreement(gt.testing.check_jvp, wrong, POINT, temperature=T)
    assert f"entry {list(index)} is" in message
    claimed, measured = numbers_in(message)[:2]
    assert claimed == pytest.approx(factor * measured, rel=1e-7, abs=1e-12)


def test_the_direction_of_the_worst_error_is_shown() -> None:
    """Two gradient entries are wrong; along coordinates alone the larger error is at [1, 0]."""

    def off(residuals: gt.Residuals, cotangent: Any, wrt: tuple[str, ...]) -> Any:
        right = vjp(residuals, cotangent, wrt)
        return {**right, "x": right["x"] + np.asarray([[0.0, 1e-5, 0.0], [1e3, 0.0, 0.0]]) * cotangent}

    message = disagreement(gt.testing.check_vjp, with_rules(vjp=off), POINT, temperature=T)
    found = re.search(r"along (coordinate \[1, 0\]|random direction \d of seed 0): <J\^T v, u> is", message)
    assert found is not None
    claimed, measured = numbers_in(message)[:2]
    assert abs(claimed - measured) >= 1e3


def test_error_in_one_of_many_coordinates() -> None:
    """Too many entries to go through one by one: the random directions move all of them."""
    point = np.random.default_rng(0).normal(size=200)
    gt.testing.check_operator(smooth_step, point, temperature=T)
    wrong = with_rules(jvp=one_entry_off(137, 1.0 + 1e-4))
    message = disagreement(gt.testing.check_jvp, wrong, point, temperature=T)
    assert "along random direction" in message
    assert "entry [137]" in message


@pytest.mark.parametrize("change", [1e-9, 1.0, np.nan])
def test_fwd_with_another_value(change: float) -> None:
    def other_value(x: Any, *, temperature: Any = 1.0) -> Any:
        value, residuals = fwd(x, temperature=temperature)
        value = value.copy()
        value[0, 1] += change
        return value, residuals

    message = disagreement(gt.testing.check_operator, with_rules(fwd=other_value), POINT, temperature=T)
    assert "smooth_step: fwd returns another value than the plain call: entry [0, 1] is" in message


def test_fwd_with_another_shape_or_dtype() -> None:
    for change, words in (
        (lambda value: value[0], r"float64 of shape (3,), but the plain call float64 of shape (2, 3)"),
        (lambda value: value.astype(np.float32), r"float32 of shape (2, 3), but the plain call float64"),
    ):

        def other_form(x: Any, *, temperature: Any = 1.0, change: Any = change) -> Any:
            value, residuals = fwd(x, temperature=temperature)
            return change(value), residuals

        assert words in disagreement(gt.testing.check_operator, with_rules(fwd=other_form), POINT, temperature=T)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_in_a_derivative(bad: float) -> None:
    """In one entry, and also where its factor in an inner product is 0."""
    in_jvp = with_rules(jvp=one_entry_off((1, 1), bad))
    for check in (gt.testing.check_jvp, gt.testing.check_adjoint, gt.testing.check_operator):
        assert re.search("nan|inf", disagreement(check, in_jvp, POINT, temperature=T))

    def bad_vjp(residuals: gt.Residuals, cotangent: Any, wrt: tuple[str, ...]) -> Any:
        right = vjp(residuals, cotangent, wrt)
        gradient = right["x"].copy()
        gradient[1, 1] = bad
        return {**right, "x": gradient}

    for check in (gt.testing.check_vjp, gt.testing.check_adjoint, gt.testing.check_operator):
        message = disagreement(check, with_rules(vjp=bad_vjp), POINT, temperature=T)
        assert "by x" in message
        assert re.search("nan|inf", message)


def test_a_rule_that_forgets_the_second_of_two_arguments() -> None:
    """Each argument alone is right; both at once are not."""

    def first_only(residuals: gt.Residuals, tangents: Any) -> Any:
        name = next(iter(tangents))
        return jvp(residuals, {name: tangents[name]})

    wrong = with_rules(jvp=first_only)
    gt.testing.check_jvp(wrong, POINT, temperature=T)
    message = disagreement(gt.testing.check_operator, wrong, POINT, temperature=T)
    assert "jvp and vjp by x, temperature are not adjoint" in message


def test_shapes_that_would_broadcast() -> None:
    """A gradient for each entry where there is one temperature; a number instead of a vector."""
    by_entry = with_rules(
        vjp=lambda residuals, cotangent, wrt: {
            "x": residuals.arrays[0] * cotangent,
            "temperature": residuals.arrays[1] * cotangent,
        }
    )
    message = disagreement(gt.testing.check_vjp, by_entry, POINT, temperature=T)
    assert message == "smooth_step.vjp by temperature has the shape (2, 3) instead of ()"
    number = with_rules(jvp=lambda residuals, tangents: np.sum(jvp(residuals, tangents)))
    message = disagreement(gt.testing.check_jvp, number, POINT, temperature=T)
    assert message == "smooth_step.jvp by x has the shape () instead of (2, 3)"


def test_errors_in_this_package_would_be_found(to_xp) -> None:
    """The relaxed top-k without the last step of its recursion in the VJP."""
    wrong = Operator(gt.relaxed_topk.value, gt.relaxed_topk.facts, gt.relaxed_topk.example)
    wrong.fwd_rule(gt.relaxed_topk.fwd)
    wrong.jvp_rule(gt.relaxed_topk._jvp)
    keys = np.asarray([0.3, 0.9, -0.2, 0.1])
    _, one_less = gt.relaxed_topk.fwd(to_xp(keys), 2, temperature=0.5)
    wrong.vjp_rule(lambda residuals, cotangent, wrt: gt.relaxed_topk._vjp(one_less, cotangent, wrt))
    gt.testing.check_jvp(wrong, to_xp(keys), 3, temperature=0.5)
    assert "vjp by keys" in disagreement(gt.testing.check_vjp, wrong, to_xp(keys), 3, temperature=0.5)
    assert "not adjoint" in disagreement(gt.testing.check_adjoint, wrong, to_xp(keys), 3, temperature=0.5)


# --- tolerances -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "passes", "fails"), [("float64", 1e-9, 1e-7), ("float32", 5e-6, 1e-4), ("float16", 5e-3, 0.1)]
)
def test_tolerance_follows_the_dtype(dtype: str, passes: float, fails: float) -> None:
    point = POINT.astype(dtype)
    scaled = {
        error: with_rules(jvp=lambda residuals, tangents, error=error: jvp(residuals, tangents) * (1.0 + error))
        for error in (passes, fails)
    }
    gt.testing.check_jvp(scaled[passes], point, temperature=T)
    disagreement(gt.testing.check_jvp, scaled[fails], point, temperature=T)


def test_rtol_replaces_the_tolerance() -> None:
    wrong = with_rules(jvp=lambda residuals, tangents: 1.05 * jvp(residuals, tangents))
    gt.testing.check_jvp(wrong, POINT, temperature=T, rtol=0.1)
    disagreement(gt.testing.check_jvp, wrong, POINT, temperature=T, rtol=0.01)
    gt.testing.check_adjoint(wrong, POINT, temperature=T, rtol=0.1)
    disagreement(gt.testing.check_adjoint, wrong, POINT, temperature=T, rtol=0.0)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_tolerance_is_relative_to_the_derivative(size: float) -> None:
    """Small derivatives are not waved through, large ones not turned down."""
    right, wrong = (scaled_sine(size, error) for error in (0.0, 1e-6))
    gt.testing.check_operator(right, np.asarray([0.3, 0.7]))
    disagreement(gt.testing.check_jvp, wrong, np.asarray([0.3, 0.7]))
    disagreement(gt.testing.check_vjp, wrong, np.asarray([0.3, 0.7]))


# --- points where differences are hard ------------------------------------------------------------


def entrywise(function: Callable[[Any], Any], derivative: Callable[[Any], Any], error: float) -> Operator[Any]:
    """An operator on each entry, whose derivatives are wrong by a relative `error`."""

    @operator(Facts(differentiable=("x",), range="all real numbers"), lambda rng: ((rng.normal(size=3),), {}))
    def entries(x: Any) -> Any:
        return function(x)

    @entries.fwd_rule
    def _fwd(x: Any) -> tuple[Any, gt.Residuals]:
        slope = derivative(x) * (1.0 + error)
        return function(x), gt.Residuals(
            "entries", (slope,), None, (("x", x.shape, x.dtype), ("result", x.shape, x.dtype))
        )

    entries.jvp_rule(lambda residuals, tangents: residuals.arrays[0] * tangents["x"])
    entries.vjp_rule(lambda residuals, cotangent, wrt: {"x": residuals.arrays[0] * cotangent})
    return entries


def scaled_sine(size: float, error: float) -> Operator[Any]:
    return entrywise(lambda x: size * np.sin(x), lambda x: size * np.cos(x), error)


def logarithm(x: Any) -> Any:
    if np.any(x <= 0):
        raise ValueError("x must be positive")
    return np.log(x)


HARD_POINTS = {
    "square of 1e30": (lambda x: x**2, lambda x: 2 * x, [1e30, 1.0, 0.0]),
    "cube of 1e-20": (lambda x: x**3, lambda x: 3 * x**2, [1e-20, 3e-20]),
    "logarithm at both ends of its domain": (logarithm, lambda x: 1 / x, [1e30, 1.0, 1e-30]),
    "next to overflow": (np.exp, np.exp, [700.0, 1.0, -700.0]),
    "saturated": (np.tanh, lambda x: 1 / np.cosh(x) ** 2, [0.0, 1e-9, 20.0, 300.0]),
    "fine ripples": (lambda x: x + 1e-3 * np.sin(1e6 * x), lambda x: 1 + 1e3 * np.cos(1e6 * x), [0.3, 0.7, 0.0]),
    "a bump that every long step jumps over": (
        lambda x: (x - 0.3) * np.exp(-((1e7 * (x - 0.3)) ** 2)),
        lambda x: np.exp(-((1e7 * (x - 0.3)) ** 2)) * (1 - 2 * (1e7 * (x - 0.3)) ** 2),
        [0.3, 0.3 + 1e-8],
    ),
}


@pytest.mark.parametrize("name", HARD_POINTS)
def test_hard_points(name: str) -> None:
    """The right derivative passes; one that is wrong by 1e-6 does not."""
    function, derivative, point = HARD_POINTS[name]
    gt.testing.check_operator(entrywise(function, derivative, 0.0), np.asarray(point))
    for check in (gt.testing.check_jvp, gt.testing.check_vjp):
        disagreement(check, entrywise(function, derivative, 1e-6), np.asarray(point))


@pytest.mark.parametrize(
    ("name", "function", "derivative", "error"),
    [
        ("wave", lambda x: 1e8 + np.sin(x), np.cos, 1e-3),
        (
            "bump",  # long steps show a constant, with less uncertainty than short ones show the bump
            lambda x: 1e3 + (x - 0.3) * np.exp(-((1e7 * (x - 0.3)) ** 2)),
            lambda x: np.exp(-((1e7 * (x - 0.3)) ** 2)) * (1 - 2 * (1e7 * (x - 0.3)) ** 2),
            0.1,
        ),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_small_changes_on_a_large_value(name: str, function: Any, derivative: Any, error: float) -> None:
    """Next to 1e8 eight digits of sin x are lost: the tolerance widens by what is lost, and no further."""
    gt.testing.check_operator(entrywise(function, derivative, 0.0), np.asarray([0.3]))
    disagreement(gt.testing.check_jvp, entrywise(function, derivative, error), np.asarray([0.3]))


@pytest.mark.parametrize("claim", [0.0, 1e-9])
def test_derivative_of_a_constant(claim: float) -> None:
    constant = entrywise(np.ones_like, lambda x: np.full_like(x, claim), 0.0)
    if claim == 0.0:
        gt.testing.check_operator(constant, np.asarray([1.0, 2.0]))
    else:
        disagreement(gt.testing.check_jvp, constant, np.asarray([1.0, 2.0]))


KEYS = {
    "ordinary": lambda t: np.asarray([0.4, -1.1, 2.0, 0.3]),
    "all within t": lambda t: np.asarray([0.4, -1.1, 2.0, 0.3]) * t,
    "pairs that no long step can tell apart": lambda t: np.asarray([0.0, 0.3 * t, 1.0, 1.0 + 0.2 * t, -2.0]),
    "gaps of 700 t": lambda t: np.asarray([0.0, 0.3 * t, -700.0 * t, -701.0 * t]),
    "all tied": lambda t: np.zeros(4),
    "1e30": lambda t: 1e30 * np.asarray([1.0, -0.5, 0.2]),
}
# At t = 1 and keys of 1e30 the value jumps (the second step is a tie there): see the test of what cannot be told.
LOW_AND_HIGH = [(name, t) for name in KEYS for t in (1e-6, 1e-3, 0.03, 1.0, 1e3, 1e9) if (name, t) != ("1e30", 1.0)]


def with_flat_jvp(op: Operator[Any]) -> Operator[Any]:
    """The same operator, claiming that nothing changes the value."""
    flat = Operator(op.value, op.facts, op.example)
    flat.fwd_rule(op.fwd)
    flat.jvp_rule(lambda residuals, tangents: 0.0 * op._jvp(residuals, tangents))
    return flat


@pytest.mark.parametrize(("name", "t"), LOW_AND_HIGH)
def test_relaxed_topk_passes_at_every_temperature(name: str, t: float) -> None:
    gt.testing.check_operator(gt.relaxed_topk, KEYS[name](t), 2, temperature=t)


@pytest.mark.parametrize("t", [1e-6, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", ["all within t", "pairs that no long step can tell apart", "gaps of 700 t"])
def test_a_flat_derivative_passes_at_no_temperature(name: str, t: float) -> None:
    """Near ties the value is as good as constant over every step of more than a few temperatures."""
    disagreement(gt.testing.check_jvp, with_flat_jvp(gt.relaxed_topk), KEYS[name](t), 2, temperature=t)


def steep_in_one_of_two(claim: float) -> Operator[Any]:
    """1e6 sin x, by x and by a y that changes nothing; the derivative by y is claimed to be `claim`."""

    @operator(Facts(differentiable=("x", "y"), range="|value| <= 1e6"), lambda rng: ((rng.normal(), 1.0), {}))
    def steep(x: Any, y: Any) -> Any:
        return 1e6 * np.sin(x)

    @steep.fwd_rule
    def _fwd(x: Any, y: Any) -> tuple[Any, gt.Residuals]:
        shapes = (("x", x.shape, x.dtype), ("y", y.shape, y.dtype), ("result", x.shape, x.dtype))
        return steep(x, y), gt.Residuals("steep", (1e6 * np.cos(x), np.full_like(y, claim)), None, shapes)

    @steep.jvp_rule
    def _jvp(residuals: gt.Residuals, tangents: Any) -> Any:
        slopes = dict(zip("xy", residuals.arrays, strict=True))
        return sum(slopes[name] * tangent for name, tangent in tangents.items())

    @steep.vjp_rule
    def _vjp(residuals: gt.Residuals, cotangent: Any, wrt: tuple[str, ...]) -> Any:
        return {name: slope * cotangent for name, slope in zip("xy", residuals.arrays, strict=True)}

    return steep


def test_rounding_of_large_terms_that_cancel_is_no_error() -> None:
    """Terms of 1e6 that cancel leave 1e-10, where differences of a value of 0 show an exact 0."""
    point = np.zeros(1), np.ones(1)
    gt.testing.check_operator(steep_in_one_of_two(1e-10), *point)
    assert "jvp by y is wrong" in disagreement(gt.testing.check_jvp, steep_in_one_of_two(1e-5), *point)
    assert "vjp by y is wrong" in disagreement(gt.testing.check_vjp, steep_in_one_of_two(1e-5), *point)


def test_steps_do_not_leave_the_domain() -> None:
    """Temperatures of 1e-3 and 1e3 in one call, at which one step for both would make the first one negative."""
    keys = np.asarray([[1e-3, 2e-3, 0.0], [0.5, 1.0, -1.0]])
    gt.testing.check_operator(gt.relaxed_topk, keys, 2, temperature=np.asarray([1e-3, 1e3]))


def test_items_of_zero_weight_do_not_move() -> None:
    gt.testing.check_operator(gt.relaxed_topk, [0.5, -np.inf, 0.1, -0.3], 2)
    gt.testing.check_operator(gt.subset_logpmf, [0.5, -np.inf, 0.1, -0.3], [[0, 2], [0, 3]])


def test_an_infinite_value_has_no_derivative_to_check() -> None:
    """log p = -inf in the second row; the first one is checked all the same."""
    arguments = ([0.5, -np.inf, 0.1, -0.3], [[0, 2], [0, 1]])
    gt.testing.check_operator(gt.ordered_logpmf, *arguments)
    wrong = Operator(gt.ordered_logpmf.value, gt.ordered_logpmf.facts, gt.ordered_logpmf.example)
    wrong.fwd_rule(gt.ordered_logpmf.fwd)
    wrong.jvp_rule(lambda residuals, tangents: 2.0 * gt.ordered_logpmf._jvp(residuals, tangents))
    assert "entry [0]" in disagreement(gt.testing.check_jvp, wrong, *arguments)


@pytest.mark.parametrize(("shape", "k"), [((0,), 0), ((3, 0), 0), ((0, 4), 2), ((5,), 0), ((1,), 1)])
def test_empty_calls_have_nothing_to_check(to_xp, shape: tuple[int, ...], k: int) -> None:
    gt.testing.check_operator(gt.relaxed_topk, to_xp(np.zeros(shape)), k)


@pytest.mark.parametrize(
    ("check", "keys", "t", "words"),
    [
        (gt.testing.check_jvp, [1e30, 1e30, 0.0], 1.0, "by keys along coordinate [0]"),
        (gt.testing.check_vjp, [1e30, -5e29, 2e29], 1.0, "by temperature along coordinate []"),
    ],
    ids=["a tie of 1e30", "a jump in the temperature"],
)
def test_where_differences_cannot_tell_they_say_so(check, keys, t: float, words: str) -> None:
    """At 1e30 the next number is 1e14 away: no step sees a function as fine as the temperature of 1.

    The operator is right, and the check may not call it wrong, nor may it pass.
    """
    with pytest.raises(ValueError, match="cannot check anything here") as caught:
        check(gt.relaxed_topk, np.asarray(keys), 2, temperature=t)
    assert words in str(caught.value)
    assert "choose another point" in str(caught.value)
    gt.testing.check_adjoint(gt.relaxed_topk, np.asarray(keys), 2, temperature=t)


def test_the_edge_of_the_domain_is_refused() -> None:
    at_zero = entrywise(
        lambda x: np.sqrt(x) if np.all(x >= 0) else logarithm(x), lambda x: np.full_like(x, np.inf), 0.0
    )
    with pytest.raises(ValueError, match="the shortest steps leave the domain"):
        gt.testing.check_jvp(at_zero, np.asarray([0.0]))


# --- random operators -----------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("rng", [None, "generator"])
def test_an_operator_that_draws_anew_is_refused(to_xp, check, rng: Any) -> None:
    rng = np.random.default_rng(0) if rng == "generator" else rng
    with pytest.raises(ValueError, match="relaxed_sample draws anew at each call; pass noise=, or an int as rng="):
        check(gt.relaxed_sample, to_xp(POINT), 2, rng=rng)


def test_hidden_randomness_is_refused() -> None:
    """What counts is what the operator does, not how its arguments are called."""
    hidden = np.random.default_rng(0)
    noisy = entrywise(lambda x: x + hidden.normal(size=x.shape), np.ones_like, 0.0)
    with pytest.raises(ValueError, match="entries draws anew at each call"):
        gt.testing.check_jvp(noisy, POINT)


@pytest.mark.parametrize(
    "rng", [3, np.int64(3), np.random.SeedSequence(3), gt.CounterRNG(3)], ids=lambda rng: type(rng).__name__
)
def test_a_fixed_draw_is_accepted(to_xp, rng: Any) -> None:
    """Also where the library has a generator of its own: differences are taken in the library of the arguments."""
    gt.testing.check_operator(gt.relaxed_sample, to_xp(POINT), 2, temperature=T, rng=rng)


def test_fixed_noise_is_accepted(to_xp) -> None:
    gt.testing.check_operator(gt.relaxed_sample, to_xp(POINT), 2, temperature=T, noise=to_xp(POINT[::-1]))
    gt.testing.check_operator(gt.relaxed_sample, to_xp(POINT, "float32"), 2, noise=to_xp(POINT[::-1], "float32"))


# --- kinds of arguments ---------------------------------------------------------------------------


def test_lists_and_numbers(to_xp) -> None:
    gt.testing.check_operator(gt.relaxed_topk, [1, 0, 2], 2, temperature=1)
    gt.testing.check_operator(gt.relaxed_topk, to_xp([[1.0, 0.0, 2.0], [0.5, 3.0, 1.0]]), 2, temperature=[0.5, 2])
    gt.testing.check_operator(gt.relaxed_topk, to_xp([1.0, 0.0, 2.0]), 2, temperature=np.float64(0.5))
    gt.testing.check_operator(gt.ordered_logpmf, to_xp([0.1, 0.0, -0.7]), [0, 2])


def test_integer_arrays(to_xp) -> None:
    gt.testing.check_operator(gt.relaxed_topk, to_xp([1, 0, 2]), 2, temperature=0.5)


def test_integers_have_no_gradients() -> None:
    rounded = entrywise(lambda x: np.rint(x).astype(np.int64), np.zeros_like, 0.0)
    with pytest.raises(TypeError, match="entries returns int64; only real floating values have gradients"):
        gt.testing.check_jvp(rounded, POINT)


def test_arguments_are_left_alone() -> None:
    point, temperature = POINT.copy(), np.asarray(T)
    gt.testing.check_operator(smooth_step, point, temperature=temperature)
    np.testing.assert_array_equal(point, POINT)
    assert temperature == T
