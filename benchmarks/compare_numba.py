"""One table: the relaxed top-k in loops that numba compiles, and by NumPy's passes, taking turns.

    python benchmarks/compare_numba.py
    python benchmarks/compare_numba.py --method compressed --sizes 1x1000000x10 1x1000000x1000 64x5000x50
    python benchmarks/compare_numba.py --sizes 1000x100x9 64x1000x10 --temperatures 1 0.7 --repeats 15

Sizes are rows x n x k. Milliseconds are medians, on one thread; a gain is the median over the rounds of (NumPy's time /
the loops'). "fwd" is the value, "+vjp" the value and its gradient by the keys, "+t" also by the temperature. Where the
loops would gain too little, NumPy's passes run in any case, and the gain is about 1.
"""

import argparse
import statistics

import compare_peers
import numpy as np

import gumbeltopk as gt
from benchmarks import common

SIZES = [(1000, 100, 9), (64, 1000, 10), (64, 5000, 5), (1000, 1000, 1), (3000, 30, 5), (200, 300, 10)]
TEMPERATURES = [1.0, 2.0, 0.5, 0.7]
WIDTHS = [(f"{name} {what}", 13) for name in ("fwd", "+vjp", "+t") for what in ("numba", "numpy", "gain")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=compare_peers.size, nargs="+", default=SIZES, metavar="ROWSxNxK")
    parser.add_argument("--temperatures", type=float, nargs="+", default=TEMPERATURES, metavar="T")
    parser.add_argument("--method", choices=("direct", "compressed", "auto"), default="direct")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "float64"), default=("float32", "float64"))
    parser.add_argument("--repeats", type=int, default=common.ROUNDS, metavar="R", help="rounds (default: %(default)s)")
    arguments = parser.parse_args()
    gt.set_num_threads(1)
    gt.use_numba(True)
    print(f"{'rows x n x k':<16}{'dtype':<9}{'t':>5}" + "".join(f"{name:>{width}}" for name, width in WIDTHS))
    for shape in arguments.sizes:
        for dtype in arguments.dtypes:
            for temperature in arguments.temperatures:
                compare(shape, dtype, temperature, arguments.method, arguments.repeats)


def compare(shape, dtype, temperature, method, rounds):
    """Print one line."""
    rows, n, k = shape
    keys, cotangent = common.generator().gumbel(size=(2, rows, n)).astype(dtype)
    line = f"{'x'.join(map(str, shape)):<16}{dtype:<9}{temperature:>5g}"
    for wrt in (None, "keys", ("keys", "temperature")):
        seconds = common.interleaved_seconds(
            [contender(wanted, keys, cotangent, k, temperature, method, wrt) for wanted in (True, False)], rounds
        )
        medians = [1e3 * statistics.median(each) for each in zip(*seconds, strict=True)]
        gain = statistics.median(by_numpy / by_numba for by_numba, by_numpy in seconds)
        line += "".join(f"{each:>10.3g} ms" for each in medians) + f"{gain:>13.2f}"
    print(line, flush=True)


def contender(wanted, keys, cotangent, k, temperature, method, wrt):
    """A function without arguments."""

    def run():
        gt.use_numba(wanted)
        settings = {"temperature": np.float64(temperature), "method": method}
        if wrt is None:
            return gt.relaxed_topk(keys, k, **settings)
        value, residuals = gt.relaxed_topk.fwd(keys, k, **settings)
        return value, gt.relaxed_topk.vjp(residuals, cotangent, wrt=wrt)

    return run


if __name__ == "__main__":
    main()
