"""Unordered subsets (eq. 2): log p(S) by the trapezoid rule in log-time, and its score. No k! terms.

All items of S arrive before the first of the others, which comes at an exponential time tau of rate W_c, the weight of
the complement:
    p(S) = Int_0^inf W_c exp(-W_c tau) prod_{i in S} (1 - exp(-w_i tau)) d tau.
With W_c tau = e^s and y_i = e^{s + b_i}, b_i = log(w_i / W_c), the log of the integrand in s is concave:
    phi(s) = s - e^s + sum_i log(1 - e^{-y_i}),   phi'(s) = 1 - e^s + sum_i g(y_i),   g(y) = y / (e^y - 1) in (0, 1].
The integrand is entire and decays in the strip |Im s| < pi/2, so that equally spaced nodes converge geometrically in
1/spacing. For the score every item needs E[g(y_i)], whose mass may lie further to the left than that of p(S).

Where p(S) is near 1 its logarithm is that of 1 - q, and q the probability that one of the others comes first,
    q = Int e^{s - e^s} (1 - prod_{i in S} (1 - e^{-y_i})) ds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gumbeltopk._array_api import Array, Namespace

SPACING = 0.2  # aliasing error exp(-pi^2 / SPACING) = 1e-21 for the slowest decay
NODES_ON_THE_PEAK = 48  # at least: for large k the integrand is a narrow bell of width 1 / sqrt(k)
SMALL_LOG_Y = -37.0  # log(1 - e^{-y}) = log y - y / 2 + ..
FALL = 42.0  # nats below the maximum at which the integrand is cut
BISECTIONS_A_WIDTH = 2  # to a small part of 1 / sqrt(k + 1), which is less than the width of the peak
LARGEST_LOG_Y = 7.0  # exp(-exp(7)) is 0
MODERATE = 600.0  # log y, in whose exponential nothing overflows
FACTORS = 16  # of e^SMALL_LOG_Y at least, whose product is above the smallest number
LIGHTEST = -600.0  # log-weight that stands for a zero weight in the score
FARTHEST_LEFT = -800.0  # further left the integrand underflows, and so does the score
LARGEST_BLOCK = 1 << 16  # entries of (rows, nodes, k) at a time: they stay in cache
LIKELY = math.log(0.5)  # log p above which it is got from 1 - p


def logpmf(selected: Array, complement: Array, xp: Namespace) -> Array:
    """log p(S) of rows, from the log-weights `selected` (rows, k) and the complement's total (rows, 1)."""
    log_p = _integrate(selected, complement, False, xp)[0]
    is_likely = (log_p > LIKELY) & (complement[:, 0] > -math.inf)
    (likely,) = xp.nonzero(is_likely)
    if likely.shape[0] == 0:
        return log_p
    shares = xp.take(selected, likely, axis=0) - xp.take(complement, likely, axis=0)
    exact = xp.log1p(-_probability_of_the_contrary(shares, xp))
    place = xp.clip(xp.cumulative_sum(xp.astype(is_likely, xp.int64)) - 1, min=0)
    return xp.where(is_likely, xp.take(exact, place, axis=0), log_p)


def score(selected: Array, complement: Array, xp: Namespace) -> tuple[Array, Array]:
    """d log p / d l for the selected items (rows, k), and the total over the complement (rows, 1).

    With q the normalised integrand, d log p / d l_i = E_q[g(y_i)] for i in S. Scaling all weights changes nothing, so
    the complement takes minus the sum of that, shared out by weight.
    """
    gradient = _integrate(selected, complement, True, xp)[1]
    return gradient, -xp.sum(gradient, axis=-1, keepdims=True)


