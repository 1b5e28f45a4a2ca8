"""Polynomials for (1 - p)^beta and log(1 - p) on 0 <= p <= 1/2, which a compiler turns into vector instructions.

Both are written with a factor p, so that items of small p are exact whatever their number of steps:

    (1 - p)^root = 1 - p Q(y),   log(1 - p) = -p L(y),   y = 4 p - 1 in [-1, 1].

With a_i the coefficients of (1 - p)^root = (3/4)^root (1 - y/3)^root, or of -log(1 - p), in y, p = (1 + y)/4 gives
Q_{i-1} = -4 a_i - Q_i, or L_{i-1} = 4 a_i - L_i. Taken downwards it is stable, because the series fall like 3^-i.
They are cut by Chebyshev economisation: y^i of a high i is replaced by the part of its Chebyshev series that is kept.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

from gumbeltopk._numba.loops import TERMS_FLOAT32, TERMS_FLOAT64, Power

Floats = npt.NDArray[Any]  # float32 or float64
Doubles = npt.NDArray[np.float64]

TERMS_OF_SERIES = 48  # 3^-48 = 1e-23


def power_of(temperature: Doubles, dtype: Any) -> Power:
    """beta = 1 / temperature (rows, 1) or (1, 1), taken apart for the loops."""
    beta = 1.0 / temperature[:, 0]
    if beta.size == 1:
        return _common_power(float(beta[0]), dtype)
    return _power(beta, dtype)


@functools.lru_cache(maxsize=64)
def _common_power(beta: float, dtype: Any) -> Power:
    return _power(np.asarray([beta]), dtype)


def _power(beta: Doubles, dtype: Any) -> Power:
    mantissa, exponent = np.frexp(beta)  # mantissa in [1/2, 1)
    whole = mantissa == 0.5
    squarings = np.maximum(np.where(whole, exponent - 1, exponent), 0).astype(np.int64)
    root = np.ldexp(beta, -squarings)
    return Power(beta, root, squarings, _economised(_power_series(root), dtype))


@functools.lru_cache(maxsize=2)
def log_series(dtype: Any) -> Floats:
    """Coefficients of L, highest power first."""
    i = np.arange(1, TERMS_OF_SERIES + 1)
    return _economised(_divided_by_p(3.0**-i / i), dtype)[0]


def _power_series(root: Doubles) -> Doubles:
    """Coefficients (rows, terms) of Q in y."""
    i = np.arange(1, TERMS_OF_SERIES + 1)
    factors = (i - 1 - root[:, None]) / (3.0 * i)
    return _divided_by_p(-np.cumprod(factors, axis=1) * 0.75 ** root[:, None])


def _divided_by_p(a: Doubles) -> Doubles:
    """Coefficients, from the constant one on, of (sum_{i >= 1} a_i y^i + a_0) / p for an a_0 that makes it divide."""
    a = np.atleast_2d(a)
    quotient = np.zeros((a.shape[0], a.shape[1] + 1))
    for i in range(a.shape[1], 0, -1):
        quotient[:, i - 1] = 4.0 * a[:, i - 1] - quotient[:, i]
    return quotient[:, :-1]


def _economised(series: Doubles, dtype: Any) -> Floats:
    terms = TERMS_FLOAT32 if np.dtype(dtype) == np.float32 else TERMS_FLOAT64
    kept = series[:, :terms] + series[:, terms:] @ _replacements(terms)
    return np.ascontiguousarray(kept[:, ::-1], dtype=dtype)


@functools.lru_cache(maxsize=2)
def _replacements(terms: int) -> Doubles:
    """The polynomials (TERMS_OF_SERIES - terms, terms) that stand for y^terms, y^{terms + 1}, ..."""
    replacements = np.zeros((TERMS_OF_SERIES - terms, terms))
    for row, power in enumerate(range(terms, TERMS_OF_SERIES)):
        kept = chebyshev.cheb2poly(chebyshev.poly2cheb(np.eye(power + 1)[power])[:terms])
        replacements[row, : kept.size] = kept
    return replacements
