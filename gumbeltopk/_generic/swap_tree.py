"""Swaps of the conditional Poisson mode where they are few: products of small polynomials, all terms positive.

Each item is a polynomial q_i + p_i t. A binary tree of products gives the distribution of the number of items that come
in, another one that of the number that goes out. With variance below 1 the expected number of swaps is below 2, and
more than MOST_SWAPS of them in and as many out have a probability below 1e-24: the polynomials are cut there.

Down the tree, every node gets the weights of its own count: O[j] = P(D = 0 | its count is j). At the root this is the
distribution of the other side, and
    O_left[j] = sum_m O[j + m] right[m].
At the leaf of item i, P(i swapped, D = 0) = p_i O_i[1] and P(i kept, D = 0) = q_i O_i[0]. Nothing is ever subtracted:
probabilities of 1e-300 come out with all their digits.

The arrays are (degree + 1, rows, 2, nodes): side 0 comes in, side 1 goes out.
"""

from __future__ import annotations

from collections.abc import Iterator

from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._generic.swaps import Swaps, row_blocks

MOST_SWAPS = 20
LARGEST_BLOCK = 1 << 21  # leaves, with both sides, times the widest polynomial


def excess(swaps: Swaps, xp: Namespace) -> tuple[Array]:
    """log of sum_d e_d(u) e_d(v) (rows,), alone in a tuple."""
    parts = []
    for rows, _ in _row_blocks(swaps, ()):
        root = _build(_leaves(rows, xp), xp)[-1][..., 0]
        parts.append(_log_of_sum(root, xp))
    return (xp.concat(parts, axis=0),)


def marginals(swaps: Swaps, xp: Namespace) -> tuple[Array, Array, Array]:
    """The excess (rows,), and the probabilities that an item is swapped, and that it is not (rows, n), given D = 0."""
    parts = []
    for rows, _ in _row_blocks(swaps, ()):
        levels = _build(_leaves(rows, xp), xp)
        root = levels[-1][..., 0]
        outer = _of_own_side(_outer(levels, xp), rows, xp)
        total = xp.sum(root[:, :, 0] * root[:, :, 1], axis=0)[:, None]
        parts.append((_log_of_sum(root, xp), rows.p * outer[1, ...] / total, rows.q * outer[0, ...] / total))
    excess, swapped, kept = (xp.concat(arrays, axis=0) for arrays in zip(*parts, strict=True))
    return excess, swapped, kept


# With r = P(i swapped | D = 0): logit r = x_i + log O[1] - log O[0], so that along y
#     dr = r (1 - r) (y_i + dO[1] / O[1] - dO[0] / O[0]).
# The tangent of q (1 + e^x t) is p y t; the factor q does not matter to O[1] / O[0] and is held.


def swapped_jvp(swaps: Swaps, tangent: Array, xp: Namespace) -> tuple[Array]:
    """Derivative of the probability of a swap along `tangent` of the log-odds (rows, n), alone in a tuple."""
    parts = []
    for rows, (y,) in _row_blocks(swaps, (tangent,)):
        leaves = _leaves(rows, xp)
        moved = _two_sides(xp.stack([xp.zeros_like(y), rows.p * y], axis=0), rows, (0.0, 0.0), xp)
        levels, tangents = _build_jvp(leaves, moved, xp)
        root = levels[-1][..., 0]
        total = xp.sum(root[:, :, 0] * root[:, :, 1], axis=0)[:, None]
        outer, outer_tangent = (_of_own_side(each, rows, xp) for each in _outer_jvp(levels, tangents, xp))
        spread = (rows.p * outer[1, ...] / total) * (rows.q * outer[0, ...] / total)
        relative = xp.where(outer > 0, outer_tangent / xp.where(outer > 0, outer, 1.0), 0.0)
        parts.append(spread * (y + relative[1, ...] - relative[0, ...]))
    return (xp.concat(parts, axis=0),)


def _log_of_sum(root: Array, xp: Namespace) -> Array:
    """log sum_d e_d(u) e_d(v), from both distributions divided by their first terms: no cancellation near 0."""
    products = (root[:, :, 0] / root[:1, :, 0]) * (root[:, :, 1] / root[:1, :, 1])
    return xp.log1p(xp.sum(products[1:, :], axis=0))


# --- leaves ---------------------------------------------------------------------------------------


def _leaves(swaps: Swaps, xp: Namespace) -> Array:
    return _two_sides(xp.stack([swaps.q, swaps.p], axis=0), swaps, (1.0, 0.0), xp)


