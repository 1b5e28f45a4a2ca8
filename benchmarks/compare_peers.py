"""One table: the relaxed top-k by this library, PyTorch and JAX, in one process, taking turns, one thread each.

    python benchmarks/compare_peers.py
    python benchmarks/compare_peers.py --sizes 64x5000x50 1x1000000x100 --repeats 5 --json peers.json
    GUMBELTOPK_USE_NUMBA=1 python benchmarks/compare_peers.py

Sizes are rows x n x k; float32, t = 1. "fwd" is the value, "+vjp" the value and its gradient by the keys. Times are
medians; a ratio is the median over the rounds of (time of the peer / our time). Errors are against float64 logarithms
on the same keys: of the value the largest relative error of an item above 1e-25, of the gradient the norm of the error
over its norm.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common, contenders, reference

MISLEADING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
COLUMNS = f"{'rows x n x k':<18}{'peer':<7}" + "".join(
    f"{name:>{width}}"
    for name, width in [
        ("fwd ours", 11),
        ("peer", 11),
        ("ratio", 8),
        ("+vjp ours", 12),
        ("peer", 11),
        ("ratio", 8),
        ("err ours", 11),
        ("peer", 9),
        ("vjp ours", 11),
        ("peer", 9),
    ]
)


class Comparison(NamedTuple):
    """Milliseconds of both sides, how many times as fast we are, and the errors of both sides."""

    milliseconds: list[float]
    ratio: float
    errors: list[float]


def main():
    arguments = parse_arguments()
    for name in MISLEADING:
        if name in os.environ:
            sys.exit(f"{name} is set, and makes NumPy use the routines of some other processor: unset it first")
    machine = describe_machine()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), "", COLUMNS, sep="\n", flush=True)
    records = []
    for shape in arguments.sizes:
        task = contenders.make_task(shape)
        exact = reference.relaxed_topk_and_vjp(task.keys, task.k, common.TEMPERATURE, task.cotangent)
        for peer in arguments.peers:
            records.append(compare(shape, peer, task, exact, arguments.repeats))
            print(format_line(records[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "comparisons": records}, indent=2) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog=__doc__.partition("\n\n")[2], formatter_class=Formatter
    )
    parser.add_argument(
        "--sizes", type=size, nargs="+", default=common.SIZES, metavar="ROWSxNxK", help="default: those of asv"
    )
    parser.add_argument("--peers", nargs="+", choices=contenders.PEERS, default=contenders.PEERS)
    parser.add_argument(
        "--repeats", type=int, metavar="R", help=f"rounds (default: {common.ROUNDS}, fewer where a call takes seconds)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file, too")
    return parser.parse_args()


class Formatter(argparse.RawDescriptionHelpFormatter):
    """The text of this module keeps its lines."""


def size(text):
    """64x5000x50 -> (64, 5000, 50)."""
    parts = text.split("x")
    if (
        len(parts) != 3
        or not all(part.isdecimal() and int(part) > 0 for part in parts)
        or int(parts[2]) > int(parts[1])
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not rows x n x k, such as 64x5000x50, with k of at most n")
    return tuple(map(int, parts))


def describe_machine():
    """What the times depend on."""
    versions = {}
    for name in ("gumbeltopk", "numpy", *contenders.PEERS):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    loops = "yes" if os.environ.get("GUMBELTOPK_USE_NUMBA") == "1" else "no"
    return {"processor": processor_name(), "python": platform.python_version(), **versions, "numba's loops": loops}


def processor_name():
    """The model as Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def compare(shape, peer, task, exact, rounds) -> dict[str, Any]:
    """Both functions of both sides; a reason instead of numbers where the peer cannot do it."""
    record = {"size": list(shape), "peer": peer}
    try:
        sides = [contenders.contender(name, task) for name in ("gumbeltopk", peer)]
        record["forward"] = compare_forward(sides, exact, rounds)._asdict()
        contenders.check_tape_fits(peer, task)
        record["forward_and_vjp"] = compare_forward_and_vjp(sides, exact, rounds)._asdict()
    except NotImplementedError as error:
        record["left_out"] = str(error)
    return record


def compare_forward(sides, exact, rounds):
    errors = [common.largest_relative_error(side.forward(), exact[0]) for side in sides]
    return timed([side.forward for side in sides], errors, rounds)


def compare_forward_and_vjp(sides, exact, rounds):
    errors = [common.relative_error(side.forward_and_vjp()[1], exact[1]) for side in sides]
    return timed([side.forward_and_vjp for side in sides], errors, rounds)


def timed(functions, errors, rounds):
    seconds = common.interleaved_seconds(functions, rounds)
    medians = [common.three_digits(1e3 * statistics.median(each)) for each in zip(*seconds, strict=True)]
    ratio = common.three_digits(statistics.median(peer / ours for ours, peer in seconds))
    return Comparison(medians, ratio, errors)


def format_line(record):
    forward, both = record.get("forward"), record.get("forward_and_vjp")
    left_out = f"  {record['left_out']}" if "left_out" in record else ""
    label = f"{'x'.join(map(str, record['size'])):<18}{record['peer']:<7}"
    return (
        label
        + format_times(forward, (11, 11, 8))
        + format_times(both, (12, 11, 8))
        + format_errors(forward)
        + format_errors(both)
        + left_out
    )


def format_times(comparison, widths):
    if comparison is None:
        return "".join(f"{'-':>{width}}" for width in widths)
    cells = [*(f"{each:g} ms" for each in comparison["milliseconds"]), f"{comparison['ratio']:g}"]
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def format_errors(comparison):
    errors = ["-", "-"] if comparison is None else [f"{each:.1e}" for each in comparison["errors"]]
    return f"{errors[0]:>11}{errors[1]:>9}"


if __name__ == "__main__":
    main()
