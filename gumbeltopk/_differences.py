"""Derivatives by differences whose steps find their own length, for gradient checks.

A step that is too long leaves the domain or jumps over the structure of the function, one that is too short drowns in
rounding, and nobody knows the right length beforehand: at a temperature of 1e-6 it is 1e-9, for weights of 1e30 it is
1e24. So the steps grow, from a few rounding units of the argument, until two extrapolated differences agree. All steps
are short binary fractions: the argument moves by them exactly. Where no step is good enough the check does not guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk import _array_api as api

COORDINATES_AT_MOST = 64  # as directions of their own
RANDOM_DIRECTIONS = 4
# Steps as powers of two relative to the argument. The shortest is 32 rounding units, so that every step is exact.
SHORTEST, LONGEST, GROWTH = -48, -3, 3
SMALLEST_EXPONENT = -900  # an argument that is smaller still counts as 2**-900: its steps must be normal numbers
RESOLVED = 0.1  # relative uncertainty above which a difference may as well be noise

Floats = npt.NDArray[np.float64]


class Direction(NamedTuple):
    """Where an argument moves."""

    label: str
    tangent: Floats  # entries of few binary digits, the largest in [1, 2)
    exponent: int  # 2**exponent is the size of the argument's entries along the direction


class Measurement(NamedTuple):
    """A derivative, and how far it may be from the truth, entry by entry."""

    derivative: Floats
    uncertainty: Floats

    @property
    def relative(self) -> float:
        """Uncertainty relative to the largest entry."""
        size = largest(self.derivative)
        return largest(self.uncertainty) / size if size > 0 else float("inf")


def directions_of(point: Floats, seed: int) -> list[Direction]:
    """Each coordinate if there are few, and some random directions in which each entry moves by its own size."""
    rng = np.random.default_rng(seed)
    exponents = _exponents(point)
    directions: list[Direction] = []
    moving = np.argwhere(np.isfinite(point))
    if point.size <= COORDINATES_AT_MOST:
        for index in moving:
            unit = np.zeros(point.shape)
            unit[tuple(index)] = 1.0
            directions.append(Direction(f"coordinate {index.tolist()}", unit, int(exponents[tuple(index)])))
    if len(moving) < 2:
        return directions
    top = largest_exponent(point)
    for number in range(RANDOM_DIRECTIONS):
        tangent = np.ldexp(short_fractions(rng, point.shape, 3), exponents - top)
        tangent = np.where(np.isfinite(point), tangent, 0.0)
        directions.append(Direction(f"random direction {number} of seed {seed}", tangent, top))
    return directions


def short_fractions(rng: np.random.Generator, shape: tuple[int, ...], digits: int) -> Floats:
    """Random numbers in (-2, -1] and [1, 2) with so few binary digits that every dtype holds them exactly."""
    return rng.choice([-1.0, 1.0], size=shape) * np.ldexp(rng.integers(1 << digits, 2 << digits, size=shape), -digits)


def _exponents(point: Floats) -> npt.NDArray[np.intc]:
    """e with |x| in [2**(e - 1), 2**e); 0 where x is 0 or does not move."""
    exponents = np.frexp(np.where(np.isfinite(point) & (point != 0), point, 0.5))[1]
    return np.maximum(exponents, SMALLEST_EXPONENT)


def largest_exponent(point: Floats) -> int:
    moving = _exponents(point)[np.isfinite(point)]
    return int(np.max(moving)) if moving.size else 0


def largest(array: Floats) -> float:
    return float(np.max(np.abs(array), initial=0.0))


def central_differences(
    function: Callable[[float], Floats], exponents: range, finite: npt.NDArray[np.bool_]
) -> Iterator[tuple[float, Floats]]:
    """(h, difference quotient) for growing h, as long as the steps stay in the domain."""
    for exponent in exponents:
        step = 2.0**exponent
        try:
            with api.quiet():
                difference = np.where(finite, function(step) - function(-step), 0.0) / (2.0 * step)
        except (ValueError, ArithmeticError):
            return
        if not np.all(np.isfinite(difference)):
            return
        yield step, difference


def best_measurement(steps: Iterator[tuple[float, Floats]], rounding: Floats, target: float) -> Measurement | None:
    """The first one that is good enough; it has the shortest steps, which miss no structure of the function."""
    history: list[tuple[float, Floats]] = []
    candidates: list[Measurement] = []
    for step in steps:
        history.append(step)
        if len(history) < 3:
            continue
        (finest, fine), (_, middle), (_, coarse) = history[-3:]
        derivative = _extrapolated(fine, middle)
        uncertainty = np.abs(derivative - _extrapolated(middle, coarse)) + rounding / finest
        candidates.append(Measurement(derivative, uncertainty))
        if candidates[-1].relative <= target:
            return candidates[-1]
    resolved = [candidate for candidate in candidates if candidate.relative <= RESOLVED]
    if resolved:
        return min(resolved, key=lambda candidate: candidate.relative)
    return min(candidates, key=lambda candidate: largest(candidate.uncertainty), default=None)


def _extrapolated(fine: Floats, coarse: Floats) -> Floats:
    """The error of a central difference is even in h, so that two steps cancel its h^2 (Richardson)."""
    return fine + (fine - coarse) / (4.0**GROWTH - 1.0)
