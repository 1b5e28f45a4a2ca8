"""Calibrated tests of samples against exact distributions.

`assert_distribution` is Pearson's chi-square on cells of known probability. Its false-alarm rate is ALPHA = 1e-6 for
each call (with a fixed seed: once, when the seed is chosen). Its power is a matter of design: for m cells and N draws a
relative error of the cell probabilities with mean square e^2 (weighted by probability) has noncentrality N e^2.
`smallest_error_found` gives the e that is found with power 1 - 1e-6; the tests state it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize, stats

ALPHA = 1e-6
FEWEST_EXPECTED = 5.0  # cells below are pooled: the chi-square approximation needs them filled


def chi_square_p_value(counts: Any, probabilities: Any) -> float:
    """P-value of the counts; cells of probability 0 must be empty."""
    counts, probabilities = np.asarray(counts, dtype=float), np.asarray(probabilities, dtype=float)
    if counts[probabilities == 0].any():
        return 0.0
    expected = counts.sum() * probabilities / probabilities.sum()
    rare = expected < FEWEST_EXPECTED
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = np.sum((counts - expected) ** 2 / expected)
    return float(stats.chi2.sf(statistic, len(counts) - 1)) if len(counts) > 1 else 1.0


def assert_distribution(counts: Any, probabilities: Any, alpha: float = ALPHA) -> None:
    """The counts may come from the probabilities: fails in a fraction alpha of correct samplers' runs."""
    p_value = chi_square_p_value(counts, probabilities)
    assert p_value >= alpha, f"chi-square p-value {p_value:.3g} < {alpha:g}"


def smallest_error_found(draws: int, cells: int, alpha: float = ALPHA, miss: float = 1e-6) -> float:
    """The root mean square relative error of the cell probabilities that is missed with probability `miss`."""
    threshold = stats.chi2.isf(alpha, cells - 1)
    noncentrality = optimize.brentq(lambda nc: stats.ncx2.cdf(threshold, cells - 1, nc) - miss, 1.0, 1e4)
    return float(np.sqrt(noncentrality / draws))


def count_rows(rows: Any, support: Any) -> np.ndarray[Any, Any]:
    """How often each row of `support` occurs among `rows`; a row that is not in the support is an error."""
    place = {tuple(row): number for number, row in enumerate(np.asarray(support).tolist())}
    found, counts = np.unique(np.asarray(rows), axis=0, return_counts=True)
    result = np.zeros(len(place), dtype=np.int64)
    for row, count in zip(found.tolist(), counts, strict=True):
        assert tuple(row) in place, f"{row} is not in the support"
        result[place[tuple(row)]] = count
    return result
