"""`gumbeltopk sample`: records of files or of a stream, drawn without replacement."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from typing import Any

import numpy as np

import gumbeltopk as gt
from gumbeltopk._records import BadRecord, Batch, Pieces, Position, Reader, make_reader
from gumbeltopk._records.parquet import MissingPackage
from gumbeltopk.cli import state
from gumbeltopk.cli.arguments import item_number, natural_number, positive_integer
from gumbeltopk.cli.failures import BAD_INPUT, FAILED, Failure, reason
from gumbeltopk.cli.inclusion import check_available, inclusion_of
from gumbeltopk.cli.inputs import STANDARD_INPUT, Input, Place, Source, common_format
from gumbeltopk.cli.output import Columns, write_sample
from gumbeltopk.cli.progress import progress_bar
from gumbeltopk.cli.state import Description

__all__ = ["add_output", "add_sample", "check_enough", "keys_of"]

SEED_BITS = 128
RECORDS_BETWEEN_STATES = 1_000_000


def add_sample(commands: Any) -> None:
    """The arguments of `gumbeltopk sample`."""
    parser = commands.add_parser(
        "sample",
        help="draw records of files or of a stream without replacement, by weight",
        description="Draw K records without replacement, by the weights in a column, and write them, after the header, "
        "in order of selection and just as they stand in the input. Record after record is drawn with probability "
        "proportional to its weight among those that are left; a record of weight 0 is never drawn. The weights need "
        "not sum to 1. The input is UTF-8. It is read once, in pieces, and only K records are kept.",
        epilog="example: gumbeltopk sample -k 10 -w population cities.csv > drawn.csv",
    )
    parser.add_argument("-k", type=natural_number, required=True, metavar="K", help="number of records to draw")
    parser.add_argument(
        "-w", "--weight", required=True, metavar="COLUMN", help="column, or field of each object, of the weights"
    )
    parser.add_argument(
        "--format",
        choices=["csv", "tsv", "ndjson", "parquet"],
        help="default: by the ending of FILE (.csv, .tsv, .ndjson, .jsonl, .parquet), else csv",
    )
    parser.add_argument("--seed", type=natural_number, metavar="S", help="same seed, same records (default: new ones)")
    parser.add_argument(
        "--start", type=item_number, default=0, metavar="N", help="number of the first record (default: 0)"
    )
    parser.add_argument(
        "--on-bad", choices=["raise", "skip"], default="raise", help="what to do about bad records (default: raise)"
    )
    parser.add_argument("--state", metavar="FILE", help="keep the run there, and go on with it if it is there")
    parser.add_argument(
        "--every", type=positive_integer, metavar="N", help="records between two writings of --state (default: 1000000)"
    )
    add_output(parser)
    parser.add_argument(
        "--inclusion", action="store_true", help="add the column inclusion_probability; takes 8 bytes a record and more"
    )
    parser.add_argument("file", nargs="*", default=[], metavar="FILE", help="default, or -: standard input")
    parser.set_defaults(run=run_sample)


def add_output(parser: argparse.ArgumentParser) -> None:
    """What is written, and where."""
    parser.add_argument("--with-key", action="store_true", help="add the column gumbel_key: the largest are drawn")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="write there (Parquet, if the input is) and not to standard output"
    )


def run_sample(arguments: argparse.Namespace) -> None:
    """The header and K records."""
    inputs = [Input(path) for path in arguments.file or [STANDARD_INPUT]]
    form = common_format(arguments.file, arguments.format) if arguments.file else arguments.format or "csv"
    check_usage(arguments, form)
    try:
        run = Run(arguments, form, inputs)
        run.read_all()
        run.write()
    except MissingPackage as error:
        raise Failure(str(error), FAILED) from None


def check_usage(arguments: argparse.Namespace, form: str) -> None:
    """Options that do not go together."""
    if arguments.file.count(STANDARD_INPUT) > 1:
        raise Failure("standard input (-) is there more than once among the files", BAD_INPUT)
    if form == "parquet" and (STANDARD_INPUT in arguments.file or not arguments.file):
        raise Failure("Parquet cannot be read from standard input; give a file", BAD_INPUT)
    if arguments.every and not arguments.state:
        raise Failure("--every says how often --state is written; give --state FILE, too", BAD_INPUT)
    if arguments.state and arguments.inclusion:
        raise Failure("--inclusion needs the weights of all records, and --state does not keep them", BAD_INPUT)
    if arguments.state and arguments.k == 0:
        raise Failure("--state needs -k 1 or more", BAD_INPUT)
    if arguments.inclusion:
        check_available()


class Run:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace, form: str, inputs: list[Input]) -> None:
        self.arguments = arguments
        self.inputs = inputs
        self.names = ", ".join(each.name for each in inputs) if len(inputs) < 4 else f"{len(inputs)} inputs"
        self.count = 0
        self.weights: list[np.ndarray[Any, Any]] = []  # of all records, for inclusion probabilities only
        self.description = Description(form, arguments.weight)
        self.reservoir: gt.Reservoir | None = None
        self.next_state = self.records_between_states = arguments.every or RECORDS_BETWEEN_STATES
        if arguments.k:
            # Counters make the sample a function of the seed and the records: not of pieces, interruptions, merges.
            seed = secrets.randbits(SEED_BITS) if arguments.seed is None else arguments.seed
            self.reservoir = gt.Reservoir(arguments.k, rng=gt.CounterRNG(seed))
        if arguments.state:
            self.take_up_state(arguments.state)

    def take_up_state(self, path: str) -> None:
        """Go on with the run in the file, if there is one."""
        arguments = self.arguments
        self.description.settings = {
            "k": arguments.k,
            "column": arguments.weight,
            "format": self.description.form,
            "seed": arguments.seed,
            "start": arguments.start,
            "on_bad": arguments.on_bad,
        }
        self.description.inputs = [each.identity() for each in self.inputs]
        if os.path.exists(path):
            self.reservoir, before = state.load(path)
            state.check_same_run(path, before, self.description)
            self.description = before
            self.count = self.reservoir.count
            self.next_state = self.count + self.records_between_states

    # --- reading ----------------------------------------------------------------------------------

    def read_all(self) -> None:
        """All records that are left."""
        description = self.description
        if description.is_finished:
            return
        sizes = [each.size() for each in self.inputs]
        is_known = None not in sizes and description.form != "parquet"
        total = sum(size or 0 for size in sizes) if is_known else None
        with progress_bar(total, " rows" if description.form == "parquet" else "B") as bar:
            bar.update(sum(size or 0 for size in sizes[: description.input]))
            for number in range(description.input, len(self.inputs)):
                self.read_input(number, bar)
        description.place = description.position = []
        description.is_finished = True
        if self.arguments.state:
            self.write_state()

    def read_input(self, number: int, bar: Any) -> None:
        """The records of one input."""
        origin = self.inputs[number]
        try:
            if self.description.form == "parquet":
                self.take_all(number, make_reader(origin.path, "parquet", self.arguments.weight, skip=self.skips), bar)
                return
            with origin.opened(hashed=bool(self.arguments.state)) as source:
                is_begun = number == self.description.input and self.description.place
                pieces = source.pieces_from(Place(*self.description.place)) if is_begun else Pieces(source)
                reader = make_reader(pieces, self.description.form, self.arguments.weight, skip=self.skips)
                self.take_all(number, reader, bar, source, pieces)
        except BadRecord as error:
            raise Failure(f"{origin.name}: {error}", BAD_INPUT) from None
        except OSError as error:
            raise Failure(f"{origin.name}: {reason(error)}", FAILED) from None

    @property
    def skips(self) -> bool:
        """Whether bad records are skipped."""
        return bool(self.arguments.on_bad == "skip")

    def take_all(
        self, number: int, reader: Reader, bar: Any, source: Source | None = None, pieces: Pieces | None = None
    ) -> None:
        """All batches of one input, with its state written now and then."""
        description = self.description
        if number == description.input and description.position:
            reader.resume(Position(*description.position), description.header, description.names)
            bar.update(description.position[0])
        else:
            reader.begin()
            self.check_columns(number, reader)
        description.input = number
        offset = reader.position().offset
        for batch in reader.batches():
            self.take(batch, self.inputs[number].name)
            bar.update(reader.position().offset - offset)
            offset = reader.position().offset
            if self.arguments.state and self.count >= self.next_state:
                description.place = list(source.place(pieces)) if source is not None and pieces is not None else []
                description.position = list(reader.position())
                self.write_state()
        description.place = description.position = []

    def check_columns(self, number: int, reader: Reader) -> None:
        """All inputs have the columns of the first, whose header is written."""
        if number == 0:
            self.description.header, self.description.names = reader.header, reader.names
        elif reader.names != self.description.names:
            raise Failure(
                f"{self.inputs[number].name}: its columns are {reader.names}, but those of {self.inputs[0].name} are "
                f"{self.description.names}; the inputs must agree",
                BAD_INPUT,
            )

    def take(self, batch: Batch, name: str) -> None:
        """One batch."""
        if self.reservoir is not None:
            try:
                self.reservoir.update(batch.weights, batch.records, start=self.arguments.start + self.count)
            except ValueError as error:
                raise Failure(f"{name}: {error} (--start)", BAD_INPUT) from None
        self.count += len(batch.weights)
        if self.arguments.inclusion:
            self.weights.append(batch.weights)
        if batch.skipped and not self.description.skipped:
            self.description.complaint = f"{name}: {batch.complaint}"
        self.description.skipped += batch.skipped

    def write_state(self) -> None:
        """Where the run stands."""
        if self.reservoir is not None:
            state.save(self.arguments.state, self.reservoir, self.description)
        self.next_state = self.count + self.records_between_states

    # --- writing ----------------------------------------------------------------------------------

    def write(self) -> None:
        """The sample."""
        description, reservoir = self.description, self.reservoir
        if description.skipped:
            skipped = f"{description.skipped} bad record{'s' if description.skipped > 1 else ''}"
            print(f"gumbeltopk sample: skipped {skipped}, the first: {description.complaint}", file=sys.stderr)
        check_enough(reservoir, self.arguments.k, self.count, self.names)
        added: Columns = {}
        if self.arguments.with_key:
            added |= keys_of(reservoir)
        if self.arguments.inclusion:
            added["inclusion_probability"] = self.inclusion_probabilities()
        records = [] if reservoir is None else list(reservoir.sample())
        write_sample(description, records, added, self.arguments.output)

    def inclusion_probabilities(self) -> list[float]:
        """Of the chosen records."""
        if self.reservoir is None:
            return []
        return inclusion_of(
            np.concatenate(self.weights), self.arguments.k, self.reservoir.numbers - self.arguments.start
        )


def keys_of(reservoir: gt.Reservoir | None) -> Columns:
    """Gumbel keys log w + G = -log T of the chosen records, which are in descending order."""
    return {"gumbel_key": [] if reservoir is None else (-reservoir.log_arrival_times).tolist()}


def check_enough(reservoir: gt.Reservoir | None, k: int, count: int, name: str) -> None:
    """Without replacement there must be K records that can be drawn; if there are fewer, all of them are kept."""
    positive = 0 if reservoir is None else len(reservoir)
    if k > positive:
        raise Failure(
            f"{name}: -k {k} is more than the rows of positive weight ({positive} of {count}); lower -k", BAD_INPUT
        )
