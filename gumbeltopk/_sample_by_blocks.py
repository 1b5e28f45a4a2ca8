"""Long rows of NumPy arrays: the first picks by blocks, the others, where there are many, by keys.

Each row has its own generator, seeded by the caller's. So neither the picks of a row nor the state in which the
caller's generator is left depend on how many picks the rows before it have made.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _random, _sample_by_keys
from gumbeltopk._numpy import block_sampling

SHORTEST_ROW = 1 << 19  # shorter rows are sampled by keys, where every item has a key of its own


def suits(rows: Any, rng: Any, xp: api.Namespace) -> bool:
    """Whether `method="auto"` samples by blocks. It must not depend on k, or a larger sample would be another one."""
    return api.is_numpy_namespace(xp) and rows.shape[-1] >= SHORTEST_ROW and not isinstance(rng, _random.CounterRNG)


def check_can(rng: Any, xp: api.Namespace) -> None:
    """An error where `method="blocks"` cannot be had."""
    if not api.is_numpy_namespace(xp):
        raise ValueError(f"method = 'blocks' is for NumPy arrays, not {api.namespace_name(xp)}'s; pass 'auto'")
    if isinstance(rng, _random.CounterRNG):
        raise ValueError("method = 'blocks' has no draw for each item, as a CounterRNG promises it; pass 'keys'")


Survey = tuple[block_sampling.Row, block_sampling.BlockSums]


def survey(rows: Any, in_logs: bool, check: bool, check_all: Any) -> list[Survey]:
    """The one pass over rows (..., n), which draws nothing and looks for bad values.

    `check_all` looks at all values and raises an error if one is bad. It is called when the pass over the weights
    has shown something strange.
    """
    return [_survey_row(rows[position], in_logs, check, check_all) for position in np.ndindex(rows.shape[:-1])]


def count_up_to(surveys: list[Survey], in_logs: bool, counts: Any) -> Any:
    """Whether rows have as many items of positive weight as `counts` (...) wants: that many, or all that they have."""
    found = [_count_up_to(*row, in_logs, wanted) for row, wanted in zip(surveys, counts.flat, strict=True)]
    return np.asarray(found, dtype=np.int64).reshape(counts.shape)


def _count_up_to(row: block_sampling.Row, rough: block_sampling.BlockSums, in_logs: bool, wanted: int) -> int:
    """At least one item of each block that has a sum, and all items if the smallest one has weight."""
    if np.count_nonzero(rough.sums > 0) >= wanted or (rough.smallest > 0 and len(row.values) >= wanted):
        return wanted
    return min(wanted, int(_sample_by_keys.count_positive(row.values, in_logs, np)))


def draw(surveys: list[Survey], in_logs: bool, counts: Any, rng: Any) -> Any:
    """Picks (..., max(counts)), -1 behind the last one that a row has; `counts` (...) are wanted."""
    k = int(counts.max(initial=0))
    picks = np.full((len(surveys), k), -1, dtype=np.int64)
    seeds = _random.numpy_generator(rng).integers(1 << 63, size=(len(picks), 2))
    for number, (row, wanted) in enumerate(zip(surveys, counts.flat, strict=True)):
        chosen = _draw_row(*row, in_logs, int(wanted), np.random.default_rng(seeds[number]))
        picks[number, : len(chosen)] = chosen
    return picks.reshape(*counts.shape, k)


def _survey_row(values: Any, in_logs: bool, check: bool, check_all: Any) -> Survey:
    largest = float(np.max(values)) if in_logs else None
    if largest is not None and check and not largest < math.inf:
        check_all()
    if largest == -math.inf:
        largest = 0.0  # no item has weight
    row = block_sampling.Row(values, block_sampling.BLOCK_ITEMS, largest)
    rough = block_sampling.block_sums(row)
    if check and not in_logs and not (rough.smallest >= 0 and np.isfinite(rough.sums).all()):
        check_all()  # sums of float32 may overflow, too; then all is well
    return row, rough


def _draw_row(
    row: block_sampling.Row, rough: block_sampling.BlockSums, in_logs: bool, k: int, rng: np.random.Generator
) -> Any:
    chosen = block_sampling.first_picks(row, rough, k, rng)
    return chosen if len(chosen) == k else _sample_by_keys.go_on(row.values, in_logs, chosen, k, rng)
