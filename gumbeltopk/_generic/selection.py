"""The k earliest arrivals of each row."""

from __future__ import annotations

from gumbeltopk._array_api import Array, Namespace


def first_arrivals(times: Array, k: int, xp: Namespace) -> Array:
    """Indices (..., k) of the k smallest times, earliest first; ties go to the lower index."""
    return xp.argsort(times, axis=-1, stable=True)[..., :k]


def put_along_rows(array: Array, indices: Array, values: Array, xp: Namespace) -> Array:
    """`array` (rows, n) with `values` (rows, k) at the distinct `indices` (rows, k) of each row: k passes."""
    items = xp.arange(array.shape[-1], dtype=indices.dtype, device=array.device)
    for j in range(indices.shape[-1]):
        array = xp.where(indices[:, j, None] == items, values[:, j, None], array)
    return array


def put_along_rows_by_assignment(array: Array, indices: Array, values: Array, xp: Namespace) -> Array:
    """The same in one pass, for libraries whose arrays take an array of integers as the target of an assignment."""
    result = xp.asarray(array, copy=True)
    rows = xp.arange(array.shape[0], dtype=indices.dtype, device=indices.device)
    result[rows[:, None], indices] = values
    return result
