"""Successive softmax over blocks of rows that stay in cache: the generic core, without its trips to memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from gumbeltopk._generic import successive_softmax as generic

BLOCK_ITEMS = 1 << 14


def forward(
    keys: Any, temperature: Any, power: Any, k: int, every: int | None, xp: Any
) -> tuple[Any, generic.Trajectory | None]:
    """As the generic `forward`, block by block where no trajectory is kept."""
    rows, n = keys.shape
    rows_in_block = max(1, BLOCK_ITEMS // n)
    if every is not None or rows <= rows_in_block:
        return generic.forward(keys, temperature, power, k, every, xp)
    a = np.empty_like(keys)
    for first in range(0, rows, rows_in_block):
        block = slice(first, first + rows_in_block)
        own_temperature = temperature if temperature.shape[0] == 1 else temperature[block]
        own_power = power if isinstance(power, float) or power.shape[0] == 1 else power[block]
        a[block] = generic.forward(keys[block], own_temperature, own_power, k, None, xp)[0]
    return a, None
