"""The kernels of the direct form of successive softmax as compiled loops: `NUMBA`, for `gumbeltopk._numpy.direct`.

Where NumPy's passes are as fast, these kernels call them: for short rows, for the JVP, and for k = 1, where all is
exponentials. Importing this module imports numba. Each loop is compiled when it is first called, and kept on
disk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from gumbeltopk import _array_api as api
from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numba.compiling import FASTMATH, compiled
from gumbeltopk._numba.forward import forward_rows
from gumbeltopk._numba.powers import Power, log_series, power_of
from gumbeltopk._numba.vjp import vjp_rows
from gumbeltopk._numba.vjp_of_power_1 import vjp_rows_of_power_1
from gumbeltopk._numpy import direct_kernels
from gumbeltopk._numpy.direct import Kernels
from gumbeltopk._numpy.direct_layouts import PLAIN, SHIFTED, Block, Doubles, Floats, Scratch, Steps

HISTORY_BYTES = 1 << 20  # of the states of a row in a VJP; longer trajectories are made again in segments
SHORTEST_ROW, SHORTEST_ROW_WITH_POWER = 64, 500  # for beta = 1, and for others
MOST_STEPS_OF_WEIGHTS = 16  # whose adjoints are rounded more often in a step than those of the logarithms
LARGEST_SHRINKAGE = 4.0  # of the square of an adjoint, in float32; beyond, what cancels in it leaves too few digits


def forward_block(block: Block, k: int, a: Floats, steps: Steps, scratch: Scratch) -> Doubles:
    """Fill a (rows, n) and the steps; return the product of the S (rows,), NaN where digits were lost."""
    if not _pays(block, k):
        return direct_kernels.forward_block(block, k, a, steps, scratch)
    dtype: Any = block.path.dtype
    of_keys: Any = block.keys.dtype.type
    products = np.empty(block.keys.shape[0])
    run = _compiled(forward_rows, dtype, of_keys)
    run(*_weights(block, steps, scratch), power_of(_beta(block), block.path.exponent, dtype), *steps, a, products)
    return products


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
    if not _pays(block, k):
        return direct_kernels.vjp_block(block, k, steps, cotangent, key_gradient, temperature_gradient, scratch)
    dtype: Any = block.path.dtype
    of_keys: Any = block.keys.dtype.type
    rows, n = block.keys.shape
    beta = _beta(block)
    by_power, shrinkages = np.empty((2, rows))
    length = min(k, max(generic.checkpoint_interval(k), HISTORY_BYTES // (n * np.dtype(dtype).itemsize)))
    rule = vjp_rows_of_power_1 if block.path.exponent == 1.0 and k <= MOST_STEPS_OF_WEIGHTS else vjp_rows
    _compiled(rule, dtype, of_keys)(
        *_weights(block, steps, scratch),
        power_of(beta, block.path.exponent, dtype),
        *steps,
        _writeable(block.keys),
        _writeable(np.ascontiguousarray(cotangent, dtype=of_keys)),
        length,
        log_series(dtype),
        temperature_gradient is not None,
        key_gradient,
        by_power,
        shrinkages,
    )
    if temperature_gradient is not None:
        np.multiply(-beta * beta, by_power, temperature_gradient)
    doubtful: npt.NDArray[np.bool_] = (
        ~(shrinkages <= LARGEST_SHRINKAGE) if dtype == np.float32 else np.zeros(rows, bool)
    )
    return doubtful


NUMBA = Kernels(forward_block, vjp_block, direct_kernels.jvp_block, direct_kernels.rows_in_block)


@functools.cache
def _compiled(function: Callable[..., None], dtype: type, of_keys: type) -> Callable[..., None]:
    """One of the loops for a recursion in `dtype` and keys in another.

    The signature is spelled out so that there is one of them: records of steps may be strided or not.
    """
    weights, keys, per_row = _rows(dtype), _rows(of_keys), types.Array(types.float64, 1, "C")
    whole, logs = types.Array(types.int64, 1, "C"), weights
    named: Any = types.NamedTuple
    power = named((per_row, types.int64, whole, types.int64, weights), Power)
    steps = types.Array(types.int32, 2, "A"), types.Array(types.float64, 3, "A"), types.Array(types.float64, 2, "A")
    given, flag = (weights, types.boolean, power, *steps), types.boolean
    arguments: tuple[Any, ...] = (*given, keys, per_row)
    if function is not forward_rows:
        arguments = (*given, keys, keys, types.int64, logs, flag, keys, per_row, per_row)
    return compiled(function, types.void(*arguments), FASTMATH)


def _rows(dtype: type) -> Any:
    return types.Array(numba.from_dtype(np.dtype(dtype)), 2, "C")


def _pays(block: Block, k: int) -> bool:
    """Whether the loops are faster than NumPy's passes. The same for a forward pass and its VJP, whatever the rows."""
    n = block.keys.shape[1]
    shortest = SHORTEST_ROW if block.path.exponent == 1.0 else SHORTEST_ROW_WITH_POWER
    return k > 1 and n >= shortest


def _writeable(array: Floats) -> Floats:
    """A copy of an array that may only be read, which is of another type to numba."""
    return array if array.flags.writeable else array.copy()


def _beta(block: Block) -> Doubles:
    beta: Doubles = 1.0 / block.temperature[:, 0]
    return beta


def _weights(block: Block, steps: Steps, scratch: Scratch) -> tuple[Floats, bool]:
    """The weights (rows, n) of the first softmax, up to a factor of the row; or the keys, if the loops take exp."""
    keys, temperature, path = block
    if path.start == PLAIN:
        return _writeable(keys), True
    weights = scratch.take("weights", keys.shape, path.dtype)
    exponents = scratch.take("exponents", keys.shape, np.float64)
    if path.start == SHIFTED:
        largest = keys[np.arange(len(keys)), steps.held[0]][:, None].astype(np.float64)
        np.subtract(keys, largest, exponents)
        np.divide(exponents, temperature, exponents)
        np.exp(exponents, exponents)
    else:
        xp = api.namespace_of(exponents)
        wide = keys.astype(np.float64)
        exponents = generic.softmax_of_exponents(*generic.exponents(wide, temperature, xp), xp)
    np.copyto(weights, exponents, casting="same_kind")
    return weights, False
