"""`gumbeltopk sample --state` and `gumbeltopk merge`: interruptions and parts leave no trace in the sample."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk._records import pieces
from gumbeltopk.cli import sample, state
from tests._command_line import COMMAND, Run

WEIGHTS = np.random.default_rng(1).gamma(1.0, size=2000)
ROWS = [
    (f'"item {i}, ""x""\n",{weight!r}\n' if i % 7 == 0 else f"item {i},{weight!r}\n").encode()
    for i, weight in enumerate(WEIGHTS.tolist())
]
HEADER = b"name,w\n"
TABLE = HEADER + b"".join(ROWS)
DRAW = ("sample", "-k", "20", "-w", "w", "--seed", "5")


class Stopped(BaseException):
    """Stands for whatever ends a process."""


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes runs stop after writing the state so many times."""

    def arrange(times: int) -> None:
        left = itertools.count(times - 1, -1)
        save = state.save

        def save_and_stop(*arguments: Any) -> None:
            save(*arguments)
            if next(left) == 0:
                raise Stopped

        monkeypatch.setattr(sample.state, "save", save_and_stop)

    return arrange


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("times", [1, 2, 5, 9])
@pytest.mark.parametrize("from_stream", [False, True])
def test_a_run_that_was_stopped_goes_on(
    run: Run, tmp_path: Path, stop_after: Any, times: int, from_stream: bool
) -> None:
    """In the middle of the first file or the second: the output is that of one run without a stop."""
    (tmp_path / "a.csv").write_bytes(HEADER + b"".join(ROWS[:800]).removesuffix(b"\n"))
    (tmp_path / "b.csv").write_bytes(HEADER + b"".join(ROWS[800:]))
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    stdin = b""
    if from_stream:
        files, stdin = [files[0], "-"], HEADER + b"".join(ROWS[800:])
    whole = run(*DRAW, "--with-key", *files, stdin=stdin)
    arguments = (*DRAW, "--with-key", "--state", str(tmp_path / "state"), "--every", "200", *files)
    stop_after(times)
    with pytest.raises(Stopped):
        run(*arguments, stdin=stdin)
    assert 0 < gt.Reservoir.load(tmp_path / "state").count < 2000
    assert run(*arguments, stdin=stdin) == whole
    assert run(*arguments, stdin=b"") == whole  # it has finished: nothing is read any more


