"""Whatever is passed for whatever argument of the samplers: a result, or a ValueError or TypeError that names it.

Everything else, above all an error from deep inside that names nothing, is a failure; and so is a generator that has
moved although the call raised.
"""

from __future__ import annotations

import copy
import decimal
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gumbeltopk as gt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    MATRIX = np.matrix([[1.0]])


class IsAnIndex:
    """What NumPy takes for an integer."""

    def __index__(self) -> int:
        return 1


STRANGE: list[Any] = [
    *(None, "x", b"2", True, np.True_, 1.5, 2.0, -1, float("nan"), float("inf"), 1j, ..., NotImplemented, int, len),
    *(2**62, 2**70, -(2**70), 10**400, 10**9999),
    *(np.float32(1), np.uint64(2**64 - 1), np.int8(-1), np.longdouble(1), np.datetime64("2020")),
    *(np.asarray(1), np.asarray(1.0), np.asarray([]), np.asarray([[]]), np.asarray([1, 2]), np.asarray([[1, 2]])),
    *(np.asarray(["a"]), np.asarray([None]), np.asarray([1j]), np.asarray([np.nan]), np.asarray([-1.0])),
    *(np.asarray([2**63], dtype=np.uint64), np.zeros(3, dtype=bool), np.zeros(3, dtype=np.longdouble)),
    *(np.zeros(2, dtype=[("a", "f8")]), np.ma.masked_array([1.0], [True]), MATRIX),
    *([2**70], [1, 2], [], [[1], [1, 2]], ["a"], (1,), {1: 2}, {1}, range(2), slice(1), decimal.Decimal(1)),
    *(object(), IsAnIndex(), np.random.RandomState(0)),
]


NAMES = [f"{number} {type(value).__name__}" for number, value in enumerate(STRANGE)]


def sample(generator: Any, **arguments: Any) -> Any:
    given = {"weights": [1.0, 2.0, 3.0], "k": 1, "rng": generator, **arguments}
    return gt.sample(**given)


def sample_ragged(generator: Any, **arguments: Any) -> Any:
    given = {"weights": [1.0, 2.0, 3.0], "offsets": [0, 1, 3], "k": 1, "rng": generator, **arguments}
    return gt.sample_ragged(**given)


def filled(rng: Any) -> gt.Reservoir:
    reservoir = gt.Reservoir(2, rng=rng)
    reservoir.update([1.0, 2.0, 3.0])
    return reservoir


Call = Callable[[Any, Any], Any]  # of a generator and the strange value
CALLS: dict[str, Call] = {
    **{
        f"sample {name} {method} {on_short}": lambda rng, value, name=name, method=method, on_short=on_short: sample(
            rng, **{"method": method, "on_short": on_short, name: value}
        )
        for name in ("weights", "k", "where", "axis", "check", "return_mask")
        for method in ("auto", "blocks")
        for on_short in ("raise", "pad")
    },
    **{
        f"sample {name}": lambda rng, value, name=name: sample(rng, **{name: value})
        for name in ("rng", "on_short", "method")
    },
    "sample log_weights": lambda rng, value: sample(rng, log_weights=value, weights=None),
    **{
        f"sample_ragged {name}": lambda rng, value, name=name: sample_ragged(rng, **{name: value})
        for name in ("weights", "offsets", "k", "rng", "check", "return_mask", "on_short")
    },
    "sample_ragged k pad": lambda rng, value: sample_ragged(rng, k=value, on_short="pad"),
    "Sampler weights": lambda rng, value: gt.Sampler(weights=value),
    "Sampler.sample k": lambda rng, value: gt.Sampler(np.zeros(99)).sample(value, rng=rng),
    "Sampler.sample shape": lambda rng, value: gt.Sampler(np.zeros(99)).sample(1, value, rng=rng),
    "Sampler.sample rng": lambda rng, value: gt.Sampler(np.zeros(99)).sample(1, rng=value),
    "k_hot indices": lambda rng, value: gt.k_hot(value, 4),
    "k_hot n": lambda rng, value: gt.k_hot([0], value),
    "k_hot dtype": lambda rng, value: gt.k_hot([0, 1], 3, dtype=value),
    "CounterRNG seed": lambda rng, value: gt.CounterRNG(value),
    "Reservoir k": lambda rng, value: gt.Reservoir(value, rng=rng),
    "Reservoir rng": lambda rng, value: gt.Reservoir(1, rng=value),
    "Reservoir.update weights": lambda rng, value: filled(rng).update(value),
    "Reservoir.update items": lambda rng, value: filled(rng).update([1.0], items=value),
    "Reservoir.update count": lambda rng, value: filled(rng).update(count=value),
    "Reservoir.update start": lambda rng, value: filled(rng).update([1.0], start=value),
    "Reservoir.add weight": lambda rng, value: filled(rng).add("item", value),
    "Reservoir.add number": lambda rng, value: filled(rng).add("item", number=value),
    "Reservoir.extend pairs": lambda rng, value: filled(rng).extend(value),
    "Reservoir.extend pairs, one of them": lambda rng, value: filled(rng).extend([value]),
    "Reservoir.extend weight": lambda rng, value: filled(rng).extend([("item", value)]),
    "Reservoir.extend start": lambda rng, value: filled(rng).extend([("item", 1.0)], start=value),
    "Reservoir.merge other": lambda rng, value: filled(rng).merge(value),
    "Reservoir.load path": lambda rng, value: gt.Reservoir.load(value),
    "Reservoir.save path": lambda rng, value: filled(rng).save(value),
}

