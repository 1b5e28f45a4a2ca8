"""Inclusion probabilities of the chosen records, for Horvitz-Thompson estimates."""

from __future__ import annotations

from typing import Any

import numpy as np

import gumbeltopk as gt
from gumbeltopk.cli.failures import FAILED, Failure

FUNCTION = "inclusion_probabilities"


def check_available() -> None:
    """Before the work, not after it."""
    if not hasattr(gt, FUNCTION):
        raise Failure(f"--inclusion: gumbeltopk {gt.__version__} has no {FUNCTION}; use a newer one", FAILED)


def inclusion_of(weights: np.ndarray[Any, Any], k: int, chosen: np.ndarray[Any, Any]) -> list[float]:
    """P(record i is drawn) for the chosen records, from the weights of all."""
    positive = np.flatnonzero(weights > 0)  # the others are never drawn, and change nothing
    probabilities = getattr(gt, FUNCTION)(np.log(weights[positive]), k)
    chosen_probabilities: list[float] = probabilities[np.searchsorted(positive, chosen)].tolist()
    return chosen_probabilities
