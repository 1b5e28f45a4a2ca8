"""k, temperature, weights, indices, shapes: the one place that looks at a user's input, and all the messages.

Each function returns its argument in the form that the cores take, or raises an error that names the argument,
the offending value, its index and what to do. Values are looked at in one reduction; only once that has failed
does a slow path copy to the host to find the culprit.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._messages import shown

ROWS_IN_A_MESSAGE = 8
NOT_WEIGHTS = ("keys", "logits")  # -inf is an item that is never selected
POSITIVE_AND_FINITE = "must be positive and finite"
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
MOST_BITS = 1 << 12  # of an integer: Python does not print what has more than 4300 digits
SMALLEST_TEMPERATURE = 2.0**-1022  # of smaller ones, 1 / temperature overflows
ITEMS_IN_CACHE = 1 << 17  # between the first look at them and the second
LARGEST_QUICK_TEMPERATURE = 1e30  # finite in any dtype


# --- arrays ---------------------------------------------------------------------------------------


def as_array(array: Any, name: str) -> Array:
    """An array of one of the supported namespaces; lists and scalars become NumPy arrays."""
    if _holds_masked_array(array):  # numpy.asarray would show what the mask hides
        raise TypeError(
            f"{name} is a masked array; fill the masked entries first, e.g. a weight with 0, a log-weight with -inf"
        )
    if isinstance(array, np.matrix):
        raise TypeError(f"{name} is a numpy.matrix, which is always 2-D; pass numpy.asarray({name})")
    if isinstance(array, np.ndarray):
        return np.asarray(array)
    if api.is_array(array) and not isinstance(array, np.generic):
        return array
    try:
        return np.asarray(array)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be made into an array ({error}); pass a rectangular array") from None


def _holds_masked_array(array: Any) -> bool:
    if isinstance(array, (list, tuple)):
        return any(_holds_masked_array(part) for part in array)
    return isinstance(array, np.ma.MaskedArray)


def as_real_array(array: Any, name: str) -> Array:
    """A floating array in native byte order; integers become the default float, anything else is refused."""
    if type(array) is np.ndarray and (array.dtype is FLOAT64 or array.dtype is FLOAT32):
        return array
    array = as_array(array, name)
    if isinstance(array, np.ndarray):
        kind, itemsize = array.dtype.kind, array.dtype.itemsize
        if kind in "iu" or (kind == "f" and itemsize <= 8):
            return array.astype(np.float64 if kind in "iu" else array.dtype.newbyteorder("="), copy=False)
        raise TypeError(
            f"{name} has dtype {array.dtype}; pass float16, float32, float64 or integers"
            + (" (a truth value is not a number here; convert it on purpose)" if kind == "b" else "")
        )
    xp = api.namespace_of(array)
    if api.is_floating(array, xp):
        return array
    if xp.isdtype(array.dtype, "integral"):
        return xp.astype(array, api.default_float(xp, api.device_of(array)))
    raise TypeError(f"{name} has dtype {array.dtype}; pass real floating or integer numbers")


def check_same_home(first: Array, name: str, second: Array, second_name: str) -> Namespace:
    """The namespace of both arrays; another library or another device is an error, nothing is moved silently."""
    try:
        xp = api.namespace_of(first, second)
    except TypeError:
        a, b = (api.namespace_name(api.namespace_of(x)) for x in (first, second))
        raise TypeError(
            f"{second_name} ({b}) and {name} ({a}) are of two array libraries; convert one of them on purpose"
        ) from None
    if api.device_of(first) != api.device_of(second):
        raise ValueError(
            f"{second_name} (on {api.device_of(second)}) and {name} (on {api.device_of(first)}) are on two devices; "
            "move one of them on purpose"
        )
    return xp


def adopt(array: Any, name: str, like: Array, like_name: str) -> Array:
    """`as_real_array`, where Python numbers and lists take the namespace and device of `like`."""
    if not api.is_array(array) or isinstance(array, np.generic):
        xp = api.namespace_of(like)
        numbers = as_real_array(array, name)
        return xp.asarray(numbers.tolist(), dtype=api.work_float(xp, api.device_of(like)), device=api.device_of(like))
    array = as_real_array(array, name)
    check_same_home(like, like_name, array, name)
    return array


def check_axis(axis: Any, ndim: int, name: str) -> int:
    """`axis` as a number from 0 to ndim - 1."""
    if ndim == 0:
        raise ValueError(f"{name} is 0-dimensional; it needs an axis of items, e.g. shape (n,)")
    number = as_integer(axis, "axis")
    if not -ndim <= number < ndim:
        raise ValueError(
            f"axis = {number} is out of range for {name} of {ndim} dimensions; pass a number from {-ndim} to {ndim - 1}"
        )
    return number % ndim


def as_integer(value: Any, name: str) -> int:
    """A Python int; booleans and floats are refused even if they are whole."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} = {value!r} is a truth value; pass an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} = {shown(value)} must be an integer, not {type(value).__name__}") from None
    if number.bit_length() > MOST_BITS:
        raise ValueError(f"{name} is an integer of {number.bit_length()} bits; nothing here is as large")
    return number


