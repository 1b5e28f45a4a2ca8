"""The helpers that know about array libraries: namespace, device, dtype, axis, host."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from gumbeltopk import _array_api as api

SHAPES = [(5,), (2, 3), (4, 2, 3), (2, 3, 4, 2)]
EMPTY_SHAPES = [(0,), (3, 0), (0, 3), (2, 0, 3), (2, 3, 0)]


def numbered(shape: tuple[int, ...]) -> Any:
    """0, 1, 2, ...: no two entries can be mistaken for each other."""
    return np.arange(math.prod(shape), dtype=np.float64).reshape(shape)


# --- library, device, dtype -----------------------------------------------------------------------


def test_namespace_and_device_of_an_array(library, to_xp) -> None:
    array = to_xp(numbered((2, 3)))
    assert api.is_array(array)
    assert api.namespace_of(array) is library.xp
    assert api.namespace_of(array, to_xp([1, 2])) is library.xp
    assert api.device_of(array) == library.device


def test_names_of_the_library(library) -> None:
    """`backend` is what cores are filed under: only NumPy and CuPy have cores of their own."""
    name = library.name.partition("-")[0]
    assert api.backend(library.xp) == (name if name in ("numpy", "cupy") else "generic")
    assert api.namespace_name(library.xp) == ("array_api_strict" if name == "strict" else name)


def test_two_libraries_have_no_common_namespace(library, to_xp) -> None:
    strict = pytest.importorskip("array_api_strict")
    stranger = strict.asarray([1.0]) if library.name == "numpy" else np.ones(1)
    with pytest.raises(TypeError):
        api.namespace_of(to_xp([1.0]), stranger)


def test_numbers_and_lists_are_no_arrays() -> None:
    for thing in (1.0, 1, True, [1.0], (1.0,), None, "1.0"):
        assert not api.is_array(thing)


def test_dtypes(xp, device) -> None:
    assert api.work_float(xp, device) == xp.float64
    assert api.index_dtype(xp, device) == xp.int64
    # torch is single by default; an integer array becomes what a plain zeros() would be.
    assert api.default_float(xp, device) == xp.zeros(1, device=device).dtype


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", True), ("float64", True), ("int32", False), ("int64", False), ("bool", False)]
)
def test_is_floating(to_xp, xp, dtype: str, expected: bool) -> None:
    assert api.is_floating(to_xp([1, 0], dtype), xp) is expected


def test_is_floating_knows_half_precision_and_refuses_complex() -> None:
    xp = api.namespace_of(np.ones(1))
    assert api.is_floating(np.ones(1, dtype=np.float16), xp)
    assert api.is_floating(np.ones(1, dtype=">f8"), xp)
    assert not api.is_floating(np.ones(1, dtype=complex), xp)
    assert not api.is_floating(np.asarray([None]), xp)


def test_is_floating_knows_bfloat16() -> None:
    torch = pytest.importorskip("torch")
    assert api.is_floating(torch.ones(1, dtype=torch.bfloat16), api.namespace_of(torch.ones(1)))


# --- to the host ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (2, 3), (0, 3)])
def test_host(to_xp, dtype: str, shape: tuple[int, ...]) -> None:
    """From every library and device: same numbers, dtype and shape, in a NumPy array."""
    expected = (numbered(shape) % 2).astype(dtype)
    on_host = api.host(to_xp(expected))
    assert type(on_host) is np.ndarray
    assert on_host.dtype == expected.dtype
    np.testing.assert_array_equal(on_host, expected)
    assert on_host.shape == shape


def test_host_of_a_numpy_array_is_no_copy() -> None:
    array = numbered((2, 3))
    assert api.host(array) is array
    assert api.host(np.float64(2.5)) == 2.5


def test_host_of_torch_arrays_that_numpy_would_refuse() -> None:
    """One that records gradients, and bfloat16, which NumPy does not know."""
    torch = pytest.importorskip("torch")
    assert api.host(torch.tensor([1.5], requires_grad=True)).tolist() == [1.5]
    assert api.host(torch.tensor([1.5, -2.0], dtype=torch.bfloat16)).tolist() == [1.5, -2.0]


# --- axes -----------------------------------------------------------------------------------------

AXES = [(shape, axis) for shape in SHAPES for axis in range(-len(shape), len(shape))]


@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_items_go_last_and_back(to_xp, xp, assert_close, shape: tuple[int, ...], axis: int) -> None:
    """The batch axes keep their order."""
    array = numbered(shape)
    moved = api.move_items_last(to_xp(array), axis, xp)
    batch = [i for i in range(len(shape)) if i != axis % len(shape)]
    assert_close(moved, np.transpose(array, [*batch, axis % len(shape)]), rtol=0)
    assert_close(api.move_items_back(moved, axis, xp), array, rtol=0)


@pytest.mark.parametrize("shape", EMPTY_SHAPES)
def test_items_of_empty_arrays_go_last_and_back(to_xp, xp, assert_close, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape)
    for axis in range(-len(shape), len(shape)):
        moved = api.move_items_last(to_xp(array), axis, xp)
        assert moved.shape[-1] == shape[axis]
        assert_close(api.move_items_back(moved, axis, xp), array)


@pytest.mark.parametrize("shape", SHAPES + EMPTY_SHAPES)
def test_flatten_batch(to_xp, xp, assert_close, shape: tuple[int, ...]) -> None:
    """(..., n) -> (rows, n) in C order, also where n = 0 leaves the number of rows to be told from nothing."""
    array = numbered(shape)
    rows = math.prod(shape[:-1])
    assert_close(api.flatten_batch(to_xp(array), xp), np.reshape(array, (rows, shape[-1])), rtol=0)


# --- the adjoint of broadcasting ------------------------------------------------------------------


def shapes_that_broadcast_to(target: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All of them: axes left out in front, and each other one kept or of length 1."""
    shapes = set()
    for first in range(len(target) + 1):
        for choice in itertools.product(*({length, 1} for length in target[first:])):
            shapes.add(tuple(choice))
    return sorted(shapes)


