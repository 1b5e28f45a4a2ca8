"""Softmax of float32 rows and its vector-Jacobian product as compiled loops: successive softmax with k = 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from gumbeltopk._numba.compiling import FASTMATH, Array, compiled, exact, inner
from gumbeltopk._numba.exponentials import exponential
from gumbeltopk._numba.rows import copy_row, sum_of_row
from gumbeltopk._numba.states import scale_row

LARGEST_GAP = 32.0  # of exponents in float32; an error of 32 rounding units at most
FEW = 64  # items among which the largest of a row is looked for

# The order of floating-point numbers is that of their bits as whole numbers, but for the negative ones, whose places
# are turned round. The compiler finds the largest of many whole numbers at a time, and not that of many floats.
PLACES = np.int32(0x7FFFFFFF)  # all but the sign
SIGN = np.int32(31)
LEAST = np.int32(-(2**31))
LEAST_FINITE = np.int32(LEAST + 2**23)  # the next one below is -inf
GREATEST = np.uint32(2**32 - 1)


def forward(keys: Array, beta: Array, a: Array, kept: Array) -> bool:
    """Fill a = softmax(beta r) (rows, n) and a copy of it, `kept`, if that has rows; beta is (rows,) or (1,).

    Returns whether the exponents of all rows are moderate; else the work is left unfinished.
    """
    own_beta = np.ascontiguousarray(np.broadcast_to(beta, len(a)), dtype=np.float32)
    moderate: bool = _FORWARD_ROWS(keys, own_beta, a, kept)
    return moderate


def pull(a: Array, g: Array, x: Array) -> None:
    """As `gumbeltopk._numpy.softmax.pull`, for float32."""
    _PULL_ROWS(a, g, x)


@inner
def in_order(bits: Any) -> Any:
    """From the bits of a number to its place in the order, and back."""
    return np.int32(bits ^ np.int32(np.int32(bits >> SIGN) & PLACES))


@inner
def largest_place(bits: Array) -> Any:
    largest = LEAST
    for i in range(bits.size):
        place = in_order(bits[i])
        largest = np.int32(place if place > largest else largest)
    return largest


@inner
def smallest_place(bits: Array) -> Any:
    """Of the finite ones: without a sign, what is below them is above all others."""
    smallest = GREATEST
    for i in range(bits.size):
        height = np.uint32(np.int32(in_order(bits[i]) - LEAST_FINITE))
        smallest = np.uint32(height if height < smallest else smallest)
    return np.int32(np.int32(smallest) + LEAST_FINITE)


@inner
def heaviest_of(a: Array) -> int:
    """The place of the largest number of a row."""
    bits, largest, first = a.view(np.int32), LEAST, 0
    for few in range(0, bits.size, FEW):
        own = largest_place(bits[few : few + FEW])
        if own > largest:
            largest, first = own, few
    for i in range(first, bits.size):
        if in_order(bits[i]) == largest:
            return i
    return 0


@inner
def fill_exponentials(keys: Array, top: Any, beta: Any, out: Array) -> None:
    for i in range(out.size):
        out[i] = exponential((keys[i] - top) * beta)


def _forward_rows(keys: Array, beta: Array, a: Array, kept: Array) -> bool:
    for row in range(keys.shape[0]):
        own, bits = a[row], keys[row].view(np.int32)
        top = np.int32(in_order(largest_place(bits))).view(np.float32)
        bottom = np.int32(in_order(smallest_place(bits))).view(np.float32)
        if not (top - bottom) * beta[row] <= LARGEST_GAP:
            return False
        fill_exponentials(keys[row], top, beta[row], own)
        scale_row(own, own.dtype.type(1.0 / sum_of_row(own)))
        if kept.shape[0] > 0:
            copy_row(own, kept[row])
    return True


@exact
def less(g: Any, centre: Any) -> Any:
    """g - centre, which comes before all else: the rest may be far smaller than g."""
    return g - centre


@exact
def pulled(a: Any, g: Any, centre: Any, shared: Any) -> Any:
    return a * ((g - centre) - shared)


@inner
def centred_dot(a: Array, g: Array, centre: Any) -> Any:
    total = a.dtype.type(0)
    for i in range(a.size):
        total += a[i] * less(g[i], centre)
    return total


@inner
def pull_row(a: Array, g: Array, centre: Any, shared: Any, x: Array) -> None:
    for i in range(a.size):
        x[i] = pulled(a[i], g[i], centre, shared)


def _pull_rows(a: Array, g: Array, x: Array) -> None:
    for row in range(a.shape[0]):
        own, own_g = a[row], g[row]
        centre = own_g[heaviest_of(own)]
        pull_row(own, own_g, centre, centred_dot(own, own_g, centre), x[row])


_FORWARD_ROWS: Any = compiled(_forward_rows, fastmath=FASTMATH)
_PULL_ROWS: Any = compiled(_pull_rows, fastmath=FASTMATH)
