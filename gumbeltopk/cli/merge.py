"""`gumbeltopk merge`: the sample of several parts of an input."""

from __future__ import annotations

import argparse
from typing import Any

import gumbeltopk as gt
from gumbeltopk.cli import state
from gumbeltopk.cli.failures import BAD_INPUT, Failure
from gumbeltopk.cli.output import write_sample
from gumbeltopk.cli.sample import add_output, check_enough, keys_of
from gumbeltopk.cli.state import Description

__all__ = ["add_merge"]


def add_merge(commands: Any) -> None:
    """The arguments of `gumbeltopk merge`."""
    parser = commands.add_parser(
        "merge",
        help="the sample of several parts from the states of each",
        description="Merge samples of several parts of an input, drawn by `gumbeltopk sample --state`, into that of "
        "the whole. It is exact. The parts were drawn with the same -k, and with different seeds (or none), or with "
        "the same --seed and numbers of records that differ (--start).",
        epilog="example: gumbeltopk merge monday.state tuesday.state > drawn.csv",
    )
    parser.add_argument("states", nargs="+", metavar="STATE", help="file that `gumbeltopk sample --state` has written")
    parser.add_argument("--state", metavar="OUT", help="write the merged state there, and no records")
    add_output(parser)
    parser.set_defaults(run=run_merge)


def run_merge(arguments: argparse.Namespace) -> None:
    """The header and K records on standard output, or the state in a file."""
    first, *others = arguments.states
    reservoir, description = _load_finished(first)
    merged = Description(
        description.form,
        description.column,
        header=description.header,
        names=description.names,
        skipped=description.skipped,
        complaint=description.complaint,
        is_finished=True,
    )
    for path in others:
        other, other_description = _load_finished(path)
        _check_alike(first, merged, path, other_description)
        try:
            reservoir.merge(other)
        except ValueError as error:
            raise Failure(f"{path}: {error} (--start of gumbeltopk sample)", BAD_INPUT) from None
        merged.skipped += other_description.skipped
    if arguments.state:
        state.save(arguments.state, reservoir, merged)
        return
    check_enough(reservoir, reservoir.k, reservoir.count, ", ".join(arguments.states))
    write_sample(merged, list(reservoir.sample()), keys_of(reservoir) if arguments.with_key else {}, arguments.output)


def _load_finished(path: str) -> tuple[gt.Reservoir, Description]:
    reservoir, description = state.load(path)
    if not description.is_finished:
        raise Failure(
            f"{path}: its run was interrupted after {reservoir.count} records; run it again, to its end", BAD_INPUT
        )
    return reservoir, description


def _check_alike(first: str, description: Description, path: str, other: Description) -> None:
    for what, one, another in (
        ("format", description.form, other.form),
        ("column of weights", description.column, other.column),
        ("columns", description.names, other.names),
    ):
        if one != another:
            raise Failure(f"{path}: its {what} is {another!r}, but that of {first} is {one!r}", BAD_INPUT)
