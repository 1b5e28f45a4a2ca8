"""`gumbeltopk sample` on streams and on several inputs: what does not change the sample, bad records, added columns."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk._records import pieces
from tests._command_line import COMMAND, Run

WEIGHTS = np.random.default_rng(0).gamma(1.0, size=1000)
ROWS = [f"item {i},{weight!r}\n".encode() for i, weight in enumerate(WEIGHTS.tolist())]
HEADER = b"name,w\n"
TABLE = HEADER + b"".join(ROWS)
DRAW = ("sample", "-k", "20", "-w", "w", "--seed", "5")


def drawn(k: int = 20, seed: int = 5) -> list[bytes]:
    """The rows that the library draws from the whole array."""
    return [ROWS[i] for i in gt.sample(weights=WEIGHTS, k=k, rng=gt.CounterRNG(seed)).tolist()]


# --- one sample, however it is read ---------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 50, 333, 1 << 19])
def test_the_sample_does_not_depend_on_the_pieces(run: Run, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", size)
    assert run(*DRAW, stdin=TABLE) == (0, HEADER + b"".join(drawn()), "")


def test_several_files_are_one_input_under_one_header(run: Run, tmp_path: Path) -> None:
    """Standard input among them; a last line without a line end, and a byte order mark, stay within their file."""
    (tmp_path / "a.csv").write_bytes(HEADER + b"".join(ROWS[:300]).removesuffix(b"\n"))
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + b'"name",w\n' + b"".join(ROWS[600:]))
    files = (str(tmp_path / "a.csv"), "-", str(tmp_path / "b.csv"))
    assert run(*DRAW, *files, stdin=HEADER + b"".join(ROWS[300:600])).out == HEADER + b"".join(drawn())


def test_start_is_the_number_of_the_first_record(run: Run) -> None:
    """Items of another number have another arrival time."""
    out = run(*DRAW, "--start", "300", stdin=HEADER + b"".join(ROWS[300:])).out
    reservoir = gt.Reservoir(20, rng=gt.CounterRNG(5))
    reservoir.update(WEIGHTS[300:], ROWS[300:], start=300)
    assert out == HEADER + b"".join(reservoir.sample())


def test_quoted_records_are_drawn_as_they_stand(run: Run) -> None:
    """Line ends, delimiters and quotes within fields, in pieces that cut all of them."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "w"])
    writer.writerows([f'{i}\n"a", b', weight] for i, weight in enumerate(WEIGHTS.tolist()))
    out = run(*DRAW, stdin=buffer.getvalue().encode()).out.decode()
    names = [row[0] for row in csv.reader(io.StringIO(out, newline=""))][1:]
    expected = gt.sample(weights=WEIGHTS, k=20, rng=gt.CounterRNG(5)).tolist()
    assert names == [f'{i}\n"a", b' for i in expected]


