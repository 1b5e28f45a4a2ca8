"""One table: sampling without replacement by this library, NumPy and PyTorch, in one process, taking turns.

    python benchmarks/compare_sampling.py
    python benchmarks/compare_sampling.py --only "n = 1e7, k = 10" --repeats 5 --json sampling.json

Times are medians over the repetitions; a ratio is the median of (time of the peer / our time), one after the other in
each repetition. All checks of values are included on our side; one thread each. The peer "pass" is one
`np.add.reduce` over the same float32 weights.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common  # before NumPy: it sets one thread

import numpy as np  # isort: skip

import gumbeltopk as gt

MISLEADING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class Task(NamedTuple):
    """What is compared, and the bar: how many times as fast as the peer we are to be."""

    name: str
    peer: str
    bar: float
    ours: Any
    theirs: Any


def main():
    arguments = parse_arguments()
    for name in MISLEADING:
        if name in os.environ:
            sys.exit(f"{name} is set, and makes NumPy use the routines of some other processor: unset it first")
    print(f"{'task':<34}{'peer':<20}{'ours':>12}{'peer':>12}{'ratio':>9}{'bar':>8}")
    records = []
    for task in tasks():
        if arguments.only is not None and arguments.only not in task.name:
            continue
        seconds = common.interleaved_seconds([task.ours, task.theirs], arguments.repeats)
        ours, theirs = (1e3 * statistics.median(each) for each in zip(*seconds, strict=True))
        ratio = statistics.median(peer / our for our, peer in seconds)
        verdict = "" if ratio >= task.bar else "  missed"
        times = f"{ours:>9.3g} ms{theirs:>9.3g} ms"
        print(f"{task.name:<34}{task.peer:<20}{times}{ratio:>9.3g}{task.bar:>8.3g}{verdict}", flush=True)
        records.append({"task": task.name, "peer": task.peer, "ours": ours, "theirs": theirs, "ratio": ratio})
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="tasks whose name contains this")
    parser.add_argument("--repeats", type=int, default=None, help="rounds of each task (default: by time)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def tasks():
    """All comparisons, made one by one, so that only one long array is alive."""
    yield from long_rows()
    yield from short_rows()
    yield from many_draws()
    yield from ragged_rows()


def choice(n, k, probabilities):
    rng = common.generator()
    return lambda: rng.choice(n, k, replace=False, p=probabilities)


def normalised(weights):
    wide = weights.astype(np.float64)
    return wide / wide.sum(axis=-1, keepdims=True)


def multinomial(weights, k):
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    tensor = torch.from_numpy(weights)
    return lambda: torch.multinomial(tensor, k)


def long_rows():
    n = 10_000_000
    weights = common.random_weights(1, n)[0].astype(np.float32)
    probabilities, rng = normalised(weights), common.generator()

    def sample(k):
        return lambda: gt.sample(weights=weights, k=k, rng=rng)

    for k, bar in ((1, 15), (10, 15), (1000, 12), (n // 2, 10)):
        name = f"n = 1e7, k = {k}" if k < n // 2 else "n = 1e7, k = n/2"
        if k <= 10:
            yield Task(name, "pass", 1 / 1.3, sample(k), lambda: np.add.reduce(weights))
        yield Task(name, "numpy choice", bar, sample(k), choice(n, k, probabilities))
        if k == n // 2 and (peer := multinomial(weights, k)):
            yield Task(name, "torch multinomial", 1, sample(k), peer)


def short_rows():
    rng = common.generator()
    row = common.random_weights(1, 1000)[0]
    yield Task(
        "n = 1000, k = 10", "numpy choice", 2.5, lambda: gt.sample(weights=row, k=10, rng=rng),
        choice(1000, 10, normalised(row)),
    )  # fmt: skip
    rows = common.random_weights(4096, 100)
    probabilities = normalised(rows)

    def loop():
        return [rng.choice(100, 10, replace=False, p=each) for each in probabilities]

    yield Task("4096 x 100, k = 10", "numpy choice loop", 15, lambda: gt.sample(weights=rows, k=10, rng=rng), loop)
    narrow = common.random_weights(1000, 100).astype(np.float32)
    if peer := multinomial(narrow, 9):
        yield Task("1000 x 100, k = 9", "torch multinomial", 2.5, lambda: gt.sample(weights=narrow, k=9, rng=rng), peer)


def many_draws():
    n, rng = 100_000, common.generator()
    weights = common.random_weights(1, n)[0]
    probabilities, sampler = normalised(weights), gt.Sampler(weights=weights)

    def loop():
        return [rng.choice(n, 10, replace=False, p=probabilities) for _ in range(1000)]

    yield Task("1000 draws, n = 1e5, k = 10", "numpy choice loop", 100, lambda: sampler.sample(10, 1000, rng=rng), loop)


def ragged_rows():
    rng = common.generator()
    lengths = rng.integers(4, 17, size=100_000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    weights = common.random_weights(1, offsets[-1])[0]
    parts = [each / each.sum() for each in np.split(weights, offsets[1:-1])]

    def loop():
        return [rng.choice(len(each), 3, replace=False, p=each) for each in parts]

    yield Task(
        "1e5 ragged rows of ~10, k = 3", "numpy choice loop", 15,
        lambda: gt.sample_ragged(weights=weights, offsets=offsets, k=3, rng=rng), loop,
    )  # fmt: skip


if __name__ == "__main__":
    main()
