"""Parts of Dask collections, trees of them, and the checks that can be made before anything is computed."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import dask.bag as db
import numpy as np

from gumbeltopk import _random, _validation

Collection = Any  # of Dask: an array, a bag, a data frame or a Delayed

PARTS_PUT_TOGETHER = 8  # by one task
OF_RESERVOIRS = 0x7265736572766F69  # beside the seed: their generators are not those of the data


def tree(parts: list[Collection], merge: Any, split_every: int) -> Collection:
    """`merge`, a function of an iterable, of all parts, `split_every` at a time."""
    bag = db.from_delayed([dask.delayed(_as_list)(part) for part in parts])
    return bag.reduction(merge, merge, split_every=split_every).to_delayed()


def _as_list(part: Any) -> list[Any]:
    return [part]


# Several passes look at the same blocks. What two passes share Dask holds in memory, as a whole, from the first one to
# the second; so the graph of each pass is optimised here, where blocks that are made by functions of blocks are made
# anew within the task that looks at them.


def of_blocks(function: Any, *arrays: Any, **settings: Any) -> list[Collection]:
    """What `function` returns, any object, for the blocks of arrays with the same chunks (n,)."""
    chunks = ((1,) * arrays[0].numblocks[0],)
    parts = da.map_blocks(
        function, *arrays, chunks=chunks, dtype=object, meta=np.empty(0, dtype=object), **settings
    ).to_delayed()
    return parts.ravel().tolist()  # type: ignore[no-any-return]


def map_keys(function: Any, *arrays: Any, **settings: Any) -> Collection:
    """`function` of the blocks of arrays like the keys, which are the last of them."""
    dtype = _validation.as_real_array(arrays[-1]._meta, "keys").dtype
    mapped = da.map_blocks(function, *arrays, dtype=dtype, meta=np.empty(0, dtype=dtype), **settings)
    return dask.optimize(mapped)[0]


# --- checks at the call ---------------------------------------------------------------------------


def is_array(collection: Any) -> bool:
    """Whether it is a Dask array."""
    return isinstance(collection, da.Array)


def check_array(array: Any, name: str, dimensions: tuple[int, ...], function: str) -> Collection:
    """A Dask array of real numbers whose chunks are known."""
    if not is_array(array):
        raise TypeError(
            f"{name} is of type {type(array).__name__}; pass a Dask array, or call gumbeltopk.{function} for an array "
            "in memory"
        )
    if array.ndim not in dimensions:
        shapes = " or ".join({1: "(n,)", 2: "(rows, n)"}[number] for number in dimensions)
        raise ValueError(f"{name} has {array.ndim} dimensions; pass shape {shapes}")
    if np.isnan(array.shape).any():
        raise ValueError(f"{name} has chunks of unknown size; call {name}.compute_chunk_sizes() first")
    _validation.as_real_array(array._meta, name)
    return array


def counter_rng(rng: Any) -> _random.CounterRNG:
    """Counter-based randomness from a seed."""
    if rng is None:
        return _random.CounterRNG(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    if isinstance(rng, _random.CounterRNG):
        return rng
    if isinstance(rng, (bool, np.bool_)) or not isinstance(rng, (int, np.integer)):
        raise TypeError(
            f"rng is of type {type(rng).__name__}; pass an int or a CounterRNG: workers share no generator, and a key "
            "must be a function of the seed and the item's number"
        )
    return _random.CounterRNG(int(rng))


def seed_sequence(rng: Any) -> np.random.SeedSequence:
    """What the generators of all partitions are spawned from."""
    if isinstance(rng, np.random.SeedSequence):
        return rng
    if isinstance(rng, (bool, np.bool_)) or not (rng is None or isinstance(rng, (int, np.integer))):
        raise TypeError(
            f"rng is of type {type(rng).__name__}; pass an int, a SeedSequence or a CounterRNG: workers share no "
            "generator, and each partition needs one of its own"
        )
    if rng is not None and rng < 0:
        raise ValueError(f"rng = {rng} is negative; pass 0 or more")
    # Data that `dask.array.random.default_rng(rng)` makes come from the children of SeedSequence(rng).
    return np.random.SeedSequence() if rng is None else np.random.SeedSequence([int(rng), OF_RESERVOIRS])


def check_split_every(split_every: Any) -> int:
    """The number of parts that one task puts together."""
    number = _validation.as_integer(split_every, "split_every")
    if number < 2:
        raise ValueError(f"split_every = {number} puts nothing together; pass 2 or more")
    return number
