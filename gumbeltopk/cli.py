"""The command line: `gumbeltopk reproduce` and `gumbeltopk sample`.

Results go to standard output, errors and the progress bar to standard error. Exit codes: 0 done; 1 the run failed
(a file or package is missing, a folder cannot be written, the output was cut off); 2 bad usage or bad data.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gumbeltopk as gt
from gumbeltopk._records import FORMATS, BadRecord, Records, read_records

FAILED, BAD_INPUT = 1, 2
LONGEST_INTEGER = 4000  # digits; Python refuses to read many more


class Failure(Exception):
    """A run that cannot go on: message and exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


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


def reason(error: OSError) -> str:
    """What the system said, without number and path."""
    return error.strerror or str(error)


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
    return parser


def natural_number(text: str) -> int:
    """0, 1, 2, ..."""
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_INTEGER):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more, such as 1000")
    return int(text)


def positive_integer(text: str) -> int:
    """1, 2, ..."""
    number = natural_number(text)
    if number == 0:
        raise argparse.ArgumentTypeError("0 is not enough; give 1 or more")
    return number


def positive_number(text: str) -> float:
    """A temperature."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive finite number, such as 0.5")
    return number


# --- gumbeltopk reproduce ---------------------------------------------------------------------------


def add_reproduce(commands: Any) -> None:
    """The arguments of `gumbeltopk reproduce`."""
    parser = commands.add_parser(
        "reproduce",
        help="reproduce a figure or a table of the paper",
        description="Reproduce a figure or a table of Xie & Ermon (IJCAI 2019): a table on standard output, and all "
        "numbers, with the figure's picture, in files.",
    )
    figures = parser.add_subparsers(dest="figure", required=True)
    add_figure1(figures)
    add_table3(figures)


def add_figure1(figures: Any) -> None:
    """The arguments of `gumbeltopk reproduce fig1`."""
    parser = figures.add_parser(
        "fig1",
        help="relaxed samples against the exact subset distribution",
        description="Figure 1: the top 2 of 4 items in relaxed samples, at each temperature, against the exact subset "
        "distribution.",
    )
    parser.add_argument(
        "--samples", type=positive_integer, default=1_000_000, metavar="N", help="draws (default: 1000000)"
    )
    parser.add_argument(
        "--temperatures",
        type=positive_number,
        nargs="+",
        default=[0.1, 1.0, 10.0],
        metavar="T",
        help="temperatures (default: 0.1 1 10)",
    )
    parser.add_argument(
        "--seed", type=natural_number, default=0, metavar="S", help="same seed, same figure (default: 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for figure1.png and figure1.json, which are overwritten (default: the current folder)",
    )
    parser.set_defaults(run=run_figure1)


def add_table3(figures: Any) -> None:
    """The arguments of `gumbeltopk reproduce table3`."""
    parser = figures.add_parser(
        "table3",
        help="seconds of the relaxation and of NeuralSort",
        description="Table 3: seconds of a forward pass of the relaxed top 5 of m candidates and of NeuralSort, here, "
        "next to the published ones.",
    )
    parser.add_argument(
        "--candidates",
        type=at_least_five,
        nargs="+",
        default=[100, 1000, 5000],
        metavar="M",
        help="numbers of candidates (default: 100 1000 5000)",
    )
    parser.add_argument(
        "--queries", type=positive_integer, default=100, metavar="Q", help="rows of a batch (default: 100)"
    )
    parser.add_argument(
        "--repeats", type=positive_integer, default=5, metavar="R", help="timed calls, of which the median (default: 5)"
    )
    parser.add_argument("--seed", type=natural_number, default=0, metavar="S", help="same seed, same keys (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for table3.json, which is overwritten (default: the current folder)",
    )
    parser.set_defaults(run=run_table3)


def at_least_five(text: str) -> int:
    """A number of candidates that has a top 5."""
    number = positive_integer(text)
    if number < 5:
        raise argparse.ArgumentTypeError(f"{number} candidates have no top 5; give 5 or more")
    return number


def run_figure1(arguments: argparse.Namespace) -> None:
    """Table on standard output, PNG and JSON in the folder."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        advice = 'install it with: python -m pip install "gumbeltopk[experiments]"'
        raise Failure(f"matplotlib cannot be imported ({error}); {advice}", FAILED) from None
    from gumbeltopk.experiments import figure1

    folder: Path = arguments.out
    check_writable(folder)  # before the work, not after it
    with progress_bar(arguments.samples, " draws") as bar:
        result = figure1.figure1(arguments.samples, arguments.temperatures, arguments.seed, bar.update)
    try:
        figure1.save_json(result, folder / "figure1.json")
        figure1.save_plot(result, folder / "figure1.png")
    except OSError as error:
        raise Failure(f"cannot write to --out {folder}: {reason(error)}", FAILED) from None
    print(figure1.format_table(result))
    print(f"\nwrote {folder / 'figure1.png'} and {folder / 'figure1.json'}")


