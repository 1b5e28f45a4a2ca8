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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk import _array_api as api
from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numpy.direct_layouts import Layout, Scratch

Floats = Any  # an array of float32 or float64
Doubles = npt.NDArray[np.float64]
Items = npt.NDArray[np.int32]

BLOCK_BYTES = 1 << 19  # of an array of a block: a few of them stay in the second-level cache
STATES_BYTES = 1 << 23  # of the k states of a VJP and its other arrays
OTHER_ARRAYS = 4
FEWEST_BYTES = 1 << 17  # of an array whatever k is, because each pass costs a call
HISTORY_BYTES = 1 << 24  # of the states at hand in a VJP; longer trajectories are made again in segments

SMALLEST_REST = 1e-200  # the derivatives divide by R

ONES = {dtype: np.ones((), dtype=dtype) for dtype in (np.float32, np.float64)}  # a Python float is slower

PLAIN, SHIFTED, EXACT = range(3)


class Path(NamedTuple):
    """How the rows of a block are computed."""

    dtype: Any  # of the recursion: float32 or float64
    start: int  # exponents r / t (PLAIN), (r - max r) / t in float64 (SHIFTED), or that in double-double (EXACT)
    exponent: float | None  # beta, where (1 - p)^beta has a short cut
    moves: bool  # whether another item may come to p > 1/2: beta > 1


class Block(NamedTuple):
    """Rows on the same path."""

    keys: Floats  # (rows, n), contiguous, float32 or float64
    temperature: Doubles  # (rows, 1) or (1, 1)
    path: Path


class Steps(NamedTuple):
    """What a row leaves of its steps, and all that the derivatives need besides the keys. Rows are on the last axis."""

    held: Items  # (k, rows): the item held out in step j
    shares: Doubles  # (k, 2, rows): its P, and R
    masses: Doubles  # (k, rows): what p^j was divided by; S from the second on

    def of_rows(self, rows: Any) -> Steps:
        """Those of some rows: views for a slice, copies for indices."""
        return Steps(self.held[..., rows], self.shares[..., rows], self.masses[..., rows])


