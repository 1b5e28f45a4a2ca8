"""The paper's relaxed top-k (eqs. 3-5) and its relaxed subset sample (Algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _random, _validation, keys
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk.operator import Facts, Residuals, operator

__all__ = ["relaxed_sample", "relaxed_topk"]


def _example_topk(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.gumbel(size=(3, 6)), 3), {"temperature": np.asarray([0.4, 1.0, 2.5])}


def _example_sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.normal(size=(3, 6)), 2), {"temperature": 0.7, "noise": rng.gumbel(size=(3, 6))}


TOPK_FACTS = Facts(
    differentiable=("keys", "temperature"),
    range="a_i >= 0 (a_i <= 1 does not hold)",
    sums_to_k=True,
    order_preserving="temperature >= 1 (Theorem 1)",
    source="Xie & Ermon 2019, eqs. 3-5",
)
SAMPLE_FACTS = Facts(
    differentiable=("log_weights", "temperature"),
    range="a_i >= 0 (a_i <= 1 does not hold)",
    sums_to_k=True,
    order_preserving="of the keys, for temperature >= 1 (Theorem 1)",
    source="Xie & Ermon 2019, Algorithm 2",
)


@operator(TOPK_FACTS, _example_topk)
def relaxed_topk(
    keys: Any,
    k: Any,
    *,
    temperature: Any = 1.0,
    axis: int = -1,
    steps: bool = False,
    method: str = "auto",
    check: bool = True,
) -> Array:
    """Relaxed k-hot vector of the k largest keys, by successive softmax (RelaxedTopK, eqs. 3-5).

    Softmax is applied k times; each time the mass already given away is taken off the keys:
    p^j = softmax(alpha^j / t), alpha^{j+1} = alpha^j + log(1 - p^j), a = p^1 + ... + p^k.

    Parameters
    ----------
    keys : array_like, shape (..., n)
        Scores; -inf is an item that is not there.
    k : int
        Number of items, at most the number of finite keys of every row.
    temperature : float or array_like
        Positive; one for all, or of a shape that broadcasts to the batch shape. Towards 0 the result becomes the
        k-hot vector of the k largest keys, up to the jumps between them.
    axis : int
        The axis of the items; all others are batch axes.
    steps : bool
        Return the k relaxed one-hots p^1 .. p^k instead of their sum.
    method : {"auto", "direct", "compressed"}
        How it is computed; the results agree to rounding. "direct" makes k steps on n items. "compressed" makes them on
        a few hundred weighted points (NumPy arrays only), so that k hardly counts; rows where that would cost accuracy
        go to the direct form. "auto" takes the faster one.
    check : bool
        Whether to look for bad values (on a GPU this waits for the device).

    Returns
    -------
    array, shape of `keys`
        In the dtype of the keys; inside, the recursion runs in float64. With `steps`, a new axis of length k stands
        before the axis of the items.

    Raises
    ------
    ValueError, TypeError
        NaN or +inf keys, a temperature that is not positive or has an axis too many, k more than the finite keys.

    Notes
    -----
    a sums to k and is not negative. It can exceed 1, although the paper's Algorithm 2 says [0, 1]. The order of the
    keys is kept for temperatures of 1 and more (Theorem 1), not below. Differentiable in `keys` and `temperature`:
    see `fwd`, `jvp` and `vjp`. Gaps of more than 1e300 temperatures count as 1e300.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.relaxed_topk([200.0, 0.0, 0.0], 2).tolist()
    [1.5, 0.25, 0.25]
    >>> gt.relaxed_topk([1.0, 2.0, 3.0], 2, temperature=0.1).round(3).tolist()
    [0.0, 1.0, 1.0]
    """
    call = _prepare(keys, "keys", k, temperature, axis, steps, method, check)
    return _evaluate(call, False)[0]


@relaxed_topk.fwd_rule
def _topk_fwd(
    keys: Any,
    k: Any,
    *,
    temperature: Any = 1.0,
    axis: int = -1,
    steps: bool = False,
    method: str = "auto",
    check: bool = True,
) -> tuple[Array, Residuals]:
    return _with_residuals(_prepare(keys, "keys", k, temperature, axis, steps, method, check), "relaxed_topk", "keys")


@operator(SAMPLE_FACTS, _example_sample)
def relaxed_sample(
    log_weights: Any = None,
    k: Any = None,
    *,
    weights: Any = None,
    temperature: Any = 1.0,
    rng: Any = None,
    noise: Any = None,
    axis: int = -1,
    method: str = "auto",
    check: bool = True,
) -> Array:
    """Relaxed subset sample: Gumbel keys, then relaxed top-k (Algorithm 2).

    As the temperature goes to 0 the result tends to the k-hot vector of an exact sample without replacement.

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights; -inf is a weight of zero and gets no mass.
    k : int
        Number of items.
    weights : array_like, shape (..., n)
        The weights themselves, instead of `log_weights`. Gradients are by the log-weights all the same.
    temperature, axis, method, check
        As for `relaxed_topk`.
    rng : None, int, SeedSequence, Generator or CounterRNG
        Source of the Gumbel noise.
    noise : array_like, shape (..., n)
        The Gumbel noise itself, instead of `rng`: for derivatives at a fixed draw.

    Returns
    -------
    array, shape (..., n)
        In the dtype of the weights.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> log_weights = np.log([0.1, 0.2, 0.3, 0.4])
    >>> relaxed, residuals = gt.relaxed_sample.fwd(log_weights, 2, temperature=0.5, rng=0)
    >>> float(relaxed.sum().round(12))
    2.0
    >>> gt.relaxed_sample.vjp(residuals, np.asarray([1.0, 0.0, 0.0, 0.0])).shape
    (4,)
    """
    drawn, dtype = _draw_keys(log_weights, k, weights, rng, noise, axis, check)
    return _evaluate(_prepare(drawn, "log_weights", k, temperature, axis, False, method, check, dtype), False)[0]


@relaxed_sample.fwd_rule
def _sample_fwd(
    log_weights: Any = None,
    k: Any = None,
    *,
    weights: Any = None,
    temperature: Any = 1.0,
    rng: Any = None,
    noise: Any = None,
    axis: int = -1,
    method: str = "auto",
    check: bool = True,
) -> tuple[Array, Residuals]:
    drawn, dtype = _draw_keys(log_weights, k, weights, rng, noise, axis, check)
    call = _prepare(drawn, "log_weights", k, temperature, axis, False, method, check, dtype)
    return _with_residuals(call, "relaxed_sample", "log_weights")


def _draw_keys(
    log_weights: Any, k: Any, weights: Any, rng: Any, noise: Any, axis: int, check: bool
) -> tuple[Array, Any]:
    """The keys of Algorithm 2 in float64, r = log w + g, and the dtype of the result."""
    given, in_logs = _validation.check_weights_or_log_weights(log_weights, weights)
    name = "log_weights" if in_logs else "weights"
    if k is None:
        raise TypeError("k is missing: pass the number of items, e.g. relaxed_sample(log_weights, 10)")
    axis = _validation.check_axis(axis, given.ndim, name)
    k = _validation.check_k(k, given.shape[axis])
    xp = api.namespace_of(given)
    if check:
        keys.check_values(given, in_logs, k, xp, axis)
    dtype = api.work_float(xp, api.device_of(given))
    logs = xp.astype(given, dtype, copy=False) if in_logs else keys.log_of_weights(given, xp)
    return _centred(logs, axis, xp) + _gumbel_noise(given, name, rng, noise, check, xp), given.dtype


def _centred(logs: Array, axis: int, xp: Namespace) -> Array:
    """Log-weights less their row's largest: next to 1e30 the noise would be lost, and the relaxation sees no shift."""
    if 0 in logs.shape:
        return logs
    top = xp.max(logs, axis=axis, keepdims=True)
    return logs - xp.where(top > -math.inf, top, 0.0)


