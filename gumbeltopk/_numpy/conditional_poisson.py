"""Conditional Poisson samples for NumPy where few of many items are swapped: trials that touch only these.

An item that is swapped with probability p = 1 - e^{-rate} is one in whose interval, of length `rate`, a Poisson process
of rate 1 has a point. With the intervals of all items side by side, the points are running sums of unit exponentials: a
trial costs O(sum of the rates), not O(n).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk._array_api import Namespace
from gumbeltopk._generic import conditional_poisson, conditional_poisson_sample
from gumbeltopk._generic.conditional_poisson_sample import Source
from gumbeltopk._generic.swaps import softplus

SPARSE = 0.25  # swaps per item below which the intervals pay
LARGEST_BLOCK = 1 << 18  # points at a time


def sample(logits: Any, k: int, copies: int, exponentials: Source, xp: Namespace) -> Any:
    """Truth values (copies, rows, n) with k in each row, like the generic core."""
    rows, n = logits.shape
    mode = conditional_poisson.find_mode(logits, k, xp)
    rate = softplus(conditional_poisson.tilt(mode, xp).log_odds, xp)
    if np.max(np.sum(rate, axis=-1)) > SPARSE * n:
        return conditional_poisson_sample.sample(logits, k, copies, exponentials, xp)
    selected = np.empty((copies, rows, n), dtype=bool)
    for row in range(rows):
        selected[:, row, :] = mode.inside[row]
        _swap(selected[:, row, :], np.cumsum(rate[row]), mode.inside[row], exponentials)
    return selected


def _swap(selected: Any, ends: Any, inside: Any, exponentials: Source) -> None:
    """Swap items in each of the samples (copies, n), which are views of the mode; `ends` are those of the intervals."""
    expected = ends[-1]
    points = int(expected + 6.0 * math.sqrt(expected)) + 8
    trials_at_most = max(1, LARGEST_BLOCK // points)
    trials_per_sample = 2.5 * math.sqrt(expected + 1.0)
    done = 0
    while done < len(selected):
        trials = min(trials_at_most, math.ceil((len(selected) - done) * trials_per_sample))
        items = _items_with_points(ends, (trials, points), exponentials)
        is_swapped = items < len(ends)
        is_swapped[:, 1:] &= items[:, 1:] != items[:, :-1]  # several points in one interval are one swap
        goes_out = inside[np.minimum(items, len(ends) - 1)]
        difference = np.sum(np.where(goes_out, -1, 1) * is_swapped, axis=-1)
        for trial in np.flatnonzero(difference == 0)[: len(selected) - done]:
            selected[done, items[trial, is_swapped[trial]]] ^= True
            done += 1


def _items_with_points(ends: Any, shape: tuple[int, int], exponentials: Source) -> Any:
    """The intervals (trials, points) that the points of a Poisson process fall into, in order; n after the last."""
    places = np.cumsum(exponentials(shape), axis=-1)
    while np.min(places[:, -1]) < ends[-1]:
        more = places[:, -1:] + np.cumsum(exponentials(shape), axis=-1)
        places = np.concatenate([places, more], axis=-1)
    return np.searchsorted(ends, places, side="right")
