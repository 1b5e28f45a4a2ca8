"""Weighted sampling without replacement from arrays (Algorithm 1): single rows, batches, masks, a k for each row.

This is *sequential* sampling (successive draws, Plackett-Luce): the first item is drawn with probability w_i / W, the
next one among the rest in the same way, and so on. The inclusion probabilities are not k w_i / W: that would be
another design, probability proportional to size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _dispatch, _sample_by_blocks, _sampling_validation, _validation, keys
from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._messages import shown
from gumbeltopk._sample_by_keys import count_positive, draw

__all__ = ["k_hot", "sample"]


def sample(
    log_weights: Any = None,
    k: Any = None,
    *,
    weights: Any = None,
    where: Any = None,
    on_short: str = "raise",
    return_mask: bool = False,
    method: str = "auto",
    rng: Any = None,
    axis: int = -1,
    check: bool = True,
) -> Any:
    """Draw k items without replacement from each row, with probabilities by weight (Algorithm 1, eq. 1).

    Parameters
    ----------
    log_weights : array_like, shape (..., n)
        Logarithms of the weights, not necessarily normalised; -inf is a weight of zero, which is never drawn.
    k : int, or integer array_like that broadcasts to the batch shape
        Number of items, or that of each row.
    weights : array_like, shape (..., n)
        The weights themselves, instead of `log_weights`. No logarithm is taken then.
    where : boolean array_like that broadcasts with the weights, optional
        Where it is False the weight counts as zero, whatever stands there, NaN included.
    on_short : {"raise", "pad"}
        What becomes of a row with fewer than k items of positive weight: an error, or -1 in place of what is missing.
    return_mask : bool
        Whether to return also where the indices are items, and not -1.
    method : {"auto", "keys", "blocks"}
        How to sample; the distribution is the same. "keys" draws an exponential for every item, "blocks" makes one
        pass over the weights and draws for the picks alone (NumPy arrays). "auto" takes "blocks" for rows from
        2^19 items of NumPy arrays, unless `rng` is a `CounterRNG`.
    rng : None, int, SeedSequence, Generator or CounterRNG
        After SPEC 7.
    axis : int
        The axis of the items (after broadcasting with `where`); all others are batch axes.
    check : bool
        Whether to look for bad weights (on a GPU this waits for the device).

    Returns
    -------
    indices : integer array, shape (..., k), or (..., max k)
        Indices along `axis` in order of selection, on the last axis; the batch axes keep their order. Rows of fewer
        picks end in -1.
    mask : boolean array of the same shape
        If `return_mask`.

    Raises
    ------
    ValueError, TypeError
        Bad weights, or k more than the items of positive weight of a row (the rows are listed).

    See Also
    --------
    sample_ragged : rows of different lengths.
    Sampler : many draws from one distribution.
    k_hot : the indices as a vector of zeros and ones.
    relaxed_sample : the continuous relaxation, with gradients.

    Notes
    -----
    With the same seed, weights and method, a smaller sample is the beginning of a larger one; "auto" chooses by n and
    never by k.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> gt.sample(weights=np.asarray([0.0, 1.0, 0.0, 5.0]), k=2, rng=0).tolist()
    [3, 1]
    >>> gt.sample(np.zeros((4096, 100)), 10, rng=0).shape
    (4096, 10)

    Rows of fewer picks:

    >>> indices, mask = gt.sample(np.zeros((2, 3)), np.asarray([1, 2]), where=[False, True, False], on_short="pad",
    ...                           return_mask=True, rng=0)
    >>> indices.tolist(), mask.tolist()
    ([[1, -1], [1, -1]], [[True, False], [True, False]])
    """
    given, in_logs = _validation.check_weights_or_log_weights(log_weights, weights)
    name = "log_weights" if in_logs else "weights"
    _sampling_validation.check_choice(on_short, "on_short", ("raise", "pad"))
    _sampling_validation.check_choice(method, "method", ("auto", "keys", "blocks"))
    return_mask = _sampling_validation.check_flag(return_mask, "return_mask")
    check = _sampling_validation.check_flag(check, "check")
    if where is not None:
        given = _keep_where(given, where, in_logs, name)
    axis = _validation.check_axis(axis, given.ndim, name)
    if k is None:
        raise TypeError("k is missing: pass the number of items to draw, e.g. sample(weights=w, k=10)")
    xp = api.namespace_of(given)
    rows = api.move_items_last(given, axis, xp)
    k, wanted = _sampling_validation.check_k_of_rows(
        k, rows.shape[-1], tuple(rows.shape[:-1]), at_most_n=on_short == "raise"
    )

    def check_values() -> None:
        keys.check_values(given, in_logs, k if wanted is None and on_short == "raise" else 0, xp, axis)

    if k > 0 and 0 not in rows.shape and _takes_blocks(method, rows, rng, xp):
        every = np.broadcast_to(np.int64(k), rows.shape[:-1]) if wanted is None else wanted
        surveys = _sample_by_blocks.survey(rows, in_logs, check, check_values)
        if on_short == "raise":
            found = _sample_by_blocks.count_up_to(surveys, in_logs, every)
            _sampling_validation.check_enough_for_each(found, every, name)
        indices = _sample_by_blocks.draw(surveys, in_logs, every, rng)
    else:
        if check:
            check_values()
        if wanted is None and on_short == "raise":
            indices = draw(rows, in_logs, k, rng, xp)
        else:
            indices = _draw_and_pad(rows, in_logs, k, wanted, on_short, name, rng, xp)
    return (indices, indices >= 0) if return_mask else indices


def _keep_where(given: Array, where: Any, in_logs: bool, name: str) -> Array:
    """The weights with those out of `where` set to zero."""
    where = _sampling_validation.check_where(where, given, name)
    xp = api.namespace_of(given)
    where, given = xp.broadcast_arrays(where, given)
    zero = xp.asarray(-math.inf if in_logs else 0.0, dtype=given.dtype, device=api.device_of(given))
    return xp.where(where, given, zero)


def _takes_blocks(method: str, rows: Array, rng: Any, xp: Namespace) -> bool:
    if method != "blocks":
        return method == "auto" and _sample_by_blocks.suits(rows, rng, xp)
    _sample_by_blocks.check_can(rng, xp)
    return True


def _draw_and_pad(
    rows: Array, in_logs: bool, k: int, wanted: Any, on_short: str, name: str, rng: Any, xp: Namespace
) -> Array:
    """Picks (..., k) of rows of which each wants its own number (None: k) or may have fewer, and then -1."""
    found = api.host(count_positive(rows, in_logs, xp))
    wanted = k if wanted is None else wanted
    if on_short == "raise":
        _sampling_validation.check_enough_for_each(found, wanted, name)
    device = api.device_of(rows)
    needed = xp.asarray(np.minimum(found, wanted), dtype=api.index_dtype(xp, device), device=device)
    picks = draw(rows, in_logs, min(k, rows.shape[-1]), rng, xp, needed=needed)
    missing = xp.full((*picks.shape[:-1], k - picks.shape[-1]), -1, dtype=picks.dtype, device=device)
    picks = xp.concat([picks, missing], axis=-1)
    return xp.where(xp.arange(k, device=device) < needed[..., None], picks, -1)


def k_hot(indices: Any, n: Any, *, dtype: Any = None) -> Array:
    """The indices of subsets as vectors with k ones.

    Parameters
    ----------
    indices : integer array_like, shape (..., k)
        Distinct items of each row.
    n : int
        Number of items.
    dtype : dtype, optional
        Of the result, in the array's own library. Default: its default floating dtype.

    Returns
    -------
    array, shape (..., n)

    Raises
    ------
    ValueError, TypeError
        An index outside 0 .. n - 1, or twice in a row.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.k_hot([[3, 1], [0, 2]], 4).tolist()
    [[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]]
    """
    n = _validation.as_integer(n, "n")
    if n < 0:
        raise ValueError(f"n = {n} is negative; pass the number of items")
    indices = _validation.check_indices(indices, n)
    _validation.check_distinct(indices)
    xp = api.namespace_of(indices)
    _sampling_validation.check_addressable((*indices.shape[:-1], n), "n", n)
    dtype = api.default_float(xp, api.device_of(indices)) if dtype is None else dtype
    selected = selection_mask(indices, n, xp)
    try:
        return xp.astype(selected, dtype)
    except (TypeError, ValueError, AttributeError) as error:
        library = api.namespace_name(xp)
        raise TypeError(f"dtype = {shown(dtype)}: {error}; pass a dtype of {library}") from None


def selection_mask(indices: Array, n: int, xp: Namespace) -> Array:
    """(..., n) truth values: is the item among the indices of its row?"""
    device = api.device_of(indices)
    rows = api.flatten_batch(indices, xp)
    nothing = xp.zeros((rows.shape[0], n), dtype=xp.bool, device=device)
    everything = xp.ones(rows.shape, dtype=xp.bool, device=device)
    mask = _dispatch.core("put_along_rows", xp)(nothing, rows, everything, xp)
    return xp.reshape(mask, (*indices.shape[:-1], n))
