"""How many nodes successive softmax needs: the bound on what compression neglects, and an estimate in advance.

Let sigma = da/dv at v = 0 = sum_j 1 / Z_j, Z_j the normalisers for weights v, and t' = min(t, 1). The trajectories
f_{j+1} = f_j (1 - f_j / Z_j)^beta have on |v| <= R the majorant F_{j+1} = F_j (1 - F_j / Z_j)^{-beta}, F_1 = R. Since
(1 - x)^{-beta} <= 1 / (1 - x / t'), 1 / F_{j+1} >= 1 / F_j - 1 / (t' Z_j), hence F_j <= R / (1 - R sigma / t'): the
trajectories are analytic for |v| < X = t' / sigma, which is the reach.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]

SMALLEST_DEGREE = 3
SMALLEST_REACH = 1.5
NEWTON_STEPS = 4


def reach(slope: Floats, temperature: Floats) -> Floats:
    """X = t' / sigma, t' = min(t, 1): the radius in v up to which the trajectories are surely analytic."""
    return np.asarray(np.minimum(temperature[:, 0], 1.0) / slope)


def neglected(reach_: Any, degree: Any) -> Floats:
    """Bound on |interpolation error of b| / b(0), b(v) = a(v) / v of degree P - 1, for 0 <= v <= 1.

    b / b(0) has the majorant 1 / (1 - v / X). Divided differences of the powers of v are not negative, so nothing with
    this majorant errs more than 1 / (1 - v / X) itself, by T_P(2 v - 1) / ((1 - v / X) T_P(2 X - 1)).
    """
    x = np.maximum(reach_, SMALLEST_REACH)
    with np.errstate(over="ignore"):
        bound = 1.0 / ((1.0 - 1.0 / x) * np.cosh(degree * np.arccosh(2.0 * x - 1.0)))
    return np.where(reach_ > SMALLEST_REACH, bound, np.inf)


def degree_for(reach_: float, tolerance: float, largest: int) -> int:
    """The smallest degree whose bound is below the tolerance, or the largest one."""
    degrees = np.arange(SMALLEST_DEGREE, largest)
    enough = np.flatnonzero(neglected(reach_, degrees) <= tolerance)
    return int(degrees[enough[0]]) if len(enough) else largest


def estimate_slope(log_v: Floats, light: Floats, temperature: Floats, k: int) -> Floats:
    """(rows,): sigma = da/dv at v = 0, estimated before the recursion is run.

    For small steps dl/dj = -p / t, hence a(v) = t log(1 + sigma v / t), and the sum of all a is k; a light item's is
    sigma v. Newton's method for log sigma, a convex problem, from above: sigma <= k / light, and with v >= 1 for k
    items sigma <= t (e^{1/t} - 1). Three digits are enough.
    """
    t = temperature
    with np.errstate(over="ignore", divide="ignore"):
        log_sigma = np.minimum(np.log(k) - np.log(light[:, None]), np.log(t * np.expm1(np.minimum(1.0 / t, 600.0))))
        v = np.exp(np.minimum(log_v, 60.0)).astype(np.float32)
    for _ in range(NEWTON_STEPS):
        sigma = np.exp(log_sigma)
        x = (sigma / t).astype(np.float32) * v
        saturated = x + np.float32(1.0)
        by_light = sigma * light[:, None]
        excess = t * np.add.reduce(np.log(saturated), axis=-1, keepdims=True) + by_light - k
        slope = t * np.add.reduce(np.divide(x, saturated, out=x), axis=-1, keepdims=True) + by_light
        log_sigma = log_sigma - excess / slope
    return np.asarray(np.exp(log_sigma[:, 0]))
