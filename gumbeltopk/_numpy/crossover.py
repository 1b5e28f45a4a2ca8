"""Where the compressed form of successive softmax is faster than the direct one.

The unit of cost is one item in one step of the direct form, with a short cut for (1 - p)^beta; a power costs more, and
the generic core, which takes float64 for beta > 1, most. The numbers are fitted to what benchmarks/measure_crossover.py
measures; the generic core's is from a few sizes only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gumbeltopk._generic.successive_softmax import LARGEST_POWER_BY_PRODUCTS
from gumbeltopk._numpy.compression.block import LONG_ROW
from gumbeltopk._numpy.compression.driver import efforts

ITEM_STEP, ITEM_STEP_WITH_POWER, ITEM_STEP_OF_GENERIC = 1.0, 3.0, 6.0
OF_A_CALL = 1e5
OF_AN_ITEM, OF_AN_ITEM_OF_A_LONG_ROW = 10.0, 5.0
POINT_STEP = 7.0
ITEM_STEP_COMPILED, POINT_STEP_COMPILED = 0.25, 2.0  # in numba's loops
POINT_STEP_OF_BINS = 2000.0  # a step on a long row costs the calls, however many points there are
NODES = 8


def prefers_compressed(rows: int, n: int, k: int, power: Any, double: bool, compiled: bool = False) -> bool:
    """Whether to compress `rows` rows of n items for k steps, `power` = beta.

    `double` for float64 keys, `compiled` where numba runs the steps.
    """
    tries = efforts(n, k)
    if k < 2 or not tries:
        return False
    direct = rows * n * k * _item_step(power, double, compiled)
    point_step = POINT_STEP_COMPILED if compiled else POINT_STEP
    if n >= LONG_ROW:
        compressed = rows * (OF_A_CALL + n * OF_AN_ITEM_OF_A_LONG_ROW + k * POINT_STEP_OF_BINS)
    else:
        compressed = OF_A_CALL + rows * (n * OF_AN_ITEM + k * point_step * (tries[0].heavy + NODES))
    return compressed < direct


def _item_step(power: Any, double: bool, compiled: bool) -> float:
    if double and np.any(power > 1.0):
        return ITEM_STEP_OF_GENERIC
    whole = isinstance(power, float) and power == round(power) and power <= LARGEST_POWER_BY_PRODUCTS
    has_short_cut = whole or (isinstance(power, float) and power == 0.5)
    if not has_short_cut:
        return ITEM_STEP_WITH_POWER
    return ITEM_STEP_COMPILED if compiled else ITEM_STEP
