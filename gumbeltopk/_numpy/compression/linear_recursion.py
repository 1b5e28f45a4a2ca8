"""The two derivatives of the k steps on weighted points: linear recursions on items and nodes.

The tangent or adjoint of an item of weight v is linear in its own input g, say g E(v) + D(v). Items are followed
themselves; at the nodes E and D are followed, which stand for all inputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._numpy.compression import steps_at_once
from gumbeltopk._numpy.compression.recursion import CHUNK, CHUNK_ITEMS, complements, holds_out, without_heaviest

Floats = npt.NDArray[Any]


class Columns(NamedTuple):
    """What the columns of the derivatives' arrays are: [items, E at the nodes, D at the nodes].

    The tangent or adjoint of an item of weight v is linear in its own input g, say g E(v) + D(v): items are followed
    themselves, nodes are followed as E and D.
    """

    items: int
    weights: (
        Floats  # (rows, columns): 1 for items, then the weights of the measure sum g delta_v, then those of sum delta_v
    )
    shared: Floats  # (columns,): 1 for items and D, which feel what all items share; 0 for E
    own: Floats  # (rows, columns): g for items, 1 for E, 0 for D

    def widen(self, states: Floats) -> Floats:
        """(..., points) -> (..., columns)."""
        return np.concatenate([states, states[..., self.items :]], axis=-1)

    def at_points(self, weights: Floats) -> steps_at_once.Inputs:
        """Of one row, with the weights of its points."""
        items, points = self.items, weights.shape[1]
        by_own = np.concatenate([self.own[0, :items], self.weights[0, items:points]])
        return steps_at_once.Inputs(items, by_own, weights[0])


def columns(inputs: Floats, input_weights: Floats, weights: Floats) -> Columns:
    """From g of the items (rows, items), and at the nodes (rows, nodes) the weights of both measures."""
    rows, items = inputs.shape
    nodes = input_weights.shape[1]
    return Columns(
        items,
        np.concatenate([np.ones_like(inputs), input_weights, weights[:, items:]], axis=1),
        np.concatenate([np.ones(items), np.zeros(nodes), np.ones(nodes)]),
        np.concatenate([inputs, np.ones((rows, nodes)), np.zeros((rows, nodes))], axis=1),
    )


class Pivots(NamedTuple):
    """Items with p > 1/2 in a few steps."""

    where: npt.NDArray[np.bool_]  # (steps, rows, columns)
    rest: Floats  # (steps, rows, 1): their complement


class Chunk(NamedTuple):
    """Quantities of a few steps, for all columns (steps, rows, columns)."""

    p: Floats
    q: Floats  # beta p / (1 - p); 0 at the pivot
    log_complement: Floats | None
    pivots: Pivots | None  # None: there are none in these steps


def _starts(states: Floats, columns: Columns) -> range:
    """The first step of each chunk."""
    rows, own_columns = columns.own.shape
    length = steps_at_once.length(own_columns) if rows == 1 else min(CHUNK, CHUNK_ITEMS // columns.own.size)
    return range(0, states.shape[0], max(1, length))


def _chunk(block: Floats, weights: Floats, columns: Columns, beta: Any, logs: bool) -> Chunk:
    """The quantities of the steps of `block` (steps, rows, points)."""
    pivots = None
    if np.max(block) > 0.5:
        complement, where, rest = complements(block, weights)
        divisor = np.where(where, np.inf, complement)
        pivots = Pivots(columns.widen(where), rest)
    else:
        complement = divisor = 1.0 - block
    q = columns.widen(beta * block / divisor)
    log_complement = columns.widen(np.log(np.where(complement > 0.0, complement, 1.0))) if logs else None
    return Chunk(columns.widen(block), q, log_complement, pivots)


def reverse(states: Floats, weights: Floats, columns: Columns, beta: Any, logs: bool) -> tuple[Floats, Floats]:
    """Adjoint of the l^1 (rows, columns), and the temperature's sum_j sum x_{j+1} log(1 - p^j) (rows,) if `logs`.

    Without a pivot   H = p g - q x,                    x <- x + H - p sum(H);
    with pivot i      H = p (g - g_i) - q x, H_i = 0,   x <- x + H - p sum(H) + p beta x_i p_i / c_i,
                      x_i <- x_i (c_i + (1 - beta) p_i) - p_i sum(H).
    The second holds for any item i that is held out with its exact complement.
    """
    if holds_out(states.shape[1], beta):
        return _reverse_holding_out(states, weights, columns, beta, logs)
    return _reverse_in_chunks(states, weights, columns, beta, logs)


def _reverse_holding_out(
    states: Floats, weights: Floats, columns: Columns, beta: Any, logs: bool
) -> tuple[Floats, Floats]:
    """Several rows, beta <= 1: the heaviest item, in the first column, is the one held out in all steps."""
    k, rows, points = states.shape
    items = columns.items
    held_g = columns.own[:, :1].copy()
    own = columns.own.copy()
    own[:, :items] -= held_g
    own[:, points:] = -held_g
    others = without_heaviest(columns.weights)
    own, others = own.astype(states.dtype), others.astype(states.dtype)
    held = states[:, :, 0].astype(np.float64)
    rest = np.vecdot(without_heaviest(weights).astype(states.dtype), states).astype(np.float64)
    beta_of_row = beta if isinstance(beta, float) else beta[:, 0]
    kept = rest + (1.0 - beta_of_row) * held
    pull = beta_of_row * held / np.where(rest > 0.0, rest, 1.0)
    x, x_held, by_logs = np.zeros_like(own), np.zeros(rows), np.zeros(rows)
    p, t = np.empty((2, *own.shape), dtype=own.dtype)
    one = np.ones((), dtype=own.dtype)  # faster than a Python float
    narrow_beta = beta if isinstance(beta, float) else beta.astype(own.dtype)
    for j in reversed(range(k)):
        p[:, :points] = states[j]
        p[:, points:] = states[j, :, items:]
        p[:, 0] = 0.0
        if j == k - 1:
            np.multiply(p, own, t)
        else:
            np.subtract(one, p, t)
            if logs:
                by_logs += np.vecdot(others * np.log(t), x) + x_held * np.log(rest[j])
            np.divide(x, t, t)
            if not isinstance(beta, float) or beta != 1.0:
                np.multiply(t, narrow_beta, t)
            np.subtract(own, t, t)
            np.multiply(t, p, t)
        total = np.vecdot(others, t)
        np.add(x, t, x)
        p[:, items:points] = 0.0  # what all items share does not reach E
        shift = pull[j] * x_held - total
        np.multiply(p, shift.astype(p.dtype, copy=False)[:, None], p)
        np.add(x, p, x)
        x_held = x_held * kept[j] - held[j] * total
    x[:, 0] = x_held
    return x.astype(np.float64, copy=False), by_logs


def _reverse_in_chunks(
    states: Floats, weights: Floats, columns: Columns, beta: Any, logs: bool
) -> tuple[Floats, Floats]:
    """One row, or any beta: without a pivot wherever there is none in a chunk of steps."""
    k, rows, _ = states.shape
    x = np.zeros_like(columns.weights)
    by_logs = np.zeros(rows)
    starts = _starts(states, columns)
    inputs = columns.at_points(weights) if rows == 1 else None
    for first in reversed(starts):
        block = states[first : first + starts.step]
        if inputs is not None:
            outcome = steps_at_once.reverse(block[:, 0], inputs, float(np.reshape(beta, ())), x[0], logs)
            if outcome is not None:
                x[0] = outcome[0]
                by_logs += outcome[1]
                continue
        chunk = _chunk(block, weights, columns, beta, logs)
        own = chunk.p * columns.own
        shared = chunk.p * columns.shared
        if logs:
            weighted_logs = chunk.log_complement * columns.weights
        for j in reversed(range(chunk.p.shape[0])):
            if logs and first + j < k - 1:
                by_logs += np.vecdot(weighted_logs[j], x)
            if chunk.pivots is not None:
                x = _reverse_with_pivot(chunk, chunk.pivots, j, x, own[j], shared[j], columns, beta, first + j == k - 1)
            else:
                h = own[j] - chunk.q[j] * x
                total = np.vecdot(columns.weights, h)[:, None]
                x += h
                x -= shared[j] * total
    return x, by_logs


def _reverse_with_pivot(
    chunk: Chunk,
    pivots: Pivots,
    j: int,
    x: Floats,
    own: Floats,
    shared: Floats,
    columns: Columns,
    beta: Any,
    last: bool,
) -> Floats:
    pivot, rest = pivots.where[j], pivots.rest[j]
    at_pivot = np.where(pivot, x, 0.0).sum(axis=-1, keepdims=True)
    p_pivot = np.where(pivot, chunk.p[j], 0.0).sum(axis=-1, keepdims=True)
    g_pivot = np.where(pivot, columns.own, 0.0).sum(axis=-1, keepdims=True)
    h = np.where(pivot, 0.0, own - shared * g_pivot - chunk.q[j] * x)
    total = np.vecdot(columns.weights, h)[:, None]
    pull = np.zeros_like(total) if last else beta * at_pivot * p_pivot / np.where(p_pivot > 0.0, rest, 1.0)
    others = x + h + shared * (pull - total)
    return np.asarray(np.where(pivot, x * (rest + (1.0 - beta) * p_pivot) - chunk.p[j] * total, others))


def tangent(states: Floats, weights: Floats, columns: Columns, beta: Any, dbeta: Any) -> Floats:
    """Tangent of the total (rows, columns); the inputs g are the tangents of the l^1.

    With d = dl - dl_i where there is a pivot i:  s = sum p d,  dp = p (d - s),
        dl <- dl + dbeta log(1 - p) - beta dp / (1 - p),  and at the pivot - beta dp / (1 - p) is + beta p_i s / c_i.
    """
    states = states.astype(np.float64, copy=False)
    k = states.shape[0]
    dl = columns.own
    total = np.zeros_like(dl)
    shared = columns.shared
    starts, logs = _starts(states, columns), bool(np.any(dbeta))
    for first in starts:
        chunk = _chunk(states[first : first + starts.step], weights, columns, beta, logs)
        for j in range(chunk.p.shape[0]):
            p = chunk.p[j]
            d = dl
            if chunk.pivots is not None:
                d = dl - np.where(chunk.pivots.where[j], dl, 0.0).sum(axis=-1, keepdims=True) * shared
            s = np.vecdot(columns.weights, p * d)[:, None]
            centred = d - s * shared
            total += p * centred
            if first + j == k - 1:
                break
            moved = dl - chunk.q[j] * centred
            if chunk.pivots is not None:
                rest = chunk.pivots.rest[j]
                moved = np.where(chunk.pivots.where[j], dl + beta * p * s / np.where(rest > 0.0, rest, 1.0), moved)
            dl = moved if chunk.log_complement is None else moved + dbeta * chunk.log_complement[j] * shared
    return total
