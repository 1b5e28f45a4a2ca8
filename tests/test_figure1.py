"""Figure 1: its numbers against the reference values, their table, their JSON and their picture."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import gumbeltopk as gt
from gumbeltopk.experiments import figure1
from tests._reference import subset_probability
from tests._statistics import ALPHA, assert_distribution

SAMPLES = 200_000
TEMPERATURES = (0.1, 0.5, 1.0, 10.0)
EXACT = [0.0472222, 0.0761905, 0.1111111, 0.1607143, 0.2333333, 0.3714286]
# Of the relaxation at t = .1, from 1.3e8 draws of other seeds: .02728 (standard error 1.4e-5) and .0008.
ORDER_LOST_AT_0_1 = 0.0273
DISTANCE_AT_0_1 = 0.0008

# TV <= sqrt(chi-square / N) / 2, by Cauchy and Schwarz: so exact sampling exceeds this in less than 1e-6 of runs.
BOUND = math.sqrt(stats.chi2.isf(ALPHA, len(EXACT) - 1) / SAMPLES) / 2

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed, which draws the figure"
)


@pytest.fixture(scope="module")
def result() -> figure1.Figure1:
    return figure1.figure1(SAMPLES, TEMPERATURES, seed=1)


def test_exact_probabilities_are_the_reference_values(result: figure1.Figure1) -> None:
    assert result.subsets == [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]]
    np.testing.assert_allclose(result.exact, EXACT, rtol=0, atol=5e-8)
    fractions = [float(subset_probability(result.weights, [i - 1 for i in subset])) for subset in result.subsets]
    np.testing.assert_allclose(result.exact, fractions, rtol=1e-13)


def test_frequencies_follow_the_exact_distribution(result: figure1.Figure1) -> None:
    """For the keys, and for the relaxation where it keeps the order (at t = .5 none of 4e7 draws lost it).

    False alarm 1e-6; a root mean square relative error of 2.3 % of the probabilities is found with power 1 - 1e-6.
    The bound on the distance is .0067 at 2e5 draws; the paper has .016 at 1e4 draws.
    """
    for way in (result.exact_sampling, *result.relaxed[1:]):
        assert_distribution(np.asarray(way.frequencies) * SAMPLES, EXACT)
        assert way.distance < BOUND


def test_order_is_kept_from_temperature_1_on(result: figure1.Figure1) -> None:
    """Theorem 1: draw by draw, so no chance is in it."""
    for way in result.relaxed:
        if way.temperature is not None and way.temperature >= 1:
            assert way.order_lost == 0.0
            assert way.frequencies == result.exact_sampling.frequencies


def test_order_is_lost_at_temperature_0_1_in_2_7_percent_of_draws(result: figure1.Figure1) -> None:
    """False alarm 1e-6 (binomial); a share off by .0036 is found with power 1 - 1e-6.

    The distance of the frequencies is at most that of the relaxed distribution plus their own from it, by the
    triangle inequality. It is far below the share, because the losses go both ways.
    """
    coldest = result.relaxed[0]
    assert stats.binomtest(round(coldest.order_lost * SAMPLES), SAMPLES, ORDER_LOST_AT_0_1).pvalue >= ALPHA
    assert coldest.frequencies != result.exact_sampling.frequencies
    assert coldest.distance < BOUND + DISTANCE_AT_0_1


def test_distance_is_half_the_sum_of_the_differences(result: figure1.Figure1) -> None:
    for way in (result.exact_sampling, *result.relaxed):
        differences = np.abs(np.asarray(way.frequencies) - result.exact)
        assert way.distance == pytest.approx(differences.sum() / 2, rel=1e-12)
    assert figure1.total_variation(np.asarray([0.5, 0.5, 0.0]), np.asarray([0.2, 0.3, 0.5])) == pytest.approx(0.5)


@pytest.mark.parametrize("samples", [1_000, 1_000_000])
def test_distance_range_covers_95_percent_of_exact_runs(samples: int) -> None:
    """20,000 other runs, each tail on its own: 2.5 % of them beyond each end.

    Both the range and the check are simulated, so a tail has a standard error of .0016: 6 of them are allowed, which
    a normal variable exceeds in 2e-9 of cases (over 4 tails: 1e-8). A range of 90 % (5 % a tail) is found.
    """
    low, high = figure1.distance_range(np.asarray(EXACT), samples)
    exact = np.asarray(EXACT) / np.sum(EXACT)
    frequencies = stats.multinomial(samples, exact).rvs(20_000, random_state=7) / samples
    distances = 0.5 * np.abs(frequencies - exact).sum(axis=-1)
    assert abs(np.mean(distances < low) - 0.025) < 0.0096
    assert abs(np.mean(distances > high) - 0.025) < 0.0096


@pytest.mark.parametrize("block", [1, 7, 1000, 10_000])
def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """1000 draws by blocks that divide them, that do not, and that are larger."""
    expected = figure1.figure1(1000, TEMPERATURES, seed=3)
    monkeypatch.setattr(figure1, "BLOCK", block)
    reported: list[int] = []
    assert figure1.figure1(1000, TEMPERATURES, 3, reported.append) == expected
    assert sum(reported) == 1000
    assert max(reported) == min(block, 1000)


def test_seed_decides_and_temperatures_share_the_draws() -> None:
    """One temperature more changes nothing for the others."""
    alone = figure1.figure1(1000, (2.0,), seed=3)
    assert alone == figure1.figure1(1000, (2.0,), seed=3)
    assert alone.relaxed[0] == figure1.figure1(1000, (0.3, 2.0), seed=3).relaxed[1]
    assert alone.relaxed[0] != figure1.figure1(1000, (2.0,), seed=4).relaxed[0]


def test_temperatures_that_print_alike_are_kept_apart() -> None:
    """`:g` shows both as 1; the same temperature twice is one column."""
    result = figure1.figure1(10, (1.0, math.nextafter(1.0, 2.0), 1.0, 10))
    assert [way.name for way in result.relaxed] == ["t = 1", "t = 1.0000000000000002", "t = 10"]


# --- table, JSON, picture -------------------------------------------------------------------------


def test_table_shows_every_number(result: figure1.Figure1) -> None:
    """Each column under its name, to six digits, and no line wider than a terminal."""
    table = figure1.format_table(result)
    lines = table.splitlines()
    ways = [result.exact_sampling, *result.relaxed]
    columns = ["exact p", "top 2 keys", "t = 0.1", "t = 0.5", "t = 1", "t = 10"]
    ends = [lines[0].index(name) + len(name) for name in columns]
    assert lines[0].endswith(columns[-1])
    for row, subset in enumerate(result.subsets, start=1):
        shown = [lines[row][:end].split()[-1] for end in ends]
        values = [result.exact[row - 1], *(way.frequencies[row - 1] for way in ways)]
        assert lines[row].startswith(f"{{{subset[0]}, {subset[1]}}} ")
        assert shown == [f"{value:.6f}" for value in values]
    assert lines[7].split() == ["TV", *(f"{way.distance:.6f}" for way in ways)]
    assert lines[8].split() == ["order", "lost", *(f"{way.order_lost:.6f}" for way in ways)]
    assert f"{result.distance_range[0]:.6f} to {result.distance_range[1]:.6f} in 95 % of runs" in table
    assert f"{SAMPLES} draws" in table
    assert max(map(len, figure1.format_table(figure1.figure1(10)).splitlines())) <= 80


def test_json_holds_all_numbers_and_settings(result: figure1.Figure1, tmp_path: Path) -> None:
    """Enough to make the figure again: what is read back is the result, float for float."""
    figure1.save_json(result, tmp_path / "figure1.json")
    numbers = json.loads((tmp_path / "figure1.json").read_text(encoding="utf-8"))
    assert numbers.pop("figure") == "Xie & Ermon 2019, Figure 1"
    assert numbers.pop("version") == gt.__version__
    assert {name: _with_lists(value) for name, value in dataclasses.asdict(result).items()} == numbers
    assert {"weights", "k", "samples", "seed", "subsets", "exact", "exact_sampling", "relaxed"} < set(numbers)


def _with_lists(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@needs_matplotlib
def test_picture_shows_exact_and_relaxed_bars_with_their_distances(result: figure1.Figure1) -> None:
    upper, lower = figure1.make_plot(result).axes
    heights = [[bar.get_height() for bar in group] for group in upper.containers]
    assert heights == [result.exact, *(way.frequencies for way in result.relaxed)]
    legend = [text.get_text() for text in upper.get_legend().get_texts()]
    assert legend[0] == "exact p(S | w)"
    for way, text in zip(result.relaxed, legend[1:], strict=True):
        assert text == f"relaxed, {way.name} (TV {way.distance:.2g})"
    labels = ", ".join(text.get_text() for text in lower.get_xticklabels())
    assert labels == "{1, 2}, {1, 3}, {1, 4}, {2, 3}, {2, 4}, {3, 4}"
    assert "200,000 draws" in upper.get_title()


@needs_matplotlib
def test_bars_of_a_group_stand_side_by_side_about_their_label(result: figure1.Figure1) -> None:
    upper = figure1.make_plot(result).axes[0]
    for place, bars in enumerate(zip(*upper.containers, strict=True)):
        edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
        np.testing.assert_allclose([edges[0][0], edges[-1][1]], [place - 0.4, place + 0.4], atol=1e-12)
        np.testing.assert_allclose([right for _, right in edges[:-1]], [left for left, _ in edges[1:]], atol=1e-12)


@needs_matplotlib
def test_picture_shows_the_differences_on_the_range_of_exact_sampling(result: figure1.Figure1) -> None:
    """The grey range is that of a binomial frequency: 95 % between its ends."""
    lower = figure1.make_plot(result).axes[1]
    points = [line for line in lower.lines if line.get_marker() == "o"]
    for way, line in zip(result.relaxed, points, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), np.asarray(way.frequencies) - result.exact)
    for bar, p in zip(lower.containers[0], result.exact, strict=True):
        top = stats.binom(SAMPLES, p).ppf(0.975) / SAMPLES - p
        assert bar.get_y() + bar.get_height() == pytest.approx(top, rel=0.03)
        assert bar.get_y() == pytest.approx(-top, rel=0.03)


@needs_matplotlib
def test_png_is_written_in_the_size_of_print(result: figure1.Figure1, tmp_path: Path) -> None:
    figure1.save_plot(result, tmp_path / "figure1.png")
    header = (tmp_path / "figure1.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG\r\n\x1a\n")
    assert (int.from_bytes(header[16:20]), int.from_bytes(header[20:24])) == (1400, 1100)
