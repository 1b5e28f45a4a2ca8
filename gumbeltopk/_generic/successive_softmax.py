"""Successive softmax (eqs. 3-5 of the paper): value, JVP and VJP.

    p^j = softmax(alpha^j / t),   alpha^{j+1} = alpha^j + log(1 - p^j),   a = sum_j p^j,   j = 1 .. k

With beta = 1/t and l^j = alpha^j / t this is l^{j+1} = l^j + beta log(1 - p^j). Everything here works on rows (rows, n)
of keys, in float64 where there is one. Two domains hold the same recursion:

* direct: the state is p itself, p^{j+1} = p (1 - p)^beta / S_j. No logarithm, and full relative precision.
* log: the state is log p. For rows where an item that is needed later lies so far below the maximum that exp
  underflows.

In both, the *pivot* is the item with p > 1/2, of which a row has at most one. 1 - p would cancel there, so its
complement is the sum of the other items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gumbeltopk._array_api import Array, Namespace

DEEPEST_GAP = 700.0  # exp(-700) is still a normal float64
SMALLEST_LOG_MASS = -645.0  # below it an item lost at exp(-700) could matter: 1e-24 of the row and more
LARGEST_POWER_BY_PRODUCTS = 16
VELTKAMP = 134217729.0  # 2**27 + 1 splits a float64 into two halves
LARGEST_LOG = 1e300


class Trajectory(NamedTuple):
    """What the derivatives need of the forward pass."""

    keys: Array  # (rows, n)
    temperature: Array  # (rows, 1) or (1, 1)
    checkpoints: Array  # (number, rows, n): the state p^j, or log p^j in log rows, at every `every`-th j
    in_logs: Array  # (rows, 1): which domain a row is in


class Step(NamedTuple):
    """One step of the recursion, the same for both domains."""

    p: Array  # the relaxed one-hot p^j
    pivot: Array  # whether p > 1/2
    complement: Array  # 1 - p without cancellation; 1 stands for the pivot's where it is a divisor
    log_complement: Array | None
    others: Array  # p / (1 - p_pivot) for the other items of a row with a pivot; 0 elsewhere


def checkpoint_interval(k: int) -> int:
    """Steps between checkpoints: sqrt(k) of them are kept and sqrt(k) recomputed at a time, never k."""
    return max(1, math.isqrt(k))


# --- the forward pass -----------------------------------------------------------------------------


def forward(
    keys: Array, temperature: Array, power: Any, k: int, every: int | None, xp: Namespace
) -> tuple[Array, Trajectory | None]:
    """The relaxed k-hot a (rows, n), and the trajectory if `every` says how often to keep the state.

    `power` is beta = 1/temperature, as a Python float where it is known on the host.
    """
    shifted, correction = exponents(keys, temperature, xp)
    p = softmax_of_exponents(shifted, correction, xp)
    a, kept, log_mass, least = _run(p, power, k, every, xp, _next_direct, lambda state: state)
    in_logs = _underflowed(shifted, log_mass, least, xp)
    if bool(xp.any(in_logs)):
        rows = xp.nonzero(in_logs[:, 0])[0]
        log_p = log_softmax(xp.take(shifted, rows, axis=0), xp)
        some_power = power if isinstance(power, float) or power.shape[0] == 1 else xp.take(power, rows, axis=0)
        a_log, kept_log, _, _ = _run(log_p, some_power, k, every, xp, _next_log, xp.exp)
        a = _replace_rows(a, a_log, in_logs, 0, xp)
        if kept is not None and kept_log is not None:
            kept = _replace_rows(kept, kept_log, in_logs, 1, xp)
    if kept is None:
        return a, None
    return a, Trajectory(keys, temperature, kept, in_logs)


def _run(
    state: Array,
    power: Any,
    k: int,
    every: int | None,
    xp: Namespace,
    advance: Callable[..., tuple[Array, Array]],
    value: Callable[[Array], Array],
) -> tuple[Array, Array | None, Array, Array]:
    """k steps in one domain: sum of the p^j, kept states, log of the product of the S_j and of the least of them."""
    a = value(state)
    kept = [state]
    log_mass = least = xp.zeros_like(state[:, :1])
    for j in range(1, k):
        state, mass = advance(state, power, xp)
        log_mass, least = log_mass + mass, xp.minimum(least, mass)
        a = a + value(state)
        if every is not None and j % every == 0:
            kept.append(state)
    return a, None if every is None else xp.stack(kept), log_mass, least


def _next_direct(p: Array, power: Any, xp: Namespace) -> tuple[Array, Array]:
    """p (1 - p)^beta / S and log S."""
    pivot = p > 0.5
    rest = xp.sum(xp.where(pivot, 0.0, p), axis=-1, keepdims=True)
    w = p * complement_power(xp.where(pivot, rest, 1.0 - p), power, xp)
    mass = xp.sum(w, axis=-1, keepdims=True)
    return w / xp.where(mass > 0, mass, 1.0), xp.log(mass)


def _next_log(log_p: Array, power: Any, xp: Namespace) -> tuple[Array, Array]:
    """The same in logarithms."""
    step = _step_from_log(log_p, xp)
    log_w = log_p + power * step.log_complement
    log_w = xp.where(log_w < -LARGEST_LOG, _clip_finite(log_w, log_p, xp), log_w)
    return log_softmax(log_w, xp), log_sum_exp(log_w, xp)


def _clip_finite(log_w: Array, log_p: Array, xp: Namespace) -> Array:
    # An item of positive weight stays above -inf, whatever the temperature.
    return xp.where(xp.isfinite(log_p), xp.clip(log_w, min=-LARGEST_LOG), -math.inf)


def complement_power(complement: Array, power: Any, xp: Namespace) -> Array:
    """(1 - p)^beta; by products where beta is a small whole number, by a square root at 1/2."""
    if not isinstance(power, float):
        return xp.pow(complement, power)
    if power == 0.5:
        return xp.sqrt(complement)
    if power != round(power) or power > LARGEST_POWER_BY_PRODUCTS:
        return xp.pow(complement, power)
    result, square, remaining = None, complement, int(power)
    while remaining:
        if remaining & 1:
            result = square if result is None else result * square
        remaining >>= 1
        if remaining:
            square = square * square
    return xp.ones_like(complement) if result is None else result


def exponents(keys: Array, temperature: Array, xp: Namespace) -> tuple[Array, Array]:
    """(r - max r) / t in double-double: the rounded quotient and its correction.

    At a gap of 700 t the quotient alone would leave a relative error of 700 rounding units in exp.
    """
    top = xp.max(keys, axis=-1, keepdims=True)
    gap = keys - top  # TwoDiff: gap + gap_error = keys - top exactly
    virtual = gap - keys
    gap_error = (keys - (gap - virtual)) - (top + virtual)
    quotient = gap / temperature
    product = quotient * temperature  # TwoProduct (Veltkamp, Dekker): product + product_error exactly
    quotient_high, quotient_low = _split(quotient)
    temperature_high, temperature_low = _split(temperature)
    product_error = (
        (quotient_high * temperature_high - product) + quotient_high * temperature_low + quotient_low * temperature_high
    ) + quotient_low * temperature_low
    correction = ((gap - product) - product_error + gap_error) / temperature
    trusted = (quotient > -2 * DEEPEST_GAP) & xp.isfinite(correction)
    finite = xp.where(xp.isfinite(keys), xp.clip(quotient, min=-LARGEST_LOG), -math.inf)
    return finite, xp.where(trusted, correction, 0.0)


def _split(x: Array) -> tuple[Array, Array]:
    scaled = VELTKAMP * x
    high = scaled - (scaled - x)
    return high, x - high


def softmax_of_exponents(shifted: Array, correction: Array, xp: Namespace) -> Array:
    """softmax of the double-double exponents, whose maximum is 0; items below exp(-700) are 0."""
    deep = shifted < -DEEPEST_GAP
    v = xp.where(deep, 0.0, xp.exp(xp.where(deep, 0.0, shifted)) * (1.0 + correction))
    return v / xp.sum(v, axis=-1, keepdims=True)


def _underflowed(shifted: Array, log_mass: Array, least: Array, xp: Namespace) -> Array:
    """(rows, 1): whether an item that exp lost is needed by the k-th step, or a step lost its digits in (1 - p)^beta.

    Far items have 1 - p = 1, so there p^j = v / (S_1 .. S_{j-1}): the product of the S_j tells how far down the
    recursion has come.
    """
    deepest = xp.min(xp.where(xp.isfinite(shifted), shifted, 0.0), axis=-1, keepdims=True)
    return ((deepest < -DEEPEST_GAP) & ~(log_mass >= SMALLEST_LOG_MASS)) | ~(least >= SMALLEST_LOG_MASS)


def log_softmax(logs: Array, xp: Namespace) -> Array:
    """Normalised logarithms; the maximum goes first, because next to -1e300 a log 2 would be lost."""
    centred = logs - xp.max(logs, axis=-1, keepdims=True)
    return centred - xp.log(xp.sum(xp.exp(centred), axis=-1, keepdims=True))


def log_sum_exp(logs: Array, xp: Namespace) -> Array:
    """log sum exp over the last axis, which is kept; -inf for a row of -inf."""
    top = xp.max(logs, axis=-1, keepdims=True)
    safe = xp.where(top > -math.inf, top, 0.0)
    total = xp.sum(xp.exp(logs - safe), axis=-1, keepdims=True)
    return xp.where(top > -math.inf, xp.log(xp.where(total > 0, total, 1.0)) + safe, -math.inf)


def _replace_rows(array: Array, replacement: Array, where: Array, axis: int, xp: Namespace) -> Array:
    """`array` with the rows flagged in `where` (rows, 1) replaced, in order, by those of `replacement`."""
    flags = xp.astype(where[:, 0], xp.int64)
    kept = xp.arange(where.shape[0], dtype=xp.int64, device=_device(where))
    source = xp.where(where[:, 0], where.shape[0] - 1 + xp.cumulative_sum(flags), kept)
    return xp.take(xp.concat([array, replacement], axis=axis), source, axis=axis)


def _device(array: Array) -> Any:
    return array.device


# --- steps, for the derivatives -------------------------------------------------------------------


def _step_from_direct(p: Array, xp: Namespace) -> Step:
    pivot = p > 0.5
    outside = xp.where(pivot, 0.0, p)
    rest = xp.sum(outside, axis=-1, keepdims=True)
    divisor = xp.where(rest > 0, rest, 1.0)
    complement = xp.where(pivot, rest, 1.0 - p)
    log_complement = xp.where(pivot, xp.log(divisor), xp.log1p(-outside))
    has_pivot = xp.any(pivot, axis=-1, keepdims=True)
    return Step(p, pivot, complement, log_complement, xp.where(has_pivot, outside / divisor, 0.0))


def _step_from_log(log_p: Array, xp: Namespace) -> Step:
    p = xp.exp(log_p)
    pivot = p > 0.5
    outside = xp.where(pivot, -math.inf, log_p)
    rest = log_sum_exp(outside, xp)
    rest = xp.where(rest > -math.inf, rest, 0.0)  # a row of one item has no further step
    log_complement = xp.where(pivot, rest, xp.log1p(-xp.where(pivot, 0.0, p)))
    has_pivot = xp.any(pivot, axis=-1, keepdims=True)
    others = xp.where(has_pivot, xp.exp(xp.where(has_pivot, outside - rest, -math.inf)), 0.0)
    return Step(p, pivot, xp.exp(log_complement), log_complement, others)


class _Domain(NamedTuple):
    advance: Callable[..., tuple[Array, Array]]
    step: Callable[..., Step]


DIRECT = _Domain(_next_direct, _step_from_direct)
LOG = _Domain(_next_log, _step_from_log)


def _steps(
    domain: _Domain, checkpoints: Array, power: Any, k: int, every: int, xp: Namespace, reverse: bool
) -> Iterator[tuple[int, Step]]:
    """(j, step) for j = 0 .. k - 1, or downwards: states between checkpoints are made again, one segment at a time."""
    segments = range(checkpoints.shape[0])
    for segment in reversed(segments) if reverse else segments:
        states = [checkpoints[segment, ...]]
        first = segment * every
        for _ in range(first + 1, min(first + every, k)):
            states.append(domain.advance(states[-1], power, xp)[0])
        numbered = list(enumerate(states, start=first))
        for j, state in reversed(numbered) if reverse else numbered:
            yield j, domain.step(state, xp)


def _by_domain(
    trajectory: Trajectory,
    arrays: tuple[Array, ...],
    xp: Namespace,
    compute: Callable[..., tuple[Array, ...]],
) -> tuple[Array, ...]:
    """Run `compute(domain, trajectory, *arrays)` on the direct rows and on the log rows, and merge the results.

    The arrays have rows on their second axis from the right; axes of length 1 there are shared by all rows.
    """
    in_logs = trajectory.in_logs
    if not bool(xp.any(in_logs)):
        return compute(DIRECT, trajectory, *arrays)
    results = compute(DIRECT, trajectory, *arrays)
    rows = xp.nonzero(in_logs[:, 0])[0]

    def pick(array: Array) -> Array:
        return array if array.shape[-2] == 1 else xp.take(array, rows, axis=array.ndim - 2)

    picked = Trajectory(*(pick(array) for array in trajectory))
    in_log_rows = compute(LOG, picked, *(pick(array) for array in arrays))
    return tuple(
        _replace_rows(result, replacement, in_logs, result.ndim - 2, xp)
        for result, replacement in zip(results, in_log_rows, strict=True)
    )


def centred_exponents(trajectory: Trajectory, xp: Namespace) -> Array:
    """r - max r: the derivative of l^1 by beta, up to a constant of the row.

    0 for items of zero weight, and where the difference overflows.
    """
    centred = trajectory.keys - xp.max(trajectory.keys, axis=-1, keepdims=True)
    return xp.where(xp.isfinite(centred), centred, 0.0)


# --- the Jacobian-vector product ------------------------------------------------------------------


def jvp(
    trajectory: Trajectory,
    power: Any,
    k: int,
    every: int,
    key_tangent: Array,
    temperature_tangent: Array,
    steps: bool,
    xp: Namespace,
) -> Array:
    """Tangent of a (rows, n), or of all p^j (k, rows, n) if `steps`.

    With dl = d l^j and, where there is a pivot i, d = dl - dl_i (softmax does not see the shift):
        s = sum p d,   dp = p (d - s),   e = d p / (1 - p), at the pivot e_i = -p_i s / (1 - p_i)
        dl^{j+1} = dl + dbeta log(1 - p) - beta e
    """

    def compute(domain: _Domain, rows: Trajectory, dkeys: Array, dtemperature: Array) -> tuple[Array, ...]:
        beta = 1.0 / rows.temperature
        dbeta = -beta * beta * dtemperature
        dl = beta * xp.where(xp.isfinite(rows.keys), dkeys, 0.0) + dbeta * centred_exponents(rows, xp)
        own_power = power if isinstance(power, float) else beta
        tangents: list[Array] = []
        for j, step in _steps(domain, rows.checkpoints, own_power, k, every, xp, reverse=False):
            d = dl - xp.sum(xp.where(step.pivot, dl, 0.0), axis=-1, keepdims=True)
            dp = step.p * (d - xp.sum(step.p * d, axis=-1, keepdims=True))
            tangents = [*tangents, dp] if steps or not tangents else [tangents[0] + dp]
            if j < k - 1:
                at_pivot = -step.p * xp.sum(step.others * d, axis=-1, keepdims=True)
                e = xp.where(step.pivot, at_pivot, dp / xp.where(step.pivot, 1.0, step.complement))
                dl = dl + dbeta * step.log_complement - beta * e
        return (xp.stack(tangents) if steps else tangents[0],)

    return _by_domain(trajectory, (key_tangent, temperature_tangent), xp, compute)[0]


# --- the vector-Jacobian product ------------------------------------------------------------------


def vjp(
    trajectory: Trajectory,
    power: Any,
    k: int,
    every: int,
    cotangent: Array,
    steps: bool,
    xp: Namespace,
) -> tuple[Array, Array]:
    """Gradients by the keys (rows, n) and, row by row, by the temperature (rows, 1).

    `cotangent` is that of a (rows, n), or of all p^j (k, rows, n) if `steps`. Going down in j, with x the adjoint of
    l^{j+1}, g the cotangent of p^j, c = 1 - p, u = p / c_i (`others`):
        no pivot:  H = p (g - beta x / c);                     x <- x + H - p sum(H)
        pivot i:   H = p (g - g_i - beta x / c), H_i = 0;      x <- x + H - p sum(H) + u beta x_i p_i,
                   and at i itself                             x_i <- x_i (c_i + (1 - beta) p_i) - p_i sum(H)
    In the end r_bar = beta x and beta_bar = sum x r + sum_j sum x_{j+1} log(1 - p^j), t_bar = -beta^2 beta_bar.
    """

    def compute(domain: _Domain, rows: Trajectory, g: Array) -> tuple[Array, ...]:
        beta = 1.0 / rows.temperature
        own_power = power if isinstance(power, float) else beta
        x = xp.zeros_like(rows.keys)
        beta_bar = xp.zeros_like(rows.keys[:, :1])
        for j, step in _steps(domain, rows.checkpoints, own_power, k, every, xp, reverse=True):
            if j < k - 1:
                beta_bar = beta_bar + xp.sum(x * step.log_complement, axis=-1, keepdims=True)
            x = _reverse_step(step, x, g[j, ...] if steps else g, beta, xp)
        beta_bar = beta_bar + xp.sum(x * centred_exponents(rows, xp), axis=-1, keepdims=True)
        return beta * x, -beta * beta * beta_bar

    key_gradient, temperature_gradient = _by_domain(trajectory, (cotangent,), xp, compute)
    return key_gradient, temperature_gradient


def _reverse_step(step: Step, x: Array, g: Array, beta: Array, xp: Namespace) -> Array:
    p, pivot = step.p, step.pivot
    g_pivot = xp.sum(xp.where(pivot, g, 0.0), axis=-1, keepdims=True)
    h = xp.where(pivot, 0.0, p * (g - g_pivot - beta * x / xp.where(pivot, 1.0, step.complement)))
    total = xp.sum(h, axis=-1, keepdims=True)
    x_pivot = xp.sum(xp.where(pivot, beta * x * p, 0.0), axis=-1, keepdims=True)
    at_pivot = x * (step.complement + (1.0 - beta) * p)
    return xp.where(pivot, at_pivot, x + h + step.others * x_pivot) - p * total
