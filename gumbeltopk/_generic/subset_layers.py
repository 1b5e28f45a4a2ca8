"""All subsets that sequential sampling may have drawn so far, by their size; entropies exactly, for small n.

With W(A) the weight outside of the subset A, the subset of the first j + 1 items is B with probability
    P(B) = sum_{b in B} P(B - b) w_b / W(B - b):
all terms are positive, in logarithms. Given that A has been drawn, the next item has the entropy
    H(A) = sum_{i not in A} (w_i / W(A)) log(W(A) / w_i),
so that ordered samples have the entropy sum_{j < k} sum_{|A| = j} P(A) H(A), and subsets -sum_{|S| = k} P(S) log P(S).
An event that is all but certain has -log p = log(1 + q / (1 - q)), q the sum of all others: so an entropy near 0 keeps
its digits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from gumbeltopk._array_api import Array, Namespace


class Layer(NamedTuple):
    """The subsets of one size."""

    log_p: Array  # (rows, subsets)
    outside: Array  # (rows, subsets, n - size): log-weights of the other items
    log_outside: Array  # (rows, subsets): of their total


def table_size(n: int, k: int) -> int:
    """Items in the largest layer, all subsets together."""
    return max(math.comb(n, size) for size in range(k + 1)) * n


def ordered_entropy(log_weights: Array, k: int, xp: Namespace) -> Array:
    """Entropy (rows,) of the first k items in order."""
    total = xp.sum(xp.zeros_like(log_weights), axis=-1)
    for layer in itertools.islice(_layers(log_weights, k, xp), k):
        total = total + xp.sum(xp.exp(layer.log_p) * _entropy_of_next(layer, xp), axis=-1)
    return total


def subset_entropy(log_weights: Array, k: int, xp: Namespace) -> Array:
    """Entropy (rows,) of the set of the first k items."""
    return _entropy(list(_layers(log_weights, k, xp))[-1].log_p, xp)


def _entropy_of_next(layer: Layer, xp: Namespace) -> Array:
    total = xp.where(layer.log_outside > -math.inf, layer.log_outside, 0.0)
    return _entropy(layer.outside - total[:, :, None], xp)


def _entropy(log_p: Array, xp: Namespace) -> Array:
    """-sum p log p over the last axis, of probabilities that sum to 1."""
    if log_p.shape[-1] == 0:
        return xp.sum(log_p, axis=-1)
    p = xp.exp(log_p)
    number = xp.arange(log_p.shape[-1], device=log_p.device)
    is_largest = number == xp.argmax(log_p, axis=-1, keepdims=True)
    rest = xp.sum(xp.where(is_largest, 0.0, p), axis=-1, keepdims=True)
    near_certain = is_largest & (rest < 0.5)
    odds = xp.where(near_certain, rest / (1.0 - xp.where(near_certain, rest, 0.0)), 0.0)
    surprise = xp.where(near_certain, xp.log1p(odds), -log_p)
    return xp.sum(p * xp.where(p > 0, surprise, 0.0), axis=-1)


def _layers(log_weights: Array, k: int, xp: Namespace) -> Iterator[Layer]:
    """The subsets of 0, 1, .., k items, in lexicographic order."""
    rows, n = log_weights.shape
    subsets: list[tuple[int, ...]] = [()]
    log_p = xp.zeros((rows, 1), dtype=log_weights.dtype, device=log_weights.device)
    for size in range(k + 1):
        outside = _gather(log_weights, [[i for i in range(n) if i not in set(subset)] for subset in subsets], xp)
        layer = Layer(log_p, outside, _log_sum_exp(outside, xp))
        yield layer
        if size == k:
            return
        place = {subset: number for number, subset in enumerate(subsets)}
        subsets = list(itertools.combinations(range(n), size + 1))
        before = [[place[each[:t] + each[t + 1 :]] for t in range(size + 1)] for each in subsets]
        drawn = _gather(log_weights, [list(subset) for subset in subsets], xp)
        possible = layer.log_p > -math.inf
        reached = xp.where(possible, layer.log_p - xp.where(possible, layer.log_outside, 0.0), -math.inf)
        log_p = _log_sum_exp(_gather(reached, before, xp) + drawn, xp)


def _gather(array: Array, table: list[list[int]], xp: Namespace) -> Array:
    """(rows, n) at a table (subsets, m) of places: (rows, subsets, m)."""
    rows, width = array.shape[0], len(table[0])
    flat = xp.asarray([place for places in table for place in places], dtype=xp.int64, device=array.device)
    return xp.reshape(xp.take(array, flat, axis=1), (rows, len(table), width))


def _log_sum_exp(logs: Array, xp: Namespace) -> Array:
    """Over the last axis; -inf for nothing."""
    if logs.shape[-1] == 0:
        return xp.full(logs.shape[:-1], -math.inf, dtype=logs.dtype, device=logs.device)
    top = xp.max(logs, axis=-1, keepdims=True)
    safe = xp.where(top > -math.inf, top, 0.0)
    return (safe + xp.log(xp.sum(xp.exp(logs - safe), axis=-1, keepdims=True)))[..., 0]
