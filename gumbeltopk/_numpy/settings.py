"""NumPy's settings for passes over small tiles. They belong to a thread, and are as before afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

SHORTEST_BUFFER = 16


@contextlib.contextmanager
def quick_and_quiet() -> Iterator[None]:
    """No warnings of numbers that are not used, and no copies of operands that broadcast.

    NumPy copies a (rows, 1) operand into its buffers where a few rows fit, which takes as long as the pass itself. Only
    operands that are cast need the buffers.
    """
    with np.errstate(all="ignore"):  # restores the buffer size, too
        np.setbufsize(SHORTEST_BUFFER)
        yield
