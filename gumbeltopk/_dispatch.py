"""(backend, core) -> function, falling back to the generic core.

A native core earns its line here by a measured win, and is tested against the generic core on the same input.
Cores take checked arrays with the items on the last axis; they validate nothing and keep no state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gumbeltopk import _array_api as api
from gumbeltopk._generic import (
    conditional_poisson,
    conditional_poisson_fit,
    conditional_poisson_sample,
    inclusion,
    joint_inclusion,
    plackett_luce,
    relaxed_topk,
    selection,
    subset,
    subset_layers,
)
from gumbeltopk._numpy import conditional_poisson as numpy_conditional_poisson
from gumbeltopk._numpy import inclusion as numpy_inclusion
from gumbeltopk._numpy import joint_inclusion as numpy_joint_inclusion
from gumbeltopk._numpy import relaxed_topk as numpy_relaxed_topk
from gumbeltopk._numpy import selection as numpy_selection

Core = Callable[..., Any]

CORES: dict[tuple[str, str], Core] = {
    ("generic", "conditional_poisson_costs"): conditional_poisson.costs,
    ("generic", "conditional_poisson_covariance_product"): conditional_poisson.covariance_product,
    ("generic", "conditional_poisson_entropy"): conditional_poisson.entropy,
    ("generic", "conditional_poisson_fit"): conditional_poisson_fit.fit,
    ("generic", "conditional_poisson_log_normalizer"): conditional_poisson.log_normalizer,
    ("generic", "conditional_poisson_marginals"): conditional_poisson.marginals,
    ("generic", "conditional_poisson_sample"): conditional_poisson_sample.sample,
    ("generic", "first_arrivals"): selection.first_arrivals,
    ("generic", "inclusion"): inclusion.probabilities,
    ("generic", "inclusion_jacobian_product"): inclusion.jacobian_product,
    ("generic", "joint_inclusion"): joint_inclusion.probabilities,
    ("generic", "joint_inclusion_jvp"): joint_inclusion.jvp,
    ("generic", "joint_inclusion_vjp"): joint_inclusion.vjp,
    ("generic", "ordered_logpmf"): plackett_luce.logpmf,
    ("generic", "ordered_score"): plackett_luce.score,
    ("generic", "put_along_rows"): selection.put_along_rows,
    ("generic", "relaxed_topk"): relaxed_topk.forward,
    ("generic", "relaxed_topk_jvp"): relaxed_topk.jvp,
    ("generic", "relaxed_topk_vjp"): relaxed_topk.vjp,
    ("generic", "ordered_entropy"): subset_layers.ordered_entropy,
    ("generic", "subset_entropy"): subset_layers.subset_entropy,
    ("generic", "subset_logpmf"): subset.logpmf,
    ("generic", "subset_score"): subset.score,
    ("cupy", "put_along_rows"): selection.put_along_rows_by_assignment,
    ("numpy", "put_along_rows"): selection.put_along_rows_by_assignment,
    ("numpy", "conditional_poisson_sample"): numpy_conditional_poisson.sample,
    ("numpy", "first_arrivals"): numpy_selection.first_arrivals,
    ("numpy", "inclusion"): numpy_inclusion.probabilities,
    ("numpy", "inclusion_jacobian_product"): numpy_inclusion.jacobian_product,
    ("numpy", "joint_inclusion"): numpy_joint_inclusion.probabilities,
    ("numpy", "joint_inclusion_jvp"): numpy_joint_inclusion.jvp,
    ("numpy", "joint_inclusion_vjp"): numpy_joint_inclusion.vjp,
    ("numpy", "relaxed_topk"): numpy_relaxed_topk.forward,
    ("numpy", "relaxed_topk_jvp"): numpy_relaxed_topk.jvp,
    ("numpy", "relaxed_topk_vjp"): numpy_relaxed_topk.vjp,
}


def core(name: str, xp: api.Namespace) -> Core:
    """The core `name` for arrays of the namespace `xp`."""
    native = CORES.get((api.backend(xp), name))
    return CORES["generic", name] if native is None else native
