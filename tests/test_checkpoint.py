"""Checkpoints: resuming is exact, writing is atomic, and a file that is not as it was written is refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk._streams import checkpoint as _checkpoint

SEED = 20240301
WEIGHTS = np.random.default_rng(SEED).gamma(1.0, size=4000)

GENERATORS = [
    lambda: gt.CounterRNG(2**100),
    lambda: np.random.default_rng(7),
    *(
        (lambda kind=kind: np.random.Generator(kind(7)))
        for kind in (np.random.MT19937, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
    ),
]


def everything(reservoir: gt.Reservoir):
    return (
        list(reservoir.sample()),
        reservoir.log_arrival_times.tolist(),
        reservoir.weights.tolist(),
        reservoir.numbers.tolist(),
        (reservoir.k, reservoir.count, reservoir.total_weight, repr(reservoir)),
    )


def a_stream(rng):
    """A reservoir of 3, and the steps of a stream of it: single items, iterators, chunks."""
    single = [lambda r, i=i: r.add(f"item {i}", WEIGHTS[i]) for i in range(40)]
    longer = [
        lambda r: r.extend((f"item {i}", w) for i, w in enumerate(WEIGHTS[40:1300].tolist(), start=40)),
        lambda r: r.update(WEIGHTS[1300:3000], items=range(1300, 3000)),
        lambda r: r.update(items=[f"item {i}" for i in range(3000, 3100)]),
    ]
    more = [lambda r, i=i: r.add(i, WEIGHTS[i]) for i in range(3100, 3120)]
    return gt.Reservoir(3, rng=rng), single + longer + more


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", GENERATORS, ids=lambda make: type(getattr(make(), "bit_generator", make())).__name__)
def test_resuming_at_any_step_is_exact(make, tmp_path) -> None:
    """Killed after any step, in the middle of a jump too, and resumed: the result of the run that was never stopped."""
    uninterrupted, steps = a_stream(make())
    for step in steps:
        step(uninterrupted)
    path = tmp_path / "reservoir.gtk"
    for stop in [*range(0, 40, 7), *range(39, len(steps), 3)]:
        first, steps = a_stream(make())
        for step in steps[:stop]:
            step(first)
        first.save(path)
        resumed = gt.Reservoir.load(path)
        assert everything(resumed) == everything(first)
        for step in steps[stop:]:
            step(resumed)
        assert everything(resumed) == everything(uninterrupted)


def test_saving_changes_nothing(tmp_path) -> None:
    saved, steps = a_stream(np.random.default_rng(3))
    unsaved, _ = a_stream(np.random.default_rng(3))
    for step in steps:
        step(saved)
        saved.save(tmp_path / "r")
        step(unsaved)
    assert everything(saved) == everything(unsaved)


ITEMS = [
    None,
    np.arange(5, dtype=np.int32),
    np.linspace(0, 1, 5),
    np.asarray(["a", "bb", "", "dd\ud800", "é"]),
    np.asarray([b"a", b"bb", b"", b"d", b"e"]),
    np.arange(10.0, dtype=np.float32).reshape(5, 2),
    np.asarray(["2024-02-29", "NaT", "1970-01-01", "2000-01-01", "2001-01-01"], dtype="M8[D]"),
    np.asarray([(1, 2.0), (3, 4.0), (5, 6.0), (7, 8.0), (9, 0.5)], dtype=[("a", "i4"), ("b", "f8")]),
    ["a", "\ud800", b"\x00\xff", 10**5000, -(2**63)],
    [1, True, None, 0.1, float("inf")],
]


@pytest.mark.parametrize("items", ITEMS, ids=range(len(ITEMS)))
def test_items_come_back_as_they_were(items, tmp_path) -> None:
    reservoir = gt.Reservoir(5, rng=0)
    reservoir.update(np.ones(5), items)
    reservoir.save(tmp_path / "r")
    back = gt.Reservoir.load(tmp_path / "r").sample()
    before = reservoir.sample()
    assert type(back) is type(before)
    if isinstance(before, np.ndarray):
        np.testing.assert_array_equal(back, before)
        assert back.dtype == before.dtype
    else:
        assert [(type(item), item) for item in back] == [(type(item), item) for item in before]


OTHER_ITEMS = [(1, 2), {"a": 1}, np.int64(3), object(), 1j, np.ones(2)]


@pytest.mark.parametrize("item", OTHER_ITEMS, ids=lambda item: type(item).__name__)
def test_other_items_are_not_saved(item, tmp_path) -> None:
    reservoir = gt.Reservoir(2, rng=0)
    reservoir.add("first")
    reservoir.add(item)
    (tmp_path / "r").write_bytes(b"as before")
    with pytest.raises(TypeError, match=f"item number 1 is of type {type(item).__name__}, which a checkpoint does not"):
        reservoir.save(tmp_path / "r")
    assert (tmp_path / "r").read_bytes() == b"as before"


def test_notes_are_saved_with_the_reservoir_they_belong_to(tmp_path) -> None:
    """The place in the input, say, which must never be that of another checkpoint."""
    reservoir = gt.Reservoir(2, rng=0)
    reservoir.update(WEIGHTS)
    reservoir.notes.update(offset=123, files=["a", "b"])
    reservoir.save(tmp_path / "r")
    loaded = gt.Reservoir.load(tmp_path / "r")
    assert loaded.notes == {"offset": 123, "files": ["a", "b"]}
    merged = loaded | gt.Reservoir(2, rng=1)
    merged.notes["offset"] = 0
    assert loaded.notes["offset"] == 123
    loaded.notes["array"] = WEIGHTS
    with pytest.raises(TypeError):
        loaded.save(tmp_path / "r")
    assert gt.Reservoir.load(tmp_path / "r").notes["offset"] == 123


@pytest.mark.parametrize("counters_first", [False, True])
def test_what_was_merged_is_still_known_after_loading(counters_first: bool, tmp_path) -> None:
    a, b = gt.Reservoir(2, rng=0), gt.Reservoir(2, rng=gt.CounterRNG(1))
    a.update(count=10)
    b.update(count=10)
    (merged := b | a if counters_first else a | b).save(tmp_path / "r")
    assert merged._core.has_counters == counters_first
    loaded = gt.Reservoir.load(tmp_path / "r")
    again = gt.Reservoir(2, rng=gt.CounterRNG(1))
    again.update(count=1, start=9)
    for other, message in [
        (a, "the same stream"),
        (gt.Reservoir(2, rng=0), "seeded alike"),
        (again, "9 .. 9 are there"),
    ]:
        with pytest.raises(ValueError, match=message):
            loaded.merge(other)


@pytest.mark.parametrize("make", GENERATORS[1:], ids=lambda make: type(make().bit_generator).__name__)
@pytest.mark.parametrize("between", [0, 1000], ids=["back to back", "one after the other"])
def test_a_generator_that_was_shared_is_not_shared_after_loading(make, between: int, tmp_path) -> None:
    """Both would draw the same numbers, or one those of the other: refused, whichever of them is the loaded one."""
    shared = make()
    a, b = (gt.Reservoir(2, rng=shared) for _ in range(2))
    a.update(count=1000)
    b.update(count=1000)
    assert (a | b).count == 2000
    a.save(tmp_path / "a")
    b.update(count=between)
    b.save(tmp_path / "b")
    loaded_a, loaded_b = gt.Reservoir.load(tmp_path / "a"), gt.Reservoir.load(tmp_path / "b")
    fresh = gt.Reservoir(2, rng=shared)
    for first, second in [(loaded_a, loaded_b), (loaded_b, loaded_a), (loaded_a, b), (b, loaded_a), (fresh, loaded_a)]:
        with pytest.raises(ValueError, match="were one, until a reservoir was saved or pickled"):
            first.merge(second)


def test_generators_of_their_own_merge_after_loading(tmp_path) -> None:
    for number, rng in enumerate(np.random.default_rng(5).spawn(2)):
        reservoir = gt.Reservoir(2, rng=rng)
        reservoir.update(count=100)
        reservoir.save(tmp_path / str(number))
    assert (gt.Reservoir.load(tmp_path / "0") | gt.Reservoir.load(tmp_path / "1")).count == 200


def test_files_without_the_digests_of_seeds_are_read(tmp_path) -> None:
    """Those of the first versions."""
    reservoir = gt.Reservoir(4, rng=0)
    reservoir.update(np.arange(20.0))
    reservoir.save(tmp_path / "r")
    prefix, header, rest = parts((tmp_path / "r").read_bytes())
    text = json.loads(header)
    text["content"]["streams"] = [stream[:2] for stream in text["content"]["streams"]]
    (tmp_path / "r").write_bytes(forged(prefix, json.dumps(text).encode(), rest))
    assert everything(gt.Reservoir.load(tmp_path / "r")) == everything(reservoir)


# --- writing --------------------------------------------------------------------------------------


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "r"
    old, new = gt.Reservoir(2, rng=0), gt.Reservoir(2, rng=1)
    old.update(count=10)
    old.save(path)
    for name in ("fsync", "replace"):

        def fail(*arguments):
            raise OSError("no space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, name, fail)
            with pytest.raises(OSError, match="no space left"):
                new.save(path)
        assert everything(gt.Reservoir.load(path)) == everything(old)
        assert list(tmp_path.iterdir()) == [path]
    new.save(str(path))
    assert everything(gt.Reservoir.load(str(path))) == everything(new)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_process_that_is_killed_leaves_a_whole_checkpoint(tmp_path) -> None:
    """Killed at an arbitrary moment of a loop that does nothing but add and save; the resumed run ends alike."""
    path = tmp_path / "r"
    code = f"""
