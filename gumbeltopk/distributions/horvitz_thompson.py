"""The Horvitz-Thompson estimate of a total from a sample of unequal probabilities, and its variance."""

from __future__ import annotations

from typing import Any

import numpy as np

from gumbeltopk import _array_api as api
from gumbeltopk import _validation
from gumbeltopk._array_api import Array, Namespace

__all__ = ["horvitz_thompson"]

LARGEST = 1.0 + 1e-5  # of a probability: float32 rounds
SMALLEST_TOLERANCE, EPSILONS = 1e-9, 100.0  # of what `joint` and `inclusion` must agree on, relative


def horvitz_thompson(values: Any, indices: Any, inclusion: Any, joint: Any = None) -> Any:
    """Estimate the total of `values` over all n items from the k items of a sample.

    The estimate is sum_{i in S} values_i / pi_i. It is unbiased if every item with a value other than 0 has pi_i > 0.

    Parameters
    ----------
    values : array_like, shape (..., k)
        Values of the sampled items, in the order of `indices`. Others need not be known.
    indices : integer array_like, shape (..., k)
        The sampled items. All batch axes broadcast.
    inclusion : array_like, shape (..., n)
        Inclusion probabilities of all items, from `inclusion_probabilities`.
    joint : array_like, shape (..., n, n), optional
        Those of pairs, from `joint_inclusion_probabilities`.

    Returns
    -------
    array, the common batch shape
        The estimate. With `joint`, a tuple of the estimate and the estimate of its variance by Sen, Yates and Grundy,
        sum_{i < j} (pi_i pi_j - pi_ij) / pi_ij (values_i / pi_i - values_j / pi_j)^2. It is unbiased if pi_ij > 0 for
        all pairs, which needs k >= 2; in a single sample it may be negative.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not fit, an index outside 0 .. n - 1 or twice in a row, a sampled item or pair of probability 0,
        which cannot have been sampled, or a probability above 1; `joint` with k < 2, or one that is not symmetric, has
        another diagonal than `inclusion`, or a pair more probable than one of its items, as far as it was sampled.

    References
    ----------
    Horvitz & Thompson 1952; Sen 1953; Yates & Grundy 1953.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> sizes = np.asarray([1.0, 2.0, 3.0, 4.0])
    >>> subsets = gt.SubsetDistribution(weights=sizes, k=2)
    >>> S = subsets.enumerate_support()
    >>> totals = gt.horvitz_thompson(sizes[S], S, subsets.inclusion_probabilities())
    >>> totals.round(3).tolist()
    [8.796, 9.195, 9.852, 9.464, 10.12, 10.519]
    >>> float((subsets.pmf(S) * totals).sum().round(12))
    10.0
    """
    inclusion = _validation.as_real_array(inclusion, "inclusion")
    if inclusion.ndim == 0:
        raise ValueError("inclusion is 0-dimensional; its last axis holds the n items")
    xp, n = api.namespace_of(inclusion), inclusion.shape[-1]
    values = _validation.adopt(values, "values", inclusion, "inclusion")
    indices = _validation.adopt_indices(indices, n, inclusion, "inclusion")
    _validation.check_distinct(indices)
    k = indices.shape[-1]
    if values.ndim == 0 or values.shape[-1] != k:
        raise ValueError(
            f"values has shape {tuple(values.shape)}, but indices lists k = {k} items; pass the values of these items"
        )
    tables = {"values": (values, 1), "indices": (indices, 1), "inclusion": (inclusion, 1)}
    if joint is not None:
        joint = _validation.adopt(joint, "joint", inclusion, "inclusion")
        if joint.ndim < 2 or tuple(joint.shape[-2:]) != (n, n):
            raise ValueError(f"joint has shape {tuple(joint.shape)}; its last two axes must have the length n = {n}")
        if k < 2:
            raise ValueError(f"joint is of no use with k = {k}: the variance is estimated from pairs of sampled items")
        tables["joint"] = (joint, 2)
    batch = _common_batch(tables)
    work = api.work_float(xp, api.device_of(inclusion))
    indices = xp.broadcast_to(indices, (*batch, k))
    pi = _of_sampled(inclusion, indices, batch, work, xp)
    _check_probabilities(pi, "inclusion", indices, xp)
    expanded = xp.astype(values, work) / pi
    dtype = xp.result_type(values.dtype, inclusion.dtype)
    estimate = xp.astype(xp.sum(expanded, axis=-1), dtype, copy=False)
    if joint is None:
        return estimate
    pairs = xp.reshape(indices[..., :, None] * n + indices[..., None, :], (*batch, k * k))
    flat = xp.reshape(joint, (*joint.shape[:-2], n * n))
    pi_of_pairs = xp.reshape(_of_sampled(flat, pairs, batch, work, xp), (*batch, k, k))
    _check_probabilities(pi_of_pairs, "joint", indices, xp)
    _check_pairs(pi_of_pairs, pi, indices, _tolerance(inclusion, joint, xp), xp)
    covered = pi[..., :, None] * pi[..., None, :] / pi_of_pairs - 1.0
    terms = covered * (expanded[..., :, None] - expanded[..., None, :]) ** 2
    return estimate, xp.astype(0.5 * xp.sum(terms, axis=(-2, -1)), dtype, copy=False)


