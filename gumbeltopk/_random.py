"""Randomness: `rng=` after SPEC 7, unit exponentials on every backend, and counter-based draws.

Everything random in this package is made from unit exponentials E: arrival times T = E / w, Gumbel noise -log E.
They are drawn in float64 whatever the dtype of the result: a float32 uniform grid would cap Gumbel noise at 16.6
and produce ties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk._array_api import Array, Device, Namespace
from gumbeltopk._messages import shown

SMALLEST_EXPONENTIAL = float(np.finfo(np.float64).smallest_normal)  # a draw of exactly 0 would be an infinite key
LARGEST_UNIFORM = 1.0 - 2.0**-53


@dataclass(frozen=True)
class CounterRNG:
    """Counter-based randomness: the draw of item i is a pure function of (seed, i).

    Keys made with it do not depend on how the items are cut into chunks, on the order of the chunks or on the
    number of workers, nor on the array library: the words are those of NumPy's Philox4x64 everywhere (on a GPU
    they are copied from the host).

    Parameters
    ----------
    seed : int
        Not negative. Different seeds give independent streams.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> whole = gt.gumbel_keys(np.zeros(10), rng=gt.CounterRNG(7))
    >>> part = gt.gumbel_keys(np.zeros(4), rng=gt.CounterRNG(7), start=6)
    >>> bool((whole[6:] == part).all())
    True
    """

    seed: int

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)):
            raise TypeError(f"seed = {shown(self.seed)} must be an integer")
        if self.seed < 0:
            raise ValueError(f"seed = {shown(self.seed)} is negative; pass 0 or more")

    def words(self, start: int, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """The 64-bit words of items start .. start + count - 1."""
        key = np.random.SeedSequence(int(self.seed)).generate_state(2, np.uint64)
        # One Philox block has four words, and `advance` counts blocks; a fresh generator has no words left over.
        block, offset = divmod(start, 4)
        bits = np.random.Philox(key=key).advance(block)
        return bits.random_raw(offset + count)[offset:]

    def standard_exponential(self, start: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Unit exponentials of items start .. start + count - 1, by inverse CDF.

        E = -log(1 - u): small E, which are the early arrivals that get selected, keep full relative precision.
        """
        return exponential_of_uniform(uniform_of_words(self.words(start, count)))


def uniform_of_words(words: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Uniforms in (0, 1) from 64-bit words."""
    uniform: np.ndarray[Any, np.dtype[np.float64]] = (words.astype(np.float64) + 0.5) * 2.0**-64
    np.minimum(uniform, LARGEST_UNIFORM, out=uniform)
    return uniform


def exponential_of_uniform(
    uniform: np.ndarray[Any, np.dtype[np.float64]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Unit exponentials by inverse CDF."""
    exponentials: np.ndarray[Any, np.dtype[np.float64]] = -np.log1p(-uniform)
    return exponentials


def standard_exponential(rng: Any, shape: tuple[int, ...], xp: Namespace, device: Device, *, start: int = 0) -> Array:
    """Positive unit exponentials of the given shape, in float64 where the device has it.

    `rng` is None, an int, a SeedSequence, a BitGenerator, a Generator (NumPy's with any backend: host draws and an
    explicit copy; CuPy's and torch's with their own arrays) or a `CounterRNG`, whose item numbers are `start`
    plus the position in C order.
    """
    if api.is_numpy_namespace(xp) and isinstance(rng, np.random.Generator) and start == 0:
        draws = rng.standard_exponential(shape)
        return np.maximum(draws, SMALLEST_EXPONENTIAL, out=draws)
    dtype = api.work_float(xp, device)
    smallest = float(xp.finfo(dtype).smallest_normal)
    if isinstance(rng, CounterRNG):
        draws = rng.standard_exponential(start, math.prod(shape)).reshape(shape)
        return xp.asarray(draws, dtype=dtype, device=device)
    if start != 0:
        raise ValueError(f"start = {start} needs rng=CounterRNG(seed); other generators have no item numbers")
    if api.is_cupy_namespace(xp) and not _is_numpy_generator(rng):
        return _cupy_exponential(rng, shape, device, smallest)
    if api.is_torch_namespace(xp) and type(rng).__module__.partition(".")[0] == "torch":
        draws = xp.empty(shape, dtype=dtype, device=device).exponential_(generator=rng)
        return xp.clip(draws, min=smallest)
    draws = numpy_generator(rng).standard_exponential(shape)
    np.maximum(draws, smallest, out=draws)
    return draws if api.is_numpy_namespace(xp) else xp.asarray(draws, dtype=dtype, device=device)


class Exponentials:
    """Unit exponentials, one array after the other: a seed is turned into a generator once, and moves on."""

    def __init__(self, rng: Any, xp: Namespace, device: Device) -> None:
        self._xp, self._device, self._drawn = xp, device, 0
        self._counts = isinstance(rng, CounterRNG)
        own = type(rng).__module__.partition(".")[0] in ("cupy", "torch")
        self.rng = rng if self._counts or own else numpy_generator(rng)

    def __call__(self, shape: tuple[int, ...]) -> Array:
        """The next ones."""
        start = self._drawn if self._counts else 0
        self._drawn += math.prod(shape)
        return standard_exponential(self.rng, shape, self._xp, self._device, start=start)


def numpy_generator(rng: Any) -> np.random.Generator:
    """A NumPy Generator after SPEC 7; a Generator is returned as it is."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, np.matrix):  # NumPy would recurse until the process ends: a part of a matrix is a matrix
        raise TypeError("rng is a numpy.matrix; pass None, an int, a SeedSequence or a Generator")
    if isinstance(rng, (bool, float, np.bool_, np.inexact)):
        raise TypeError(f"rng = {rng!r} is not a seed; pass None, an int, a SeedSequence or a Generator")
    if isinstance(rng, np.random.RandomState):
        raise TypeError("rng is a legacy numpy.random.RandomState; pass numpy.random.default_rng(seed)")
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rng = {shown(rng)} is not understood ({error}); pass None, a non-negative int, a "
            "SeedSequence, a Generator of NumPy or of the array's own library, or a CounterRNG"
        ) from None


def _is_numpy_generator(rng: Any) -> bool:
    return isinstance(rng, (np.random.Generator, np.random.RandomState)) or (
        isinstance(rng, np.random.BitGenerator) and type(rng).__module__.startswith("numpy")
    )


def _cupy_exponential(rng: Any, shape: tuple[int, ...], device: Device, smallest: float) -> Array:
    import cupy

    if isinstance(rng, cupy.random.RandomState):
        raise TypeError("rng is a legacy cupy.random.RandomState; pass cupy.random.default_rng(seed)")
    if not isinstance(rng, (cupy.random.Generator, cupy.random.BitGenerator)):
        numpy_generator(rng)  # for its checks and its messages: CuPy takes the same seeds
    with device:
        draws = cupy.random.default_rng(rng).standard_exponential(shape)
        return cupy.maximum(draws, smallest)
