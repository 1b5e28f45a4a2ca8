"""Time and memory of `gumbeltopk.dask` on a local cluster of processes, and that chunks and workers change nothing.

    python benchmarks/measure_dask.py                       # 1e8 items, 3 chunkings x {1, 2} workers, a few minutes
    python benchmarks/measure_dask.py --items 1000000

The weights are never there as a whole: each chunk is made when it is needed, by a function of the items' numbers. The
memory is the largest resident set that a worker's process ever had, the interpreter, NumPy and Dask included.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import gumbeltopk as gt
import gumbeltopk.dask

PIECE = 1 << 16


def make_weights(block_info: Any = None) -> Any:
    """Log-normal-like weights of the items of one chunk, piece by piece."""
    (first, last) = block_info[None]["array-location"][0]
    weights = np.empty(last - first)
    for start in range(first, last, PIECE):
        stop = min(start + PIECE, last)
        draws = gt.CounterRNG(2026).standard_exponential(start, stop - start)
        weights[start - first : stop - first] = draws**3
    return weights


def lazy_weights(items: int, chunk: int) -> Any:
    """A dask array of weights, the same for all chunks."""
    chunks = da.core.normalize_chunks(chunk, (items,), dtype=np.float64)
    return da.map_blocks(make_weights, chunks=chunks, dtype=np.float64, meta=np.empty(0))


def peak_megabytes() -> float:
    """Of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def import_all() -> None:
    """So that the memory before the work has it."""
    import gumbeltopk.dask  # noqa: F401


def measure(workers: int, compute: Any) -> tuple[Any, float, float, float]:
    """Result, seconds, and the largest memory of a worker before and after, on new processes."""
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(import_all)
        before = max(client.run(peak_megabytes).values())
        started = time.perf_counter()
        result = compute()
        seconds = time.perf_counter() - started
        return result, seconds, before, max(client.run(peak_megabytes).values())


def measure_sample(items: int, k: int) -> None:
    """Indices for all chunkings and numbers of workers."""
    found = set()
    print(f"sample, n = {items}, k = {k}")
    for chunk in (items // 100, items // 40, items // 27 + 1):
        for workers in (1, 2):
            weights = lazy_weights(items, chunk)
            indices, seconds, before, after = measure(
                workers, gumbeltopk.dask.sample(weights=weights, k=k, rng=1).compute
            )
            found.add(tuple(indices.tolist()))
            print(
                f"  chunks of {chunk:>8}, {workers} workers: {seconds:6.1f} s, "
                f"{after:4.0f} MB a worker ({before:.0f} MB before), first {indices[:3].tolist()}",
                flush=True,
            )
    print(f"  {len(found)} different results")


def measure_relaxed_topk(items: int, k: int, workers: int) -> None:
    """Value and VJP, summed up so that they need not be gathered."""
    keys = da.log(lazy_weights(items, items // 100))

    def compute() -> Any:
        relaxed, residuals = gumbeltopk.dask.relaxed_topk.fwd(keys, k, temperature=0.5)
        gradient = gumbeltopk.dask.relaxed_topk.vjp(residuals, da.sin(keys))
        return dask.compute(relaxed.sum(), gradient.sum())

    (total, gradient), seconds, before, after = measure(workers, compute)
    print(
        f"relaxed_topk with VJP, n = {items}, k = {k}, {workers} workers: {seconds:.1f} s, {after:.0f} MB a worker "
        f"({before:.0f} MB before); sum of the value - k = {total - k:.1e}, of the gradient {gradient:.1e}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=100_000_000)
    parser.add_argument("--k", type=int, default=100)
    arguments = parser.parse_args()
    measure_sample(arguments.items, arguments.k)
    measure_relaxed_topk(arguments.items, arguments.k, 2)


if __name__ == "__main__":
    main()