# --- k and temperature ----------------------------------------------------------------------------


def check_k(k: Any, n: int) -> int:
    """The number of items to select, from 0 to n."""
    number = as_integer(k, "k")
    if number < 0:
        raise ValueError(f"k = {number} is negative; pass a number from 0 to n = {n}")
    if number > n:
        raise ValueError(f"k = {number} is more than the n = {n} items; without replacement k is at most n")
    return number


def check_temperature(temperature: Any, keys: Array, batch: tuple[int, ...], check: bool) -> Array:
    """The temperature as a floating array whose shape broadcasts to the batch shape, and no further."""
    if type(temperature) in (float, int) and SMALLEST_TEMPERATURE <= temperature <= LARGEST_QUICK_TEMPERATURE:
        xp, device = api.namespace_of(keys), api.device_of(keys)  # the usual case, without its checks
        return xp.asarray(float(temperature), dtype=api.work_float(xp, device), device=device)
    on_host = not api.is_array(temperature) or isinstance(temperature, np.generic)
    if on_host:  # before it is copied to a device, a look costs no wait
        _check_temperature_values(as_real_array(temperature, "temperature"))
    temperature = adopt(temperature, "temperature", keys, "keys")
    shape = tuple(temperature.shape)
    if not broadcasts_to(shape, batch):
        raise ValueError(
            f"temperature has shape {shape}, which does not broadcast to the batch shape {batch}; "
            "give one temperature, or one for each row, without an axis for the items"
        )
    if check and not on_host:
        _check_temperature_values(temperature)
    return temperature


def _check_temperature_values(temperature: Array) -> None:
    xp = api.namespace_of(temperature)
    good = (temperature >= SMALLEST_TEMPERATURE) & xp.isfinite(temperature)
    if bool(xp.all(good)):
        return
    index, value = first_bad(temperature, good)
    wrong = "is so small that 1 / temperature overflows" if value > 0 and math.isfinite(value) else POSITIVE_AND_FINITE
    raise ValueError(f"temperature{index} = {value} {wrong}; for exact top-k use `sample` and `k_hot`")


def check_maximum(maximum: Any, log_weights: Array, batch: tuple[int, ...], check: bool) -> Array:
    """The largest key as a floating array whose shape broadcasts to the batch shape, and no further."""
    maximum = adopt(maximum, "maximum", log_weights, "log_weights")
    shape = tuple(maximum.shape)
    if not broadcasts_to(shape, batch):
        raise ValueError(
            f"maximum has shape {shape}, which does not broadcast to the batch shape {batch}; "
            "give one number, or one for each row, without an axis for the items"
        )
    xp = api.namespace_of(maximum)
    if check and not bool(xp.all(xp.isfinite(maximum))):
        index, value = first_bad(maximum, xp.isfinite(maximum))
        raise ValueError(f"maximum{index} = {value} is not the key of an item of positive weight; pass finite numbers")
    return maximum


def check_method(method: Any, steps: bool, xp: Namespace) -> None:
    """A way to compute successive softmax that there is for this library and these results."""
    if not isinstance(method, str) or method not in ("auto", "direct", "compressed"):
        raise ValueError(f"method = {shown(method)} is not known; choose 'auto', 'direct' or 'compressed'")
    if method == "compressed" and steps:
        raise ValueError("method = 'compressed' makes no steps of all items; pass 'auto' or 'direct' with steps=True")
    if method == "compressed" and not api.is_numpy_namespace(xp):
        raise ValueError(f"method = 'compressed' is for NumPy arrays, not {api.namespace_name(xp)}'s; pass 'auto'")


