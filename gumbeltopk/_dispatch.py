"""(backend, core) -> function, falling back to the generic core.

A native core earns its line here by a measured win, and is tested against the generic core on the same input.
Cores take checked arrays with the items on the last axis; they validate nothing and keep no state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gumbeltopk import _array_api as api
from gumbeltopk._generic import plackett_luce, selection, subset, successive_softmax
from gumbeltopk._numpy import selection as numpy_selection
from gumbeltopk._numpy import successive_softmax as numpy_successive_softmax

Core = Callable[..., Any]

CORES: dict[tuple[str, str], Core] = {
    ("generic", "first_arrivals"): selection.first_arrivals,
    ("generic", "ordered_logpmf"): plackett_luce.logpmf,
    ("generic", "ordered_score"): plackett_luce.score,
    ("generic", "put_along_rows"): selection.put_along_rows,
    ("generic", "subset_logpmf"): subset.logpmf,
    ("generic", "subset_score"): subset.score,
    ("generic", "successive_softmax"): successive_softmax.forward,
    ("generic", "successive_softmax_jvp"): successive_softmax.jvp,
    ("generic", "successive_softmax_vjp"): successive_softmax.vjp,
    ("cupy", "put_along_rows"): selection.put_along_rows_by_assignment,
    ("numpy", "put_along_rows"): selection.put_along_rows_by_assignment,
    ("numpy", "first_arrivals"): numpy_selection.first_arrivals,
    ("numpy", "successive_softmax"): numpy_successive_softmax.forward,
}


def core(name: str, xp: api.Namespace) -> Core:
    """The core `name` for arrays of the namespace `xp`."""
    native = CORES.get((api.backend(xp), name))
    return CORES["generic", name] if native is None else native
