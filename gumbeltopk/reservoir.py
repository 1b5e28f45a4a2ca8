"""Weighted sampling without replacement from streams: a reservoir of the k earliest arrivals (Algorithm 1).

Item i of weight w_i arrives at T_i ~ Exp(w_i), independently of all others, and the sample is the k earliest. So a
reservoir that keeps the k earliest of what it has seen is exact at any time, and reservoirs of parts of a stream merge
into that of the whole. What is drawn is the same as by `sample`: sequential sampling (Plackett-Luce, eq. 1).

Only items that arrive before the k-th earliest so far, the threshold, matter. Chunks find them by Poisson clocks,
single items by weighted jumps (A-ExpJ, Efraimidis and Spirakis 2006, with arrival times instead of u^(1/w)), and with
counter-based keys by a comparison for each item.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gumbeltopk import _checkpoint, _chunks, _kept, _provenance, _random, _reservoir_state, _validation
from gumbeltopk._array_api import Array
from gumbeltopk._kept import Kept
from gumbeltopk._numpy import clocks
from gumbeltopk._running_weight import ITEMS_PER_SUM, UNIT, RunningWeight, exact

__all__ = ["Reservoir"]

PAIRS_AT_A_TIME = 1 << 12  # of an iterator, where pairs are put together to chunks


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
        self._k = _validation.check_reservoir_size(k)
        self._rng = rng if isinstance(rng, _random.CounterRNG) else _random.numpy_generator(rng)
        self._provenance = _provenance.begin(self._rng)
        self._kept = _kept.NOTHING
        self._waiting: list[tuple[float, float, int, Any]] = []  # single items before the k-th, not yet in order
        self._count = 0
        self._running = RunningWeight()

    # --- what is in it ------------------------------------------------------------------------------

    @property
    def k(self) -> int:
        """Number of items to keep."""
        return self._k

    @property
    def count(self) -> int:
        """Number of items seen, those of weight 0 included."""
        return self._count

    @property
    def total_weight(self) -> float:
        """Sum of all weights seen, without the rounding errors of a long sum; inf beyond the largest float."""
        return self._running.value()

    @property
    def log_arrival_times(self) -> Array:
        """log T of the sample, shape (m,), in ascending order."""
        return self._settled().log_times.copy()

    @property
    def weights(self) -> Array:
        """Weights of the sample, shape (m,), in order of selection."""
        return self._settled().weights.copy()

    @property
    def numbers(self) -> Array:
        """Item numbers of the sample, shape (m,), int64, in order of selection."""
        return self._settled().numbers.copy()

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
        kept = self._settled()
        if kept.items is None:
            return kept.numbers.copy()
        return kept.items.copy()

    def __len__(self) -> int:
        return self._settled().size

    def __repr__(self) -> str:
        rng = self._rng if isinstance(self._rng, _random.CounterRNG) else type(self._rng.bit_generator).__name__
        return (
            f"Reservoir(k={self._k}, kept={len(self)}, count={self._count}, "
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
        kept = self._settled()
        if weights is not None:
            if count is not None:
                raise TypeError("pass weights or count=, not both; with weights, their number is the count")
            weights = _validation.as_chunk_weights(weights)
            count = len(weights)
        elif count is not None:
            count = _validation.as_integer(count, "count")
            if count < 0:
                raise ValueError(f"count = {count} is negative; pass the number of items")
        elif items is None:
            raise TypeError("pass weights, or items= or count= for items of equal weights")
        items = _kept.check_items(items, count, kept)
        self._take_chunk(weights, items, len(items) if count is None else count, start)

    def _take_chunk(self, weights: Array | None, items: Any, count: int, start: Any) -> None:
        start = self._count if start is None else start
        start = _validation.check_item_number(start, "start", count)
        kept = self._settled()
        with self._unchanged_on_error():
            if isinstance(self._rng, _random.CounterRNG):
                self._provenance = _provenance.with_numbers(self._provenance, self._rng.seed, start, start + count)
            if weights is None:
                self._kept = _chunks.take_equal(kept, count, items, start, self._k, self._rng)
                units = count * UNIT
            else:
                self._kept, units = _chunks.take_weighted(kept, weights, items, start, self._k, self._rng)
            self._running.fold()
            self._running.drop_jump()
            self._running.add(units)
            self._count += count

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
        if number is not None:
            number = _validation.check_item_number(number, "number", 1)
        weight = _validation.check_item_weight(weight, self._count if number is None else number)
        if self._running.pass_over(weight):
            self._count += 1
        elif isinstance(self._rng, _random.CounterRNG):
            self._take_chunk(np.asarray([weight]), [item], 1, number)
        else:
            self._take_item(item, weight, self._count if number is None else number)

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
        shift = 0 if start is None else _validation.check_item_number(start, "start") - self._count
        iterator = iter(pairs)
        with self._unchanged_on_error():
            if isinstance(self._rng, _random.CounterRNG):
                self._extend_by_chunks(iterator, shift)
            else:
                self._extend_by_jumps(iterator, shift)

    def _extend_by_jumps(self, pairs: Iterator[tuple[Any, Any]], shift: int) -> None:
        # All in local variables: this loop is what a stream of single items costs.
        running, before = self._running, -1
        while self._count > before:
            running.fold()
            count, passed, limit = self._count, 0.0, running.limit
            before = count
            for item, weight in itertools.islice(pairs, ITEMS_PER_SUM):
                if type(weight) is not float or not weight >= 0.0:
                    weight = _validation.check_item_weight(weight, count + shift)
                reached = passed + weight
                if reached < limit:
                    passed = reached
                    count += 1
                else:
                    weight = _validation.check_item_weight(weight, count + shift)  # it may be inf
                    self._count, running.passed = count, passed
                    self._take_item(item, weight, count + shift)
                    count, passed, limit = self._count, 0.0, running.limit
            self._count, running.passed = count, passed

    def _extend_by_chunks(self, pairs: Iterator[tuple[Any, Any]], shift: int) -> None:
        while chunk := list(itertools.islice(pairs, PAIRS_AT_A_TIME)):
            first = self._count + shift
            items = [item for item, _ in chunk]
            weights = [_validation.check_item_weight(weight, first + i) for i, (_, weight) in enumerate(chunk)]
            self._take_chunk(np.asarray(weights), items, len(items), first)

    def _take_item(self, item: Any, weight: float, number: int) -> None:
        """An item that is not simply passed over."""
        self._running.fold()
        if weight > 0:
            if self._kept.size + len(self._waiting) < self._k:
                log_exponential = math.log(_random.standard_exponential(self._rng, (), np, "cpu"))
                self._wait(log_exponential - math.log(weight), weight, number, item)
            else:
                self._take_late_item(item, weight, number)
        self._running.add(exact(weight))
        self._count += 1

    def _take_late_item(self, item: Any, weight: float, number: int) -> None:
        """An item of a stream that has filled the reservoir: it must arrive before the threshold."""
        rng: Any = self._rng
        threshold = _chunks.log_threshold(self._settled(), self._k)
        if not clocks.can_jump(threshold):
            self._kept = _chunks.late_arrival(self._kept, item, weight, number, self._k, rng)
            return
        if self._running.jump_end is None:
            self._running.begin_jump(clocks.draw_jump(threshold, rng))
        if self._running.jump_ends_within(weight):
            log_time = clocks.log_arrival_after_jump(weight, threshold, rng)
            self._kept = _kept.with_item(self._kept, log_time, weight, number, item, self._k)
            self._running.drop_jump()

    def _wait(self, log_time: float, weight: float, number: int, item: Any) -> None:
        self._waiting.append((log_time, weight, number, item))
        if self._kept.size + len(self._waiting) >= self._k:
            self._settled()

    def _settled(self) -> Kept:
        """What is kept, in order; putting it in order draws nothing."""
        if self._waiting:
            log_times, weights, numbers, items = zip(*self._waiting, strict=True)
            waiting = Kept(np.asarray(log_times), np.asarray(weights), np.asarray(numbers), list(items))
            self._kept = _kept.first_arrivals(self._kept, waiting, self._k)
            self._waiting = []
        return self._kept

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
            Another k; streams that are in both; generators that were seeded alike (as by the same int); item numbers
            that are in both under the same `CounterRNG`; items of another shape.

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
        if other._k != self._k:
            raise ValueError(f"other keeps k = {other._k} items, and this reservoir {self._k}; only equal k merge")
        kept, others = self._settled(), other._settled()
        if isinstance(kept.items, np.ndarray) and isinstance(others.items, np.ndarray):
            _kept.check_arrays_agree(others.items, kept.items)
        provenance = _provenance.union(self._provenance, other._provenance)
        self._kept = _kept.first_arrivals(kept, others, self._k)
        self._provenance = provenance
        self._running.fold()
        self._running.drop_jump()
        self._running.add(other._running.total + exact(other._running.passed))
        self._count += other._count

    def __or__(self, other: Any) -> Reservoir:
        """A new reservoir, merged from both. It goes on with the generator of the left one."""
        if not isinstance(other, Reservoir):
            return NotImplemented
        merged = copy.copy(self)
        merged.merge(other)
        return merged

    def __copy__(self) -> Reservoir:
        """A reservoir of the same stream, which shares the generator."""
        copied = object.__new__(type(self))
        vars(copied).update(self._snapshot())
        return copied

    def _snapshot(self) -> dict[str, Any]:
        # Nothing but these two is ever changed in place.
        return {**vars(self), "_waiting": self._waiting.copy(), "_running": copy.copy(self._running)}

    # --- checkpoints --------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the reservoir to a file, in place of what is there, as a whole or not at all.

        The reservoir that `load` makes of it goes on exactly as this one would have, random numbers included. Saving
        changes nothing here.

        Parameters
        ----------
        path : path of the file

        Raises
        ------
        TypeError
            Items that are neither arrays nor str, bytes, int, float, bool or None: nothing is pickled. A generator
            that is not NumPy's own.
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
        kept = self._settled()
        state = _reservoir_state.encode(self._k, self._count, self._rng, self._provenance, kept, self._running)
        _checkpoint.write(path, *state)

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
        reservoir = cls.__new__(cls)
        with _checkpoint.named(path):
            k, count, rng, provenance, kept, running = _reservoir_state.decode(header, members)
        reservoir._k, reservoir._count, reservoir._rng, reservoir._provenance = k, count, rng, provenance
        reservoir._kept, reservoir._waiting, reservoir._running = kept, [], running
        return reservoir

    @contextlib.contextmanager
    def _unchanged_on_error(self) -> Iterator[None]:
        before = self._snapshot()
        bits = None if isinstance(self._rng, _random.CounterRNG) else self._rng.bit_generator
        state: Any = None if bits is None else bits.state
        try:
            yield
        except BaseException:
            vars(self).update(before)
            if bits is not None:
                bits.state = state
            raise