def broadcasts_to(shape: tuple[int, ...], batch: tuple[int, ...]) -> bool:
    """Whether an array of this shape has one number, or one for each row of the batch."""
    return len(shape) <= len(batch) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(batch), strict=False))


# --- weights --------------------------------------------------------------------------------------


def check_weights_or_log_weights(log_weights: Any, weights: Any) -> tuple[Array, bool]:
    """The one that was given, as a floating array, and whether it is in logs."""
    if (log_weights is None) == (weights is None):
        given = "neither was" if weights is None else "both were"
        raise TypeError(f"pass exactly one of log_weights and weights=; {given} given")
    if weights is None:
        return as_real_array(log_weights, "log_weights"), True
    return as_real_array(weights, "weights"), False


def check_log_values(logs: Array, name: str, k: int, xp: Namespace, axis: int = -1) -> None:
    """Each value below +inf and not NaN, and at least k items above -inf in each row, the items being on `axis`."""
    if 0 in logs.shape or _all_between(-math.inf, logs, xp):
        return
    good = logs < math.inf
    if not bool(xp.all(good)):
        index, value = first_bad(logs, good)
        what = "an item that is never selected" if name in NOT_WEIGHTS else "a weight of zero"
        raise ValueError(f"{name}{index} = {value}; pass finite numbers, or -inf for {what}")
    check_enough(logs > -math.inf, name, k, xp, axis)


def check_weight_values(weights: Array, k: int, xp: Namespace, axis: int = -1) -> None:
    """Each weight finite, not negative and not NaN, and at least k of them positive in each row."""
    if 0 in weights.shape or _all_between(0.0, weights, xp):
        return
    good = (weights >= 0) & (weights < math.inf)
    if not bool(xp.all(good)):
        index, value = first_bad(weights, good)
        raise ValueError(f"weights{index} = {value}; pass finite numbers that are not negative")
    check_enough(weights > 0, "weights", k, xp, axis)


def _all_between(low: float, array: Array, xp: Namespace) -> bool:
    """Whether all values lie in (low, inf): the usual case, and one wait for the device. NaN fails."""
    if type(array) is np.ndarray:  # what `min` and `max` would do, in half of the time
        blocks = [array]
        if array.size > ITEMS_IN_CACHE and array.flags.c_contiguous:
            flat = array.reshape(-1)
            blocks = [flat[first : first + ITEMS_IN_CACHE] for first in range(0, flat.size, ITEMS_IN_CACHE)]
        return all(np.minimum.reduce(b, axis=None) > low and np.maximum.reduce(b, axis=None) < math.inf for b in blocks)
    return bool((xp.min(array) > low) & (xp.max(array) < math.inf))


def check_enough(positive: Array, name: str, k: int, xp: Namespace, axis: int = -1) -> None:
    """At least k items of positive weight in each row."""
    counts = xp.count_nonzero(positive, axis=axis)
    if bool(xp.all(counts >= k)):
        return
    counts = np.atleast_1d(api.host(counts))
    rows = np.argwhere(counts < k)
    shown = [tuple(int(i) for i in row) if len(row) > 1 else int(row[0]) for row in rows[:ROWS_IN_A_MESSAGE]]
    where = "" if positive.ndim == 1 else f" in rows {shown}{' ...' if len(rows) > len(shown) else ''}"
    what, remedy = (
        ("finite entries", "make more entries finite")
        if name in NOT_WEIGHTS
        else ("items of positive weight", "give more items a positive weight")
    )
    raise ValueError(f"k = {k} is more than the {int(counts.min())} {what}{where} of {name}; lower k or {remedy}")


def adopt_indices(
    indices: Any, n: int, like: Array, like_name: str, check: bool = True, name: str = "indices"
) -> Array:
    """`check_indices`, where lists take the namespace and device of `like`."""
    if api.is_array(indices) and not isinstance(indices, np.generic):
        check_same_home(like, like_name, as_array(indices, name), name)
        return check_indices(indices, n, name, check)
    xp, device = api.namespace_of(like), api.device_of(like)
    checked = check_indices(indices, n, name)
    adopted = xp.asarray(checked.tolist(), dtype=api.index_dtype(xp, device), device=device)
    return xp.reshape(adopted, checked.shape)


