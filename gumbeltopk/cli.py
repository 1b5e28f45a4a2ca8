"""The command line: `gumbeltopk reproduce` and `gumbeltopk sample`.

Exit codes: 0 done; 1 the run failed (a missing file or package); 2 bad usage or bad data.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gumbeltopk as gt
from gumbeltopk.records import FORMATS, BadRecord, read_records


class Failure(Exception):
    """A run that cannot go on: message and exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as exit_request:  # argparse has printed its message
        return int(exit_request.code or 0)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except Failure as failure:
        print(f"gumbeltopk {arguments.command}: error: {failure}", file=sys.stderr)
        return failure.code
    except BrokenPipeError:
        # The reader of our output has gone (as `head` does); nothing is left to say, not even at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    parser = argparse.ArgumentParser(prog="gumbeltopk", description="Exact subset sampling and relaxed top-k.")
    parser.add_argument("--version", action="version", version=f"gumbeltopk {gt.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    reproduce = commands.add_parser("reproduce", help="reproduce a figure of the paper")
    reproduce.add_argument("figure", choices=["fig1"], help="fig1: relaxed samples against the exact distribution")
    reproduce.add_argument("--samples", type=positive_integer, default=1_000_000, help="draws (default: 1000000)")
    reproduce.add_argument(
        "--temperatures",
        type=positive_number,
        nargs="+",
        default=[0.1, 1.0, 10.0],
        metavar="T",
        help="temperatures (default: 0.1 1 10)",
    )
    reproduce.add_argument("--seed", type=natural_number, default=0, help="same seed, same figure (default: 0)")
    reproduce.add_argument("--out", type=Path, default=Path(), help="folder for figure1.png and figure1.json")
    reproduce.set_defaults(run=run_reproduce)

    sample = commands.add_parser(
        "sample",
        help="draw rows of a file without replacement, by weight",
        description="Draw K rows without replacement, with probabilities by the numbers in a column, and write them "
        "in order of selection. A row of weight 0 is never drawn. The whole input is read into memory.",
    )
    sample.add_argument("-k", type=natural_number, required=True, help="number of rows")
    sample.add_argument("-w", "--weight", required=True, metavar="COLUMN", help="column of the weights")
    sample.add_argument("--seed", type=natural_number, default=None, help="same seed, same rows")
    sample.add_argument(
        "--format", choices=["csv", "tsv", "ndjson"], help="default: by the file's name, csv for standard input"
    )
    sample.add_argument("file", nargs="?", default="-", metavar="FILE", help="default: standard input")
    sample.set_defaults(run=run_sample)
    return parser


def natural_number(text: str) -> int:
    """0, 1, 2, ..."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def positive_integer(text: str) -> int:
    """1, 2, ..."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def positive_number(text: str) -> float:
    """A temperature."""
    number = float(text)
    if not 0.0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not positive and finite")
    return number


# --- gumbeltopk reproduce ---------------------------------------------------------------------------


def run_reproduce(arguments: argparse.Namespace) -> None:
    """Table on standard output, PNG and JSON in the folder."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise Failure('matplotlib is missing; install it with: pip install "gumbeltopk[experiments]"', 1) from None
    from gumbeltopk.experiments import figure1

    with progress_bar(arguments.samples) as bar:
        result = figure1.figure1(arguments.samples, arguments.temperatures, arguments.seed, bar.update)
    print(figure1.format_table(result))
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        figure1.save_plot(result, arguments.out / "figure1.png")
        figure1.save_json(result, arguments.out / "figure1.json")
    except OSError as error:
        raise Failure(f"cannot write to --out {arguments.out}: {error.strerror}", 1) from None
    print(f"wrote {arguments.out / 'figure1.png'} and {arguments.out / 'figure1.json'}")


class NoBar:
    """Stands in for a progress bar where there is no terminal, or no tqdm."""

    update: Callable[[int], object] = staticmethod(lambda draws: None)

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *exception: object) -> None:
        return None


def progress_bar(total: int) -> Any:
    """A bar on a terminal's standard error."""
    if not sys.stderr.isatty():
        return NoBar()
    try:
        from tqdm import tqdm
    except ImportError:
        return NoBar()
    return tqdm(total=total, unit="draw", unit_scale=True, leave=False)


# --- gumbeltopk sample ------------------------------------------------------------------------------


def run_sample(arguments: argparse.Namespace) -> None:
    """The header and K records on standard output."""
    name = "standard input" if arguments.file == "-" else arguments.file
    form = arguments.format or FORMATS.get(Path(arguments.file).suffix.lower(), "csv")
    text = read_text(arguments.file, name)
    try:
        records = read_records(text, form, arguments.weight)
    except BadRecord as error:
        raise Failure(f"{name}: {error}", 2) from None
    positive = sum(weight > 0 for weight in records.weights)
    if arguments.k > positive:
        raise Failure(f"{name}: -k {arguments.k} is more than the {positive} rows of positive weight", 2)
    chosen = gt.sample(weights=records.weights, k=arguments.k, rng=arguments.seed).tolist() if arguments.k else []
    write_text(records.header + "".join(with_newline(records.texts[index]) for index in chosen))


def read_text(path: str, name: str) -> str:
    """The whole input as UTF-8, line ends untouched."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}", 1) from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Failure(f"{name}: line {line} is not UTF-8; convert the file", 2) from None


def with_newline(record: str) -> str:
    """The last record of a file may lack its line end."""
    return record if record.endswith(("\n", "\r")) else record + "\n"


def write_text(text: str) -> None:
    """UTF-8 with the line ends of the input, whatever the terminal's locale."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()
