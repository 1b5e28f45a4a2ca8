"""Many samples without replacement from one distribution: the work that does not depend on the draw is done once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _random, _sample_by_keys, _sampling_validation, _validation, keys
from gumbeltopk._array_api import Array
from gumbeltopk._numpy import repeated_draws

__all__ = ["Sampler"]

FEWEST_ITEMS = 64  # of fewer ones, keys are as fast
ROWS_AT_A_TIME = 256
ITEMS_AT_A_TIME = 1 << 20  # whose exponentials are drawn for rows that gave up and for their neighbours


class Sampler:
    """Draws of k items without replacement from the same weights, again and again. Immutable.

    Parameters
    ----------
    log_weights : array_like, shape (n,)
        Logarithms of the weights, not necessarily normalised; -inf is a weight of zero.
    weights : array_like, shape (n,)
        The weights themselves, instead of `log_weights`.

    Raises
    ------
    ValueError, TypeError
        Bad weights.

    See Also
    --------
    sample : one draw from each of many distributions.

    Notes
    -----
    For NumPy arrays the cumulative sums are made once. A draw is then the first k distinct items of a stream of draws
    with replacement, in time O(k log n). A row that meets the same few heavy items again and again goes on by keys,
    in time O(n). Arrays of other libraries, fewer than 64 items and a `CounterRNG` go by keys at once.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> sampler = gt.Sampler(weights=np.arange(1000.0))
    >>> sampler.sample(10, shape=(5,), rng=0).shape
    (5, 10)
    """

    def __init__(self, log_weights: Any = None, *, weights: Any = None) -> None:
        given, self._in_logs = _validation.check_weights_or_log_weights(log_weights, weights)
        name = "log_weights" if self._in_logs else "weights"
        if given.ndim != 1:
            raise ValueError(f"{name} has shape {tuple(given.shape)}; a Sampler has one distribution, shape (n,)")
        xp = api.namespace_of(given)
        keys.check_values(given, self._in_logs, 0, xp)
        self._given = xp.asarray(given, copy=True)  # later changes of the caller's array do not reach us
        self._positive = int(_sample_by_keys.count_positive(given, self._in_logs, xp))
        self._ends: Any = None
        if api.is_numpy_namespace(xp) and self._positive >= FEWEST_ITEMS:
            self._ends = repeated_draws.cumulative_weights(given, self._in_logs)

    def __repr__(self) -> str:
        return f"Sampler(n={self.n})"

    @property
    def n(self) -> int:
        """Number of items."""
        return int(self._given.shape[0])

    def sample(self, k: Any, shape: Any = (), *, rng: Any = None) -> Array:
        """Draw samples.

        Parameters
        ----------
        k : int
            Number of items, at most the number of positive weights.
        shape : int or tuple of int
            Number of independent draws, as leading axes.
        rng : None, int, SeedSequence, Generator or CounterRNG
            After SPEC 7.

        Returns
        -------
        integer array, shape + (k,)
            In order of selection. With the same seed and shape a smaller sample is the beginning of a larger one.
        """
        k = _validation.check_k(k, self.n)
        shape = _sampling_validation.check_shape(shape, k)
        _sampling_validation.check_enough_for_each(
            np.asarray(self._positive), k, "log_weights" if self._in_logs else "weights"
        )
        xp = api.namespace_of(self._given)
        if self._ends is None or isinstance(rng, _random.CounterRNG) or k == 0 or 0 in shape:
            rows = xp.broadcast_to(self._given, (*shape, self.n))
            return _sample_by_keys.draw(rows, self._in_logs, k, rng, xp)
        picks = np.zeros((math.prod(shape), k), dtype=np.int64)
        seed = _random.numpy_generator(rng).integers(1 << 63, size=2).tolist()
        for first in range(0, len(picks), ROWS_AT_A_TIME):
            self._fill(picks[first : first + ROWS_AT_A_TIME], np.random.SeedSequence([*seed, first]))
        return picks.reshape(*shape, k)

    def _fill(self, picks: Any, seed: np.random.SeedSequence) -> None:
        """Draw some rows (rows, k) of samples."""
        of_streams, of_keys = seed.spawn(2)
        k = picks.shape[1]
        picks[:], counts = repeated_draws.first_occurrences(
            self._ends, k, len(picks), np.random.default_rng(of_streams)
        )
        gave_up = np.flatnonzero(counts < k)
        at_a_time = max(1, ITEMS_AT_A_TIME // self.n)
        for first in range(0, len(gave_up), at_a_time):
            rows = gave_up[first : first + at_a_time]
            exponentials = self._exponentials(rows, of_keys)
            self._go_on(picks, rows, counts[rows], exponentials)

    def _exponentials(self, rows: Any, seed: np.random.SeedSequence) -> Any:
        """Exponentials (rows, n) that each row would have had whichever rows had given up."""
        if self.n * ROWS_AT_A_TIME <= ITEMS_AT_A_TIME:
            drawn = np.random.default_rng(seed).standard_exponential((int(rows[-1]) + 1, self.n))[rows]
        else:
            drawn = np.empty((len(rows), self.n))
            for row, out in zip(rows.tolist(), drawn, strict=True):
                of_row = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, row))
                np.random.default_rng(of_row).standard_exponential(out=out)
        return np.maximum(drawn, _random.SMALLEST_EXPONENTIAL, out=drawn)

    def _go_on(self, picks: Any, rows: Any, counts: Any, exponentials: Any) -> None:
        """Fill the rows that have `counts` picks: a sequential sample of the other items, as eq. 1 has no memory."""
        k = picks.shape[1]
        left = np.repeat(self._given[np.newaxis], len(rows), axis=0)
        chosen = np.arange(k) < counts[:, np.newaxis]
        row_numbers, columns = np.nonzero(chosen)
        left[row_numbers, picks[rows][row_numbers, columns]] = -math.inf if self._in_logs else 0.0
        needed = k - counts
        more = int(needed.max())
        xp = api.namespace_of(self._given)
        others = _sample_by_keys.select_first(left, self._in_logs, more, exponentials, xp, needed=needed)
        filled = picks[rows]
        filled[~chosen] = others[np.arange(more) < needed[:, np.newaxis]]
        picks[rows] = filled
