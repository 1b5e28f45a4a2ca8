"""Checks of what only the workers see. Messages name the index in the whole array, not in the block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk import _validation
from gumbeltopk._array_api import Array


def check_block(block: Any, name: str, in_logs: bool, origin: tuple[int, ...]) -> Array:
    """A block (rows, columns) or (items,) of weights, or of log-weights or keys, whose first item is at `origin`."""
    block = _validation.as_real_array(block, name)
    if not isinstance(block, np.ndarray):
        raise TypeError(f"{name} has blocks of type {type(block).__name__}; make them NumPy arrays by map_blocks")
    good = block < math.inf if in_logs else (block >= 0) & (block < math.inf)
    if not good.all():
        place = _validation.first_bad_position(good)
        index = [first + local for first, local in zip(origin, place, strict=True)]
        if name == "keys":
            remedy = "finite numbers, or -inf for an item that is never selected"
        elif in_logs:
            remedy = "finite numbers, or -inf for a weight of zero"
        else:
            remedy = "finite numbers that are not negative"
        raise ValueError(f"{name}{index} = {block[place]}; pass {remedy}")
    return block


def check_enough(arrivals: Array, name: str, k: int, n: int) -> None:
    """Each row of the earliest arrivals (.., k) is finite."""
    counts = np.count_nonzero(arrivals["log_time"] < math.inf, axis=-1)
    if np.all(counts >= k):
        return
    where = ""
    if arrivals.ndim > 1:
        rows = arrivals["number"][counts < k, 0] // n
        shown = rows[: _validation.ROWS_IN_A_MESSAGE].tolist()
        where = f" in rows {shown}{' ...' if len(rows) > len(shown) else ''}"
    raise ValueError(
        f"k = {k} is more than the {np.min(counts)} items of positive weight{where} of {name}; "
        "lower k or give more items a positive weight"
    )
