"""What the benchmarks share: seeded input, ratios of two functions, relative errors."""

import statistics
import time

import numpy as np

SEED = 20190510
ROUNDS = 9
CALLS_AT_MOST = 50


def generator():
    """A new generator, the same for each benchmark in each run."""
    return np.random.default_rng(SEED)


def random_weights(rows, n):
    """Positive weights (rows, n) that differ by two or three orders of magnitude within a row."""
    return generator().gamma(1.0, size=(rows, n)) + 1e-3


def interleaved_ratio(reference, candidate, rounds=ROUNDS):
    """How many times as fast as the reference the candidate is: the median over rounds of both, one after the other.

    A machine that slows down for a while slows down both sides of a round. The faster side is repeated until it has
    run about as long as the other one, so that both are timed with the same care.
    """
    reference_calls, candidate_calls = _balanced_calls(reference, candidate)
    ratios = []
    for number in range(rounds):
        sides = [(reference, reference_calls), (candidate, candidate_calls)]
        if number % 2:
            sides.reverse()
        seconds = {function: _seconds_per_call(function, calls) for function, calls in sides}
        ratios.append(seconds[reference] / seconds[candidate])
    return three_digits(statistics.median(ratios))


def _balanced_calls(reference, candidate):
    reference(), candidate()  # warm up: imports, caches, memory
    ratio = _seconds_per_call(reference, 1) / _seconds_per_call(candidate, 1)
    return min(max(1, round(1 / ratio)), CALLS_AT_MOST), min(max(1, round(ratio)), CALLS_AT_MOST)


def _seconds_per_call(function, calls):
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def relative_error(value, exact):
    """Euclidean norm of the error over that of the exact array, in float64."""
    exact = np.asarray(exact, dtype=np.float64)
    return three_digits(np.linalg.norm(value - exact) / np.linalg.norm(exact))


def three_digits(number):
    """Rounded: asv prints tracked numbers with all their digits."""
    return float(f"{number:.3g}")
