"""Independent swaps of items with the mode of a conditional Poisson distribution: what circle and tree both take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gumbeltopk._array_api import Array, Namespace


class Swaps(NamedTuple):
    """Independent swaps of the items (rows, n)."""

    inside: Array  # in the mode: the item may go out; else it may come in
    log_odds: Array
    p: Array  # probability of a swap
    q: Array  # 1 - p


def softplus(log_odds: Array, xp: Namespace) -> Array:
    """log(1 + e^x) = -log(1 - p)."""
    return xp.where(log_odds > 0, log_odds, 0.0) + xp.log1p(xp.exp(-xp.abs(log_odds)))


def direction(swaps: Swaps, xp: Namespace) -> Array:
    """1 for an item that may come in, -1 for one that may go out."""
    return 1.0 - 2.0 * xp.astype(swaps.inside, swaps.p.dtype)


def row_blocks(swaps: Swaps, extra: tuple[Array, ...], in_block: int) -> Iterator[tuple[Swaps, tuple[Array, ...]]]:
    """Some rows at a time, also of the extra arrays (rows, n)."""
    rows = swaps.p.shape[0]
    for first in range(0, rows, max(1, in_block)):
        block = slice(first, min(first + max(1, in_block), rows))
        yield Swaps(*(array[block, :] for array in swaps)), tuple(array[block, :] for array in extra)
