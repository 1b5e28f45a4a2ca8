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


def draw(rows: Any, in_logs: bool, counts: Any, rng: Any, check: bool, check_all: Any) -> Any:
    """Picks (..., max(counts)) of rows (..., n), -1 behind the last one that a row has; `counts` (...) are wanted.

    `check_all` looks at all values and raises an error if one is bad. It is called when the pass over the weights
    has shown something strange.
    """
    batch, k = rows.shape[:-1], int(counts.max(initial=0))
    picks = np.full((math.prod(batch), k), -1, dtype=np.int64)
    seeds = _random.numpy_generator(rng).integers(1 << 63, size=(len(picks), 2))
    for number, position in enumerate(np.ndindex(batch)):
        row = _survey(rows[position], in_logs, check, check_all)
        generator = np.random.default_rng(seeds[number])
        chosen = _draw_row(*row, in_logs, int(counts[position]), generator)
        picks[number, : len(chosen)] = chosen
    return picks.reshape(*batch, k)


def _survey(
    values: Any, in_logs: bool, check: bool, check_all: Any
) -> tuple[block_sampling.Row, block_sampling.BlockSums]:
    """The one pass over a row, which checks the values, too."""
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
    if len(chosen) == k:
        return chosen
    zero = -math.inf if in_logs else 0.0
    left = row.values.copy()
    left[chosen] = zero
    more = min(k - len(chosen), int(_sample_by_keys.count_positive(left, in_logs, np)))
    return np.concatenate([chosen, _sample_by_keys.draw(left, in_logs, more, rng, api.namespace_of(left))])
