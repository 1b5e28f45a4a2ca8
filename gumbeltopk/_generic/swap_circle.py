"""Swaps of the conditional Poisson mode where they are many: their generating function on the unit circle.

Item i is swapped independently with probability p_i = 1 - q_i. Let D be the number that comes in minus the number that
goes out. With z = e^{i phi} for an item that may come in, and its conjugate for one that may go out,
    G(phi) = E e^{i phi D} = prod_i (q_i + p_i z_i),
    P(D = 0) = (1/N) sum_m G(2 pi m / N)       up to P(|D| >= N),
    P(i swapped, D = 0) = (1/N) sum_m G tau_i,    tau_i = p_i z_i / (q_i + p_i z_i).
D has mean 0 and variance sigma^2 = sum p q, and tails no heavier than those of a Poisson variable, so N = 9 sigma + 14
angles are enough, and |G| <= exp(-2 sigma^2 sin^2(phi / 2)) leaves at most 29 of them, half the circle by symmetry, to
be computed. Everything is in real numbers: with d = |q + p z|^2 = (q - p)^2 + 4 p q cos^2(phi / 2),
    Re tau = p (p + q cos phi) / d,    Im tau = +- p q sin phi / d.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._generic.swaps import Swaps, direction, row_blocks, softplus

ANGLES_PER_SIGMA, FEWEST_ANGLES = 9.0, 14.0
FALL = 42.0  # nats below G(0) at which angles are left out
MOST_ANGLES = 29
LARGEST_BLOCK = 1 << 18  # entries of (rows, items, angles) at a time


class Circle(NamedTuple):
    """Angles (rows, angles), and what the items make of them."""

    cos: Array
    sin: Array
    half_cos: Array  # cos^2(phi / 2)
    real: Array  # of the share of each angle in P(D = 0): the real parts sum to 1
    imaginary: Array
    log_probability: Array  # (rows,): log P(D = 0)


def excess(swaps: Swaps, xp: Namespace) -> tuple[Array]:
    """log of sum_d e_d(u) e_d(v) (rows,), alone in a tuple."""
    parts = [
        xp.sum(softplus(rows.log_odds, xp), axis=-1) + _circle(rows, xp).log_probability
        for rows, _ in _row_blocks(swaps, ())
    ]
    return (xp.concat(parts, axis=0),)


def marginals(swaps: Swaps, xp: Namespace) -> tuple[Array, Array, Array]:
    """The excess (rows,), and the probabilities that an item is swapped, and that it is not (rows, n), given D = 0."""
    parts = []
    for rows, _ in _row_blocks(swaps, ()):
        circle = _circle(rows, xp)
        swapped, kept = _expected_tau(rows, circle, circle.real, circle.imaginary, xp)
        parts.append((xp.sum(softplus(rows.log_odds, xp), axis=-1) + circle.log_probability, swapped, kept))
    excess, swapped, kept = (xp.concat(arrays, axis=0) for arrays in zip(*parts, strict=True))
    return excess, swapped, kept


# The log-odds move by y. A share c_m = G_m / sum G changes by c_m (A_m - sum c A), where A_m = sum_j tau_j y_j, and
# tau_i by tau_i (1 - tau_i) y_i, so that
#     d P(i swapped | D = 0) = y_i sum_m c_m tau_i (1 - tau_i) + sum_m c_m (A_m - sum c A) tau_i:
# O(n) for each angle, and no n x n matrix.


def swapped_jvp(swaps: Swaps, tangent: Array, xp: Namespace) -> tuple[Array]:
    """Derivative of the probability of a swap along `tangent` of the log-odds (rows, n), alone in a tuple."""
    parts = []
    for rows, (y,) in _row_blocks(swaps, (tangent,)):
        circle = _circle(rows, xp)
        a_real, a_imaginary = _total_tau(rows, y, circle, xp)
        mean = xp.sum(circle.real * a_real - circle.imaginary * a_imaginary, axis=-1, keepdims=True)
        a_real = a_real - mean
        real = circle.real * a_real - circle.imaginary * a_imaginary
        imaginary = circle.real * a_imaginary + circle.imaginary * a_real
        by_shares, _ = _expected_tau(rows, circle, real, imaginary, xp)
        parts.append(y * _expected_spread(rows, circle, xp) + by_shares)
    return (xp.concat(parts, axis=0),)


# --- the angles -----------------------------------------------------------------------------------


def _circle(swaps: Swaps, xp: Namespace) -> Circle:
    variance = xp.sum(swaps.p * swaps.q, axis=-1, keepdims=True)
    sigma = xp.sqrt(variance)
    half = xp.ceil(0.5 * (ANGLES_PER_SIGMA * sigma + FEWEST_ANGLES))
    number = 2.0 * half + 1.0  # odd: no angle is pi
    sine = xp.clip(math.sqrt(0.5 * FALL) / sigma, max=1.0)
    needed = xp.minimum(half, xp.ceil(number * xp.asin(sine) / math.pi))
    m = xp.arange(1 + int(xp.max(needed)), dtype=sigma.dtype, device=sigma.device)[None, :]
    phi = 2.0 * math.pi * m / number
    both = xp.where(m == 0, xp.ones_like(phi), 2.0)  # an angle and its negative
    times = xp.where(m <= needed, both, 0.0)
    cos, sin = xp.cos(phi), xp.sin(phi)
    half_sin, half_cos = xp.sin(0.5 * phi) ** 2, xp.cos(0.5 * phi) ** 2
    log_modulus, phase = 0.0, 0.0
    for items in _item_blocks(swaps, m.shape[1]):
        p, q = items.p[:, :, None], items.q[:, :, None]
        log_modulus = log_modulus + 0.5 * xp.sum(xp.log1p(-4.0 * p * q * half_sin[:, None, :]), axis=1)
        angles = xp.atan2(p * sin[:, None, :], q + p * cos[:, None, :])
        phase = phase + xp.sum(xp.where(items.inside[:, :, None], -angles, angles), axis=1)
    modulus = times * xp.exp(log_modulus)
    real, imaginary = modulus * xp.cos(phase), modulus * xp.sin(phase)
    total = xp.sum(real, axis=-1, keepdims=True)
    return Circle(cos, sin, half_cos, real / total, imaginary / total, xp.log(total / number)[:, 0])


def _squared_modulus(items: Swaps, circle: Circle) -> Array:
    """d (rows, items, angles)."""
    p, q = items.p[:, :, None], items.q[:, :, None]
    return (q - p) ** 2 + 4.0 * p * q * circle.half_cos[:, None, :]


def _expected_tau(swaps: Swaps, circle: Circle, real: Array, imaginary: Array, xp: Namespace) -> tuple[Array, Array]:
    """Re sum_m c_m tau_i and Re sum_m c_m (1 - tau_i) (rows, n), the shares c in two parts (rows, angles)."""
    weights = xp.stack([real, real * circle.cos, imaginary * circle.sin], axis=-1)  # (rows, angles, 3)
    swapped, kept = [], []
    for items in _item_blocks(swaps, circle.cos.shape[1]):
        sums = xp.matmul(1.0 / _squared_modulus(items, circle), weights)
        plain, by_cos, by_sin = sums[:, :, 0], sums[:, :, 1], direction(items, xp) * sums[:, :, 2]
        swapped.append(items.p * (items.p * plain + items.q * (by_cos - by_sin)))
        kept.append(items.q * (items.q * plain + items.p * (by_cos + by_sin)))
    return xp.concat(swapped, axis=1), xp.concat(kept, axis=1)


def _expected_spread(swaps: Swaps, circle: Circle, xp: Namespace) -> Array:
    """Re sum_m c_m tau_i (1 - tau_i) (rows, n); tau (1 - tau) = p q (q^2 z + 2 p q + p^2 / z) / d^2."""
    weights = xp.stack([circle.real, circle.real * circle.cos, circle.imaginary * circle.sin], axis=-1)
    parts = []
    for items in _item_blocks(swaps, circle.cos.shape[1]):
        p, q = items.p, items.q
        sums = xp.matmul(1.0 / _squared_modulus(items, circle) ** 2, weights)
        plain, by_cos, by_sin = sums[:, :, 0], sums[:, :, 1], direction(items, xp) * sums[:, :, 2]
        parts.append(p * q * (2.0 * p * q * plain + (p * p + q * q) * by_cos - (q - p) * by_sin))
    return xp.concat(parts, axis=1)


def _total_tau(swaps: Swaps, y: Array, circle: Circle, xp: Namespace) -> tuple[Array, Array]:
    """A_m = sum_j tau_j y_j (rows, angles), in its two parts."""
    real, imaginary, first = 0.0, 0.0, 0
    for items in _item_blocks(swaps, circle.cos.shape[1]):
        own = y[:, first : first + items.p.shape[1]]
        first += items.p.shape[1]
        mixed = own * items.p * items.q
        weights = xp.stack([own * items.p**2, mixed, direction(items, xp) * mixed], axis=1)  # (rows, 3, items)
        sums = xp.matmul(weights, 1.0 / _squared_modulus(items, circle))
        real = real + sums[:, 0, :] + sums[:, 1, :] * circle.cos
        imaginary = imaginary + sums[:, 2, :] * circle.sin
    return real, imaginary


# --- blocks ---------------------------------------------------------------------------------------


def _row_blocks(swaps: Swaps, extra: tuple[Array, ...]) -> Iterator[tuple[Swaps, tuple[Array, ...]]]:
    """Some rows at a time; there are at most MOST_ANGLES angles."""
    return row_blocks(swaps, extra, LARGEST_BLOCK // (MOST_ANGLES * swaps.p.shape[1]))


def _item_blocks(swaps: Swaps, angles: int) -> Iterator[Swaps]:
    """Some items at a time."""
    rows, n = swaps.p.shape
    in_block = max(1, LARGEST_BLOCK // (rows * angles))
    for first in range(0, n, in_block):
        yield Swaps(*(array[:, first : min(first + in_block, n)] for array in swaps))
