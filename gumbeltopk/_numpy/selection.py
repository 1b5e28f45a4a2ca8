"""The k earliest arrivals of each row, by partition: O(n + k log k) a row instead of O(n log n)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]

# Times in this range have overflowed nowhere and have all their digits.
EARLIEST_SAFE_TIME, LATEST_SAFE_TIME = np.asarray([2.0**-900, 2.0**900]).view(np.int64).tolist()
# A row of bit patterns is undecided with a probability of about n k^2 / 2^53. Up to here it pays to try.
LARGEST_N_K_SQUARED = 2**46


def first_arrivals(times: Times, k: int, xp: Any) -> Indices:
    """Indices (..., k) of the k smallest times, earliest first."""
    if k == 0 or k == times.shape[-1]:
        return np.argsort(times, axis=-1)[..., :k]
    earliest = np.argpartition(times, k - 1, axis=-1)[..., :k]
    order = np.argsort(np.take_along_axis(times, earliest, axis=-1), axis=-1)
    return np.take_along_axis(earliest, order, axis=-1)


def first_safe_arrivals(times: npt.NDArray[np.float64], k: int) -> Indices | None:
    """The same for k > 0, twice as fast, or None if these times cannot tell. `times` is overwritten.

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
    decided = (decisive[..., 1:] != decisive[..., :-1]).all()
    safe = earliest[..., 0].min() >= EARLIEST_SAFE_TIME and earliest[..., k - 1].max() < LATEST_SAFE_TIME
    return earliest[..., :k] & ((1 << item_bits) - 1) if decided and safe else None
