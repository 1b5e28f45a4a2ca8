"""The state of a reservoir as the header and the members of a checkpoint, and back.

What comes back is checked as if it came from a stranger: each type and each range, so that no reservoir is made that
could not have been saved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gumbeltopk._array_api import Array
from gumbeltopk._random import CounterRNG
from gumbeltopk._streams import provenance as _provenance
from gumbeltopk._streams.checkpoint import CheckpointError
from gumbeltopk._streams.core import ReservoirCore
from gumbeltopk._streams.kept import Kept
from gumbeltopk._streams.provenance import Provenance, Stream

BIT_GENERATORS = {
    kind.__name__: kind
    for kind in (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
}
# What a generator's state indexes its own memory with; NumPy does not look at it.
LARGEST_PLACE = {"pos": 624, "buffer_pos": 4, "has_uint32": 1}
LARGEST_PLAIN_INT = 2**53  # larger ones are written in hexadecimal, for readers whose numbers are floats


def encode(core: ReservoirCore) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and members."""
    kept, running, jump_end = core.settled(), core.running, core.running.jump_end
    header = {
        "k": core.k,
        "count": core.count,
        "rng": _encode_rng(core.rng),
        "streams": [[stream.identity, stream.fingerprint, stream.seed] for stream in core.provenance.streams],
        "numbers": [[hex(seed), intervals] for seed, intervals in core.provenance.numbers.items()],
        "total": hex(running.total),
        "passed": running.passed.hex(),
        "passed_items": running.passed_items,
        "jump_end": None if jump_end is None else hex(jump_end),
        "items": "numbers" if kept.items is None else "array" if isinstance(kept.items, np.ndarray) else "list",
        "notes": core.notes,
    }
    members = {"log_times": kept.log_times, "weights": kept.weights, "numbers": kept.numbers}
    if isinstance(kept.items, np.ndarray):
        members["items"] = kept.items
    elif kept.items is not None:
        encoded = [_encode_item(item, number) for item, number in zip(kept.items, kept.numbers, strict=True)]
        members["items"] = np.frombuffer(json.dumps(encoded, allow_nan=False).encode("ascii"), dtype=np.uint8)
    return header, members


def decode(header: Any, members: dict[str, Array]) -> ReservoirCore:
    """The reservoir again; any error means that the file was forged, and becomes a CheckpointError."""
    rng = _decode_rng(header["rng"])
    core = ReservoirCore(_integer(header["k"], 1), rng, _decode_provenance(header, rng))
    core.count = _integer(header["count"], 0)
    core.notes = header.get("notes", {})  # files of the first versions have none
    _require(isinstance(core.notes, dict), "the notes")
    core.kept = _decode_kept(header["items"], members)
    _require(core.kept.size <= min(core.k, core.count), "more items are kept than were seen or than k")
    running = core.running
    running.total = _integer(int(header["total"], 16), 0)
    running.passed = float.fromhex(header["passed"])
    _require(0 <= running.passed < math.inf, "the running weight")
    running.passed_items = _integer(header["passed_items"], 0)
    if header["jump_end"] is not None:
        _require(core.kept.size == core.k and not core.has_counters, "a jump before the reservoir is full")
        running.resume_jump(_integer(int(header["jump_end"], 16), running.total))
    return core


def _require(holds: Any, what: str) -> None:
    if not holds:
        raise CheckpointError(f"its content makes no sense: {what}")


def _integer(value: Any, least: int, most: float = math.inf) -> int:
    _require(type(value) is int and least <= value <= most, f"the number {value!r}")
    return int(value)


# --- items ------------------------------------------------------------------------------------------


def _encode_item(item: Any, number: int) -> Any:
    kind = type(item)
    if kind is str or kind is bool or item is None or (kind is int and abs(item) <= LARGEST_PLAIN_INT):
        return item
    if kind is int:
        return {"int": hex(item)}
    if kind is float:
        return {"float": item.hex()}
    if kind is bytes:
        return {"bytes": item.hex()}
    raise TypeError(
        f"item number {number} is of type {kind.__name__}, which a checkpoint does not hold (nothing is pickled); "
        "give items as str, bytes, int, float, or as a NumPy array, e.g. a key that finds the object again"
    )


