"""Conditional Poisson: p(S) = exp(sum_{i in S} theta_i) / Z over the subsets of k items; log Z, marginals, covariance.

Every subset is the mode, which is the k largest logits, with some of its items swapped for others. With a reference
rho between the k-th and the next logit, a swap of item i costs |theta_i - rho| >= 0, so that
    Z = exp(sum of the mode) * sum_d e_d(u) e_d(v),
with the elementary symmetric polynomials of u_i = exp(theta_i - rho) outside the mode and v_i = exp(rho - theta_i) in
it: as many items come in as go out. The sum does not change when all u are multiplied, and all v divided, by a factor
e^lambda. Chosen so that on average as many come in as go out, it makes
    sum_d e_d(u) e_d(v) = prod_i (1 + e^{x_i}) * P(as many come in as go out),
where item i is swapped independently with log-odds x_i: a Poisson sample, given its size. This probability is never
small, at least 1 / (2.5 sigma + 2) or so. Two ways lead to it, and to the same for the others of an item:

* the circle (`swap_circle.py`), where the number of swaps is spread out: its generating function on the unit circle;
* the tree (`swap_tree.py`), where it is not: sums of positive terms only, however improbable a swap may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._generic import swap_circle, swap_tree
from gumbeltopk._generic.swaps import Swaps, direction

LARGEST_GAP = 1400.0  # a gap that is wider is as good as infinite: the odds of a swap are below exp(-1400)
NARROW = 1.0  # variance of the number of swaps below which the circle would cancel
TILT_ACCURACY = 1e-9
TILT_STEPS = 60


class Mode(NamedTuple):
    """The most probable subset of each row, and what it costs to swap each item."""

    inside: Array  # (rows, n): the item is in the mode
    total: Array  # (rows,): the logits of the mode
    cost: Array  # (rows, n): |theta - rho|


def log_normalizer(logits: Array, k: int, xp: Namespace) -> Array:
    """log Z (rows,) of logits (rows, n)."""
    if _is_certain(logits, k):
        return _total_of_all(logits, k, xp)
    mode = find_mode(logits, k, xp)
    return mode.total + excess(tilt(mode, xp), xp)


def marginals(logits: Array, k: int, xp: Namespace) -> tuple[Array, Array, Array]:
    """log Z (rows,), and the probabilities that an item is in the subset, and that it is not (rows, n)."""
    if _is_certain(logits, k):
        included = xp.full_like(logits, 0.0 if k == 0 else 1.0)
        return _total_of_all(logits, k, xp), included, 1.0 - included
    mode = find_mode(logits, k, xp)
    above, included, excluded = included_and_excluded(tilt(mode, xp), xp)
    return mode.total + above, included, excluded


def costs(logits: Array, k: int, xp: Namespace) -> tuple[Array, Array, Array]:
    """What log p(S) is made of: minus the costs (rows, n) of all that differs from the mode, and the excess (rows,)."""
    if _is_certain(logits, k):
        inside = xp.full_like(logits, k > 0, dtype=xp.bool)
        return inside, xp.zeros_like(logits), xp.sum(xp.zeros_like(logits), axis=-1)
    mode = find_mode(logits, k, xp)
    return mode.inside, mode.cost, excess(tilt(mode, xp), xp)


def covariance_product(logits: Array, k: int, vector: Array, xp: Namespace) -> Array:
    """Cov v (rows, n): the derivative of the marginals along v."""
    if _is_certain(logits, k):
        return xp.zeros_like(logits)
    vector = xp.where(logits > -math.inf, vector, 0.0)  # an item that is never selected has no covariance
    return covariance_of(tilt(find_mode(logits, k, xp), xp), vector, xp)


def entropy(logits: Array, k: int, xp: Namespace) -> Array:
    """-E log p(S) (rows,): the excess and the mean cost of the swaps, a sum without cancellation."""
    if _is_certain(logits, k):
        return xp.sum(xp.zeros_like(logits), axis=-1)
    mode = find_mode(logits, k, xp)
    above, swapped, _ = _by_width(tilt(mode, xp), (), swap_tree.marginals, swap_circle.marginals, xp)
    possible = swapped > 0
    return above + xp.sum(xp.where(possible, swapped * xp.where(possible, mode.cost, 0.0), 0.0), axis=-1)


def _is_certain(logits: Array, k: int) -> bool:
    """There is only one subset, or there are no rows."""
    return k in (0, logits.shape[-1]) or logits.shape[0] == 0


def _total_of_all(logits: Array, k: int, xp: Namespace) -> Array:
    return _sum(xp.zeros_like(logits) if k == 0 else logits, xp)


def _sum(logits: Array, xp: Namespace) -> Array:
    """Sum of a row; two logits of 1e308 do not overflow if a third one makes up for them."""
    scale = 2.0 ** -logits.shape[-1].bit_length()
    return xp.sum(logits * scale, axis=-1) / scale


# --- the same, of swaps ---------------------------------------------------------------------------


def excess(swaps: Swaps, xp: Namespace) -> Array:
    """log Z less the logits of the mode (rows,)."""
    (above,) = _by_width(swaps, (), swap_tree.excess, swap_circle.excess, xp)
    return above


def included_and_excluded(swaps: Swaps, xp: Namespace) -> tuple[Array, Array, Array]:
    """The excess (rows,), and the probabilities that an item is in the subset, and that it is not (rows, n)."""
    above, swapped, kept = _by_width(swaps, (), swap_tree.marginals, swap_circle.marginals, xp)
    return above, xp.where(swaps.inside, kept, swapped), xp.where(swaps.inside, swapped, kept)


def covariance_of(swaps: Swaps, vector: Array, xp: Namespace) -> Array:
    """Cov v (rows, n).

    Cov 1 = 0, because |S| = k. A multiple of 1 is taken off v, so that it does not cancel in the result.
    """
    spread = swaps.p * swaps.q
    total = xp.sum(spread, axis=-1, keepdims=True)
    center = xp.sum(spread * vector, axis=-1, keepdims=True) / xp.where(total > 0, total, 1.0)
    sign = direction(swaps, xp)
    tangent = sign * (vector - center)  # of the log-odds of a swap
    (product,) = _by_width(swaps, (tangent,), swap_tree.swapped_jvp, swap_circle.swapped_jvp, xp)
    return sign * product


# --- the mode and the tilt ------------------------------------------------------------------------


def find_mode(logits: Array, k: int, xp: Namespace) -> Mode:
    """The k largest logits of each row, ties to the lower index."""
    order = xp.argsort(logits, axis=-1, descending=True, stable=True)
    rank = xp.argsort(order, axis=-1, stable=True)
    inside = rank < k
    last_in = xp.take_along_axis(logits, order[:, k - 1 : k], axis=-1)
    first_out = xp.take_along_axis(logits, order[:, k : k + 1], axis=-1)
    half_gap = 0.5 * xp.clip(last_in - first_out, max=LARGEST_GAP)
    above = logits - last_in  # two differences: rho itself would be rounded
    cost = xp.where(inside, above + half_gap, -above - half_gap)
    total = _sum(xp.where(inside, logits, 0.0), xp)
    return Mode(inside, total, cost)


def tilt(mode: Mode, xp: Namespace) -> Swaps:
    """The factor e^lambda with which on average as many items come in as go out.

    log(expected number in) - log(expected number out) increases in lambda with a slope between 0 and 2: Newton's
    method, kept in a bracket. Below -log(2 (n - k)) fewer come in, above log(2 k) fewer go out, because then the first
    item that may be swapped alone outweighs all of the other side.
    """
    n = mode.inside.shape[-1]
    number_in = xp.sum(xp.astype(mode.inside, mode.cost.dtype), axis=-1, keepdims=True)
    low, high = -xp.log(2.0 * (n - number_in)), xp.log(2.0 * number_in)
    shift = xp.zeros_like(low)
    for _ in range(TILT_STEPS):
        swaps = _swaps(mode, shift, xp)
        balance, slope = _balance(swaps, xp)
        low = xp.where(balance < 0, shift, low)
        high = xp.where(balance < 0, high, shift)
        newton = shift - balance / slope
        good = (newton > low) & (newton < high)  # False for NaN
        following = xp.where(good, newton, 0.5 * (low + high))
        moved = float(xp.max(xp.abs(following - shift)))
        shift = following
        if moved < TILT_ACCURACY:
            break
    return _swaps(mode, shift, xp)


def _swaps(mode: Mode, shift: Array, xp: Namespace) -> Swaps:
    log_odds = xp.where(mode.inside, -mode.cost - shift, shift - mode.cost)
    return Swaps(mode.inside, log_odds, 1.0 / (1.0 + xp.exp(-log_odds)), 1.0 / (1.0 + xp.exp(log_odds)))


def _balance(swaps: Swaps, xp: Namespace) -> tuple[Array, Array]:
    """log(expected number in / expected number out), and its slope."""
    spread = swaps.p * swaps.q
    logs, slope = 0.0, 0.0
    for side, sign in ((~swaps.inside, 1.0), (swaps.inside, -1.0)):
        expected = xp.sum(xp.where(side, swaps.p, 0.0), axis=-1, keepdims=True)
        logs = logs + sign * xp.log(expected)
        slope = slope + xp.sum(xp.where(side, spread, 0.0), axis=-1, keepdims=True) / expected
    return logs, slope


# --- rows where swaps are few, and rows where they are many ---------------------------------------


def _by_width(
    swaps: Swaps,
    extra: tuple[Array, ...],
    by_tree: Callable[..., tuple[Array, ...]],
    by_circle: Callable[..., tuple[Array, ...]],
    xp: Namespace,
) -> tuple[Array, ...]:
    """Each row by the way that suits it; the results, in the order of the rows."""
    narrow = xp.sum(swaps.p * swaps.q, axis=-1) < NARROW
    if bool(xp.all(narrow)):
        return by_tree(swaps, *extra, xp)
    if not bool(xp.any(narrow)):
        return by_circle(swaps, *extra, xp)
    order = xp.argsort(xp.astype(narrow, xp.int8), axis=0, stable=True)
    wide_rows = order.shape[0] - int(xp.count_nonzero(narrow))
    parts = []
    for rows, way in ((order[:wide_rows], by_circle), (order[wide_rows:], by_tree)):
        taken = [xp.take(array, rows, axis=0) for array in (*swaps, *extra)]
        parts.append(way(Swaps(*taken[:4]), *taken[4:], xp))
    back = xp.argsort(order, stable=True)
    return tuple(xp.take(xp.concat(pair, axis=0), back, axis=0) for pair in zip(*parts, strict=True))
