"""The fixed-size exponential family, p(S) proportional to exp(sum_{i in S} theta_i): conditional Poisson sampling.

It is *not* the distribution of the paper, which draws one item after the other (`SubsetDistribution`). Its logits are
log-odds: a Poisson sample takes each item independently with log-odds theta_i; given that it has k items, it is this.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _random, _validation
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk.distributions._base import WithoutReplacement
from gumbeltopk.distributions.conditional_poisson_operators import (
    check_logits,
    conditional_poisson_log_normalizer,
    conditional_poisson_logpmf,
    conditional_poisson_marginals,
    wide_rows,
)

__all__ = ["ConditionalPoisson"]

SUM_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}  # of the sum of inclusion probabilities, relative
FIT_TOLERANCE = 1e-9  # of the log-odds of the marginals


class ConditionalPoisson(WithoutReplacement):
    """Subsets of k items with p(S) proportional to exp(sum_{i in S} logits_i).

    Of all distributions of subsets of k items with given inclusion probabilities this is the one of largest entropy.
    It is not the distribution of sequential sampling, `SubsetDistribution`, although both prefer items of large weight.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Log-odds of the items, up to a constant; -inf is an item that is never selected.
    k : int
        Number of items, at most the finite logits of every row.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> subsets = gt.ConditionalPoisson(np.log([0.1, 0.2, 0.3, 0.4]), 2)
    >>> subsets.pmf([[0, 1], [2, 3]]).round(7).tolist()
    [0.0571429, 0.3428571]
    >>> subsets.marginals().round(7).tolist()
    [0.2571429, 0.4571429, 0.6, 0.6857143]
    """

    _PARAMETERS = "the logits"

    def __init__(self, logits: Any, k: Any) -> None:
        given, self._k, xp = check_logits(logits, k, True)
        self._in_logs = True
        self._given = xp.asarray(given, copy=True)  # later changes of the caller's array do not reach us

    @classmethod
    def from_marginals(cls, marginals: Any, k: Any = None) -> ConditionalPoisson:
        """The distribution with these inclusion probabilities.

        Parameters
        ----------
        marginals : array_like, shape (..., n)
            Strictly between 0 and 1, with the sum k in every row.
        k : int, optional
            Number of items; default: the sum.

        Returns
        -------
        ConditionalPoisson
            Its logits are the log-odds of `marginals` and a correction of order 1 / sum mu (1 - mu).

        Raises
        ------
        ValueError, TypeError
            A probability that is not between 0 and 1; a sum that is not k, or not a whole number.
        RuntimeError
            The logits were not found to within 1e-9 of the log-odds.

        Examples
        --------
        >>> import numpy as np
        >>> import gumbeltopk as gt
        >>> subsets = gt.ConditionalPoisson.from_marginals(np.asarray([0.3, 0.5, 0.9, 0.3]))
        >>> subsets.marginals().round(12).tolist()
        [0.3, 0.5, 0.9, 0.3]
        """
        pi, k, xp = _check_marginals(marginals, k)
        with api.quiet():
            logits, error = _dispatch.core("conditional_poisson_fit", xp)(wide_rows(pi, xp), k, xp)
        left = float(xp.max(error)) if math.prod(error.shape) else 0.0
        if not left <= FIT_TOLERANCE:
            raise RuntimeError(
                f"no logits were found for these marginals: their log-odds are still off by {left:.2g}; "
                "move marginals away from 0 and 1"
            )
        return cls(xp.astype(xp.reshape(logits, pi.shape), pi.dtype, copy=False), k)

    @property
    def logits(self) -> Array:
        """Log-odds of the items (..., n), up to a constant."""
        return self._given

    def log_normalizer(self) -> Array:
        """log Z (...); see `conditional_poisson_log_normalizer`."""
        return conditional_poisson_log_normalizer(self._given, self._k, check=False)

    def marginals(self) -> Array:
        """Inclusion probabilities (..., n), which sum to k; see `conditional_poisson_marginals`."""
        return conditional_poisson_marginals(self._given, self._k, check=False)

    def inclusion_probabilities(self) -> Array:
        """The same as `marginals`, under the name that it has for all distributions."""
        return self.marginals()

    def mean(self) -> Array:
        """Mean of the vectors with k ones (..., n): the same as `marginals`."""
        return self.marginals()

    def logpmf(self, indices: Any) -> Array:
        """log p of subsets (..., k) in any order; see `conditional_poisson_logpmf`."""
        return conditional_poisson_logpmf(self._given, self._check_size(indices))

    def entropy(self) -> Array:
        """-E log p(S) (...) in nats, exactly."""
        xp = api.namespace_of(self._given)
        with api.quiet():
            entropy = _dispatch.core("conditional_poisson_entropy", xp)(wide_rows(self._given, xp), self._k, xp)
        return xp.astype(xp.reshape(entropy, self._given.shape[:-1]), self._given.dtype, copy=False)

    def mode(self) -> Array:
        """The most probable subset (..., k): the k largest logits, ties to the lower items. Items increasing."""
        xp = api.namespace_of(self._given)
        order = xp.argsort(self._given, axis=-1, descending=True, stable=True)
        return xp.sort(order[..., : self._k], axis=-1)

    def enumerate_support(self) -> Array:
        """All n choose k subsets, items increasing, in lexicographic order; for small n.

        Returns
        -------
        integer array, shape (number, 1, ..., k)
            With an axis of length 1 for each batch axis, as `logpmf` and `pmf` take it.
        """
        return self._enumerate(math.comb(self.n, self.k), itertools.combinations(range(self.n), self.k))

    def sample(self, shape: Any = (), *, rng: Any = None) -> Array:
        """Draw samples, exactly: independent items, until there are k of them, in 2.5 sigma trials or so.

        Parameters
        ----------
        shape : int or tuple of int
            Number of independent draws, as leading axes.
        rng : None, int, SeedSequence, Generator or CounterRNG
            After SPEC 7.

        Returns
        -------
        integer array, shape + batch shape + (k,)
            Items increasing.
        """
        return super().sample(shape, rng=rng)

    def _draw(self, rows: Array, rng: Any) -> Array:
        xp, device = api.namespace_of(self._given), api.device_of(self._given)
        batch, n, k = tuple(rows.shape[:-1]), self.n, self.k
        own_rows = wide_rows(self._given, xp)
        exponentials = _random.Exponentials(rng, xp, device)
        if k in (0, n) or 0 in batch:
            everything = xp.arange(k, dtype=api.index_dtype(xp, device), device=device)
            return xp.asarray(xp.broadcast_to(everything, (*batch, k)), copy=True)
        copies = math.prod(batch) // own_rows.shape[0]
        with api.quiet():
            selected = _dispatch.core("conditional_poisson_sample", xp)(own_rows, k, copies, exponentials, xp)
        items = xp.nonzero(api.flatten_batch(selected, xp))[1]
        return xp.reshape(xp.astype(items, api.index_dtype(xp, device), copy=False), (*batch, k))


def _check_marginals(marginals: Any, k: Any) -> tuple[Array, int, Namespace]:
    pi = _validation.as_real_array(marginals, "marginals")
    if pi.ndim == 0:
        raise ValueError("marginals is 0-dimensional; its last axis holds the n items")
    xp = api.namespace_of(pi)
    good = (pi > 0) & (pi < 1)
    if not bool(xp.all(good)):
        index, value = _validation.first_bad(pi, good)
        raise ValueError(
            f"marginals{index} = {value} is not between 0 and 1; leave out items that are never, or always, selected"
        )
    sums = xp.sum(wide_rows(pi, xp), axis=-1)
    if k is None:
        k = round(float(sums[0])) if sums.shape[0] else 0
    k = _validation.check_k(k, pi.shape[-1])
    near = xp.abs(sums - k) <= SUM_TOLERANCE.get(str(pi.dtype).rpartition(".")[2], 1e-2) * max(k, 1)
    if not bool(xp.all(near)):
        row, total = _validation.first_bad(sums, near)
        where = f" in row {row[1:-1]}" if pi.ndim > 1 else ""
        raise ValueError(f"marginals sum to {total}{where}, not to k = {k}, a whole number; scale them on purpose")
    return pi, k, xp
