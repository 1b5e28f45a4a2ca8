"""Reservoirs, pick by pick: 200,000 picks on every path by which a stream can come, against eq. 1.

A stream of 150 items in five classes, one after the other in the stream, of which a reservoir keeps 50: each pick is of
a class with a known probability given the picks before it (`_statistics.uniforms_of_picks`). 4000 reservoirs make
200,000 picks. The false-alarm rate is 5e-6 a path. Power 1 - 1e-6: relative errors of 4.7 % rms in the 20 cells of a
third of the picks, 3.9 % in the 25 cells of all pairs. The well-known mistakes, further down, are found.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gumbeltopk as gt
from tests import _statistics
from tests.test_reservoir import MUTANTS as MUTANTS_OF_PAIRS
from tests.test_reservoir import by_an_iterator as pairs_by_an_iterator
from tests.test_reservoir import by_merging as pairs_by_merging
from tests.test_reservoir import by_single_items as pairs_by_single_items

WEIGHTS = np.asarray([0.4, 0.1, 0.5, 0.3, 0.2])
COPIES, K, RESERVOIRS = 30, 50, 4000
ALL = np.repeat(WEIGHTS, COPIES)
DILUTION = 25  # items of weight 0 for each other one, so that Poisson clocks are at work and not the keys of all items

Way = Callable[[Any, pathlib.Path], gt.Reservoir]


def diluted(first: int, last: int) -> np.ndarray:
    """The weights of the classes first .. last - 1; item i of the stream has the number DILUTION * i."""
    chunk = np.zeros(((last - first) * COPIES, DILUTION))
    chunk[:, 0] = ALL[first * COPIES : last * COPIES]
    return chunk.ravel()


def pairs_of(first: int, last: int) -> Any:
    """(item, weight) of some classes; the item is the number that it would have in a diluted chunk."""
    numbers = range(DILUTION * first * COPIES, DILUTION * last * COPIES, DILUTION)
    return zip(numbers, ALL[first * COPIES : last * COPIES].tolist(), strict=True)


def by_one_chunk(rng: Any, folder: pathlib.Path) -> gt.Reservoir:
    reservoir = gt.Reservoir(K, rng=rng)
    reservoir.update(diluted(0, 5))
    return reservoir


def by_chunks(rng: Any, folder: pathlib.Path) -> gt.Reservoir:
    reservoir = gt.Reservoir(K, rng=rng)
    for first, last in ((0, 2), (2, 4), (4, 5)):
        reservoir.update(diluted(first, last))
    return reservoir


def by_single_items(rng: Any, folder: pathlib.Path) -> gt.Reservoir:
    reservoir = gt.Reservoir(K, rng=rng)
    for item, weight in pairs_of(0, 5):
        reservoir.add(item, weight)
    return reservoir


def by_an_iterator(rng: Any, folder: pathlib.Path) -> gt.Reservoir:
    reservoir = gt.Reservoir(K, rng=rng)
    reservoir.extend(pairs_of(0, 5))
    return reservoir


def by_chunks_and_single_items(rng: Any, folder: pathlib.Path) -> gt.Reservoir:
    reservoir = gt.Reservoir(K, rng=rng)
    reservoir.extend(pairs_of(0, 2))
    reservoir.update(diluted(2, 3), start=2 * COPIES * DILUTION)
    reservoir.extend(pairs_of(3, 4))
    reservoir.update(diluted(4, 5), start=4 * COPIES * DILUTION)
    return reservoir


def by_merging_and_going_on(rng: Any, folder: pathlib.Path) -> gt.Reservoir:
    parts = [gt.Reservoir(K, rng=rng) for _ in range(2)]
    parts[0].update(diluted(0, 2))
    parts[1].extend(pairs_of(2, 4))
    merged = parts[0] | parts[1]
    merged.update(diluted(4, 5), start=4 * COPIES * DILUTION)
    return merged


def by_resuming(rng: Any, folder: pathlib.Path) -> gt.Reservoir:
    """Saved and loaded in the middle of a jump, and again after a chunk. A new generator for each reservoir."""
    reservoir = gt.Reservoir(K, rng=rng.spawn(1)[0])
    reservoir.extend(pairs_of(0, 2))
    for first, last in ((2, 4), (4, 5)):
        reservoir.save(folder / "reservoir.gtk")
        reservoir = gt.Reservoir.load(folder / "reservoir.gtk")
        if first == 2:
            reservoir.update(diluted(first, last), start=first * COPIES * DILUTION)
        else:
            reservoir.extend(pairs_of(first, last))
    return reservoir


def by_counters(rng: Any, folder: pathlib.Path) -> gt.Reservoir:
    reservoir = gt.Reservoir(K, rng=gt.CounterRNG(int(rng.integers(2**63))))
    reservoir.update(diluted(2, 5), start=2 * COPIES * DILUTION)
    reservoir.update(diluted(0, 2), start=0)
    return reservoir


WAYS: list[Way] = [
    by_one_chunk,
    by_chunks,
    by_single_items,
    by_an_iterator,
    by_chunks_and_single_items,
    by_merging_and_going_on,
    by_resuming,
    by_counters,
]


def classes_of(way: Way, folder: pathlib.Path, reservoirs: int = RESERVOIRS) -> np.ndarray:
    """The class of each pick, (reservoirs, K)."""
    rng = np.random.default_rng(20240302)
    samples = [way(rng, folder).sample() for _ in range(reservoirs)]
    assert all(len(sample) == K for sample in samples)
    return np.asarray(samples) // (DILUTION * COPIES)


def test_the_power_is_as_stated() -> None:
    assert RESERVOIRS * K == 200_000
    assert _statistics.smallest_error_found(RESERVOIRS * (K // 3), 20) < 0.047
    assert _statistics.smallest_error_found(RESERVOIRS * K // 2, 25) < 0.039


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_each_pick_is_by_weight_among_the_items_that_are_left(way: Way, tmp_path: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # of 8000 files, for by_resuming
    _statistics.assert_sequential(classes_of(way, tmp_path), WEIGHTS, COPIES)


SCALES = {
    "tiny": np.full(5, 1e-300),
    "huge": np.full(5, 1e300),
    "a heavy class at the end": np.asarray([1e-300, 1e-300, 1e-300, 1e-300, 1e300]),
    "a heavy class at the beginning": np.asarray([1e300, 1e-300, 1e-300, 1e-300, 1e-300]),
}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_weights_may_be_of_any_size(way: Way, scale: np.ndarray, tmp_path: pathlib.Path, monkeypatch) -> None:
    """500 reservoirs. The 30 heavy items, where there are some, come first, and then 20 of the others by weight."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setitem(globals(), "ALL", np.repeat(WEIGHTS * scale, COPIES))
    classes = classes_of(way, tmp_path, 500)
    if scale.max() > scale.min():
        assert (classes[:, :COPIES] == np.argmax(scale)).all()
        assert (classes[:, COPIES:] != np.argmax(scale)).all()
    _statistics.assert_sequential(classes, WEIGHTS * scale, COPIES)


