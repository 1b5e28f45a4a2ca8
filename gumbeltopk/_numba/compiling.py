"""How loops are compiled: without the GIL, into vector instructions, and kept on disk.

numba's cache on disk looks for changes in the file of the function that is called, and not in those of the functions
that it calls or of the constants that it uses. So the name under which a function is kept has a fingerprint of all
sources of the NumPy cores: loops compiled from other sources are never found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.cpu import CPUTargetOptions

Array = Any  # numba sees the types
Loop = TypeVar("Loop", bound=Callable[..., Any])

# Sums in any order, a product and a sum in one rounding, and no difference between 0 and -0. NaN, infinities and
# divisions keep their meaning.
FASTMATH = {"reassoc", "contract", "nsz"}

# Each function counts references to the arrays that it is given, which takes as long as a pass over a short row.
UNCOUNTED: dict[str, Any] = {"_nrt": False} if hasattr(CPUTargetOptions, "_nrt") else {}


def fingerprint(package: Path) -> str:
    """Of the Python files that loops are made of: these, those of the NumPy cores and of the generic ones."""
    digest = hashlib.sha256()
    for folder in ("_numba", "_numpy", "_generic"):
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


SOURCES = fingerprint(Path(__file__).parents[1])


def compiled(function: Loop, signature: Any = None, fastmath: Any = False) -> Loop:
    """The function, compiled for this signature now, or for the types of its arguments when it is called."""
    compiler: Any = numba.njit
    function.__qualname__ = f"{function.__qualname__}_{SOURCES}"
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    arguments = () if signature is None else (signature,)
    try:
        result: Loop = compiler(*arguments, cache=True, **options)(function)
    except RuntimeError:  # no folder that a cache could be written to
        result = compiler(*arguments, **options)(function)
    return result


def inner(function: Loop) -> Loop:
    """Compiled as a part of the functions that call it. It allocates and returns no array; its views are of what it is
    given, which the functions outside hold."""
    return _part(function, FASTMATH, UNCOUNTED)


def maker(function: Loop) -> Loop:
    """The same for a function that returns an array."""
    return _part(function, FASTMATH, {"inline": "always"})


def exact(function: Loop) -> Loop:
    """As `inner`, operation by operation as it is written."""
    return _part(function, False, UNCOUNTED)


def _part(function: Loop, fastmath: Any, options: dict[str, Any]) -> Loop:
    compiler: Any = numba.njit
    result: Loop = compiler(error_model="numpy", fastmath=fastmath, **options)(function)
    return result
