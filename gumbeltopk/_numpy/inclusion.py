"""The cores of inclusion probabilities for NumPy arrays: counts by dynamic programming, or by contour integrals.

For long rows or large k the contour is faster, and its items may be compressed to a few hundred points.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._generic import inclusion as generic
from gumbeltopk._numpy import inclusion_contour as contours
from gumbeltopk._numpy import inclusion_measure as measures
from gumbeltopk._numpy.inclusion_contour import Saddle
from gumbeltopk._numpy.inclusion_measure import Measure

Floats = npt.NDArray[Any]

SMALLEST_WORK = 1500  # n k, below which dynamic programming over all rows at once is faster
LARGEST_ERROR = 1e-11  # of pi_i + (1 - pi_i); if it is larger the row goes to dynamic programming
LARGEST_WORK_TO_REPEAT = 1 << 20  # n k, above which that would take too long
WIDE = 9.5  # sigma below which the contour has angles beyond 60 degrees
# B = 0 at a weight that is twice as large as, or larger than, one with r = 0.2.
LARGEST_TILTED_POINT = 0.2


class Row(NamedTuple):
    """The items of positive weight as points, and the nodes in log-time."""

    measure: Measure
    saddle: Saddle
    spacing: float


def probabilities(log_weights: Floats, k: int, xp: Any) -> tuple[Floats, Floats]:
    """As the generic `probabilities`."""
    if _is_small(log_weights, k):
        return generic.probabilities(log_weights, k, xp)
    included, excluded = np.zeros_like(log_weights), np.ones_like(log_weights)
    for i, row in enumerate(log_weights):
        positive = np.flatnonzero(row > -np.inf)
        inside, outside = _probabilities_of_row(row[positive], k)
        if np.max(np.abs(inside + outside - 1.0)) > LARGEST_ERROR and row.size * k <= LARGEST_WORK_TO_REPEAT:
            (inside,), (outside,) = generic.probabilities(row[None, positive], k, xp)
        included[i, positive], excluded[i, positive] = inside, outside
    return included, excluded


def jacobian_product(log_weights: Floats, k: int, direction: Floats, xp: Any) -> Floats:
    """As the generic `jacobian_product`."""
    if _is_small(log_weights, k):
        return generic.jacobian_product(log_weights, k, direction, xp)
    product = np.zeros_like(log_weights)
    for i, (row, u) in enumerate(zip(log_weights, direction, strict=True)):
        positive = np.flatnonzero(row > -np.inf)
        product[i, positive] = _jacobian_product_of_row(row[positive], k, u[positive])
    return product


def _is_small(log_weights: Floats, k: int) -> bool:
    return log_weights.shape[-1] * k <= SMALLEST_WORK


def _probabilities_of_row(log_weights: Floats, k: int) -> tuple[Floats, Floats]:
    row = prepare(log_weights, k)
    logs = row.measure.logs
    included, excluded = np.zeros(len(logs)), np.zeros(len(logs))
    for contour in contours.along(logs, row.measure.counts, row.saddle, row.spacing, k):
        for part in contours.parts(contour.turn, len(logs)):
            item = contours.tilt(logs[part], contour.saddle.s, contour.saddle.zeta)
            density = contours.leave_one_out(item, contour)
            included[part] += np.sum(item.r * density, axis=0)
            excluded[part] += np.sum(contours.waiting(item, contour) * density, axis=0)
    return _read(row, included, log_weights), _read(row, excluded, log_weights)


def _jacobian_product_of_row(log_weights: Floats, k: int, direction: Floats) -> Floats:
    row = prepare(log_weights, k)
    logs = row.measure.logs
    weighted_counts = measures.weigh(row.measure, direction)
    gain, loss = np.zeros(len(logs)), np.zeros(len(logs))
    for contour in contours.along(logs, row.measure.counts, row.saddle, row.spacing, k):
        weighted = np.zeros_like(contour.hazard)
        for part in contours.parts(contour.turn, len(logs)):
            item = contours.tilt(logs[part], contour.saddle.s, contour.saddle.zeta)
            weighted += contours.total_hazard(item, contour.turn, weighted_counts[part])
        for part in contours.parts(contour.turn, len(logs)):
            item = contours.tilt(logs[part], contour.saddle.s, contour.saddle.zeta)
            rate = item.x * contours.waiting(item, contour)
            inverse = 1.0 / contours.factors(item.r, contour.turn)
            gain[part] += np.sum(rate * contours.over_angles(contour.weight * contour.hazard, inverse), axis=0)
            loss[part] += np.sum(rate * contours.over_angles(contour.weight * weighted, inverse), axis=0)
    return direction * _read(row, gain, log_weights) - _read(row, loss, log_weights)


def _read(row: Row, values: Floats, like: Floats) -> Floats:
    out = np.empty_like(like)
    measures.read(row.measure, values, out)
    return out


# --- nodes ----------------------------------------------------------------------------------------


def prepare(log_weights: Floats, k: int, compressed: bool = True, first: int | None = None) -> Row:
    """Points and saddles of a row of positive weights."""
    n = len(log_weights)
    unit = np.partition(log_weights, n - 1 - k)[n - 1 - k]
    logs = generic.in_units(log_weights, unit, np)
    measure = measures.compress(logs, np.inf if compressed else -np.inf)
    s, spacing = _nodes(measure, n, k, k if first is None else first)
    saddle = contours.find_saddles(measure.logs, measure.counts, k - 0.5, s)
    if compressed:
        octave = _first_octave_to_keep(saddle)
        if np.isfinite(octave):
            measure = measures.compress(logs, octave)
            saddle = contours.find_saddles(measure.logs, measure.counts, k - 0.5, s)
    return Row(measure, saddle, spacing)


def _nodes(measure: Measure, n: int, k: int, first: int) -> tuple[Floats, float]:
    left, right, spacing = (
        each.item()
        for each in generic.bracket(
            measure.logs[None, :], measure.counts[None, :], np.asarray([[float(n)]]), first, k, np
        )
    )
    number = 2 + int((right - left) / spacing)
    return np.linspace(left, right, number), (right - left) / (number - 1)


def _first_octave_to_keep(saddle: Saddle) -> float:
    """Where angles are wide, 1 / B has a pole in w close to the weights with r = 1/2: these are not interpolated."""
    wide = saddle.sigma < WIDE
    if not np.any(wide):
        return np.inf
    x = np.log1p(np.exp(np.log(LARGEST_TILTED_POINT / (1.0 - LARGEST_TILTED_POINT)) - saddle.zeta[wide]))
    return float(np.min(np.floor(np.log2(x) - saddle.s[wide] / np.log(2.0))))


