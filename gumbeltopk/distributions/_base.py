"""What both distributions of samples without replacement are made of: weights, k, and sampling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _sample_by_keys, _sampling_validation, _validation, keys
from gumbeltopk._array_api import Array

LARGEST_SUPPORT = 2_000_000


class WithoutReplacement:
    """k of n items, drawn one after the other by weight."""

    _PARAMETERS = "the weights"  # in messages

    def __init__(self, log_weights: Any = None, k: Any = None, *, weights: Any = None) -> None:
        given, self._in_logs = _validation.check_weights_or_log_weights(log_weights, weights)
        name = "log_weights" if self._in_logs else "weights"
        if given.ndim == 0:
            raise ValueError(f"{name} is 0-dimensional; its last axis holds the n items")
        if k is None:
            raise TypeError(f"k is missing: pass the number of items, e.g. {type(self).__name__}(weights=w, k=10)")
        self._k = _validation.check_k(k, given.shape[-1])
        xp = api.namespace_of(given)
        keys.check_values(given, self._in_logs, self._k, xp)
        self._given = xp.asarray(given, copy=True)  # later changes of the caller's array do not reach us

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n}, k={self.k}, batch={tuple(self._given.shape[:-1])})"

    @property
    def k(self) -> int:
        """Number of items drawn."""
        return self._k

    @property
    def n(self) -> int:
        """Number of items."""
        return int(self._given.shape[-1])

    @property
    def log_weights(self) -> Array:
        """Logarithms of the weights (..., n), -inf for zero."""
        if self._in_logs:
            return self._given
        xp = api.namespace_of(self._given)
        return xp.astype(keys.log_of_weights(self._given, xp), self._given.dtype, copy=False)

    def sample(self, shape: Any = (), *, rng: Any = None) -> Array:
        """Draw samples.

        Parameters
        ----------
        shape : int or tuple of int
            Number of independent draws, as leading axes.
        rng : None, int, SeedSequence, Generator or CounterRNG
            After SPEC 7.

        Returns
        -------
        integer array, shape + batch shape + (k,)
            In order of selection.
        """
        lengths = _sampling_validation.check_shape(shape)
        xp = api.namespace_of(self._given)
        return self._draw(xp.broadcast_to(self._given, (*lengths, *self._given.shape)), rng)

    def _draw(self, rows: Array, rng: Any) -> Array:
        """One sample for each of the rows (..., n), which are a broadcast view of the weights."""
        return _sample_by_keys.draw(rows, self._in_logs, self._k, rng, api.namespace_of(rows))

    def logpmf(self, indices: Any) -> Array:
        """log p of samples (..., k)."""
        raise NotImplementedError

    def pmf(self, indices: Any) -> Array:
        """Probability of samples (..., k)."""
        log_p = self.logpmf(indices)
        return api.namespace_of(log_p).exp(log_p)

    def _check_size(self, indices: Any) -> Array:
        indices = _validation.adopt_indices(indices, self.n, self._given, self._PARAMETERS)
        if indices.shape[-1] != self.k:
            raise ValueError(
                f"indices lists {indices.shape[-1]} items in a row, but this distribution draws k = {self.k}; "
                "pass that many"
            )
        return indices

    def _enumerate(self, number: int, samples: Iterable[tuple[int, ...]]) -> Array:
        if number * max(self.k, 1) > LARGEST_SUPPORT:
            raise ValueError(
                f"the support has {number} samples of k = {self.k} of n = {self.n} items, too many to list; "
                "sample instead"
            )
        # Axes of length 1 for the batch, so that `logpmf` takes each sample with each row of weights.
        batch = (1,) * (self._given.ndim - 1)
        table = np.asarray(list(samples), dtype=np.int64).reshape(number, *batch, self.k)
        xp, device = api.namespace_of(self._given), api.device_of(self._given)
        return xp.asarray(table, dtype=api.index_dtype(xp, device), device=device)
