"""Table 3 of the paper: seconds of a forward pass, successive softmax against NeuralSort, k = 5.

NeuralSort relaxes the whole sort of m scores: row i of its matrix is softmax(((m + 1 - 2 i) s - A 1) / t), where A has
the entries |s_i - s_j|. The first k rows sum to a relaxed k-hot vector. It is computed here as its formula stands, in
O(m^2), once with all m rows, as the published operator returns them, and once with only the k rows that are used.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import gumbeltopk as gt

K = 5
CANDIDATES = (100, 1000, 5000)
QUERIES = 100
TEMPERATURE = 1.0
REPEATS = 5
BLOCK = 1 << 18  # entries of the m x m matrices that exist at a time: they stay in the cache, not in 10 GB

NEURALSORT, NEURALSORT_K_ROWS, RELAXED = "NeuralSort, all m rows", "NeuralSort, first k rows", "relaxed_topk"
PUBLISHED = {  # seconds on a Titan Xp, by m
    "NeuralSort": {100: 0.010, 1000: 0.073, 5000: 3.694},
    "RelaxSubSample": {100: 0.010, 1000: 0.028, 5000: 0.110},
}

Floats = npt.NDArray[Any]


@dataclass(frozen=True)
class Timing:
    """One way at one m: the seconds of each call, for all queries together."""

    way: str
    candidates: int
    seconds: list[float]
    median: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "median", statistics.median(self.seconds))


@dataclass(frozen=True)
class Table3:
    """The table's numbers and settings."""

    k: int
    queries: int
    candidates: tuple[int, ...]
    temperature: float
    dtype: str
    repeats: int
    seed: int
    threads: int
    machine: dict[str, str]
    timings: list[Timing]

    def median(self, way: str, candidates: int) -> float:
        """Seconds of one way at one m."""
        return next(each.median for each in self.timings if (each.way, each.candidates) == (way, candidates))


# --- NeuralSort -------------------------------------------------------------------------------------


