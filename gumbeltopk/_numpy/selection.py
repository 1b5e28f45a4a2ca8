"""The k earliest arrivals of each row, by partition: O(n + k log k) a row instead of O(n log n)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]

# Times in this range have overflowed nowhere and have all their digits; and the same as bit patterns.
EARLIEST_TIME, LATEST_TIME = 2.0**-900, 2.0**900
EARLIEST_SAFE_TIME, LATEST_SAFE_TIME = np.asarray([EARLIEST_TIME, LATEST_TIME]).view(np.int64).tolist()
# A row of bit patterns is undecided with a probability of about n k^2 / 2^53. Up to here it pays to try.
LARGEST_N_K_SQUARED = 2**46


def first_arrivals(times: Times, k: int, xp: Any) -> Indices:
    """Indices (..., k) of the k smallest times, earliest first."""
    if k == 0 or k == times.shape[-1]:
        return np.argsort(times, axis=-1)[..., :k]
    earliest = np.argpartition(times, k - 1, axis=-1)[..., :k]
    order = np.argsort(np.take_along_axis(times, earliest, axis=-1), axis=-1)
    return np.take_along_axis(earliest, order, axis=-1)


def first_distinct_arrivals(times: npt.NDArray[np.float64], k: int) -> Indices | None:
    """The same for one row (n,) and k > 0, or None if these times cannot tell: one lacks digits, or two are equal."""
    compared = min(k + 1, len(times))  # the first one that is left out must differ, too
    if compared < len(times):
        earliest = times.argpartition(k)[:compared]
        order = times[earliest].argsort()
        earliest = earliest[order]
    else:
        earliest = times.argsort()
    ordered = times[earliest]
    safe = ordered[0] >= EARLIEST_TIME and ordered[k - 1] < LATEST_TIME
    if not safe or (ordered[1:] == ordered[:-1]).any():
        return None
    return earliest[:k]


def first_safe_arrivals(
    times: npt.NDArray[np.float64], k: int, needed: npt.NDArray[np.integer[Any]] | None = None
) -> Indices | None:
    """The same for k > 0, twice as fast, or None if these times cannot tell. `times` is overwritten.

    With `needed`, only that many of the k picks of each row matter: the times of the others may be infinite.

    Positive numbers of float64 have the order of their bit patterns read as integers. The item's own number is
    written over the lowest bits, so that one partition of integers moves both. The result is exact: if the remaining
    bits do not decide it, or if an early time lacks digits or a selected one has overflowed, there is none.
    """
    n = times.shape[-1]
    if n * k * k > LARGEST_N_K_SQUARED:
        return None
    item_bits = (n - 1).bit_length()
    patterns = times.view(np.int64)
    patterns &= -1 << item_bits
    patterns |= np.arange(n)
    compared = min(k + 1, n)  # the first one that is left out must differ, too
    if compared < n:
        patterns.partition(k, axis=-1)
    earliest = np.sort(patterns[..., :compared], axis=-1)
    decisive = earliest >> item_bits
    differ = decisive[..., 1:] != decisive[..., :-1]
    if needed is None:
        safe = earliest[..., 0].min() >= EARLIEST_SAFE_TIME and earliest[..., k - 1].max() < LATEST_SAFE_TIME
        reliable = bool(differ.all()) and safe
    else:
        matters = np.arange(compared) < needed[..., np.newaxis]
        safe_times = (earliest >= EARLIEST_SAFE_TIME) & (earliest < LATEST_SAFE_TIME)
        reliable = bool((differ | ~matters[..., :-1]).all() and (safe_times | ~matters).all())
    return earliest[..., :k] & ((1 << item_bits) - 1) if reliable else None


def first_arrivals_of_long_row(times: npt.NDArray[np.float64], k: int) -> Indices | None:
    """The same for one row (1, n) in which many bit patterns are undecided: those are decided by the times.

    None if an early time lacks digits, if a selected one has overflowed, or if the last pick is undecided.
    """
    n = times.shape[-1]
    item_bits = (n - 1).bit_length()
    patterns = times[0].view(np.int64) & (-1 << item_bits)
    patterns |= np.arange(n)
    compared = min(k + 1, n)
    if compared < n:
        patterns.partition(k)
    earliest = np.sort(patterns[:compared])
    decisive = earliest >> item_bits
    items = earliest[:k] & ((1 << item_bits) - 1)
    if earliest[0] < EARLIEST_SAFE_TIME or earliest[k - 1] >= LATEST_SAFE_TIME:
        return None
    same_as_next = np.append(decisive[1:] == decisive[:-1], False)
    if compared > k and same_as_next[k - 1]:
        return None
    tied = np.flatnonzero((same_as_next | np.roll(same_as_next, 1))[:k])
    # Items of equal patterns stand side by side, so sorting all tied items leaves each group where it is.
    order = np.lexsort((times[0, items[tied]], decisive[tied]))
    items[tied] = items[tied][order]
    return np.reshape(items, (1, k))