KILLED_AT_FSYNC = """
import os, signal, sys
from gumbeltopk.cli import main
left = int(sys.argv[1])
fsync = os.fsync
def fsync_or_die(descriptor):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
os.fsync = fsync_or_die
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("from_stream", [False, True])
def test_a_process_that_is_killed_again_and_again_goes_on(tmp_path: Path, from_stream: bool) -> None:
    """200,000 lines, and SIGKILL five times.

    Each writing of the state calls fsync twice: for the new file, before it takes the place of the old one, and for the
    folder. So odd numbers kill in the middle of writing, and even ones right after it.
    """
    table, state_file = tmp_path / "table.csv", tmp_path / "state"
    table.write_bytes(HEADER + b"".join(b"item number %d,%d.5\n" % (i, i % 1000) for i in range(200_000)))
    arguments = [*DRAW, *([] if from_stream else [str(table)])]
    with_state = [*arguments, "--state", str(state_file), "--every", "10000"]

    def call(command: list[str]) -> subprocess.CompletedProcess[bytes]:
        with open(table, "rb") as source:
            return subprocess.run(command, stdin=source, capture_output=True, check=False)

    counts = [0]
    for fsyncs in (3, 2, 5, 4, 3):
        died = call([sys.executable, "-c", KILLED_AT_FSYNC, str(fsyncs), *with_state])
        assert (died.returncode, died.stdout) == (-signal.SIGKILL, b"")
        counts.append(gt.Reservoir.load(state_file).count)
        assert counts[-2] < counts[-1] < 200_000
    resumed, whole = call([*COMMAND, *with_state]), call([*COMMAND, *arguments])
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, whole.stdout, b"")
    assert whole.stdout.count(b"\n") == 21


@pytest.mark.usefixtures("small_pieces")
def test_skipped_records_and_their_lines_are_remembered(run: Run, tmp_path: Path, stop_after: Any) -> None:
    rows = [b"x\n" if i % 500 == 100 else row for i, row in enumerate(ROWS)]
    (tmp_path / "a.csv").write_bytes(HEADER + b"".join(rows))
    arguments = (*DRAW, "--on-bad", "skip", str(tmp_path / "a.csv"))
    whole = run(*arguments)
    assert "skipped 4 bad records" in whole.err
    stop_after(4)
    with pytest.raises(Stopped):
        run(*arguments, "--state", str(tmp_path / "state"), "--every", "100")
    assert run(*arguments, "--state", str(tmp_path / "state"), "--every", "100") == whole
    bad = HEADER + b"".join(ROWS[:-1]) + b"x,heavy\n"
    (tmp_path / "b.csv").write_bytes(bad)
    stop_after(3)
    arguments = (*DRAW, "--state", str(tmp_path / "other"), "--every", "100", str(tmp_path / "b.csv"))
    with pytest.raises(Stopped):
        run(*arguments)
    line = bad.count(b"\n")
    assert f"b.csv: line {line}, column 'w': the weight 'heavy'" in run(*arguments).err


# --- what a run cannot go on with -----------------------------------------------------------------


@pytest.fixture
def interrupted(run: Run, tmp_path: Path, stop_after: Any, small_pieces: None) -> tuple[str, ...]:
    """The arguments of a run that stopped, but for the file."""
    (tmp_path / "a.csv").write_bytes(TABLE)
    arguments = (*DRAW, "--state", str(tmp_path / "state"), "--every", "200")
    stop_after(3)
    with pytest.raises(Stopped):
        run(*arguments, str(tmp_path / "a.csv"))
    return arguments


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["-k", "21"], "that run had -k 20, and this one has -k 21"),
        (["--seed", "6"], "that run had --seed 5, and this one has --seed 6"),
        (["-w", "v"], "that run had -w w, and this one has -w v"),
        (["--start", "1"], "that run had --start 0, and this one has --start 1"),
        (["--on-bad", "skip"], "that run had --on-bad raise, and this one has --on-bad skip"),
        (["--format", "tsv"], "that run had --format csv, and this one has --format tsv"),
        (["MORE"], "that run had 1 inputs, and this one has 2"),
    ],
)
def test_other_arguments_are_refused(
    run: Run, tmp_path: Path, interrupted: tuple[str, ...], options: list[str], complaint: str
) -> None:
    table = str(tmp_path / "a.csv")
    code, out, err = run(*interrupted, table, *(table if option == "MORE" else option for option in options))
    assert (code, out) == (2, b"")
    assert err.startswith(f"gumbeltopk sample: error: {tmp_path / 'state'}: {complaint}; give the same arguments")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: data + b"x,1\n", f"input 1 is not that of the interrupted run ({len(TABLE)} bytes then"),
        (lambda data: data.replace(b"item 1,", b"item 9,"), "is not that of the interrupted run (other content)"),
    ],
)  # fmt: skip
def test_another_file_is_refused(
    run: Run, tmp_path: Path, interrupted: tuple[str, ...], change: Any, complaint: str
) -> None:
    (tmp_path / "a.csv").write_bytes(change(TABLE))
    code, out, err = run(*interrupted, str(tmp_path / "a.csv"))
    assert (code, out) == (2, b"")
    assert complaint in err


def test_a_file_that_has_changed_before_the_place_is_refused(
    run: Run, tmp_path: Path, interrupted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the ends that are compared: the bytes before the place are compared as well."""
    from gumbeltopk.cli import inputs

    place = gt.Reservoir.load(tmp_path / "state").notes[state.NOTES]["place"][0]
    changed = bytearray(TABLE)
    changed[place - 3] ^= 1
    (tmp_path / "a.csv").write_bytes(changed)
    monkeypatch.setattr(
        inputs.Input, "identity", lambda self: gt.Reservoir.load(tmp_path / "state").notes[state.NOTES]["inputs"][0]
    )
    code, out, err = run(*interrupted, str(tmp_path / "a.csv"))
    assert (code, out) == (2, b"")
    assert "bytes are not those of the interrupted run; give the same input from its beginning" in err


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "change", [lambda data: data[:3000], lambda data: data.replace(b"item 1,", b"item 9,"), lambda data: b""]
)
def test_another_stream_is_refused(run: Run, tmp_path: Path, stop_after: Any, change: Any) -> None:
    """All bytes up to the place are compared: cut short, changed by one letter, or not fed again."""
    arguments = (*DRAW, "--state", str(tmp_path / "state"), "--every", "200")
    stop_after(3)
    with pytest.raises(Stopped):
        run(*arguments, stdin=TABLE)
    code, out, err = run(*arguments, stdin=change(TABLE))
    assert (code, out) == (2, b"")
    assert "standard input: its first" in err
    assert run(*arguments, stdin=TABLE) == run(*DRAW, stdin=TABLE)


def test_a_file_that_is_no_state_is_refused_and_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"my thesis")
    code, _, err = run(*DRAW, "--state", str(tmp_path / "state"), stdin=TABLE)
    assert (code, err.count("\n")) == (2, 1)
    assert "this is no checkpoint of gumbeltopk" in err
    assert (tmp_path / "state").read_bytes() == b"my thesis"
    gt.Reservoir(20, rng=0).save(tmp_path / "state")
    assert (
        "was not written by gumbeltopk sample --state"
        in run(*DRAW, "--state", str(tmp_path / "state"), stdin=TABLE).err
    )


