"""The loops of the compressed form: what another implementation has to provide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gumbeltopk._numpy.compression import linear_recursion, recursion, tiles
from gumbeltopk._numpy.compression.linear_recursion import Columns, Floats
from gumbeltopk._numpy.compression.recursion import Run
from gumbeltopk._numpy.compression.tiles import Tiles


class Loops(NamedTuple):
    """Each row of a result must depend on this row alone."""

    run: Callable[[Floats, Floats, Any, int, bool], Run]
    """(p, weights, power, k, keep): k steps from the normalised p^1 (rows, points), the heaviest item first."""
    reverse: Callable[[Floats, Floats, Columns, Any, bool], tuple[Floats, Floats]]
    """(states, weights, columns, beta, logs): see `linear_recursion.reverse`."""
    tiles: Tiles


NUMPY = Loops(recursion.run, linear_recursion.reverse, tiles.NUMPY)
