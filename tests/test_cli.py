"""The command line, as its users meet it: what it writes, byte by byte, its errors and its exit codes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gumbeltopk as gt
from gumbeltopk.cli import main
from tests._command_line import COMMAND, Run
from tests._reference import ordered_probability, subset_probability
from tests._statistics import assert_distribution

TABLE = b"name,w\na,1\nb,2\nc,3\nd,4\n"

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed, which draws the figure"
)


# --- sample: the rows -----------------------------------------------------------------------------


def test_all_rows_of_positive_weight_are_a_permutation_under_the_header(run: Run) -> None:
    """-k the number of positive weights: each row once, the row of weight 0 never."""
    for seed in range(20):
        code, out, err = run("sample", "-k", "3", "-w", "w", "--seed", str(seed), stdin=b"name,w\na,1\nb,0\nc,3\nd,4\n")
        assert (code, err) == (0, "")
        header, *rows = out.splitlines(keepends=True)
        assert header == b"name,w\n"
        assert sorted(rows) == [b"a,1\n", b"c,3\n", b"d,4\n"]


def test_rows_are_those_of_the_library_in_order_of_selection(run: Run) -> None:
    for seed in range(20):
        expected = [
            b"abcd"[i : i + 1] for i in gt.sample(weights=[1.0, 2.0, 3.0, 4.0], k=3, rng=gt.CounterRNG(seed)).tolist()
        ]
        out = run("sample", "-k", "3", "-w", "w", "--seed", str(seed), stdin=TABLE).out
        assert [line[:1] for line in out.splitlines()[1:]] == expected


def test_rows_follow_the_exact_distribution(run: Run) -> None:
    """2000 seeds, k = 2 of 4 rows, ordered (12 cells) and unordered (6 cells).

    False alarm: 1e-6 for each. Found with power 1 - 1e-6: a root mean square relative error of 25 % and 23 %. Weights
    taken for logarithms are off by 57 %, equal weights by 75 %, the column of 1 / w by 175 %, file order by 112 %.
    """
    weights = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    table = "w,name,other\n" + "".join(f"{w},{name},{1 / w}\n" for name, w in weights.items())
    counts: Counter[tuple[str, ...]] = Counter()
    for seed in range(2000):
        out = run("sample", "-k", "2", "-w", "w", "--seed", str(seed), stdin=table.encode()).out.decode()
        counts[tuple(line.split(",")[1] for line in out.splitlines()[1:])] += 1
    orders = list(itertools.permutations(weights, 2))
    assert set(counts) <= set(orders)
    numbers = [["abcd".index(name) for name in order] for order in orders]
    ordered = [float(ordered_probability(weights.values(), order)) for order in numbers]
    assert_distribution([counts[order] for order in orders], ordered)
    subsets = list(itertools.combinations(weights, 2))
    unordered = [
        float(subset_probability(list(weights.values()), ["abcd".index(name) for name in subset])) for subset in subsets
    ]
    assert_distribution([counts[s] + counts[s[::-1]] for s in subsets], unordered)


def test_same_seed_same_rows_and_no_seed_other_rows(run: Run) -> None:
    """50 of 100 rows twice: equal by chance with probability below 1e-90."""
    table = b"w\n" + b"".join(b"%d\n" % w for w in range(1, 101))
    arguments = ("sample", "-k", "50", "-w", "w")
    assert run(*arguments, "--seed", "7", stdin=table) == run(*arguments, "--seed", "7", stdin=table)
    assert run(*arguments, "--seed", "7", stdin=table).out != run(*arguments, "--seed", "8", stdin=table).out
    assert run(*arguments, stdin=table).out != run(*arguments, stdin=table).out


@pytest.mark.parametrize("weights", ["1e308,1e308,1e308", "5e-324,1,1e308", "5e-324,5e-324,5e-324"])
def test_weights_at_the_ends_of_float64_are_drawn(run: Run, weights: str) -> None:
    """Their sum overflows, or their ratios do."""
    table = "\n".join(["w", *weights.split(",")]) + "\n"
    code, out, _ = run("sample", "-k", "3", "-w", "w", stdin=table.encode())
    assert code == 0
    assert sorted(out.decode().split()) == sorted(table.split())


# --- sample: the bytes ----------------------------------------------------------------------------


def test_records_are_written_byte_by_byte(run: Run) -> None:
    """Byte order mark, CRLF, quotes, line ends within fields, letters beyond ASCII, empty lines, no last line end."""
    header = b'\xef\xbb\xbf"na""me",w\r\n'
    records = [b'"x\r\ny\nz",1\r\n', "é€😀\u2028,2.50\r\n".encode(), b'  "quote",3e0\r\n', b",4"]
    code, out, err = run("sample", "-k", "4", "-w", "w", "--seed", "0", stdin=header + b"\r\n".join(records))
    assert (code, err) == (0, "")
    assert out.startswith(header)
    pieces = [record.removesuffix(b"\r\n") + b"\r\n" for record in records]
    joined = {header + b"".join(order) for order in itertools.permutations(pieces)}
    assert out in joined


def test_output_of_a_file_with_carriage_returns_is_not_translated(run: Run) -> None:
    assert run("sample", "-k", "1", "-w", "w", stdin=b"name,w\ra,1\rb,0\r").out == b"name,w\ra,1\r"


@pytest.mark.parametrize("table", [TABLE, b"name,w\n", b"name,w\na,0\n"])
def test_no_rows_asked_is_the_header(run: Run, table: bytes) -> None:
    assert run("sample", "-k", "0", "-w", "w", stdin=table) == (0, b"name,w\n", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "name,w\nx,1\n"),
        ("a.txt", "name,w\nx,1\n"),
        ("a.TSV", "name\tw\nx,y\t1\n"),
        ("a.ndjson", '{"w": 1}\n'),
        ("a.jsonl", '{"w": 1}\n'),
    ],
)
def test_format_follows_the_file_name(run: Run, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert run("sample", "-k", "1", "-w", "w", str(tmp_path / name)) == (0, content.encode(), "")


def test_format_option_comes_before_the_file_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('{"w": 1}\n', encoding="utf-8")
    assert run("sample", "-k", "1", "-w", "w", "--format", "ndjson", str(tmp_path / "a.csv")).out == b'{"w": 1}\n'
    assert run("sample", "-k", "1", "-w", "w", "--format", "tsv", "-", stdin=b"a\tw\n,\t1\n").out == b"a\tw\n,\t1\n"


def test_output_that_is_taken_in_pieces_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by an unbuffered standard output (PYTHONUNBUFFERED), whose write may take a part only."""
    taken = bytearray()

    def write_three_bytes(data: memoryview) -> int:
        taken.extend(data[:3])
        return min(3, len(data))

    def nothing() -> None:
        return None

    buffer = SimpleNamespace(write=write_three_bytes, flush=nothing)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=buffer, flush=nothing))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"name,w\nabcdefgh,1\n")))
    assert main(["sample", "-k", "1", "-w", "w"]) == 0
    assert bytes(taken) == b"name,w\nabcdefgh,1\n"


