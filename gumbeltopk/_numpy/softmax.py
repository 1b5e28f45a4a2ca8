"""a = softmax(r / t), which is successive softmax with k = 1, and its derivatives, from a alone.

With i the heaviest item of a row, since a constant in g and in r does not matter, and r - r_i = t (log a - log a_i):

    VJP:  G = g - g_i,  x = a (G - sum a G);  r_bar = beta x,  t_bar = -beta sum x (log a - log a_i)
    JVP:  d = beta (dr - dt (log a - log a_i)),  da = a (D - sum a D),  D = d - d_i
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._numpy.direct_layouts import RowsFirst
from gumbeltopk._numpy.row_blocks import map_row_blocks

Floats = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Pull = Callable[[Floats, Floats, Floats], None]
Forward = Callable[[Floats, Doubles, Floats, Floats], bool]

BLOCK_BYTES = 1 << 19


class Trajectory(NamedTuple):
    """What the derivatives need. The arrays belong to nobody else."""

    a: Floats  # (rows, n)
    temperature: Doubles  # (rows, 1) or (1, 1)


def forward(
    keys: Floats, temperature: Doubles, keep: bool, forward_rows: Forward
) -> tuple[Floats, Trajectory | None] | None:
    """a (rows, n) by loops for moderate exponents, and what the derivatives need; None if there are others."""
    a, kept = np.empty_like(keys), np.empty((len(keys) if keep else 0, keys.shape[1]), dtype=keys.dtype)
    beta = 1.0 / temperature[:, 0]
    moderate = []

    def run(rows: slice) -> None:
        own_beta = beta if beta.shape[0] == 1 else beta[rows]
        moderate.append(forward_rows(keys[rows], own_beta, a[rows], kept[rows]))

    map_row_blocks(run, keys, 1, _rows_in_block(keys))
    if not all(moderate):
        return None
    return a, Trajectory(kept, np.array(temperature)) if keep else None


def pull(a: Floats, g: Floats, x: Floats) -> None:
    """x = a (G - sum a G)."""
    np.subtract(g, np.take_along_axis(g, _heaviest(a), axis=1), x)
    _centre(a, x)
    np.multiply(x, a, x)


def vjp(
    trajectory: Trajectory, cotangent: Floats, by_temperature: bool, pull_rows: Pull = pull
) -> tuple[Floats, Doubles | None]:
    """Gradients by the keys (rows, n), in the dtype of a, and, if wanted, by the temperature, row by row (rows, 1)."""
    a, temperature = trajectory
    gradient = np.empty_like(a)
    by_rows = np.empty((len(a), 1)) if by_temperature else None

    def run(rows: slice) -> None:
        own, g, x = a[rows], cotangent[rows], gradient[rows]
        beta = 1.0 / _of_rows(temperature, rows)
        pull_rows(own, g, x)
        if by_rows is not None:
            by_rows[rows] = -beta * _dot(x, _relative_logs(own, _heaviest(own)))[:, None]
        if np.any(beta != 1.0):
            np.multiply(x, beta.astype(x.dtype), x)

    map_row_blocks(run, a, 1, _rows_in_block(a))
    return gradient, by_rows


def jvp(trajectory: Trajectory, key_tangent: Floats, temperature_tangent: Doubles) -> Floats:
    """Tangent of a (rows, n) from those of the keys (rows, n) and the temperature, (rows, 1) or (1, 1); in float64."""
    a, temperature = trajectory
    tangent = np.empty_like(a)

    def run(rows: slice) -> None:
        own = a[rows].astype(np.float64)
        heaviest = _heaviest(own)
        beta, dt = 1.0 / _of_rows(temperature, rows), _of_rows(temperature_tangent, rows)
        d = beta * key_tangent[rows]
        if np.any(dt != 0.0):
            d -= beta * dt * _relative_logs(own, heaviest)
        d -= np.take_along_axis(d, heaviest, axis=1)
        _centre(own, d)
        np.multiply(d, own, tangent[rows], casting="same_kind")

    map_row_blocks(run, a, 1, _rows_in_block(a))
    return tangent


def _heaviest(a: Floats) -> Indices:
    """(rows, 1)."""
    heaviest: Indices = np.argmax(a, axis=1)[:, None]
    return heaviest


def _rows_in_block(a: Floats) -> int:
    bytes_of_row = int(a.shape[1] * a.itemsize)
    return max(1, BLOCK_BYTES // bytes_of_row)


def _of_rows(per_row: Doubles, rows: slice) -> Doubles:
    return per_row if per_row.shape[0] == 1 else per_row[rows]


def _centre(a: Floats, x: Floats) -> None:
    """x <- x - sum a x."""
    np.subtract(x, _dot(a, x)[:, None].astype(x.dtype, copy=False), x)


def _dot(x: Floats, y: Floats) -> Floats:
    rows, n = x.shape
    return RowsFirst(rows, n, x.dtype).dot(x, y)


def _relative_logs(a: Floats, heaviest: Indices) -> Floats:
    """log a - log a_i; 0 where a has vanished, since such an item does not matter."""
    positive = a > 0.0
    logs: Floats = np.log(np.where(positive, a, 1.0))
    return np.where(positive, logs - np.take_along_axis(logs, heaviest, axis=1), 0.0)
