"""Where the compressed form of successive softmax is faster than the direct one.

The costs of compression are fitted to what benchmarks/measure_crossover.py measures. That of the direct form is the
generic core's in the same unit, from a few sizes, and only roughly right: fit all anew when a faster one is there.
"""

from __future__ import annotations

from typing import Any

from gumbeltopk._generic.successive_softmax import LARGEST_POWER_BY_PRODUCTS
from gumbeltopk._numpy.compression.block import LONG_ROW
from gumbeltopk._numpy.compression.driver import efforts

ITEM_STEP, ITEM_STEP_WITH_POWER = 5.0, 10.0
OF_A_CALL = 1e5
OF_AN_ITEM, OF_AN_ITEM_OF_A_LONG_ROW = 10.0, 5.0
POINT_STEP = 8.0
POINT_STEP_OF_BINS = 2000.0  # a step on a long row costs the calls, however many points there are
NODES = 8


def prefers_compressed(rows: int, n: int, k: int, power: Any) -> bool:
    """Whether to compress `rows` rows of n items for k steps, `power` = beta."""
    tries = efforts(n, k)
    if k < 2 or not tries:
        return False
    has_short_cut = isinstance(power, float) and (
        power == 0.5 or (power == round(power) and power <= LARGEST_POWER_BY_PRODUCTS)
    )
    direct = rows * n * k * (ITEM_STEP if has_short_cut else ITEM_STEP_WITH_POWER)
    if n >= LONG_ROW:
        compressed = rows * (OF_A_CALL + n * OF_AN_ITEM_OF_A_LONG_ROW + k * POINT_STEP_OF_BINS)
    else:
        compressed = OF_A_CALL + rows * (n * OF_AN_ITEM + k * POINT_STEP * (tries[0].heavy + NODES))
    return compressed < direct