import itertools, gumbeltopk as gt
reservoir = gt.Reservoir(5, rng=11)
for i in itertools.count():
    reservoir.add(i, 1.0 + i % 3)
    reservoir.save({str(path)!r})
    print(i, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= 50:
                process.kill()
                break
    resumed = gt.Reservoir.load(path)
    assert resumed.count > 50
    end = resumed.count + 200
    resumed.extend((i, 1.0 + i % 3) for i in range(resumed.count, end))
    uninterrupted = gt.Reservoir(5, rng=11)
    for i in range(end):
        uninterrupted.add(i, 1.0 + i % 3)
    assert everything(resumed)[:4] == everything(uninterrupted)[:4]


def test_missing_files_are_missing_files(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        gt.Reservoir.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        gt.Reservoir(2).save(tmp_path / "no folder" / "r")


# --- reading --------------------------------------------------------------------------------------


@pytest.fixture(params=["PCG64 and numbers", "MT19937 and rows", "CounterRNG and a list"])
def checkpoint(request, tmp_path):
    """Path and bytes of a checkpoint."""
    rng, items = {
        "PCG64 and numbers": (np.random.default_rng(1), None),
        "MT19937 and rows": (np.random.Generator(np.random.MT19937(1)), np.ones((20, 2))),
        "CounterRNG and a list": (gt.CounterRNG(1), ["x", b"y", 2**70, 0.5, None] * 4),
    }[request.param]
    reservoir = gt.Reservoir(4, rng=rng)
    reservoir.update(np.arange(20.0), items)
    if items is None:
        reservoir.add(20, 1e-3)
    path = tmp_path / "r"
    reservoir.save(path)
    return path, path.read_bytes()


def assert_refused(path, data: bytes, match: str = ": ") -> None:
    path.write_bytes(data)
    with pytest.raises(gt.CheckpointError, match=match) as caught:
        gt.Reservoir.load(path)
    assert isinstance(caught.value, ValueError)
    assert str(path) in str(caught.value)


def cannot_be_loaded(path) -> bool:
    """Whether there is a CheckpointError; any other error goes through."""
    try:
        gt.Reservoir.load(path)
    except gt.CheckpointError:
        return True
    return False


def test_every_truncation_is_refused(checkpoint) -> None:
    path, data = checkpoint
    lengths = range(len(data)) if len(data) < 5000 else [*range(600), *range(600, len(data), 37), len(data) - 1]
    for length in reversed(lengths):
        os.truncate(path, length)
        assert cannot_be_loaded(path), f"length {length}"


def test_every_flipped_bit_is_refused(checkpoint) -> None:
    """All bits of prefix, header (up to its 1500th byte) and checksum, and random ones of the rest."""
    path, data = checkpoint
    bits = 8 * len(data)
    some = np.random.default_rng(SEED).integers(bits, size=500).tolist()
    prefix, header, _ = parts(data)
    in_header = range(8 * (len(prefix) + min(len(header), 1500)))
    with open(path, "r+b", buffering=0) as file:
        for bit in [*in_header, *some, *range(bits - 256, bits)]:
            place = bit // 8
            file.seek(place)
            file.write(bytes([data[place] ^ 1 << bit % 8]))
            assert cannot_be_loaded(path), f"bit {bit}"
            file.seek(place)
            file.write(data[place : place + 1])
    assert not cannot_be_loaded(path)


def test_what_is_wrong_is_said(checkpoint) -> None:
    path, data = checkpoint
    for damaged, message in [
        (b"", "this is no checkpoint"),
        (b"weight,name\n" * 20, "this is no checkpoint"),
        (data[:10], "cut short: it has 10 bytes"),
        (data[:100], "cut short"),
        (data[:-1], "the checksum does not match"),
        (data + b"\0", "the checksum does not match"),
        (data[:8] + b"\2" + data[9:], "version 2, and this gumbeltopk reads up to 1; use a newer one"),
        (data[:8] + b"\0" + data[9:], "no version 0"),
        (data[:12] + b"\xff" * 8 + data[20:], "cut short: a header of 18446744073709551615 bytes"),
    ]:
        assert_refused(path, damaged, message)


def forged(prefix: bytes, header: bytes, rest: bytes) -> bytes:
    """A file with a checksum that is right."""
    body = _checkpoint.PREFIX.pack(_checkpoint.MAGIC, 1, len(header)) + header + rest
    return body + hashlib.sha256(body).digest()


def parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    size = _checkpoint.PREFIX.size
    end = size + int.from_bytes(data[12:20], "little")
    return data[:size], data[size:end], data[end:-32]


def test_forged_files_are_refused_or_harmless(checkpoint) -> None:
    """Random damage under a checksum that is right again: CheckpointError, or a reservoir that works; nothing else."""
    path, data = checkpoint
    prefix, header, rest = parts(data)
    rng = np.random.default_rng(SEED)
    outcomes = {"refused": 0, "loaded": 0}
    for _ in range(800):
        body = bytearray(header + rest)
        place = int(rng.integers(len(header) if rng.random() < 0.5 else len(body)))
        body[place] = int(rng.integers(256))
        path.write_bytes(forged(prefix, bytes(body[: len(header)]), bytes(body[len(header) :])))
        try:
            reservoir = gt.Reservoir.load(path)
        except gt.CheckpointError:
            outcomes["refused"] += 1
        else:
            outcomes["loaded"] += 1
            everything(reservoir)
    assert outcomes["refused"] > 250


def change(*keys, to):
    """A function that changes one entry of the header's content."""

    def apply(content) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return apply


FORGERIES = [
    change("k", to=0),
    change("k", to=2),
    change("k", to=True),
    change("k", to="4"),
    change("count", to=3),
    change("count", to=-1),
    change("total", to="-0x1"),
    change("total", to=1),
    change("passed", to="nan"),
    change("passed", to="-0x1p0"),
    change("passed", to="inf"),
    change("passed_items", to=0.5),
    change("notes", to=["offset"]),
    change("jump_end", to="0x0"),
    change("items", to="list"),
    change("items", to="objects"),
    change("streams", to=[[1, None]]),
    change("streams", to=[["a"]]),
    change("streams", to=[["a", None, 1]]),
    change("streams", to=[["a", None, None, None]]),
    change("numbers", to=[["0x1", [[5, 3]]]]),
    change("numbers", to=[["0x1", [[0, 3], [3, 5]]]]),
    change("numbers", to=[["0x1", [[0.0, 3]]]]),
    change("rng", to=None),
    change("rng", to={"counter": "-0x1"}),
    change("rng", to={"bit_generator": "os.system"}),
    change("rng", "state", to={}),
    change("rng", "state", "key", to=[0] * 3),
    change("rng", "state", "key", 0, to=2**40),
    change("rng", "state", "key", 0, to=0.5),
    change("rng", "state", "pos", to=10**6),
    change("rng", "state", "pos", to=-1),
    change("rng", "bit_generator", to="PCG64"),
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_forged_states_are_refused(forge, tmp_path) -> None:
    """Among them places beyond the memory of a generator, which NumPy would not look at."""
    path = tmp_path / "r"
    reservoir = gt.Reservoir(4, rng=np.random.Generator(np.random.MT19937(1)))
    reservoir.update(np.arange(20.0))
    reservoir.save(path)
    prefix, header, rest = parts(path.read_bytes())
    text = json.loads(header)
    forge(text["content"])
    assert_refused(path, forged(prefix, json.dumps(text).encode(), rest), "its content makes no sense")


@pytest.mark.parametrize("shape", ["(2305843009213693952,)", "(-4,)", "(4, 1)", "(3,)", "(1000000000, 1000000000)"])
def test_a_forged_shape_allocates_nothing(shape: str, tmp_path) -> None:
    path = tmp_path / "r"
    reservoir = gt.Reservoir(4, rng=0)
    reservoir.update(np.arange(20.0))
    reservoir.save(path)
    prefix, header, rest = parts(path.read_bytes())
    start, end = rest.index(b"(4,)"), rest.index(b"\n")  # of the header of the first member, padded with spaces
    other = f"{shape}, }}".encode().ljust(end - start)
    assert len(other) == end - start
    assert_refused(path, forged(prefix, header, rest[:start] + other + rest[end:]))


def test_pickles_are_not_read(tmp_path) -> None:
    path = tmp_path / "r"
    reservoir = gt.Reservoir(4, rng=0)
    reservoir.update(np.arange(20.0))
    reservoir.save(path)
    prefix, header, rest = parts(path.read_bytes())
    assert b"'<f8'" in rest
    assert_refused(path, forged(prefix, header, rest.replace(b"'<f8'", b"'|O' ", 1)), "dtype object|'O'")


def test_items_that_could_not_be_read_again_are_not_written(tmp_path) -> None:
    reservoir = gt.Reservoir(1, rng=0)
    reservoir.update([1.0], np.zeros(1, dtype=[(f"field{i:04}", "f8") for i in range(500)]))
    with pytest.raises(TypeError, match="cannot be saved"):
        reservoir.save(tmp_path / "reservoir.gtk")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_new_version_of_a_file_keeps_its_permissions(tmp_path) -> None:
    path = tmp_path / "reservoir.gtk"
    gt.Reservoir(1, rng=0).save(path)
    path.chmod(0o600)
    gt.Reservoir(1, rng=0).save(path)
    assert path.stat().st_mode & 0o777 == 0o600
