"""Gradient checks, for users' operators as for our own.

Three checks of one operator at one point:

* `check_jvp`: J u against extrapolated central differences of the value, in float64;
* `check_vjp`: J^T v against the same, entry by entry where there are few entries;
* `check_adjoint`: <v, J u> = <J^T v, u>, to rounding; it needs no differences and sees errors that they cannot.

`check_operator` runs all three, and that `fwd` returns what a plain call returns.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk.operator import Operator

__all__ = ["check_adjoint", "check_jvp", "check_operator", "check_vjp"]

# Tolerances relative to the largest entry, by the dtype that the operator works in.
DIFFERENCE_TOLERANCE = {"float64": 1e-8, "float32": 2e-5, "float16": 2e-2, "bfloat16": 1e-1}
ADJOINT_TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 5e-3, "bfloat16": 4e-2}
COORDINATES_AT_MOST = 64
RANDOM_DIRECTIONS = 4
STEPS = (2e-3, 1e-3, 5e-4, 2.5e-4)  # relative steps of the extrapolation

AnyOperator = Operator[Any]


def check_operator(op: AnyOperator, *args: Any, rtol: float | None = None, seed: int = 0, **kwargs: Any) -> None:
    """Check value, JVP and VJP of an operator by every differentiable argument of the call.

    Parameters
    ----------
    op : Operator
        The operator, ours or yours.
    *args, **kwargs
        A call of it. A random operator needs ``noise=`` or an int as ``rng=``, so that every call draws the same.
    rtol : float, optional
        Tolerance against differences; default by dtype.
    seed : int
        Of the random directions.

    Raises
    ------
    AssertionError
        With the worst direction and both numbers.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.testing.check_operator(gt.relaxed_topk, [1.0, 0.2, -0.5], 2, temperature=0.5)
    """
    _check_value(op, args, kwargs)
    check_adjoint(op, *args, seed=seed, **kwargs)
    check_jvp(op, *args, rtol=rtol, seed=seed, **kwargs)
    check_vjp(op, *args, rtol=rtol, seed=seed, **kwargs)


def check_jvp(op: AnyOperator, *args: Any, rtol: float | None = None, seed: int = 0, **kwargs: Any) -> None:
    """Check ``op.jvp`` against extrapolated central differences; parameters as for `check_operator`."""
    call = _Call(op, args, kwargs)
    _, residuals = op.fwd(*args, **kwargs)
    rng = np.random.default_rng(seed)
    for name in call.names:
        for label, direction in _directions(call.points[name], rng):
            claimed = api.host(op.jvp(residuals, call.like_input(name, direction), wrt=name)).astype(np.float64)
            measured = call.difference(name, direction)
            _compare(claimed, measured, rtol or call.tolerance(DIFFERENCE_TOLERANCE), f"{op.name}.jvp", name, label)


def check_vjp(op: AnyOperator, *args: Any, rtol: float | None = None, seed: int = 0, **kwargs: Any) -> None:
    """Check ``op.vjp`` against extrapolated central differences; parameters as for `check_operator`."""
    call = _Call(op, args, kwargs)
    value, residuals = op.fwd(*args, **kwargs)
    rng = np.random.default_rng(seed)
    cotangent = rng.normal(size=tuple(value.shape))
    for name in call.names:
        gradient = api.host(op.vjp(residuals, call.like(value, cotangent), wrt=name)).astype(np.float64)
        directions = list(_directions(call.points[name], rng))
        claimed = np.asarray([np.sum(gradient * direction) for _, direction in directions])
        measured = np.asarray([np.sum(cotangent * call.difference(name, direction)) for _, direction in directions])
        worst = int(np.argmax(np.abs(claimed - measured))) if directions else 0
        label = directions[worst][0] if directions else "none"
        _compare(claimed, measured, rtol or call.tolerance(DIFFERENCE_TOLERANCE), f"{op.name}.vjp", name, label)


def check_adjoint(op: AnyOperator, *args: Any, rtol: float | None = None, seed: int = 0, **kwargs: Any) -> None:
    """Check <v, J u> = <J^T v, u> for random u and v; parameters as for `check_operator`."""
    call = _Call(op, args, kwargs)
    value, residuals = op.fwd(*args, **kwargs)
    rng = np.random.default_rng(seed)
    tolerance = rtol or call.tolerance(ADJOINT_TOLERANCE)
    for name in call.names:
        for trial in range(RANDOM_DIRECTIONS):
            tangent = rng.normal(size=call.points[name].shape)
            cotangent = rng.normal(size=tuple(value.shape))
            forward = api.host(op.jvp(residuals, call.like_input(name, tangent), wrt=name)).astype(np.float64)
            backward = api.host(op.vjp(residuals, call.like(value, cotangent), wrt=name)).astype(np.float64)
            left, right = float(np.sum(cotangent * forward)), float(np.sum(backward * tangent))
            scale = float(np.sum(np.abs(cotangent * forward)) + np.sum(np.abs(backward * tangent)))
            if not abs(left - right) <= tolerance * scale:
                raise AssertionError(
                    f"{op.name}: jvp and vjp by {name} are not adjoint: <v, J u> = {left!r} but <J^T v, u> = "
                    f"{right!r} (random pair {trial} of seed {seed}; difference {abs(left - right):.3g}, allowed "
                    f"{tolerance * scale:.3g})"
                )


def _check_value(op: AnyOperator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    plain = api.host(op(*args, **kwargs))
    with_residuals = api.host(op.fwd(*args, **kwargs)[0])
    if plain.dtype != with_residuals.dtype or not np.array_equal(plain, with_residuals, equal_nan=True):
        raise AssertionError(f"{op.name}: fwd returns another value than the plain call")


class _Call:
    """One call of an operator, as a function of each differentiable argument, on the host in float64."""

    def __init__(self, op: AnyOperator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(op).bind(*args, **kwargs)
        bound.apply_defaults()
        rng = bound.arguments.get("rng")
        random = "rng" in bound.arguments and bound.arguments.get("noise") is None
        if random and (isinstance(rng, bool) or not isinstance(rng, int)):
            raise ValueError(f"{op.name} draws anew at each call; pass noise=, or an int as rng=, to check gradients")
        self.op = op
        self.bound = bound
        self.value = op(*args, **kwargs)
        given = {name: bound.arguments.get(name) for name in op.facts.differentiable}
        self.names = [name for name, argument in given.items() if argument is not None]
        self.points = {name: np.asarray(self._to_host(given[name]), dtype=np.float64) for name in self.names}

    @staticmethod
    def _to_host(argument: Any) -> Any:
        return api.host(argument) if api.is_array(argument) else argument

    def tolerance(self, table: dict[str, float]) -> float:
        """By the dtype of the value."""
        return table[str(self.value.dtype).rpartition(".")[2]]

    def like(self, array: Any, numbers: np.ndarray[Any, Any]) -> Any:
        """`numbers` with the library, dtype and device of `array`."""
        xp = api.namespace_of(array)
        return xp.asarray(numbers.tolist(), dtype=array.dtype, device=api.device_of(array))

    def like_input(self, name: str, numbers: np.ndarray[Any, Any]) -> Any:
        """`numbers` as the argument was given; arguments that were Python numbers follow the value."""
        argument = self.bound.arguments[name]
        floating = api.is_array(argument) and api.is_floating(argument, api.namespace_of(argument))
        return self.like(argument if floating else self.value, numbers)

    def at(self, name: str, point: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The value, in float64 on the host, with one argument replaced; all others widened, too."""
        arguments = dict(self.bound.arguments)
        for other, own in self.points.items():
            arguments[other] = point if other == name else own
        for other, argument in arguments.items():
            if api.is_array(argument) and other not in self.points:
                arguments[other] = self._widened(api.host(argument))
        moved = inspect.BoundArguments(self.bound.signature, arguments)
        return np.asarray(self.op(*moved.args, **moved.kwargs), dtype=np.float64)

    @staticmethod
    def _widened(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    def difference(self, name: str, direction: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """d value / d direction."""
        point = self.points[name]
        scale = _step_scale(point, direction)
        return extrapolated_difference(lambda h: self.at(name, point + h * direction), scale)


def _step_scale(point: np.ndarray[Any, Any], direction: np.ndarray[Any, Any]) -> float:
    """A length along `direction` over which the argument moves by its own typical size, or by 1 if it is larger."""
    finite = point[np.isfinite(point)]
    size = float(np.sqrt(np.mean(np.square(np.clip(finite, -1.0, 1.0))))) if finite.size else 1.0
    return max(size, 1e-3) / max(float(np.max(np.abs(direction), initial=0.0)), 1e-300)


def extrapolated_difference(function: Callable[[float], np.ndarray[Any, Any]], scale: float) -> np.ndarray[Any, Any]:
    """d function / d h at 0: central differences at halved steps, extrapolated to step 0 (Richardson, order 8)."""
    table = []
    for relative in STEPS:
        h = relative * scale
        table.append((function(h) - function(-h)) / (2.0 * h))
    for order in range(1, len(table)):
        factor = 4.0**order
        table = [(factor * fine - coarse) / (factor - 1.0) for coarse, fine in itertools.pairwise(table)]
    return np.asarray(table[0])


def _directions(point: np.ndarray[Any, Any], rng: np.random.Generator) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Each coordinate if there are few, and some random directions. Items of zero weight (-inf) do not move."""
    finite = np.isfinite(point)
    directions: list[tuple[str, np.ndarray[Any, Any]]] = []
    if point.size <= COORDINATES_AT_MOST:
        for index in np.ndindex(point.shape):
            if finite[index]:
                unit = np.zeros(point.shape)
                unit[index] = 1.0
                directions.append((f"coordinate {list(index)}", unit))
    for number in range(RANDOM_DIRECTIONS):
        directions.append((f"random direction {number}", np.where(finite, rng.normal(size=point.shape), 0.0)))
    return directions


def _compare(
    claimed: np.ndarray[Any, Any],
    measured: np.ndarray[Any, Any],
    tolerance: float,
    rule: str,
    name: str,
    label: str,
) -> None:
    scale = float(np.max(np.abs(measured), initial=0.0))
    error = np.abs(claimed - measured)
    allowed = tolerance * max(scale, 1.0)
    if claimed.size and not bool(np.all(error <= allowed)):
        worst = np.unravel_index(int(np.argmax(np.where(np.isnan(error), np.inf, error))), error.shape)
        raise AssertionError(
            f"{rule} by {name} is wrong along {label}: entry {[int(i) for i in worst]} is {claimed[worst]!r}, "
            f"differences give {measured[worst]!r} (error {error[worst]:.3g}, allowed {allowed:.3g})"
        )
