"""Samples, reservoirs and relaxed top-k of Dask collections: all cores of a machine, or many machines.

Import it by name, ``import gumbeltopk.dask``; it needs the extra ``dask``. Everything is lazy, and errors that depend
on values are raised when the result is computed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np

from gumbeltopk import _validation
from gumbeltopk._dask import arrivals, graphs, partitions, shards
from gumbeltopk._dask.graphs import PARTS_PUT_TOGETHER, Collection
from gumbeltopk._dask.shards import CompressionError
from gumbeltopk._numpy.compression import sharded
from gumbeltopk._random import CounterRNG
from gumbeltopk._streams import validation as _stream_validation
from gumbeltopk.operator import Facts, Residuals, operator

__all__ = ["CompressionError", "relaxed_topk", "reservoir_reduce", "sample"]


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
    values = graphs.check_array(log_weights if in_logs else weights, name, (1, 2), "sample")
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
        rng=graphs.counter_rng(rng),
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
) -> Collection:
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
        At the call: no bag and no data frame, k below 1, another kind of `rng`. At `compute`: bad weights; the
        partition and the index in it are named.

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
    if not dask.is_dask_collection(collection) or not hasattr(collection, "npartitions") or graphs.is_array(collection):
        raise TypeError(f"collection is of type {type(collection).__name__}; pass a Dask bag or data frame")
    k = _stream_validation.check_reservoir_size(k)
    split_every = graphs.check_split_every(split_every)
    made = collection.to_delayed()
    if isinstance(rng, CounterRNG):
        # In a graph of its own, which drops each partition: in that of the sample they would wait for the last count.
        counts = dask.compute(*(dask.delayed(partitions.count_items)(part) for part in made))
        starts = np.cumsum([0, *counts]).tolist()
        sources: list[Any] = [rng] * len(made)
    else:
        starts = [0] * len(made)
        sources = graphs.seed_sequence(rng).spawn(len(made))
    make = dask.delayed(partitions.reservoir_of_partition)
    parts = [
        make(part, number, starts[number], k, weight, source)
        for number, (part, source) in enumerate(zip(made, sources, strict=True))
    ]
    return graphs.tree(parts, partitions.merge, split_every)


# --- relaxed top-k of one row ---------------------------------------------------------------------


class _Static(NamedTuple):
    """The static part of the residuals."""

    settings: shards.Settings
    split_every: int
    solved: Collection  # Delayed


def _example_topk(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (da.from_array(rng.gumbel(size=60), chunks=25), 3), {"temperature": 0.7, "candidates": 20}


@operator(
    Facts(
        differentiable=("keys",),
        range="a_i >= 0 (a_i <= 1 does not hold)",
        sums_to_k=True,
        order_preserving="temperature >= 1 (Theorem 1)",
        source="Xie & Ermon 2019, eqs. 3-5",
    ),
    _example_topk,
)
def relaxed_topk(
    keys: Any,
    k: Any,
    *,
    temperature: Any = 1.0,
    candidates: int | None = None,
    split_every: int = PARTS_PUT_TOGETHER,
) -> Collection:
    """Relaxed k-hot vector of the k largest keys of one row in blocks, by successive softmax (eqs. 3-5).

    Whatever k is, there is one exchange for the value and one for each derivative: each block sends its heaviest items
    and 15 power sums of the others, one task makes the k steps on a few hundred weighted points, and each block reads
    its own items off a polynomial (measure compression).

    Parameters
    ----------
    keys : dask array, shape (n,)
        Scores; -inf is an item that is not there. Of NumPy blocks, in chunks of any size.
    k : int
        Number of items, at most the number of finite keys.
    temperature : float
        Positive.
    candidates : int, optional
        How many of its heaviest items a block sends, at least k. Default: max(6 k, 2048). A row of fewer finite keys is
        gathered as a whole.
    split_every : int
        How many blocks' summaries one task puts together.

    Returns
    -------
    dask array, shape (n,)
        In the dtype and the chunks of `keys`. It agrees with ``gumbeltopk.relaxed_topk`` of the gathered row to
        rounding, float32 keys included: inside, everything is float64.

    Raises
    ------
    ValueError, TypeError
        At the call: no Dask array, not one row, a temperature that is not one positive number. At `compute`: NaN or
        +inf keys (the index in the whole row is named), k more than the finite keys.
    CompressionError
        At `compute`: with these candidates, what is neglected may exceed rounding. For temperatures of 1 and more the
        default always suffices.

    Notes
    -----
    `fwd`, `vjp` and `jvp` are those of every operator; derivatives are by the keys. Each of them looks at the keys
    twice: call ``keys.persist()`` where they are costly to make and fit into memory. A block needs a few arrays of its
    own size.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> import gumbeltopk.dask
    >>> keys = da.random.default_rng(1).gumbel(size=100_000, chunks=10_000)
    >>> relaxed, residuals = gumbeltopk.dask.relaxed_topk.fwd(keys, 10, temperature=0.5)
    >>> bool(np.allclose(relaxed, gt.relaxed_topk(keys.compute(), 10, temperature=0.5), rtol=1e-12, atol=0))
    True
    >>> gumbeltopk.dask.relaxed_topk.vjp(residuals, da.ones_like(keys)).shape
    (100000,)
    """
    return _relax(keys, k, temperature, candidates, split_every, False)[0]


@relaxed_topk.fwd_rule
def _fwd(
    keys: Any,
    k: Any,
    *,
    temperature: Any = 1.0,
    candidates: int | None = None,
    split_every: int = PARTS_PUT_TOGETHER,
) -> tuple[Collection, Residuals]:
    value, static = _relax(keys, k, temperature, candidates, split_every, True)
    shapes = (("keys", tuple(keys.shape), value.dtype), ("result", tuple(value.shape), value.dtype))
    return value, Residuals("relaxed_topk", (keys,), static, shapes)


def _relax(
    keys: Any, k: Any, temperature: Any, candidates: Any, split_every: Any, keep: bool
) -> tuple[Collection, _Static]:
    keys = graphs.check_array(keys, "keys", (1,), "relaxed_topk")
    k = _validation.check_k(k, keys.shape[0])
    temperature = float(_validation.check_temperature(temperature, np.empty(0), (), True))
    split_every = graphs.check_split_every(split_every)
    settings = shards.Settings(k, temperature, _check_candidates(candidates, k))
    summaries = graphs.of_blocks(shards.summarise, keys, settings=settings)
    summary = graphs.tree(summaries, functools.partial(shards.merge, settings=settings), split_every)
    solved = dask.delayed(shards.solve)(summary, settings, keep)
    value = graphs.map_keys(shards.read, keys, solution=solved.solution)
    return value, _Static(settings, split_every, solved)


@relaxed_topk.vjp_rule
def _vjp(residuals: Residuals, cotangent: Any, wrt: tuple[str, ...]) -> Mapping[str, Collection]:
    return {"keys": _differentiate(residuals, cotangent, "vjp")}


@relaxed_topk.jvp_rule
def _jvp(residuals: Residuals, tangents: Mapping[str, Any]) -> Collection:
    return _differentiate(residuals, tangents["keys"], "jvp")


def _differentiate(residuals: Residuals, inputs: Any, rule: str) -> Collection:
    if not isinstance(residuals.static, _Static):
        raise ValueError("these residuals come from gumbeltopk.relaxed_topk.fwd; pass those of this operator")
    _, split_every, solved = residuals.static
    (keys,) = residuals.arrays
    inputs = inputs.rechunk(keys.chunks)
    sent = graphs.of_blocks(shards.summarise_inputs, inputs, keys, solution=solved.solution)
    expansion = dask.delayed(shards.expand)(graphs.tree(sent, shards.merge_inputs, split_every), solved, rule)
    return graphs.map_keys(shards.read_expansion, inputs, keys, solution=solved.solution, expansion=expansion)


def _check_candidates(candidates: Any, k: int) -> int:
    if candidates is None:
        return sharded.heavy_items(k)
    number = _validation.as_integer(candidates, "candidates")
    if number < max(k, 1):
        raise ValueError(f"candidates = {number} is less than k = {k}; pass at least k, better 6 k")
    return number
