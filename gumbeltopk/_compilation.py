"""Whether NumPy work runs in loops that numba compiles: a setting of the process.

The choice looks at the size of a call and at nothing that came before, so that the same call gives the same bits.
"""

from __future__ import annotations

import functools
import importlib
import os

ENVIRONMENT_VARIABLE = "GUMBELTOPK_USE_NUMBA"
SMALLEST_WORK = 1 << 34  # items times steps that gain about as much as compiling the loops takes, some 20 seconds


class _Setting:
    """What `use_numba` was told last."""

    def __init__(self) -> None:
        self.wanted: bool | None = None  # None: not asked for


_setting = _Setting()


def use_numba(wanted: bool | None) -> None:
    """Set whether `relaxed_topk` and `relaxed_sample` run NumPy arrays in loops that numba compiles.

    Parameters
    ----------
    wanted : bool or None
        True: always. False: never. None goes back to the default: the environment variable ``GUMBELTOPK_USE_NUMBA``
        (0 or 1) if it is set, else numba for calls that are large enough to pay for importing it, if it is installed.

    Raises
    ------
    ImportError
        numba is wanted and cannot be imported.
    TypeError
        `wanted` is neither a bool nor None.

    Notes
    -----
    Results agree with those of the NumPy code to rounding. The loops are compiled when they are first called, which
    takes some seconds, and kept on disk. Set this at the start of a program, not between a forward pass and its
    derivative.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.use_numba(False)
    >>> gt.use_numba(None)
    """
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"wanted = {wanted!r} must be True, False or None")
    if wanted:
        _require()
    _setting.wanted = wanted


def wants_numba(work: int) -> bool:
    """Whether a call that touches `work` items, each step counted, is to run in compiled loops."""
    wanted = _default() if _setting.wanted is None else _setting.wanted
    if wanted is None:
        return work >= SMALLEST_WORK and _problem() is None
    return wanted


def _default() -> bool | None:
    text = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if text not in ("", "0", "1"):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} = {text!r} in the environment must be 0 or 1")
    if text == "1":
        _require()
    return None if text == "" else text == "1"


def _require() -> None:
    problem = _problem()
    if problem is not None:
        raise ImportError(f"numba cannot be imported ({problem}): pip install gumbeltopk[numba]") from problem


@functools.cache
def _problem() -> ImportError | None:
    """Why numba cannot be imported: it is not there, or not made for this version of NumPy."""
    try:
        importlib.import_module("numba")
    except ImportError as error:
        return error
    return None
