"""Where the compressed form of successive softmax is faster than the direct one.

Costs are in nanoseconds, on one machine and for float32; only their ratios matter. A power (1 - p)^beta costs more than
products, and the generic core, which takes float64 for beta > 1, most. The numbers are fitted to what
benchmarks/measure_crossover.py measures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gumbeltopk._generic.successive_softmax import LARGEST_POWER_BY_PRODUCTS
from gumbeltopk._numpy.compression.block import LONG_ROW
from gumbeltopk._numpy.compression.driver import efforts

NODES = 8


class Costs(NamedTuple):
    """Of one implementation of the loops."""

    item_step: float  # of the direct form
    item_step_with_power: float
    item_step_of_generic: float
    call: float  # of the compressed form
    item: float
    point_step: float
    long_row: float  # each is a call of its own
    item_of_long_row: float
    step_of_long_row: float
    double: float  # how many times as long float64 takes for an item


NUMPY = Costs(4.0, 12.0, 24.0, 4e5, 40.0, 28.0, 4e5, 20.0, 8000.0, 1.0)
COMPILED = Costs(1.7, 7.5, 97.0, 1.1e6, 15.0, 17.0, 4.6e5, 1.5, 15000.0, 1.6)


def prefers_compressed(rows: int, n: int, k: int, power: Any, double: bool, compiled: bool = False) -> bool:
    """Whether to compress `rows` rows of n items for k steps, `power` = beta.

    `double` for float64 keys, `compiled` where numba runs the loops.
    """
    tries = efforts(n, k)
    if k < 2 or not tries:
        return False
    costs = COMPILED if compiled else NUMPY
    width = costs.double if double else 1.0
    direct = rows * n * k * _item_step(costs, power, double)
    if n >= LONG_ROW:
        compressed = rows * (costs.long_row + n * costs.item_of_long_row * width + k * costs.step_of_long_row)
    else:
        points = tries[0].heavy + NODES
        compressed = costs.call + rows * (n * costs.item * width + k * costs.point_step * points)
    return compressed < direct


def _item_step(costs: Costs, power: Any, double: bool) -> float:
    if double and np.any(power > 1.0):
        return costs.item_step_of_generic
    whole = isinstance(power, float) and power == round(power) and power <= LARGEST_POWER_BY_PRODUCTS
    has_short_cut = whole or (isinstance(power, float) and power == 0.5)
    if not has_short_cut:
        return costs.item_step_with_power
    return costs.item_step * (costs.double if double else 1.0)
