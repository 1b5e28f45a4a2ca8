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
from gumbeltopk._numpy.compression.tiles import Tiles

PART = 1024  # items at a time
FEW = 64  # items among which one above the threshold is rare
FOUR = 4
NEGLIGIBLE = {4: 1e-18, 8: 1e-140}  # v^q beyond which higher powers of v do not count; its square is not subnormal


def power_sums(v: Array, degree: int) -> Array:
    """See `Tiles`."""
    sums = np.zeros((len(v), degree))
    _POWER_SUMS(v, smallest_of_fours(v.dtype, degree), sums)
    return sums


def products(v: Array, degree: int, g: Array, centre: Array) -> Array:
    """See `Tiles`."""
    sums = np.zeros((len(v), degree))
    _PRODUCTS(v, g, centre, smallest_of_fours(v.dtype, degree), sums)
    return sums


def polynomial(co: Array, v: Array, out: Array) -> None:
    """See `Tiles`."""
    _POLYNOMIAL(co, v, out)


def pair(e: Array, d: Array, v: Array, g: Array, centre: Array, out: Array) -> None:
    """See `Tiles`."""
    _PAIR(e, d, v, g, centre, out)


def above(keys: Array, threshold: Any) -> Array:
    """See `Tiles`."""
    return _ABOVE(keys, threshold)


NUMBA = Tiles(power_sums, products, polynomial, pair, above)


@functools.cache
def smallest_of_fours(dtype: Any, degree: int) -> Array:
    """The least v that counts in the first FOUR powers, in the next, and so on.

    In the first FOUR, v itself counts in any case, so that what matters is v^2 beside v.
    """
    power = np.maximum(np.arange(0, degree + FOUR, FOUR), 2)
    return np.asarray(NEGLIGIBLE[dtype.itemsize] ** (1.0 / power), dtype=dtype)


# --- power sums -----------------------------------------------------------------------------------


@inner
def add_four(v: Array, base: Array, smallest: Any, next_smallest: Any, sums: Array) -> None:
    """Add the sums of base v .. base v^4, and let the base be base v^4."""
    zero = v.dtype.type(0)
    first = second = third = fourth = zero
    for i in range(v.size):
        x = v[i] if v[i] > smallest else zero
        once = base[i] * v[i]
        twice = once * x
        thrice = twice * x
        four_times = thrice * x
        first += once
        second += twice
        third += thrice
        fourth += four_times
        base[i] = four_times if v[i] > next_smallest else zero
    sums[0] += first
    sums[1] += second
    sums[2] += third
    sums[3] += fourth


@inner
def add_one(v: Array, base: Array) -> Any:
    """The sum of base v, which becomes the base."""
    total = v.dtype.type(0)
    for i in range(v.size):
        base[i] *= v[i]
        total += base[i]
    return total


@inner
def add_all(v: Array, base: Array, smallest: Array, sums: Array) -> None:
    """Add the sums of base v^q, q = 1 .. P; the base is not kept."""
    fours = sums.size // FOUR
    for four in range(fours):
        add_four(v, base, smallest[four], smallest[four + 1], sums[four * FOUR : (four + 1) * FOUR])
    for q in range(fours * FOUR, sums.size):
        sums[q] += add_one(v, base)


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
def four_terms(co: Array, v: Array, value: Array) -> None:
    """value <- value v^4 + co_3 v^3 + .. + co_0."""
    a, b, c, d = co[0], co[1], co[2], co[3]
    for i in range(v.size):
        x = v[i]
        value[i] = (((value[i] * x + d) * x + c) * x + b) * x + a


@inner
def horner(co: Array, v: Array, value: Array) -> None:
    """sum co_q v^{q - 1}."""
    fours = co.size // FOUR
    value[:] = 0
    for q in range(co.size - 1, fours * FOUR - 1, -1):
        for i in range(v.size):
            value[i] = value[i] * v[i] + co[q]
    for four in range(fours - 1, -1, -1):
        four_terms(co[four * FOUR : (four + 1) * FOUR], v, value)


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


# --- the heaviest -----------------------------------------------------------------------------------


@inner
def count_above(keys: Array, threshold: Any) -> int:
    count = 0
    for i in range(keys.size):
        count += keys[i] > threshold
    return count


def _above(keys: Array, threshold: Any) -> Array:
    counts = np.empty(-(-keys.size // FEW), np.int64)
    for few in range(counts.size):
        counts[few] = count_above(keys[few * FEW : (few + 1) * FEW], threshold)
    found = np.empty(counts.sum(), np.int64)
    number = 0
    for few in range(counts.size):
        if counts[few] > 0:
            for i in range(few * FEW, min((few + 1) * FEW, keys.size)):
                if keys[i] > threshold:
                    found[number] = i
                    number += 1
    return found


_ABOVE = compiled(_above)
_POWER_SUMS = compiled(_power_sums, fastmath=FASTMATH)
_PRODUCTS = compiled(_products, fastmath=FASTMATH)
_POLYNOMIAL = compiled(_polynomial, fastmath=FASTMATH)
_PAIR = compiled(_pair, fastmath=FASTMATH)
