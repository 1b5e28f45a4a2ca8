"""exp of float32 numbers as a compiled loop, which takes many at a time.

With n the whole number next to x / log 2 and f = x - n log 2, |f| <= log(2) / 2,

    e^x = 2^n e^f,   e^f = 1 + f + f^2 Q(f),

Q of degree 5 by Cephes (S. Moshier); the error is below 1e-7. log 2 is taken off in two parts, of which the first has
so few digits that n times it is exact, and 2^n is put together from the bits of its exponent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gumbeltopk._numba.compiling import compiled

FASTMATH = {"contract", "nsz"}  # the steps in their order
SMALLEST = np.float32(-87.3)  # below, e^x is no normal number, and taken for 0
LARGEST = np.float32(88.0)
PER_LOG_2 = np.float32(1.4426950408889634)
LOG_2_HIGH, LOG_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
ROUNDING = np.float32(1.5 * 2.0**23)  # adding it leaves no binary places
Q_5, Q_4, Q_3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
Q_2, Q_1, Q_0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
ONE, ZERO = np.float32(1.0), np.float32(0.0)
BIAS, PLACES = 127, 23  # of the exponent of a float32 number, and of its fraction


def _exponential(x: Any) -> Any:
    """e^x; 0 for very small x, and e^88 for very large ones."""
    within = SMALLEST if x < SMALLEST else LARGEST if x > LARGEST else x
    shifted = within * PER_LOG_2 + ROUNDING
    n = shifted - ROUNDING
    f = (within - n * LOG_2_HIGH) - n * LOG_2_LOW
    q = ((((Q_5 * f + Q_4) * f + Q_3) * f + Q_2) * f + Q_1) * f + Q_0
    power = np.int32((np.int32(n) + BIAS) << PLACES).view(np.float32)
    return ZERO if x < SMALLEST else (q * (f * f) + f + ONE) * power


exponential = compiled(_exponential, fastmath=FASTMATH)
