"""Figure 1 of the paper: the top k of relaxed samples against the exact subset distribution.

w = (.1, .2, .3, .4), k = 2. Each draw of Gumbel keys gives one hard sample and, for each temperature, one relaxed
vector (Algorithm 2), whose two largest entries count as the subset. For temperatures of 1 and more these are the two
largest keys (Theorem 1); below, the relaxation does not always keep the order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import gumbeltopk as gt

WEIGHTS = (0.1, 0.2, 0.3, 0.4)
K = 2
TEMPERATURES = (0.1, 1.0, 10.0)
BLOCK = 1 << 14  # draws at a time: memory stays flat
NULL_DRAWS = 20_000  # multinomial draws for the range of the distance under exact sampling

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure1:
    """Counts are relative frequencies over the subsets, in the order of `subsets`."""

    samples: int
    seed: int
    weights: tuple[float, ...]
    subsets: list[list[int]]
    exact: list[float]
    hard: list[float]
    relaxed: dict[str, list[float]]
    distance: dict[str, float]
    distance_range: float


def figure1(
    samples: int,
    temperatures: Sequence[float] = TEMPERATURES,
    seed: int = 0,
    progress: Callable[[int], object] = lambda draws: None,
) -> Figure1:
    """Draw the figure's numbers; `progress` is told the number of draws after each block."""
    distribution = gt.SubsetDistribution(weights=WEIGHTS, k=K)
    subsets = distribution.enumerate_support()
    exact = distribution.pmf(subsets)
    log_weights = np.log(WEIGHTS)
    rng = np.random.default_rng(seed)
    hard = np.zeros(len(subsets), dtype=np.int64)
    relaxed = {temperature: np.zeros(len(subsets), dtype=np.int64) for temperature in temperatures}
    for first in range(0, samples, BLOCK):
        draws = min(BLOCK, samples - first)
        keys = gt.gumbel_keys(np.broadcast_to(log_weights, (draws, len(WEIGHTS))), rng=rng)
        hard += count_subsets(keys, subsets)
        for temperature, counts in relaxed.items():
            counts += count_subsets(gt.relaxed_topk(keys, K, temperature=temperature), subsets)
        progress(draws)
    frequencies = {"exact sampling": hard / samples} | {f"t = {t:g}": c / samples for t, c in relaxed.items()}
    return Figure1(
        samples=samples,
        seed=seed,
        weights=WEIGHTS,
        subsets=subsets.tolist(),
        exact=exact.tolist(),
        hard=frequencies["exact sampling"].tolist(),
        relaxed={name: f.tolist() for name, f in frequencies.items() if name != "exact sampling"},
        distance={name: total_variation(f, exact) for name, f in frequencies.items()},
        distance_range=distance_range(exact, samples, seed),
    )


def count_subsets(scores: Floats, subsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each subset holds the K largest scores of a row."""
    # A subset of items is the number sum of 2^i; a table of 2^n counts is small for a figure.
    n = scores.shape[-1]
    largest = np.argsort(scores, axis=-1)[:, n - K :]
    counts = np.bincount(np.sum(1 << largest, axis=-1), minlength=1 << n)
    return np.asarray(counts[np.sum(1 << subsets, axis=-1)])


def total_variation(p: Floats, q: Floats) -> float:
    """Half the sum of the absolute differences."""
    return float(0.5 * np.sum(np.abs(p - q)))


def distance_range(exact: Floats, samples: int, seed: int) -> float:
    """The distance that exact sampling stays below in 95 % of runs of as many draws."""
    rng = np.random.default_rng([seed, 1])
    frequencies = rng.multinomial(samples, exact / np.sum(exact), size=NULL_DRAWS) / samples
    return float(np.quantile(0.5 * np.sum(np.abs(frequencies - exact), axis=-1), 0.95))


def format_table(result: Figure1) -> str:
    """The figure as text."""
    columns = {"exact p": result.exact, "exact sampling": result.hard, **result.relaxed}
    lines = ["subset   " + "".join(f"{name:>16}" for name in columns)]
    for row, subset in enumerate(result.subsets):
        label = "{" + ", ".join(str(item + 1) for item in subset) + "}"
        lines.append(f"{label:<9}" + "".join(f"{values[row]:16.6f}" for values in columns.values()))
    distances = "".join(f"{result.distance[name]:16.6f}" for name in columns if name in result.distance)
    lines.append(f"{'TV':<9}{'':16}{distances}")
    lines.append(
        f"{result.samples} draws; exact sampling has a total variation distance below {result.distance_range:.6f} "
        "in 95 % of runs"
    )
    return "\n".join(lines)


def save_json(result: Figure1, path: Path) -> None:
    """All numbers and settings."""
    path.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


def save_plot(result: Figure1, path: Path) -> None:
    """Bars for each subset, as in the paper."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = {"exact p(S | w)": result.exact, **result.relaxed}
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(columns)
    places = np.arange(len(result.subsets))
    for number, (name, values) in enumerate(columns.items()):
        axes.bar(places + (number - (len(columns) - 1) / 2) * width, values, width, label=name)
    axes.set_xticks(places, ["{" + ", ".join(str(i + 1) for i in subset) + "}" for subset in result.subsets])
    axes.set_xlabel("subset")
    axes.set_ylabel("probability")
    axes.set_title(f"w = {result.weights}, k = {K}, {result.samples} draws")
    axes.legend()
    figure.savefig(path, dpi=150)