def _integrate(selected: Array, complement: Array, with_score: bool, xp: Namespace) -> tuple[Array, Array]:
    """Blocks of rows, and in `_trapezoid` of nodes, so that memory stays flat."""
    rows, k = selected.shape
    certain = complement[:, 0] == -math.inf
    shares = selected - xp.where(complement > -math.inf, complement, 0.0)
    # A zero weight, or log p beyond the largest float. The score of p = 0 is the limit of a weight towards 0.
    impossible = xp.sum(xp.clip(shares, max=0.0), axis=-1) == -math.inf
    shares = xp.where(
        impossible[:, None], xp.clip(shares, min=LIGHTEST), shares
    )  # the score of p = 0 is the limit of a weight towards 0
    left, right, spacing = _bracket(shares, with_score, xp)
    in_block = max(1, LARGEST_BLOCK // (NODES_ON_THE_PEAK * k))
    parts = []
    for first in range(0, rows, in_block):
        block = slice(first, min(first + in_block, rows))
        nodes = 1 + math.ceil(float(xp.max(((right - left) / spacing)[block, :])))
        parts.append(_trapezoid(shares[block, :], left[block, :], right[block, :], nodes, with_score, xp))
    log_p = xp.concat([part[0] for part in parts], axis=0)
    gradient = xp.concat([part[1] for part in parts], axis=0)
    log_p = xp.where(impossible, -math.inf, xp.where(certain, 0.0, log_p))
    return log_p, xp.where(certain[:, None], 0.0, gradient)


def _trapezoid(
    shares: Array, left: Array, right: Array, nodes: int, with_score: bool, xp: Namespace
) -> tuple[Array, Array]:
    fractions = xp.arange(nodes, dtype=shares.dtype, device=shares.device) / (nodes - 1)
    s = left + (right - left) * fractions  # (rows, nodes)
    in_chunk = max(1, LARGEST_BLOCK // (shares.shape[0] * shares.shape[1]))
    chunks = [slice(first, min(first + in_chunk, nodes)) for first in range(0, nodes, in_chunk)]
    smallest = xp.min(left + xp.min(shares, axis=-1, keepdims=True))
    moderate = bool((smallest > SMALL_LOG_Y + 1.0) & (xp.max(shares) < MODERATE))
    log_product = _log_product_of_moderate if moderate else _log_product
    products = [log_product(s[:, chunk], shares, xp) for chunk in chunks]
    phi = s - xp.exp(s) + xp.concat(products, axis=-1)
    top = xp.max(phi, axis=-1, keepdims=True)
    q = xp.exp(phi - top)
    mass = xp.sum(q, axis=-1, keepdims=True)
    log_p = (top + xp.log(mass * (right - left) / (nodes - 1)))[:, 0]
    if not with_score:
        return log_p, shares
    score = xp.zeros_like(shares)
    for chunk in chunks:
        score = score + xp.sum((q / mass)[:, chunk, None] * saturation(_log_y(s[:, chunk], shares), xp), axis=1)
    return log_p, score


def _probability_of_the_contrary(shares: Array, xp: Namespace) -> Array:
    """1 - p (rows,), where that is small: all terms are positive.

    With the lightest item at y = 1 the integrand is of order e^s; it falls like e^s on the left, and on the right where
    e^s or k e^{-y} is large. In the strip |Im s| < atan(pi / (2 log k)) the product stays bounded.
    """
    k = shares.shape[-1]
    lightest = xp.min(shares, axis=-1, keepdims=True)
    right = xp.clip(math.log(FALL + math.log(k)) - lightest, max=math.log(FALL))
    left = xp.clip(-lightest, max=0.0) - FALL - 2.0
    strip = math.atan2(0.5 * math.pi, math.log(k))
    spacing = SPACING * strip / (0.5 * math.pi)
    nodes = 1 + math.ceil(float(xp.max(right - left)) / spacing)
    fractions = xp.arange(nodes, dtype=shares.dtype, device=shares.device) / (nodes - 1)
    s = left + (right - left) * fractions
    in_chunk = max(1, LARGEST_BLOCK // (shares.shape[0] * k))
    chunks = [s[:, first : min(first + in_chunk, nodes)] for first in range(0, nodes, in_chunk)]
    logs = xp.concat([_log_product(part, shares, xp) for part in chunks], axis=-1)
    terms = xp.exp(s - xp.exp(s)) * -xp.expm1(logs)
    return xp.sum(terms, axis=-1) * (right - left)[:, 0] / (nodes - 1)


def _log_y(s: Array, shares: Array) -> Array:
    """(rows, nodes, k)."""
    return s[:, :, None] + shares[:, None, :]


def _phi_slope(s: Array, shares: Array, xp: Namespace) -> Array:
    return 1.0 - xp.exp(s) + xp.sum(saturation(s + shares, xp), axis=-1, keepdims=True)


def _phi(s: Array, shares: Array, xp: Namespace) -> Array:
    return s - xp.exp(s) + _log_product(s, shares, xp)


def _bracket(shares: Array, with_score: bool, xp: Namespace) -> tuple[Array, Array, Array]:
    """Where the integrand has fallen by FALL nats on both sides of its mode, and the spacing of nodes (rows, 1)."""
    k = shares.shape[-1]
    last_mode = xp.full_like(shares[:, :1], math.log1p(k))  # the mode is where e^s = 1 + sum g, which is in [1, 1 + k]
    finest = 0.5 * math.log2(k + 1.0) + BISECTIONS_A_WIDTH
    zero = xp.zeros_like(last_mode)
    mode, _ = _bisect(lambda s: _phi_slope(s, shares, xp) > 0, zero, last_mode, math.log1p(k), finest, xp)
    floor = _phi(mode, shares, xp) - FALL
    # Left of 0 the slope is at least 1 - e^s. At the mode m it is 0, and g falls, so that it is at most
    # e^m (1 - e^u) at m + u, and phi has fallen by e^m (e^u - 1 - u) at least.
    first, longest = -FALL - 2.0, math.log1p(k) + FALL + 2.0
    left, _ = _bisect(lambda s: _phi(s, shares, xp) < floor, xp.full_like(mode, first), mode, longest, finest, xp)
    fall = (FALL + 1.0) * xp.exp(-mode)
    farthest = xp.minimum(xp.sqrt(2.0 * fall), xp.clip(xp.log(2.0 * fall), min=2.0))  # e^u - 1 - u > u^2 / 2, e^u / 2
    longest = float(xp.max(farthest))
    _, right = _bisect(lambda s: _phi(s, shares, xp) > floor, mode, mode + farthest, longest, finest, xp)
    spacing = xp.clip((right - left) / (NODES_ON_THE_PEAK - 1), max=SPACING)
    if with_score:
        # E[g(y_i)] of the heaviest item lives where y_i is of order one or less; left of it the slope is k + 1.
        heaviest = xp.max(shares, axis=-1, keepdims=True)
        left = xp.minimum(left, xp.clip(-heaviest - FALL / (k + 1) - 1.0, min=FARTHEST_LEFT))
    return left, right, spacing


def _bisect(
    is_left: Callable[[Array], Array], low: Array, high: Array, longest: float, finest: float, xp: Namespace
) -> tuple[Array, Array]:
    """The two ends of 2^-finest at most between `low` and `high`, which are up to `longest` apart."""
    for _ in range(math.ceil(finest + math.log2(longest))):
        middle = 0.5 * (low + high)
        keep = is_left(middle)
        low, high = xp.where(keep, middle, low), xp.where(keep, high, middle)
    return low, high


def _log_product(s: Array, shares: Array, xp: Namespace) -> Array:
    """sum_i log(1 - e^{-y_i}) (rows, nodes): log y itself for small y, else logs of products of several factors."""
    log_y = _log_y(s, shares)
    small = log_y < SMALL_LOG_Y
    factors = -xp.expm1(-xp.exp(xp.clip(log_y, max=LARGEST_LOG_Y)))
    of_small = xp.sum(xp.where(small, log_y, 0.0), axis=-1)
    return _log_of_products(xp.where(small, 1.0, factors), xp) + of_small


def _log_product_of_moderate(s: Array, shares: Array, xp: Namespace) -> Array:
    """The same if all y are above e^SMALL_LOG_Y and all shares below MODERATE: y is a product, not an exponential."""
    y = xp.exp(s)[:, :, None] * xp.exp(shares)[:, None, :]
    return _log_of_products(-xp.expm1(-y), xp)


def _log_of_products(factors: Array, xp: Namespace) -> Array:
    """The sum of the logs over the last axis, of a number of factors at a time."""
    rows, nodes, k = factors.shape
    length = k // FACTORS * FACTORS
    grouped = xp.prod(xp.reshape(factors[:, :, :length], (rows, nodes, -1, FACTORS)), axis=-1)
    rest = xp.prod(factors[:, :, length:], axis=-1)
    return xp.sum(xp.log(grouped), axis=-1) + xp.log(rest)


def saturation(log_y: Array, xp: Namespace) -> Array:
    """g(y) = y / (e^y - 1) from log y: 1 for an item that hardly arrives, 0 for one that is surely there."""
    y = xp.exp(xp.clip(log_y, max=LARGEST_LOG_Y))
    positive = y > 0
    safe = xp.where(positive, y, 1.0)
    return xp.where(positive, safe * xp.exp(-safe) / -xp.expm1(-safe), 1.0)
