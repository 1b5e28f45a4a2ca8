"""Calibrated tests of samples against exact distributions.

`assert_distribution` is the likelihood-ratio (G) test on cells of known probability, with Williams' correction and with
rare cells put together until FEWEST_EXPECTED draws are expected in each: so the chi-square tail holds as far out as
ALPHA (Pearson's statistic, with 5 expected, gives 70 times as many false alarms there). Its false-alarm rate is
ALPHA = 1e-6 for each call; with a fixed seed the alarm would be raised once, when the seed is chosen.

Its power is a matter of design. For m cells and N draws, relative errors of the cell probabilities of mean square e^2
(weighted by probability) have noncentrality N e^2; `smallest_error_found` gives the e that is found with power
1 - 1e-6, and the tests state it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize, special, stats

ALPHA = 1e-6
FEWEST_EXPECTED = 20.0


# --- counts against probabilities -----------------------------------------------------------------


def distribution_p_value(counts: Any, probabilities: Any) -> float:
    """P-value of the counts; cells of probability 0 must be empty."""
    counts, probabilities = np.asarray(counts, dtype=float), np.asarray(probabilities, dtype=float)
    if counts[probabilities == 0].any():
        return 0.0
    expected = counts.sum() * probabilities / probabilities.sum()
    rare = expected < FEWEST_EXPECTED
    if expected[rare].sum() == 0:
        return _likelihood_ratio_p_value(counts[~rare], expected[~rare])
    rare_counts, rare_expected = _join_rare_cells(counts[rare], expected[rare])
    if rare_expected[0] >= FEWEST_EXPECTED:
        return _likelihood_ratio_p_value(
            np.append(counts[~rare], rare_counts), np.append(expected[~rare], rare_expected)
        )
    # Too rare even together: one cell, by its exact binomial distribution.
    together = stats.binomtest(int(rare_counts[0]), int(counts.sum()), rare_expected[0] / counts.sum()).pvalue
    return min(1.0, 2 * min(float(together), _likelihood_ratio_p_value(counts[~rare], expected[~rare])))


def _likelihood_ratio_p_value(counts: Any, expected: Any) -> float:
    freedom = len(counts) - 1
    if freedom < 1:
        return 1.0
    draws = counts.sum()
    expected = expected * (draws / expected.sum())
    statistic = 2 * np.sum(special.xlogy(counts, counts / expected))
    williams = 1 + (np.sum(draws / expected) - 1) / (6 * draws * freedom)
    return float(stats.chi2.sf(statistic / williams, freedom))


def _join_rare_cells(counts: Any, expected: Any) -> tuple[Any, Any]:
    """Cells joined in order of size, so that each joint cell has FEWEST_EXPECTED if all of them together have."""
    order = np.argsort(expected)
    before = np.cumsum(expected[order]) - expected[order]
    # A joint cell begins at each multiple of twice the limit; the cell across that line is smaller than the limit.
    last = max(int(expected.sum() / (2 * FEWEST_EXPECTED)) - 1, 0)
    joint = np.minimum((before / (2 * FEWEST_EXPECTED)).astype(int), last)
    return np.bincount(joint, counts[order]), np.bincount(joint, expected[order])


def assert_distribution(counts: Any, probabilities: Any, alpha: float = ALPHA) -> None:
    """The counts may come from the probabilities: fails in a fraction alpha of correct samplers' runs."""
    p_value = distribution_p_value(counts, probabilities)
    assert p_value >= alpha, f"p-value {p_value:.3g} < {alpha:g}"


