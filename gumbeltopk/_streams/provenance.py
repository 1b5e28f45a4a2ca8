"""Where the arrival times of a reservoir come from, so that no stream is counted twice in a merge.

A merge is exact if the two sides have independent arrival times of different items. What breaks it: a reservoir merged
with itself or with a copy, two generators that draw the same numbers, one item number twice under one counter seed.

Reservoirs may share a generator. Once they are saved and loaded, or pickled, each has a copy of it, and the copies draw
the same numbers. Where one copy stands says nothing about what the other has drawn, so they are told by their seed.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import uuid
from typing import Any, NamedTuple

import numpy as np

from gumbeltopk._random import CounterRNG

Interval = tuple[int, int]  # item numbers first .. last - 1
Intervals = tuple[Interval, ...]  # in order, disjoint, with gaps between them


class Stream(NamedTuple):
    """One reservoir's own stream, what its generator was like at the start, and the generator itself.

    `fingerprint` is a digest of the state at the start, `seed` one of the seed, which all copies of a generator have in
    common, wherever they stand. None where that is not known.
    """

    identity: str
    fingerprint: str | None
    seed: str | None
    generator: Any


class Provenance(NamedTuple):
    """All streams of a reservoir, and the item numbers that were drawn under each counter seed."""

    streams: tuple[Stream, ...]
    numbers: dict[int, Intervals]


def begin(rng: Any) -> Provenance:
    """The provenance of a new reservoir."""
    if isinstance(rng, CounterRNG):
        return Provenance((), {})
    return Provenance((Stream(uuid.uuid4().hex, fingerprint(rng), digest_of_seed(rng), rng),), {})


def fingerprint(rng: np.random.Generator) -> str | None:
    """A digest of the generator's state; None for a generator whose state is not a matter of numbers."""
    try:
        return hashlib.sha256(json.dumps(generator_state(rng)).encode()).hexdigest()
    except (TypeError, ValueError, AttributeError, NotImplementedError):
        return None


def digest_of_seed(rng: np.random.Generator) -> str | None:
    """A digest of the seed; None for a generator that was made from a state or a key."""
    sequence = getattr(rng.bit_generator, "seed_seq", None)
    if not isinstance(sequence, np.random.SeedSequence):
        return None
    return hashlib.sha256(sequence.generate_state(8).tobytes()).hexdigest()  # which changes nothing in it


def generator_state(rng: np.random.Generator) -> Any:
    """The state of a NumPy generator as JSON can write it."""
    return _as_json(rng.bit_generator.state)


def _as_json(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _as_json(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def with_numbers(provenance: Provenance, seed: int, first: int, last: int) -> Provenance:
    """With the items first .. last - 1, which must not have been there before."""
    if first == last:
        return provenance
    seen = provenance.numbers.get(seed, ())
    place = bisect.bisect_right(seen, (first, last))
    before, after = max(place - 1, 0), place + 1
    near = _joined(tuple(sorted((*seen[before:after], (first, last)))), seed)
    return provenance._replace(numbers={**provenance.numbers, seed: (*seen[:before], *near, *seen[after:])})


def union(first: Provenance, second: Provenance) -> Provenance:
    """Of two reservoirs that may be merged."""
    for stream in first.streams:
        for other in second.streams:
            _check_independent(stream, other)
    numbers = dict(first.numbers)
    for seed, intervals in second.numbers.items():
        numbers[seed] = _joined(tuple(sorted((*numbers.get(seed, ()), *intervals))), seed)
    return Provenance(first.streams + second.streams, numbers)


def _check_independent(stream: Stream, other: Stream) -> None:
    if stream.identity == other.identity:
        raise ValueError(
            "both reservoirs hold the same stream (one is the other, a copy of it, or has been merged with it); "
            "its items would count twice"
        )
    began_alike = stream.fingerprint is not None and stream.fingerprint == other.fingerprint
    seeded_alike = stream.seed is not None and stream.seed == other.seed
    if (began_alike or seeded_alike) and _source(stream) is not _source(other):
        raise ValueError(
            "the generators of both reservoirs were seeded alike (or were one, until a reservoir was saved or "
            "pickled), so that their arrival times need not be independent; spawn one for each, e.g. "
            "numpy.random.default_rng(seed).spawn(2), or pass rng=CounterRNG(seed) to both"
        )


def _source(stream: Stream) -> Any:
    """Where the numbers come from: a Generator made from a BitGenerator takes them from there."""
    return getattr(stream.generator, "bit_generator", stream.generator)


def _joined(intervals: Intervals, seed: int) -> Intervals:
    """Sorted intervals, neighbours that touch joined; an overlap is an error."""
    joined: list[Interval] = []
    for first, last in intervals:
        if joined and first < joined[-1][1]:
            repeated = f"{first} .. {min(last, joined[-1][1]) - 1}"
            raise ValueError(
                f"items of the numbers {repeated} are there twice under CounterRNG({seed}); give each item of all "
                "chunks and workers a number of its own with start="
            )
        if joined and first == joined[-1][1]:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)
