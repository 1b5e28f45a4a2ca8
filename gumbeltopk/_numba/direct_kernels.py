"""The kernels of the direct form of successive softmax as compiled loops: `KERNELS`, for `gumbeltopk._numpy.direct`.

Importing this module imports numba. Nothing is compiled before the first call; what is compiled is kept on disk.
"""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import numpy.typing as npt

from gumbeltopk._generic import successive_softmax as generic
from gumbeltopk._numba import loops
from gumbeltopk._numba.complement_series import log_series, power_of
from gumbeltopk._numpy import direct_kernels
from gumbeltopk._numpy.direct import Kernels
from gumbeltopk._numpy.direct_kernels import Block, Steps
from gumbeltopk._numpy.direct_layouts import Scratch

Floats = npt.NDArray[Any]  # float32 or float64
Doubles = npt.NDArray[np.float64]

BLOCK_ITEMS = 1 << 16  # the arrays (rows, n) of a block stay in the second-level cache
STATE_BYTES = 1 << 20  # of the states of one row in a VJP


def rows_in_block(n: int, k: int, dtype: Any, derivative: bool) -> int:
    """As many rows as are worth a call: a row is computed by itself in any case."""
    return max(1, BLOCK_ITEMS // n)


def forward_block(block: Block, k: int, a: Floats, steps: Steps, scratch: Scratch) -> Doubles:
    """Fill a (rows, n) and the steps; return log of the product of the S (rows,), NaN where digits were lost."""
    rows = block.keys.shape[0]
    dtype = np.dtype(block.path.dtype)
    held = np.empty((rows, k), dtype=np.int32)
    held[:, 0] = np.argmax(block.keys, axis=1)
    shares, masses, lost = np.zeros((rows, k, 2)), np.ones((rows, k)), np.zeros(rows, dtype=np.bool_)
    result = a if a.dtype == dtype else scratch.take("result", a.shape, dtype)
    loops.forward_rows(
        _weights(block, held, scratch), power_of(block.temperature, dtype), held, shares, masses, result, lost
    )
    if result is not a:
        np.copyto(a, result, casting="same_kind")
    for record, own in zip(steps, (held.T, shares.T.swapaxes(0, 1), masses.T), strict=True):
        record[...] = own
    log_mass: Doubles = np.add.reduce(np.log(masses[:, 1:]), axis=1)
    smallest_rest = np.min(shares[:, :-1, 1], axis=1, initial=1.0)
    log_mass[lost | ~(smallest_rest >= direct_kernels.SMALLEST_REST)] = np.nan
    return log_mass


def vjp_block(
    block: Block,
    k: int,
    steps: Steps,
    cotangent: Floats,
    key_gradient: Floats,
    temperature_gradient: Doubles | None,
    scratch: Scratch,
) -> None:
    """Fill the gradient by the keys (rows, n) and, unless it is None, that by the temperature (rows,)."""
    dtype = np.dtype(block.path.dtype)
    held, shares, masses = _by_rows(steps)
    power = power_of(block.temperature, dtype)
    g = _less_first_held(cotangent, held, scratch.take("g", cotangent.shape, dtype))
    centred = np.empty((0, 0), dtype)
    if temperature_gradient is not None:
        centred = _centred_keys(block, held, scratch)
    x = key_gradient if key_gradient.dtype == dtype else scratch.take("result", g.shape, dtype)
    by_power = np.zeros(held.shape[0])
    length = _states_at_hand(k, g.shape[1] * dtype.itemsize)
    weights = _weights(block, held, scratch)
    loops.vjp_rows(
        weights, power, held, shares, masses, g, length, log_series(dtype), centred, x, by_power
    )
    beta = (1.0 / block.temperature).astype(dtype)
    np.multiply(x, beta, out=key_gradient, casting="same_kind")
    if temperature_gradient is not None:
        np.multiply(-power.beta * power.beta, by_power, temperature_gradient)


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
    dtype = np.dtype(block.path.dtype)
    held, shares, masses = _by_rows(steps)
    power = power_of(block.temperature, dtype)
    dbeta = -power.beta * power.beta * temperature_tangent
    d = scratch.take("d", key_tangent.shape, dtype)
    np.multiply(key_tangent, power.beta.astype(dtype)[:, None], out=d, casting="same_kind")
    if np.any(dbeta != 0.0):
        d += _centred_keys(block, held, scratch) * dbeta.astype(dtype)[:, None]
    result = tangent if tangent.dtype == dtype else scratch.take("result", tangent.shape, dtype)
    weights = _weights(block, held, scratch)
    loops.jvp_rows(weights, power, held, shares, masses, d, dbeta, log_series(dtype), result)
    if result is not tangent:
        np.copyto(tangent, result, casting="same_kind")


KERNELS = Kernels(forward_block, vjp_block, jvp_block, rows_in_block)


def _states_at_hand(k: int, bytes_of_row: int) -> int:
    return min(k, max(generic.checkpoint_interval(k), STATE_BYTES // bytes_of_row))


def _by_rows(steps: Steps) -> tuple[Any, Doubles, Doubles]:
    """The records with the rows first."""
    held, shares, masses = steps
    return np.ascontiguousarray(held.T), np.ascontiguousarray(shares.transpose(2, 0, 1)), np.ascontiguousarray(masses.T)


def _weights(block: Block, held: Any, scratch: Scratch) -> Floats:
    """The weights (rows, n) of the first softmax, up to a factor of the row."""
    keys, temperature, path = block
    weights = scratch.take("weights", keys.shape, path.dtype)
    if path.start == direct_kernels.PLAIN:
        source = keys
        if path.exponent != 1.0:
            source = np.multiply(keys, (1.0 / temperature).astype(path.dtype), weights)
        return np.exp(source, weights)
    if path.start == direct_kernels.EXACT:
        np.copyto(weights, generic.softmax_of_exponents(*generic.exponents(keys, temperature, xp), xp))
        return weights
    exponents = weights if weights.dtype == np.float64 else scratch.take("exponents", keys.shape, np.float64)
    largest = np.take_along_axis(keys, held[:, :1], axis=1)
    np.subtract(keys, largest.astype(np.float64), exponents)
    np.divide(exponents, temperature, exponents)
    np.exp(exponents, exponents)
    if exponents is not weights:
        np.copyto(weights, exponents, casting="same_kind")
    return weights


def _less_first_held(array: Floats, held: Any, out: Floats) -> Floats:
    """`array` less its value at the item held out first, in the dtype of the recursion."""
    return np.subtract(array, np.take_along_axis(array, held[:, :1], axis=1), out=out, casting="same_kind")


def _centred_keys(block: Block, held: Any, scratch: Scratch) -> Floats:
    """r - max r, with 0 for items of zero weight."""
    centred = _less_first_held(block.keys, held, scratch.take("centred", block.keys.shape, block.path.dtype))
    if np.min(centred) == -np.inf:
        centred[np.isneginf(centred)] = 0.0
    return centred
