"""Fixtures that several test modules share."""

from __future__ import annotations

import io
import sys

import pytest

from gumbeltopk.cli import main
from tests._command_line import Result, Run


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs one command in this process, with some bytes on standard input."""

    def call(*arguments: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(arguments)
        out, err = capsysbinary.readouterr()
        return Result(code, out, err.decode())

    return call