def test_memory_does_not_grow_with_the_input() -> None:
    """4 MB and 40 MB: what is more than the first takes is less than one piece with all that is made of it."""
    script = (
        "import resource, sys\n"
        "from gumbeltopk.cli import main\n"
        "class Rows:\n"
        "    left = int(sys.argv[1])\n"
        "    def read(self, size):\n"
        "        count = min(self.left, size // 16)\n"
        "        self.left -= count\n"
        "        return b'abcdefghijk,0.5\\n' * count\n"
        "rows = Rows()\n"
        "class Input:\n"
        "    buffer = rows\n"
        "sys.stdin = Input\n"
        "main(['sample', '-k', '3', '-w', '0.5', '--seed', '0'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    peaks = []
    for count in (250_000, 2_500_000):
        done = subprocess.run([sys.executable, "-c", script, str(count)], capture_output=True, check=True)
        assert done.stdout.count(b"\n") == 4
        peaks.append(int(done.stderr))
    assert peaks[1] < peaks[0] + 8192


# --- inputs that do not go together ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "options", "complaint"),
    [
        ({"a.csv": "n,w\na,1\n", "b.csv": "w,n\n1,a\n"}, [], "b.csv: its columns are ['w', 'n'], but those of "),
        ({"a.csv": "n,w\na,1\n", "b.csv": "n,w\nb,1\nc,x\n"}, [], "b.csv: line 3, column 'w': the weight 'x' is not a"),
        ({"a.csv": "n,w\na,1\n", "b.csv": ""}, [], "b.csv: the input is empty; it needs a header line"),
        ({"a.csv": "n,w\na,1\n", "b.tsv": "n\tw\na\t1\n"}, [], "the inputs are of several formats: "),
        ({"a.csv": "n,w\na,1\n", "b.csv": "n,w\nb,0\n"}, ["-k", "3"], "-k 3 is more than the rows of positive weight"),
        ({"a.csv": "n,w\na,1\n"}, ["-", "-"], "standard input (-) is there more than once"),
        ({"a.csv": "n,w\na,1\n"}, ["--every", "5"], "--every says how often --state is written; give --state FILE"),
        ({"a.csv": "n,w\na,1\n"}, ["--state", "s", "--inclusion"], "--inclusion needs the weights of all records"),
        ({"a.csv": "n,w\na,1\n"}, ["--state", "s", "-k", "0"], "--state needs -k 1 or more"),
        ({}, ["--format", "parquet"], "Parquet cannot be read from standard input; give a file"),
        ({"a.csv": "gumbel_key,w\na,1\n"}, ["--with-key"], "the input has a column 'gumbel_key' already"),
        ({"a.ndjson": '{"gumbel_key": 1, "w": 1}\n'}, ["--with-key"], "the input has a column 'gumbel_key' already"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_code_2(
    run: Run, tmp_path: Path, files: dict[str, str], options: list[str], complaint: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    code, out, err = run("sample", "-k", "1", "-w", "w", *(str(tmp_path / name) for name in files), *options)
    assert (code, out) == (2, b"")
    assert err.startswith("gumbeltopk sample: error: ")
    assert complaint in err
    assert err.count("\n") == 1


def test_a_number_of_the_first_record_beyond_64_bits_is_refused(run: Run) -> None:
    assert "is too large; numbers of records go up to" in run(*DRAW, "--start", str(2**63)).err


# --- bad records ----------------------------------------------------------------------------------


def test_bad_records_are_skipped_and_counted_on_request(run: Run, tmp_path: Path) -> None:
    """They keep their numbers, so that the others are drawn as if the bad ones had weight 0."""
    bad = {100: b"x,-1\n", 200: b"one field\n", 300: b"x,heavy\n", 400: b'"a"b,1\n', 999: b"x,\n"}
    rows = [bad.get(i, row) for i, row in enumerate(ROWS)]
    weights = [0.0 if i in bad else weight for i, weight in enumerate(WEIGHTS.tolist())]
    path = tmp_path / "table.csv"
    path.write_bytes(HEADER + b"\n" + b"".join(rows))
    code, out, err = run(*DRAW, "--on-bad", "skip", str(path))
    expected = [rows[i] for i in gt.sample(weights=weights, k=20, rng=gt.CounterRNG(5)).tolist()]
    assert (code, out) == (0, HEADER + b"".join(expected))
    assert err == (
        f"gumbeltopk sample: skipped 5 bad records, the first: {path}: line 103, column 'w': the weight '-1' must be "
        "finite and not negative; 0 is a row that is never drawn\n"
    )


def test_bad_objects_are_skipped_too(run: Run) -> None:
    table = b'{"w": 1}\n{"w": "1"}\n[]\nw\n{}\n{"w": 2}\n'
    code, out, err = run("sample", "-k", "2", "-w", "w", "--on-bad", "skip", "--format", "ndjson", stdin=table)
    assert code == 0
    assert sorted(out.splitlines()) == [b'{"w": 1}', b'{"w": 2}']
    assert err.startswith(
        "gumbeltopk sample: skipped 4 bad records, the first: standard input: line 2, column 'w': the"
    )


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (b'name,w\na,1\n"b,2\nc,3\n', "line 3: unexpected end of data; check its quotes"),
        (b"name,w\na,1\n\xe9,2\n", "line 3: byte 0xe9 is not UTF-8"),
        (b"name,v\na,1\n", "column 'w' is not there"),
    ],
)
def test_what_may_hide_many_records_is_not_skipped(run: Run, table: bytes, complaint: str) -> None:
    """A quote that is never closed swallows the rest of the input."""
    code, out, err = run("sample", "-k", "1", "-w", "w", "--on-bad", "skip", stdin=table)
    assert (code, out) == (2, b"")
    assert complaint in err


# --- added columns --------------------------------------------------------------------------------


def test_keys_are_those_of_the_library_and_descend(run: Run) -> None:
    out = run(*DRAW, "--with-key", stdin=TABLE).out.decode()
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["name", "w", "gumbel_key"]
    chosen = gt.sample(weights=WEIGHTS, k=20, rng=gt.CounterRNG(5))
    keys = [float(row[2]) for row in rows[1:]]
    np.testing.assert_allclose(keys, gt.gumbel_keys(weights=WEIGHTS, rng=gt.CounterRNG(5))[chosen], rtol=1e-14)
    assert keys == sorted(keys, reverse=True)


@pytest.mark.parametrize(
    ("form", "record", "expected"),
    [
        ("csv", b'"a\n",1\r\n', b'"a\n",1,KEY\r\n'),
        ("csv", b"a,1\r", b"a,1,KEY\r"),
        ("tsv", b"a\t1\n", b"a\t1\tKEY\n"),
        ("ndjson", b'{"name": "a}",\r "w": 1 } \r\n', b'{"name": "a}",\r "w": 1, "gumbel_key": KEY } \r\n'),
    ],
)
def test_a_key_is_added_at_the_end_of_the_record(run: Run, form: str, record: bytes, expected: bytes) -> None:
    separator = b"\t" if form == "tsv" else b","
    header = b"" if form == "ndjson" else separator.join([b"name", b"w"]) + b"\n"
    code, out, _ = run(
        "sample", "-k", "1", "-w", "w", "--seed", "0", "--with-key", "--format", form, stdin=header + record
    )
    key = repr(float(gt.gumbel_keys(weights=[1.0], rng=gt.CounterRNG(0))[0])).encode()
    assert code == 0
    assert out.removeprefix(header.replace(b"w\n", b"w" + separator + b"gumbel_key\n")) == expected.replace(b"KEY", key)


def test_inclusion_probabilities_are_exact(run: Run) -> None:
    """Of 3 rows and k = 2: P(i) = p_i + sum over j of p_j p_i / (1 - p_j); rows of weight 0 change nothing."""
    w = {"a": 0.5, "b": 0.3, "c": 0.2}
    table = "name,w\nz,0\n" + "".join(f"{name},{weight}\n" for name, weight in w.items())
    out = run("sample", "-k", "2", "-w", "w", "--inclusion", "--start", "7", stdin=table.encode()).out.decode()
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["name", "w", "inclusion_probability"]
    for name, _, probability in rows[1:]:
        others = [weight for other, weight in w.items() if other != name]
        expected = w[name] + sum(weight * w[name] / (1 - weight) for weight in others)
        assert math.isclose(float(probability), expected, rel_tol=1e-10)


def test_inclusion_probability_is_one_where_all_are_drawn(run: Run) -> None:
    out = run("sample", "-k", "2", "-w", "w", "--inclusion", stdin=b"w\n1\n0\n3\n").out
    assert [float(line.split(b",")[1]) for line in out.splitlines()[1:]] == [1.0, 1.0]


def test_inclusion_hands_the_library_positive_weights_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And picks the probabilities of the chosen rows, in order of selection."""

    def stand_in(log_weights: np.ndarray, k: int) -> np.ndarray:
        assert np.isfinite(log_weights).all()
        return np.exp(log_weights) / 1000 * k

    monkeypatch.setattr(gt, "inclusion_probabilities", stand_in, raising=False)
    weights = np.where(np.arange(1000) % 3 == 0, 0.0, np.arange(1000))
    table = b"w\n" + b"".join(b"%d\n" % weight for weight in weights)
    out = run("sample", "-k", "50", "-w", "w", "--seed", "1", "--inclusion", "--start", "11", stdin=table).out
    for line in out.splitlines()[1:]:
        weight, probability = map(float, line.split(b","))
        assert math.isclose(probability, weight / 20)


def test_missing_inclusion_is_said_before_the_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(gt, "inclusion_probabilities", raising=False)
    code, out, err = run("sample", "-k", "1", "-w", "w", "--inclusion", "missing.csv")
    assert (code, out) == (1, b"")
    assert "has no inclusion_probabilities; use a newer one" in err


def test_added_columns_stand_in_objects_as_numbers(run: Run) -> None:
    out = run("sample", "-k", "1", "-w", "w", "--with-key", "--format", "ndjson", stdin=b'{"w": 1}').out
    assert isinstance(json.loads(out)["gumbel_key"], float)


# --- where it is written --------------------------------------------------------------------------


def test_output_goes_to_a_file_on_request(run: Run, tmp_path: Path) -> None:
    assert run(*DRAW, "-o", str(tmp_path / "out.csv"), stdin=TABLE) == (0, b"", "")
    assert (tmp_path / "out.csv").read_bytes() == HEADER + b"".join(drawn())
    code, _, err = run(*DRAW, "-o", str(tmp_path), stdin=TABLE)
    assert (code, err) == (1, f"gumbeltopk sample: error: cannot write -o {tmp_path}: Is a directory\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals in the standard library")
@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_shown_on_a_terminal_only(tmp_path: Path, shown: bool) -> None:
    pytest.importorskip("tqdm")
    import os
    import pty

    (tmp_path / "table.csv").write_bytes(TABLE)
    terminal, child_end = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *DRAW, str(tmp_path / "table.csv")],
        stdout=subprocess.PIPE,
        stderr=child_end if shown else subprocess.PIPE,
    )
    out, err = process.communicate()
    os.close(child_end)
    assert out == HEADER + b"".join(drawn())
    if shown:
        assert b"%|" in os.read(terminal, 4096)
    else:
        assert err == b""
    os.close(terminal)
