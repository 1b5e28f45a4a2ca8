"""Softmax of float32 rows and its vector-Jacobian product as compiled loops: successive softmax with k = 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from gumbeltopk._numba.compiling import FASTMATH, Array, compiled
from gumbeltopk._numba.exponentials import exponential
from gumbeltopk._numba.rows import dot_of_row, sum_of_row


def forward(keys: Array, beta: Array, a: Array, masses: Array) -> None:
    """Fill a = exp(beta r) / mass (rows, n) and the masses (rows,); beta is (rows,) or (1,), and beta r moderate."""
    _FORWARD_ROWS(keys, np.ascontiguousarray(np.broadcast_to(beta, masses.shape), dtype=np.float32), a, masses)


def pull(a: Array, g: Array, heaviest: Array, x: Array) -> None:
    """As `gumbeltopk._numpy.softmax.pull`, for float32."""
    _PULL_ROWS(a, g, np.ascontiguousarray(heaviest[:, 0]), x)


def _forward_rows(keys: Array, beta: Array, a: Array, masses: Array) -> None:
    for row in range(keys.shape[0]):
        own_keys, own, own_beta = keys[row], a[row], beta[row]
        for i in range(own.size):
            own[i] = exponential(own_keys[i] * own_beta)
        mass = sum_of_row(own)
        scale = own.dtype.type(1.0 / mass)
        for i in range(own.size):
            own[i] *= scale
        masses[row] = mass


def _pull_rows(a: Array, g: Array, heaviest: Array, x: Array) -> None:
    for row in range(a.shape[0]):
        own, own_g, own_x = a[row], g[row], x[row]
        centre = own_g[heaviest[row]]
        for i in range(own.size):
            own_x[i] = own_g[i] - centre
        shared = own.dtype.type(dot_of_row(own, own_x))
        for i in range(own.size):
            own_x[i] = own[i] * (own_x[i] - shared)


_FORWARD_ROWS: Any = compiled(_forward_rows, fastmath=FASTMATH)
_PULL_ROWS: Any = compiled(_pull_rows, fastmath=FASTMATH)
