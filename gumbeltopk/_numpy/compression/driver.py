"""Successive softmax at a cost that does not grow with k: O(n + k N), N a few hundred weighted points.

Keep the m heaviest items of a row; let all others, whose v = exp((r - thr) / t) is at most 1, be P nodes with the same
power sums (`measure`); run the k steps on these points (`recursion`); read everybody's result off a polynomial of
degree P (`block`). Long rows are taken one by one, and there the heavy items, too, are compressed, into octave bins.
What was neglected is bounded at run time (`bound`); rows that miss the tolerance are tried again with more of
everything, and in the end left to the caller.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk import _threads
from gumbeltopk._numpy.compression import derivatives
from gumbeltopk._numpy.compression.block import LONG_ROW, Attempt, Block, Effort
from gumbeltopk._numpy.compression.block import attempt as attempt_rows
from gumbeltopk._numpy.compression.loops import NUMPY, Loops
from gumbeltopk._numpy.settings import quick_and_quiet

Floats = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

MOST_KEPT = 0.5  # of the items; beyond, compression does not pay
GROUP_ITEMS, GROUP_ROWS = 1 << 19, 128  # short rows that are taken together


class Outcome(NamedTuple):
    """The value, and what became of the rows."""

    a: Any  # (rows, n); of any content for the rows that are left
    bound: Floats  # (rows,): of what was neglected, relative
    blocks: list[Block]  # if the trajectories are kept
    left: Indices  # rows that missed the tolerance


def forward(keys: Any, temperature: Floats, power: Any, k: int, keep: bool, loops: Loops = NUMPY) -> Outcome:
    """The relaxed k-hot vectors of rows of keys (rows, n); the temperature is (rows, 1) or (1, 1)."""
    rows, n = keys.shape
    a = np.empty_like(keys)
    bound = np.zeros(rows)
    blocks: list[Block] = []
    left = np.arange(rows)
    for effort in efforts(n, k):
        groups = _groups(left, n)

        def attempt(group: Indices, effort: Effort = effort) -> Attempt:
            return _attempt(keys, temperature, power, k, effort, keep, group, a, loops)

        attempts = _threads.map_blocks(attempt, groups, left.size * n)
        missed = [left[:0]]
        for group, outcome in zip(groups, attempts, strict=True):
            bound[group] = outcome.bound
            missed.append(group[~outcome.good])
            if outcome.block is not None and outcome.good.any():
                blocks.append(_good_rows(outcome.block, outcome.good))
        left = np.concatenate(missed)
        if not left.size:
            break
    return Outcome(a, bound, blocks, left)


def efforts(n: int, k: int) -> list[Effort]:
    """What is tried in turn; a try that would keep too many of the items is not worth it."""
    if n >= LONG_ROW:
        m = max(4 * k, 2048)
        tries = [Effort(m, 0, True), Effort(m, 3, False), Effort(4 * m, 3, False)]
    else:
        m = max(3 * k // 2, 32)
        tries = [Effort(m, 0, False), Effort(4 * m, 2, False)]
    return [effort for effort in tries if effort.heavy <= MOST_KEPT * n]


def _groups(rows: Indices, n: int) -> list[Indices]:
    """Rows that are tried together: one if it is long, else so many that their arrays stay in cache."""
    together = 1 if n >= LONG_ROW else max(1, min(GROUP_ITEMS // n, GROUP_ROWS))
    return np.array_split(rows, -(-len(rows) // together))


def _attempt(
    keys: Any,
    temperature: Floats,
    power: Any,
    k: int,
    effort: Effort,
    keep: bool,
    rows: Indices,
    a: Any,
    loops: Loops,
) -> Attempt:
    index = _as_slice(rows)
    t = _of_rows(temperature, index)
    own_power = power if isinstance(power, float) else 1.0 / t
    with quick_and_quiet(), _written(a, index) as own:
        outcome = attempt_rows(keys[index], t, own_power, k, effort, keep, own, loops)
    block = outcome.block
    return outcome if block is None else outcome._replace(block=block._replace(rows=rows))


def _of_rows(temperature: Floats, index: Any) -> Floats:
    return temperature if len(temperature) == 1 else temperature[index]


def _as_slice(rows: Indices) -> Any:
    """Consecutive rows as a slice, whose arrays are views."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


def _good_rows(block: Block, good: npt.NDArray[np.bool_]) -> Block:
    if good.all():
        return block
    by_row = {name: getattr(block, name)[good] for name in ("rows", "v", "kept", "log_v", "temperature", "weights")}
    return block._replace(states=block.states[:, good], **by_row)


# --- derivatives ------------------------------------------------------------------------------------


def vjp(
    blocks: list[Block],
    power: Any,
    cotangent: Any,
    with_temperature: bool,
    gradient: Any,
    by_temperature: Floats,
    loops: Loops = NUMPY,
) -> None:
    """Write the gradients by the keys (rows, n) and, if wanted, by the temperature (rows, 1), in the blocks' rows."""

    def of_block(block: Block) -> None:
        index = _as_slice(block.rows)
        with quick_and_quiet(), _written(gradient, index) as own:
            by_temperature[index] = derivatives.vjp(
                block, _shared(power), cotangent[index], with_temperature, own, loops
            )

    _threads.map_blocks(of_block, blocks, gradient.size)


def jvp(
    blocks: list[Block],
    power: Any,
    key_tangent: Any,
    temperature_tangent: Floats,
    tangent: Any,
    loops: Loops = NUMPY,
) -> None:
    """Write the tangent of the value (rows, n), in the blocks' rows."""

    def of_block(block: Block) -> None:
        index = _as_slice(block.rows)
        dt = _of_rows(temperature_tangent, index)
        with quick_and_quiet(), _written(tangent, index) as own:
            derivatives.jvp(block, _shared(power), key_tangent[index], dt, own, loops)

    _threads.map_blocks(of_block, blocks, tangent.size)


@contextlib.contextmanager
def _written(array: Any, index: Any) -> Iterator[Any]:
    """Rows to write to: a view if they are consecutive, else put in their places afterwards."""
    own = array[index]
    yield own
    if not isinstance(index, slice):
        array[index] = own


def _shared(power: Any) -> float | None:
    """beta if it is one for all rows; else the blocks have their own."""
    return power if isinstance(power, float) else None
