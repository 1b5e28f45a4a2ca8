"""Successive softmax in its direct form, k steps over all items, for NumPy arrays with short and medium rows.

Rows are cut into blocks that stay in cache. Each row is given the way in which it is computed, rows of a block that go
the same way are computed together, and the arithmetic is left to the kernels. The way of a row depends on its keys and
its temperature alone; its neighbours may change the last digit, because sums are made in another order. The ways:

* float32 keys run in float32 for beta <= 1, where a step does not magnify errors, for not too many steps, and as long
  as no weight leaves its range; else in float64;
* float64 keys run in float64 for beta <= 1. For larger beta, where a step magnifies rounding, they go to the generic
  core, which treats tied items alike to the last bit;
* with k = 1, a plain softmax, there is no step, and beta does not matter;
* rows that underflow go to the generic core, too, which takes logarithms.

A gradient in float32 that turns out to be a small rest of large terms is computed again in float64, and so is every
tangent.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from gumbeltopk import _array_api as api
from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numpy import direct_kernels
from gumbeltopk._numpy.direct_layouts import EXACT, PLAIN, SHIFTED, Block, Doubles, Floats, Path, Scratch, Steps
from gumbeltopk._numpy.row_blocks import map_row_blocks

Ways = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Rows = Any  # a slice, or indices (some,)

# A way is an arithmetic and a kind of beta: ways of the same number have the same `Path`.
GENERIC, FLOAT32, FLOAT32_SHIFTED, FLOAT64, FLOAT64_EXACT = range(5)
ARITHMETICS = {
    FLOAT32: (np.float32, PLAIN),
    FLOAT32_SHIFTED: (np.float32, SHIFTED),
    FLOAT64: (np.float64, SHIFTED),
    FLOAT64_EXACT: (np.float64, EXACT),
}
SQUARE_ROOT = 0  # and 1 .. LARGEST_POWER_BY_PRODUCTS stand for themselves
STAYING, MOVING = generic.LARGEST_POWER_BY_PRODUCTS + 1, generic.LARGEST_POWER_BY_PRODUCTS + 2  # up to 1, and above
KINDS = MOVING + 1

LARGEST_FLOAT32_POWER = 1.0
SMALLEST_FLOAT32_POWER = 1e-30  # further down it is no normal number, and 0 times -inf is NaN
MOST_FLOAT32_STEPS = 64
SMALL_POWER = 0.5  # below, the p^j are about the same, and adding the same number again is always rounded the same way
MOST_FLOAT32_STEPS_AT_SMALL_POWER = 24
LARGEST_PLAIN_EXPONENT = 16.0  # of exp(r / t) in float32; an error of 16 rounding units at most
LARGEST_UNROUNDED_PLAIN_EXPONENT = 35.0  # the same, where beta is a power of 2, so that r / t is not rounded
DEEPEST_FLOAT32_GAP = 70.0  # exp(-70) / n is still a normal number of float32
DEEPEST_ROUNDED_GAP = 32.0  # a rounded exponent of -32 costs 7e-15
DEEPEST_GAP = 1e280  # beyond, differences of keys overflow
SMALLEST_PRODUCT = math.exp(generic.SMALLEST_LOG_MASS)  # of the S; the generic core looks closer at rows below
STEEPEST_POWER = 1e80  # beyond, and below its inverse, products with beta overflow


class Trajectory(NamedTuple):
    """What the derivatives need of the forward pass: O(rows n) and O(rows k). The arrays belong to nobody else.

    No states are kept: the derivatives make p^j again, block by block, from the keys and the normalisers.
    """

    keys: Floats  # (rows, n)
    temperature: Doubles  # (rows, 1) or (1, 1)
    way: Ways  # (rows,): how the row is computed
    held: npt.NDArray[np.int32]  # (k, rows): the item held out in step j
    shares: Doubles  # (k, 2, rows): its p^j, and the sum of the others
    masses: Doubles  # (k, rows): what p^j was divided by


class Kernels(NamedTuple):
    """The arithmetic on a block of rows: what another implementation has to provide.

    A `Block` holds keys (rows, n), contiguous, temperatures (rows, 1) or (1, 1), and the `Path` of all of its rows.
    `Steps` are records that forward fills, except for the first items held out, and that the others read; possibly not
    contiguous. Arrays (rows, n) that a kernel fills are contiguous, in the dtype of the keys. Each row of a result must
    depend on this row alone, but for rounding.
    """

    forward_block: Callable[[Block, int, Floats, Steps, Scratch], Doubles]
    """(block, k, a, steps, scratch): fill a and the steps; the product of the S, NaN where digits were lost."""
    vjp_block: Callable[[Block, int, Steps, Floats, Floats, Doubles | None, Scratch], npt.NDArray[np.bool_]]
    """(block, k, steps, cotangent, key_gradient, temperature_gradient (rows,) or None, scratch): fill the gradients;
    whether float32 was too narrow (rows,)."""
    jvp_block: Callable[[Block, int, Steps, Floats, Doubles, Floats, Scratch], None]
    """(block, k, steps, key_tangent, temperature_tangent (rows,) or (1,), tangent, scratch): fill the tangent."""
    rows_in_block: Callable[[int, int, Any, bool], int]
    """(n, k, dtype of the keys, whether for a derivative): how many rows to give at a time."""


NUMPY = Kernels(
    direct_kernels.forward_block, direct_kernels.vjp_block, direct_kernels.jvp_block, direct_kernels.rows_in_block
)


# --- value and derivatives ------------------------------------------------------------------------


def forward(
    keys: Floats, temperature: Doubles, k: int, keep: bool, kernels: Kernels = NUMPY
) -> tuple[Floats, Trajectory | None]:
    """The relaxed k-hot a (rows, n) in the dtype of the keys, and, if `keep`, what the derivatives need.

    keys (rows, n) are float32 or float64, finite or -inf, with k >= 1 finite ones a row at least; the temperature is
    float64, (rows, 1) or (1, 1).
    """
    keys = np.array(keys, order="C") if keep else np.ascontiguousarray(keys)
    trajectory = _new_trajectory(keys, np.array(temperature), k)
    a, scratch = np.empty_like(keys), Scratch()
    kind, narrow = _of_temperatures(temperature, k)

    def run(rows: slice) -> None:
        _choose_ways(trajectory, k, kind, narrow, rows)
        _forward_rows(trajectory, k, rows, a, scratch, kernels)

    map_row_blocks(run, keys, k, kernels.rows_in_block(keys.shape[1], k, keys.dtype, False))
    return a, trajectory if keep else None


def _new_trajectory(keys: Floats, temperature: Doubles, k: int) -> Trajectory:
    rows = keys.shape[0]
    held, shares, masses = np.empty((k, rows), dtype=np.int32), np.empty((k, 2, rows)), np.empty((k, rows))
    return Trajectory(keys, temperature, np.empty(rows, dtype=np.uint8), held, shares, masses)


def _forward_rows(trajectory: Trajectory, k: int, rows: Rows, a: Floats, scratch: Scratch, kernels: Kernels) -> None:
    for path, some in _groups(trajectory, rows):
        if path is None:
            a[some] = _generic_forward(trajectory, k, some, None)[0]
            continue
        steps, part = _steps(trajectory, some), a[some]
        product = kernels.forward_block(_block(trajectory, path, some), k, part, steps, scratch)
        if not isinstance(some, slice):
            a[some] = part
            trajectory.held[:, some], trajectory.shares[..., some], trajectory.masses[:, some] = steps
        enough = product >= SMALLEST_PRODUCT
        if not enough.all():
            lost = _indices(some)[~enough]
            trajectory.way[lost] = GENERIC
            a[lost] = _generic_forward(trajectory, k, lost, None)[0]


def vjp(
    trajectory: Trajectory, k: int, cotangent: Floats, by_temperature: bool = True, kernels: Kernels = NUMPY
) -> tuple[Floats, Doubles | None]:
    """Gradients by the keys (rows, n), in their dtype, and by the temperature, row by row (rows, 1).

    Without `by_temperature` the second is None, which saves k logarithms an item.
    """
    keys = trajectory.keys
    gradient = np.empty_like(keys)
    by_rows = np.empty(gradient.shape[0]) if by_temperature else None
    scratch = Scratch()

    def run(rows: slice) -> None:
        _vjp_rows(trajectory, k, rows, cotangent, gradient, by_rows, scratch, kernels)

    map_row_blocks(run, keys, k, kernels.rows_in_block(keys.shape[1], k, keys.dtype, True))
    return gradient, None if by_rows is None else by_rows[:, None]


def _vjp_rows(
    trajectory: Trajectory,
    k: int,
    rows: Rows,
    cotangent: Floats,
    gradient: Floats,
    by_rows: Doubles | None,
    scratch: Scratch,
    kernels: Kernels,
) -> None:
    for path, some in _groups(trajectory, rows):
        part, own = gradient[some], None if by_rows is None else by_rows[some]
        if path is None:
            part, own = _generic_vjp(trajectory, k, some, cotangent[some])
        else:
            block, steps = _block(trajectory, path, some), _steps(trajectory, some)
            doubtful = kernels.vjp_block(block, k, steps, cotangent[some], part, own, scratch)
        if path is None or not isinstance(some, slice):
            gradient[some] = part
            if by_rows is not None:
                by_rows[some] = own
        if path is not None and doubtful.any():
            again = _indices(some)[doubtful]
            wide = _in_float64(trajectory, k, again, scratch, kernels)
            gradient[again], own = vjp(wide, k, cotangent[again], by_rows is not None, kernels)
            if by_rows is not None and own is not None:
                by_rows[again] = own[:, 0]


def jvp(
    trajectory: Trajectory, k: int, key_tangent: Floats, temperature_tangent: Doubles, kernels: Kernels = NUMPY
) -> Floats:
    """Tangent of a (rows, n) from those of the keys (rows, n) and the temperature, (rows, 1) or (1, 1).

    Always in float64: a tangent sums contributions of both signs, and an error of the states is in all of them.
    """
    keys = trajectory.keys
    tangent = np.empty_like(keys)
    scratch = Scratch()

    def run(rows: slice) -> None:
        _jvp_rows(trajectory, k, rows, key_tangent, temperature_tangent, tangent, scratch, kernels)

    map_row_blocks(run, keys, k, kernels.rows_in_block(keys.shape[1], k, keys.dtype, True))
    return tangent


def _jvp_rows(
    trajectory: Trajectory,
    k: int,
    rows: Rows,
    key_tangent: Floats,
    temperature_tangent: Doubles,
    tangent: Floats,
    scratch: Scratch,
    kernels: Kernels,
) -> None:
    for path, some in _groups(trajectory, rows):
        own = _of_rows(temperature_tangent, some)
        if path is None:
            tangent[some] = _generic_jvp(trajectory, k, some, key_tangent[some], own)
            continue
        if path.dtype == np.float32:
            tangent[some] = jvp(_in_float64(trajectory, k, some, scratch, kernels), k, key_tangent[some], own, kernels)
            continue
        block, steps, part = _block(trajectory, path, some), _steps(trajectory, some), tangent[some]
        kernels.jvp_block(block, k, steps, key_tangent[some], own[:, 0], part, scratch)
        if not isinstance(some, slice):
            tangent[some] = part


def _in_float64(trajectory: Trajectory, k: int, rows: Rows, scratch: Scratch, kernels: Kernels) -> Trajectory:
    """The trajectory of some rows that were computed in float32, from a forward pass in float64."""
    wide = _new_trajectory(trajectory.keys[rows], _of_rows(trajectory.temperature, rows), k)
    wide.way[...] = FLOAT64 * KINDS + trajectory.way[rows] % KINDS
    wide.held[0] = trajectory.held[0, rows]
    _forward_rows(wide, k, slice(0, len(wide.keys)), np.empty_like(wide.keys), scratch, kernels)
    return wide


# --- blocks ---------------------------------------------------------------------------------------


def _groups(trajectory: Trajectory, rows: Rows) -> Iterator[tuple[Path | None, Rows]]:
    """The ways of some rows, with the rows that go each; None for the generic core."""
    way = trajectory.way[rows]
    if (way == way[0]).all():
        yield _path(int(way[0])), rows
        return
    indices = _indices(rows)
    for own in np.unique(way):
        yield _path(int(own)), indices[way == own]


@functools.cache
def _path(way: int) -> Path | None:
    arithmetic, kind = divmod(way, KINDS)
    if arithmetic == GENERIC:
        return None
    power = 0.5 if kind == SQUARE_ROOT else None if kind >= STAYING else float(kind)
    return Path(*ARITHMETICS[arithmetic], power, kind == MOVING or (power or 0.0) > 1.0)


def _block(trajectory: Trajectory, path: Path, rows: Rows) -> Block:
    return Block(trajectory.keys[rows], _of_rows(trajectory.temperature, rows), path)


def _steps(trajectory: Trajectory, rows: Rows) -> Steps:
    return Steps(trajectory.held[:, rows], trajectory.shares[..., rows], trajectory.masses[:, rows])


def _of_rows(per_row: Any, rows: Rows) -> Any:
    return per_row if per_row.shape[0] == 1 else per_row[rows]


def _indices(rows: Rows) -> npt.NDArray[np.intp]:
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows


# --- which row goes which way ---------------------------------------------------------------------


def _choose_ways(trajectory: Trajectory, k: int, kind: Ways, narrow: Flags, rows: slice) -> None:
    """Write the ways of a block of rows, and the largest item of each, which is held out in the first step.

    `kind` and `narrow`, whether the temperature allows for float32, are (rows,) or (1,).
    """
    keys, temperature = trajectory.keys[rows], _of_rows(trajectory.temperature, rows)[:, 0]
    held = keys.argmax(axis=1)
    trajectory.held[0, rows] = held
    high = keys[np.arange(held.size), held].astype(np.float64)
    largest, coldest = max(float(high.max()), -float(keys.min())), float(temperature.min())
    narrow = _of_rows(narrow, rows)
    if largest <= LARGEST_PLAIN_EXPONENT * coldest and narrow.all() and temperature.max() <= STEEPEST_POWER:
        # Where even the extremes are harmless each row is: what `_arithmetic` would find, without a look at the rows.
        arithmetic: Any = FLOAT32 if keys.dtype == np.float32 else FLOAT64
    else:
        arithmetic = _arithmetic(_smallest(keys), high, 1.0 / temperature, k, narrow, keys.dtype)
    trajectory.way[rows] = arithmetic * KINDS + _of_rows(kind, rows)


def _smallest(keys: Floats) -> Doubles:
    """The smallest finite key of each row."""
    low: Doubles = keys.min(axis=1).astype(np.float64)
    for row in np.flatnonzero(np.isneginf(low)):
        low[row] = np.min(keys[row], where=np.isfinite(keys[row]), initial=np.inf)
    return low


def _arithmetic(low: Doubles, high: Doubles, power: Doubles, k: int, narrow: Flags, dtype: Any) -> Any:
    gap = (high - low) * power
    if dtype == np.float32:
        rounded = np.frexp(power)[0] != 0.5
        largest_plain = np.where(rounded, LARGEST_PLAIN_EXPONENT, LARGEST_UNROUNDED_PLAIN_EXPONENT)
        plain = np.maximum(np.abs(low), np.abs(high)) * power <= largest_plain
        in_float32 = np.where(plain, FLOAT32, FLOAT32_SHIFTED)
        found = np.where(narrow & (gap <= DEEPEST_FLOAT32_GAP), in_float32, FLOAT64)
    else:
        in_float64 = np.where(gap <= DEEPEST_ROUNDED_GAP, FLOAT64, FLOAT64_EXACT)
        found = np.where((power <= 1.0) | (k == 1), in_float64, GENERIC)
    moderate = (high - low <= DEEPEST_GAP) & (power <= STEEPEST_POWER) & (power >= 1.0 / STEEPEST_POWER)
    return np.where(moderate, found, GENERIC)


def _of_temperatures(temperature: Doubles, k: int) -> tuple[Ways, Flags]:
    """The kind of beta, and whether the temperature allows for float32, (rows,) or (1,)."""
    if temperature.size == 1:
        return _of_temperature(float(temperature[0, 0]), k)
    return _kind(temperature[:, 0]), _allows_float32(temperature[:, 0], k)


@functools.lru_cache(maxsize=64)
def _of_temperature(temperature: float, k: int) -> tuple[Ways, Flags]:
    alone = np.asarray([temperature])
    return _kind(alone), _allows_float32(alone, k)


def _allows_float32(temperature: Doubles, k: int) -> Flags:
    power = 1.0 / temperature
    steps_fit = (power >= SMALL_POWER) & (k <= MOST_FLOAT32_STEPS) | (k <= MOST_FLOAT32_STEPS_AT_SMALL_POWER)
    return (steps_fit & (power <= LARGEST_FLOAT32_POWER) | (k == 1)) & (power >= SMALLEST_FLOAT32_POWER)


def _kind(temperature: Doubles) -> Ways:
    power = 1.0 / temperature
    kind = np.where(power > 1.0, MOVING, STAYING)
    short_cut = (power == power.round()) & (power >= 1.0) & (power <= generic.LARGEST_POWER_BY_PRODUCTS)
    np.copyto(kind, power, where=short_cut, casting="unsafe")
    kind[power == 0.5] = SQUARE_ROOT
    return kind.astype(np.uint8)


# --- rows for the generic core --------------------------------------------------------------------


def _generic_forward(
    trajectory: Trajectory, k: int, rows: Rows, every: int | None
) -> tuple[Doubles, generic.Trajectory | None]:
    temperature = _of_rows(trajectory.temperature, rows)
    power = 1.0 / temperature if temperature.shape[0] > 1 else 1.0 / float(temperature[0, 0])
    keys = trajectory.keys[rows].astype(np.float64)
    return generic.forward(keys, temperature, power, k, every, api.namespace_of(keys))


def _generic_states(trajectory: Trajectory, k: int, rows: Rows) -> tuple[generic.Trajectory, Any, int, int]:
    """The first arguments of the generic derivatives."""
    every = generic.checkpoint_interval(k)
    states = cast(generic.Trajectory, _generic_forward(trajectory, k, rows, every)[1])  # because of `every`
    power = 1.0 / states.temperature if states.temperature.shape[0] > 1 else 1.0 / float(states.temperature[0, 0])
    return states, power, k, every


def _generic_vjp(trajectory: Trajectory, k: int, rows: Rows, cotangent: Floats) -> tuple[Floats, Doubles]:
    wide = cotangent.astype(np.float64)
    gradient, by_temperature = generic.vjp(*_generic_states(trajectory, k, rows), wide, False, api.namespace_of(wide))
    return gradient, by_temperature[:, 0]


def _generic_jvp(trajectory: Trajectory, k: int, rows: Rows, key_tangent: Floats, temperature_tangent: Doubles) -> Any:
    wide = key_tangent.astype(np.float64)
    return generic.jvp(*_generic_states(trajectory, k, rows), wide, temperature_tangent, False, api.namespace_of(wide))
