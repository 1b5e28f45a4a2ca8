"""`gumbeltopk sample` on Parquet files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk._records import parquet
from gumbeltopk.cli import sample, state
from tests._command_line import Run

WEIGHTS = np.random.default_rng(2).gamma(1.0, size=1000)
DRAW = ("sample", "-k", "20", "-w", "w", "--seed", "5")
CHOSEN = gt.sample(weights=WEIGHTS, k=20, rng=gt.CounterRNG(5)).tolist()


@pytest.fixture
def pa() -> Any:
    """The package."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    return parquet.import_pyarrow()


@pytest.fixture
def files(pa: Any, tmp_path: Path) -> list[str]:
    """Two files of 600 and 400 rows, in row groups of 150."""
    table = pa.table(
        {"name": [f"item {i}" for i in range(1000)], "w": WEIGHTS, "list": [[i, i + 1] for i in range(1000)]}
    )
    paths = [str(tmp_path / "a.parquet"), str(tmp_path / "b.pq")]
    pa.parquet.write_table(table.slice(0, 600), paths[0], row_group_size=150)
    pa.parquet.write_table(table.slice(600), paths[1], row_group_size=150)
    return paths


def test_chosen_rows_are_written_as_parquet(run: Run, pa: Any, files: list[str], tmp_path: Path) -> None:
    """Nested columns and types are kept, in order of selection."""
    out = str(tmp_path / "out.parquet")
    assert run(*DRAW, "--with-key", *files, "-o", out) == (0, b"", "")
    table = pa.parquet.read_table(out)
    assert table["name"].to_pylist() == [f"item {i}" for i in CHOSEN]
    assert table["list"].to_pylist() == [[i, i + 1] for i in CHOSEN]
    assert table["w"].to_pylist() == WEIGHTS[CHOSEN].tolist()
    keys = gt.gumbel_keys(weights=WEIGHTS, rng=gt.CounterRNG(5))[CHOSEN]
    np.testing.assert_allclose(table["gumbel_key"].to_numpy(), keys, rtol=1e-14)


def test_without_a_file_the_rows_are_csv(run: Run, pa: Any, files: list[str], tmp_path: Path) -> None:
    flat = str(tmp_path / "flat.parquet")
    pa.parquet.write_table(pa.table({"n": ['a "b"', "c"], "w": pa.array([1, 2], type=pa.int32())}), flat)
    code, out, _ = run("sample", "-k", "2", "-w", "w", "--seed", "0", flat)
    assert code == 0
    assert sorted(out.splitlines()) == [b'"a ""b""",1', b'"c",2', b'"n","w"']
    code, out, err = run(*DRAW, *files)
    assert (code, out) == (2, b"")
    assert "the rows cannot be written as CSV" in err
    assert "write Parquet, with -o FILE" in err


def test_no_rows_asked_is_an_empty_table(run: Run, pa: Any, files: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "out.parquet")
    assert run("sample", "-k", "0", "-w", "w", files[0], "-o", out).code == 0
    assert pa.parquet.read_table(out).schema.names == ["name", "w", "list"]


@pytest.mark.parametrize("times", range(1, 8))
def test_a_run_that_was_stopped_goes_on(
    run: Run, pa: Any, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """After any row group of either file, and within them; and its state merges."""
    monkeypatch.setattr(parquet, "ROWS_AT_A_TIME", 100)
    out, whole = str(tmp_path / "out.parquet"), str(tmp_path / "whole.parquet")
    arguments = (*DRAW, *files, "-o", out, "--state", str(tmp_path / "state"), "--every", "1")
    left = [times]

    def save_and_stop(*arguments: Any) -> None:
        save(*arguments)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    save = state.save
    monkeypatch.setattr(sample.state, "save", save_and_stop)
    assert run(*arguments).code == 1
    assert 0 < gt.Reservoir.load(tmp_path / "state").count < 1000
    assert run(*arguments).code == 0
    assert run(*DRAW, *files, "-o", whole).code == 0
    assert pa.parquet.read_table(out).equals(pa.parquet.read_table(whole))
    assert run("merge", str(tmp_path / "state"), "-o", out).code == 0
    assert pa.parquet.read_table(out).equals(pa.parquet.read_table(whole))


@pytest.mark.parametrize(
    ("column", "complaint"),
    [
        ([1.0, None], "row 2, column 'w': the weight is null; write 0"),
        ([1.0, float("nan")], "row 2, column 'w': the weight nan must be finite and not negative"),
        ([1, -3], "row 2, column 'w': the weight -3 must be finite and not negative"),
        (["1", "2"], "column 'w' is of type string; the weights must be numbers"),
        ([True, False], "column 'w' is of type bool; the weights must be numbers"),
    ],
)
def test_bad_weights_are_named_with_their_row(
    run: Run, pa: Any, tmp_path: Path, column: list[Any], complaint: str
) -> None:
    path = str(tmp_path / "a.parquet")
    pa.parquet.write_table(pa.table({"w": column}), path)
    code, out, err = run("sample", "-k", "1", "-w", "w", path)
    assert (code, out) == (2, b"")
    assert err.startswith(f"gumbeltopk sample: error: {path}: {complaint}")
    if "row" in complaint:
        code, out, err = run("sample", "-k", "1", "-w", "w", "--on-bad", "skip", path)
        assert (code, float(out.splitlines()[1])) == (0, 1.0)
        assert f"skipped 1 bad record, the first: {path}: row 2" in err


def test_what_is_no_parquet_file(run: Run, pa: Any, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"w\n1\n")
    code, _, err = run("sample", "-k", "1", "-w", "w", str(tmp_path / "a.parquet"))
    assert (code, "this is no Parquet file" in err) == (2, True)
    code, _, err = run("sample", "-k", "1", "-w", "w", str(tmp_path / "b.parquet"))
    assert (code, "b.parquet: No such file" in err) == (1, True)
    pa.parquet.write_table(pa.table({"v": [1.0]}), str(tmp_path / "a.parquet"))
    code, _, err = run("sample", "-k", "1", "-w", "w", str(tmp_path / "a.parquet"))
    assert (code, "column 'w' is not there; check -w (the columns are 'v')" in err) == (2, True)


def test_missing_pyarrow_is_code_1_and_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, out, err = run("sample", "-k", "1", "-w", "w", str(tmp_path / "a.parquet"))
    assert (code, out) == (1, b"")
    assert err.startswith("gumbeltopk sample: error: pyarrow cannot be imported")
    assert 'python -m pip install "gumbeltopk[parquet]"' in err


def test_text_formats_do_not_load_pyarrow() -> None:
    code = "import sys; from gumbeltopk.cli import main; main(sys.argv[1:]); print('pyarrow' in sys.modules)"
    arguments = ["sample", "-k", "1", "-w", "w", "-o", "/dev/null" if sys.platform != "win32" else "NUL"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], input=b"w\n1\n", capture_output=True, check=True)
    assert done.stdout.split() == [b"False"]
