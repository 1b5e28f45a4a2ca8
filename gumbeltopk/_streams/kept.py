"""What a reservoir keeps: the earliest arrivals, their weights, their numbers and, where they were given, the items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gumbeltopk._array_api import Array

Items = Any  # None where items are only numbered, an array (n, ...), or a sequence of Python objects


class Kept(NamedTuple):
    """Items in order of arrival. Nothing here is ever changed in place."""

    log_times: Array
    weights: Array
    numbers: Array
    items: Items

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.numbers)


NOTHING = Kept(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64), None)


def first_arrivals(first: Kept, second: Kept, k: int) -> Kept:
    """The k earliest of both. Ties, which only rounding makes, go to the lower number, whatever came first."""
    log_times = np.concatenate([first.log_times, second.log_times])
    numbers = np.concatenate([first.numbers, second.numbers])
    order = np.argsort(log_times, kind="stable")  # fast where most are in order
    ordered = log_times[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((numbers, log_times))
    order = order[:k]
    weights = np.concatenate([first.weights, second.weights])
    return Kept(ordered[:k], weights[order], numbers[order], pick(_joined_items(first, second), order))


def with_item(kept: Kept, log_time: float, weight: float, number: int, item: Any, k: int) -> Kept:
    """`first_arrivals` of one more item, whose time is no tie, in a few copies."""
    place = int(kept.log_times.searchsorted(log_time))

    def inserted(array: Array, value: Any) -> Array:
        return np.concatenate((array[:place], (value,), array[place : k - 1]), dtype=array.dtype)

    items = as_list(kept) if not isinstance(kept.items, list) else kept.items
    return Kept(
        inserted(kept.log_times, log_time),
        inserted(kept.weights, weight),
        inserted(kept.numbers, number),
        [*items[:place], item, *items[place : k - 1]],
    )


def pick(items: Items, positions: Array) -> Items:
    """Copies of the items at these positions."""
    if items is None or isinstance(items, np.ndarray):
        return None if items is None else items[positions]
    return [items[position] for position in positions.tolist()]


def _joined_items(first: Kept, second: Kept) -> Items:
    if first.size == 0 or second.size == 0:
        return second.items if first.size == 0 else first.items
    kinds = {type(first.items), type(second.items)}
    if kinds == {type(None)}:
        return None
    if kinds == {np.ndarray}:
        return np.concatenate([first.items, second.items])
    return as_list(first) + as_list(second)


def as_list(kept: Kept) -> list[Any]:
    """The items as Python objects; rows of an array stay arrays."""
    if kept.items is None:
        return kept.numbers.tolist()  # type: ignore[no-any-return]
    if isinstance(kept.items, np.ndarray):
        # `tolist` would make integers of times in nanoseconds.
        plain = kept.items.ndim == 1 and kept.items.dtype.kind not in "mM"
        return kept.items.tolist() if plain else list(kept.items)
    return list(kept.items)


def check_items(items: Any, count: int | None, kept: Kept) -> Items:
    """Items of a chunk: an array or a sequence of `count` items that can stand beside those that are kept."""
    if items is None:
        return None
    if isinstance(items, np.ma.MaskedArray) or not isinstance(items, (np.ndarray, Sequence)) or _is_text(items):
        raise TypeError(f"items is of type {type(items).__name__}; pass a NumPy array, a list or a tuple")
    if isinstance(items, np.ndarray) and items.ndim == 0:
        raise ValueError("items is 0-dimensional; its first axis lists the items")
    if count is not None and len(items) != count:
        raise ValueError(f"items has {len(items)} entries, but there are {count} weights; they must agree")
    if isinstance(items, np.ndarray) and items.dtype.hasobject:
        return list(items)
    if isinstance(items, np.ndarray):
        items = np.asarray(items)
    if isinstance(items, np.ndarray) and isinstance(kept.items, np.ndarray):
        check_arrays_agree(items, kept.items)
    return items


def check_arrays_agree(items: Array, earlier: Array) -> None:
    """Arrays of items are of one dtype and one shape of row; only the widths of strings may differ."""
    same_dtype = items.dtype == earlier.dtype or (items.dtype.kind == earlier.dtype.kind and items.dtype.kind in "US")
    if not same_dtype:
        raise TypeError(f"items has dtype {items.dtype}, but those before had {earlier.dtype}; convert one of them")
    if items.shape[1:] != earlier.shape[1:]:
        raise ValueError(
            f"items has rows of shape {items.shape[1:]}, but those before had {earlier.shape[1:]}; they must agree"
        )


def _is_text(items: Any) -> bool:
    return isinstance(items, (str, bytes, bytearray, memoryview))
