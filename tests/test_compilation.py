"""Whether numba is taken: a setting, an environment variable, or the size of a call; with and without numba."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk import _compilation

ROOT = Path(__file__).resolve().parent.parent
LARGE, SMALL = _compilation.SMALLEST_WORK, _compilation.SMALLEST_WORK - 1


@pytest.fixture(autouse=True)
def default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable in the environment, numba can be imported, and nothing is left behind."""
    monkeypatch.delenv(_compilation.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(_compilation, "_problem", lambda: None)
    gt.use_numba(None)
    yield
    gt.use_numba(None)


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compilation, "_problem", lambda: ImportError("No module named 'numba'"))


def test_by_default_large_calls_take_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _compilation.wants_numba(LARGE)
    assert not _compilation.wants_numba(SMALL)
    without_numba(monkeypatch)
    assert not _compilation.wants_numba(LARGE)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_setting_holds_for_all_sizes(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """Also against the environment."""
    monkeypatch.setenv(_compilation.ENVIRONMENT_VARIABLE, "0" if wanted else "1")
    gt.use_numba(wanted)
    assert _compilation.wants_numba(1) is _compilation.wants_numba(LARGE) is wanted


@pytest.mark.parametrize(("text", "wanted"), [("1", True), ("0", False), (" 1 ", True)])
def test_the_environment_holds_for_all_sizes(monkeypatch: pytest.MonkeyPatch, text: str, wanted: bool) -> None:
    monkeypatch.setenv(_compilation.ENVIRONMENT_VARIABLE, text)
    assert _compilation.wants_numba(1) is _compilation.wants_numba(LARGE) is wanted


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_compilation.ENVIRONMENT_VARIABLE, "")
    assert not _compilation.wants_numba(SMALL)
    assert _compilation.wants_numba(LARGE)


def test_bad_values_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"wanted = 1 must be True, False or None"):
        gt.use_numba(1)  # type: ignore[arg-type]
    monkeypatch.setenv(_compilation.ENVIRONMENT_VARIABLE, "yes")
    with pytest.raises(ValueError, match=r"GUMBELTOPK_USE_NUMBA = 'yes' in the environment must be 0 or 1"):
        gt.relaxed_topk([1.0, 2.0], 1)


def test_missing_numba_is_told_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the setting stays what it was."""
    without_numba(monkeypatch)
    with pytest.raises(ImportError, match=r"No module named 'numba'.*pip install gumbeltopk\[numba\]"):
        gt.use_numba(True)
    assert not _compilation.wants_numba(LARGE)
    monkeypatch.setenv(_compilation.ENVIRONMENT_VARIABLE, "1")
    with pytest.raises(ImportError, match=r"pip install gumbeltopk\[numba\]"):
        gt.relaxed_topk(np.zeros(3), 1)


def test_small_calls_import_no_numba() -> None:
    code = (
        "import sys, numpy as np, gumbeltopk as gt\n"
        "value, residuals = gt.relaxed_topk.fwd(np.zeros((9, 100)), 3)\n"
        "gt.relaxed_topk.vjp(residuals, value)\n"
        "gt.use_numba(False)\n"
        "print('numba' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert shown == "False\n"
