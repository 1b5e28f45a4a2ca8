"""Measures `gumbeltopk sample` from standard input: lines a second and the most memory held.

    python benchmarks/measure_command_line.py [--lines 5000000] [--json FILE]

The lines come through a pipe from another process (`cat`), as they would from a decompressor. Each kind of input is run
three times, of which the fastest counts; the time is that of the whole command, Python's start included, by the clock
and on the processor (which other work on the machine changes less). The bar is 1.2 million lines of CSV a second, in
64 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

REPEATS = 3
LINES_AT_A_TIME = 100_000


def plain(number: int, weight: float) -> str:
    return f"item{number},{weight:.6f},abcdef\n"


def all_digits(number: int, weight: float) -> str:
    return f"item{number},{weight!r},abcdef\n"


def quoted(number: int, weight: float) -> str:
    return f'"item, {number}",{weight:.6f},abcdef\n'


def objects(number: int, weight: float) -> str:
    return f'{{"name": "item{number}", "w": {weight:.6f}}}\n'


# name: (lines, a line, header, options)
KINDS: dict[str, tuple[float, Callable[[int, float], str], str, list[str]]] = {
    "csv": (1.0, plain, "name,w,note\n", []),
    "csv, weights of 17 digits": (1.0, all_digits, "name,w,note\n", []),
    "csv, k = 10000": (1.0, plain, "name,w,note\n", ["-k", "10000"]),
    "csv, state every million": (1.0, plain, "name,w,note\n", ["--state", "STATE"]),
    "csv, a quoted field in each line": (1.0, quoted, "name,w,note\n", []),
    "ndjson": (0.2, objects, "", ["--format", "ndjson"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=5_000_000, help="of CSV without quotes (default: 5000000)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = {}
    for kind, (share, line, header, options) in KINDS.items():
        count = int(arguments.lines * share)
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder, "table")
            write_table(table, count, line, header)
            runs = [measure(table, options, Path(folder, f"state{i}")) for i in range(REPEATS)]
            seconds, processor_seconds = (min(run[i] for run in runs) for i in range(2))
            megabytes = max(run[2] for run in runs)
            width = table.stat().st_size / count
        figures[kind] = {
            "lines": count,
            "bytes_a_line": width,
            "seconds": seconds,
            "processor_seconds": processor_seconds,
            "megabytes": megabytes,
        }
        by_clock, on_processor = count / seconds / 1e6, count / processor_seconds / 1e6
        print(
            f"{kind:34} {count:8} lines of {width:4.1f} bytes: {by_clock:6.3f} M lines/s by the clock, "
            f"{on_processor:6.3f} on the processor, {megabytes:5.1f} MB",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def write_table(path: Path, count: int, line: Callable[[int, float], str], header: str) -> None:
    """Weights from a gamma distribution."""
    rng = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write(header)
        for first in range(0, count, LINES_AT_A_TIME):
            weights = rng.gamma(1.0, size=min(LINES_AT_A_TIME, count - first)).tolist()
            file.write("".join(line(first + i, weight) for i, weight in enumerate(weights)))


def measure(table: Path, options: list[str], state: Path) -> tuple[float, float, float]:
    """Seconds of one run by the clock and on the processor, and the most megabytes that its process held."""
    command = [sys.executable, "-m", "gumbeltopk", "sample", "-k", "10", "-w", "w", "--seed", "0"]
    command += [str(state) if option == "STATE" else option for option in options]
    begun = time.perf_counter()
    source = subprocess.Popen(["cat", str(table)], stdout=subprocess.PIPE)
    process = subprocess.Popen(command, stdin=source.stdout, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    source.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} has ended with code {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
