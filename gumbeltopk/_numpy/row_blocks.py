"""Blocks of rows that stay in cache, on several threads where that pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gumbeltopk import _threads
from gumbeltopk._numpy.settings import quick_and_quiet

LANES = 16  # of a vector register, in float32


def map_row_blocks(run: Callable[[slice], None], items: Any, k: int, most: int) -> None:
    """Call `run` on blocks of `most` rows of `items` or a few more, of about the same size."""
    rows = items.shape[0]
    blocks = -(-rows // most)
    size = rows if blocks <= 1 else -(-rows // blocks)
    if blocks > 1 and size >= LANES:
        # Aligned, and not a power of 2, at which items of a column would meet in the cache.
        size = (-(-size // LANES) | 1) * LANES

    def run_quickly(cut: slice) -> None:
        with quick_and_quiet():
            run(cut)

    cuts = [slice(first, min(first + size, rows)) for first in range(0, rows, max(size, 1))]
    _threads.map_blocks(run_quickly, cuts, items.size * k)
