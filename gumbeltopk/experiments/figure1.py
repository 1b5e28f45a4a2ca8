"""Figure 1 of the paper: the top k of relaxed samples against the exact subset distribution.

w = (.1, .2, .3, .4), k = 2. Each draw of Gumbel keys gives one exact sample (the two largest keys) and, for each
temperature, one relaxed vector (Algorithm 2), whose two largest entries count as the subset. For temperatures of 1
and more these are the two largest keys (Theorem 1); below, the relaxation does not always keep the order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import gumbeltopk as gt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WEIGHTS = (0.1, 0.2, 0.3, 0.4)
K = 2
TEMPERATURES = (0.1, 1.0, 10.0)
BLOCK = 1 << 14  # draws at a time: memory stays flat
CODES = 1 << len(WEIGHTS)  # a subset is coded as the sum of 2^i over its items
EXACT_RUNS = 20_000  # simulated runs of exact sampling, for the range of its distance

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Empirical:
    """What one way of drawing gave.

    Attributes
    ----------
    name : str
        `top 2 keys`, which is exact sampling, or the temperature as in `t = 0.1`.
    temperature : float or None
        None for exact sampling.
    frequencies : list of float
        Relative frequency of each subset.
    distance : float
        Total variation distance of the frequencies from the exact distribution.
    order_lost : float
        Share of the draws whose subset is not that of the two largest keys.
    """

    name: str
    temperature: float | None
    frequencies: list[float]
    distance: float
    order_lost: float


@dataclass(frozen=True)
class Figure1:
    """The figure's numbers. Items are numbered from 1, as in the paper; all lists follow the order of `subsets`."""

    weights: tuple[float, ...]
    k: int
    samples: int
    seed: int
    subsets: list[list[int]]
    exact: list[float]
    exact_sampling: Empirical
    relaxed: list[Empirical]
    distance_range: tuple[float, float]  # of exact sampling with as many draws, in 95 % of runs


# --- the numbers ------------------------------------------------------------------------------------


class Tally:
    """Counts of the subsets that came, and of the draws that differ from the two largest keys."""

    def __init__(self) -> None:
        self.counts = np.zeros(CODES, dtype=np.int64)
        self.different = 0

    def add(self, codes: Integers, codes_of_keys: Integers) -> None:
        self.counts += np.bincount(codes, minlength=CODES)
        self.different += int(np.count_nonzero(codes != codes_of_keys))


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
    cells = np.sum(1 << subsets, axis=-1)
    hard, relaxed = count_subsets(samples, temperatures, seed, progress)

    def empirical(name: str, temperature: float | None, tally: Tally) -> Empirical:
        frequencies = tally.counts[cells] / samples
        distance = float(total_variation(frequencies, exact))
        return Empirical(name, temperature, frequencies.tolist(), distance, tally.different / samples)

    return Figure1(
        weights=WEIGHTS,
        k=K,
        samples=samples,
        seed=seed,
        subsets=(subsets + 1).tolist(),
        exact=exact.tolist(),
        exact_sampling=empirical(f"top {K} keys", None, hard),
        relaxed=[empirical(f"t = {shortest(t)}", t, tally) for t, tally in relaxed.items()],
        distance_range=distance_range(exact, samples),
    )


def count_subsets(
    samples: int, temperatures: Sequence[float], seed: int, progress: Callable[[int], object]
) -> tuple[Tally, dict[float, Tally]]:
    """Tallies of the largest keys and, for each temperature, of the largest relaxed entries."""
    log_weights = np.log(WEIGHTS)
    rng = np.random.default_rng(seed)
    hard = Tally()
    relaxed = {float(temperature): Tally() for temperature in temperatures}
    for first in range(0, samples, BLOCK):
        draws = min(BLOCK, samples - first)
        keys = gt.gumbel_keys(np.broadcast_to(log_weights, (draws, len(WEIGHTS))), rng=rng)
        codes_of_keys = code_largest(keys)
        hard.add(codes_of_keys, codes_of_keys)
        for temperature, tally in relaxed.items():
            tally.add(code_largest(gt.relaxed_topk(keys, K, temperature=temperature)), codes_of_keys)
        progress(draws)
    return hard, relaxed


def code_largest(scores: Floats) -> Integers:
    """The code of the subset of the K largest scores of each row."""
    largest = np.argsort(scores, axis=-1)[:, -K:]
    return np.asarray(np.sum(1 << largest, axis=-1))


def total_variation(p: Floats, q: Floats) -> Any:
    """Half the sum of the absolute differences, row by row."""
    return 0.5 * np.sum(np.abs(p - q), axis=-1)


