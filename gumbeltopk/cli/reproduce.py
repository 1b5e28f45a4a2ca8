"""`gumbeltopk reproduce`: a figure or a table of the paper."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from gumbeltopk.cli.arguments import natural_number, positive_integer, positive_number
from gumbeltopk.cli.failures import FAILED, Failure, reason
from gumbeltopk.cli.progress import progress_bar

__all__ = ["add_reproduce"]


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
