"""What is done with a tile of items, which stays in cache: power sums of their v, and polynomials in v.

Powers of small numbers become subnormal, and processors take a hundred times as long for these. So an item drops out
of the sums of powers before its power gets there. That costs nothing: v itself always counts, and beside it a power
that is left out is below a millionth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]
TILE = 1 << 16  # items at a time
# Terms of a sum before it goes on in float64 (equal terms err together): of one row, and of several.
SUMMED, SUMMED_IN_ROWS = 1024, 4096
EVERY = 64  # items from one that is looked at to the next
NONE, MOST = 0.0, 0.5  # a product of its own is slow if it is subnormal, a sum if most of its terms are


class Tiles(NamedTuple):
    """Work on tiles (rows, items): what another implementation has to provide. `centre` is (rows, 1)."""

    power_sums: Callable[[Any, int], Floats]
    """(v, P) -> (rows, P): sums of v^q, q = 1 .. P."""
    products: Callable[[Any, int, Any, Any], Floats]
    """(v, P, g, centre) -> (rows, P): sums of (g - centre) v^q."""
    polynomial: Callable[[Any, Any, Any], None]
    """(co, v, out): out = sum co_q v^q from the coefficients (rows, P); `out` may be `v`."""
    pair: Callable[[Any, Any, Any, Any, Any, Any], None]
    """(e, d, v, g, centre, out): out = (g - centre) E(v) + D(v) from the coefficients of both (rows, P)."""
    exponentials: Callable[[Any, Any, Any, Any], None]
    """(keys, threshold, scale, out): out = exp((r - thr) scale), where the scale may be None for 1 in all rows."""
    above: Callable[[Any, Any], Indices]
    """(keys, threshold): positions of the keys of a row (n,) above the threshold, in ascending order."""


# --- power sums -------------------------------------------------------------------------------------


def power_sums(v: Any, degree: int) -> Floats:
    """See `Tiles`. M_{a + b} = v^a . v^b: half of the powers are enough."""
    half = (degree + 1) // 2
    powers = _powers(v, degree, np.empty((half, *v.shape), dtype=v.dtype))
    sums = np.empty((v.shape[0], degree))
    sums[:, 0] = _dots(v, _ones(v.shape[1], v.dtype))  # faster than add.reduce
    for q in range(2, min(half + 1, degree) + 1):
        sums[:, q - 1] = _dots(powers[q // 2 - 1], powers[(q + 1) // 2 - 1])
    high = _without_small(powers[half - 1], v, degree, MOST) if degree > half + 1 else powers[half - 1]
    for q in range(half + 2, degree + 1):
        sums[:, q - 1] = _dots(high, powers[q - half - 1])
    return sums


def products(v: Any, degree: int, g: Any, centre: Any) -> Floats:
    """See `Tiles`. The factor g v^{h + 1}, h = P / 2, serves for the higher half."""
    half = (degree + 1) // 2
    scratch = np.empty((half + 1, *v.shape), dtype=v.dtype)
    powers = _powers(v, degree, scratch[1:])
    factor = np.subtract(g, centre, out=scratch[0])
    sums = np.empty((v.shape[0], degree))
    sums[:, 0] = _dots(factor, v)
    low = np.multiply(factor, v, out=factor)
    for q in range(2, min(half + 1, degree) + 1):
        sums[:, q - 1] = _dots(low, powers[q - 2])
    if degree > half + 1:
        high = np.multiply(_without_small(low, v, degree, NONE), powers[half - 1])
        for q in range(half + 2, degree + 1):
            sums[:, q - 1] = _dots(high, powers[q - half - 2])
    return sums


def _powers(v: Any, degree: int, out: Any) -> list[Any]:
    """v^1 .. v^h."""
    powers = [_without_small(v, v, (degree + 1) // 2 + 1, NONE)]
    for power in out[1:]:
        powers.append(np.multiply(powers[-1], powers[0], out=power))
    return powers


def _without_small(x: Any, v: Any, power: int, tolerated: float) -> Any:
    """x, or 0 where v^power would be subnormal, if these are more than what is tolerated."""
    smallest = v.dtype.type(np.finfo(v.dtype).smallest_normal ** (1.0 / power))
    sample = v[:, ::EVERY]
    small = np.count_nonzero((sample < smallest) & (sample > 0.0))
    return x if small <= tolerated * sample.size else np.multiply(x, v > smallest)


@functools.lru_cache(maxsize=8)
def _ones(n: int, dtype: Any) -> Any:
    ones = np.ones((1, n), dtype=dtype)
    ones.flags.writeable = False
    return ones


def _dots(a: Any, b: Any) -> Any:
    """Row by row a . b, in pieces that keep float32 accurate, and are too short for BLAS to take several threads."""
    n = a.shape[1]
    length = SUMMED if a.shape[0] == 1 else SUMMED_IN_ROWS
    if n <= 2 * length:
        return np.vecdot(a, b)
    whole = n - n % length
    if a.shape[0] == 1:
        pieces = np.vecdot(a[0, :whole].reshape(-1, length), b[0, :whole].reshape(-1, length))
        total = np.add.reduce(pieces, dtype=np.float64)
    else:
        total = sum(np.vecdot(a[:, i : i + length], b[:, i : i + length]) for i in range(0, whole, length))
    return total + np.vecdot(a[:, whole:], b[:, whole:])


# --- polynomials ------------------------------------------------------------------------------------


def polynomial(co: Any, v: Any, out: Any) -> None:
    """See `Tiles`."""
    _horner(_as_columns(co), v, out, np.empty_like(v))


def pair(e: Any, d: Any, v: Any, g: Any, centre: Any, out: Any) -> None:
    """See `Tiles`."""
    first, second = np.empty((2, *v.shape), dtype=v.dtype)
    _horner(_as_columns(e), v, first, first)
    np.multiply(first, np.subtract(g, centre, out=second), out=first)
    _horner(_as_columns(d), v, second, second)
    np.add(first, second, out=out)


def _as_columns(coefficients_of_rows: Any) -> Any:
    """(P,) for one row, else (P, rows, 1)."""
    if len(coefficients_of_rows) == 1:
        return coefficients_of_rows[0]
    return np.ascontiguousarray(coefficients_of_rows.T)[:, :, None]


def _horner(co: Any, v: Any, out: Any, scratch: Any) -> None:
    """Horner's rule; `scratch` may be `out`, which may be `v` otherwise."""
    scratch[...] = co[-1]
    for q in range(co.shape[0] - 1, 0, -1):
        np.multiply(scratch, v, out=scratch)
        np.add(scratch, co[q - 1], out=scratch)
    np.multiply(scratch, v, out=out)


# --- exponentials -----------------------------------------------------------------------------------


def exponentials(keys: Any, threshold: Any, scale: Any, out: Any) -> None:
    """See `Tiles`."""
    np.subtract(keys, threshold, out)
    if scale is not None:
        np.multiply(out, scale, out)
    np.exp(out, out)


# --- the heaviest -----------------------------------------------------------------------------------


def above(keys: Any, threshold: Any) -> Indices:
    """See `Tiles`."""
    flags = np.empty(min(TILE, len(keys)), dtype=np.bool_)
    found = []
    for first in range(0, len(keys), TILE):
        tile = keys[first : first + TILE]
        found.append(np.flatnonzero(np.greater(tile, threshold, out=flags[: len(tile)])) + first)
    return np.concatenate(found)


NUMPY = Tiles(power_sums, products, polynomial, pair, exponentials, above)
