"""Table 3: NeuralSort against its formula and against the hard top-k, and the command's table and JSON.

No number of seconds is asserted here, only that they are there and that the table shows them.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk import cli
from gumbeltopk.experiments import table3

ROOT = Path(__file__).resolve().parent.parent


def neuralsort_naive(scores: list[float], temperature: float) -> list[list[float]]:
    """The matrix of one row of scores, entry by entry, from the formula."""
    m = len(scores)
    matrix = []
    for i in range(1, m + 1):
        logits = []
        for own in scores:
            distances = sum(abs(own - other) for other in scores)
            logits.append(((m + 1 - 2 * i) * own - distances) / temperature)
        exponentials = [math.exp(logit - max(logits)) for logit in logits]
        matrix.append([each / sum(exponentials) for each in exponentials])
    return matrix


def random_scores(queries: int, m: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).gumbel(size=(queries, m))


def whole_matrix(scores: Any, temperature: float) -> Any:
    ranks = np.arange(1, scores.shape[-1] + 1)
    return table3.neuralsort_rows(scores, table3.distance_sums(scores), ranks, temperature)


# --- NeuralSort -----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 20.0])
@pytest.mark.parametrize("all_rows", [True, False])
def test_neuralsort_is_its_formula(temperature: float, all_rows: bool) -> None:
    scores = random_scores(4, 9)
    naive = np.asarray([neuralsort_naive(row, temperature) for row in scores.tolist()])
    np.testing.assert_allclose(whole_matrix(scores, temperature), naive, rtol=1e-12, atol=1e-300)
    for k in (1, 5, 9):
        relaxed = table3.neuralsort_topk(scores, k, temperature, all_rows)
        np.testing.assert_allclose(relaxed, naive[:, :k].sum(axis=1), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
def test_every_row_of_the_matrix_is_a_distribution(temperature: float) -> None:
    matrix = whole_matrix(random_scores(3, 20), temperature)
    assert np.all(matrix >= 0)
    np.testing.assert_allclose(matrix.sum(axis=-1), 1.0, rtol=1e-14)
    assert matrix.shape == (3, 20, 20)


@pytest.mark.parametrize("all_rows", [True, False])
def test_at_a_low_temperature_neuralsort_is_the_hard_top_k(all_rows: bool) -> None:
    """The largest logit of row i is that of the i-th largest score, by one gap of the scores: here 0.1, or 1000 t."""
    rng = np.random.default_rng(0)
    scores = np.stack([rng.permutation(30) for _ in range(5)]) / 10
    largest = np.argsort(-scores, axis=-1)
    relaxed = table3.neuralsort_topk(scores, 5, 1e-4, all_rows)
    np.testing.assert_array_equal(relaxed, gt.k_hot(largest[:, :5], 30))
    np.testing.assert_array_equal(np.argmax(whole_matrix(scores, 1e-4), axis=-1), largest)


@pytest.mark.parametrize("block", [1, 50, 170, 500, 1 << 18])
def test_blocks_do_not_change_neuralsort(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """One entry at a time, a part of a matrix, a matrix of 13 x 13 with one entry more, three of them, all 4."""
    scores = random_scores(4, 13)
    expected = [whole_matrix(scores, 1.0)[:, :6].sum(axis=1)] * 2
    monkeypatch.setattr(table3, "BLOCK", block)
    actual = [table3.neuralsort_topk(scores, 6, 1.0, all_rows) for all_rows in (True, False)]
    np.testing.assert_allclose(actual, expected, rtol=1e-13)


@pytest.mark.parametrize(("length", "step"), [(0, 3), (7, 0), (7, 1), (7, 3), (7, 7), (7, 100)])
def test_slices_cover_each_place_once(length: int, step: int) -> None:
    parts = [range(length)[part] for part in table3.slices(length, step)]
    assert list(itertools.chain(*parts)) == list(range(length))
    assert all(1 <= len(part) <= max(1, step) for part in parts)


def test_float32_scores_give_float32() -> None:
    """What is timed is float32 throughout, as on the GPU of the paper."""
    keys = table3.random_keys(2, 8, seed=0)
    assert [keys.dtype, *(way.relax(keys).dtype for way in table3.WAYS)] == [np.float32] * 4


def test_every_way_relaxes_the_same_keys_to_sums_of_k() -> None:
    """Equal work: one value per item, k in all, and the largest key has more than the smallest."""
    keys = table3.random_keys(3, 40, seed=0)
    for way in table3.WAYS:
        relaxed = way.relax(keys)
        assert relaxed.shape == keys.shape
        np.testing.assert_allclose(relaxed.sum(axis=-1), table3.K, rtol=1e-5)
        rows = np.arange(3)
        assert np.all(relaxed[rows, keys.argmax(axis=-1)] > relaxed[rows, keys.argmin(axis=-1)])
    both = [table3.WAYS[0].relax(keys), table3.WAYS[1].relax(keys)]
    np.testing.assert_allclose(*both, rtol=1e-6)


def test_the_published_seconds_are_those_of_the_paper() -> None:
    published = {name: list(times.items()) for name, times in table3.PUBLISHED.items()}
    assert published == {
        "NeuralSort": [(100, 0.010), (1000, 0.073), (5000, 3.694)],
        "RelaxSubSample": [(100, 0.010), (1000, 0.028), (5000, 0.110)],
    }


# --- the numbers ----------------------------------------------------------------------------------


def test_every_way_is_timed_at_every_size_and_progress_sees_every_call() -> None:
    calls: list[int] = []
    result = table3.table3([6, 9, 6], queries=2, repeats=3, seed=1, progress=calls.append)
    assert result.candidates == (6, 9)
    assert [(each.candidates, each.way) for each in result.timings] == [
        (m, way.name) for m in (6, 9) for way in table3.WAYS
    ]
    assert all(len(each.seconds) == 3 and min(each.seconds) > 0 for each in result.timings)
    assert all(each.median == sorted(each.seconds)[1] for each in result.timings)
    assert sum(calls) == table3.number_of_calls([6, 9, 6], 3) == 2 * 3 * 4


def test_one_thread_while_timing_and_the_users_number_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gt.get_num_threads()
    seen: list[int] = []

    def watch(keys: Any) -> Any:
        seen.append(gt.get_num_threads())
        if len(seen) == 4:
            raise KeyboardInterrupt
        return keys

    monkeypatch.setattr(table3, "WAYS", (table3.Way("watch", watch),))
    gt.set_num_threads(3)
    try:
        assert table3.table3([5], queries=1, repeats=1).threads == 1
        assert gt.get_num_threads() == 3
        with pytest.raises(KeyboardInterrupt):
            table3.table3([5], queries=1, repeats=5)
        assert gt.get_num_threads() == 3
    finally:
        gt.set_num_threads(before)
    assert seen == [1, 1, 1, 1]


def test_seed_decides_the_keys() -> None:
    np.testing.assert_array_equal(table3.random_keys(2, 5, 1), table3.random_keys(2, 5, 1))
    assert np.all(table3.random_keys(2, 5, 1) != table3.random_keys(2, 5, 2))


# --- table and JSON -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result() -> table3.Table3:
    """Made up: 1.5 and 0.25 seconds and so on, so that each cell of the table has a number of its own."""
    timings = [
        table3.Timing(way.name, m, [m * scale, m * scale / 2, m * scale * 2])
        for m in (100, 5000, 7)
        for way, scale in zip(table3.WAYS, (0.015, 0.0025, 0.0001), strict=True)
    ]
    machine = {"processor": "abacus", "system": "table", "python": "3", "numpy": "2"}
    return table3.Table3(5, 100, (100, 5000, 7), 1.0, "float32", 3, 0, 1, machine, timings)


def cells(table: str, label: str) -> list[str]:
    """What stands right of a label."""
    found = [row for row in table.splitlines() if row.startswith(f"  {label}  ")]
    assert len(found) == 1, f"{label}: {len(found)} lines"
    return found[0].removeprefix(f"  {label}").split()


def test_table_shows_here_and_published(result: table3.Table3) -> None:
    table = table3.format_table(result)
    assert cells(table, "NeuralSort, all m rows") == ["1.50000", "75.00000", "0.10500"]
    assert cells(table, "NeuralSort, first k rows") == ["0.25000", "12.50000", "0.01750"]
    assert cells(table, "relaxed_topk") == ["0.01000", "0.50000", "0.00070"]
    assert cells(table, "all m rows / relaxed_topk") == ["150.0", "150.0", "150.0"]
    assert cells(table, "k rows / relaxed_topk") == ["25.0", "25.0", "25.0"]
    assert cells(table, "NeuralSort") == ["0.010", "3.694", "-"]
    assert cells(table, "RelaxSubSample") == ["0.010", "0.110", "-"]
    assert cells(table, "their ratio") == ["1.0", "33.6", "-"]


def test_table_says_what_was_timed_and_that_the_hardware_differs(result: table3.Table3) -> None:
    table = table3.format_table(result)
    assert max(map(len, table.splitlines())) <= 80
    text = " ".join(table.split())
    for words in ("here, 100 x m", "published, Titan Xp", "one thread, median of 3", "k = 5, t = 1, float32", "abacus"):
        assert words in text
    assert "compare with each other, not with the seconds here" in text


def test_json_holds_all_numbers_and_settings(result: table3.Table3, tmp_path: Path) -> None:
    table3.save_json(result, tmp_path / "table3.json")
    numbers = json.loads((tmp_path / "table3.json").read_text(encoding="utf-8"))
    assert numbers["table"] == "Xie & Ermon 2019, Table 3"
    assert numbers["version"] == gt.__version__
    assert numbers["published"]["seconds"]["NeuralSort"]["5000"] == 3.694
    assert numbers["timings"][0] == {
        "way": "NeuralSort, all m rows",
        "candidates": 100,
        "seconds": [1.5, 0.75, 3.0],
        "median": 1.5,
    }
    assert len(numbers["timings"]) == 9
    settings = {"k", "queries", "candidates", "temperature", "dtype", "repeats", "seed", "threads", "machine"}
    assert settings < set(numbers)


# --- the command ----------------------------------------------------------------------------------


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["reproduce", "table3", *arguments])
        return code, *capsys.readouterr()

    return call


def test_command_prints_the_table_and_writes_the_json(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    arguments = ("--candidates", "8", "100", "--queries", "3", "--repeats", "2", "--seed", "4", "--out", str(folder))
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    numbers = json.loads((folder / "table3.json").read_text(encoding="utf-8"))
    assert (numbers["queries"], numbers["candidates"], numbers["repeats"], numbers["seed"]) == (3, [8, 100], 2, 4)
    assert out.splitlines()[0].split() == ["forward", "seconds", "m", "=", "8", "m", "=", "100"]
    medians = [each["median"] for each in numbers["timings"] if each["way"] == table3.RELAXED]
    assert cells(out, "relaxed_topk") == [f"{seconds:.5f}" for seconds in medians]
    assert cells(out, "NeuralSort") == ["-", "0.010"]
    assert out.splitlines()[-1] == f"wrote {folder / 'table3.json'}"
    assert [path.name for path in folder.iterdir()] == ["table3.json"]


def test_command_needs_no_matplotlib(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("--candidates", "5", "--queries", "1", "--repeats", "1", "--out", str(tmp_path))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--candidates", "100", "4"], "argument --candidates: 4 candidates have no top 5; give 5 or more"),
        (["--candidates", "0"], "argument --candidates: 0 is not enough"),
        (["--candidates"], "argument --candidates: expected at least one argument"),
        (["--queries", "0"], "argument --queries: 0 is not enough"),
        (["--repeats", "1.5"], "argument --repeats: '1.5' is not a whole number"),
        (["--samples", "10"], "unrecognized arguments: --samples 10"),
    ],
)
def test_bad_usage_is_code_2(run: Run, arguments: list[str], complaint: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err


def test_unwritable_folder_is_code_1_before_any_work(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table3, "table3", lambda *arguments: pytest.fail("the calls were made first"))
    (tmp_path / "file").touch()
    code, out, err = run("--out", str(tmp_path / "file"))
    assert (code, out) == (1, "")
    assert err.startswith(f"gumbeltopk reproduce: error: cannot write to --out {tmp_path / 'file'}: ")


def test_disk_that_is_full_at_the_end_is_code_1(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table3, "save_json", full)
    code, _, err = run("--candidates", "5", "--queries", "1", "--repeats", "1", "--out", str(tmp_path))
    assert (code, err) == (
        1,
        f"gumbeltopk reproduce: error: cannot write to --out {tmp_path}: No space left on device\n",
    )


def test_defaults_are_the_papers_sizes() -> None:
    arguments = cli.build_parser().parse_args(["reproduce", "table3"])
    assert tuple(arguments.candidates) == table3.CANDIDATES == (100, 1000, 5000)
    assert (arguments.queries, arguments.repeats) == (table3.QUERIES, table3.REPEATS)
    assert table3.K == 5


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="docs/ is not here: a source tree without documentation")
@pytest.mark.parametrize("figure", ["fig1", "table3"])
def test_every_option_is_in_the_table_of_its_command(figure: str) -> None:
    text = (ROOT / "docs/reference/command_line.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition(f"\n## gumbeltopk reproduce {figure}\n")[2], flags=re.MULTILINE)[0]
    reproduce = cli.build_parser()._subparsers._group_actions[0].choices["reproduce"]
    actions = reproduce._subparsers._group_actions[0].choices[figure]._actions
    options = {option for action in actions for option in action.option_strings} - {"-h", "--help"}
    assert options == set(re.findall(r"^\| `(--\w+)", section, flags=re.MULTILINE))
