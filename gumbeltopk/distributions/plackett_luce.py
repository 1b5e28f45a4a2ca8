"""The ordered sample without replacement, p(S_wrs | w) (eq. 1): the Plackett-Luce distribution."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal, overload

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _validation
from gumbeltopk._array_api import Array
from gumbeltopk.distributions import _entropy, _rows
from gumbeltopk.distributions._base import WithoutReplacement
from gumbeltopk.distributions._entropy import EntropyEstimate
from gumbeltopk.operator import Facts, Residuals, operator

__all__ = ["PlackettLuce", "ordered_logpmf"]


def _example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.normal(size=(4, 6)), rng.permuted(np.tile(np.arange(6), (4, 1)), axis=1)[:, :3]), {}


FACTS = Facts(
    differentiable=("log_weights",),
    range="log p <= 0",
    source="Xie & Ermon 2019, eq. 1",
)


@operator(FACTS, _example)
def ordered_logpmf(log_weights: Any, indices: Any, *, check: bool = True) -> Array:
    """log p(S_wrs | w) of ordered samples without replacement (eq. 1).

    p = w_{i_1} / W * w_{i_2} / (W - w_{i_1}) * ...

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights; -inf is a weight of zero.
    indices : integer array_like, shape (..., k)
        The items in order of selection. The batch axes of both broadcast.
    check : bool
        Whether to look for bad values (on a GPU this waits for the device).

    Returns
    -------
    array, the common batch shape
        In the dtype of the log-weights; -inf for a sample with a zero-weight item.

    Raises
    ------
    ValueError, TypeError
        An index outside 0 .. n - 1 or twice in a row; NaN or +inf log-weights.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> log_p = gt.ordered_logpmf(np.log([0.1, 0.2, 0.3, 0.4]), [3, 2])
    >>> float(np.exp(log_p).round(12))
    0.2
    """
    return _rows.value("ordered_logpmf", log_weights, indices, check)


@ordered_logpmf.fwd_rule
def _fwd(log_weights: Any, indices: Any, *, check: bool = True) -> tuple[Array, Residuals]:
    return _rows.forward("ordered_logpmf", log_weights, indices, check)


ordered_logpmf.jvp_rule(_rows.jvp)
ordered_logpmf.vjp_rule(_rows.vjp)


class PlackettLuce(WithoutReplacement):
    """Ordered samples of k items without replacement, p(S_wrs | w) (eq. 1).

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights; -inf is a weight of zero.
    k : int
        Number of items, at most the number of positive weights of every row.
    weights : array_like, shape (..., n)
        The weights themselves, instead of `log_weights`.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> ranking = gt.PlackettLuce(weights=[0.1, 0.2, 0.3, 0.4], k=2)
    >>> float(ranking.pmf([3, 2]).round(12))
    0.2
    >>> ranking.sample(3, rng=0).shape
    (3, 2)
    """

    def logpmf(self, indices: Any) -> Array:
        """log p of ordered samples (..., k), or of their first items (..., m), m < k; see `ordered_logpmf`.

        A partial ranking has the probability of all samples that begin with it: the first m factors of eq. 1.
        """
        return ordered_logpmf(self.log_weights, self._check_size(indices))

    def _check_size(self, indices: Any) -> Array:
        indices = _validation.adopt_indices(indices, self.n, self._given, self._PARAMETERS)
        return indices if indices.shape[-1] < self.k else super()._check_size(indices)

    def mode(self) -> Array:
        """The most probable ordered sample (..., k): the k largest weights, largest first, ties to the lower items.

        An item of larger weight in the place of one of S makes each factor of eq. 1 larger, or leaves it. Of the
        orders of one subset, the descending one has the smallest denominators.
        """
        xp = api.namespace_of(self._given)
        return xp.argsort(self._given, axis=-1, descending=True, stable=True)[..., : self.k]

    @overload
    def entropy(self, method: Literal["exact"] = "exact", *, rng: Any = None, samples: int = 1000) -> Array: ...

    @overload
    def entropy(self, method: Literal["mc"], *, rng: Any = None, samples: int = 1000) -> EntropyEstimate: ...

    def entropy(self, method: str = "exact", *, rng: Any = None, samples: int = 1000) -> Array | EntropyEstimate:
        """-E log p in nats.

        Parameters
        ----------
        method : "exact" or "mc"
            Over all subsets that may have been drawn before the last step, for small n; or from samples: the mean of
            the sum of the entropies of the k steps, given the items drawn before, which is unbiased.
        rng : None, int, SeedSequence, Generator or CounterRNG
            After SPEC 7; for "mc".
        samples : int
            For "mc".

        Returns
        -------
        array (...), or for "mc" a named tuple of arrays (value, standard_error)

        Raises
        ------
        ValueError
            Too many subsets for "exact".
        """
        samples = _entropy.check_method(method, samples)
        if method == "exact":
            return _entropy.exact("ordered_entropy", self.log_weights, self.k)
        return _entropy.from_samples(self.log_weights, self.k, samples, rng, _entropy.sum_of_step_entropies)

    def enumerate_support(self) -> Array:
        """All n! / (n - k)! ordered samples, in lexicographic order; for small n.

        Returns
        -------
        integer array, shape (number, 1, ..., k)
            With an axis of length 1 for each batch axis, as `logpmf` and `pmf` take it.
        """
        number = math.perm(self.n, self.k)
        return self._enumerate(number, itertools.permutations(range(self.n), self.k))