def _gumbel_noise(given: Array, name: str, rng: Any, noise: Any, check: bool, xp: Namespace) -> Array:
    """`noise` as it was given, or -log E of unit exponentials from `rng`; in the work dtype."""
    device = api.device_of(given)
    if noise is None:
        return -xp.log(_random.standard_exponential(rng, tuple(given.shape), xp, device))
    if rng is not None:
        raise TypeError("pass rng or noise, not both: with noise= nothing is drawn")
    noise = _validation.adopt(noise, "noise", given, name)
    if tuple(noise.shape) != tuple(given.shape):
        raise ValueError(f"noise has shape {tuple(noise.shape)}, but {name} has {tuple(given.shape)}")
    if check and not bool(xp.all(xp.isfinite(noise))):
        index, value = _validation.first_bad(noise, xp.isfinite(noise))
        raise ValueError(f"noise{index} = {value}; pass finite Gumbel noise")
    return xp.astype(noise, api.work_float(xp, device), copy=False)


# --- one call: checked input in the form of the cores, and back -----------------------------------


class Settings(NamedTuple):
    """The static part of the residuals."""

    k: int
    axis: int
    steps: bool
    shape: tuple[int, ...]
    temperature_shape: tuple[int, ...]
    power: float | None  # 1 / temperature, where it is known on the host
    form: Hashable  # of the trajectory: the core's own affair


