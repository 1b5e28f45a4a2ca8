"""The core of `relaxed_topk` for NumPy arrays: the compressed form or the direct one, whichever is faster.

The steps themselves, k x n numbers, come from the generic core, and so does float64 at temperatures below 1: there a
step magnifies rounding, and the generic core treats tied items alike to the last bit.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from gumbeltopk import _compilation
from gumbeltopk._generic import relaxed_topk as generic
from gumbeltopk._numpy import crossover, direct, softmax
from gumbeltopk._numpy.compression import driver, loops
from gumbeltopk._numpy.compression.block import Block
from gumbeltopk._numpy.compression.loops import Loops

FIELDS_OF_BLOCK = len(Block._fields)
# At high temperatures weights are nearly equal, and their logarithms, which derivatives by the temperature take for the
# keys, have lost digits: float32 keys are compressed in float64 then, and the softmax of k = 1 keeps its keys.
HOTTEST_FLOAT32, HOTTEST_SOFTMAX = 16.0, 4.0


def forward(
    keys: Any, temperature: Any, power: Any, k: int, method: str, steps: bool, keep: bool, xp: Any
) -> generic.Result:
    """As the generic `forward`."""
    if steps:
        return generic.forward(keys, temperature, power, k, method, steps, keep, xp)
    rows = np.ascontiguousarray(keys, dtype=np.promote_types(keys.dtype, np.float32))
    if method == "auto":
        double, compiled = rows.dtype == np.float64, _compilation.wants_numba(rows.size * k)
        compressed = crossover.prefers_compressed(rows.shape[0], rows.shape[1], k, power, double, compiled)
        method = "compressed" if compressed else "direct"
    if method == "direct":
        return _direct(rows, temperature, power, k, keep, xp)
    if rows.dtype == np.float32 and np.max(temperature) > HOTTEST_FLOAT32:
        rows = rows.astype(np.float64)
    outcome = driver.forward(rows, temperature, power, k, keep, _loops())
    arrays = tuple(array for block in outcome.blocks for array in block)
    of_left: Hashable = None
    if outcome.left.size:
        left = outcome.left
        t = temperature if len(temperature) == 1 else temperature[left]
        own_power = power if isinstance(power, float) or len(power) == 1 else power[left]
        result = _direct(rows[left], t, own_power, k, keep, xp)
        outcome.a[left] = result.a
        of_left, arrays = result.form, (*arrays, left, *(result.trajectory or ()))
    return generic.Result(outcome.a, arrays if keep else None, ("compressed", len(outcome.blocks), of_left))


def _direct(rows: Any, temperature: Any, power: Any, k: int, keep: bool, xp: Any) -> generic.Result:
    if rows.dtype == np.float64 and np.any(power > 1.0) and k > 1:
        return generic.forward(rows, temperature, power, k, "direct", False, keep, xp)
    is_softmax = k == 1 and np.max(temperature) <= HOTTEST_SOFTMAX
    loops_of_softmax = _loops_of_softmax(rows) if is_softmax else None
    if loops_of_softmax is not None:
        found = softmax.forward(rows, temperature, keep, loops_of_softmax.forward)
        if found is not None:
            return generic.Result(found[0], None if found[1] is None else tuple(found[1]), "softmax")
    a, trajectory = direct.forward(rows, temperature, k, keep and not is_softmax, _kernels(rows, k))
    if is_softmax:
        return _softmax(a, temperature, keep)
    return generic.Result(a, None if trajectory is None else tuple(trajectory), "direct")


def _softmax(a: Any, temperature: Any, keep: bool) -> generic.Result:
    trajectory = (a.copy(), np.array(temperature)) if keep else None
    return generic.Result(a, trajectory, "softmax")


def _kernels(rows: Any, k: int) -> direct.Kernels:
    """numba's where they are wanted, which imports numba."""
    if not _compilation.wants_numba(rows.size * k):
        return direct.NUMPY
    from gumbeltopk._numba.direct_kernels import NUMBA

    return NUMBA


