"""Sampling without replacement from rows of different lengths that lie one behind the other, as in a CSR matrix.

Rows of similar length are laid side by side, filled up with items of weight zero to the next power of two, and sampled
as a batch. So the work is vectorised over rows, and the filling at most doubles it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _random, _sample_by_keys, _sampling_validation, _validation, keys
from gumbeltopk._array_api import Array, Namespace

__all__ = ["sample_ragged"]

Integers = np.ndarray[Any, np.dtype[np.int64]]


def sample_ragged(
    log_weights: Any = None,
    offsets: Any = None,
    k: Any = None,
    *,
    weights: Any = None,
    on_short: str = "raise",
    return_mask: bool = False,
    rng: Any = None,
    check: bool = True,
) -> Any:
    """Draw k items without replacement from each row of a ragged array, by weight (Algorithm 1, eq. 1).

    Row r consists of the items offsets[r] .. offsets[r + 1] - 1, e.g. the neighbours of node r of a graph in CSR form.

    Parameters
    ----------
    log_weights : array_like, shape (items,)
        Logarithms of the weights of all rows, one row behind the other; -inf is a weight of zero.
    offsets : integer array_like, shape (rows + 1,)
        Where the rows begin, and where the last one ends; it never decreases. Items before the first row or behind the
        last one are not drawn.
    k : int, or integer array_like, shape (rows,)
        Number of items, or that of each row.
    weights : array_like, shape (items,)
        The weights themselves, instead of `log_weights`.
    on_short : {"raise", "pad"}
        What becomes of a row with fewer than k items of positive weight: an error, or -1 in place of what is missing.
    return_mask : bool
        Whether to return also where the positions are items, and not -1.
    rng : None, int, SeedSequence, Generator or CounterRNG
        After SPEC 7. Each item has a draw of its own, in the order of the flat array.
    check : bool
        Whether to look for bad weights (on a GPU this waits for the device).

    Returns
    -------
    positions : integer array, shape (rows, k), or (rows, max k)
        Positions in the flat array, in order of selection: `targets[positions]` are the drawn neighbours. Within the
        row they are `positions - offsets[:-1, None]`.
    mask : boolean array of the same shape
        If `return_mask`.

    Raises
    ------
    ValueError, TypeError
        Bad weights or offsets, or k more than the items of positive weight of a row (the rows are listed).

    See Also
    --------
    sample : rows of one length.

    Notes
    -----
    With the same seed a smaller sample is the beginning of a larger one.

    Examples
    --------
    Two of the neighbours of each node, where there are two:

    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> weights, offsets = np.asarray([1.0, 2.0, 3.0, 5.0]), np.asarray([0, 3, 3, 4])
    >>> gt.sample_ragged(weights=weights, offsets=offsets, k=2, on_short="pad", rng=0).tolist()
    [[2, 1], [-1, -1], [3, -1]]
    """
    given, in_logs = _validation.check_weights_or_log_weights(log_weights, weights)
    name = "log_weights" if in_logs else "weights"
    if given.ndim != 1:
        raise ValueError(f"{name} has shape {tuple(given.shape)}; pass the items of all rows in one dimension")
    _sampling_validation.check_choice(on_short, "on_short", ("raise", "pad"))
    return_mask = _sampling_validation.check_flag(return_mask, "return_mask")
    check = _sampling_validation.check_flag(check, "check")
    offsets = _sampling_validation.check_offsets(offsets, given.shape[0])
    if k is None:
        raise TypeError("k is missing: pass the number of items of each row, e.g. sample_ragged(w, offsets, 10)")
    k, wanted = _sampling_validation.check_k_of_rows(k, given.shape[0], (len(offsets) - 1,), at_most_n=False)
    wanted = np.full(len(offsets) - 1, k) if wanted is None else wanted
    xp = api.namespace_of(given)
    if check:
        keys.check_values(given, in_logs, 0, xp)
    found = np.minimum(_count_positive(given, in_logs, offsets, xp), wanted)
    if on_short == "raise":
        _sampling_validation.check_enough_for_each(found, wanted, name)
    drawn = tuple(given.shape) if k > 0 else (0,)
    exponentials = _random.standard_exponential(rng, drawn, xp, api.device_of(given))
    positions = _draw(given, in_logs, exponentials, offsets, found, k, xp)
    return (positions, positions >= 0) if return_mask else positions


def _count_positive(given: Array, in_logs: bool, offsets: Integers, xp: Namespace) -> Integers:
    """Number of items of positive weight of each row, on the host."""
    positive = given > (-math.inf if in_logs else 0.0)
    if bool(xp.all(positive)):
        return np.diff(offsets)
    before = np.zeros(len(positive) + 1, dtype=np.int64)
    np.cumsum(api.host(positive), out=before[1:])
    return np.diff(before[offsets])


def _draw(
    given: Array, in_logs: bool, exponentials: Array, offsets: Integers, found: Integers, k: int, xp: Namespace
) -> Array:
    """Positions (rows, k) of the first `found` (rows,) picks of each row, and then -1."""
    device, dtype = api.device_of(given), api.index_dtype(xp, api.device_of(given))
    if found.max(initial=0) == 0:
        return xp.full((len(found), k), -1, dtype=dtype, device=device)
    picks, rows_in_order = [], []
    items_at_a_time = _sample_by_keys.BLOCK_ITEMS if api.is_numpy_namespace(xp) else given.shape[0]
    for rows, width in _buckets(offsets, items_at_a_time):
        table = _Table(given, in_logs, exponentials, offsets[rows], offsets[rows + 1], width, xp)
        picks.append(table.first(found[rows], k))
        rows_in_order.append(rows)
    back = np.argsort(np.concatenate(rows_in_order), kind="stable")
    return xp.take(xp.concat(picks), xp.asarray(back, dtype=dtype, device=device), axis=0)


def _buckets(offsets: Integers, items_at_a_time: int) -> Iterator[tuple[Integers, int]]:
    """(rows, width): each row once, with rows that fill more than half of the width, not too many at a time.

    A row that is longer than all that is worked on at a time comes alone, and is not filled up.
    """
    lengths = np.diff(offsets)
    widths = np.left_shift(1, np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64))
    widths = np.where(widths > items_at_a_time, lengths, widths)
    order = np.argsort(widths, kind="stable")
    distinct, first = np.unique(widths[order], return_index=True)
    for width, begin, end in zip(distinct.tolist(), first, np.append(first[1:], len(order)), strict=True):
        step = max(1, items_at_a_time // width)
        for start in range(begin, end, step):
            yield order[start : min(start + step, end)], width


class _Table:
    """Rows of similar length side by side, (rows, width), filled up with items of weight zero."""

    def __init__(
        self,
        given: Array,
        in_logs: bool,
        exponentials: Array,
        begins: Integers,
        ends: Integers,
        width: int,
        xp: Namespace,
    ) -> None:
        self.in_logs, self.xp, self.device = in_logs, xp, api.device_of(given)
        self.dtype = api.index_dtype(xp, self.device)
        self.begins = xp.asarray(begins[:, np.newaxis], dtype=self.dtype, device=self.device)
        positions = begins[:, np.newaxis] + np.arange(width)
        inside = positions < ends[:, np.newaxis]
        flat = xp.asarray(np.where(inside, positions, 0).reshape(-1), dtype=self.dtype, device=self.device)
        inside = xp.asarray(inside, device=self.device)
        zero = xp.asarray(-math.inf if in_logs else 0.0, dtype=given.dtype, device=self.device)
        self.rows = xp.where(inside, xp.reshape(xp.take(given, flat, axis=0), inside.shape), zero)
        self.exponentials = xp.reshape(xp.take(exponentials, flat, axis=0), inside.shape)

    def first(self, found: Integers, k: int) -> Array:
        """Positions (rows, k) of the first picks, as many as `found` says, and then -1."""
        xp = self.xp
        needed = xp.asarray(found, dtype=self.dtype, device=self.device)
        drawn = min(k, self.rows.shape[-1])
        missing = xp.full((self.rows.shape[0], k - drawn), -1, dtype=self.dtype, device=self.device)
        if drawn == 0:
            return missing
        picks = _sample_by_keys.select_first(self.rows, self.in_logs, drawn, self.exponentials, xp, needed=needed)
        positions = xp.concat([self.begins + xp.astype(picks, self.dtype, copy=False), missing], axis=-1)
        return xp.where(xp.arange(k, device=self.device) < needed[:, None], positions, -1)
