"""The core of `relaxed_topk` for every namespace: the direct form of successive softmax, in the widest dtype.

All cores of `relaxed_topk` have this shape. `forward` takes rows of keys (rows, n) in their own dtype, the temperature
(rows, 1) or (1, 1) in the work dtype and its inverse `power`, as a Python float where it is known on the host; the
derivatives take the forward's trajectory and form. Results come back in the dtype of the keys, or in a wider one.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from gumbeltopk import _array_api as api
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._generic import successive_softmax


class Result(NamedTuple):
    """What a forward pass returns."""

    a: Array  # (rows, n), or the p^j (k, rows, n) if the steps are asked for
    trajectory: tuple[Array, ...] | None  # what the derivatives need; independent of the caller's arrays
    form: Hashable  # how to read it


def forward(
    keys: Array, temperature: Array, power: Any, k: int, method: str, steps: bool, keep: bool, xp: Namespace
) -> Result:
    """The value, and the trajectory if it is to be kept. `method` is for cores that have a choice."""
    work = api.work_float(xp, api.device_of(keys))
    wide = xp.astype(keys, work, copy=keep)  # a copy: the caller may change the keys in place later
    every = _interval(k, steps) if keep or steps else None
    a, trajectory = successive_softmax.forward(wide, temperature, power, k, every, xp)
    if trajectory is None:
        return Result(a, None, "generic")
    if steps:
        states, in_logs = trajectory.checkpoints, trajectory.in_logs
        a = xp.where(in_logs, xp.exp(states), states) if bool(xp.any(in_logs)) else states
    own = trajectory._replace(temperature=xp.asarray(temperature, copy=True))
    return Result(a, tuple(own) if keep else None, "generic")


def vjp(
    trajectory: tuple[Array, ...],
    form: Hashable,
    power: Any,
    k: int,
    steps: bool,
    cotangent: Array,
    with_temperature: bool,
    xp: Namespace,
) -> tuple[Array, Array]:
    """Gradients by the keys (rows, n) and by the temperature (rows, 1); the latter may be zeros if it is not wanted."""
    own = successive_softmax.Trajectory(*trajectory)
    wide = xp.astype(cotangent, own.keys.dtype, copy=False)
    return successive_softmax.vjp(own, _power(own, power), k, _interval(k, steps), wide, steps, xp)


def jvp(
    trajectory: tuple[Array, ...],
    form: Hashable,
    power: Any,
    k: int,
    steps: bool,
    key_tangent: Array,
    temperature_tangent: Array,
    xp: Namespace,
) -> Array:
    """Tangent of the value, from those of the keys (rows, n) and of the temperature (rows, 1) or (1, 1)."""
    own = successive_softmax.Trajectory(*trajectory)
    wide = xp.astype(key_tangent, own.keys.dtype, copy=False)
    return successive_softmax.jvp(own, _power(own, power), k, _interval(k, steps), wide, temperature_tangent, steps, xp)


def _interval(k: int, steps: bool) -> int:
    return 1 if steps else successive_softmax.checkpoint_interval(k)


def _power(trajectory: successive_softmax.Trajectory, power: Any) -> Any:
    return 1.0 / trajectory.temperature if power is None else power
