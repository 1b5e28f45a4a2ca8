"""The only importer of array_api_compat: namespace, device, dtype and axis of the arrays of a call."""

from __future__ import annotations

from typing import Any

import array_api_compat
import array_api_compat.numpy
import numpy as np

Array = Any
Namespace = Any
Device = Any
DType = Any

is_numpy_namespace = array_api_compat.is_numpy_namespace
is_cupy_namespace = array_api_compat.is_cupy_namespace
is_torch_namespace = array_api_compat.is_torch_namespace
is_array = array_api_compat.is_array_api_obj
device_of = array_api_compat.device


def backend(xp: Namespace) -> str:
    """Name under which `_dispatch` files the native cores of a namespace."""
    if is_numpy_namespace(xp):
        return "numpy"
    if is_cupy_namespace(xp):
        return "cupy"
    return "generic"


def namespace_of(*arrays: Array) -> Namespace:
    """The array namespace common to `arrays`."""
    if len(arrays) == 1 and type(arrays[0]) is np.ndarray:  # the usual case, in a tenth of the time
        return array_api_compat.numpy
    return array_api_compat.array_namespace(*arrays)


def namespace_name(xp: Namespace) -> str:
    """`numpy`, `cupy`, `torch`, ...: for messages."""
    return str(xp.__name__).removeprefix("array_api_compat.").split(".")[0]


def default_float(xp: Namespace, device: Device) -> DType:
    """What an integer array becomes where a real one is needed."""
    return xp.__array_namespace_info__().default_dtypes(device=device)["real floating"]


def index_dtype(xp: Namespace, device: Device) -> DType:
    """The dtype of arrays of indices (int64 where there is one)."""
    return xp.__array_namespace_info__().default_dtypes(device=device)["indexing"]


def work_float(xp: Namespace, device: Device) -> DType:
    """The dtype of inner recursions: float64, or the widest one that the device has."""
    if xp is array_api_compat.numpy:
        return np.dtype(np.float64)
    dtypes = xp.__array_namespace_info__().dtypes(device=device, kind="real floating")
    return dtypes.get("float64", dtypes["float32"])


def is_floating(array: Array, xp: Namespace) -> bool:
    """Whether the array is of a real floating dtype, float16 and bfloat16 included."""
    if isinstance(array, np.ndarray):  # ml_dtypes and friends are left to the isdtype below
        return bool(np.issubdtype(array.dtype, np.floating))
    return bool(xp.isdtype(array.dtype, "real floating"))


def host(array: Array) -> np.ndarray[Any, Any]:
    """The array on the host, for messages and for small tables; a NumPy array is returned as it is."""
    if isinstance(array, np.ndarray):
        return array
    if array_api_compat.is_cupy_array(array):
        return np.asarray(array.get())
    if array_api_compat.is_torch_array(array):
        return _from_torch(array)
    # array-api-strict hands only arrays of its default device to NumPy.
    default = namespace_of(array).__array_namespace_info__().default_device()
    return np.asarray(array if default is None else array_api_compat.to_device(array, default))


def _from_torch(array: Array) -> np.ndarray[Any, Any]:
    array = array.detach().cpu()
    # NumPy has no bfloat16; float32 holds all its numbers.
    return np.asarray(array.float() if str(array.dtype) == "torch.bfloat16" else array)


def move_items_last(array: Array, axis: int, xp: Namespace) -> Array:
    """The view whose last axis is `axis`; the cores know no other place for the items."""
    return array if axis in (-1, array.ndim - 1) else xp.moveaxis(array, axis, -1)


def move_items_back(array: Array, axis: int, xp: Namespace) -> Array:
    """Undo `move_items_last`."""
    return array if axis in (-1, array.ndim - 1) else xp.moveaxis(array, -1, axis)


def flatten_batch(array: Array, xp: Namespace) -> Array:
    """(..., n) -> (rows, n); the number of rows is spelled out because n may be 0."""
    rows = 1
    for length in array.shape[:-1]:
        rows *= length
    return xp.reshape(array, (rows, array.shape[-1]))


def sum_to_shape(array: Array, shape: tuple[int, ...], xp: Namespace) -> Array:
    """The adjoint of broadcasting `shape` to `array.shape`."""
    extra = array.ndim - len(shape)
    if extra:
        array = xp.sum(array, axis=tuple(range(extra)))
    stretched = tuple(i for i, length in enumerate(shape) if length == 1 and array.shape[i] != 1)
    return xp.sum(array, axis=stretched, keepdims=True) if stretched else array


def quiet() -> np.errstate:
    """Cores divide by zero and overflow only where the result is not used; NumPy need not warn of it."""
    return np.errstate(all="ignore")
