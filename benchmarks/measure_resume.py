"""Kills `gumbeltopk sample --state` with SIGKILL at random times, and compares what the resumed run writes.

    python benchmarks/measure_resume.py [--lines 5000000] [--kills 20] [--seed 0]

For a file and for standard input: one run without a stop; then runs that are killed at random times, each going on
where the one before was killed; then one to the end. Its output must be that of the first, byte for byte. The times are
random: Python's start and a share of the time that one run takes, so that the kills spread over the whole of it. A run
that had come to its end before is counted, and the state begun anew.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COMMAND = [sys.executable, "-m", "gumbeltopk", "sample", "-k", "100", "-w", "w", "--seed", "7", "--with-key"]
RECORDS_BETWEEN_STATES = "100000"
LINES_AT_A_TIME = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=5_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--input", choices=["file", "standard-input"], help="default: both, one after the other")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table.csv")
        write_table(table, arguments.lines, rng)
        inputs = [arguments.input] if arguments.input else ["file", "standard-input"]
        is_right = [check(table, Path(folder, "state"), arguments.kills, name, rng) for name in inputs]
    raise SystemExit(0 if all(is_right) else 1)


def write_table(path: Path, count: int, rng: np.random.Generator) -> None:
    """One line in a thousand has a quoted field with a line end."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("name,w\n")
        for first in range(0, count, LINES_AT_A_TIME):
            for number, weight in enumerate(rng.gamma(1.0, size=min(LINES_AT_A_TIME, count - first)).tolist(), first):
                name = f'"item\n{number}"' if number % 1000 == 0 else f"item {number}"
                file.write(f"{name},{weight:.9g}\n")


def check(table: Path, state: Path, kills: int, input_name: str, rng: np.random.Generator) -> bool:
    """Whether the output is the same; prints what happened."""
    is_stream = input_name == "standard-input"
    plain = COMMAND if is_stream else [*COMMAND, str(table)]
    with_state = [*plain, "--state", str(state), "--every", RECORDS_BETWEEN_STATES]
    start = timed(lambda: run([sys.executable, "-c", "import gumbeltopk.cli"], table))[0]
    seconds, whole = timed(lambda: run(plain, table))
    killed = finished = 0
    positions = []
    while killed < kills:
        share = rng.uniform(0, 1) if is_stream else rng.uniform(0, 2) / kills  # a stream begins at its beginning again
        lifetime = start + share * max(0.0, seconds - start)
        if is_killed(with_state, table, lifetime):
            killed += 1
            positions.append(records_in(state))
        else:
            finished += 1
            state.unlink()
    resumed = run(with_state, table)
    state.unlink()
    print(f"{input_name}: one run takes {seconds:.2f} s; {killed} kills, {finished} runs ended before")
    print(f"  records in the state after each kill: {positions}")
    print(f"  the resumed output is {'the same' if resumed == whole else 'ANOTHER'}: {len(whole)} bytes", flush=True)
    return resumed == whole


def is_killed(command: list[str], table: Path, lifetime: float) -> bool:
    """Run the command for so many seconds; False, if it had ended before."""
    with open(table, "rb") as source:
        process = subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE)
        try:
            process.communicate(timeout=lifetime)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    return process.returncode == -signal.SIGKILL


def records_in(state: Path) -> int:
    """How far the state is."""
    import gumbeltopk as gt

    return gt.Reservoir.load(state).count if state.exists() else 0


def run(command: list[str], table: Path) -> bytes:
    """The output of a command that is left in peace."""
    with open(table, "rb") as source:
        return subprocess.run(command, stdin=source, stdout=subprocess.PIPE, check=True).stdout


def timed(call) -> tuple[float, bytes]:
    """Seconds and result."""
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


if __name__ == "__main__":
    main()
