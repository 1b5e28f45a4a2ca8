"""Successive softmax on one block of rows, in passes over arrays that stay in cache: value, VJP and JVP.

The recursion is p' = p (1 - p)^beta / S (see `_generic.successive_softmax`). The generic core looks for the *pivot*,
an item with p > 1/2, in each step, because 1 - p would cancel there. Here each row *holds out* one item i: its p lives
outside of the array, as P, next to the sum R of the others, which is 1 - P without cancellation. Its slot in the array
is 0. For the others the plain formulas are exact as long as their p stay at 1/2 and below, so a step is

    c = 1 - p;  p <- p c^beta;  O = sum p;  S = O + P R^beta;  p <- p / S;  P <- P R^beta / S;  R <- O / S;  a <- a + p

without any search. The largest item is held out at first. For beta <= 1 that is enough for all steps: it stays the
largest (Theorem 1), so the others are never above 1/2. For beta > 1 another item may come to p > 1/2. It is then held
out instead, and the one before goes back to its slot. That takes one look at the largest p of a row in each step.

The derivatives are those of the generic core with the item held out as the pivot; they hold for any item. VJP, with
G = g - g_i of the first i (the sum of a is k, so a constant in g does not matter) and x the adjoint of log p:

    t = G - beta x / c;  h = sum p t - G_i R;  x <- x + p (t - G_i - h + beta x_i P / R)
    x_i <- x_i (R + (1 - beta) P) - P h

JVP, with D the tangent of log p less its value at i:

    s = sum p D;  da <- da + p (D - s);  da_i <- da_i - P s
    D <- D - beta p (D - s) / c - beta P s / R + dbeta (log c - log R)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gumbeltopk import _array_api as api
from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numpy.direct_layouts import (
    PLAIN,
    SHIFTED,
    Block,
    Doubles,
    Floats,
    Layout,
    Scratch,
    Steps,
    Work,
)

BLOCK_BYTES = 1 << 19  # of an array of a block: a few of them stay in the second-level cache
STATES_BYTES = 1 << 22  # of all arrays of a block in a VJP, k of which are states
FEWEST_BYTES = 1 << 16  # of an array whatever k is, because each pass costs a call
HISTORY_BYTES = 1 << 23  # of the states at hand in a VJP; longer trajectories are made again in segments

SMALLEST_REST = 1e-200  # the derivatives divide by R
LARGEST_SHRINKAGE = 4.0  # of the square of an adjoint, in float32; beyond, what cancels in it leaves too few digits


def rows_in_block(n: int, k: int, dtype: Any, derivative: bool) -> int:
    """So many rows that the arrays of a block stay in cache."""
    size = BLOCK_BYTES
    if derivative and k > 1:
        size = min(max(STATES_BYTES // (k + 4), FEWEST_BYTES), BLOCK_BYTES // 2)
    return max(1, size // (n * int(np.dtype(dtype).itemsize)))


# --- the forward pass -----------------------------------------------------------------------------


def forward_block(block: Block, k: int, a: Floats, steps: Steps, scratch: Scratch) -> Doubles:
    """Fill a (rows, n) and the steps; return the product of the S (rows,), NaN where digits were lost."""
    work = Work(block, k, scratch)
    layout = work.layout
    total = p = work.output("total", a)
    if k == 1:
        steps.masses[0] = layout.sum(_exponentials(work, p))
        _normalise(work, steps, p)
        steps.shares[0, 0] = p[layout.at(layout.rows, steps.held[0])]
        steps.shares[0, 1] = 0.0  # R is for further steps
        work.deliver(p, a)
        return np.ones(layout.rows.shape)
    spares = work.take_several("spares", 2)
    scale, scale_narrow = np.empty(layout.rows.shape), np.empty(layout.rows.shape, dtype=work.dtype)
    scale_along = layout.along(scale_narrow)
    weights = np.empty((2, *layout.rows.shape))  # of the item held out and of all others
    steps.held[1:] = steps.held[0]
    start(work, steps, p, known=False)
    mover = Mover(layout, total, steps) if block.path.moves else None
    for j in range(1, k):
        following, mass = spares[j % 2], steps.masses[j]
        work.decay(p, following)
        work.decay_held(steps.shares[j - 1], weights[0])
        weights[1] = layout.sum(following)
        np.add(weights[0], weights[1], mass)
        np.reciprocal(mass, scale)
        np.multiply(weights, scale, steps.shares[j])
        scale_narrow[...] = scale
        np.multiply(following, scale_along, following)
        np.add(total, following, total)
        p = following
        if mover is not None:
            mover.move(p, j)
    slots = layout.at(layout.rows, steps.held[-1])
    total[slots] = np.add.reduce(steps.shares[:, 0], axis=0) if mover is None else total[slots] + mover.held_total
    work.deliver(total, a)
    product: Doubles = np.multiply.reduce(steps.masses[1:], axis=0)
    product[np.minimum.reduce(steps.shares[:-1, 1], axis=0) < SMALLEST_REST] = np.nan
    return product


def start(work: Work, steps: Steps, p: Floats, known: bool) -> None:
    """p^1 of the others in `p`. Its shares and its mass are written, unless they are known."""
    layout, mass = work.layout, steps.masses[0]
    slots = layout.at(layout.rows, steps.held[0])
    _exponentials(work, p)
    if not known:
        top = p[slots].astype(np.float64)
    p[slots] = 0.0
    if not known:
        others = layout.sum(p)
        np.add(top, others, mass)
        np.divide(top, mass, steps.shares[0, 0])
        np.divide(others, mass, steps.shares[0, 1])
    _normalise(work, steps, p)


def _normalise(work: Work, steps: Steps, p: Floats) -> None:
    scale = np.reciprocal(steps.masses[0]).astype(work.dtype, copy=False)
    np.multiply(p, work.layout.along(scale), p)


def _exponentials(work: Work, p: Floats) -> Floats:
    """The weights of the softmax in `p`, up to a factor of the row."""
    block = work.block
    source = work.read(block.keys, p)
    if block.path.start == PLAIN:
        if work.exponent != 1.0:
            source = np.multiply(source, work.beta_along, p)
        np.exp(source, p)
        return p
    wide = block.keys.astype(np.float64)
    if block.path.start == SHIFTED:
        wide -= np.max(wide, axis=1, keepdims=True)
        wide /= block.temperature
        np.exp(wide, wide)
    else:
        xp = api.namespace_of(wide)
        wide = generic.softmax_of_exponents(*generic.exponents(wide, block.temperature, xp), xp)
    np.copyto(p, work.layout.view(wide), casting="same_kind")
    return p


class Mover:
    """Holds out another item when it has come to p > 1/2."""

    def __init__(self, layout: Layout, total: Floats, steps: Steps) -> None:
        self.layout, self.total, self.steps = layout, total, steps
        self.held_total = steps.shares[0, 0].copy()  # what `total` lacks in the slots

    def move(self, p: Floats, j: int) -> None:
        """After p^j has been made and added to the total."""
        share, rest = self.steps.shares[j]
        self.held_total += share
        rows = np.flatnonzero(self.layout.largest(p) > 0.5)
        if rows.size == 0:
            return
        items = np.argmax(self.layout.pick(p, rows), axis=1)
        old = self.layout.at(rows, self.steps.held[j, rows])
        new = self.layout.at(rows, items)
        self.total[old] += self.held_total[rows]
        self.held_total[rows] = 0.0
        p[old] = share[rows]
        share[rows] = p[new]
        p[new] = 0.0
        rest[rows] = np.add.reduce(self.layout.pick(p, rows), axis=1)
        self.steps.held[j:, rows] = items


# --- the states once more, for the derivatives ------------------------------------------------------


class Ascent:
    """p^{j+1} from p^j, with the S and the items held out of the forward pass."""

    def __init__(self, work: Work, steps: Steps) -> None:
        self.work, self.steps = work, steps
        self.scales_along = work.layout.along((1.0 / steps.masses).astype(work.dtype, copy=False))

    def advance(self, j: int, p: Floats, following: Floats) -> None:
        """p^{j+1} in `following`."""
        self.work.decay(p, following)
        np.multiply(following, self.scales_along[j + 1], following)
        if self.work.block.path.moves:
            self._move(j, following)

    def _move(self, j: int, following: Floats) -> None:
        steps, layout = self.steps, self.work.layout
        rows = np.flatnonzero(steps.held[j] != steps.held[j + 1])
        if rows.size:
            back = self.work.decay_held(steps.shares[j]) / steps.masses[j + 1]
            following[layout.at(rows, steps.held[j, rows])] = back[rows]
            following[layout.at(rows, steps.held[j + 1, rows])] = 0.0

    def states_downwards(self) -> Iterator[tuple[int, Floats]]:
        """(j, p^j) for j = k - 1 .. 0.

        Of a long trajectory only the first state of each segment is kept on the way up; the others are made once more.
        """
        work, k = self.work, self.work.k
        bytes_of_state = work.block.keys.size * self.work.one.itemsize
        segments = range(0, k, min(k, max(math.isqrt(k), HISTORY_BYTES // bytes_of_state)))
        firsts = work.take_several("firsts", len(segments))
        others = work.take_several("others", segments.step - 1)
        start(work, self.steps, firsts[0], known=True)
        for first, p, following in zip(segments, firsts, firsts[1:], strict=False):
            self.advance(first + len(others), self._states(first, p, others)[-1], following)
        for first, p in zip(reversed(segments), reversed(firsts), strict=True):
            states = self._states(first, p, others[: k - first - 1])
            for j in reversed(range(len(states))):
                yield first + j, states[j]

    def _states(self, first: int, p: Floats, others: list[Floats]) -> list[Floats]:
        states = [p, *others]
        for j in range(len(others)):
            self.advance(first + j, states[j], states[j + 1])
        return states


# --- the vector-Jacobian product ------------------------------------------------------------------


def vjp_block(
    block: Block,
    k: int,
    steps: Steps,
    cotangent: Floats,
    key_gradient: Floats,
    temperature_gradient: Doubles | None,
    scratch: Scratch,
) -> npt.NDArray[np.bool_]:
    """Fill the gradient by the keys (rows, n) and, unless it is None, that by the temperature (rows,).

    Returns in which rows (rows,) the gradient is a small rest of what cancels in it.
    """
    work = Work(block, k, scratch)
    descent = Descent(work, steps, cotangent)
    watched = work.dtype == np.float32
    at_first = in_the_end = np.zeros(block.keys.shape[0])
    by_power: Any = 0.0
    for j, p in Ascent(work, steps).states_downwards():
        if j == k - 1:
            descent.last(p)
            if watched:
                at_first = descent.squares()
            continue
        if block.path.moves:
            descent.move(j)
        if temperature_gradient is not None:
            by_power += descent.log_complements(j, p)
        descent.step(j, p)
    if watched:
        in_the_end = descent.squares()
    x = descent.finish()
    if temperature_gradient is not None:
        by_power += work.layout.dot(x, _centred_keys(work, steps, descent.t))
        np.multiply(-work.beta * work.beta, by_power, temperature_gradient)
    if work.exponent != 1.0:
        np.multiply(x, work.beta_along, x)
    np.copyto(work.layout.view(key_gradient), x, casting="same_kind")
    # Squares of large float32 numbers overflow: the test is lost, or x itself.
    doubtful: npt.NDArray[np.bool_] = ~((at_first <= LARGEST_SHRINKAGE * in_the_end) & np.isfinite(in_the_end))
    return doubtful


class Descent:
    """The adjoint x of log p, step by step downwards: in the array of all items, and of the one held out.

    With s = sum p t, the correction y = G_i + h - beta x_i P / R and the next x_i are linear in the last x_i and s.
    """

    def __init__(self, work: Work, steps: Steps, cotangent: Floats) -> None:
        self.work, self.steps = work, steps
        layout = work.layout
        self.x, self.g, self.t = work.take("x"), work.take("g"), work.take("t")
        source = work.read(cotangent, self.g)
        np.subtract(source, layout.along(source[layout.at(layout.rows, steps.held[0])]), self.g)
        self.y = np.empty(layout.rows.shape, dtype=work.dtype)
        self.y_along = layout.along(self.y)
        self.x_held = np.zeros(layout.rows.shape)
        shares, rests = steps.shares[:, 0], steps.shares[:, 1]
        self.of_x_held = np.zeros_like(steps.shares)
        self.of_x_held[:-1, 0] = -work.beta * shares[:-1] / rests[:-1]
        self.of_x_held[:-1, 1] = rests[:-1] + (1.0 - work.beta) * shares[:-1]
        self.of_sum = np.ones_like(steps.shares)
        np.negative(shares, self.of_sum[:, 1])
        self.constant = self._constant(shares, rests) if work.block.path.moves else None

    def _constant(self, shares: Doubles, rests: Doubles) -> Doubles:
        layout = self.work.layout
        g_held = np.stack([self.g[layout.at(layout.rows, held)] for held in self.steps.held])
        return np.stack([g_held * shares, g_held * shares * rests], axis=1)

    def last(self, p: Floats) -> None:
        self._balance(self.work.k - 1, p, self.g)
        np.subtract(self.g, self.y_along, self.x)
        np.multiply(self.x, p, self.x)

    def step(self, j: int, p: Floats) -> None:
        x, t = self.x, self.t
        np.subtract(self.work.one, p, t)
        np.divide(x, t, t)
        if self.work.exponent != 1.0:
            np.multiply(t, self.work.beta_along, t)
        np.subtract(self.g, t, t)
        self._balance(j, p, t)
        np.subtract(t, self.y_along, t)
        np.multiply(t, p, t)
        np.add(x, t, x)

    def _balance(self, j: int, p: Floats, t: Floats) -> None:
        """y and the next x_i."""
        both = self.of_x_held[j] * self.x_held
        both += self.of_sum[j] * self.work.layout.dot(p, t)
        if self.constant is not None:
            both += self.constant[j]
        self.y[...], self.x_held = both

    def squares(self) -> Doubles:
        """The square of the norm of x."""
        of_others: Doubles = self.work.layout.dot(self.x, self.x)
        return of_others + self.x_held * self.x_held

    def move(self, j: int) -> None:
        """From the items held out in step j + 1 to those of step j."""
        held, layout = self.steps.held, self.work.layout
        rows = np.flatnonzero(held[j] != held[j + 1])
        if rows.size:
            self.x[layout.at(rows, held[j + 1, rows])] = self.x_held[rows]
            self.x_held[rows] = self.x[layout.at(rows, held[j, rows])]

    def log_complements(self, j: int, p: Floats) -> Doubles:
        """Sum of x log(1 - p), with the x of step j + 1."""
        np.negative(p, self.t)
        np.log1p(self.t, self.t)
        of_others: Doubles = self.work.layout.dot(self.x, self.t).astype(np.float64, copy=False)
        of_others += self.x_held * np.log(self.steps.shares[j, 1])
        return of_others

    def finish(self) -> Floats:
        """x with all items in their slots."""
        layout = self.work.layout
        self.x[layout.at(layout.rows, self.steps.held[0])] = self.x_held
        return self.x


def _centred_keys(work: Work, steps: Steps, out: Floats) -> Floats:
    """r - max r, with 0 for items of zero weight."""
    source = work.read(work.block.keys, out)
    layout = work.layout
    np.subtract(source, layout.along(source[layout.at(layout.rows, steps.held[0])]), out)
    if np.min(out) == -np.inf:
        np.copyto(out, 0.0, where=np.isneginf(out))
    return out


# --- the Jacobian-vector product ------------------------------------------------------------------


def jvp_block(
    block: Block,
    k: int,
    steps: Steps,
    key_tangent: Floats,
    temperature_tangent: Doubles,
    tangent: Floats,
    scratch: Scratch,
) -> None:
    """Fill the tangent of a (rows, n) from that of the keys (rows, n) and of the temperature (rows,) or (1,)."""
    work = Work(block, k, scratch)
    ascent = Ascent(work, steps)
    push = Push(work, steps, key_tangent, -work.beta * work.beta * temperature_tangent)
    total = work.output("total", tangent)
    total[...] = 0.0
    p, following = work.take_several("states", 2)
    start(work, steps, p, known=True)
    for j in range(k):
        np.add(total, push.of_p(j, p), total)
        if j < k - 1:
            push.step(j, p)
            ascent.advance(j, p, following)
            p, following = following, p
            if block.path.moves:
                push.move(j)
    work.deliver(total, tangent)


class Push:
    """The tangent d of log p, less its value at the item held out, step by step upwards."""

    def __init__(self, work: Work, steps: Steps, key_tangent: Floats, dbeta: Doubles) -> None:
        self.work, self.steps = work, steps
        layout = work.layout
        self.d, self.t, self.c = work.take_several("tangents", 3)
        np.multiply(work.read(key_tangent, self.d), work.beta_along, self.d)
        self.dbeta = dbeta if np.any(dbeta != 0.0) else None
        if self.dbeta is not None:
            self.dbeta_along = layout.along(self.dbeta.astype(work.dtype))
            self.d += np.multiply(_centred_keys(work, steps, self.t), self.dbeta_along, self.t)
        self.d -= layout.along(self.d[layout.at(layout.rows, steps.held[0])])

    def of_p(self, j: int, p: Floats) -> Floats:
        """The tangent of p^j."""
        layout = self.work.layout
        self.s = layout.dot(p, self.d).astype(np.float64, copy=False)
        np.subtract(self.d, layout.along(self.s.astype(self.work.dtype)), self.t)
        np.multiply(self.t, p, self.t)
        self.t[layout.at(layout.rows, self.steps.held[j])] = -self.steps.shares[j, 0] * self.s
        return self.t

    def step(self, j: int, p: Floats) -> None:
        """After `of_p`: from step j to step j + 1, with the same item held out."""
        work, layout, c = self.work, self.work.layout, self.c
        (share, rest), slots = self.steps.shares[j], layout.at(layout.rows, self.steps.held[j])
        np.subtract(work.one, p, c)
        np.divide(self.t, c, c)
        np.multiply(c, work.beta_along, c)
        self.d -= c
        shift = work.beta * share * self.s / rest
        if self.dbeta is not None:
            np.negative(p, c)
            np.log1p(c, c)
            self.d += np.multiply(c, self.dbeta_along, c)
            shift += self.dbeta * np.log(rest)
        self.d -= layout.along(shift.astype(work.dtype))
        self.d[slots] = 0.0

    def move(self, j: int) -> None:
        """From the items held out in step j to those of step j + 1."""
        held, layout = self.steps.held, self.work.layout
        rows = np.flatnonzero(held[j] != held[j + 1])
        if rows.size:
            shift = np.zeros(layout.rows.shape, dtype=self.work.dtype)
            shift[rows] = self.d[layout.at(rows, held[j + 1, rows])]
            self.d -= layout.along(shift)