DECODERS: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float.fromhex,
    "bytes": bytes.fromhex,
}


def _decode_item(encoded: Any) -> Any:
    if isinstance(encoded, dict):
        ((kind, text),) = encoded.items()
        return DECODERS[kind](text)
    _require(encoded is None or type(encoded) in (str, bool, int), "an item")
    return encoded


def _decode_kept(kind: Any, members: dict[str, Array]) -> Kept:
    expected = {"log_times", "weights", "numbers"} | (set() if kind == "numbers" else {"items"})
    _require(kind in ("numbers", "array", "list") and set(members) == expected, "its members")
    log_times, weights, numbers = members["log_times"], members["weights"], members["numbers"]
    shape = (len(numbers),)
    for array, dtype in ((log_times, np.float64), (weights, np.float64), (numbers, np.int64)):
        _require(array.dtype == dtype and array.shape == shape, "the shape or dtype of a member")
    _require(np.isfinite(log_times).all() and (np.diff(log_times) >= 0).all(), "the arrival times")
    _require(((weights > 0) & (weights < math.inf)).all(), "the weights")
    _require((numbers >= 0).all(), "the item numbers")
    items: Any = members.get("items")
    if kind == "list":
        _require(items.dtype == np.uint8 and items.ndim == 1, "the list of items")
        items = [_decode_item(encoded) for encoded in json.loads(items.tobytes())]
    _require(items is None or len(items) == len(numbers), "the number of items")
    return Kept(log_times, weights, numbers, items)


# --- generators and provenance ----------------------------------------------------------------------


def _encode_rng(rng: Any) -> Any:
    if isinstance(rng, CounterRNG):
        return {"counter": hex(rng.seed)}
    if type(rng.bit_generator) not in BIT_GENERATORS.values():
        raise TypeError(
            f"rng is made from {type(rng.bit_generator).__name__}, whose state a checkpoint does not hold; "
            f"use CounterRNG or one of NumPy's: {', '.join(BIT_GENERATORS)}"
        )
    return _provenance.generator_state(rng)


def _decode_rng(encoded: Any) -> Any:
    if set(encoded) == {"counter"}:
        return CounterRNG(_integer(int(encoded["counter"], 16), 0))
    bits = BIT_GENERATORS[encoded["bit_generator"]](0)
    rng = np.random.Generator(bits)
    _check_state(encoded, _provenance.generator_state(rng))
    bits.state = encoded
    _require(_provenance.generator_state(rng) == encoded, "the state of the generator")
    return rng


def _check_state(state: Any, example: Any, name: str = "") -> None:
    """The state is built like that of a generator of its kind, and points to no place outside of it."""
    _require(type(state) is type(example), "the state of the generator")
    if isinstance(example, dict):
        _require(state.keys() == example.keys(), "the state of the generator")
        for each in example:
            _check_state(state[each], example[each], each)
    elif isinstance(example, list):
        _require(len(state) == len(example), "the state of the generator")
        for number in state:
            _integer(number, 0, 2**64 - 1)
    elif isinstance(example, int):
        _integer(state, 0, LARGEST_PLACE.get(name, 2**128 - 1))


def _decode_stream(rng: Any, identity: Any, fingerprint: Any, seed: Any = None) -> Stream:
    """Files of the first versions have no seeds."""
    _require(isinstance(identity, str), "a stream")
    _require(all(digest is None or isinstance(digest, str) for digest in (fingerprint, seed)), "a stream")
    return Stream(identity, fingerprint, seed, rng)


def _decode_provenance(header: Any, rng: Any) -> Provenance:
    provenance = Provenance(tuple(_decode_stream(rng, *entry) for entry in header["streams"]), {})
    for seed, intervals in header["numbers"]:
        last = -1
        for first, end in intervals:
            _require(last < _integer(first, 0) < _integer(end, 1), "the item numbers that were seen")
            last = end
        provenance.numbers[_integer(int(seed, 16), 0)] = tuple((first, end) for first, end in intervals)
    return provenance