class _Call(NamedTuple):
    xp: Namespace
    settings: Settings
    rows: Array  # (rows, n)
    temperature: Array  # (rows, 1) or (1, 1) in the work dtype
    method: str
    dtype: Any  # of the result
    temperature_dtype: Any


def _prepare(
    scores: Any,
    name: str,
    k: Any,
    temperature: Any,
    axis: int,
    steps: bool,
    method: str,
    check: bool,
    dtype: Any = None,
) -> _Call:
    scores = _validation.as_real_array(scores, name)
    axis = _validation.check_axis(axis, scores.ndim, name)
    xp = api.namespace_of(scores)
    items_last = api.move_items_last(scores, axis, xp)
    k = _validation.check_k(k, scores.shape[axis])
    _validation.check_method(method, steps, xp)
    if check and dtype is None:  # keys that were drawn here come from checked weights
        _validation.check_log_values(scores, name, k, xp, axis)
    batch = tuple(items_last.shape[:-1])
    checked = _validation.check_temperature(temperature, scores, batch, check)
    wide = xp.astype(checked, api.work_float(xp, api.device_of(scores)), copy=False)
    power = 1.0 / float(wide) if checked.ndim == 0 and api.is_numpy_namespace(xp) else None
    if checked.ndim == 0 and isinstance(temperature, (int, float)):
        power = 1.0 / float(temperature)  # no need to ask the device
    settings = Settings(k, axis, bool(steps), tuple(scores.shape), tuple(checked.shape), power, None)
    return _Call(
        xp,
        settings,
        api.flatten_batch(items_last, xp),
        _per_row(wide, batch, xp),
        method,
        scores.dtype if dtype is None else dtype,
        checked.dtype,
    )


def _per_row(temperature: Array, batch: tuple[int, ...], xp: Namespace) -> Array:
    """(1, 1) for one temperature, else (rows, 1)."""
    if math.prod(temperature.shape) == 1:
        return xp.reshape(temperature, (1, 1))
    return xp.reshape(xp.broadcast_to(temperature, batch), (-1, 1))


def _is_empty(settings: Settings) -> bool:
    return settings.k == 0 or 0 in settings.shape


def _result_shape(settings: Settings) -> tuple[int, ...]:
    shape = list(settings.shape)
    if settings.steps:
        shape.insert(settings.axis, settings.k)
    return tuple(shape)


def _evaluate(call: _Call, keep: bool) -> tuple[Array, tuple[Array, ...] | None, Hashable]:
    """The value, and the trajectory with its form."""
    xp, settings = call.xp, call.settings
    if _is_empty(settings):
        zeros = xp.zeros(_result_shape(settings), dtype=call.dtype, device=api.device_of(call.rows))
        return zeros, None, None
    power = 1.0 / call.temperature if settings.power is None else settings.power
    forward = _dispatch.core("relaxed_topk", xp)
    with api.quiet():
        result = forward(call.rows, call.temperature, power, settings.k, call.method, settings.steps, keep, xp)
    return _restore(result.a, settings, call.dtype, xp), result.trajectory, result.form


def _restore(rows: Array, settings: Settings, dtype: Any, xp: Namespace) -> Array:
    """(rows, n) or (k, rows, n) -> the shape of the result."""
    items_last = [length for i, length in enumerate(settings.shape) if i != settings.axis]
    n = settings.shape[settings.axis]
    rows = xp.astype(rows, dtype, copy=False)
    if not settings.steps:
        return api.move_items_back(xp.reshape(rows, (*items_last, n)), settings.axis, xp)
    stacked = api.move_items_back(xp.reshape(rows, (settings.k, *items_last, n)), settings.axis + 1, xp)
    return xp.moveaxis(stacked, 0, settings.axis)


