"""The cores of inclusion probabilities for NumPy arrays: counts by dynamic programming, or by contour integrals.

For long rows or large k the contour is faster, and its items may be compressed to a few hundred points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._generic import inclusion as generic
from gumbeltopk._numpy import inclusion_contour as contours
from gumbeltopk._numpy import inclusion_measure as measures
from gumbeltopk._numpy.inclusion_contour import Saddle
from gumbeltopk._numpy.inclusion_measure import Measure
from gumbeltopk._numpy.inclusion_nodes import make_nodes

Floats = npt.NDArray[Any]

SMALLEST_WORK = 1500  # n k, below which dynamic programming over all rows at once is faster
LARGEST_ERROR = 1e-11  # of pi_i + (1 - pi_i); if it is larger the row goes to dynamic programming
LARGEST_WORK_TO_REPEAT = 1 << 20  # n k, above which that would take too long
WIDE = 9.5  # sigma below which the contour has angles beyond 60 degrees
CERTAIN = 1.0  # sigma below which some times may see the same set of k arrivals for sure
# B = 0 at a weight that is twice as large as, or larger than, one with r = 0.2.
LARGEST_TILTED_POINT = 0.2


class Row(NamedTuple):
    """The items of positive weight as points, and the nodes in log-time.

    There are two circles if one is not enough. With k - 1/2 arrivals on average, the tilted probability that N = k - 1
    or k is not small, with k + 1/2 that N = k or k + 1. Where k items are far heavier than all others, a light item in
    S takes N = k - 1 or k, and a heavy item that is not in S takes N = k or k + 1. Pairs have three circles.
    """

    logs: Floats  # (n,), in units in which the (k + 1)-st weight is 1
    measure: Measure
    saddles: tuple[Saddle, ...]  # the only one, or for light items, .., for heavy ones


def probabilities(log_weights: Floats, k: int, xp: Any) -> tuple[Floats, Floats]:
    """As the generic `probabilities`."""
    if is_small(log_weights, k):
        return generic.probabilities(log_weights, k, xp)
    included, excluded = np.zeros_like(log_weights), np.ones_like(log_weights)
    for i, row in enumerate(log_weights):
        positive = np.flatnonzero(row > -np.inf)
        inside, outside = _probabilities_of_row(row[positive], k)
        accurate = np.max(np.abs(inside + outside - 1.0)) <= LARGEST_ERROR  # not where there is a NaN
        if not accurate and row.size * k <= LARGEST_WORK_TO_REPEAT:
            (inside,), (outside,) = generic.probabilities(row[None, positive], k, xp)
        included[i, positive], excluded[i, positive] = inside, outside
    return included, excluded


def jacobian_product(log_weights: Floats, k: int, direction: Floats, xp: Any) -> Floats:
    """As the generic `jacobian_product`."""
    if is_small(log_weights, k):
        return np.asarray(generic.jacobian_product(log_weights, k, direction, xp))
    product = np.zeros_like(log_weights)
    for i, (row, u) in enumerate(zip(log_weights, direction, strict=True)):
        positive = np.flatnonzero(row > -np.inf)
        product[i, positive] = _jacobian_product_of_row(row[positive], k, u[positive])
    return product


def is_small(log_weights: Floats, k: int) -> bool:
    """Whether dynamic programming is fast enough."""
    return bool(log_weights.shape[-1] * k <= SMALLEST_WORK)


def _probabilities_of_row(log_weights: Floats, k: int) -> tuple[Floats, Floats]:
    row = prepare(log_weights, k)
    included, excluded = _by_weight(row, lambda saddle: _probabilities_of_points(row, saddle, k))
    return _read(row, included, log_weights), _read(row, excluded, log_weights)


def _probabilities_of_points(row: Row, saddle: Saddle, k: int) -> tuple[Floats, Floats]:
    logs, counts = row.measure.logs, row.measure.counts
    included, excluded = np.zeros(len(logs)), np.zeros(len(logs))
    for contour in contours.along(logs, counts, saddle, k):
        for part in contours.parts(contour.turn, len(logs)):
            item = contours.tilt(logs[part], contour.saddle.s, contour.saddle.zeta)
            density = contours.leave_one_out(item, contour)
            included[part] += np.sum(item.r * density, axis=0)
            excluded[part] += np.sum(contours.waiting(item, contour) * density, axis=0)
    return included, excluded


def _jacobian_product_of_row(log_weights: Floats, k: int, direction: Floats) -> Floats:
    row = prepare(log_weights, k)
    weighted_counts = measures.weigh(row.measure, direction)
    gain, loss = _by_weight(row, lambda saddle: _exchange_of_points(row, saddle, k, weighted_counts))
    return direction * _read(row, gain, log_weights) - _read(row, loss, log_weights)


def _exchange_of_points(row: Row, saddle: Saddle, k: int, weighted_counts: Floats) -> tuple[Floats, Floats]:
    """Int h_i sum_j h_j P(N_{-ij} = k - 1) ds over all j, i included, and the same with u_j h_j: i itself cancels."""
    logs, counts = row.measure.logs, row.measure.counts
    gain, loss = np.zeros(len(logs)), np.zeros(len(logs))
    for contour in contours.along(logs, counts, saddle, k):
        some = contours.parts(contour.turn, len(logs))
        items = [contours.tilt(logs[part], contour.saddle.s, contour.saddle.zeta) for part in some]
        inverses = [1.0 / contours.factors(item.r, contour.turn) for item in items]
        weighted = np.zeros_like(contour.hazard)
        for part, item, inverse in zip(some, items, inverses, strict=True):
            weighted += contours.total_hazard(item, inverse, weighted_counts[part])
        for part, item, inverse in zip(some, items, inverses, strict=True):
            rate = item.x * contours.waiting(item, contour)
            gain[part] += np.sum(rate * contours.over_angles(contour.weight * contour.hazard, inverse), axis=0)
            loss[part] += np.sum(rate * contours.over_angles(contour.weight * weighted, inverse), axis=0)
    return gain, loss


def _by_weight(row: Row, two_of_points: Callable[[Saddle], tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Light points from the circle for these; heavy are those of twice the (k + 1)-st weight, which is 1, or more.

    So all points of an octave are from one circle: a light item read from a mixture would have the error of both.
    """
    light, *heavier = (two_of_points(saddle) for saddle in row.saddles)
    if not heavier:
        return light
    (heavy,) = heavier
    is_heavy = row.measure.logs >= math.log(2.0)
    return np.where(is_heavy, heavy[0], light[0]), np.where(is_heavy, heavy[1], light[1])


