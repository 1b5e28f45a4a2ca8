"""Power sums of a tile of items, and polynomials at them, as compiled loops.

Items are taken by a few hundred, which stay in the nearest cache, and four powers at a time, which stay in registers.
Powers of small numbers become subnormal, as in `gumbeltopk._numpy.compression.tiles`: an item drops out before its
powers get there.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gumbeltopk._numba.compiling import FASTMATH, Array, compiled, inner
from gumbeltopk._numba.exponentials import exponential
from gumbeltopk._numpy.compression import tiles as numpys
from gumbeltopk._numpy.compression.tiles import Tiles

PART = 1024  # items at a time
FEW = 64  # items among which one above the threshold is rare
FOUR = 4
NEGLIGIBLE = {4: 1e-18, 8: 1e-140}  # v^q beyond which higher powers of v do not count; its square is not subnormal


def power_sums(v: Array, degree: int) -> Array:
    """See `Tiles`."""
    sums = _zeros(v, degree)
    _POWER_SUMS(v, smallest_of_fours(v.dtype, degree), sums)
    return sums[:, :degree]


def products(v: Array, degree: int, g: Array, centre: Array) -> Array:
    """See `Tiles`."""
    sums = _zeros(v, degree)
    _PRODUCTS(v, g, centre, smallest_of_fours(v.dtype, degree), sums)
    return sums[:, :degree]


def polynomial(co: Array, v: Array, out: Array) -> None:
    """See `Tiles`."""
    _POLYNOMIAL(_in_fours(co), v, out)


def pair(e: Array, d: Array, v: Array, g: Array, centre: Array, out: Array) -> None:
    """See `Tiles`."""
    _PAIR(_in_fours(e), _in_fours(d), v, g, centre, out)


def exponentials(keys: Array, threshold: Any, scale: Any, out: Array) -> None:
    """See `Tiles`."""
    if keys.dtype != np.float32:
        numpys.exponentials(keys, threshold, scale, out)
        return
    own_scale = _of_each_row(1.0 if scale is None else scale, len(keys))
    _EXPONENTIALS(keys, _of_each_row(threshold, len(keys)), own_scale, out)


def above(keys: Array, threshold: Any) -> Array:
    """See `Tiles`."""
    return _ABOVE(keys, threshold)


NUMBA = Tiles(power_sums, products, polynomial, pair, exponentials, above)


def _rounded_up(degree: int) -> int:
    return -(-degree // FOUR) * FOUR


def _zeros(v: Array, degree: int) -> Array:
    """Sums of FOUR powers at a time; those beyond P are not used."""
    return np.zeros((len(v), _rounded_up(degree)))


def _in_fours(co: Array) -> Array:
    """With zeros for the powers beyond P."""
    padded = np.zeros((len(co), _rounded_up(co.shape[1])), dtype=co.dtype)
    padded[:, : co.shape[1]] = co
    return padded


def _of_each_row(value: Any, rows: int) -> Array:
    """(rows,) float32, of a scalar or of (rows, 1) or (1, 1)."""
    return np.ascontiguousarray(np.broadcast_to(np.reshape(np.asarray(value, dtype=np.float32), -1), (rows,)))


@functools.cache
def smallest_of_fours(dtype: Any, degree: int) -> Array:
    """The least v that counts in the first FOUR powers, in the next, and so on.

    In the first FOUR, v itself counts in any case, so that what matters is v^2 beside v.
    """
    power = np.maximum(np.arange(0, degree + FOUR, FOUR), 2)
    return np.asarray(NEGLIGIBLE[dtype.itemsize] ** (1.0 / power), dtype=dtype)


# --- power sums -----------------------------------------------------------------------------------


@inner
def add_four(v: Array, base: Array, smallest: Any, sums: Array) -> None:
    """Add the sums of base v .. base v^4."""
    zero = v.dtype.type(0)
    first = second = third = fourth = zero
    for i in range(v.size):
        x = v[i] if v[i] > smallest else zero
        once = base[i] * v[i]
        twice = once * x
        thrice = twice * x
        first += once
        second += twice
        third += thrice
        fourth += thrice * x
    sums[0] += first
    sums[1] += second
    sums[2] += third
    sums[3] += fourth


@inner
def raise_by_four(v: Array, smallest: Any, base: Array) -> None:
    """base <- base v^4."""
    zero = v.dtype.type(0)
    for i in range(v.size):
        x = v[i] if v[i] > smallest else zero
        square = x * x
        base[i] *= square * square


@inner
def add_all(v: Array, base: Array, smallest: Array, sums: Array) -> None:
    """Add the sums of base v^q, q = 1 .. P; the base is not kept."""
    for four in range(sums.size // FOUR):
        if four > 0:
            raise_by_four(v, smallest[four], base)
        add_four(v, base, smallest[four], sums[four * FOUR : (four + 1) * FOUR])


def _power_sums(v: Array, smallest: Array, sums: Array) -> None:
    scratch = np.empty(PART, v.dtype)
    for row in range(v.shape[0]):
        for first in range(0, v.shape[1], PART):
            own = v[row, first : first + PART]
            base = scratch[: own.size]
            base[:] = 1
            add_all(own, base, smallest, sums[row])


def _products(v: Array, g: Array, centre: Array, smallest: Array, sums: Array) -> None:
    scratch = np.empty(PART, v.dtype)
    for row in range(v.shape[0]):
        for first in range(0, v.shape[1], PART):
            own, own_g = v[row, first : first + PART], g[row, first : first + PART]
            base = scratch[: own.size]
            for i in range(own.size):
                base[i] = own_g[i] - centre[row, 0]
            add_all(own, base, smallest, sums[row])


# --- polynomials ----------------------------------------------------------------------------------


@inner
def highest_terms(co: Array, v: Array, value: Array) -> None:
    """co_3 v^3 + .. + co_0 of the highest FOUR coefficients."""
    a, b, c, d = co[co.size - 4], co[co.size - 3], co[co.size - 2], co[co.size - 1]
    for i in range(v.size):
        x = v[i]
        value[i] = ((d * x + c) * x + b) * x + a


@inner
def four_terms(co: Array, v: Array, value: Array) -> None:
    """value <- value v^4 + co_3 v^3 + .. + co_0."""
    a, b, c, d = co[0], co[1], co[2], co[3]
    for i in range(v.size):
        x = v[i]
        value[i] = (((value[i] * x + d) * x + c) * x + b) * x + a


@inner
def horner(co: Array, v: Array, value: Array) -> None:
    """sum co_q v^{q - 1}."""
    highest_terms(co, v, value)
    for first in range(co.size - 2 * FOUR, -1, -FOUR):
        four_terms(co[first : first + FOUR], v, value)


def _polynomial(co: Array, v: Array, out: Array) -> None:
    scratch = np.empty(PART, v.dtype)
    for row in range(v.shape[0]):
        for first in range(0, v.shape[1], PART):
            own, own_out = v[row, first : first + PART], out[row, first : first + PART]
            value = scratch[: own.size]
            horner(co[row], own, value)
            for i in range(own.size):
                own_out[i] = value[i] * own[i]


def _pair(e: Array, d: Array, v: Array, g: Array, centre: Array, out: Array) -> None:
    scratch = np.empty((2, PART), v.dtype)
    for row in range(v.shape[0]):
        for first in range(0, v.shape[1], PART):
            own, own_g = v[row, first : first + PART], g[row, first : first + PART]
            own_out = out[row, first : first + PART]
            at_e, at_d = scratch[0, : own.size], scratch[1, : own.size]
            horner(e[row], own, at_e)
            horner(d[row], own, at_d)
            for i in range(own.size):
                own_out[i] = ((own_g[i] - centre[row, 0]) * at_e[i] + at_d[i]) * own[i]


# --- exponentials ---------------------------------------------------------------------------------


def _exponentials(keys: Array, threshold: Array, scale: Array, out: Array) -> None:
    for row in range(keys.shape[0]):
        own, own_out, own_threshold, own_scale = keys[row], out[row], threshold[row], scale[row]
        for i in range(own.size):
            own_out[i] = exponential((own[i] - own_threshold) * own_scale)


# --- the heaviest -----------------------------------------------------------------------------------


@inner
def count_above(keys: Array, threshold: Any) -> Any:
    """Counted in the dtype of the keys: as many at a time as there are comparisons."""
    count, one, zero = keys.dtype.type(0), keys.dtype.type(1), keys.dtype.type(0)
    for i in range(keys.size):
        count += one if keys[i] > threshold else zero
    return count


def _above(keys: Array, threshold: Any) -> Array:
    counts, total = np.empty(-(-keys.size // FEW), np.int64), 0
    for few in range(counts.size):
        counts[few] = count_above(keys[few * FEW : (few + 1) * FEW], threshold)
        total += counts[few]
    found, number = np.empty(total, np.int64), 0
    for few in range(counts.size):
        if counts[few] > 0:
            for i in range(few * FEW, min((few + 1) * FEW, keys.size)):
                if keys[i] > threshold:
                    found[number] = i
                    number += 1
    return found


_EXPONENTIALS = compiled(_exponentials)
_ABOVE = compiled(_above)
_POWER_SUMS = compiled(_power_sums, fastmath=FASTMATH)
_PRODUCTS = compiled(_products, fastmath=FASTMATH)
_POLYNOMIAL = compiled(_polynomial, fastmath=FASTMATH)
_PAIR = compiled(_pair, fastmath=FASTMATH)
