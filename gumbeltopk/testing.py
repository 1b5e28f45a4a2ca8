"""Gradient checks, for users' operators as for our own.

Three checks of one operator at one point:

* `check_jvp`: J u against extrapolated central differences of the value, in float64;
* `check_vjp`: J^T v against the same differences;
* `check_adjoint`: <v, J u> = <J^T v, u>, to rounding; it needs no differences and sees errors that they cannot.

`check_operator` runs all three, and that `fwd` returns what a plain call returns.

The length of the steps is found at run time. Where no step is good enough the check does not guess.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, NamedTuple

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk._differences import (
    GROWTH,
    LONGEST,
    RANDOM_DIRECTIONS,
    SHORTEST,
    Direction,
    Floats,
    Measurement,
    best_measurement,
    central_differences,
    directions_of,
    largest,
    largest_exponent,
    short_fractions,
)
from gumbeltopk.operator import Operator

__all__ = ["check_adjoint", "check_jvp", "check_operator", "check_vjp"]

# Tolerances relative to the largest entry, by the dtype of the value: against differences, and for what only rounds.
DIFFERENCE_TOLERANCE = {"float64": 1e-8, "float32": 2e-5, "float16": 2e-2, "bfloat16": 1e-1}
ROUNDING_TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 5e-3, "bfloat16": 4e-2}

GOOD_ENOUGH = 0.1  # of the tolerance: the uncertainty at which the steps stop growing
UNCERTAINTY_FACTOR = 4.0
LARGEST_UNCERTAINTY = 1e-2  # relative to the derivative; more than that is not a check
NEGLIGIBLE = 1e-6  # relative to value / argument; a derivative that is 0 to within that is known well enough

AnyOperator = Operator[Any]


def check_operator(op: AnyOperator, *args: Any, rtol: float | None = None, seed: int = 0, **kwargs: Any) -> None:
    """Check value, JVP and VJP of an operator by every differentiable argument of the call.

    Parameters
    ----------
    op : Operator
        The operator, ours or yours.
    *args, **kwargs
        A call of it, with arrays of any library. A random operator needs ``noise=`` or an int as ``rng=``, so that
        every call draws the same. The value must have a derivative at this point: no kink, no edge of the domain.
    rtol : float, optional
        Tolerance against differences, relative to the largest entry; default by the dtype of the value (1e-8 for
        float64, 2e-5 for float32).
    seed : int
        Of the random directions.

    Raises
    ------
    AssertionError
        With the worst direction and both numbers.
    ValueError
        Where nothing can be said: the operator draws anew at each call, or differences are too inaccurate here.

    Notes
    -----
    Up to 64 entries of an argument are checked one by one, more of them in four random directions. Where the value is
    infinite its derivatives are not looked at; an infinite argument (a weight of zero) does not move.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.testing.check_operator(gt.relaxed_topk, [1.0, 0.2, -0.5], 2, temperature=0.5)
    """
    call = _Call(op, args, kwargs, seed)
    _compare_values(call)
    _compare_adjoint(call, None)
    _compare_jvp(call, rtol)
    _compare_vjp(call, rtol)


def check_jvp(op: AnyOperator, *args: Any, rtol: float | None = None, seed: int = 0, **kwargs: Any) -> None:
    """Check ``op.jvp`` against extrapolated central differences; parameters and errors as for `check_operator`.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.testing.check_jvp(gt.subset_logpmf, [0.3, -1.0, 0.0, 0.5], [0, 2])
    """
    _compare_jvp(_Call(op, args, kwargs, seed), rtol)


def check_vjp(op: AnyOperator, *args: Any, rtol: float | None = None, seed: int = 0, **kwargs: Any) -> None:
    """Check ``op.vjp`` against extrapolated central differences; parameters and errors as for `check_operator`.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.testing.check_vjp(gt.subset_logpmf, [0.3, -1.0, 0.0, 0.5], [0, 2])
    """
    _compare_vjp(_Call(op, args, kwargs, seed), rtol)


def check_adjoint(op: AnyOperator, *args: Any, rtol: float | None = None, seed: int = 0, **kwargs: Any) -> None:
    """Check <v, J u> = <J^T v, u> for random u and v; parameters and errors as for `check_operator`.

    Here `rtol` is relative to the sum of the absolute terms; its default allows for rounding and no more.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.testing.check_adjoint(gt.relaxed_topk, [3.0e8, 1.0, 0.0], 2, temperature=1e-3)
    """
    _compare_adjoint(_Call(op, args, kwargs, seed), rtol)


# --- one call of an operator ----------------------------------------------------------------------


class _Call:
    """A call as a function of each differentiable argument, and its derivatives: all on the host in float64."""

    def __init__(self, op: AnyOperator, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int) -> None:
        self.op = op
        self.seed = seed
        self.bound = inspect.signature(op).bind(*args, **kwargs)
        self.bound.apply_defaults()
        self.value = _as_array(op(*args, **kwargs))
        self.values = _to_host(self.value)
        self.finite = np.isfinite(self.values)
        self.size = largest(np.where(self.finite, self.values, 0.0))
        if _worst_entry(_to_host(op(*args, **kwargs)), self.values, self.rounding * self.size).excess > 1:
            raise ValueError(
                f"{op.name} draws anew at each call; pass noise=, or an int as rng=, to check gradients at one draw"
            )
        self.fwd_value, self.residuals = op.fwd(*args, **kwargs)
        given = {name: self.bound.arguments.get(name) for name in op.facts.differentiable}
        self.points = {name: _to_host(argument) for name, argument in given.items() if argument is not None}
        self.wide = {name: _widened(argument) for name, argument in self.bound.arguments.items()}
        self.epsilon = float(np.finfo(api.host(_as_array(self._call(self.wide))).dtype).eps)
        self._measured: dict[tuple[str, float], list[tuple[Direction, Measurement]]] = {}

    @property
    def rounding(self) -> float:
        """Relative size of what may be rounding."""
        return self._tolerance(ROUNDING_TOLERANCE)

    def difference_tolerance(self, rtol: float | None) -> float:
        """Relative tolerance against differences."""
        return self._tolerance(DIFFERENCE_TOLERANCE) if rtol is None else rtol

    def _tolerance(self, table: dict[str, float]) -> float:
        dtype = str(self.value.dtype).rpartition(".")[2]
        if dtype not in table:
            raise TypeError(f"{self.op.name} returns {dtype}; only real floating values have gradients to check")
        return table[dtype]

    def _call(self, arguments: dict[str, Any]) -> Any:
        moved = inspect.BoundArguments(self.bound.signature, arguments)
        with api.quiet():  # a moved argument may leave the domain; the caller of the check need not hear of it
            return self.op(*moved.args, **moved.kwargs)

    def at(self, name: str, point: Floats) -> Floats:
        """The value with one argument replaced and all of them widened, in their own library and on their device."""
        return _to_host(self._call({**self.wide, name: _shaped_like(self.wide[name], point)}))

    def jvp(self, tangents: dict[str, Floats]) -> Floats:
        """The claimed J u, 0 where the value is infinite: there is nothing to differentiate."""
        own = [_shaped_like(self._argument(name), tangent) for name, tangent in tangents.items()]
        derivative = self.op.jvp(self.residuals, *own, wrt=tuple(tangents))
        self._check_form(derivative, self.value, f"jvp by {', '.join(tangents)}")
        return np.where(self.finite, _to_host(derivative), 0.0)

    def vjp(self, cotangent: Floats, names: tuple[str, ...]) -> dict[str, Floats]:
        """The claimed J^T v."""
        gradients = self.op.vjp(self.residuals, _shaped_like(self.value, cotangent), wrt=names)
        for name, gradient in zip(names, gradients, strict=True):
            self._check_form(gradient, self._argument(name), f"vjp by {name}")
        return {name: _to_host(gradient) for name, gradient in zip(names, gradients, strict=True)}

    def cotangent(self, rng: np.random.Generator) -> Floats:
        """A random one, 0 where the value is infinite."""
        return np.where(self.finite, short_fractions(rng, self.values.shape, 7), 0.0)

    def _argument(self, name: str) -> Any:
        """An array of the library, dtype and shape of an argument; what was no floating array follows the value."""
        argument = self.bound.arguments[name]
        floating = _is_array(argument) and api.is_floating(argument, api.namespace_of(argument))
        return argument if floating else _shaped_like(self.value, self.points[name])

    def _check_form(self, derivative: Any, like: Any, rule: str) -> None:
        # A wrong shape would broadcast against what it is compared with.
        if tuple(derivative.shape) != tuple(like.shape):
            raise AssertionError(
                f"{self.op.name}.{rule} has the shape {tuple(derivative.shape)} instead of {tuple(like.shape)}"
            )

    def floor(self, name: str) -> float:
        """The error that rounding may leave in a derivative that is small because larger terms cancel."""
        return self.rounding * self.largest_change * 2.0 ** -largest_exponent(self.points[name])

    @functools.cached_property
    def largest_change(self) -> float:
        """The size of the value, or of its claimed change when one of the arguments moves by its own size."""
        changes = [self.size]
        for name, point in self.points.items():
            for direction in directions_of(point, self.seed)[-1:]:
                with api.quiet():
                    claimed = self.jvp({name: direction.tangent}) * 2.0**direction.exponent
                changes.append(largest(np.where(np.isfinite(claimed), claimed, 0.0)))
        return max(changes)

    def measurements(self, name: str, tolerance: float) -> list[tuple[Direction, Measurement]]:
        """The derivative in each direction, by differences."""
        key = (name, tolerance)
        if key not in self._measured:
            directions = directions_of(self.points[name], self.seed)
            self._measured[key] = [(each, self._measure(name, each, tolerance)) for each in directions]
        return self._measured[key]

    def _measure(self, name: str, direction: Direction, tolerance: float) -> Measurement:
        point = self.points[name]
        top = max(direction.exponent, largest_exponent(point), 0)
        exponents = range(direction.exponent + SHORTEST, top + LONGEST + 1, GROWTH)
        steps = central_differences(lambda h: self.at(name, point + h * direction.tangent), exponents, self.finite)
        rounding = self.epsilon * np.abs(np.where(self.finite, self.values, 0.0))
        best = best_measurement(steps, rounding, GOOD_ENOUGH * min(tolerance, LARGEST_UNCERTAINTY))
        if best is None:
            reason = "the shortest steps leave the domain"
        else:
            derivative, uncertainty = largest(best.derivative), UNCERTAINTY_FACTOR * largest(best.uncertainty)
            negligible = NEGLIGIBLE * self.size * 2.0 ** -largest_exponent(point)
            if uncertainty <= max(LARGEST_UNCERTAINTY * derivative, negligible):
                return best
            reason = f"they give {derivative:.3g} with an uncertainty of {uncertainty:.3g}"
        raise ValueError(
            f"{self.op.name}: differences by {name} along {direction.label} cannot check anything here: {reason}; "
            "choose another point, or use check_adjoint, which needs no differences"
        )


def _is_array(value: Any) -> bool:
    """NumPy scalars are Python numbers here, as they are everywhere in this package."""
    return api.is_array(value) and not isinstance(value, np.generic)


def _as_array(value: Any) -> Any:
    return value if _is_array(value) else np.asarray(value)


def _to_host(array: Any) -> Floats:
    return api.host(_as_array(array)).astype(np.float64)


def _widened(argument: Any) -> Any:
    """Arrays of floating numbers in float64, or in the widest dtype that their device has; all else as it is."""
    if not _is_array(argument):
        return argument
    xp = api.namespace_of(argument)
    if not api.is_floating(argument, xp):
        return argument
    return xp.astype(argument, api.work_float(xp, api.device_of(argument)))


def _shaped_like(argument: Any, numbers: Floats) -> Any:
    """`numbers` in the form of an argument: an array of its library, dtype and device, or Python numbers."""
    if not _is_array(argument):
        return numbers.tolist()
    xp, device = api.namespace_of(argument), api.device_of(argument)
    floating = api.is_floating(argument, xp)
    dtype = argument.dtype if floating else api.work_float(xp, device)
    # Through lists, which every library takes on every device; reshape because a list forgets empty axes.
    return xp.reshape(xp.asarray(numbers.tolist(), dtype=dtype, device=device), numbers.shape)


# --- claims against measurements; quiet, because a wrong claim may overflow -----------------------


class Disagreement(NamedTuple):
    """The entry with the largest error relative to what is allowed."""

    excess: float  # error / allowed: more than 1 is too much
    entry: list[int]
    claimed: float
    measured: float
    allowed: float

    @property
    def size(self) -> str:
        """For messages."""
        return f"(error {abs(self.claimed - self.measured):.3g}, allowed {self.allowed:.3g})"


_NOTHING = Disagreement(0.0, [], 0.0, 0.0, 0.0)


@api.quiet()
def _worst_entry(claimed: Floats, measured: Floats, allowed: Any) -> Disagreement:
    """NaN and infinity are errors unless both sides have them."""
    if claimed.size == 0:
        return _NOTHING
    excess = np.abs(claimed - measured) / allowed
    same = (claimed == measured) | (np.isnan(claimed) & np.isnan(measured))
    excess = np.where(same, 0.0, np.where(np.isnan(excess), np.inf, excess))
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
    return Disagreement(
        float(excess[worst]),
        [int(i) for i in worst],
        float(claimed[worst]),
        float(measured[worst]),
        float(np.broadcast_to(allowed, excess.shape)[worst]),
    )


def _compare_values(call: _Call) -> None:
    plain, own = call.value, _as_array(call.fwd_value)
    if plain.dtype != own.dtype or tuple(plain.shape) != tuple(own.shape):
        raise AssertionError(
            f"{call.op.name}: fwd returns {own.dtype} of shape {tuple(own.shape)}, but the plain call {plain.dtype} "
            f"of shape {tuple(plain.shape)}"
        )
    worst = _worst_entry(_to_host(own), call.values, call.rounding * call.size)
    if worst.excess > 1:
        raise AssertionError(
            f"{call.op.name}: fwd returns another value than the plain call: entry {worst.entry} is "
            f"{worst.claimed!r} instead of {worst.measured!r} {worst.size}"
        )


@api.quiet()
def _compare_adjoint(call: _Call, rtol: float | None) -> None:
    tolerance = call.rounding if rtol is None else rtol
    rng = np.random.default_rng(call.seed)
    names = tuple(call.points)
    together = [names] if len(names) > 1 else []
    for moving in [*((name,) for name in names), *together]:
        for trial in range(RANDOM_DIRECTIONS):
            cotangent = call.cotangent(rng)
            tangents = {name: short_fractions(rng, call.points[name].shape, 7) for name in moving}
            gradients = call.vjp(cotangent, moving)
            forward = np.ravel(cotangent * call.jvp(tangents))
            backward = np.concatenate([np.ravel(gradients[name] * tangents[name]) for name in moving])
            left, right = float(np.sum(forward)), float(np.sum(backward))
            allowed = tolerance * float(np.sum(np.abs(forward)) + np.sum(np.abs(backward)))
            allowed += max(call.floor(name) for name in moving) * float(np.sum(np.abs(cotangent)))
            if not abs(left - right) <= allowed < np.inf:
                raise AssertionError(
                    f"{call.op.name}: jvp and vjp by {', '.join(moving)} are not adjoint along random pair {trial} of "
                    f"seed {call.seed}: <v, J u> is {left!r}, but <J^T v, u> is {right!r} (difference "
                    f"{abs(left - right):.3g}, allowed {allowed:.3g})"
                )


@api.quiet()
def _compare_jvp(call: _Call, rtol: float | None) -> None:
    tolerance = call.difference_tolerance(rtol)
    for name in call.points:
        found: list[tuple[Disagreement, str]] = []
        for direction, measured in call.measurements(name, tolerance):
            allowed = tolerance * largest(measured.derivative) + UNCERTAINTY_FACTOR * measured.uncertainty
            claimed = call.jvp({name: direction.tangent})
            found.append((_worst_entry(claimed, measured.derivative, allowed + call.floor(name)), direction.label))
        worst, label = max(found, key=lambda pair: pair[0].excess, default=(_NOTHING, ""))
        if worst.excess > 1:
            raise AssertionError(
                f"{call.op.name}.jvp by {name} is wrong along {label}: entry {worst.entry} is {worst.claimed!r}, "
                f"differences give {worst.measured!r} {worst.size}"
            )


@api.quiet()
def _compare_vjp(call: _Call, rtol: float | None) -> None:
    tolerance = call.difference_tolerance(rtol)
    cotangent = call.cotangent(np.random.default_rng(call.seed))
    for name in call.points:
        gradient = call.vjp(cotangent, (name,))[name]
        directions = call.measurements(name, tolerance)
        claimed = np.asarray([np.sum(gradient * direction.tangent) for direction, _ in directions])
        terms = [np.ravel(cotangent * measured.derivative) for _, measured in directions]
        uncertainty = [np.sum(np.abs(cotangent) * measured.uncertainty) for _, measured in directions]
        allowed = (
            tolerance * max((float(np.sum(np.abs(term))) for term in terms), default=0.0)
            + UNCERTAINTY_FACTOR * np.asarray(uncertainty)
            + call.floor(name) * float(np.sum(np.abs(cotangent)))
        )
        worst = _worst_entry(claimed, np.asarray([np.sum(term) for term in terms]), allowed)
        if worst.excess > 1:
            raise AssertionError(
                f"{call.op.name}.vjp by {name} is wrong along {directions[worst.entry[0]][0].label}: <J^T v, u> is "
                f"{worst.claimed!r}, differences give {worst.measured!r} {worst.size}"
            )
