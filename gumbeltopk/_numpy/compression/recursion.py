"""Successive softmax on weighted points: the k steps of the compressed form, and their two derivatives.

A point is an item, or a node that stands for many items of about the same weight. Arrays are (rows, points), float64,
and `weights` says how many items a point stands for (1 for an item; a node's may be any real number). With
q = beta p / (1 - p), one step is

    p' = p (1 - p)^beta / S,   S = sum of weights * p (1 - p)^beta.

Each step costs a handful of NumPy calls, whatever they do, so the steps are kept lean: the pivot, an item with
p > 1/2, is looked for in a chunk of steps that were made without it, and if there was one the chunk is made again.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._generic.successive_softmax import LARGEST_POWER_BY_PRODUCTS

CHUNK = 16  # steps between two looks at the pivot
CHUNK_ITEMS = 1 << 15  # of the arrays of a chunk
LAZY_NATS = 8.0  # by which unnormalised numbers may shrink: items at e^-700 stay normal float64

Floats = npt.NDArray[Any]


class Run(NamedTuple):
    """What k steps leave."""

    total: Floats  # (rows, points): sum of the p^j
    states: Floats | None  # (k, rows, points): the p^j
    log_mass: Floats  # (rows,): log of the product of the S
    slope: Floats  # (rows,): sum_j prod_{i < j} 1 / S_i, d total / d p^1 of a point of vanishing weight


# --- forward --------------------------------------------------------------------------------------


def run(p: Floats, weights: Floats, power: Any, k: int, keep: bool) -> Run:
    """k steps from the normalised p^1, whose first point is the heaviest item."""
    if holds_out(len(p), power):
        return _run_holding_out(p, weights, power, k, keep)
    return _run_in_chunks(p, weights, power, k, keep)


def holds_out(rows: int, power: Any) -> bool:
    """Whether the heaviest item is held out in all steps: several rows, beta <= 1."""
    return rows > 1 and bool(np.all(power <= 1.0))


def finish(total: Floats, states: Floats | None, masses: Floats) -> Run:
    """The result, from the S (k - 1, rows)."""
    slope = 1.0 + np.add.reduce(np.cumprod(1.0 / masses, axis=0), axis=0)
    return Run(total, states, np.add.reduce(np.log(masses), axis=0), slope)


def _run_holding_out(p: Floats, weights: Floats, power: Any, k: int, keep: bool) -> Run:
    """Several rows, beta <= 1: the heaviest item stays the heaviest (Theorem 1), and only it can come to p > 1/2.

    Its complement is the sum of the others in every step, so that nobody has to look for the pivot.
    """
    states = np.empty((k if keep else 2, *p.shape), dtype=p.dtype)
    states[0] = p
    total = p.copy()
    masses = np.empty((k - 1, len(p)), dtype=p.dtype)
    others = without_heaviest(weights).astype(p.dtype)
    one = np.ones((), dtype=p.dtype)  # faster than a Python float
    power = power if isinstance(power, float) else power.astype(p.dtype)
    c = np.empty_like(p)
    rest = np.vecdot(others, p)
    for j in range(k - 1):
        p, following = (states[j], states[j + 1]) if keep else (states[j % 2], states[(j + 1) % 2])
        np.subtract(one, p, c)
        c[:, 0] = rest
        raise_to(c, power)
        np.multiply(p, c, following)
        np.vecdot(others, following, rest)
        mass = np.add(rest, following[:, 0], masses[j])
        inverse = one / mass
        np.multiply(rest, inverse, rest)
        np.multiply(following, inverse[:, None], following)
        np.add(total, following, total)
    return finish(total.astype(np.float64), states if keep else None, masses.astype(np.float64))


def without_heaviest(weights: Floats) -> Floats:
    """The weights without the heaviest item's."""
    others = weights.copy()
    others[:, 0] = 0.0
    return others


