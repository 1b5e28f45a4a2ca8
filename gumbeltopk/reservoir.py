"""Weighted sampling without replacement from streams: a reservoir of the k earliest arrivals (Algorithm 1).

Item i of weight w_i arrives at T_i ~ Exp(w_i), independently of all others, and the sample is the k earliest. So a
reservoir that keeps the k earliest of what it has seen is exact at any time, and reservoirs of parts of a stream merge
into that of the whole. What is drawn is the same as by `sample`: sequential sampling (Plackett-Luce, eq. 1).

Only items that arrive before the k-th earliest so far, the threshold, matter. Chunks find them by Poisson clocks,
single items by weighted jumps (A-ExpJ, Efraimidis and Spirakis 2006, with arrival times instead of u^(1/w)), and with
counter-based keys by a comparison for each item.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from gumbeltopk import _random
from gumbeltopk._array_api import Array
from gumbeltopk._streams import checkpoint as _checkpoint
from gumbeltopk._streams import kept as _kept
from gumbeltopk._streams import provenance as _provenance
from gumbeltopk._streams import state as _reservoir_state
from gumbeltopk._streams import validation as _stream_validation
from gumbeltopk._streams.core import ReservoirCore

__all__ = ["Reservoir"]

LARGEST_NUMBER = 2**63 - 2  # of an item


class Reservoir:
    """A weighted sample without replacement of a stream, of k items, exact at any time.

    Parameters
    ----------
    k : int
        Number of items to keep, at least 1.
    rng : None, int, SeedSequence, Generator or CounterRNG
        After SPEC 7; of NumPy. With `CounterRNG(seed)` the arrival time of an item depends on the seed, its number and
        its weight alone: the sample is the same for every chunking, order of chunks and order of merging, and the same
        as that of `sample` on the whole array.

    Raises
    ------
    ValueError, TypeError
        k below 1 or no integer; an `rng` that is not understood.

    Notes
    -----
    The order of selection is that of the arrival times. With fewer than k items of positive weight so far, all of them
    are in the sample.

    Weights may be of any size, in one stream too, and only their ratios matter.

    Each method either does all it was asked to or raises and leaves the reservoir as it was, generator included.

    Memory is that of the k items and of one piece of 65,536 weights. With a `CounterRNG`, each gap in the item numbers
    seen so far is remembered as well. One reservoir is for one thread.

    See Also
    --------
    sample : from an array that is there as a whole.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> reservoir = gt.Reservoir(2, rng=gt.CounterRNG(0))
    >>> weights = np.asarray([0.1, 0.2, 0.3, 0.4, 0.5])
    >>> for first in (3, 0):  # chunks in any order
    ...     reservoir.update(weights[first : first + 3], start=first)
    >>> reservoir.sample().tolist() == gt.sample(weights=weights, k=2, rng=gt.CounterRNG(0)).tolist()
    True
    >>> reservoir
    Reservoir(k=2, kept=2, count=5, total_weight=1.5, rng=CounterRNG(seed=0))
    """

    def __init__(self, k: int, *, rng: Any = None) -> None:
        k = _stream_validation.check_reservoir_size(k)
        if not isinstance(rng, _random.CounterRNG):
            rng = _random.numpy_generator(rng)
        self._core = ReservoirCore(k, rng, _provenance.begin(rng))

    # --- what is in it ------------------------------------------------------------------------------

    @property
    def k(self) -> int:
        """Number of items to keep."""
        return self._core.k

    @property
    def count(self) -> int:
        """Number of items seen, those of weight 0 included."""
        return self._core.count

    @property
    def total_weight(self) -> float:
        """Sum of all weights seen, without the rounding errors of a long sum; inf beyond the largest float."""
        return self._core.running.value()

    @property
    def log_arrival_times(self) -> Array:
        """log T of the sample, shape (m,), in ascending order."""
        return self._core.settled().log_times.copy()

    @property
    def weights(self) -> Array:
        """Weights of the sample, shape (m,), in order of selection."""
        return self._core.settled().weights.copy()

    @property
    def numbers(self) -> Array:
        """Item numbers of the sample, shape (m,), int64, in order of selection."""
        return self._core.settled().numbers.copy()

    @property
    def notes(self) -> dict[str, Any]:
        """What `save` writes along with the reservoir: JSON values of your own, e.g. the place in the input.

        Each reservoir begins with an empty dictionary; `merge` leaves it as it is.
        """
        return self._core.notes

    def sample(self) -> Any:
        """The items of the sample in order of selection.

        Returns
        -------
        array, shape (m, ...), or list
            m = min(k, number of items of positive weight). The item numbers, if no items were ever given; an array, if
            all items came in arrays; otherwise a list.

        Examples
        --------
        >>> import gumbeltopk as gt
        >>> reservoir = gt.Reservoir(3, rng=0)
        >>> reservoir.extend([("ann", 0.1), ("ben", 0.0), ("eve", 0.9)])
        >>> sorted(reservoir.sample())
        ['ann', 'eve']
        """
        kept = self._core.settled()
        if kept.items is None:
            return kept.numbers.copy()
        return kept.items.copy()

    def __len__(self) -> int:
        return self._core.settled().size

    def __repr__(self) -> str:
        core = self._core
        rng = core.rng if core.has_counters else type(core.rng.bit_generator).__name__
        return (
            f"Reservoir(k={core.k}, kept={len(self)}, count={core.count}, "
            f"total_weight={self.total_weight:.6g}, rng={rng})"
        )

    # --- chunks -------------------------------------------------------------------------------------

    def update(self, weights: Any = None, items: Any = None, *, count: Any = None, start: Any = None) -> None:
        """Take in a chunk of the stream.

        Parameters
        ----------
        weights : array_like, shape (n,), optional
            Finite and not negative. Without weights, all items weigh 1.
        items : array, shape (n, ...), or sequence of n objects, optional
            What `sample` returns: labels, rows, any Python objects. Without items, `sample` returns item numbers.
        count : int, optional
            Number of items of a chunk without weights and items.
        start : int, optional
            Number of the chunk's first item. Default: the number of items seen so far.

        Raises
        ------
        ValueError, TypeError
            Bad weights (the index and the item number are named), lengths that do not agree, items that do not go with
            the earlier ones, and, with a `CounterRNG`, item numbers that have been there before.

        Examples
        --------
        >>> import numpy as np
        >>> import gumbeltopk as gt
        >>> reservoir = gt.Reservoir(10, rng=0)
        >>> for _ in range(100):
        ...     reservoir.update(np.ones(1000))
        >>> reservoir.update(count=900_000)  # as many items of weight 1
        >>> reservoir.count, len(reservoir)
        (1000000, 10)
        """
        self._core.check_idle()
        kept = self._core.settled()
        if weights is not None:
            if count is not None:
                raise TypeError("pass weights or count=, not both; with weights, their number is the count")
            weights = _stream_validation.as_chunk_weights(weights)
            count = len(weights)
        elif count is not None:
            count = _stream_validation.check_count(count)
        elif items is None:
            raise TypeError("pass weights, or items= or count= for items of equal weights")
        items = _kept.check_items(items, count, kept)
        count = len(items) if count is None else count
        start = _stream_validation.check_item_number(self._core.count if start is None else start, "start", count)
        self._core.take_chunk(weights, items, count, start)

    # --- single items -------------------------------------------------------------------------------

    def add(self, item: Any, weight: Any = 1.0, *, number: Any = None) -> None:
        """Take in one item.

        Parameters
        ----------
        item : object
        weight : float
            Finite and not negative.
        number : int, optional
            The item's number. Default: the number of items seen so far.

        Raises
        ------
        ValueError, TypeError
            A bad weight, or a number that has been there before under a `CounterRNG`.

        See Also
        --------
        extend : many items, ten times as fast.

        Examples
        --------
        >>> import gumbeltopk as gt
        >>> reservoir = gt.Reservoir(1, rng=0)
        >>> for word in ("the", "quick", "fox"):
        ...     reservoir.add(word, len(word))
        >>> len(reservoir), reservoir.total_weight
        (1, 11.0)
        """
        core = self._core
        core.check_idle()
        if number is not None or core.count > LARGEST_NUMBER:
            number = _stream_validation.check_item_number(core.count if number is None else number, "number", 1)
        else:
            number = core.count
        weight = _stream_validation.check_item_weight(weight, number)
        if core.running.pass_over(weight):
            core.count += 1
        elif core.has_counters:
            core.take_chunk(np.asarray([weight]), [item], 1, number)
        else:
            core.take_item(item, weight, number)

    def extend(self, pairs: Iterable[tuple[Any, Any]], *, start: Any = None) -> None:
        """Take in all (item, weight) pairs of an iterable, in one pass.

        Parameters
        ----------
        pairs : iterable of (item, weight)
        start : int, optional
            Number of the first item. Default: the number of items seen so far.

        Raises
        ------
        ValueError, TypeError
            A bad weight (the item number is named), something that is no pair, and what the iterable raises. The
            reservoir is then as it was before the call; so pass a stream that never ends in parts, e.g. by
            `itertools.islice`.

        Examples
        --------
        >>> import gumbeltopk as gt
        >>> reservoir = gt.Reservoir(10, rng=0)
        >>> reservoir.extend((f"user {i}", 1.0 / (1 + i)) for i in range(10_000))
        >>> reservoir.count, len(reservoir)
        (10000, 10)
        """
        core = self._core
        core.check_idle()
        before = core.count
        first = before if start is None else _stream_validation.check_item_number(start, "start")
        iterator = _stream_validation.iterator_of_pairs(pairs)
        with core.unchanged_on_error(), core.at_work():
            if core.has_counters:
                core.extend_by_chunks(iterator, first - before)
            else:
                core.extend_by_jumps(iterator, first - before)
            _stream_validation.check_item_number(first, "start", core.count - before)

    # --- merging ------------------------------------------------------------------------------------

    def merge(self, other: Reservoir) -> None:
        """Take in what another reservoir has seen: the k earliest arrivals of both.

        Exact, associative and commutative. `other` stays as it is.

        Parameters
        ----------
        other : Reservoir
            Of the same k, of another part of the stream, and with arrival times that are independent of these.

        Raises
        ------
        TypeError
            `other` is no Reservoir, or its items are arrays of another dtype.
        ValueError
            Another k; streams that are in both; generators that were seeded alike, as by the same int, or that were
            one generator until a reservoir was saved or pickled; item numbers that are in both under the same
            `CounterRNG`; items of another shape.

        Notes
        -----
        Reservoirs may share a generator and be merged as long as they do. Each reservoir that is loaded has a generator
        of its own, which draws the numbers that the others have drawn or will draw: those are not merged. Give
        reservoirs that are to be saved generators of their own, e.g. by `Generator.spawn`.

        Examples
        --------
        >>> import gumbeltopk as gt
        >>> halves = [gt.Reservoir(2, rng=gt.CounterRNG(0)) for _ in range(2)]
        >>> for half, start in zip(halves, (0, 500)):
        ...     half.update(count=500, start=start)
        >>> whole = gt.Reservoir(2, rng=gt.CounterRNG(0))
        >>> whole.update(count=1000)
        >>> (halves[0] | halves[1]).sample().tolist() == whole.sample().tolist()
        True
        """
        if not isinstance(other, Reservoir):
            raise TypeError(f"other is of type {type(other).__name__}; merge takes a Reservoir")
        core, others = self._core, other._core
        core.check_idle()
        others.check_idle()
        if others.k != core.k:
            raise ValueError(f"other keeps k = {others.k} items, and this reservoir {core.k}; only equal k merge")
        items, other_items = core.settled().items, others.settled().items
        if isinstance(items, np.ndarray) and isinstance(other_items, np.ndarray):
            _kept.check_arrays_agree(other_items, items)
        core.merge(others, _provenance.union(core.provenance, others.provenance))

    def __or__(self, other: Any) -> Reservoir:
        """A new reservoir, merged from both. It goes on with the generator of the left one."""
        if not isinstance(other, Reservoir):
            return NotImplemented
        merged = copy.copy(self)
        merged.merge(other)
        return merged

    def __copy__(self) -> Reservoir:
        """A reservoir of the same stream, which shares the generator."""
        copied = self.__class__.__new__(self.__class__)
        copied._core = self._core.copied()
        copied._core.notes = self.notes.copy()
        return copied

    # --- checkpoints --------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the reservoir to a file, in place of what is there, as a whole or not at all.

        The reservoir that `load` makes of it goes on exactly as this one would have, random numbers included. Saving
        changes nothing here. A generator that several reservoirs share is shared no more once they are loaded, and
        `merge` then refuses them.

        Parameters
        ----------
        path : path of the file

        Raises
        ------
        TypeError
            Items that are neither arrays nor str, bytes, int, float, bool or None: nothing is pickled. A generator
            that is not NumPy's own. Notes that are no JSON values.
        OSError
            The file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import gumbeltopk as gt
        >>> reservoir = gt.Reservoir(3, rng=0)
        >>> reservoir.update(count=1000)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     reservoir.save(pathlib.Path(folder, "reservoir.gtk"))
        ...     resumed = gt.Reservoir.load(pathlib.Path(folder, "reservoir.gtk"))
        >>> for each in (reservoir, resumed):
        ...     each.update(count=1000)
        >>> reservoir.sample().tolist() == resumed.sample().tolist()
        True
        """
        self._core.check_idle()
        _checkpoint.write(path, *_reservoir_state.encode(self._core))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reservoir:
        """The reservoir that was saved in a file. Safe with files from strangers: nothing in them is executed.

        Parameters
        ----------
        path : path of the file

        Raises
        ------
        CheckpointError
            The file is damaged, cut short, no checkpoint, or from a newer gumbeltopk.
        OSError
            The file cannot be read.
        """
        header, members = _checkpoint.read(path)
        loaded = cls.__new__(cls)
        with _checkpoint.named(path):
            loaded._core = _reservoir_state.decode(header, members)
        return loaded