# Where a value is good by itself, the message is about what it does not go with.
ALSO_NAMED = {
    "weights": ("pass exactly one of", "pass weights, or items= or count=", "k = ", "offsets[", "where ", "axis "),
    "log_weights": ("pass exactly one of", "k = "),
    "offsets": ("k has shape", "k = "),
    "where": ("k = ",),
    "count": ("start = ", "pass weights, or items= or count="),
    "pairs": ("weight = ",),
    "start": ("CounterRNG(0)",),
    "number": ("CounterRNG(0)",),
}


def error_of(call: Callable[[], Any]) -> Exception | None:
    try:
        call()
    except (OSError, MemoryError, TypeError, ValueError) as error:
        return error
    return None


def names(error: Exception, argument: str) -> bool:
    message = str(error)
    return message.startswith((argument, *ALSO_NAMED.get(argument, ()))) or f" of {argument} " in message


@pytest.mark.parametrize("value", STRANGE, ids=NAMES)
def test_a_strange_value_gives_a_result_or_an_error_that_names_the_argument(value: Any, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # where some of the values are names of files
    for name, call in CALLS.items():
        argument = name.split(",")[0].split()[1]
        rng = np.random.default_rng(0)
        before = rng.bit_generator.state
        error = error_of(lambda call=call, rng=rng: call(rng, copy.copy(value)))
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and argument == "path"):
            continue
        assert error is None or names(error, argument), f"{name}: {error!r}"
        assert error is None or "Reservoir" in name or rng.bit_generator.state == before, name


@pytest.mark.parametrize("rng", [0, gt.CounterRNG(0)], ids=["generator", "counters"])
@pytest.mark.parametrize("value", STRANGE, ids=NAMES)
def test_a_strange_value_leaves_the_reservoir_as_it_was(value: Any, rng: Any) -> None:
    for name in ("update weights", "update items", "add weight", "extend pairs", "extend weight"):
        reservoir = filled(rng)
        before = repr(reservoir), reservoir.sample().tolist()
        method, argument = name.split()
        if method == "extend":
            pairs = [("a", 1.0), ("b", value) if argument == "weight" else value]
            error = error_of(lambda reservoir=reservoir, pairs=pairs: reservoir.extend(pairs))
        elif method == "add":
            error = error_of(lambda reservoir=reservoir: reservoir.add("a", value))
        elif argument == "items":
            error = error_of(lambda reservoir=reservoir: reservoir.update([1.0], value))
        else:
            error = error_of(lambda reservoir=reservoir: reservoir.update(value))
        assert error is None or (repr(reservoir), reservoir.sample().tolist()) == before, name


def test_the_number_of_an_open_file_is_no_path() -> None:
    """`open` would take it, and a reservoir cannot be put in its place."""
    with open(os.devnull, "rb") as file:
        for call in (gt.Reservoir(2).save, gt.Reservoir.load):
            with pytest.raises(TypeError, match=rf"path = {file.fileno()}: .*; pass the name of a file"):
                call(file.fileno())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample(0, k=2**70, on_short="pad"), r"k = 1180591620717411303424 makes an array of shape \(1"),
        (lambda: sample(0, k=[2**63], weights=[[1.0]], on_short="pad"), "k = 9223372036854775808 makes an array"),
        (lambda: sample(0, on_short=np.asarray([1, 2])), r"on_short = array\(\[1, 2\]\) is not known; choose from"),
        (
            lambda: sample_ragged(0, offsets=np.asarray([0, 2**63 + 5], dtype=np.uint64)),
            r"offsets\[1\] = 9223372036854775813 is outside the flat array; pass numbers from 0 to 3",
        ),
        (lambda: gt.Sampler([0.0]).sample(1, 2**61), r"shape = \(2305843009213693952,\) makes an array"),
        (lambda: gt.k_hot([0], 2**61), "n = 2305843009213693952 makes an array"),
        (lambda: gt.Reservoir(10**9999), "k is an integer of 33216 bits; nothing here is as large"),
        (lambda: sample(0, rng=list("seed" * 99)), r"rng = .{97}\.\.\. is not understood"),
        (lambda: sample(0, return_mask="no"), "return_mask = 'no' must be True or False, not str"),
    ],
)
def test_what_the_message_says(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