def _two_sides(polynomials: Array, swaps: Swaps, neutral: tuple[float, float], xp: Namespace) -> Array:
    """(2, rows, n) to (2, rows, 2, leaves): each item on its own side, `neutral` elsewhere, to a power of two."""
    _, rows, n = polynomials.shape
    leaves = 1 << max(0, (n - 1).bit_length())
    inside = swaps.inside[None, :, :]
    plain = xp.stack([xp.full_like(polynomials[0, ...], each) for each in neutral], axis=0)
    sides = xp.stack([xp.where(inside, plain, polynomials), xp.where(inside, polynomials, plain)], axis=2)
    if leaves == n:
        return sides
    shape = (1, rows, 2, leaves - n)
    dtype, device = polynomials.dtype, polynomials.device
    padding = xp.concat([xp.full(shape, each, dtype=dtype, device=device) for each in neutral], axis=0)
    return xp.concat([sides, padding], axis=-1)


def _of_own_side(outer: Array, swaps: Swaps, xp: Namespace) -> Array:
    """(2, rows, 2, leaves) to (2, rows, n)."""
    n = swaps.p.shape[1]
    return xp.where(swaps.inside[None, :, :], outer[:, :, 1, :n], outer[:, :, 0, :n])


# --- up and down the tree -------------------------------------------------------------------------


def _build(leaves: Array, xp: Namespace) -> list[Array]:
    """All levels, from the leaves to the root; a node is the product of one of each half of the level below."""
    levels = [leaves]
    while levels[-1].shape[-1] > 1:
        levels.append(_product(*_halves(levels[-1]), xp))
    return levels


def _build_jvp(leaves: Array, tangents: Array, xp: Namespace) -> tuple[list[Array], list[Array]]:
    levels, moved = [leaves], [tangents]
    while levels[-1].shape[-1] > 1:
        left, right = _halves(levels[-1])
        left_tangent, right_tangent = _halves(moved[-1])
        levels.append(_product(left, right, xp))
        moved.append(_product(left_tangent, right, xp) + _product(left, right_tangent, xp))
    return levels, moved


def _outer(levels: list[Array], xp: Namespace) -> Array:
    """O at the leaves."""
    outer = xp.flip(levels[-1], axis=2)  # the weights of one side are the distribution of the other
    for level in reversed(levels[:-1]):
        left, right = _halves(level)
        outer = xp.concat([_correlation(outer, right, xp), _correlation(outer, left, xp)], axis=-1)
    return outer


def _outer_jvp(levels: list[Array], tangents: list[Array], xp: Namespace) -> tuple[Array, Array]:
    outer, moved = xp.flip(levels[-1], axis=2), xp.flip(tangents[-1], axis=2)
    for level, tangent in zip(reversed(levels[:-1]), reversed(tangents[:-1]), strict=True):
        outers, outer_tangents = [], []
        (left, right), (left_tangent, right_tangent) = _halves(level), _halves(tangent)
        for sibling, sibling_tangent in ((right, right_tangent), (left, left_tangent)):
            outers.append(_correlation(outer, sibling, xp))
            outer_tangents.append(_correlation(moved, sibling, xp) + _correlation(outer, sibling_tangent, xp))
        outer, moved = xp.concat(outers, axis=-1), xp.concat(outer_tangents, axis=-1)
    return outer, moved


def _halves(level: Array) -> tuple[Array, Array]:
    half = level.shape[-1] // 2
    return level[..., :half], level[..., half:]


def _product(a: Array, b: Array, xp: Namespace) -> Array:
    """sum_j a[j] b[i - j], up to degree MOST_SWAPS."""
    width = min(a.shape[0] + b.shape[0] - 1, MOST_SWAPS + 1)
    before = a.shape[0] - 1
    shifted = xp.concat([_zeros(before, b, xp), b, _zeros(max(0, width - b.shape[0]), b, xp)], axis=0)
    result = a[:1, ...] * shifted[before : before + width, ...]
    for j in range(1, a.shape[0]):
        result = result + a[j : j + 1, ...] * shifted[before - j : before - j + width, ...]
    return result


def _correlation(outer: Array, sibling: Array, xp: Namespace) -> Array:
    """sum_m outer[j + m] sibling[m], for the degrees of a node of the sibling's size."""
    width = sibling.shape[0]
    extended = xp.concat([outer, _zeros(max(0, 2 * width - 1 - outer.shape[0]), outer, xp)], axis=0)
    result = extended[:width, ...] * sibling[:1, ...]
    for m in range(1, width):
        result = result + extended[m : m + width, ...] * sibling[m : m + 1, ...]
    return result


def _zeros(length: int, like: Array, xp: Namespace) -> Array:
    return xp.zeros((length, *like.shape[1:]), dtype=like.dtype, device=like.device)


def _row_blocks(swaps: Swaps, extra: tuple[Array, ...]) -> Iterator[tuple[Swaps, tuple[Array, ...]]]:
    """Some rows at a time."""
    return row_blocks(swaps, extra, LARGEST_BLOCK // (2 * (MOST_SWAPS + 1) * swaps.p.shape[1]))