def run_table3(arguments: argparse.Namespace) -> None:
    """Table on standard output, JSON in the folder."""
    from gumbeltopk.experiments import table3

    folder: Path = arguments.out
    check_writable(folder)
    with progress_bar(table3.number_of_calls(arguments.candidates, arguments.repeats), " calls") as bar:
        result = table3.table3(arguments.candidates, arguments.queries, arguments.repeats, arguments.seed, bar.update)
    try:
        table3.save_json(result, folder / "table3.json")
    except OSError as error:
        raise Failure(f"cannot write to --out {folder}: {reason(error)}", FAILED) from None
    print(table3.format_table(result))
    print(f"\nwrote {folder / 'table3.json'}")


def check_writable(folder: Path) -> None:
    """Make the folder, and a file in it that is gone at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Failure(f"cannot write to --out {folder}: {reason(error)}", FAILED) from None


class NoBar:
    """Stands in for a progress bar where there is no terminal, or no tqdm."""

    update: Callable[[int], object] = staticmethod(lambda done: None)

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *exception: object) -> None:
        return None


def progress_bar(total: int, unit: str) -> Any:
    """A bar on a terminal's standard error."""
    if not sys.stderr.isatty():
        return NoBar()
    try:
        from tqdm import tqdm
    except ImportError:
        return NoBar()
    # The size is given because tqdm draws nothing on a terminal that calls itself 0 x 0, as those of containers do.
    columns, rows = shutil.get_terminal_size()
    return tqdm(total=total, unit=unit, unit_scale=True, leave=False, ncols=columns, nrows=rows)


# --- gumbeltopk sample ------------------------------------------------------------------------------


def add_sample(commands: Any) -> None:
    """The arguments of `gumbeltopk sample`."""
    parser = commands.add_parser(
        "sample",
        help="draw rows of a file without replacement, by weight",
        description="Draw K rows without replacement, by the weights in a column, and write them, after the header, "
        "in order of selection and just as they stand in the input. Row after row is drawn with probability "
        "proportional to its weight among those that are left; a row of weight 0 is never drawn. The weights need "
        "not sum to 1. The input is UTF-8, and is read into memory as a whole.",
        epilog="example: gumbeltopk sample -k 10 -w population cities.csv > drawn.csv",
    )
    parser.add_argument("-k", type=natural_number, required=True, metavar="K", help="number of rows to draw")
    parser.add_argument(
        "-w", "--weight", required=True, metavar="COLUMN", help="column, or field of each object, of the weights"
    )
    parser.add_argument("--seed", type=natural_number, metavar="S", help="same seed, same rows (default: new ones)")
    parser.add_argument(
        "--format",
        choices=["csv", "tsv", "ndjson"],
        help="default: by the ending of FILE (.csv, .tsv, .ndjson, .jsonl), else csv",
    )
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="default, or -: standard input")
    parser.set_defaults(run=run_sample)


def run_sample(arguments: argparse.Namespace) -> None:
    """The header and K records on standard output."""
    name = "standard input" if arguments.file == "-" else arguments.file
    form = arguments.format or FORMATS.get(Path(arguments.file).suffix.lower(), "csv")
    text = read_text(arguments.file, name)
    try:
        records = read_records(text, form, arguments.weight)
    except BadRecord as error:
        raise Failure(f"{name}: {error}", BAD_INPUT) from None
    check_enough(records, arguments.k, name)
    chosen = gt.sample(weights=records.weights, k=arguments.k, rng=arguments.seed).tolist() if arguments.k else []
    write_text(records.header + "".join(records.texts[index] for index in chosen))


def check_enough(records: Records, k: int, name: str) -> None:
    """Without replacement there must be K rows that can be drawn."""
    positive = sum(weight > 0 for weight in records.weights)
    if k > positive:
        raise Failure(
            f"{name}: -k {k} is more than the rows of positive weight ({positive} of {len(records.weights)}); lower -k",
            BAD_INPUT,
        )


def read_text(path: str, name: str) -> str:
    """The whole input as UTF-8, line ends untouched."""
    try:
        if path == "-":
            if sys.stdin is None:
                raise Failure(f"{name} is closed; name a FILE, or pipe the rows in", FAILED)
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
    except OSError as error:
        raise Failure(f"{name}: {reason(error)}", FAILED) from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Failure(
            f"{name}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; convert the file, for example with "
            "iconv -f latin1 -t utf-8 (or unpack it, if it is compressed)",
            BAD_INPUT,
        ) from None


def write_text(text: str) -> None:
    """UTF-8 with the line ends of the input, whatever the terminal's locale."""
    sys.stdout.flush()
    left = memoryview(text.encode("utf-8"))
    while left:  # an unbuffered standard output (PYTHONUNBUFFERED) may take a part of a long text only
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.buffer.flush()
