"""Relaxed top-k of one row in shards, as the tasks see it: checked blocks, and errors that only values can cause."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

from gumbeltopk._array_api import Array
from gumbeltopk._dask import checks
from gumbeltopk._numpy.compression import sharded


class CompressionError(ValueError):
    """The row needs more candidates: with these, what compression neglects may exceed rounding.

    `relaxed_topk` of `gumbeltopk.dask` raises it instead of a result that is not good.
    """


class Settings(NamedTuple):
    """Of a call."""

    k: int
    temperature: float
    candidates: int  # that a block sends


def summarise(block: Any, settings: Settings, block_info: Any = None) -> sharded.Summary:
    """Of a block of keys."""
    first = _first(block_info)
    block = checks.check_block(block, "keys", True, (first,))
    return sharded.summarise(block, first, settings.candidates, settings.temperature)


def merge(summaries: Iterable[sharded.Summary], settings: Settings) -> sharded.Summary:
    """Of several blocks."""
    together = functools.partial(sharded.merge, heavy=settings.candidates, temperature=settings.temperature)
    return functools.reduce(together, summaries)


def solve(summary: sharded.Summary, settings: Settings, keep: bool) -> sharded.Solved:
    """The k steps."""
    k, temperature, candidates = settings
    if len(summary.keys) < k:
        raise ValueError(
            f"k = {k} is more than the {len(summary.keys)} finite entries of keys; lower k or make more entries finite"
        )
    solved = sharded.solve(summary, k, candidates, temperature, keep)
    if not solved.good:
        raise CompressionError(
            f"candidates = {candidates} do not suffice for these keys at k = {k}, temperature = {temperature} (what is "
            f"neglected: up to {solved.bound:.1e}); pass more, e.g. {4 * candidates}, or more than there are items, "
            "which gathers the row"
        )
    return solved


def read(block: Any, solution: sharded.Solution, block_info: Any = None) -> Array:
    """The value at a block."""
    return sharded.read(block, _first(block_info), solution).astype(block.dtype, copy=False)


def summarise_inputs(inputs: Any, block: Any, solution: sharded.Solution, block_info: Any = None) -> sharded.Inputs:
    """Of the tangent or cotangent at a block of keys."""
    return sharded.summarise_inputs(inputs, block, _first(block_info), solution)


def merge_inputs(inputs: Iterable[sharded.Inputs]) -> sharded.Inputs:
    """Of several blocks."""
    return functools.reduce(sharded.merge_inputs, inputs)


def expand(inputs: sharded.Inputs, solved: sharded.Solved, rule: str) -> sharded.Expansion:
    """The derivative `rule`, vjp or jvp."""
    derivative = sharded.vjp if rule == "vjp" else sharded.jvp
    return derivative(inputs, solved.trajectory, solved.solution.temperature)


def read_expansion(
    inputs: Any, block: Any, solution: sharded.Solution, expansion: sharded.Expansion, block_info: Any = None
) -> Array:
    """The derivative at a block."""
    derivative = sharded.read_expansion(inputs, block, _first(block_info), solution, expansion)
    return derivative.astype(block.dtype, copy=False)


def _first(block_info: Any) -> int:
    """The number of the block's first item, as Dask tells it."""
    return int(block_info[0]["array-location"][0][0])
