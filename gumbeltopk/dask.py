"""Samples, reservoirs and relaxed top-k of Dask collections: all cores of a machine, or many machines.

Import it by name, ``import gumbeltopk.dask``; it needs the extra ``dask``. Everything is lazy, and errors that depend
on values are raised when the result is computed.
"""

from __future__ import annotations

import functools
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import numpy as np
from dask.delayed import Delayed

from gumbeltopk import _random, _validation
from gumbeltopk._dask import arrivals, partitions

__all__ = ["reservoir_reduce", "sample"]

Collection = Any  # of Dask, which has no types

PARTS_PUT_TOGETHER = 8  # by one task
OF_RESERVOIRS = 0x7265736572766F69  # beside the seed: their generators are not those of the data


def sample(
    log_weights: Any = None, k: Any = None, *, weights: Any = None, rng: Any = None, split_every: int | None = None
) -> Collection:
    """Draw k items without replacement from each row, with probabilities by weight (Algorithm 1, eq. 1).

    Parameters
    ----------
    log_weights : dask array, shape (n,) or (rows, n)
        Logarithms of the weights, not necessarily normalised; -inf is a weight of zero, which is never drawn. Of
        NumPy blocks, in chunks of any shape.
    k : int
        Number of items, at most the number of positive weights of every row.
    weights : dask array, shape (n,) or (rows, n)
        The weights themselves, instead of `log_weights`.
    rng : None, int or CounterRNG
        The seed of counter-based keys: a key is a function of the seed and the item's number. With None, a seed is
        drawn at the call.
    split_every : int, optional
        How many blocks are put together at a time, as in `dask.array.reduction`.

    Returns
    -------
    dask array of int64, shape (k,) or (rows, k)
        Places in the row in order of selection. The same for all chunks, schedulers and numbers of workers, and the
        same as ``gumbeltopk.sample(..., rng=gumbeltopk.CounterRNG(seed))`` of the NumPy array.

    Raises
    ------
    ValueError, TypeError
        At the call: no Dask array, other dimensions, k more than n, chunks of unknown size, another kind of `rng`. At
        `compute`: bad weights (the index in the whole array is named), or k more than the items of positive weight.

    Notes
    -----
    A block sends its k earliest arrivals, 24 bytes each. Beyond its weights it needs a few MB.

    `dask.array.argtopk` of the keys would not do: it selects items of key -inf, fails for k = n over several blocks,
    and sees no difference between keys that rounding made equal.

    Examples
    --------
    >>> import dask.array as da
    >>> import gumbeltopk as gt
    >>> import gumbeltopk.dask
    >>> weights = da.random.default_rng(1).exponential(size=100_000, chunks=10_000)
    >>> indices = gumbeltopk.dask.sample(weights=weights, k=3, rng=0)
    >>> same = gt.sample(weights=weights.compute(), k=3, rng=gt.CounterRNG(0))
    >>> bool((indices.compute() == same).all())
    True
    """
    if (log_weights is None) == (weights is None):
        given = "neither was" if weights is None else "both were"
        raise TypeError(f"pass exactly one of log_weights and weights=; {given} given")
    in_logs = weights is None
    name = "log_weights" if in_logs else "weights"
    values = _check_array(log_weights if in_logs else weights, name, (1, 2), "sample")
    if k is None:
        raise TypeError("k is missing: pass the number of items to draw, e.g. sample(weights=w, k=10)")
    n = values.shape[-1]
    k = _validation.check_k(k, n)
    found = values.map_blocks(
        arrivals.of_block,
        argument=name,
        in_logs=in_logs,
        k=k,
        n=n,
        rng=_counter_rng(rng),
        dtype=arrivals.ARRIVAL,
        chunks=(*values.chunks[:-1], tuple(min(k, length) for length in values.chunks[-1])),
        meta=np.empty((0,) * values.ndim, dtype=arrivals.ARRIVAL),
    )
    nothing = np.empty((0,) * values.ndim, dtype=arrivals.ARRIVAL)
    earliest = da.reduction(
        found,
        chunk=_as_it_is,
        combine=functools.partial(_earliest, k=k),
        aggregate=functools.partial(_earliest, k=k),
        axis=-1,
        keepdims=True,
        dtype=arrivals.ARRIVAL,
        output_size=k,
        split_every=split_every,
        meta=nothing,
    )
    return earliest.map_blocks(
        arrivals.places, argument=name, k=k, n=n, dtype=np.int64, meta=np.empty((0,) * values.ndim, dtype=np.int64)
    )


