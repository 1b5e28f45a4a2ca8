"""Nodes in log-time: equally spaced, or in a variable in which they are as dense as the items near by demand.

A bell of n equal weights of the mean mu(s) and the deviation sigma(s) of arrivals has the width sigma / mu'. Where the
weights lie in groups that are far apart, as k giants and the rest, spacing for the narrowest bell is wasted on gaps.
With a_g = 1 - exp(-w_g e^s) for a group of n_g items,
    t(s) = s / WIDEST + sum_g 2 sqrt(n_g) asin(sqrt(a_g)) / SPACING_OF_A_BELL
has t' >= mu' / (SPACING_OF_A_BELL sigma), since mu' / sigma <= sum mu_g' / sigma_g; and the trapezoid rule in t, with
the step 1, is as good in each bell as one in s. t is analytic for |Im s| < pi / 2, but t' vanishes where the last items
of a group arrive, at a distance of 0.6 or so: therefore WIDEST is half that of equal spacing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gumbeltopk._generic import inclusion as generic
from gumbeltopk._numpy.inclusion_measure import Measure

Floats = npt.NDArray[np.float64]

WIDEST = 0.5 * generic.WIDEST_SPACING
WORTHWHILE = 0.7  # of the number of equally spaced nodes
TABLE = 2048  # places from which Newton's method starts
NEWTON_STEPS = 5
LARGEST_X = 700.0


def make_nodes(measure: Measure, n: int, first: int, last: int) -> tuple[Floats, Floats]:
    """Log-times and the steps (T,) that belong to them, between those of the generic `make_nodes`."""
    points = measure.logs[None, :], measure.counts[None, :], np.asarray([[float(n)]])
    left, right, spacing = (each.item() for each in generic.bracket(*points, first, last, np))
    number = 2 + int((right - left) / spacing)
    graded = _Grading(measure)
    first_place, last_place = graded.place(np.asarray([left, right])).tolist()
    fewer = 2 + int(last_place - first_place)
    if fewer > WORTHWHILE * number:
        return np.linspace(left, right, number), np.full(number, (right - left) / (number - 1))
    s = graded.log_time(np.linspace(first_place, last_place, fewer), left, right)
    return s, (last_place - first_place) / (fewer - 1) / graded.density(s)


class _Grading:
    """t(s), its derivative and its inverse; a group is an octave of weights."""

    def __init__(self, measure: Measure) -> None:
        octave = np.floor(measure.logs / np.log(2.0))
        groups, group = np.unique(octave, return_inverse=True)
        self._logs = (groups + 0.5) * np.log(2.0)
        self._root = np.sqrt(np.maximum(np.bincount(group, weights=measure.counts), 0.0)) / generic.SPACING_OF_A_BELL

    def place(self, s: Floats) -> Floats:
        x = self._x(s)
        angle = np.arctan2(np.sqrt(-np.expm1(-x)), np.exp(-0.5 * x))
        return np.asarray(s / WIDEST + 2.0 * (angle @ self._root))

    def density(self, s: Floats) -> Floats:
        x = self._x(s)
        return np.asarray(1.0 / WIDEST + np.sqrt(x) * np.sqrt(x / np.expm1(x)) @ self._root)

    def log_time(self, t: Floats, left: float, right: float) -> Floats:
        """Newton's method, to the last digit: steps that do not fit the places would be errors of the integral."""
        table = np.linspace(left, right, TABLE)
        s = np.interp(t, self.place(table), table)
        for _ in range(NEWTON_STEPS):
            s = np.clip(s - (self.place(s) - t) / self.density(s), left, right)
        return s

    def _x(self, s: Floats) -> Floats:
        return np.asarray(np.minimum(np.exp(s[:, None] + self._logs), LARGEST_X))