def assert_independent(items: Any, probabilities: Any) -> None:
    """The joint distribution of consecutive draws, in disjoint pairs, may be the product of that of one draw."""
    pairs = np.asarray(items)[: len(items) // 2 * 2].reshape(-1, 2)
    n = len(probabilities)
    assert_distribution(np.bincount(pairs @ [n, 1], minlength=n * n), np.outer(probabilities, probabilities).ravel())


def smallest_error_found(draws: int, cells: int, alpha: float = ALPHA, miss: float = 1e-6) -> float:
    """The root mean square relative error of the cell probabilities that is missed with probability `miss`."""
    threshold = stats.chi2.isf(alpha, cells - 1)
    noncentrality = optimize.brentq(lambda nc: stats.ncx2.cdf(threshold, cells - 1, nc) - miss, 1.0, 1e4)
    return float(np.sqrt(noncentrality / draws))


def count_rows(rows: Any, support: Any) -> np.ndarray[Any, Any]:
    """How often each row of `support` occurs among `rows`; a row that is not in the support is an error."""
    rows, support = np.asarray(rows), np.asarray(support)
    if rows.shape[-1] == 0:
        return np.asarray([len(rows)])
    assert rows.min() >= 0, "a negative item"
    digits = int(max(rows.max(), support.max())) + 1
    place_value = digits ** np.arange(support.shape[-1])
    codes, numbers = support @ place_value, rows @ place_value
    order = np.argsort(codes)
    found = np.minimum(np.searchsorted(codes, numbers, sorter=order), len(codes) - 1)
    strange = codes[order][found] != numbers
    assert not strange.any(), f"{rows[strange][0].tolist()} is not in the support"
    return np.bincount(order[found], minlength=len(codes))


# --- long samples, pick by pick -------------------------------------------------------------------


def uniforms_of_picks(classes: Any, weights: Any, copies: Any, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Independent uniforms (draws, k), one for each pick, if the samples are sequential.

    The items come in classes of `copies` items (one number, or one each) of one weight; `classes` (draws, k) says from
    which class each pick is. Given the earlier picks, it is of a class with probability by what is left of it (eq. 1).
    So a uniform place in the interval of its class, when the classes lie side by side in proportion, is uniform in
    (0, 1) (Rosenblatt).
    """
    classes = np.asarray(classes)
    left = np.full((len(classes), len(weights)), copies, dtype=float)
    rows, uniforms = np.arange(len(classes)), np.empty(classes.shape)
    for pick, chosen in enumerate(classes.T):
        masses = left * np.asarray(weights)
        ends = np.cumsum(masses, axis=-1)
        assert (left[rows, chosen] > 0).all(), "more items than there are"
        below = ends[rows, chosen] - masses[rows, chosen] * rng.random(len(rows))
        uniforms[:, pick] = below / ends[:, -1]
        left[rows, chosen] -= 1
    return uniforms


def assert_sequential(classes: Any, weights: Any, copies: Any) -> None:
    """The samples may be sequential: the uniforms of the first, second and last third of the picks, in 20 cells each,
    and those of consecutive picks together, in 25 cells; and the first picks of consecutive draws are independent."""
    first = np.asarray(weights) * copies
    assert_independent(np.asarray(classes)[:, 0], first / first.sum())
    uniforms = uniforms_of_picks(classes, weights, copies, np.random.default_rng(0))
    for third in np.array_split(uniforms, 3, axis=-1):
        cells = np.floor(20 * third).astype(int)
        assert_distribution(np.bincount(cells.ravel(), minlength=20), np.full(20, 0.05))
    fifths = np.floor(5 * uniforms).astype(int)
    pairs = 5 * fifths[:, 0:-1:2] + fifths[:, 1::2]
    assert_distribution(np.bincount(pairs.ravel(), minlength=25), np.full(25, 0.04))


# --- Gumbel noise ---------------------------------------------------------------------------------

# Upper and lower tail probabilities of the cells' edges: half the cells are in the tails.
TAILS = 0.5 * 10.0 ** -np.arange(0.0, 4.5, 0.5)


def gumbel_cells() -> tuple[Any, Any]:
    """Edges (m,) and probabilities (m + 1,) of cells of the standard Gumbel distribution, out to 5e-5 on both sides."""
    lower = -np.log(-np.log(TAILS[::-1]))
    upper = -np.log(-np.log1p(-TAILS[1:]))
    below = np.concatenate([TAILS[::-1], 1 - TAILS[1:]])
    return np.concatenate([lower, upper]), np.diff(below, prepend=0.0, append=1.0)


def assert_gumbel(noise: Any) -> None:
    """The noise may be standard Gumbel."""
    edges, probabilities = gumbel_cells()
    cells = np.searchsorted(edges, np.ravel(noise))
    assert_distribution(np.bincount(cells, minlength=len(edges) + 1), probabilities)


def assert_distinct(values: Any) -> None:
    """No two values are equal, and none is infinite: what noise from a coarse grid of uniforms fails."""
    values = np.ravel(values)
    assert np.all(np.isfinite(values)), "an infinite value"
    assert len(np.unique(values)) == len(values), f"{len(values) - len(np.unique(values))} ties"
