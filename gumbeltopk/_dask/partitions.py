"""Reservoirs of the partitions of a bag or of a data frame, and the reservoir of all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gumbeltopk._random import CounterRNG
from gumbeltopk.reservoir import Reservoir

Weight = Callable[[Any], Any] | Any  # a function of an item, the name of a field, or None


class _Rows(Sequence[Any]):
    """The rows of a data frame as dicts, each made when it is asked for: a reservoir asks only for those it keeps."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, position: Any) -> Any:
        return self.frame.iloc[[position]].to_dict("records")[0]


def is_frame(partition: Any) -> bool:
    """Whether a partition is a data frame."""
    return hasattr(partition, "iloc")


def count_items(partition: Any) -> int:
    """The number of items; partitions of bags may be iterators."""
    return len(partition) if hasattr(partition, "__len__") else sum(1 for _ in partition)


def reservoir_of_partition(
    partition: Any, number: int, start: int, k: int, weight: Weight, rng: CounterRNG | np.random.SeedSequence
) -> Reservoir:
    """The reservoir of partition `number`, whose first item is item `start`."""
    reservoir = Reservoir(k, rng=rng)
    try:
        if is_frame(partition):
            weights = None if weight is None else _column(partition, weight)
            reservoir.update(weights, _Rows(partition), start=start)
        elif weight is None:
            reservoir.update(items=list(partition), start=start)
        else:
            field = weight if callable(weight) else functools.partial(_field, name=weight)
            reservoir.extend(((item, field(item)) for item in partition), start=start)
    except (TypeError, ValueError) as error:
        raise type(error)(f"partition {number}: {error}") from error
    return reservoir


def _column(frame: Any, weight: Weight) -> Any:
    return np.asarray(weight(frame) if callable(weight) else frame[weight])


def _field(item: Any, name: Any) -> Any:
    return item[name]


def merge(reservoirs: Iterable[Reservoir]) -> Reservoir:
    """A new reservoir of all; those that are given, which Dask may use again, stay as they are."""
    first, *others = reservoirs
    return functools.reduce(Reservoir.__or__, others, first)
