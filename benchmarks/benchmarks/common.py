"""What the benchmarks share: sizes, seeded input, times in turns, ratios of two functions, errors."""

import statistics
import time

import numpy as np

SEED = 20190510
ROUNDS, FEWEST_ROUNDS = 9, 3
LONGEST = 20.0  # seconds of all rounds of the slowest function; beyond it there are fewer rounds
SHORTEST = 0.01  # seconds of a round; a faster function is called again and again
CALLS_AT_MOST = 50

# Of the relaxed top-k against its peers: rows, n, k; float32, at this temperature.
SIZES = [
    (1, 1_000_000, 10),
    (1, 1_000_000, 100),
    (1, 1_000_000, 1000),
    (64, 5000, 50),
    (128, 784, 50),
    (64, 5000, 5),
    (64, 1000, 10),
    (1000, 100, 9),
    (1000, 1000, 1),
]
TEMPERATURE = 1.0
SMALLEST_MASS = 1e-25  # relative errors of the relaxed top-k count for items with more than this


def generator():
    """A new generator, the same for each benchmark in each run."""
    return np.random.default_rng(SEED)


def random_weights(rows, n):
    """Positive weights (rows, n) that differ by two or three orders of magnitude within a row."""
    return generator().gamma(1.0, size=(rows, n)) + 1e-3


def interleaved_ratio(reference, candidate, rounds=None):
    """How many times as fast as the reference the candidate is: the median over rounds of both, one after the other.

    A machine that slows down for a while slows down both sides of a round.
    """
    seconds = interleaved_seconds([reference, candidate], rounds)
    return three_digits(statistics.median(slow / fast for slow, fast in seconds))


def interleaved_seconds(functions, rounds=None):
    """Seconds of a call of each function, a list of such lists by rounds; every other round goes backwards.

    A fast function is repeated within its round until it has run about as long as the slowest one, so that all are
    timed with the same care.
    """
    for function in functions:
        function()  # warm up: imports, compilers, caches, memory
    first = [_seconds_per_call(function, 1) for function in functions]
    slowest = max(first)
    if rounds is None:
        rounds = max(FEWEST_ROUNDS, min(ROUNDS, round(LONGEST / slowest)))
    target = max(slowest, SHORTEST)
    calls = [min(max(1, round(target / seconds)), CALLS_AT_MOST) for seconds in first]
    return [_one_round(functions, calls, backwards=number % 2) for number in range(rounds)]


def _one_round(functions, calls, backwards):
    order = list(range(len(functions)))
    if backwards:
        order.reverse()
    seconds = {i: _seconds_per_call(functions[i], calls[i]) for i in order}
    return [seconds[i] for i in range(len(functions))]


def _seconds_per_call(function, calls):
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def relative_error(value, exact):
    """Euclidean norm of the error over that of the exact array, in float64."""
    exact = np.asarray(exact, dtype=np.float64)
    return three_digits(np.linalg.norm(value - exact) / np.linalg.norm(exact))


def largest_relative_error(value, exact):
    """Item by item, of those that have more than `SMALLEST_MASS`."""
    counts = exact > SMALLEST_MASS
    return three_digits(np.max(np.abs(np.asarray(value)[counts] / exact[counts] - 1.0)))


def three_digits(number):
    """Rounded: asv prints tracked numbers with all their digits."""
    return float(f"{number:.3g}")
