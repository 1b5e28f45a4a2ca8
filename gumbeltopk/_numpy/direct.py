"""Successive softmax in its direct form, k steps over all items, for NumPy arrays with short and medium rows.

`forward`, `vjp` and `jvp` choose for each row how it is computed, cut the rows into blocks that stay in cache, and
leave the arithmetic to the kernels. What happens to a row depends on this row alone: on its keys and temperature, not
on its neighbours. So rows may be cut into calls at will.

The ways to compute a row (`ways`):

* float32 keys run in float32 for beta <= 1, where a step does not magnify relative errors, for not too many steps, and
  as long as no weight leaves its range; else in float64. A VJP in float32 whose adjoint shrinks on its way down, which
  means that terms cancel, is made again in float64;
* float64 keys run in float64, with exponents in double-double where rounded ones would show;
* rows that underflow even there go to the generic core, which takes logarithms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk import _array_api as api
from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numpy import direct_kernels, settings
from gumbeltopk._numpy.direct_kernels import Block, Path, Steps
from gumbeltopk._numpy.direct_layouts import Scratch

Floats = Any  # an array of float32 or float64
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

# Ways to compute a row.
GENERIC, FLOAT32, FLOAT32_SHIFTED, FLOAT64, FLOAT64_EXACT = range(5)
STARTS = {
    FLOAT32: (np.float32, direct_kernels.PLAIN),
    FLOAT32_SHIFTED: (np.float32, direct_kernels.SHIFTED),
    FLOAT64: (np.float64, direct_kernels.SHIFTED),
    FLOAT64_EXACT: (np.float64, direct_kernels.EXACT),
}

# Measured: so a stays within 5e-6 relative and the VJP within 1e-6 normwise of float64 (tests/test_numpy_direct.py).
LARGEST_FLOAT32_POWER = 1.0
MOST_FLOAT32_STEPS = 64
SMALL_POWER = 0.5  # below, the p^j are about the same, and adding the same number again is always rounded the same way
MOST_FLOAT32_STEPS_AT_SMALL_POWER = 24
LARGEST_FLOAT32_SHRINKAGE = 4.0  # of the squared norm
LARGEST_PLAIN_EXPONENT = 16.0  # of exp(r / t) in float32; an error of 16 rounding units at most
LARGEST_UNROUNDED_PLAIN_EXPONENT = 35.0  # the same, where beta is a power of 2, so that r / t is not rounded
DEEPEST_FLOAT32_GAP = 70.0  # exp(-70) / n is still a normal number of float32
DEEPEST_ROUNDED_GAP = 32.0  # a rounded exponent of -32 costs 7e-15
LARGEST_FORGIVING_POWER = 2.0  # where steps do not magnify this error
DEEPEST_GAP = 1e280  # beyond, differences of keys overflow
STEEPEST_POWER = 1e80  # beyond, and below its inverse, products with beta overflow

MOVING, STAYING = -2.0, -1.0  # kinds of beta without a short cut: above 1, and not
GENERIC_ITEMS = 1 << 14
LANES = 16


class Trajectory(NamedTuple):
    """What the derivatives need of the forward pass: O(rows n) and O(rows k). The rows are on the axis given.

    No states are kept: the derivatives make p^j again, block by block, from the keys and the normalisers.
    """

    keys: Floats  # (rows, n)
    temperature: Doubles  # (rows, 1) or (1, 1)
    way: npt.NDArray[np.uint8]  # (rows,): how the row is computed
    held: npt.NDArray[np.int32]  # (k, rows): the item held out in step j
    shares: Doubles  # (k, 2, rows): its p^j, and the sum of the others
    masses: Doubles  # (k, rows): what p^j was divided by


class Kernels(NamedTuple):
    """The arithmetic on a block of rows: what another implementation has to provide.

    A `Block` holds keys (rows, n), contiguous, temperatures (rows, 1) or (1, 1), and one `Path` for all of its rows:
    the dtype of the recursion, which exponents to take, a common beta if it has a short cut, and whether the item held
    out may change. `Steps` are the (k, rows), (k, 2, rows), (k, rows) records of `direct_kernels.Steps`, possibly
    not contiguous: forward fills them, the others read them. `Scratch` is memory to use. The arrays (rows, n) that a
    kernel fills are contiguous, in the dtype of the keys. Each row of a result must depend on this row alone.
    """

    forward_block: Callable[[Block, int, Floats, Steps, Scratch], Doubles]
    """(block, k, a, steps, scratch): fill a and the steps; log of the product of the S, NaN where digits were lost."""
    vjp_block: Callable[[Block, int, Steps, Floats, Floats, Doubles | None, Scratch], Doubles]
    """(block, k, steps, cotangent, key_gradient, temperature_gradient (rows,) or None, scratch): fill the gradients.

    Returns (rows,) how far the squared norm of the adjoint shrinks from the last step to the first.
    """
    jvp_block: Callable[[Block, int, Steps, Floats, Doubles, Floats, Scratch], None]
    """(block, k, steps, key_tangent, temperature_tangent (rows,) or (1,), tangent, scratch): fill the tangent."""
    rows_in_block: Callable[[int, int, Any, bool], int]
    """(n, k, dtype of the recursion, whether for a derivative): how many rows to give at a time."""


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
    keys = np.ascontiguousarray(keys)
    with settings.quick_and_quiet():
        a, trajectory = _forward(keys, temperature, ways(keys, temperature, k), k, kernels)
    return a, trajectory if keep else None


def _forward(
    keys: Floats, temperature: Doubles, way: npt.NDArray[np.uint8], k: int, kernels: Kernels
) -> tuple[Floats, Trajectory]:
    rows = keys.shape[0]
    a = np.empty_like(keys)
    record = Steps(np.empty((k, rows), dtype=np.int32), np.empty((k, 2, rows)), np.empty((k, rows)))
    trajectory = Trajectory(keys, temperature, way, *record)
    scratch = Scratch()
    log_mass = np.zeros(rows)
    for some, block, steps in _blocks(trajectory, k, kernels, derivative=False):
        part = a[some]
        log_mass[some] = kernels.forward_block(block, k, part, steps, scratch)
        if not isinstance(some, slice):
            a[some] = part
            record.held[..., some], record.shares[..., some], record.masses[..., some] = steps
    way[~(log_mass >= generic.SMALLEST_LOG_MASS)] = GENERIC
    for some in _generic_rows(trajectory):
        a[some] = _generic_forward(trajectory, k, some, None)[0]
    return a, trajectory


def vjp(
    trajectory: Trajectory, k: int, cotangent: Floats, by_temperature: bool = True, kernels: Kernels = NUMPY
) -> tuple[Floats, Doubles | None]:
    """Gradients by the keys (rows, n), in their dtype, and by the temperature, row by row (rows, 1).

    Without `by_temperature` the second is None, which saves k logarithms an item.
    """
    gradient = np.empty_like(trajectory.keys)
    rows = gradient.shape[0]
    by_rows = np.empty(rows) if by_temperature else None
    shrinkage = np.zeros(rows)
    scratch = Scratch()
    with settings.quick_and_quiet():
        for some, block, steps in _blocks(trajectory, k, kernels, derivative=True):
            part = gradient[some]
            own = None if by_rows is None else by_rows[some]
            shrinkage[some] = kernels.vjp_block(block, k, steps, cotangent[some], part, own, scratch)
            if not isinstance(some, slice):
                _put(gradient, by_rows, some, (part, own))
        for some in _generic_rows(trajectory):
            _put(gradient, by_rows, some, _generic_vjp(trajectory, k, some, cotangent[some]))
        doubtful = np.flatnonzero(_in_float32(trajectory) & (shrinkage > LARGEST_FLOAT32_SHRINKAGE))
        if doubtful.size:
            wide = _in_float64(trajectory, doubtful, k, kernels)
            _put(gradient, by_rows, doubtful, vjp(wide, k, cotangent[doubtful], by_temperature, kernels))
    return gradient, None if by_rows is None else by_rows[:, None]


def _put(gradient: Floats, by_rows: Doubles | None, rows: Rows, results: tuple[Floats, Doubles | None]) -> None:
    gradient[rows], by_temperature = results
    if by_rows is not None and by_temperature is not None:
        by_rows[rows] = by_temperature.reshape(-1)


def jvp(
    trajectory: Trajectory, k: int, key_tangent: Floats, temperature_tangent: Doubles, kernels: Kernels = NUMPY
) -> Floats:
    """Tangent of a (rows, n) from those of the keys (rows, n) and the temperature, (rows, 1) or (1, 1).

    Always in float64: a tangent sums contributions of both signs, and an error of the states is in all of them.
    """
    tangent = np.empty_like(trajectory.keys)
    scratch = Scratch()
    with settings.quick_and_quiet():
        if np.any(_in_float32(trajectory)):
            trajectory = _in_float64(trajectory, np.arange(tangent.shape[0]), k, kernels)
        for some, block, steps in _blocks(trajectory, k, kernels, derivative=True):
            part = tangent[some]
            own = _of_rows(temperature_tangent, some)[:, 0]
            kernels.jvp_block(block, k, steps, key_tangent[some], own, part, scratch)
            if not isinstance(some, slice):
                tangent[some] = part
        for some in _generic_rows(trajectory):
            own = _of_rows(temperature_tangent, some)
            tangent[some] = _generic_jvp(trajectory, k, some, key_tangent[some], own)
    return tangent


def _in_float32(trajectory: Trajectory) -> npt.NDArray[np.bool_]:
    return np.isin(trajectory.way, (FLOAT32, FLOAT32_SHIFTED))


def _in_float64(trajectory: Trajectory, rows: Rows, k: int, kernels: Kernels) -> Trajectory:
    """The trajectory of some rows once more, none of them in float32."""
    way = np.where(_in_float32(trajectory), FLOAT64, trajectory.way).astype(np.uint8)
    return _forward(trajectory.keys[rows], _of_rows(trajectory.temperature, rows), way[rows], k, kernels)[1]


# --- which row goes which way -----------------------------------------------------------------------


def ways(keys: Floats, temperature: Doubles, k: int) -> npt.NDArray[np.uint8]:
    """How to compute each row (rows,), from its largest and its smallest finite key and its temperature."""
    rows = keys.shape[0]
    single = keys.dtype == np.float32
    if rows and temperature.shape[0] == 1:  # what holds for the extremes of all rows holds for each row
        extremes = float(np.min(keys)), float(np.max(keys)), 1.0 / float(temperature[0, 0])
        if _is_moderate(*extremes):
            if single and _fits_float32(*extremes, k) and _needs_no_shift(*extremes):
                return np.full(rows, FLOAT32, dtype=np.uint8)
            if not single and _fits_rounded_exponents(*extremes):
                return np.full(rows, FLOAT64, dtype=np.uint8)
    low, high = (f(keys, axis=1).astype(np.float64) for f in (np.min, np.max))
    power = 1.0 / temperature[:, 0]
    for row in np.flatnonzero(np.isneginf(low)):
        low[row] = np.min(keys[row], where=np.isfinite(keys[row]), initial=np.inf)
    if single:
        in_float32 = np.where(_needs_no_shift(low, high, power), FLOAT32, FLOAT32_SHIFTED)
        way = np.where(_fits_float32(low, high, power, k), in_float32, FLOAT64)
    else:
        way = np.where(_fits_rounded_exponents(low, high, power), FLOAT64, FLOAT64_EXACT)
    return np.where(_is_moderate(low, high, power), way, GENERIC).astype(np.uint8)


def _is_moderate(low: Any, high: Any, power: Any) -> Any:
    return (high - low <= DEEPEST_GAP) & (power <= STEEPEST_POWER) & (power >= 1.0 / STEEPEST_POWER)


def _fits_float32(low: Any, high: Any, power: Any, k: int) -> Any:
    steps_fit = (k <= MOST_FLOAT32_STEPS_AT_SMALL_POWER) | ((k <= MOST_FLOAT32_STEPS) & (power >= SMALL_POWER))
    return steps_fit & (power <= LARGEST_FLOAT32_POWER) & ((high - low) * power <= DEEPEST_FLOAT32_GAP)


def _needs_no_shift(low: Any, high: Any, power: Any) -> Any:
    power_of_2 = np.frexp(power)[0] == 0.5
    largest = LARGEST_PLAIN_EXPONENT + power_of_2 * (LARGEST_UNROUNDED_PLAIN_EXPONENT - LARGEST_PLAIN_EXPONENT)
    return (abs(low) * power <= largest) & (abs(high) * power <= largest)


def _fits_rounded_exponents(low: Any, high: Any, power: Any) -> Any:
    return ((high - low) * power <= DEEPEST_ROUNDED_GAP) & (power <= LARGEST_FORGIVING_POWER)


def _blocks(trajectory: Trajectory, k: int, kernels: Kernels, derivative: bool) -> Iterator[tuple[Any, Block, Steps]]:
    """(rows, block, steps): slices of rows where all go the same way, else indices of those on one path at a time."""
    keys, temperature, n = trajectory.keys, trajectory.temperature, trajectory.keys.shape[1]
    record = Steps(trajectory.held, trajectory.shares, trajectory.masses)
    for path, members in _paths(trajectory):
        count = keys.shape[0] if members is None else members.size
        for cut in _cuts(count, kernels.rows_in_block(n, k, path.dtype, derivative)):
            some = cut if members is None else members[cut]
            yield some, Block(keys[some], _of_rows(temperature, some), path), record.of_rows(some)


def _cuts(count: int, most: int) -> Iterator[slice]:
    """Cuts `count` rows into blocks of about the same size, `most` at most."""
    blocks = -(-count // most)
    size = min(most, -(-count // (blocks * LANES)) * LANES) if blocks else 1
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def _paths(trajectory: Trajectory) -> Iterator[tuple[Path, Rows | None]]:
    """The paths that occur and their rows; None for all rows."""
    way, temperature = trajectory.way, trajectory.temperature[:, 0]
    if temperature.size == 1 and way.size and way.min() == way.max():
        if way[0] != GENERIC:
            yield _path(int(way[0]), 1.0 / float(temperature[0])), None
        return
    power = np.broadcast_to(1.0 / temperature, way.shape)
    kind = np.where(_has_short_cut(power), power, np.where(power > 1.0, MOVING, STAYING))
    for own_way, own_kind in np.unique(np.stack([way, kind]), axis=1).T:
        if own_way != GENERIC:
            members = np.flatnonzero((way == own_way) & (kind == own_kind))
            yield _path(int(own_way), float(power[members[0]])), members


def _has_short_cut(power: Any) -> Any:
    """Whether (1 - p)^beta has one: a square root, or a few products."""
    return (power == 0.5) | ((power // 1.0 == power) & (power <= generic.LARGEST_POWER_BY_PRODUCTS))


def _path(way: int, power: float) -> Path:
    dtype, start = STARTS[way]
    return Path(dtype, start, power if _has_short_cut(power) else None, power > 1.0)


# --- rows for the generic core ----------------------------------------------------------------------


def _generic_rows(trajectory: Trajectory) -> Iterator[Rows]:
    members = np.flatnonzero(trajectory.way == GENERIC)
    for cut in _cuts(members.size, max(1, GENERIC_ITEMS // trajectory.keys.shape[1])):
        yield members[cut]


def _generic_forward(trajectory: Trajectory, k: int, rows: Rows, every: int | None) -> tuple[Doubles, Any]:
    temperature = _of_rows(trajectory.temperature, rows)
    wide = trajectory.keys[rows].astype(np.float64)
    return generic.forward(wide, temperature, 1.0 / temperature, k, every, api.namespace_of(trajectory.keys))


def _generic_vjp(trajectory: Trajectory, k: int, rows: Rows, cotangent: Floats) -> tuple[Doubles, Doubles]:
    every = generic.checkpoint_interval(k)
    states = _generic_forward(trajectory, k, rows, every)[1]
    power = 1.0 / states.temperature
    by_keys, by_temperature = generic.vjp(
        states, power, k, every, cotangent.astype(np.float64), False, api.namespace_of(trajectory.keys)
    )
    return by_keys, by_temperature[:, 0]


def _generic_jvp(
    trajectory: Trajectory, k: int, rows: Rows, key_tangent: Floats, temperature_tangent: Doubles
) -> Doubles:
    every = generic.checkpoint_interval(k)
    states = _generic_forward(trajectory, k, rows, every)[1]
    power = 1.0 / states.temperature
    wide = key_tangent.astype(np.float64)
    tangent: Doubles = generic.jvp(
        states, power, k, every, wide, temperature_tangent, False, api.namespace_of(trajectory.keys)
    )
    return tangent


def _of_rows(per_row: Doubles, rows: Any) -> Doubles:
    return per_row if per_row.shape[0] == 1 else per_row[rows]
