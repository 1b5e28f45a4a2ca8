"""The unordered sample without replacement, p(S | w) (eq. 2): the distribution of the paper's subsets."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal, overload

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk._array_api import Array
from gumbeltopk.distributions import _entropy, _rows, inclusion
from gumbeltopk.distributions._base import WithoutReplacement
from gumbeltopk.distributions._entropy import EntropyEstimate
from gumbeltopk.operator import Facts, Residuals, operator

__all__ = ["SubsetDistribution", "subset_logpmf"]


def _example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.normal(size=(4, 6)), rng.permuted(np.tile(np.arange(6), (4, 1)), axis=1)[:, :3]), {}


FACTS = Facts(
    differentiable=("log_weights",),
    range="log p <= 0",
    source="Xie & Ermon 2019, eq. 2",
)


@operator(FACTS, _example)
def subset_logpmf(log_weights: Any, indices: Any, *, check: bool = True) -> Array:
    """log p(S | w) of subsets drawn without replacement, whatever the order of selection (eq. 2).

    The sum of eq. 1 over all k! orders, computed as one integral over the arrival time of the first item that is not
    in the subset: O(k) for each node, of which there are two hundred, or about 20 sqrt(k) for the gradient at large k.

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights; -inf is a weight of zero.
    indices : integer array_like, shape (..., k)
        The items of each subset, in any order. The batch axes of both broadcast.
    check : bool
        Whether to look for bad values (on a GPU this waits for the device).

    Returns
    -------
    array, the common batch shape
        In the dtype of the log-weights; -inf for a subset with a zero-weight item.

    Raises
    ------
    ValueError, TypeError
        An index outside 0 .. n - 1 or twice in a row; NaN or +inf log-weights.

    Notes
    -----
    The same as the multivariate Wallenius noncentral hypergeometric distribution with one item of each colour. The
    relative error of p is below 1e-12 for ratios of weights up to 1e20, and so is that of log p where p is near 1.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> log_p = gt.subset_logpmf(np.log([0.1, 0.2, 0.3, 0.4]), [[0, 1], [2, 3]])
    >>> np.exp(log_p).round(7).tolist()
    [0.0472222, 0.3714286]
    """
    return _rows.value("subset_logpmf", log_weights, indices, check)


@subset_logpmf.fwd_rule
def _fwd(log_weights: Any, indices: Any, *, check: bool = True) -> tuple[Array, Residuals]:
    return _rows.forward("subset_logpmf", log_weights, indices, check)


subset_logpmf.jvp_rule(_rows.jvp)
subset_logpmf.vjp_rule(_rows.vjp)


def _surprise(log_weights: Array, indices: Array) -> Array:
    return -subset_logpmf(log_weights, indices, check=False)


class SubsetDistribution(WithoutReplacement):
    """Subsets of k items drawn without replacement, p(S | w) (eq. 2).

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
    >>> subsets = gt.SubsetDistribution(weights=[0.1, 0.2, 0.3, 0.4], k=2)
    >>> subsets.enumerate_support().tolist()
    [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    >>> float(subsets.pmf(subsets.enumerate_support()).sum().round(12))
    1.0
    """

    def logpmf(self, indices: Any) -> Array:
        """log p of subsets (..., k) in any order; see `subset_logpmf`."""
        return subset_logpmf(self.log_weights, self._check_size(indices))

    def mode(self) -> Array:
        """The most probable subset (..., k): the k largest weights, ties to the lower items. Items increasing.

        An item of larger weight in the place of one of S, order by order, makes each factor of eq. 1 larger, or leaves
        it: so it does to their sum, eq. 2.
        """
        xp = api.namespace_of(self._given)
        order = xp.argsort(self._given, axis=-1, descending=True, stable=True)
        return xp.sort(order[..., : self.k], axis=-1)

    @overload
    def entropy(self, method: Literal["exact"] = "exact", *, rng: Any = None, samples: int = 1000) -> Array: ...

    @overload
    def entropy(self, method: Literal["mc"], *, rng: Any = None, samples: int = 1000) -> EntropyEstimate: ...

    def entropy(self, method: str = "exact", *, rng: Any = None, samples: int = 1000) -> Array | EntropyEstimate:
        """-E log p(S) in nats.

        Parameters
        ----------
        method : "exact" or "mc"
            Over all subsets, for small n; or from samples: the mean of -log p(S), which is unbiased.
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

        Examples
        --------
        >>> import gumbeltopk as gt
        >>> subsets = gt.SubsetDistribution(weights=[0.1, 0.2, 0.3, 0.4], k=2)
        >>> round(float(subsets.entropy()), 8)
        1.5856897
        >>> estimate = subsets.entropy("mc", rng=0)
        >>> bool(abs(estimate.value - subsets.entropy()) < 5 * estimate.standard_error)
        True
        """
        samples = _entropy.check_method(method, samples)
        if method == "exact":
            return _entropy.exact("subset_entropy", self.log_weights, self.k)
        return _entropy.from_samples(self.log_weights, self.k, samples, rng, _surprise)

    def inclusion_probabilities(self) -> Array:
        """P(i in S) (..., n); see `gumbeltopk.inclusion_probabilities`."""
        return inclusion.inclusion_probabilities(self.log_weights, self.k)

    def joint_inclusion_probabilities(self, pairs: Any = None) -> Array:
        """P(i and j in S) (..., n, n) or (..., m); see `gumbeltopk.joint_inclusion_probabilities`."""
        return inclusion.joint_inclusion_probabilities(self.log_weights, self.k, pairs=pairs)

    def mean(self) -> Array:
        """The mean of the k-hot vector (..., n): the inclusion probabilities."""
        return self.inclusion_probabilities()

    def cov(self) -> Array:
        """The covariance of the k-hot vector (..., n, n): pi_ij - pi_i pi_j."""
        return inclusion.covariance(self.log_weights, self.k)

    def marginal_log_odds(self) -> Array:
        """log(pi / (1 - pi)) (..., n), exact at both ends as long as pi and 1 - pi are numbers of float64.

        -inf for a weight of zero, inf for a certain item, and for one whose 1 - pi is below 1e-308. Weights beyond
        e^150 times the (k + 1)-st, or below its e^-150, count as that.
        """
        return inclusion.marginal_log_odds(self.log_weights, self.k)

    def enumerate_support(self) -> Array:
        """All n choose k subsets, items increasing, in lexicographic order; for small n.

        Returns
        -------
        integer array, shape (number, 1, ..., k)
            With an axis of length 1 for each batch axis, as `logpmf` and `pmf` take it.
        """
        number = math.comb(self.n, self.k)
        return self._enumerate(number, itertools.combinations(range(self.n), self.k))
