"""Checks of what a reservoir is given: sizes, item numbers, weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _validation
from gumbeltopk._array_api import Array
from gumbeltopk._messages import shown


def check_reservoir_size(k: Any) -> int:
    """The number of items that a reservoir keeps, at least 1."""
    number = _validation.as_integer(k, "k")
    if number < 1:
        raise ValueError(f"k = {number} keeps nothing; pass 1 or more")
    return number


def check_count(value: Any) -> int:
    """A number of items that each can have a number."""
    count = _validation.as_integer(value, "count")
    if count < 0:
        raise ValueError(f"count = {count} is negative; pass the number of items")
    if count > 2**63 - 1:
        raise ValueError(f"count = {count} is more than the 2**63 - 1 items that can have a number; pass fewer")
    return count


def check_item_number(value: Any, name: str, count: int = 0) -> int:
    """The number of the first of `count` items; all of them fit in 64 bits."""
    number = _validation.as_integer(value, name)
    if not 0 <= number <= 2**63 - 1 - count:
        raise ValueError(f"{name} = {number} gives items numbers outside 0 .. 2**63 - 1; item numbers begin at 0")
    return number


def check_item_weight(weight: Any, number: int) -> float:
    """The weight of one item of a stream."""
    if isinstance(weight, (bool, np.bool_)) or not isinstance(weight, (float, int, np.integer, np.float32, np.float16)):
        raise TypeError(
            f"weight = {shown(weight)} of item number {number} must be a number, not {type(weight).__name__}"
        )
    try:
        value = float(weight)
    except OverflowError:
        raise ValueError(
            f"weight = {shown(weight)} of item number {number} is beyond the largest float; "
            "divide all weights by one number"
        ) from None
    if not 0.0 <= value < math.inf:
        raise ValueError(f"weight = {value} of item number {number}; pass finite numbers that are not negative")
    return value


def iterator_of_pairs(pairs: Any) -> Iterator[Any]:
    """An iterator of what should be pairs."""
    try:
        return iter(pairs)
    except TypeError:
        raise TypeError(
            f"pairs = {shown(pairs)} cannot be iterated over; pass an iterable of pairs (item, weight)"
        ) from None


def not_a_pair(pair: Any, number: int) -> Exception:
    """The error for something among the pairs that does not unpack into two."""
    return TypeError(f"pairs has {shown(pair)} as item number {number}; pass pairs (item, weight)")


def as_chunk_weights(weights: Any) -> Array:
    """The weights of a chunk as a NumPy array (n,); its values are looked at by `check_chunk_weights`."""
    weights = _validation.as_real_array(weights, "weights")
    if not isinstance(weights, np.ndarray):
        library = api.namespace_name(api.namespace_of(weights))
        raise TypeError(f"weights is an array of {library}; a reservoir is on the host: pass a NumPy array")
    if weights.ndim != 1:
        raise ValueError(f"weights has shape {weights.shape}; pass the weights of a chunk, shape (n,)")
    return weights


def check_chunk_weights(weights: Array, index: int, number: int) -> None:
    """Each weight finite and not negative; `index` and `number` are those of the first, in its chunk and overall."""
    good = (weights >= 0) & (weights < math.inf)
    if bool(good.all()):
        return
    place = int(np.argmin(good))
    raise ValueError(
        f"weights[{index + place}] = {weights[place]} (item number {number + place}); "
        "pass finite numbers that are not negative"
    )