def _read(row: Row, values: Floats, like: Floats) -> Floats:
    out = np.empty_like(like)
    measures.read(row.measure, values, out)
    return out


# --- nodes ----------------------------------------------------------------------------------------


def prepare(log_weights: Floats, k: int) -> Row:
    """Points and saddles of a row of positive weights, for the time of the k-th arrival of the others."""
    return make_row(log_weights, k, first=k, targets=(k - 0.5, k + 0.5), compressed=True)


def make_row(log_weights: Floats, k: int, first: int, targets: tuple[float, ...], compressed: bool) -> Row:
    """Points, nodes from the arrival number `first` on, and saddles where these numbers of items have arrived.

    If it is not `compressed` all items are kept, in their order.
    """
    n = len(log_weights)
    unit = np.partition(log_weights, n - 1 - k)[n - 1 - k]
    logs = generic.in_units(log_weights, unit, np)
    measure = measures.compress(logs, np.inf) if compressed else measures.of_items(logs)
    s, step = make_nodes(measure, n, first, k)
    saddles = _saddles(measure, k, first, targets, s, step)
    octave = min(_first_octave_to_keep(saddle) for saddle in saddles)
    if compressed and np.isfinite(octave):
        measure = measures.compress(logs, octave)
        saddles = _saddles(measure, k, first, targets, s, step)
    return Row(logs, measure, saddles)


def _saddles(
    measure: Measure, k: int, first: int, targets: tuple[float, ...], s: Floats, step: Floats
) -> tuple[Saddle, ...]:
    """One circle, or one for each target where at some time the number of arrivals is all but certain."""
    middle = contours.find_saddles(measure.logs, measure.counts, k - 0.5, s, step)
    if first < k:
        middle = contours.part_of(middle, slice(_first_place(middle, first), None))
    if np.min(middle.sigma) > CERTAIN:
        return (middle,)
    return tuple(
        middle if target == k - 0.5 else contours.find_saddles(measure.logs, measure.counts, target, *middle[:2])
        for target in targets
    )


def _first_place(saddle: Saddle, first: int) -> int:
    """Of the times at which `first` items have arrived with a probability above e^-FALL.

    The bracket has Poisson's bound of it, which is far too large for weights that are far apart. This is Chernoff's,
    P(N >= m) <= G(r) r^{-m} for r >= 1.
    """
    bound = np.where(saddle.zeta > 0.0, contours.height(saddle, first), 0.0)
    return int(np.argmax(bound > -generic.FALL))


def _first_octave_to_keep(saddle: Saddle) -> float:
    """Where angles are wide, 1 / B has a pole in w close to the weights with r = 1/2: these are not interpolated."""
    wide = saddle.sigma < WIDE
    if not np.any(wide):
        return np.inf
    x = np.log1p(np.exp(np.log(LARGEST_TILTED_POINT / (1.0 - LARGEST_TILTED_POINT)) - saddle.zeta[wide]))
    return float(np.min(np.floor(np.log2(x) - saddle.s[wide] / np.log(2.0))))
