"""Checks of what makes samples differ in size: k of each row, masks, rows of different lengths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _validation
from gumbeltopk._array_api import Array
from gumbeltopk._messages import shown

MOST_ITEMS = 2**60  # of 8 bytes


def check_k_of_rows(k: Any, n: int, batch: tuple[int, ...], at_most_n: bool) -> tuple[int, np.ndarray[Any, Any] | None]:
    """The largest number of items to select and, if k is an array, the number of each row, on the host."""
    if isinstance(k, (list, tuple)):
        k = _validation.as_array(k, "k")
        k = k.astype(np.int64) if k.size == 0 else k  # numpy.asarray([]) is float64
    if isinstance(k, int) or not api.is_array(k) or k.ndim == 0:
        if at_most_n:
            return _validation.check_k(k, n), None
        number = _check_not_negative(k)
        check_addressable((*batch, number), "k", number)
        return number, None
    counts = api.host(_validation.as_array(k, "k"))
    if counts.dtype.kind not in "iu":
        raise TypeError(f"k has dtype {counts.dtype}; pass integers")
    if not _validation.broadcasts_to(counts.shape, batch):
        raise ValueError(
            f"k has shape {counts.shape}, which does not broadcast to the batch shape {batch}; "
            "give one number for each row"
        )
    good = (counts >= 0) & (counts <= n) if at_most_n else counts >= 0
    if not good.all():
        index, value = _validation.first_bad(counts, good)
        raise ValueError(f"k{index} = {value}; pass numbers from 0 to n = {n}")
    largest = int(counts.max(initial=0))
    check_addressable((*batch, largest), "k", largest)
    return largest, np.broadcast_to(counts.astype(np.int64), batch)


def _check_not_negative(k: Any) -> int:
    number = _validation.as_integer(k, "k")
    if number < 0:
        raise ValueError(f"k = {number} is negative; pass 0 or more")
    return number


def check_addressable(shape: tuple[int, ...], name: str, value: Any) -> None:
    """The array of this shape, which comes of the argument's value, is not larger than any memory."""
    if math.prod(shape) > MOST_ITEMS or max(shape, default=0) > MOST_ITEMS:
        raise ValueError(f"{name} = {value} makes an array of shape {shape}, which no memory holds; pass less")


def check_enough_for_each(found: np.ndarray[Any, Any], wanted: Any, name: str) -> None:
    """As many items of positive weight as are wanted, in each row."""
    found, wanted = np.asarray(found), np.broadcast_to(wanted, np.shape(found))
    short = np.atleast_1d(found < wanted)
    if not short.any():
        return
    rows = np.argwhere(short)
    shown = [tuple(map(int, row)) if len(row) > 1 else int(row[0]) for row in rows[: _validation.ROWS_IN_A_MESSAGE]]
    where = f" in rows {shown}{' ...' if len(rows) > len(shown) else ''}" if found.ndim else ""
    first = tuple(rows[0])
    raise ValueError(
        f"k = {int(np.atleast_1d(wanted)[first])} is more than the {int(np.atleast_1d(found)[first])} items of "
        f"positive weight{where} of {name}; lower k, give more items a positive weight, or pass on_short='pad'"
    )


def check_choice(value: Any, name: str, choices: tuple[str, ...]) -> None:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} = {shown(value)} is not known; choose from {', '.join(map(repr, choices))}")


def check_flag(value: Any, name: str) -> bool:
    """A truth value; that of an array, or of the word "no", is not meant."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} = {shown(value)} must be True or False, not {type(value).__name__}")
    return bool(value)


def check_where(where: Any, like: Array, like_name: str) -> Array:
    """Truth values that broadcast with `like`, at home where it is."""
    xp = api.namespace_of(like)
    if not api.is_array(where) or isinstance(where, np.generic):
        values = _validation.as_array(where, "where")
        if values.dtype != np.bool_:
            raise TypeError(f"where has dtype {values.dtype}; pass truth values")
        where = xp.asarray(values.tolist(), dtype=xp.bool, device=api.device_of(like))
    where = _validation.as_array(where, "where")
    _validation.check_same_home(like, like_name, where, "where")
    if where.dtype != xp.bool:
        raise TypeError(f"where has dtype {where.dtype}; pass truth values")
    try:
        np.broadcast_shapes(tuple(where.shape), tuple(like.shape))
    except ValueError:
        raise ValueError(
            f"where has shape {tuple(where.shape)}, which does not broadcast with {tuple(like.shape)} of {like_name}"
        ) from None
    return where


def check_offsets(offsets: Any, items: int) -> np.ndarray[Any, Any]:
    """Where rows begin in a flat array of `items`, and where the last one ends, on the host."""
    if offsets is None:
        raise TypeError("offsets is missing: pass where the rows begin, and where the last one ends")
    offsets = _validation.as_array(offsets, "offsets")
    host = api.host(_validation.check_indices(offsets, items + 1, "offsets", check=False))
    if host.ndim != 1 or len(host) == 0:
        raise ValueError(f"offsets has shape {host.shape}; pass rows + 1 numbers in one dimension")
    good = (host >= 0) & (host <= items)
    if not good.all():
        index, value = _validation.first_bad(offsets, good)  # as it was given: a large uint64 is no int64
        raise ValueError(f"offsets{index} = {value} is outside the flat array; pass numbers from 0 to {items}")
    good = np.append(True, host[1:] >= host[:-1])
    if not good.all():
        index, value = _validation.first_bad(host, good)
        raise ValueError(f"offsets{index} = {value} is less than the one before; a row cannot end before it begins")
    return host.astype(np.int64)


def check_shape(shape: Any, k: int = 1) -> tuple[int, ...]:
    """Numbers of draws of k items, one for each leading axis."""
    lengths = shape if isinstance(shape, (tuple, list)) else (shape,)
    lengths = tuple(_validation.as_integer(length, "shape") for length in lengths)
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape = {lengths} has a negative length")
    check_addressable((*lengths, k), "shape", lengths)
    return lengths
