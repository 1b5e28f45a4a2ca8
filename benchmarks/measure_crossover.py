"""Measures where the compressed form of `relaxed_topk` overtakes the direct one, and how well `auto` chooses.

    python benchmarks/measure_crossover.py [--items 600000] [--json FILE]
    GUMBELTOPK_USE_NUMBA=1 python benchmarks/measure_crossover.py

Each line is a setting: milliseconds of the value alone and of value + VJP in both forms (medians of interleaved
repetitions, one thread), and the form that `auto` takes. The last line is the price of its choices: the geometric mean
of (time of the chosen form) / (time of the faster one). The constants of gumbeltopk/_numpy/crossover.py are fitted to
this output. It takes about ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np

import gumbeltopk as gt
from gumbeltopk import _compilation
from gumbeltopk._numpy import crossover

ROWS = (1, 16, 128, 1000)
ITEMS = (100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000)
STEPS = (2, 4, 7, 12, 25, 60, 150)
METHODS = ("direct", "compressed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=600_000, help="skip settings of more items (default: 600000)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    gt.set_num_threads(1)
    figures = []
    for dtype, temperature, rows, n, k in itertools.product(("float32", "float64"), (1.0, 0.3), ROWS, ITEMS, STEPS):
        if rows * n > arguments.items or 3 * k > n:
            continue
        times = measure(dtype, temperature, rows, n, k, arguments.repeats)
        double, compiled = dtype == "float64", _compilation.wants_numba(rows * n * k)
        chosen = METHODS[crossover.prefers_compressed(rows, n, k, 1.0 / temperature, double, compiled)]
        figures.append({"dtype": dtype, "temperature": temperature, "rows": rows, "n": n, "k": k, "chosen": chosen})
        figures[-1].update(times)
        shown = "  ".join(f"{name} {value:9.3f} {both:9.3f}" for name, (value, both) in times.items())
        print(f"{dtype} t = {temperature} {rows:5} x {n:<7} k = {k:<4} {shown}  auto: {chosen}", flush=True)
    prices = [sum(f[f["chosen"]]) / min(sum(f[method]) for method in METHODS) for f in figures]
    print(f"auto takes {math.exp(np.mean(np.log(prices))):.3f} times as long as the faster form (geometric mean)")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(dtype: str, temperature: float, rows: int, n: int, k: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of the value, and of value + VJP, by each method."""
    rng = np.random.default_rng(0)
    keys, cotangent = rng.gumbel(size=(2, rows, n)).astype(dtype)
    times: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    for _ in range(repeats):
        for method in METHODS:
            start = time.perf_counter()
            gt.relaxed_topk(keys, k, temperature=temperature, method=method)
            middle = time.perf_counter()
            _, residuals = gt.relaxed_topk.fwd(keys, k, temperature=temperature, method=method)
            gt.relaxed_topk.vjp(residuals, cotangent)
            times[method].append((1e3 * (middle - start), 1e3 * (time.perf_counter() - middle)))
    return {method: tuple(np.median(own, axis=0).tolist()) for method, own in times.items()}


if __name__ == "__main__":
    main()