def _flatten(array: Array, settings: Settings, dtype: Any, xp: Namespace) -> Array:
    """Undo `_restore`: a tangent or cotangent of the result's shape in the form of the cores."""
    array = xp.astype(array, dtype, copy=False)
    if not settings.steps:
        return api.flatten_batch(api.move_items_last(array, settings.axis, xp), xp)
    stacked = api.move_items_last(xp.moveaxis(array, settings.axis, 0), settings.axis + 1, xp)
    return xp.reshape(stacked, (settings.k, -1, stacked.shape[-1]))


# --- the derivatives, of both operators -----------------------------------------------------------


def _with_residuals(call: _Call, name: str, argument: str) -> tuple[Array, Residuals]:
    value, trajectory, form = _evaluate(call, True)
    settings = call.settings._replace(form=form)
    shapes = (
        (argument, settings.shape, call.dtype),
        ("temperature", settings.temperature_shape, call.temperature_dtype),
        ("result", _result_shape(settings), call.dtype),
    )
    arrays = (call.xp.zeros_like(value),) if trajectory is None else trajectory
    return value, Residuals(name, arrays, settings, shapes)


def _batch(settings: Settings) -> tuple[int, ...]:
    return tuple(length for i, length in enumerate(settings.shape) if i != settings.axis)


@relaxed_topk.jvp_rule
@relaxed_sample.jvp_rule
def _jvp(residuals: Residuals, tangents: Mapping[str, Array]) -> Array:
    settings: Settings = residuals.static
    xp = api.namespace_of(residuals.arrays[0])
    (argument, shape, dtype), _, (_, _, result_dtype) = residuals.shapes
    if _is_empty(settings):
        return xp.zeros_like(residuals.arrays[0])
    device = api.device_of(residuals.arrays[0])
    work = api.work_float(xp, device)
    key_tangent = tangents[argument] if argument in tangents else xp.zeros(shape, dtype=dtype, device=device)
    key_rows = api.flatten_batch(api.move_items_last(key_tangent, settings.axis, xp), xp)
    temperature_rows = xp.zeros((1, 1), dtype=work, device=device)
    if "temperature" in tangents:
        wide = xp.astype(tangents["temperature"], work, copy=False)
        temperature_rows = _per_row(wide, _batch(settings), xp)
    core = _dispatch.core("relaxed_topk_jvp", xp)
    with api.quiet():
        rows = core(
            residuals.arrays,
            settings.form,
            settings.power,
            settings.k,
            settings.steps,
            xp.astype(key_rows, dtype, copy=False),
            temperature_rows,
            xp,
        )
    return _restore(rows, settings, result_dtype, xp)


@relaxed_topk.vjp_rule
@relaxed_sample.vjp_rule
def _vjp(residuals: Residuals, cotangent: Array, wrt: tuple[str, ...]) -> dict[str, Array]:
    settings: Settings = residuals.static
    xp = api.namespace_of(residuals.arrays[0])
    (argument, shape, dtype), (_, temperature_shape, temperature_dtype), _ = residuals.shapes
    if _is_empty(settings):
        device = api.device_of(residuals.arrays[0])
        return {
            argument: xp.zeros(shape, dtype=dtype, device=device),
            "temperature": xp.zeros(temperature_shape, dtype=temperature_dtype, device=device),
        }
    core = _dispatch.core("relaxed_topk_vjp", xp)
    with api.quiet():
        key_rows, temperature_rows = core(
            residuals.arrays,
            settings.form,
            settings.power,
            settings.k,
            settings.steps,
            _flatten(cotangent, settings, dtype, xp),
            "temperature" in wrt,
            xp,
        )
    by_temperature = api.sum_to_shape(xp.reshape(temperature_rows, _batch(settings)), temperature_shape, xp)
    return {
        argument: _restore(key_rows, settings._replace(steps=False), dtype, xp),
        "temperature": xp.astype(by_temperature, temperature_dtype, copy=False),
    }