def _loops_of_softmax(rows: Any) -> Any:
    """The module of numba's where they are wanted and there is a gain, which is for float32; else None."""
    if rows.dtype != np.float32 or not _compilation.wants_numba(rows.size):
        return None
    from gumbeltopk._numba import softmax as compiled

    return compiled


def _loops() -> Loops:
    """numba's where they are asked for: a call gains a few milliseconds, which never pays for importing numba."""
    if not _compilation.wants_numba(0):
        return loops.NUMPY
    from gumbeltopk._numba.points import NUMBA

    return NUMBA


def _blocks(trajectory: tuple[Any, ...], form: Any) -> tuple[list[Block], tuple[Any, ...]]:
    """The blocks of a compressed trajectory, and the arrays that follow: the rows left over and their trajectory."""
    end = form[1] * FIELDS_OF_BLOCK
    blocks = [Block(*trajectory[first : first + FIELDS_OF_BLOCK]) for first in range(0, end, FIELDS_OF_BLOCK)]
    return blocks, trajectory[end:]


def vjp(
    trajectory: tuple[Any, ...],
    form: Any,
    power: Any,
    k: int,
    steps: bool,
    cotangent: Any,
    with_temperature: bool,
    xp: Any,
) -> tuple[Any, Any]:
    """As the generic `vjp`."""
    if form == "generic":
        return generic.vjp(trajectory, form, power, k, steps, cotangent, with_temperature, xp)
    rows = np.ascontiguousarray(cotangent, dtype=np.promote_types(cotangent.dtype, np.float32))
    if form == "softmax":
        compiled = _loops_of_softmax(rows) if trajectory[0].dtype == rows.dtype else None  # a of drawn keys is float64
        pull = softmax.pull if compiled is None else compiled.pull
        gradient, t_gradient = softmax.vjp(softmax.Trajectory(*trajectory), rows, with_temperature, pull)
        return gradient, np.zeros((len(rows), 1)) if t_gradient is None else t_gradient
    if form == "direct":
        kept = direct.Trajectory(*trajectory)
        gradient, t_gradient = direct.vjp(kept, k, rows, with_temperature, _kernels(rows, k))
        return gradient, np.zeros((len(rows), 1)) if t_gradient is None else t_gradient
    blocks, rest = _blocks(trajectory, form)
    gradient, by_temperature = np.empty_like(rows), np.zeros((len(rows), 1))
    driver.vjp(blocks, power, rows, with_temperature, gradient, by_temperature, _loops())
    if form[2]:
        left, *own = rest
        result = vjp(tuple(own), form[2], power, k, False, rows[left], with_temperature, xp)
        gradient[left], by_temperature[left] = result
    return gradient, by_temperature


def jvp(
    trajectory: tuple[Any, ...],
    form: Any,
    power: Any,
    k: int,
    steps: bool,
    key_tangent: Any,
    temperature_tangent: Any,
    xp: Any,
) -> Any:
    """As the generic `jvp`."""
    if form == "generic":
        return generic.jvp(trajectory, form, power, k, steps, key_tangent, temperature_tangent, xp)
    rows = np.ascontiguousarray(key_tangent, dtype=np.promote_types(key_tangent.dtype, np.float32))
    if form == "softmax":
        return softmax.jvp(softmax.Trajectory(*trajectory), rows, temperature_tangent)
    if form == "direct":
        return direct.jvp(direct.Trajectory(*trajectory), k, rows, temperature_tangent, _kernels(rows, k))
    blocks, rest = _blocks(trajectory, form)
    tangent = np.empty_like(rows)
    driver.jvp(blocks, power, rows, temperature_tangent, tangent, _loops())
    if form[2]:
        left, *own = rest
        dt = temperature_tangent if len(temperature_tangent) == 1 else temperature_tangent[left]
        tangent[left] = jvp(tuple(own), form[2], power, k, False, rows[left], dt, xp)
    return tangent