def distance_range(exact: Floats, samples: int) -> tuple[float, float]:
    """Where the distance of exact sampling lies in 95 % of runs of as many draws."""
    frequencies = np.random.default_rng(0).multinomial(samples, exact / np.sum(exact), size=EXACT_RUNS) / samples
    low, high = np.quantile(total_variation(frequencies, exact), [0.025, 0.975])
    return float(low), float(high)


def shortest(number: float) -> str:
    """The shortest text that is this number and no other: two temperatures never share a name."""
    return repr(float(number)).removesuffix(".0")


# --- table, JSON and picture ------------------------------------------------------------------------


def subset_label(subset: Sequence[int]) -> str:
    """As in mathematics."""
    return "{" + ", ".join(map(str, subset)) + "}"


def format_table(result: Figure1) -> str:
    """The figure as text."""
    ways = [result.exact_sampling, *result.relaxed]
    width = max(10, *(len(way.name) for way in ways)) + 2

    def line(label: str, cells: Sequence[str]) -> str:
        return f"{label:<12}" + "".join(f"{cell:>{width}}" for cell in cells)

    lines = [line("subset", ["exact p", *(way.name for way in ways)])]
    for row, subset in enumerate(result.subsets):
        probabilities = [result.exact[row], *(way.frequencies[row] for way in ways)]
        lines.append(line(subset_label(subset), [f"{p:.6f}" for p in probabilities]))
    lines.append(line("TV", ["", *(f"{way.distance:.6f}" for way in ways)]))
    lines.append(line("order lost", ["", *(f"{way.order_lost:.6f}" for way in ways)]))
    low, high = result.distance_range
    lines += [
        "",
        f"{result.samples} draws. TV: total variation distance from exact p; under exact",
        f"sampling it is {low:.6f} to {high:.6f} in 95 % of runs. Order lost: share of",
        f"the draws whose {result.k} largest relaxed entries are not the {result.k} largest keys.",
    ]
    return "\n".join(lines)


def save_json(result: Figure1, path: Path) -> None:
    """All numbers and settings."""
    settings = {"figure": "Xie & Ermon 2019, Figure 1", "version": gt.__version__}
    path.write_text(json.dumps(settings | asdict(result), indent=2) + "\n", encoding="utf-8")


def save_plot(result: Figure1, path: Path) -> None:
    """The picture as a PNG file."""
    make_plot(result).savefig(path, dpi=200)


def make_plot(result: Figure1) -> Figure:
    """Probabilities as in the paper; below them the differences from exact p, which are too small to see there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.5), layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot, which would look for a screen and keep the figure
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    draw_probabilities(upper, result)
    draw_differences(lower, result)
    lower.set_xticks(range(len(result.subsets)), [subset_label(subset) for subset in result.subsets])
    lower.set_xlabel("subset S")
    return figure


def bars_of(result: Figure1) -> list[tuple[Empirical, float, Any]]:
    """(way of drawing, offset of its bars, colour): exact p has the first place of each group, in grey."""
    from matplotlib import colormaps

    number = len(result.relaxed)
    colours = colormaps["viridis"](np.linspace(0.1, 0.85, number))
    offsets = bar_width(result) * (np.arange(1, number + 1) - number / 2)
    return list(zip(result.relaxed, offsets.tolist(), colours, strict=True))


def bar_width(result: Figure1) -> float:
    """Of each bar in a group, which is .8 wide."""
    return 0.8 / (len(result.relaxed) + 1)


def draw_probabilities(axes: Axes, result: Figure1) -> None:
    """Exact p and the frequencies at each temperature, side by side."""
    places, width = np.arange(len(result.subsets)), bar_width(result)
    axes.bar(places - width * len(result.relaxed) / 2, result.exact, width, color="0.6", label="exact p(S | w)")
    for way, offset, colour in bars_of(result):
        label = f"relaxed, {way.name} (TV {way.distance:.2g})"
        axes.bar(places + offset, way.frequencies, width, color=colour, label=label)
    axes.set_ylabel("probability")
    axes.set_title(f"w = {result.weights}, k = {result.k}, {result.samples:,} draws", fontsize="medium")
    axes.legend(frameon=False)


def draw_differences(axes: Axes, result: Figure1) -> None:
    """Frequency minus exact p, on the 95 % range of each frequency under exact sampling."""
    places = np.arange(len(result.subsets))
    exact = np.asarray(result.exact)
    half_range = 1.96 * np.sqrt(exact * (1 - exact) / result.samples)
    low, high = result.distance_range
    label = f"95 % of runs of exact sampling (TV {low:.2g} to {high:.2g})"
    axes.bar(places, 2 * half_range, 0.9, bottom=-half_range, color="0.88", label=label)
    for way, offset, colour in bars_of(result):
        axes.plot(places + offset, way.frequencies - exact, "o", color=colour, markersize=4)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    axes.set_ylabel("frequency − exact p")
    axes.legend(frameon=False)