@pytest.mark.parametrize(
    ("way", "exponents"),
    [(by_chunks, (-890, 1010)), (by_an_iterator, (-850, 850)), (by_counters, (-1000, 1010))],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_weights_times_a_power_of_two_give_the_same_sample(way: Way, exponents, tmp_path, monkeypatch) -> None:
    """In the range that the documentation states."""
    expected = way(np.random.default_rng(1), tmp_path).sample()
    for exponent in (*exponents, -100, 1):
        monkeypatch.setitem(globals(), "ALL", np.repeat(WEIGHTS, COPIES) * 2.0**exponent)
        np.testing.assert_array_equal(way(np.random.default_rng(1), tmp_path).sample(), expected)


LIKE_THOSE_OF_PAIRS = {
    pairs_by_single_items: by_single_items,
    pairs_by_an_iterator: by_an_iterator,
    pairs_by_merging: by_merging_and_going_on,
}
MUTANTS = [(*mutant, LIKE_THOSE_OF_PAIRS.get(way, by_chunks)) for *mutant, way in MUTANTS_OF_PAIRS]


@pytest.mark.parametrize(("where", "name", "mutant", "way"), MUTANTS, ids=lambda x: getattr(x, "__name__", x))
def test_mutants_are_found(where, name, mutant, way, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(where, name, mutant)
    with pytest.raises(AssertionError):
        _statistics.assert_sequential(classes_of(way, tmp_path, 500), WEIGHTS, COPIES)