@pytest.mark.parametrize("target", [(), (3,), (2, 3), (4, 2, 3), (2, 1, 3), (1,), (0,), (2, 0), (0, 3)])
def test_sum_to_shape_is_the_adjoint_of_broadcasting(to_xp, xp, assert_close, target: tuple[int, ...]) -> None:
    """<B x, y> = <x, B^T y> in whole numbers, so exactly, for every shape that broadcasts to the target."""
    rng = np.random.default_rng(0)
    for shape in shapes_that_broadcast_to(target):
        x = rng.integers(-9, 9, size=shape).astype(np.float64)
        y = rng.integers(-9, 9, size=target).astype(np.float64)
        summed = api.sum_to_shape(to_xp(y), shape, xp)
        assert_close(summed, api.host(summed), rtol=0)
        assert tuple(summed.shape) == shape
        assert np.sum(np.broadcast_to(x, target) * y) == np.sum(x * api.host(summed))


def test_sum_to_shape_keeps_float32(to_xp, xp, assert_close) -> None:
    ones = to_xp(np.ones((4, 2, 3)), "float32")
    assert_close(api.sum_to_shape(ones, (2, 1), xp), np.full((2, 1), 12.0), rtol=0, dtype="float32")
    assert_close(api.sum_to_shape(ones, (), xp), np.asarray(24.0), rtol=0, dtype="float32")


def test_sum_to_shape_copies_nothing_where_nothing_is_summed(to_xp, xp) -> None:
    for shape in ((4, 2, 3), (4, 1, 3)):
        array = to_xp(np.ones(shape))
        assert api.sum_to_shape(array, shape, xp) is array


# --- warnings -------------------------------------------------------------------------------------


def test_quiet_ends_where_it_ends() -> None:
    with api.quiet():
        assert np.isnan(np.zeros(1) / np.zeros(1))
    with pytest.warns(RuntimeWarning, match="invalid value"):
        np.zeros(1) / np.zeros(1)