def rows_in_block(n: int, k: int, dtype: Any, derivative: bool) -> int:
    """So many rows that the arrays of a block stay in cache."""
    states = STATES_BYTES // (k + OTHER_ARRAYS) if derivative else BLOCK_BYTES
    array_bytes = max(FEWEST_BYTES, min(BLOCK_BYTES, states))
    return max(1, array_bytes // (n * ONES[dtype].itemsize))


class Work:
    """A block in its layout: its numbers in the dtype of the recursion, and its buffers."""

    def __init__(self, block: Block, k: int, scratch: Scratch) -> None:
        rows, n = block.keys.shape
        self.block, self.k, self._scratch = block, k, scratch
        self.dtype = block.path.dtype
        self.exponent = block.path.exponent
        self.layout = scratch.layout(rows, n, k, self.dtype)
        self.one = ONES[self.dtype]
        self.beta: Doubles = 1.0 / block.temperature[:, 0]  # (rows,) or (1,)
        self.beta_along: Floats = self.layout.along(self.beta.astype(self.dtype))

    def take(self, name: str, *leading: int) -> Floats:
        """A buffer (*leading, *layout), of any content."""
        return self._scratch.take(name, (*leading, *self.layout.shape), self.dtype)

    def output(self, name: str, result: Floats) -> Floats:
        """`result` (rows, n) itself where the recursion can use it, else a buffer; see `deliver`."""
        return result if self.layout.rows_first and result.dtype == self.dtype else self.take(name)

    def read(self, rows: Floats, buffer: Floats) -> Floats:
        """An array (rows, n) in this layout and dtype: itself, or copied to the buffer."""
        seen = self.layout.view(rows)
        if self.layout.rows_first and rows.dtype == self.dtype:
            return seen
        np.copyto(buffer, seen)
        return buffer

    def fill(self, array: Floats, rows: Floats) -> None:
        """Fill `array`, in the layout, from an array (rows, n), unless it is the same."""
        if array is not rows:
            np.copyto(array, self.layout.view(rows), casting="same_kind")

    def wide_rows(self, array: Floats) -> Floats:
        """A float64 array (rows, n): `array` itself where it is one, else a buffer."""
        if self.layout.rows_first and self.dtype == np.float64:
            return array
        return self._scratch.take("wide", self.block.keys.shape, np.float64)

    def deliver(self, array: Floats, result: Floats) -> None:
        """Fill `result` (rows, n) from `array`, in the layout, unless it is already there."""
        if array is not result:
            np.copyto(self.layout.view(result), array, casting="same_kind")

    def raise_items(self, c: Floats) -> None:
        """c <- c^beta."""
        if self.exponent is None:
            np.log(c, c)
            np.multiply(c, self.beta_along, c)
            np.exp(c, c)
        elif self.exponent == 0.5:
            np.sqrt(c, c)
        elif self.exponent == 2.0:
            np.multiply(c, c, c)
        elif self.exponent != 1.0:
            _raise_by_products(c, int(self.exponent), self.take("square"))

    def raise_rest(self, rest: Doubles) -> Doubles:
        """R^beta (rows,)."""
        return rest if self.exponent == 1.0 else np.asarray(np.power(rest, self.beta))


def _raise_by_products(c: Floats, exponent: int, square: Floats) -> None:
    np.copyto(square, c)
    remaining = exponent - 1
    while remaining:
        if remaining & 1:
            np.multiply(c, square, c)
        remaining >>= 1
        if remaining:
            np.multiply(square, square, square)


# --- the forward pass -----------------------------------------------------------------------------


def forward_block(block: Block, k: int, a: Floats, steps: Steps, scratch: Scratch) -> Doubles:
    """Fill a (rows, n) and the steps; return log of the product of the S (rows,), NaN where digits were lost."""
    work = Work(block, k, scratch)
    layout = work.layout
    total = p = work.output("total", a)
    spares = (work.take("odd"), work.take("even")) if k > 1 else ()
    scale = np.empty(layout.rows.shape)
    scale_narrow = np.empty(layout.rows.shape, dtype=work.dtype)
    scale_along = layout.along(scale_narrow)
    steps.held[...] = np.argmax(block.keys, axis=1)
    start(work, steps, p, known=False)
    mover = Mover(layout, total, steps) if block.path.moves else None
    for j in range(1, k):
        c = spares[j % 2]
        before, shares, mass = steps.shares[j - 1], steps.shares[j], steps.masses[j]
        np.subtract(work.one, p, c)
        work.raise_items(c)
        np.multiply(c, p, c)
        np.multiply(before[0], work.raise_rest(before[1]), shares[0])
        shares[1] = layout.sum(c)
        np.add(shares[0], shares[1], mass)
        np.reciprocal(mass, scale)
        np.multiply(shares, scale, shares)
        scale_narrow[...] = scale
        np.multiply(c, scale_along, c)
        np.add(total, c, total)
        p = c
        if mover is not None:
            mover.move(p, j)
    slots = layout.at(layout.rows, steps.held[-1])
    total[slots] = np.add.reduce(steps.shares[:, 0], axis=0) if mover is None else total[slots] + mover.held_total
    work.deliver(total, a)
    return _log_mass(steps)


def _log_mass(steps: Steps) -> Doubles:
    log_mass: Doubles = np.add.reduce(np.log(steps.masses[1:]), axis=0)
    if steps.masses.shape[0] > 1:
        log_mass[np.minimum.reduce(steps.shares[:-1, 1], axis=0) < SMALLEST_REST] = np.nan
    return log_mass


def start(work: Work, steps: Steps, p: Floats, known: bool) -> None:
    """p^1 of the others in `p`. Its shares and its mass are written, unless they are known."""
    layout = work.layout
    _exponentials(work, steps.held[0], p)
    slots = layout.at(layout.rows, steps.held[0])
    if not known:
        top = p[slots].astype(np.float64)
    p[slots] = 0.0
    if not known:
        others = layout.sum(p)
        np.add(top, others, steps.masses[0])
        np.divide(top, steps.masses[0], steps.shares[0, 0])
        np.divide(others, steps.masses[0], steps.shares[0, 1])
    scale = (1.0 / steps.masses[0]).astype(work.dtype, copy=False)
    np.multiply(p, layout.along(scale), p)


def _exponentials(work: Work, held: Items, p: Floats) -> None:
    """The weights of the softmax, up to a factor of the row."""
    block, layout = work.block, work.layout
    keys = block.keys
    if block.path.start == PLAIN:
        source = work.read(keys, p)
        if work.exponent != 1.0:
            source = np.multiply(source, work.beta_along, p)
        np.exp(source, p)
    elif block.path.start == SHIFTED:
        weights = work.wide_rows(p)
        largest = keys[layout.rows, held].astype(np.float64)
        np.copyto(weights, keys)  # NumPy casts faster here than inside of an operation
        np.subtract(weights, largest[:, None], weights)
        np.divide(weights, block.temperature, weights)
        np.exp(weights, weights)
        work.fill(p, weights)
    else:
        xp = api.namespace_of(keys)
        work.fill(p, generic.softmax_of_exponents(*generic.exponents(keys, block.temperature, xp), xp))


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
        self.scales_along = work.layout.along((1.0 / steps.masses).astype(work.dtype))

    def advance(self, j: int, p: Floats, following: Floats) -> None:
        """p^{j+1} in `following`."""
        work = self.work
        np.subtract(work.one, p, following)
        work.raise_items(following)
        np.multiply(following, p, following)
        np.multiply(following, self.scales_along[j + 1], following)
        if work.block.path.moves:
            self._move(j, following)

    def _move(self, j: int, following: Floats) -> None:
        steps, layout = self.steps, self.work.layout
        rows = np.flatnonzero(steps.held[j] != steps.held[j + 1])
        share, rest = steps.shares[j]
        back = share * self.work.raise_rest(rest) / steps.masses[j + 1]
        following[layout.at(rows, steps.held[j, rows])] = back[rows]
        following[layout.at(rows, steps.held[j + 1, rows])] = 0.0

    def states_downwards(self, only: Floats) -> Iterator[tuple[int, Floats]]:
        """(j, p^j) for j = k - 1 .. 0. Of a long trajectory only the first state of each segment is kept on the way up.

        If there is only one state, it lies in the array `only`.
        """
        work, k = self.work, self.work.k
        length = min(k, max(math.isqrt(k), HISTORY_BYTES // (work.block.keys.size * self.work.one.itemsize)))
        starts = range(0, k, length)
        firsts = work.take("firsts", len(starts)) if k > 1 else only[None]
        others = work.take("others", length - 1)
        start(work, self.steps, firsts[0], known=True)
        for segment in range(len(starts) - 1):
            states = self._states(starts[segment], k, firsts[segment], others)
            self.advance(starts[segment + 1] - 1, states[-1], firsts[segment + 1])
        for segment in reversed(range(len(starts))):
            states = self._states(starts[segment], k, firsts[segment], others)
            for j in reversed(range(len(states))):
                yield starts[segment] + j, states[j]

    def _states(self, first: int, k: int, p: Floats, others: Floats) -> list[Floats]:
        states = [p, *others[: k - first - 1]]
        for j in range(len(states) - 1):
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
) -> Doubles:
    """Fill the gradient by the keys (rows, n) and, unless it is None, that by the temperature (rows,).

    Returns how far x shrinks from the last step to the first, as a ratio of squared norms (rows,): a large one tells
    of cancellation.
    """
    work = Work(block, k, scratch)
    descent = Descent(work, steps, cotangent, work.output("x", key_gradient))
    by_power: Any = 0.0
    for j, p in Ascent(work, steps).states_downwards(only=descent.x):
        if j == k - 1:
            descent.last(p)
            shrinkage = descent.prepare_steps() if k > 1 else np.zeros(block.keys.shape[0])
            continue
        if block.path.moves:
            descent.move(j)
        if temperature_gradient is not None:
            by_power += descent.log_complements(j, p)
        descent.step(j, p)
    x = descent.finish()
    if k > 1:
        shrinkage /= work.layout.dot(x, x)
    if temperature_gradient is not None:
        by_power += work.layout.dot(x, _centred_keys(work, steps, descent.t))
        np.multiply(-work.beta * work.beta, by_power, temperature_gradient)
    if work.exponent != 1.0:
        np.multiply(x, work.beta_along, x)
    work.deliver(x, key_gradient)
    return shrinkage


class Descent:
    """The adjoint x of log p, step by step downwards: in the array of all items, and of the one held out."""

    def __init__(self, work: Work, steps: Steps, cotangent: Floats, x: Floats) -> None:
        self.work, self.steps, self.x = work, steps, x
        layout = work.layout
        self.g, self.t = work.take("g"), work.take("t")
        source = work.read(cotangent, self.g)
        np.subtract(source, layout.along(source[layout.at(layout.rows, steps.held[0])]), self.g)
        self.y_narrow = np.empty(layout.rows.size, dtype=work.dtype)
        self.y_along = layout.along(self.y_narrow)

    def last(self, p: Floats) -> None:
        """x = p (g - y) of the last step.

        G = g - y is taken for g in the other steps, too: then their sums stay small, and so do the errors of float32.
        """
        layout, g = self.work.layout, self.g
        share, rest = self.steps.shares[-1]
        g_held = g[layout.at(layout.rows, self.steps.held[-1])]
        h = layout.dot(p, g) - rest * g_held
        self.y_narrow[...] = h + g_held
        np.subtract(g, self.y_along, g)
        np.multiply(g, p, self.x)
        self.x_held = -share * h

    def prepare_steps(self) -> Doubles:
        """In each step, y and the next x_i are linear in x_i and in the sum of p t: their coefficients (k, 2, rows).

        Returns the squared norm of x (rows,).
        """
        layout, beta = self.work.layout, self.work.beta
        shares, rests = self.steps.shares[:, 0], self.steps.shares[:, 1]
        g_held = self.g[layout.at(layout.rows, self.steps.held)]  # (k, rows)
        self.of_x_held, self.of_sum, self.constant = np.empty((3, *self.steps.shares.shape))
        self.of_x_held[:, 0] = -beta * shares / rests
        self.of_x_held[:, 1] = rests + (1.0 - beta) * shares
        self.of_sum[:, 0] = 1.0
        self.of_sum[:, 1] = -shares
        self.constant[:, 0] = g_held * shares
        self.constant[:, 1] = self.constant[:, 0] * rests
        self.sum = np.empty(layout.rows.size)
        self.y_and_x_held, self.term = np.empty((2, *self.of_sum[0].shape))
        squared_norm: Doubles = layout.dot(self.x, self.x) + self.x_held * self.x_held
        return squared_norm

    def step(self, j: int, p: Floats) -> None:
        x, t, y_and_x_held, term = self.x, self.t, self.y_and_x_held, self.term
        np.subtract(self.work.one, p, t)
        np.divide(x, t, t)
        if self.work.exponent != 1.0:
            np.multiply(t, self.work.beta_along, t)
        np.subtract(self.g, t, t)
        self.sum[...] = self.work.layout.dot(p, t)
        np.multiply(self.of_x_held[j], self.x_held, y_and_x_held)
        np.multiply(self.of_sum[j], self.sum, term)
        np.add(y_and_x_held, term, y_and_x_held)
        np.add(y_and_x_held, self.constant[j], y_and_x_held)
        self.y_narrow[...] = y_and_x_held[0]
        self.x_held[...] = y_and_x_held[1]
        np.subtract(t, self.y_along, t)
        np.multiply(t, p, t)
        np.add(x, t, x)

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
        total: Doubles = self.work.layout.dot(self.x, self.t) + self.x_held * np.log(self.steps.shares[j, 1])
        return total

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
    p, following = work.take("odd"), work.take("even")
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
        self.d, self.t, self.c = work.take("d"), work.take("t"), work.take("c")
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
