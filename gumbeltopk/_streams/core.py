"""The reservoir itself, without the checks and the documentation of its public methods (`gumbeltopk.Reservoir`)."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gumbeltopk import _random
from gumbeltopk._array_api import Array
from gumbeltopk._numpy import clocks
from gumbeltopk._streams import chunks as _chunks
from gumbeltopk._streams import kept as _kept
from gumbeltopk._streams import provenance as _provenance
from gumbeltopk._streams import validation as _stream_validation
from gumbeltopk._streams.kept import Kept
from gumbeltopk._streams.provenance import Provenance
from gumbeltopk._streams.running_weight import ITEMS_PER_SUM, UNIT, RunningWeight, exact

PAIRS_AT_A_TIME = 1 << 12  # of an iterator, where pairs are put together to chunks


class ReservoirCore:
    """The k earliest arrivals so far, and all that is needed to go on."""

    def __init__(self, k: int, rng: Any, provenance: Provenance) -> None:
        self.k = k
        self.rng = rng
        self.provenance = provenance
        self.kept = _kept.NOTHING
        self.waiting: list[tuple[float, float, int, Any]] = []  # single items before the k-th, not yet in order
        self.count = 0
        self.running = RunningWeight()
        self.notes: dict[str, Any] = {}  # of the user
        self.busy = False  # while an iterable is read

    def check_idle(self) -> None:
        """An error while `extend` reads an iterable: what is in the reservoir then is not complete."""
        if self.busy:
            raise RuntimeError("the iterable that extend reads uses the reservoir that it feeds; use another one there")

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """The reservoir is not to be used by others."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    @property
    def has_counters(self) -> bool:
        """Whether arrival times are functions of item numbers."""
        return isinstance(self.rng, _random.CounterRNG)

    def settled(self) -> Kept:
        """What is kept, in order; putting it in order draws nothing."""
        if self.waiting:
            log_times, weights, numbers, items = zip(*self.waiting, strict=True)
            waiting = Kept(np.asarray(log_times), np.asarray(weights), np.asarray(numbers), list(items))
            self.kept = _kept.first_arrivals(self.kept, waiting, self.k)
            self.waiting = []
        return self.kept

    def copied(self) -> ReservoirCore:
        """A copy that shares the generator. Nothing but these two attributes is ever changed in place."""
        new = object.__new__(ReservoirCore)
        vars(new).update(vars(self), waiting=self.waiting.copy(), running=copy.copy(self.running))
        return new

    @contextlib.contextmanager
    def unchanged_on_error(self) -> Iterator[None]:
        """Whatever is raised within, reservoir and generator are afterwards as they were before."""
        before = self.copied()
        bits = None if self.has_counters else self.rng.bit_generator
        state: Any = None if bits is None else bits.state
        try:
            yield
        except BaseException:
            vars(self).update(vars(before))
            if bits is not None:
                bits.state = state
            raise

    # --- chunks -------------------------------------------------------------------------------------

    def take_chunk(self, weights: Array | None, items: Any, count: int, start: int) -> None:
        """A chunk of `count` items, of weight 1 if there are no weights."""
        kept = self.settled()
        with self.unchanged_on_error():
            if self.has_counters:
                self.provenance = _provenance.with_numbers(self.provenance, self.rng.seed, start, start + count)
            if weights is None:
                self.kept = _chunks.take_equal(kept, count, items, start, self.k, self.rng)
                units = count * UNIT
            else:
                self.kept, units = _chunks.take_weighted(kept, weights, items, start, self.k, self.rng)
            self._leave_jump(units, count)

    def merge(self, other: ReservoirCore, provenance: Provenance) -> None:
        """The k earliest of both; `provenance` is that of the union."""
        self.kept = _kept.first_arrivals(self.settled(), other.settled(), self.k)
        self.provenance = provenance
        self._leave_jump(other.running.total + exact(other.running.passed), other.count)

    def _leave_jump(self, units: int, count: int) -> None:
        """Count what came in between single items; the next one of them begins a new jump."""
        self.running.fold()
        self.running.drop_jump()
        self.running.add(units)
        self.count += count

    # --- single items -------------------------------------------------------------------------------

    def extend_by_jumps(self, pairs: Iterator[Any], shift: int) -> None:
        """All pairs (item, weight), item numbers being shifted against the count; nothing is undone on errors."""
        # All in local variables: this loop is what a stream of single items costs.
        running, before = self.running, -1
        while self.count > before:
            running.fold()
            count, passed, limit = self.count, 0.0, running.limit
            before = count
            for pair in itertools.islice(pairs, ITEMS_PER_SUM):
                try:
                    item, weight = pair
                except (TypeError, ValueError):
                    raise _stream_validation.not_a_pair(pair, count + shift) from None
                if type(weight) is not float or not weight >= 0.0:
                    weight = _stream_validation.check_item_weight(weight, count + shift)
                reached = passed + weight
                if reached < limit:
                    passed = reached
                    count += 1
                    continue
                weight = _stream_validation.check_item_weight(weight, count + shift)  # it may be inf
                self.count, running.passed = count, passed
                self.take_item(item, weight, count + shift)
                count, passed, limit = self.count, 0.0, running.limit
            self.count, running.passed = count, passed

    def extend_by_chunks(self, pairs: Iterator[Any], shift: int) -> None:
        """The same for counter-based keys."""
        while chunk := list(itertools.islice(pairs, PAIRS_AT_A_TIME)):
            first = self.count + shift
            items, weights = [], []
            for number, pair in enumerate(chunk, start=first):
                try:
                    item, weight = pair
                except (TypeError, ValueError):
                    raise _stream_validation.not_a_pair(pair, number) from None
                items.append(item)
                weights.append(_stream_validation.check_item_weight(weight, number))
            self.take_chunk(np.asarray(weights), items, len(items), first)

    def take_item(self, item: Any, weight: float, number: int) -> None:
        """An item that is not simply passed over."""
        self.running.fold()
        if weight > 0:
            if self.kept.size + len(self.waiting) < self.k:
                self._take_early_item(item, weight, number)
            else:
                self._take_late_item(item, weight, number)
        self.running.add(exact(weight))
        self.count += 1

    def _take_early_item(self, item: Any, weight: float, number: int) -> None:
        """An item of a stream that has not filled the reservoir."""
        log_exponential = math.log(_random.standard_exponential(self.rng, (), np, "cpu"))
        self.waiting.append((log_exponential - math.log(weight), weight, number, item))
        if self.kept.size + len(self.waiting) == self.k:
            self.settled()

    def _take_late_item(self, item: Any, weight: float, number: int) -> None:
        """An item of a stream that has filled it: it is kept if it arrives before the threshold."""
        threshold = _chunks.log_threshold(self.kept, self.k)
        if not clocks.can_jump(threshold):
            self.kept = _chunks.late_arrival(self.kept, item, weight, number, self.k, self.rng)
            return
        if self.running.jump_end is None:
            self.running.begin_jump(clocks.draw_jump(threshold, self.rng))
        if self.running.jump_ends_within(weight):
            log_time = clocks.log_arrival_after_jump(weight, threshold, self.rng)
            self.kept = _kept.with_item(self.kept, log_time, weight, number, item, self.k)
            self.running.drop_jump()