# --- sample: errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "table", "complaint"),
    [
        ("1", b"", "the input is empty"),
        ("1", b"a,b\n1,2\n", "column 'w' is not there; check -w"),
        ("1", b"w,w\n1,2\n", "column 'w' is there more than once"),
        ("1", b"name,w\na,1\nb,nan\n", "line 3, column 'w': the weight 'nan' must be finite and not negative"),
        ("1", b"name,w\na,1\nb,c,2\n", "line 3: 3 fields, but the header has 2"),
        ("5", TABLE, "-k 5 is more than the rows of positive weight (4 of 4); lower -k"),
        ("2", b"name,w\na,1\nb,0\n", "-k 2 is more than the rows of positive weight (1 of 2); lower -k"),
        ("1", b"name,w\n", "-k 1 is more than the rows of positive weight (0 of 0); lower -k"),
        ("9" * 30, TABLE, f"-k {'9' * 30} is more than the rows"),
        ("1", b"name,w\na,1\n\xe9,2\n", "line 3: byte 0xe9 is not UTF-8; convert the file"),
        ("1", "name,w\na,1\n".encode("utf-16"), "line 1: byte 0xff is not UTF-8; convert the file"),
        ("1", b"\x1f\x8b\x08\x00", "line 1: byte 0x8b is not UTF-8; convert the file"),
    ],
)
def test_bad_data_is_code_2_and_writes_no_row(run: Run, tmp_path: Path, k: str, table: bytes, complaint: str) -> None:
    """The message names the file, or standard input."""
    code, out, err = run("sample", "-k", k, "-w", "w", stdin=table)
    assert (code, out) == (2, b"")
    assert err.startswith(f"gumbeltopk sample: error: standard input: {complaint}")
    assert err.count("\n") == 1
    (tmp_path / "table.csv").write_bytes(table)
    code, out, err = run("sample", "-k", k, "-w", "w", str(tmp_path / "table.csv"))
    assert (code, out) == (2, b"")
    assert err.startswith(f"gumbeltopk sample: error: {tmp_path / 'table.csv'}: {complaint}")


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_file_that_cannot_be_read_is_code_1(run: Run, tmp_path: Path, name: str) -> None:
    code, out, err = run("sample", "-k", "1", "-w", "w", str(tmp_path / name))
    assert (code, out) == (1, b"")
    assert err.startswith(f"gumbeltopk sample: error: {tmp_path / name}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["draw"], "invalid choice: 'draw'"),
        (["sample"], "the following arguments are required: -k, -w"),
        (["sample", "-k", "-1", "-w", "w"], "argument -k: '-1' is not a whole number of 0 or more"),
        (["sample", "-k", "1e3", "-w", "w"], "argument -k: '1e3' is not a whole number"),
        (["sample", "-k", "1.0", "-w", "w"], "argument -k: '1.0' is not a whole number"),
        (["sample", "-k", "1_0", "-w", "w"], "argument -k: '1_0' is not a whole number"),
        (["sample", "-k", "²", "-w", "w"], "argument -k: '²' is not a whole number"),
        (["sample", "-k", "9" * 5000, "-w", "w"], "is not a whole number"),
        (["sample", "-k", "1", "-w", "w", "--seed", "x"], "argument --seed: 'x' is not a whole number"),
        (["sample", "-k", "1", "-w", "w", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
        (["reproduce"], "the following arguments are required: figure"),
        (["reproduce", "fig2"], "argument figure: invalid choice: 'fig2'"),
        (["reproduce", "fig1", "--samples", "0"], "argument --samples: 0 is not enough; give 1 or more"),
        (["reproduce", "fig1", "--samples", "4e6"], "argument --samples: '4e6' is not a whole number"),
        (["reproduce", "fig1", "--temperatures"], "argument --temperatures: expected at least one argument"),
        (["reproduce", "fig1", "--temperatures", "1", "0"], "argument --temperatures: '0' is not a positive finite"),
        (["reproduce", "fig1", "--temperatures", "inf"], "argument --temperatures: 'inf' is not a positive finite"),
        (["reproduce", "fig1", "--temperatures", "nan"], "argument --temperatures: 'nan' is not a positive finite"),
        (["reproduce", "fig1", "--temperatures", "warm"], "argument --temperatures: 'warm' is not a positive finite"),
    ],
)
def test_bad_usage_is_code_2(run: Run, arguments: list[str], complaint: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, b"")
    assert err.startswith("usage: gumbeltopk")
    assert complaint in err


@pytest.mark.parametrize("arguments", [["--help"], ["sample", "--help"], ["reproduce", "--help"], ["--version"]])
def test_help_and_version_are_code_0_on_standard_output(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert (f"gumbeltopk {gt.__version__}".encode() if "--version" in arguments else b"usage: gumbeltopk") in out


def test_interrupt_is_code_1_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gt, "Reservoir", interrupted)
    assert run("sample", "-k", "1", "-w", "w", stdin=TABLE) == (1, b"", "gumbeltopk sample: error: interrupted\n")


# --- reproduce ------------------------------------------------------------------------------------


@needs_matplotlib
def test_reproduce_prints_the_table_and_writes_both_files(run: Run, tmp_path: Path) -> None:
    """The folder is made, with its parents; nothing on standard error, which is no terminal here."""
    folder = tmp_path / "new" / "folder"
    arguments = ("reproduce", "fig1", "--samples", "3000", "--temperatures", "0.5", "2", "--seed", "5")
    code, out, err = run(*arguments, "--out", str(folder))
    assert (code, err) == (0, "")
    numbers = json.loads((folder / "figure1.json").read_text(encoding="utf-8"))
    assert (numbers["samples"], numbers["seed"]) == (3000, 5)
    assert [way["temperature"] for way in numbers["relaxed"]] == [0.5, 2.0]
    lines = out.decode().splitlines()
    assert lines[0].endswith("t = 0.5       t = 2")
    row = next(line for line in lines if line.startswith("{3, 4}"))
    assert row.split()[2] == "0.371429"
    assert row.split()[-1] == f"{numbers['relaxed'][1]['frequencies'][5]:.6f}"
    assert lines[-1] == f"wrote {folder / 'figure1.png'} and {folder / 'figure1.json'}"
    assert (folder / "figure1.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert sorted(path.name for path in folder.iterdir()) == ["figure1.json", "figure1.png"]
    assert run(*arguments, "--out", str(folder)).out == out  # same seed, and the files may be there


@needs_matplotlib
@pytest.mark.parametrize("out", ["file", "file/below"])
def test_unwritable_folder_is_code_1_before_any_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    from gumbeltopk.experiments import figure1

    monkeypatch.setattr(figure1, "figure1", lambda *arguments: pytest.fail("the draws were made first"))
    (tmp_path / "file").touch()
    code, output, err = run("reproduce", "fig1", "--out", str(tmp_path / out))
    assert (code, output) == (1, b"")
    assert err.startswith(f"gumbeltopk reproduce: error: cannot write to --out {tmp_path / out}: ")


@needs_matplotlib
def test_disk_that_is_full_at_the_end_is_code_1(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gumbeltopk.experiments import figure1

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure1, "save_plot", full)
    code, _, err = run("reproduce", "fig1", "--samples", "10", "--out", str(tmp_path))
    assert (code, err) == (
        1,
        f"gumbeltopk reproduce: error: cannot write to --out {tmp_path}: No space left on device\n",
    )


def test_missing_matplotlib_is_code_1_and_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = run("reproduce", "fig1", "--out", str(tmp_path / "folder"))
    assert (code, out) == (1, b"")
    assert err.startswith("gumbeltopk reproduce: error: matplotlib cannot be imported")
    assert 'python -m pip install "gumbeltopk[experiments]"' in err
    assert not (tmp_path / "folder").exists()


@needs_matplotlib
def test_without_tqdm_a_terminal_gets_no_bar(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, _, err = run("reproduce", "fig1", "--samples", "10", "--out", str(tmp_path))
    assert (code, err) == (0, "")


# --- processes ------------------------------------------------------------------------------------


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run([*COMMAND, "sample", "-k", "5", "-w", "w"], input=TABLE, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().startswith("gumbeltopk sample: error: standard input: -k 5 is more than")


def test_console_script_is_in_the_metadata() -> None:
    try:
        scripts = importlib.metadata.distribution("gumbeltopk").entry_points.select(group="console_scripts")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gumbeltopk is imported from its folder and not installed: it has no metadata")
    assert [(script.name, script.load()) for script in scripts] == [("gumbeltopk", main)]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_that_goes_away_is_code_1_and_no_news(tmp_path: Path, unbuffered: str) -> None:
    """As with `| head -1`: 2 MB are far more than a pipe holds, so the writer notices."""
    (tmp_path / "table.csv").write_text("name,w\n" + f"{'x' * 100},1\n" * 20_000, encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "sample", "-k", "20000", "-w", "w", str(tmp_path / "table.csv")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdout as out:
        assert out.readline() == b"name,w\n"
        out.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_that_was_never_there_is_code_1_and_no_news(unbuffered: str) -> None:
    """As with `| true`: the whole output still waits in the buffer, which Python would flush again at shutdown."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*COMMAND, "sample", "-k", "1", "-w", "w"],
        input=TABLE,
        stdout=write_end,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, which is always full")
def test_full_disk_is_code_1_and_one_line(unbuffered: str) -> None:
    """Python does not try once more at shutdown, which would add its own complaint and code 120."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "sample", "-k", "1", "-w", "w"],
            input=TABLE,
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"gumbeltopk sample: error: cannot write the output: No space left on device\n"


@needs_matplotlib
@pytest.mark.skipif(importlib.util.find_spec("tqdm") is None, reason="tqdm is not installed, which draws the bar")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals in the standard library")
def test_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    """On standard error only, up to the end, and gone when the table comes; on a terminal that calls itself 0 x 0."""
    import pty

    terminal, child_end = pty.openpty()
    arguments = ["reproduce", "fig1", "--samples", "100000", "--out", str(tmp_path)]
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=child_end)
    os.close(child_end)
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(terminal)
    table, _ = process.communicate()
    assert process.returncode == 0
    text = shown.decode()
    assert "  0%|" in text
    assert "/100k [" in text
    assert text.endswith("\r")  # the bar is wiped
    assert table.startswith(b"subset")
    assert b"%|" not in table


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors in a POSIX shell")
@pytest.mark.parametrize(("closed", "what"), [("<&-", "standard input is closed"), (">&-", "output is closed")])
def test_a_closed_standard_stream_is_an_error_without_a_traceback(closed, what):
    command = f"printf 'w\n1\n' | ({sys.executable} -m gumbeltopk sample -k 1 -w w {closed})"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert what in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
