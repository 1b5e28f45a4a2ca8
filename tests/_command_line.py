"""What tests of the command line share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

COMMAND = [sys.executable, "-m", "gumbeltopk"]


class Result(NamedTuple):
    """Exit code, standard output and standard error."""

    code: int
    out: bytes
    err: str


Run = Callable[..., Result]
