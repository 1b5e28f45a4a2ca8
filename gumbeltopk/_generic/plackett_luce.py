"""Ordered samples without replacement (eq. 1): log p and its score, the gradient by the log-weights.

log p(i_1 .. i_k) = sum_j [l_{i_j} - log R_j], R_j the weight that is left before draw j. The R_j are built from the
complement upwards, by adding; subtracting the chosen weights from W would cancel.
"""

from __future__ import annotations

import math

from gumbeltopk._array_api import Array, Namespace


def cumulative_log_sum_exp(logs: Array, xp: Namespace, reverse: bool = False) -> Array:
    """Running log sum exp along the last axis, from the left or from the right, in log2(k) passes (Hillis-Steele)."""
    if reverse:
        return xp.flip(cumulative_log_sum_exp(xp.flip(logs, axis=-1), xp), axis=-1)
    shift = 1
    while shift < logs.shape[-1]:
        logs = xp.concat([logs[..., :shift], log_add_exp(logs[..., shift:], logs[..., :-shift], xp)], axis=-1)
        shift *= 2
    return logs


def log_add_exp(a: Array, b: Array, xp: Namespace) -> Array:
    """log(e^a + e^b), -inf for two of -inf."""
    high, low = xp.maximum(a, b), xp.minimum(a, b)
    safe = xp.where(high > -math.inf, high, 0.0)
    return xp.where(high > -math.inf, safe + xp.log1p(xp.exp(low - safe)), -math.inf)


def _log_remaining(selected: Array, complement: Array, xp: Namespace) -> Array:
    """log R_1 .. log R_k, and log R_{k+1} = the complement's."""
    return cumulative_log_sum_exp(xp.concat([selected, complement], axis=-1), xp, reverse=True)


def logpmf(selected: Array, complement: Array, xp: Namespace) -> Array:
    """log p of rows, given the log-weights `selected` (rows, k) in order and the log-weight `complement` (rows, 1).

    With R_j = w + R_{j+1}, log(w / R_j) = -log(1 + R_{j+1} / w), exact also where a draw is all but certain.
    """
    after = _log_remaining(selected, complement, xp)[..., 1:]
    possible = selected > -math.inf
    log_ratio = xp.where(possible, after - xp.where(possible, selected, 0.0), math.inf)
    return 0.0 - xp.sum(log_add_exp(xp.zeros_like(log_ratio), log_ratio, xp), axis=-1)


def score(selected: Array, complement: Array, xp: Namespace) -> tuple[Array, Array]:
    """d log p / d l for the selected items (rows, k), and for a unit of complement's weight (rows, 1).

    d/d l_i = [i selected] - sum over the draws j that i was present at of w_i / R_j. For the item of draw m, whose own
    draw gives 1 - w/R_m = R_{m+1} / R_m, that is a ratio and not a difference.
    """
    remaining = _log_remaining(selected, complement, xp)
    before = xp.where(remaining[..., :-1] > -math.inf, remaining[..., :-1], 0.0)
    reciprocal = cumulative_log_sum_exp(-before, xp)  # log sum_{j <= m} 1 / R_j
    own = xp.exp(remaining[..., 1:] - before)
    earlier = xp.exp(selected[..., 1:] + reciprocal[..., :-1])
    earlier = xp.concat([xp.zeros_like(own[..., :1]), earlier], axis=-1)
    return own - earlier, -xp.exp(complement + reciprocal[..., -1:])