def _run_in_chunks(p: Floats, weights: Floats, power: Any, k: int, keep: bool) -> Run:
    """A chunk of steps is made as if there were no pivot, and again for the rows where there was one."""
    chunk = max(1, min(CHUNK, CHUNK_ITEMS // p.size, k - 1))
    states = np.empty((k if keep else chunk + 1, *p.shape))
    states[0] = p
    total = p.copy()
    masses = np.empty((k - 1, len(p)))
    scratch = np.empty_like(p)
    settled = False  # no pivot can come any more
    lazy = _LazySteps(weights[0]) if len(p) == 1 and power == 1.0 else None
    views = list(states[:, 0]) if lazy else []
    first = 0
    while first < k - 1:
        steps = min(chunk, k - 1 - first)
        if lazy and first:
            steps = min(steps, _lazy_steps(masses[first - 1, 0]))
        start = first if keep else 0
        block, found = states[start : start + steps + 1], masses[first : first + steps]
        if lazy and first:
            lazy.chunk(block[:, 0], views[start : start + steps + 1], found[:, 0])
        else:
            _chunk(block, weights, power, found, scratch)
        if not settled:
            pivots = ~(np.max(block[:-1], axis=(0, 2)) <= 0.5)  # NaN counts as one, too: 0 / 0 next to p = 1
            if pivots.any():
                _chunk_again(block, weights, power, found, np.flatnonzero(pivots))
            elif isinstance(power, float) and power <= 1.0:
                # The largest p never grows: (1 - p)^beta is smallest there, hence not above the mean S.
                settled = True
        total += np.add.reduce(block[1:], axis=0)
        if not keep:
            states[0] = block[steps]
        first += steps
    return finish(total, states if keep else None, masses)


def _chunk(block: Floats, weights: Floats, power: Any, masses: Floats, c: Floats) -> None:
    for j in range(block.shape[0] - 1):
        p, following = block[j], block[j + 1]
        np.subtract(1.0, p, out=c)
        raise_to(c, power)
        np.multiply(p, c, out=following)
        mass = np.vecdot(weights, following, out=masses[j])
        np.multiply(following, (1.0 / mass)[:, None], out=following)


def _chunk_again(block: Floats, weights: Floats, power: Any, masses: Floats, rows: npt.NDArray[np.intp]) -> None:
    """The chunk for the rows with a pivot, whose complement is the sum of the others."""
    own = block[:, rows]
    own_masses = np.empty((len(masses), len(rows)))
    own_power = power if isinstance(power, float) or len(power) == 1 else power[rows]
    _chunk_with_pivots(own, weights[rows], own_power, own_masses)
    block[1:, rows], masses[:, rows] = own[1:], own_masses


def _lazy_steps(mass: float) -> int:
    """How many steps `_LazySteps` can make while Z, about S^(2^steps), takes no digits off the smallest p."""
    if not 0.0 < mass < 1.0:
        return 1
    return max(1, int(math.log2(LAZY_NATS / max(-math.log(mass), 1e-4))))


class _LazySteps:
    """`_chunk` for one row and beta = 1, normalised at the end: with p = u / Z, u' = u (Z - u) and S = Z' / Z^2.

    Views are made once and the Z are 0-d arrays, so that a step is three calls and nothing else.
    """

    def __init__(self, weights: Floats) -> None:
        self.dot = weights.dot
        self.sums = np.ones(CHUNK + 1)
        self.cells = [self.sums[j, ...] for j in range(CHUNK + 1)]
        self.complement = np.empty_like(weights)

    def chunk(self, block: Floats, rows: list[Floats], masses: Floats) -> None:
        """Fill block[1:], whose rows are `rows`, and the S."""
        subtract, multiply, dot, complement = np.subtract, np.multiply, self.dot, self.complement
        u, z = rows[0], self.cells[0]
        for following, cell in zip(rows[1:], self.cells[1:], strict=False):
            subtract(z, u, complement)
            multiply(u, complement, following)
            dot(following, cell)
            u, z = following, cell
        sums = self.sums[: len(rows)]
        inverse = 1.0 / sums
        masses[:] = sums[1:] * inverse[:-1] * inverse[:-1]
        block[1:] *= inverse[1:, None]


def _chunk_with_pivots(block: Floats, weights: Floats, power: Any, masses: Floats) -> None:
    """The complement of the pivot is the sum of the others, exactly."""
    for j in range(block.shape[0] - 1):
        p, following = block[j], block[j + 1]
        complement, _, _ = complements(p, weights)
        raise_to(complement, power)
        np.multiply(p, complement, out=following)
        mass = np.vecdot(weights, following, out=masses[j])
        np.divide(following, mass[:, None], out=following)


def complements(p: Floats, weights: Floats) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """1 - p without cancellation (rows, points), where the pivot is, and its complement (rows, 1)."""
    pivot = p > 0.5
    rest = np.vecdot(weights, np.where(pivot, 0.0, p))[..., None]
    return np.where(pivot, rest, 1.0 - p), pivot, rest


def raise_to(base: Floats, power: Any) -> None:
    """base **= power, by products where the power is a small whole number."""
    if not isinstance(power, float):
        np.power(base, power, out=base)
    elif power == 0.5:
        np.sqrt(base, out=base)
    elif power != round(power) or power > LARGEST_POWER_BY_PRODUCTS:
        np.power(base, power, out=base)
    elif power != 1.0:
        square, remaining = base.copy(), int(power) - 1
        while remaining:
            if remaining & 1:
                base *= square
            remaining >>= 1
            if remaining:
                square *= square