def neuralsort_topk(scores: Floats, k: int, temperature: float, all_rows: bool) -> Floats:
    """Relaxed k-hot vectors, shape of `scores` (queries, m): the sum of the first k rows of NeuralSort's matrices.

    With `all_rows` the other m - k rows are computed, too, and dropped.
    """
    relaxed = np.zeros_like(scores)
    m = scores.shape[-1]
    rows = m if all_rows else k
    for queries in slices(len(scores), BLOCK // (m * rows)):
        some = scores[queries]
        sums = distance_sums(some)
        for ranks in slices(rows, BLOCK // (m * len(some))):
            block = neuralsort_rows(some, sums, np.arange(ranks.start + 1, ranks.stop + 1), temperature)
            relaxed[queries] += block[:, : max(0, k - ranks.start)].sum(axis=1)
    return relaxed


def distance_sums(scores: Floats) -> Floats:
    """A 1: for each score the sum of its distances to all scores of its row, pair by pair."""
    sums = np.empty_like(scores)
    m = scores.shape[-1]
    for queries in slices(len(scores), BLOCK // m**2):
        some = scores[queries]
        for items in slices(m, BLOCK // (m * len(some))):
            distances = some[:, items, None] - some[:, None, :]
            np.abs(distances, out=distances)
            sums[queries, items] = distances.sum(axis=-1)
    return sums


def neuralsort_rows(scores: Floats, sums: Floats, ranks: npt.NDArray[np.int64], temperature: float) -> Floats:
    """Rows softmax(((m + 1 - 2 i) s - A 1) / t) for the ranks i = 1, 2, ..., shape (queries, ranks, m)."""
    factors = (scores.shape[-1] + 1 - 2 * ranks).astype(scores.dtype)
    logits: Floats = factors[:, None] * scores[:, None, :]
    logits -= sums[:, None, :]
    logits /= scores.dtype.type(temperature)
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def slices(length: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at least one and at most `step` places."""
    step = max(1, step)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


# --- the numbers ------------------------------------------------------------------------------------


class Way(NamedTuple):
    """A name and a function from keys (queries, m) to relaxed k-hot vectors."""

    name: str
    relax: Callable[[Floats], Floats]


WAYS = (
    Way(NEURALSORT, lambda keys: neuralsort_topk(keys, K, TEMPERATURE, all_rows=True)),
    Way(NEURALSORT_K_ROWS, lambda keys: neuralsort_topk(keys, K, TEMPERATURE, all_rows=False)),
    Way(RELAXED, lambda keys: gt.relaxed_topk(keys, K, temperature=TEMPERATURE)),
)


def table3(
    candidates: Sequence[int] = CANDIDATES,
    queries: int = QUERIES,
    repeats: int = REPEATS,
    seed: int = 0,
    progress: Callable[[int], object] = lambda calls: None,
) -> Table3:
    """Time every way for every number of candidates; `progress` is told 1 after each call."""
    threads_before = gt.get_num_threads()
    gt.set_num_threads(1)  # NeuralSort in NumPy has one, too
    try:
        timings = [
            timing
            for number, m in enumerate(dict.fromkeys(candidates))
            for timing in time_ways(random_keys(queries, m, seed + number), repeats, progress)
        ]
    finally:
        gt.set_num_threads(threads_before)
    return Table3(
        k=K,
        queries=queries,
        candidates=tuple(dict.fromkeys(candidates)),
        temperature=TEMPERATURE,
        dtype="float32",
        repeats=repeats,
        seed=seed,
        threads=1,
        machine=describe_machine(),
        timings=timings,
    )


def number_of_calls(candidates: Sequence[int], repeats: int) -> int:
    """What `progress` will have been told in all: `time_ways` warms up with one call more."""
    return len(set(candidates)) * len(WAYS) * (repeats + 1)


def random_keys(queries: int, candidates: int, seed: int) -> Floats:
    """Gumbel keys of equal weights, float32."""
    keys = gt.gumbel_keys(np.zeros((queries, candidates)), rng=seed)
    return np.asarray(keys, dtype=np.float32)


def time_ways(keys: Floats, repeats: int, progress: Callable[[int], object]) -> list[Timing]:
    """Seconds of each way on the same keys, in turns, so that a slow moment of the machine is everybody's."""
    seconds: dict[str, list[float]] = {way.name: [] for way in WAYS}
    for repeat in range(repeats + 1):
        for way in WAYS:
            start = time.perf_counter()
            way.relax(keys)
            elapsed = time.perf_counter() - start
            if repeat > 0:  # the first call fills caches
                seconds[way.name].append(elapsed)
            progress(1)
    return [Timing(name, keys.shape[-1], each) for name, each in seconds.items()]


def describe_machine() -> dict[str, str]:
    """What the seconds depend on."""
    return {
        "processor": processor_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def processor_name() -> str:
    """The model as Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


# --- table and JSON ---------------------------------------------------------------------------------


def format_table(result: Table3) -> str:
    """The table as text: here, as published, and how many times as long NeuralSort takes."""
    sizes = result.candidates
    here = {way.name: [result.median(way.name, m) for m in sizes] for way in WAYS}
    lines = [
        line("forward seconds", [f"m = {m}" for m in sizes]),
        f"here, {result.queries} x m",
        *(line("  " + name, [f"{seconds:.5f}" for seconds in medians]) for name, medians in here.items()),
        line("  all m rows / relaxed_topk", ratios(here[NEURALSORT], here[RELAXED])),
        line("  k rows / relaxed_topk", ratios(here[NEURALSORT_K_ROWS], here[RELAXED])),
        "published, Titan Xp",
        *(
            line("  " + name, [f"{times[m]:.3f}" if m in times else "-" for m in sizes])
            for name, times in PUBLISHED.items()
        ),
        line("  their ratio", [published_ratio(m) for m in sizes]),
    ]
    return "\n".join([*lines, "", *notes(result)])


def line(label: str, cells: Sequence[str]) -> str:
    """One line of the table."""
    return f"{label:<28}" + "".join(f"{cell:>12}" for cell in cells)


def ratios(slow: Sequence[float], fast: Sequence[float]) -> list[str]:
    """How many times as long."""
    return [f"{one / other:.1f}" for one, other in zip(slow, fast, strict=True)]


def published_ratio(candidates: int) -> str:
    """NeuralSort over RelaxSubSample in the paper, where it has that m."""
    slow, fast = PUBLISHED["NeuralSort"], PUBLISHED["RelaxSubSample"]
    return ratios([slow[candidates]], [fast[candidates]])[0] if candidates in slow else "-"


def notes(result: Table3) -> list[str]:
    """What was timed, and why only the ratios compare."""
    return [
        f"k = {result.k}, t = {result.temperature:g}, {result.dtype}. Timed here: from keys in memory to relaxed",
        f"k-hot vectors, {result.queries} queries in one call, value only, one thread, median of",
        f"{result.repeats} (NumPy {result.machine['numpy']}, {result.machine['processor']}).",
        "The published seconds are of a GPU and may hold more than the relaxation: they",
        "compare with each other, not with the seconds here.",
    ]


def save_json(result: Table3, path: Path) -> None:
    """All numbers and settings, and the published ones."""
    about = {"table": "Xie & Ermon 2019, Table 3", "version": gt.__version__}
    published = {"hardware": "Titan Xp", "seconds": PUBLISHED}
    text = json.dumps(about | asdict(result) | {"published": published}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
