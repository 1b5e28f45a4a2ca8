"""One `xp`/`device` fixture pair: the suite's array tests run on every array library that is here.

    pytest                      NumPy and array-api-strict (its default device and its second one)
    pytest --xp cupy            CuPy, on a GPU or, failing that, on the CUDA emulator if the workplace has it
    pytest --xp all             everything; a library that is missing skips with its reason

Every test array is made through `xp` and `device`; what comes back is compared with `assert_close`, which also looks
at library, dtype and device.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

EMULATOR = Path(os.environ.get("CUDA_EMULATOR", Path(__file__).resolve().parent / "../shared/tools/cuda_emulator"))
CHOICES = ("numpy", "strict", "torch", "cupy")
collect_ignore = [] if importlib.util.find_spec("numba") else ["gumbeltopk/_numba"]  # else its doctests cannot be read


class Library(NamedTuple):
    """One array library on one device."""

    name: str
    xp: Any
    device: Any


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--xp",
        default="numpy,strict",
        help="array libraries to test, comma-separated: numpy, strict, torch, cupy, or all (default: numpy,strict)",
    )


def _requested(config: pytest.Config) -> tuple[str, ...]:
    text = config.getoption("--xp")
    names = CHOICES if text == "all" else tuple(part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in CHOICES]
    if unknown:
        raise pytest.UsageError(f"--xp {unknown[0]}: choose from {', '.join(CHOICES)} or all")
    return names


def pytest_configure(config: pytest.Config) -> None:
    if "cupy" in _requested(config):
        _start_emulator_without_gpu()


def _start_emulator_without_gpu() -> None:
    """The emulator must be imported before CuPy; with a GPU, or without CuPy, it is left alone."""
    if importlib.util.find_spec("cupy") is None or Path("/dev/nvidiactl").exists():
        return
    if (EMULATOR / "cupy_emulator").is_dir():
        sys.path.insert(0, str(EMULATOR.resolve()))
        import cupy_emulator  # noqa: F401


def _numpy() -> list[Library]:
    import array_api_compat.numpy as xp

    return [Library("numpy", xp, "cpu")]


def _strict() -> list[Library]:
    import array_api_strict as xp

    return [Library("strict", xp, xp.Device("CPU_DEVICE")), Library("strict-device1", xp, xp.Device("device1"))]


def _torch() -> list[Library]:
    import array_api_compat.torch as xp

    return [Library("torch", xp, xp.device("cpu"))]


def _cupy() -> list[Library]:
    import array_api_compat.cupy as xp
    import cupy

    cupy.cuda.runtime.getDeviceCount()  # raises without GPU and driver
    return [Library("cupy", xp, cupy.cuda.Device(0))]


LOADERS = {"numpy": _numpy, "strict": _strict, "torch": _torch, "cupy": _cupy}


def _libraries(config: pytest.Config) -> list[Any]:
    parameters: list[Any] = []
    for name in _requested(config):
        try:
            parameters += [pytest.param(library, id=library.name) for library in LOADERS[name]()]
        except Exception as error:  # a missing package, or CuPy without a driver
            reason = f"{name} cannot be used here: {type(error).__name__}: {error}"
            parameters.append(pytest.param(None, id=name, marks=pytest.mark.skip(reason=reason)))
    return parameters


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "library" in metafunc.fixturenames:
        metafunc.parametrize("library", _libraries(metafunc.config), scope="session", indirect=True)


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> Library:
    """The array library of this test."""
    return request.param


@pytest.fixture
def xp(library: Library) -> Any:
    """Its namespace."""
    return library.xp


@pytest.fixture
def device(library: Library) -> Any:
    """Its device."""
    return library.device


@pytest.fixture
def to_xp(xp: Any, device: Any) -> Any:
    """A function that brings a NumPy array, or a list, to the library under test."""

    def convert(array: Any, dtype: str | None = None) -> Any:
        array = np.asarray(array)
        name = dtype or array.dtype.name
        # Through lists, which every library takes on every device; reshape because a list forgets empty axes.
        return xp.reshape(xp.asarray(array.tolist(), dtype=getattr(xp, name), device=device), array.shape)

    return convert


@pytest.fixture
def assert_close(library: Library) -> Any:
    """A function (actual, expected, rtol, atol): values, and that library, dtype and device are those of the test."""
    from gumbeltopk import _array_api as api

    def check(actual: Any, expected: Any, rtol: float = 1e-12, atol: float = 0.0, dtype: str = "float64") -> None:
        assert api.namespace_of(actual) is library.xp, "the result belongs to another array library"
        assert api.device_of(actual) == library.device, "the result left its device"
        assert actual.dtype == getattr(library.xp, dtype), f"dtype {actual.dtype}, expected {dtype}"
        assert tuple(actual.shape) == np.shape(expected), f"shape {tuple(actual.shape)}, expected {np.shape(expected)}"
        np.testing.assert_allclose(api.host(actual), expected, rtol=rtol, atol=atol)

    return check
