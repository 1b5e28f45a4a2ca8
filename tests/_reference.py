"""Naive oracles: the formulas of the paper, written down as they stand, by enumeration or with many digits.

They share no code with the package and use none of its tricks: 1 - p is formed by subtraction, sums run over all k!
orders. What makes them right is that nothing is rounded where it matters.
"""

from __future__ import annotations

import functools
import itertools
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np


def ordered_probability(weights: Any, order: Any) -> Fraction:
    """Eq. 1 in exact rationals: w_{i_1} / W * w_{i_2} / (W - w_{i_1}) * ..."""
    exact = [Fraction(float(w)) for w in weights]
    remaining = sum(exact)
    p = Fraction(1)
    for item in order:
        p *= exact[item] / remaining
        remaining -= exact[item]
    return p


def subset_probability(weights: Any, subset: Any) -> Fraction:
    """Eq. 2 in exact rationals: the sum of eq. 1 over all orders of the subset."""
    return sum((ordered_probability(weights, order) for order in itertools.permutations(subset)), Fraction(0))


def subset_probability_by_dynamic_programming(weights: Any, subset: Any) -> Any:
    """Eq. 2 in mpmath: p(A + i) += p(A) w_i / (W - w(A)) over the subsets A of S; all terms are positive."""
    members = [mpmath.mpf(weights[i]) for i in subset]
    total = mpmath.fsum(mpmath.mpf(w) for w in weights)
    table = {0: mpmath.mpf(1)}
    for mask in range(1 << len(members)):
        left = total - mpmath.fsum(w for i, w in enumerate(members) if mask >> i & 1)
        for i, w in enumerate(members):
            if not mask >> i & 1:
                table[mask | 1 << i] = table.get(mask | 1 << i, mpmath.mpf(0)) + table[mask] * w / left
    return table[(1 << len(members)) - 1]


@functools.cache
def two_classes(n: int, heavy: int, k: int, log_odds: float) -> dict[str, Any]:
    """pi of single items and of pairs, from the chain that follows the number X of heavy items over the k draws.

    All items of a class are alike, so that e.g. a pair of heavy items has E X (X - 1) / (heavy (heavy - 1)).
    """
    with mpmath.workdps(60):
        odds, p = mpmath.exp(mpmath.mpf(log_odds)), {0: mpmath.mpf(1)}
        for drawn in range(k):
            following: dict[int, Any] = {}
            for x, mass in p.items():
                of_heavy, of_light = odds * (heavy - x), mpmath.mpf(n - heavy - (drawn - x))
                for x_next, weight in ((x + 1, of_heavy), (x, of_light)):
                    following[x_next] = following.get(x_next, mpmath.mpf(0)) + mass * weight / (of_heavy + of_light)
            p = following
        light = n - heavy

        def mean(f: Any) -> Any:
            return mpmath.fsum(mass * f(x) for x, mass in p.items())

        return {
            "heavy": mean(lambda x: x) / heavy,
            "light": mean(lambda x: k - x) / light,
            "no heavy": mean(lambda x: heavy - x) / heavy,
            "no light": mean(lambda x: light - (k - x)) / light,
            "two heavy": mean(lambda x: x * (x - 1)) / (heavy * (heavy - 1)),
            "two light": mean(lambda x: (k - x) * (k - x - 1)) / (light * (light - 1)),
            "both": mean(lambda x: x * (k - x)) / (heavy * light),
        }


def gradient_by_log_weights(log_p: Any, weights: Any, digits: int = 60) -> np.ndarray[Any, Any]:
    """d log_p(weights) / d log w, by central differences with twice the digits, so that they are exact in float64."""
    with mpmath.workdps(3 * digits):
        step = mpmath.mpf(10) ** -digits
        gradient = []
        for i in range(len(weights)):
            values = []
            for sign in (1, -1):
                moved = [mpmath.mpf(w) for w in weights]
                moved[i] *= mpmath.exp(sign * step)
                values.append(log_p(moved))
            gradient.append(float((values[0] - values[1]) / (2 * step)))
    return np.asarray(gradient)


def successive_softmax(keys: Any, k: int, temperature: float) -> list[list[Any]]:
    """Eqs. 3-5 in mpmath: the k relaxed one-hots p^j, with 1 - p by subtraction."""
    t = mpmath.mpf(float(temperature))
    alpha = [mpmath.mpf(float(r)) for r in keys]
    steps = []
    for _ in range(k):
        top = max(alpha)
        v = [mpmath.exp((a - top) / t) for a in alpha]
        total = mpmath.fsum(v)
        p = [x / total for x in v]
        steps.append(p)
        if len(steps) < k:
            alpha = [a + mpmath.log(1 - q) for a, q in zip(alpha, p, strict=True)]
    return steps


def successive_softmax_gradient(keys: Any, k: int, temperature: float, cotangent: Any) -> tuple[list[Any], Any]:
    """Gradient of sum(cotangent * a) by keys and temperature: the chain rule of the textbook, with many digits."""
    t = mpmath.mpf(float(temperature))
    g = [mpmath.mpf(float(c)) for c in cotangent]
    steps = successive_softmax(keys, k, temperature)
    x = [mpmath.mpf(0)] * len(g)  # adjoint of alpha^{j+1}
    by_temperature = mpmath.mpf(0)
    alphas = [[mpmath.mpf(float(r)) for r in keys]]
    for p in steps[:-1]:
        alphas.append([a + mpmath.log(1 - q) for a, q in zip(alphas[-1], p, strict=True)])
    for j in reversed(range(k)):
        p = steps[j]
        p_bar = list(g) if j == k - 1 else [gi - xi / (1 - pi) for gi, xi, pi in zip(g, x, p, strict=True)]
        mean = mpmath.fsum(pi * b for pi, b in zip(p, p_bar, strict=True))
        softmax_bar = [pi * (b - mean) for pi, b in zip(p, p_bar, strict=True)]
        by_temperature -= mpmath.fsum(s * a for s, a in zip(softmax_bar, alphas[j], strict=True)) / t**2
        x = [xi + s / t for xi, s in zip(x, softmax_bar, strict=True)]
    return x, by_temperature


def digits_for(keys: Any, temperature: float) -> int:
    """Enough for 1 - p of the largest gap, and fifty more."""
    finite = [float(r) for r in keys if np.isfinite(r)]
    return int((max(finite) - min(finite)) / temperature * 0.4343) + 60
