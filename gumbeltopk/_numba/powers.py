"""(1 - p)^beta and log(1 - p) for 0 <= p <= 1/2 in sums and products, which a compiler turns into vector instructions.

Both are written with a factor p, so that small p keep all their digits:

    (1 - p)^root = 1 - p Q(y),   log(1 - p) = -p L(y),   y = 4 p - 1 in [-1, 1].

With 1 - p = (3 - y) / 4 their Taylor series in y are those of (3/4)^root (1 - y/3)^root and log(3/4) + log(1 - y/3);
their coefficients fall like 3^-i. If f = sum f_i y^i is divisible by p = (1 + y) / 4, then f = p sum q_i y^i with
f_i = (q_{i-1} + q_i) / 4, which gives q from the last one downwards without cancellation. The series are then cut by
Chebyshev economisation: a high power of y is replaced by the low part of its Chebyshev series.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

Doubles = npt.NDArray[np.float64]
Series = npt.NDArray[Any]  # (rows, terms) or (1, terms), highest power first, float32 or float64

TERMS: dict[type, int] = {np.float32: 10, np.float64: 20}
TERMS_OF_TAYLOR = 48  # 3^-48 = 1e-23
MOST_SQUARINGS = 62  # beyond, (1 - p)^beta is 1 or next to nothing already


class Power(NamedTuple):
    """beta of each row or of all rows, (rows,) or (1,): whole, or root 2^squarings with root <= 1."""

    beta: Doubles
    whole: int  # 0 where the short cut is not to be taken
    squarings: npt.NDArray[np.int64]
    most_squarings: int
    series: Series  # of Q


def power_of(beta: Doubles, exponent: float | None, dtype: Any) -> Power:
    """beta (rows,) or (1,), taken apart for a recursion in `dtype`; `exponent` where all have a short cut."""
    if beta.size == 1:
        return _common_power(float(beta[0]), exponent, dtype)
    return _power(beta, exponent, dtype)


@functools.lru_cache(maxsize=64)
def _common_power(beta: float, exponent: float | None, dtype: type) -> Power:
    return _power(np.asarray([beta]), exponent, dtype)


def _power(beta: Doubles, exponent: float | None, dtype: type) -> Power:
    whole = int(exponent) if exponent is not None and exponent >= 1.0 else 0
    squarings = np.clip(np.ceil(np.log2(beta)), 0.0, MOST_SQUARINGS)
    root = np.minimum(np.ldexp(beta, -squarings.astype(np.int64)), 1.0)
    i = np.arange(1, TERMS_OF_TAYLOR + 1)
    taylor = 0.75 ** root[:, None] * np.cumprod((i - 1 - root[:, None]) / (3.0 * i), axis=1)
    series = _economised(-_divided_by_p(taylor), dtype)
    return Power(beta, whole, squarings.astype(np.int64), int(squarings.max()), series)


@functools.cache
def log_series(dtype: type) -> Series:
    """The coefficients (1, terms) of L."""
    i = np.arange(1, TERMS_OF_TAYLOR + 1)
    return _economised(_divided_by_p(3.0 ** -i[None, :] / i), dtype)


def _divided_by_p(taylor: Doubles) -> Doubles:
    """q_0, q_1, ... of f_1, f_2, ..., both (rows, terms)."""
    quotient = np.zeros((taylor.shape[0], taylor.shape[1] + 1))
    for i in range(taylor.shape[1], 0, -1):
        quotient[:, i - 1] = 4.0 * taylor[:, i - 1] - quotient[:, i]
    return quotient[:, :-1]


def _economised(series: Doubles, dtype: type) -> Series:
    terms = TERMS[dtype]
    kept = series[:, :terms] + series[:, terms:] @ _replacements(terms)
    return np.ascontiguousarray(kept[:, ::-1], dtype=dtype)


@functools.cache
def _replacements(terms: int) -> Doubles:
    """The polynomials (TERMS_OF_TAYLOR - terms, terms) that stand for y^terms, y^{terms + 1}, ..."""
    replacements = np.zeros((TERMS_OF_TAYLOR - terms, terms))
    for row, degree in enumerate(range(terms, TERMS_OF_TAYLOR)):
        kept = chebyshev.cheb2poly(chebyshev.poly2cheb(np.eye(degree + 1)[degree])[:terms])
        replacements[row, : kept.size] = kept
    return replacements