# The form in which `dask.array.reduction` calls its functions; the axis is always the last one.


def _as_it_is(block: Any, axis: Any, keepdims: Any) -> Any:
    return block


def _earliest(found: Any, axis: Any, keepdims: Any, k: int) -> Any:
    return arrivals.earliest(found, k)


def reservoir_reduce(
    collection: Collection, k: Any, *, weight: Any = None, rng: Any = None, split_every: int = PARTS_PUT_TOGETHER
) -> Delayed:
    """A weighted sample without replacement of all items of a bag, or of all rows of a data frame.

    Each partition has a reservoir, and they are merged as a tree.

    Parameters
    ----------
    collection : dask bag or dask data frame
    k : int
        Number of items to keep, at least 1.
    weight : callable, str or None
        Of a bag: a function of an item, or the name of its field. Of a data frame: the name of a column, or a function
        of a partition that returns the weights of its rows. Without it, all items weigh 1.
    rng : None, int, SeedSequence or CounterRNG
        A partition takes the child of its own number of the seed: the sample does not depend on the workers, but does
        depend on the partitions. With `CounterRNG(seed)`, arrival times are functions of the seed and the item's
        number: it does not depend on the partitions either, and is that of one `Reservoir` of all items. But then the
        items are counted at the call, for which all partitions are made once more, and counters are slow.
    split_every : int
        How many reservoirs one task merges.

    Returns
    -------
    Delayed
        Of the `Reservoir` of all items. Rows of a data frame come as dicts.

    Raises
    ------
    ValueError, TypeError
        At the call: no bag and no data frame, k below 1, another kind of `rng`. At `compute`: bad weights; the partition
        and the index in it are named.

    Examples
    --------
    >>> import dask.bag as db
    >>> import gumbeltopk as gt
    >>> import gumbeltopk.dask
    >>> words = db.from_sequence(["tree", "of", "a", "word"] * 100, npartitions=4)
    >>> reservoir = gumbeltopk.dask.reservoir_reduce(words, 3, weight=len, rng=0).compute(scheduler="sync")
    >>> reservoir.count, reservoir.total_weight, len(reservoir.sample())
    (400, 1100.0, 3)
    """
    if not dask.is_dask_collection(collection) or not hasattr(collection, "npartitions") or _is_array(collection):
        raise TypeError(f"collection is of type {type(collection).__name__}; pass a Dask bag or data frame")
    k = _validation.check_reservoir_size(k)
    split_every = _check_split_every(split_every)
    made = collection.to_delayed()
    if isinstance(rng, _random.CounterRNG):
        # In a graph of its own, which drops each partition: in that of the sample they would wait for the last count.
        counts = dask.compute(*(dask.delayed(partitions.count_items)(part) for part in made))
        starts = np.cumsum([0, *counts]).tolist()
        sources: list[Any] = [rng] * len(made)
    else:
        starts = [0] * len(made)
        sources = _seed_sequence(rng).spawn(len(made))
    make = dask.delayed(partitions.reservoir_of_partition)
    parts = [
        make(part, number, starts[number], k, weight, source)
        for number, (part, source) in enumerate(zip(made, sources, strict=True))
    ]
    return _tree(parts, partitions.merge, split_every)


def _tree(parts: list[Delayed], merge: Any, split_every: int) -> Delayed:
    """`merge`, a function of an iterable, of all parts, `split_every` at a time."""
    bag = db.from_delayed([dask.delayed(_as_list)(part) for part in parts])
    return bag.reduction(merge, merge, split_every=split_every).to_delayed()


def _as_list(part: Any) -> list[Any]:
    return [part]


# --- checks at the call ---------------------------------------------------------------------------


def _is_array(collection: Any) -> bool:
    return isinstance(collection, da.Array)


def _check_array(array: Any, name: str, dimensions: tuple[int, ...], function: str) -> Collection:
    """A Dask array of real numbers whose chunks are known."""
    if not _is_array(array):
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


def _counter_rng(rng: Any) -> _random.CounterRNG:
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


def _seed_sequence(rng: Any) -> np.random.SeedSequence:
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


def _check_split_every(split_every: Any) -> int:
    number = _validation.as_integer(split_every, "split_every")
    if number < 2:
        raise ValueError(f"split_every = {number} puts nothing together; pass 2 or more")
    return number