def _common_batch(tables: dict[str, tuple[Array, int]]) -> tuple[int, ...]:
    """The batch shape to which all broadcast; each array comes with the number of its other axes."""
    shapes = {name: tuple(array.shape[: array.ndim - own]) for name, (array, own) in tables.items()}
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{shape} of {name}" for name, shape in shapes.items())
        raise ValueError(f"the batch shapes do not broadcast: {listed}") from None


def _of_sampled(table: Array, places: Array, batch: tuple[int, ...], dtype: Any, xp: Namespace) -> Array:
    """Entries of the last axis, in the dtype of the work."""
    broadcast = xp.broadcast_to(table, (*batch, table.shape[-1]))
    return xp.astype(xp.take_along_axis(broadcast, places, axis=-1), dtype, copy=False)


def _check_probabilities(sampled: Array, name: str, indices: Array, xp: Namespace) -> None:
    good = (sampled > 0.0) & (sampled <= LARGEST)
    if bool(xp.all(good)):
        return
    position = _validation.first_bad_position(good)
    row = position[: indices.ndim - 1]
    items = [_validation.host_item(indices, (*row, place)) for place in position[indices.ndim - 1 :]]
    where = f" in row {row}" if row else ""
    value = _validation.host_item(sampled, position)
    raise ValueError(
        f"{name}{items} = {value}{where}, of what was sampled; a sampled item has a probability above 0 and at most 1"
    )


def _tolerance(inclusion: Array, joint: Array, xp: Namespace) -> float:
    """Of the coarser of both dtypes."""
    coarsest = max(float(xp.finfo(array.dtype).eps) for array in (inclusion, joint))
    return max(SMALLEST_TOLERANCE, EPSILONS * coarsest)


def _check_pairs(of_pairs: Array, pi: Array, indices: Array, tolerance: float, xp: Namespace) -> None:
    """The sampled part (..., k, k) of a matrix that belongs to the inclusion probabilities (..., k)."""
    mirrored = xp.matrix_transpose(of_pairs)
    symmetric = xp.abs(of_pairs - mirrored) <= tolerance * mirrored
    _raise_unless(symmetric, of_pairs, mirrored, indices, "is {}, but {} in the other order of both items")
    smaller = xp.minimum(*xp.broadcast_arrays(pi[..., :, None], pi[..., None, :]))
    place = xp.arange(pi.shape[-1], device=api.device_of(pi))
    same = (xp.abs(of_pairs - smaller) <= tolerance * smaller) | (place[:, None] != place)
    _raise_unless(same, of_pairs, smaller, indices, "is {}, but {} in inclusion, of an item with itself")
    possible = of_pairs <= (1.0 + tolerance) * smaller
    _raise_unless(possible, of_pairs, smaller, indices, "is {}, above the {} in inclusion of one of both items")


def _raise_unless(good: Array, of_pairs: Array, other: Array, indices: Array, what: str) -> None:
    if bool(api.namespace_of(good).all(good)):
        return
    position = _validation.first_bad_position(good)
    row = position[:-2]
    first, second = (_validation.host_item(indices, (*row, place)) for place in position[-2:])
    values = what.format(*(_validation.host_item(array, position) for array in (of_pairs, other)))
    where = f" in row {row}" if row else ""
    raise ValueError(
        f"joint[{first}, {second}]{where} {values}; pass joint and inclusion of the same weights and k, "
        "e.g. from joint_inclusion_probabilities and inclusion_probabilities"
    )