def check_indices(indices: Any, n: int, name: str = "indices", check: bool = True) -> Array:
    """Integer indices (..., k) of items, each in 0 .. n - 1."""
    indices = as_array(indices, name)
    if isinstance(indices, np.ndarray):
        if indices.size == 0 and indices.dtype.kind == "f":
            indices = indices.astype(np.int64)  # numpy.asarray([]) is float64
        integral = indices.dtype.kind in "iu"
    else:
        integral = api.namespace_of(indices).isdtype(indices.dtype, "integral")
    if not integral:
        raise TypeError(f"{name} has dtype {indices.dtype}; pass integers")
    if indices.ndim == 0:
        raise ValueError(f"{name} is 0-dimensional; its last axis lists the k selected items")
    xp = api.namespace_of(indices)
    positions = xp.astype(indices, api.index_dtype(xp, api.device_of(indices)), copy=False)
    if 0 in indices.shape or not check:
        return positions
    good = (positions >= 0) & (positions < n)
    if not bool(xp.all(good)):
        index, value = first_bad(indices, good)
        raise ValueError(f"{name}{index} = {value} is not one of the n = {n} items; they are numbered from 0 to n - 1")
    return positions


def check_distinct(indices: Array, name: str = "indices") -> None:
    """No item twice in a row."""
    if indices.shape[-1] < 2 or 0 in indices.shape:
        return
    xp = api.namespace_of(indices)
    ordered = xp.sort(indices, axis=-1)
    repeated = ordered[..., 1:] == ordered[..., :-1]
    if bool(xp.any(repeated)):
        index, _ = first_bad(repeated, ~repeated)
        row = index.rpartition(",")[0] if "," in index else ""
        value = host_item(ordered[..., 1:], first_bad_position(~repeated))
        raise ValueError(
            f"{name}{row + ']' if row else ''} has item {value} more than once; a subset has each item at most once"
        )


def common_batch(batch: tuple[int, ...], of_indices: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The batch shape to which the rows of `name` and of the indices broadcast."""
    try:
        return np.broadcast_shapes(batch, of_indices)
    except ValueError:
        raise ValueError(
            f"indices has the batch shape {of_indices}, which does not broadcast with {batch} of {name}"
        ) from None


def first_bad_position(good: Array) -> tuple[int, ...]:
    """Position of the first False."""
    flags = np.atleast_1d(api.host(good))
    return tuple(int(i) for i in np.argwhere(~flags)[0])


def host_item(array: Array, position: tuple[int, ...]) -> Any:
    """One value, on the host."""
    return np.atleast_1d(api.host(array))[position].item()


def first_bad(array: Array, good: Array) -> tuple[str, Any]:
    """The index, written as `[i, j]` (empty for a 0-d array), and the value of the first bad entry."""
    position = first_bad_position(good)
    index = f"[{', '.join(map(str, position))}]" if array.ndim else ""
    return index, host_item(array, position)


# --- derivatives ----------------------------------------------------------------------------------


def check_residuals(residuals: Any, name: str) -> None:
    """Residuals of this very operator."""
    made_by = getattr(residuals, "operator", None)
    if made_by is None:
        raise TypeError(f"{name}: residuals must come from {name}.fwd, not be a {type(residuals).__name__}")
    if made_by != name:
        raise ValueError(f"{name}: these residuals come from {made_by}.fwd; pass those of {name}.fwd")


def differentiable_names(wrt: Any, allowed: tuple[str, ...], default: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The names in `wrt`, each of which has a derivative."""
    if wrt is None:
        return default
    if not isinstance(wrt, (str, tuple)):
        raise TypeError(f"{name}: wrt = {wrt!r} is neither the name of an argument nor a tuple of names")
    names = (wrt,) if isinstance(wrt, str) else wrt
    for requested in names:
        if requested not in allowed:
            raise ValueError(f"{name}: wrt names {requested!r}, which has no derivative; choose from {list(allowed)}")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{name}: wrt = {names} must name at least one argument, and none twice")
    return names


def check_tangent(tangent: Any, label: str, residuals: Any, argument: str) -> Array:
    """A tangent or cotangent: of the shape of its argument, at home where the residuals are."""
    shape = next(shape for name, shape, _ in residuals.shapes if name == argument)
    tangent = adopt(tangent, label, residuals.arrays[0], "the residuals")
    if tuple(tangent.shape) != shape:
        what = "the value" if argument == "result" else argument
        raise ValueError(
            f"{residuals.operator}: {label} has shape {tuple(tangent.shape)}, but {what} has {shape}; they must agree"
        )
    return tangent
