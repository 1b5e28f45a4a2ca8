"""Counts of arrivals by a contour integral: the tilted product of all items on a circle through the saddle point.

With B_j = q_j + z a_j, G = prod B_j, h_j = w_j tau q_j and R = sum h_j / B_j, the sum X_i of `_generic.inclusion` is
    X_i = [z^{k-1}] (G / B_i) (R - h_i / B_i) = (1 / 2 pi i) Oint (G / B_i) (R - h_i / B_i) z^{-k} dz.
Let r be the radius and r_j = r a_j / (q_j + r a_j) the tilted probabilities. On the circle, z = r e^{i theta},
    B_j(z) = B_j(r) b_j,   b_j = 1 + r_j (e^{i theta} - 1).
The radius is where sum r_j = k - 1/2: the tilted number of arrivals is k - 1 or k with a probability of the order of
1 / sigma, sigma^2 = sum r_j (1 - r_j) >= 1/4, whichever items are left out. |G(z)| falls at least like
exp(-2 sigma^2 sin^2(theta / 2)), and equally spaced angles err by the probability to be off by their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]

FALL_OF_THE_PRODUCT = 42.0  # nats, at the largest angle
ANGLES_A_SIGMA, MORE_ANGLES = 9.5, 14.0  # of the whole circle; Bennett's bound of the rest is e^-45
NEWTON_STEPS = 60
NEAR_THE_SADDLE = 0.02  # of the tilted mean
# At a time when k heavy items have surely arrived, and no other, the tilt has to bridge the gap between both, which is
# at most `FARTHEST` of the generic core; further away from that, tilting would only add noise.
SMALLEST_ZETA = -400.0
LARGEST_X = 1100.0  # exp(-x) is 0
TIMES_IN_A_BLOCK = 16
BLOCK = 1 << 16  # complex numbers at a time: they stay in cache


class Saddle(NamedTuple):
    """Radii for some log-times (T,)."""

    s: Floats
    step: Floats  # of the trapezoid rule
    zeta: Floats  # log r
    likely: Floats  # H, the number of items with a tilted probability above 1/2
    log_product: Floats  # log of G(r) r^{-H}, which does not grow with zeta as G(r) does
    sigma: Floats


class Tilted(NamedTuple):
    """Items at a saddle (T, points)."""

    r: Floats
    rest: Floats  # 1 - r
    x: Floats  # w tau
    log_b: Floats  # log B(r)


class Contour(NamedTuple):
    """Nodes (T, J): angles, those of half the circle, since the other half is conjugate."""

    saddle: Saddle
    turn: Floats  # e^{i theta} - 1
    weight: Floats  # of the real part: spacing of angles and times, G z^{-(k-1)} / r
    hazard: Floats  # R


def tilt(logs: Floats, s: Floats, zeta: Floats) -> Tilted:
    """Tilted probabilities of items; both r and 1 - r with small relative errors."""
    x = np.minimum(np.exp(logs + s[:, None]), LARGEST_X)
    arrived = -np.expm1(-x)
    log_tilted = zeta[:, None] + np.log(arrived)
    # B = 1 + (r - 1) a: close to 1 for all items where the tilt is small, and their logs are summed
    change = np.expm1(zeta)[:, None] * arrived
    log_b = np.where(np.abs(change) < 0.5, np.log1p(change), np.logaddexp(-x, log_tilted))
    return Tilted(np.exp(log_tilted - log_b), np.exp(-x - log_b), x, log_b)


def find_saddles(logs: Floats, counts: Floats, target: float, s: Floats, step: Floats) -> Saddle:
    """zeta with sum counts r = target, by Newton's method in a bracket."""
    x = np.minimum(np.exp(logs + s[:, None]), LARGEST_X)
    log_odds = x + np.log(-np.expm1(-x))
    heaviest = np.max(log_odds, axis=-1)
    # At low all r together are below the target; at high the mean has passed it, because enough items are lit.
    low, high = -heaviest + np.log(target / np.sum(counts)) - 1.0, -np.min(log_odds, axis=-1) + 60.0
    zeta = np.clip(np.zeros_like(s), low, high)
    looking = np.arange(len(s))
    for _ in range(NEWTON_STEPS):
        at = zeta[looking]
        r = 1.0 / (1.0 + np.exp(-(log_odds + at[:, None])))
        mean, variance = np.vecdot(r, counts), np.vecdot(r * (1.0 - r), counts)
        low, high = np.where(mean < target, at, low), np.where(mean < target, high, at)
        newton = at + (target - mean) / variance
        far = np.abs(mean - target) > NEAR_THE_SADDLE
        if not np.any(far):
            break
        zeta[looking[far]] = np.where((newton > low) & (newton < high), newton, 0.5 * (low + high))[far]
        looking, log_odds, low, high = looking[far], log_odds[far], low[far], high[far]
    zeta = np.maximum(zeta, SMALLEST_ZETA)
    tilted = tilt(logs, s, zeta)
    sigma = np.sqrt(np.vecdot(tilted.r * tilted.rest, counts))
    is_likely = tilted.r > 0.5
    log_product = np.vecdot(_log_b_over_r(tilted, zeta, is_likely), counts)
    return Saddle(s, step, zeta, np.vecdot(is_likely.astype(counts.dtype), counts), log_product, sigma)


