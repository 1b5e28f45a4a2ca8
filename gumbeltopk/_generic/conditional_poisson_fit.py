"""Logits of a conditional Poisson distribution from its marginals: Newton's method, O(n) for each product with Cov.

The equations are logit mu_i(theta) = logit pi_i + c with one c for all items, which is 0 where the pi sum to k. In this
scale they are nearly linear, however close to 0 or 1 the pi may be: if swaps are rare, logit mu_i is theta_i plus a
constant, and if they are many, it is again, to order 1 / sigma^2. With D = diag(mu (1 - mu)) and F the difference of
both sides, a step Delta solves
    Cov Delta = -D F,
by conjugate gradients with the preconditioner D: n - 1 of the eigenvalues of D^{-1} Cov have the mean n / (n - 1), and
for large n all are near 1.
"""

from __future__ import annotations

import math

from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._generic import conditional_poisson
from gumbeltopk._generic.swaps import Swaps

STEPS = 60
HALVINGS = 30
CONJUGATE_STEPS = 200
CONJUGATE_ACCURACY = 1e-10  # of the squared norm
ACCURACY = 1e-13  # of the differences of logits, relative to 1 + the largest of them


def fit(pi: Array, k: int, xp: Namespace) -> tuple[Array, Array]:
    """Logits (rows, n) whose marginals are `pi`, strictly between 0 and 1; and the largest |F| (rows,) that is left."""
    goal = xp.log(pi) - xp.log1p(-pi)
    if k in (0, pi.shape[-1]) or 0 in pi.shape:
        return goal, xp.sum(xp.zeros_like(goal), axis=-1)
    enough = ACCURACY * (1.0 + xp.max(xp.abs(goal), axis=-1, keepdims=True))
    logits = goal
    difference, weight, swaps = _difference(logits, goal, k, xp)
    error = _largest(difference, xp)
    for _ in range(STEPS):
        if bool(xp.all(error <= enough)):
            break
        step = _solve(swaps, weight, -weight * difference, xp)
        before = error
        logits, difference, weight, swaps, error = _search(logits, step, goal, k, error, xp)
        if bool(xp.all((error <= enough) | (error >= before))):  # rounding is all that is left
            break
    return logits, error[:, 0]


def _difference(logits: Array, goal: Array, k: int, xp: Namespace) -> tuple[Array, Array, Swaps]:
    """F without its weighted mean c, and D, both (rows, n)."""
    swaps = conditional_poisson.tilt(conditional_poisson.find_mode(logits, k, xp), xp)
    _, included, excluded = conditional_poisson.included_and_excluded(swaps, xp)
    difference = xp.log(included) - xp.log(excluded) - goal
    weight = included * excluded
    mean = xp.sum(weight * difference, axis=-1, keepdims=True) / xp.sum(weight, axis=-1, keepdims=True)
    return difference - mean, weight, swaps


def _largest(difference: Array, xp: Namespace) -> Array:
    """max |F| (rows, 1); infinite where the step went astray."""
    largest = xp.max(xp.abs(difference), axis=-1, keepdims=True)
    return xp.where(xp.isfinite(largest), largest, math.inf)


def _search(
    logits: Array, step: Array, goal: Array, k: int, error: Array, xp: Namespace
) -> tuple[Array, Array, Array, Swaps, Array]:
    """The full step, or half of it, or a quarter, ...: the first that makes the error smaller, in each row."""
    length = xp.ones_like(error)
    for _ in range(HALVINGS):
        moved = logits + length * step
        difference, weight, swaps = _difference(moved, goal, k, xp)
        following = _largest(difference, xp)
        worse = ~(following < error)
        if not bool(xp.any(worse)):
            return moved, difference, weight, swaps, following
        length = xp.where(worse, 0.5 * length, length)
    moved = logits + xp.where(worse, 0.0, length) * step
    difference, weight, swaps = _difference(moved, goal, k, xp)
    return moved, difference, weight, swaps, _largest(difference, xp)


def _solve(swaps: Swaps, weight: Array, right: Array, xp: Namespace) -> Array:
    """Cov x = right by conjugate gradients, where sum(right) = 0."""
    solution = xp.zeros_like(right)
    residual = right
    search = residual / weight
    norm = xp.sum(residual * residual / weight, axis=-1, keepdims=True)
    small = CONJUGATE_ACCURACY * norm
    for _ in range(min(CONJUGATE_STEPS, right.shape[-1])):
        image = conditional_poisson.covariance_of(swaps, search, xp)
        curvature = xp.sum(search * image, axis=-1, keepdims=True)
        active = (norm > small) & (curvature > 0)
        if not bool(xp.any(active)):
            break
        length = xp.where(active, norm / xp.where(active, curvature, 1.0), 0.0)
        solution = solution + length * search
        residual = residual - length * image
        following = xp.sum(residual * residual / weight, axis=-1, keepdims=True)
        search = residual / weight + xp.where(active, following / xp.where(active, norm, 1.0), 0.0) * search
        norm = xp.where(active, following, norm)
    return solution
