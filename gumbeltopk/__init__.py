"""Exact subset samples, their distributions and relaxations, with hand-written gradients, for array libraries."""

from gumbeltopk import testing
from gumbeltopk._compilation import use_numba
from gumbeltopk._random import CounterRNG
from gumbeltopk._streams.checkpoint import CheckpointError
from gumbeltopk._threads import get_num_threads, set_num_threads
from gumbeltopk.distributions._entropy import EntropyEstimate
from gumbeltopk.distributions.conditional_poisson import ConditionalPoisson
from gumbeltopk.distributions.conditional_poisson_operators import (
    conditional_poisson_log_normalizer,
    conditional_poisson_logpmf,
    conditional_poisson_marginals,
)
from gumbeltopk.distributions.horvitz_thompson import horvitz_thompson
from gumbeltopk.distributions.inclusion import inclusion_probabilities, joint_inclusion_probabilities
from gumbeltopk.distributions.plackett_luce import PlackettLuce, ordered_logpmf
from gumbeltopk.distributions.subset import SubsetDistribution, subset_logpmf
from gumbeltopk.keys import conditional_keys, gumbel_keys, gumbel_keys_given_maximum, log_arrival_times
from gumbeltopk.operator import Operator, Residuals
from gumbeltopk.ragged import sample_ragged
from gumbeltopk.relaxations.successive_softmax import relaxed_sample, relaxed_topk
from gumbeltopk.reservoir import Reservoir
from gumbeltopk.sampler import Sampler
from gumbeltopk.sampling import k_hot, sample

__version__ = "0.1.0"

OPERATORS: dict[str, Operator] = {  # type: ignore[type-arg]
    each.name: each
    for each in (
        relaxed_topk,
        relaxed_sample,
        ordered_logpmf,
        subset_logpmf,
        conditional_poisson_log_normalizer,
        conditional_poisson_logpmf,
        conditional_poisson_marginals,
        inclusion_probabilities,
        joint_inclusion_probabilities,
    )
}

__all__ = [
    "OPERATORS",
    "CheckpointError",
    "ConditionalPoisson",
    "CounterRNG",
    "EntropyEstimate",
    "Operator",
    "PlackettLuce",
    "Reservoir",
    "Residuals",
    "Sampler",
    "SubsetDistribution",
    "conditional_keys",
    "conditional_poisson_log_normalizer",
    "conditional_poisson_logpmf",
    "conditional_poisson_marginals",
    "get_num_threads",
    "gumbel_keys",
    "gumbel_keys_given_maximum",
    "horvitz_thompson",
    "inclusion_probabilities",
    "joint_inclusion_probabilities",
    "k_hot",
    "log_arrival_times",
    "ordered_logpmf",
    "relaxed_sample",
    "relaxed_topk",
    "sample",
    "sample_ragged",
    "set_num_threads",
    "subset_logpmf",
    "testing",
    "use_numba",
]