def _log_b_over_r(item: Tilted, zeta: Floats, where: npt.NDArray[np.bool_]) -> Floats:
    """log B(r), and log(B(r) / r) `where` that is wanted: from the items' probabilities, not as a difference."""
    log_arrived = np.log(-np.expm1(-item.x))
    return np.asarray(np.where(where, np.logaddexp(log_arrived, -item.x - zeta[:, None]), item.log_b))


def height(saddle: Saddle, k: int) -> Floats:
    """log of G(r) r^{-k}."""
    return np.asarray(saddle.log_product + (saddle.likely - k) * saddle.zeta)


def angles(sigma: Floats) -> tuple[Floats, Floats]:
    """Midpoint angles (T, J) and their weights (T, J), which are 0 beyond the half circle."""
    number = 2.0 * np.ceil(0.5 * (ANGLES_A_SIGMA * sigma + MORE_ANGLES))  # even: never at pi, where b may be 0
    last = 2.0 * np.arcsin(np.sqrt(np.minimum(1.0, 0.5 * FALL_OF_THE_PRODUCT / sigma**2)))
    spacing = 2.0 * np.pi / number
    places = np.arange(int(np.ceil(np.max(last / spacing - 1e-9)))) + 0.5
    theta = spacing[:, None] * places
    inside = theta < np.pi
    return np.where(inside, theta, 1.0), np.where(inside, (2.0 / number)[:, None], 0.0)


def along(logs: Floats, counts: Floats, saddle: Saddle, k: int) -> Iterator[Contour]:
    """The contours of all log-times, some at a time."""
    for start in range(0, len(saddle.s), TIMES_IN_A_BLOCK):
        some = part_of(saddle, slice(start, start + TIMES_IN_A_BLOCK))
        yield make_contour(logs, counts, some, k)


def part_of(saddle: Saddle, some: slice) -> Saddle:
    """Some of the log-times."""
    return Saddle(*(each[some] for each in saddle))


def make_contour(logs: Floats, counts: Floats, saddle: Saddle, k: int) -> Contour:
    """The nodes at these saddles."""
    theta, weight = angles(saddle.sigma)
    half_sine = np.sin(0.5 * theta) ** 2
    turn = -2.0 * half_sine + 1j * np.sin(theta)
    log_product, hazard = np.zeros_like(turn), np.zeros_like(turn)
    for part in parts(turn, len(logs)):
        item = tilt(logs[part], saddle.s, saddle.zeta)
        b = factors(item.r, turn)
        # log |b| without cancellation, and the angle, which grows from 0 along the circle
        size = np.log1p(-4.0 * (item.r * item.rest)[:, :, None] * half_sine[:, None, :])
        of_times = np.broadcast_to(counts[part], item.r.shape)
        log_product.real += 0.5 * _over_items(of_times, size)
        log_product.imag += _over_items(of_times, np.arctan2(b.imag, b.real))
        hazard += total_hazard(item, 1.0 / b, counts[part])
    weight = saddle.step[:, None] * weight * np.exp(height(saddle, k)[:, None] + log_product - 1j * (k - 1) * theta)
    return Contour(saddle, turn, weight, hazard)


def parts(turn: Floats, items: int) -> list[slice]:
    """Parts of the items, such that an array (T, part, J) is small."""
    length = max(1, BLOCK // turn.size)
    return [slice(start, start + length) for start in range(0, items, length)]


def factors(r: Floats, turn: Floats) -> Floats:
    """b (T, points, J)."""
    return np.asarray(1.0 + r[:, :, None] * turn[:, None, :])


def total_hazard(item: Tilted, inverse: Floats, counts: Floats) -> Floats:
    """sum counts h / B (T, J), of 1 / b."""
    return _over_items(counts * item.x * item.rest, inverse)


def leave_one_out(item: Tilted, contour: Contour) -> Floats:
    """B(r) X of items (T, points)."""
    inverse = 1.0 / factors(item.r, contour.turn)
    plain = over_angles(contour.weight * contour.hazard, inverse)
    inverse *= inverse
    return np.asarray(plain - item.x * item.rest * over_angles(contour.weight, inverse))


def waiting(item: Tilted, contour: Contour) -> Floats:
    """q r / B(r) (T, points), while a r / B(r) is the tilted probability."""
    return np.asarray(np.exp(contour.saddle.zeta[:, None] - item.x - item.log_b))


def over_angles(weight: Floats, values: Floats) -> Floats:
    """The real part of the sum over angles of (T, J) times (T, points, J)."""
    return np.asarray(np.vecdot(weight.conj()[:, None, :], values).real)


def _over_items(counts: Floats, values: Floats) -> Floats:
    """The sum over items of (T, points, J); `einsum`, unlike `matmul`, stays on one thread."""
    return np.asarray(np.einsum("tp,tpj->tj", counts, values))