def test_state_that_cannot_be_written_is_code_1(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "state"
    code, out, err = run(*DRAW, "--state", str(path), stdin=TABLE)
    assert (code, out) == (1, b"")
    assert err == f"gumbeltopk sample: error: cannot write --state {path}: No such file or directory\n"


# --- merging --------------------------------------------------------------------------------------


def draw_parts(run: Run, folder: Path, bounds: list[int], *options: str) -> list[str]:
    """The states of parts of the table, numbered one after the other."""
    paths = []
    for first, last in itertools.pairwise([0, *bounds, len(ROWS)]):
        paths.append(str(folder / f"state{first}"))
        start = () if options else ("--seed", "5", "--start", str(first))
        code = run(
            "sample",
            "-k",
            "20",
            "-w",
            "w",
            *options,
            *start,
            "--state",
            paths[-1],
            stdin=HEADER + b"".join(ROWS[first:last]),
        ).code
        assert code == (2 if last - first < 20 else 0)  # its own sample is too small, but its state is written
    return paths


@pytest.mark.parametrize("bounds", [[700], [5, 6, 1000], [1995]])
def test_parts_of_one_seed_merge_to_the_sample_of_the_whole(run: Run, tmp_path: Path, bounds: list[int]) -> None:
    """In any order, also of parts that have fewer rows than are drawn."""
    paths = draw_parts(run, tmp_path, bounds)
    whole = run(*DRAW, "--with-key", stdin=TABLE)
    assert run("merge", "--with-key", *paths) == whole
    assert run("merge", "--with-key", *reversed(paths)) == whole


def test_merged_states_merge_again(run: Run, tmp_path: Path) -> None:
    a, b, c = draw_parts(run, tmp_path, [500, 900])
    assert run("merge", a, c, "--state", str(tmp_path / "ac")) == (0, b"", "")
    assert run("merge", b, str(tmp_path / "ac"), "-o", str(tmp_path / "out.csv")).code == 0
    assert (tmp_path / "out.csv").read_bytes() == run(*DRAW, stdin=TABLE).out


def test_parts_without_a_seed_merge(run: Run, tmp_path: Path) -> None:
    """Each has fresh keys; the merged rows are the 20 of the largest."""
    paths = draw_parts(run, tmp_path, [700], "--on-bad", "skip")
    expected = gt.Reservoir.load(paths[0]) | gt.Reservoir.load(paths[1])
    assert run("merge", *paths).out == HEADER + b"".join(expected.sample())


@pytest.mark.parametrize("same", ["numbers", "k", "column", "columns", "format", "interrupted"])
def test_what_does_not_merge_is_code_2(run: Run, tmp_path: Path, same: str, stop_after: Any) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    run(*DRAW, "--state", first, stdin=TABLE)
    arguments, table, complaint = {
        "numbers": (DRAW, TABLE, "items of the numbers 0 .. 1999 are there twice under CounterRNG(5)"),
        "k": ((*DRAW, "--start", "9999", "-k", "3"), TABLE, "other keeps k = 3 items"),
        "column": ((*DRAW, "-w", "v"), TABLE.replace(b"w\n", b"v\n", 1), "its column of weights is 'v', but that of"),
        "columns": (DRAW, TABLE.replace(b"name", b"nom", 1), "its columns is ['nom', 'w']"),
        "format": ((*DRAW, "--format", "tsv"), b"w\n" + b"1\n" * 20, "its format is 'tsv'"),
        "interrupted": ((*DRAW, "--every", "1"), TABLE, "its run was interrupted after 2000 records; run it again"),
    }[same]  # fmt: skip
    if same == "interrupted":
        stop_after(1)
        with pytest.raises(Stopped):
            run(*arguments, "--state", second, stdin=table)
    else:
        assert run(*arguments, "--state", second, stdin=table).code == 0
    code, out, err = run("merge", first, second)
    assert (code, out) == (2, b"")
    assert err.startswith(f"gumbeltopk merge: error: {second}: {complaint}")
    assert err.count("\n") == 1


def test_missing_and_damaged_states(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert run("merge", str(path)) == (1, b"", f"gumbeltopk merge: error: {path}: No such file or directory\n")
    run(*DRAW, "--state", str(path), stdin=TABLE)
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = run("merge", str(path))
    assert (code, out) == (2, b"")
    assert "the checksum does not match" in err


def test_a_merged_state_is_no_run_to_go_on_with(run: Run, tmp_path: Path) -> None:
    paths = draw_parts(run, tmp_path, [500])
    run("merge", *paths, "--state", str(tmp_path / "merged"))
    assert "this is a merged sample, and no run" in run(*DRAW, "--state", str(tmp_path / "merged"), stdin=TABLE).err


def test_merged_parts_with_too_few_rows_are_code_2(run: Run, tmp_path: Path) -> None:
    for start in ("0", "1"):
        run(
            "sample",
            "-k",
            "3",
            "-w",
            "w",
            "--seed",
            "0",
            "--start",
            start,
            "--state",
            str(tmp_path / start),
            stdin=b"w\n1\n",
        )
    code, out, err = run("merge", str(tmp_path / "0"), str(tmp_path / "1"))
    assert (code, out) == (2, b"")
    assert "-k 3 is more than the rows of positive weight (2 of 2)" in err
