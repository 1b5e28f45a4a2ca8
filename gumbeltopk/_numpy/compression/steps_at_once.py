"""Several reverse steps of one row at once, as matrix products.

A step of the VJP is linear in the adjoint x, and costs half a dozen NumPy calls on a few hundred numbers, which is the
price of the calls. With q = beta p / (1 - p), the weights w of the points, and s, which is 1 where a column feels what
all share, a step without a pivot is

    x <- (1 - q) x + p g - t p s,   t = w . (p g) - (w q) . x.

Let P_j be the product of the 1 - q of the steps from j on, which come first in this pass, and R_j = p_j / P_j. With the
x^0 that enters, step j finds

    x = P_{j+1} (x^0 + sum_{h > j} R_h (g - t_h s)),

so the t solve a triangular system, whose matrices are products of the w q_j P_{j+1} with the R_h.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LARGEST_RATE = 0.9  # of q: products of the 1 - q stay positive and clear of underflow
MOST_STEPS = 32
LARGEST_PRODUCT = 1 << 17  # multiplications in a matrix product: OpenBLAS starts threads from twice as many on

Floats = npt.NDArray[Any]


class Inputs(NamedTuple):
    """The two linear forms of the points (points,): the total of an adjoint is `by_own` . E + `shared` . D."""

    items: int
    by_own: Floats  # g of the items, then the node weights of the measure sum g delta_v
    shared: Floats  # 1 for the items, then the node weights of sum delta_v


def length(points: int) -> int:
    """How many steps to take at once."""
    return max(1, min(MOST_STEPS, math.isqrt(LARGEST_PRODUCT // points)))


def reverse(states: Floats, inputs: Inputs, beta: float, x: Floats, logs: bool) -> tuple[Floats, float] | None:
    """The adjoint x of [items, E at the nodes, D at the nodes] after the steps of `states` (steps, points), descending.

    Also their part of the sum of x log(1 - p), if `logs`. None where
    the steps have to be made one by one.
    """
    if np.max(states) > LARGEST_RATE / (beta + LARGEST_RATE):
        return None
    items, steps = inputs.items, len(states)
    complement = 1.0 - states
    q = states / complement
    if beta != 1.0:
        q *= beta
    products = 1.0 - q
    rows = list(products)
    for row, later in zip(rows[-2::-1], rows[:0:-1], strict=True):
        np.multiply(row, later, row)
    r = states / products
    q[:-1] *= products[1:]
    at_points = _per_point(x, inputs)
    totals = states @ inputs.by_own - q @ at_points
    totals -= np.add.reduce(((q * inputs.by_own) @ r.T) * _later(steps), axis=1)
    matrix = ((q * inputs.shared) @ r.T) * _minus_later(steps)
    matrix.flat[:: steps + 1] = 1.0
    t = np.linalg.solve(matrix, totals)

    sums, shares = np.add.reduce(r, axis=0), t @ r
    change = np.concatenate([inputs.by_own[:items] * sums[:items] - shares[:items], sums[items:], -shares[items:]])
    after = (x + change) * np.concatenate([products[0], products[0, items:]])
    if not logs:
        return after, 0.0
    # The total of x log(1 - p) in each step: E and D enter through their linear forms, P is common to both.
    found = inputs.by_own - t[:, None] * inputs.shared
    found *= r
    found[:-1] = found[1:]
    found[-1] = at_points
    np.add.accumulate(found[::-1], axis=0, out=found[::-1])
    found[:-1] *= products[1:]
    found *= np.log(complement)
    return after, float(np.add.reduce(found, axis=None))


def _per_point(x: Floats, inputs: Inputs) -> Floats:
    """What the points' columns add to a total, E and D together (points,)."""
    items = inputs.items
    nodes = len(inputs.shared) - items
    e, d = x[items : items + nodes], x[items + nodes :]
    return np.concatenate([x[:items], inputs.by_own[items:] * e + inputs.shared[items:] * d])


@functools.cache
def _later(steps: int) -> Floats:
    return np.tri(steps, k=-1).T


@functools.cache
def _minus_later(steps: int) -> Floats:
    return -_later(steps)
