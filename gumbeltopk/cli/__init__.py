"""The command line: `gumbeltopk reproduce`, `gumbeltopk sample` and `gumbeltopk merge`.

Results go to standard output, errors and the progress bar to standard error. Exit codes: 0 done; 1 the run failed
(a file or package is missing, a folder cannot be written, the output was cut off); 2 bad usage or bad data.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import gumbeltopk as gt
from gumbeltopk.cli.failures import FAILED, Failure, reason
from gumbeltopk.cli.merge import add_merge
from gumbeltopk.cli.reproduce import add_reproduce
from gumbeltopk.cli.sample import add_sample

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as exit_request:  # argparse has printed its message
        return int(exit_request.code or 0)
    if sys.stdout is None:
        return report(arguments.command, "standard output is closed", FAILED)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except Failure as failure:
        return report(arguments.command, str(failure), failure.code)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does: no news for anybody
        discard_output()
        return FAILED
    except OSError as error:
        discard_output()
        return report(arguments.command, f"cannot write the output: {reason(error)}", FAILED)
    except KeyboardInterrupt:
        return report(arguments.command, "interrupted", FAILED)
    return 0


def report(command: str, message: str, code: int) -> int:
    """Print an error; returns the exit code."""
    print(f"gumbeltopk {command}: error: {message}", file=sys.stderr)
    return code


def discard_output() -> None:
    """Let what is still buffered go nowhere; else Python would try to write it once more at shutdown, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    parser = argparse.ArgumentParser(prog="gumbeltopk", description="Exact subset sampling and relaxed top-k.")
    parser.add_argument("--version", action="version", version=f"gumbeltopk {gt.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_reproduce(commands)
    add_sample(commands)
    add_merge(commands)
    return parser
