"""Many sequential samples from one distribution: draws with replacement, of which the first occurrences count.

A draw with replacement that is not among the items chosen so far is one of the others, with probability by weight: that
is eq. 1. So the distinct items of a stream of draws, in the order of their first occurrences, are a sequential sample,
if the stream goes on until there are k. To begin again when an item appears twice would be another distribution.

Each row has a stream of its own, and whether it gives up, because the weight is concentrated on few items that appear
again and again, is decided at fixed places of the stream. So a smaller sample is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]

FIRST_LENGTH = 16  # of a stream when it is looked at for the first time; then it grows
GROWTH = 4
LONGEST = 1 << 14  # a stream of this length gives up, too


def first_occurrences(ends: Weights, k: int, rows: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Items (rows, k) for k > 0, and how many of them each row (rows,) has: fewer than k where it has given up.

    `ends` are the cumulative sums of the weights.
    """
    items, counts = np.zeros((rows, k), dtype=np.int64), np.zeros(rows, dtype=np.int64)
    going_on, streams, length = np.arange(rows), np.zeros((rows, 0)), FIRST_LENGTH
    while len(going_on):
        # All rows get the next numbers of their streams, needed or not: no row depends on another one.
        more = rng.random((length - streams.shape[1], rows))
        streams = np.concatenate([streams, more.T[going_on]], axis=1)
        items[going_on], counts[going_on] = _look_at(ends, streams, k)
        found = counts[going_on]
        keep = (found < k) & (2 * found >= length) & (length < LONGEST)
        going_on, streams, length = going_on[keep], streams[keep], GROWTH * length
    return items, counts


def _look_at(ends: Weights, streams: Weights, k: int) -> tuple[Integers, Integers]:
    """First occurrences of k items; streams are followed no further than most of them have to be."""
    enough = k + k // 8 + 8
    items, counts = distinct_in_order(locate(ends, streams[:, :enough]), k)
    short = np.flatnonzero(counts < k)
    if len(short) and enough < streams.shape[1]:
        items[short], counts[short] = distinct_in_order(locate(ends, streams[short]), k)
    return items, counts


def locate(ends: Weights, uniforms: Weights) -> Integers:
    """The items in which u times the last end lie.

    That is below the last end, and in the first interval that ends beyond it: so an interval of length 0, an item of
    weight zero, is never hit.
    """
    items: Integers = ends.searchsorted(uniforms * ends[-1], side="right")
    return items


def distinct_in_order(drawn: Integers, k: int) -> tuple[Integers, Integers]:
    """The first k distinct items of each row (rows, draws), as (rows, k), and how many there are."""
    if drawn.shape[1] < k:
        return _first_of_each(drawn, k)
    items, counts = drawn[:, :k].copy(), np.full(len(drawn), k)
    ordered = np.sort(items, axis=-1)
    repeats = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=-1))  # in few rows, often
    items[repeats], counts[repeats] = _first_of_each(drawn[repeats], k)
    return items, counts


def _first_of_each(drawn: Integers, k: int) -> tuple[Integers, Integers]:
    order = np.argsort(drawn, axis=-1, kind="stable")
    ordered = np.take_along_axis(drawn, order, axis=-1)
    first = np.ones(drawn.shape, dtype=bool)  # the smallest item of a row, at its first place, stays True
    np.put_along_axis(first, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=-1)
    ranks = np.cumsum(first, axis=-1)
    rows, columns = np.nonzero(first & (ranks <= k))
    items = np.zeros((len(drawn), k), dtype=np.int64)
    items[rows, ranks[rows, columns] - 1] = drawn[rows, columns]
    return items, np.minimum(ranks[:, -1], k)


def cumulative_weights(given: Any, in_logs: bool) -> Weights:
    """Cumulative sums (n,) of weights up to a constant factor, which overflow nowhere."""
    wide = given.astype(np.float64)
    largest = float(wide.max())
    with np.errstate(all="ignore"):
        scaled = np.exp(wide - largest) if in_logs else np.ldexp(wide, -int(np.frexp(largest)[1]))
        return np.cumsum(scaled)
