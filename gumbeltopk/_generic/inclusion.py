"""Inclusion probabilities of sequential sampling, exact: counts of arrivals by dynamic programming.

Item i arrives at T_i ~ Exp(w_i), and S holds the first k. At time tau item i has arrived with probability
a_i = 1 - q_i, q_i = exp(-w_i tau); N counts arrivals, N_{-i} those of all items but i. Item i is in S if and only if
it comes before the k-th of the others, whose time has the density f_{-i}:
    pi_i = Int a_i f_{-i} d tau,   1 - pi_i = Int q_i f_{-i} d tau,   f_{-i} = sum_{m != i} w_m q_m P(N_{-im} = k - 1).
All terms are positive, so that small probabilities are as exact as large ones. With s = log tau and h_i = w_i tau q_i
f_{-i} d tau is X_i ds,
    X_i = sum_{m != i} h_m P(N_{-im} = k - 1).
The derivatives need one more sum, Y_i, in which u_m h_m stands for h_m. The integral is a trapezoid sum in s.

The cores take rows with more than k positive weights, 1 <= k; a zero weight is a log-weight of -inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from gumbeltopk._array_api import Array, Namespace

FALL = 45.0  # nats: what is cut off is e^-45 of the whole
FAR_FALL = 600.0  # nats, for the integrals of q_i of heavy items, whose mass is far to the left
WIDEST_SPACING = 0.2  # the integrand decays at least like exp(-exp(s)), whose aliasing error is exp(-pi^2 / spacing)
SPACING_OF_A_BELL = 0.4  # of the standard deviation of a bell-shaped integrand: aliasing error exp(-2 pi^2 / 0.16)
FARTHEST = 150.0  # nats from the (k + 1)-st weight: heavier or lighter items have pi or 1 - pi below 1e-65
LARGEST_LOG_X = 7.0  # exp(-exp(7)) is 0
BISECTIONS = 14
LARGEST_BLOCK = 1 << 21  # numbers in the prefixes of all items at a time


class Nodes(NamedTuple):
    """Equally spaced places in log-time, the same number in each row."""

    log_weights: Array  # (rows, n), in units in which the (k + 1)-st weight is 1
    left: Array  # (rows, 1)
    spacing: Array  # (rows, 1)
    number: int


class Arrivals(NamedTuple):
    """What items do at the nodes, (rows, nodes, items)."""

    arrived: Array  # a = 1 - exp(-x), x = w tau
    waiting: Array  # q = exp(-x)
    hazard: Array  # h = x exp(-x)


class Block(NamedTuple):
    """Some nodes of some rows, and the counts there."""

    rows: slice
    s: Array  # (rows, nodes)
    x: Arrivals
    density: Array  # X (rows, nodes, n)
    weighted: Array | None  # Y, if there is a direction u


def probabilities(log_weights: Array, k: int, xp: Namespace) -> tuple[Array, Array]:
    """pi and 1 - pi (rows, n), both with small relative errors."""
    nodes = make_nodes(log_weights, k, k, xp)

    def integrand(block: Block) -> Array:
        return xp.concat([block.x.arrived * block.density, block.x.waiting * block.density], axis=-1)

    both = integrate(nodes, k - 1, None, integrand, xp)
    n = log_weights.shape[-1]
    return both[:, :n], both[:, n:]


def jacobian_product(log_weights: Array, k: int, direction: Array, xp: Namespace) -> Array:
    """J u (rows, n), J_ij = d pi_i / d log w_j. It is J^T u as well.

    pi_i = Int w_i q_i P(N_{-i} <= k - 1) d tau depends on w_j, j != i, through a_j alone. With d a_j / d log w_j = h_j
    and d P(N_{-i} <= k - 1) / d a_j = -P(N_{-ij} = k - 1),
        J_ij = -Int h_i h_j P(N_{-ij} = k - 1) ds,
    which is symmetric: pi is the gradient of E max_S sum_{i in S} (log w_i + Gumbel noise). Rows sum to 0, because only
    ratios of weights matter. Hence
        (J u)_i = sum_{j != i} (u_i - u_j) Int h_i h_j P(N_{-ij} = k - 1) ds = Int h_i (u_i X_i - Y_i) ds.
    """
    nodes = make_nodes(log_weights, k, k, xp)

    def integrand(block: Block) -> Array:
        return block.x.hazard * (direction[block.rows, None, :] * block.density - block.weighted)

    return integrate(nodes, k - 1, direction, integrand, xp)


# --- counts ---------------------------------------------------------------------------------------


def integrate(
    nodes: Nodes, degree: int, direction: Array | None, integrand: Callable[[Block], Array], xp: Namespace
) -> Array:
    """The sum over nodes, block by block so that memory stays flat."""
    rows, n = nodes.log_weights.shape
    in_block = max(1, LARGEST_BLOCK // (n * (degree + 1) * (2 if direction is None else 3)))
    nodes_in_block = min(in_block, nodes.number)
    rows_in_block = max(1, in_block // nodes_in_block)
    places = xp.arange(nodes.number, dtype=nodes.left.dtype, device=nodes.left.device)
    parts = []
    for first in range(0, rows, rows_in_block):
        block = slice(first, min(first + rows_in_block, rows))
        log_weights = nodes.log_weights[block, :]
        u = None if direction is None else direction[block, :]
        total: Array = 0.0
        for start in range(0, nodes.number, nodes_in_block):
            s = nodes.left[block, :] + nodes.spacing[block, :] * places[start : start + nodes_in_block]
            x = arrivals(log_weights, s, xp)
            density, weighted = _leave_one_out(x, degree, u, xp)
            total = total + xp.sum(integrand(Block(block, s, x, density, weighted)), axis=1)
        parts.append(total * nodes.spacing[block, :])
    return xp.concat(parts, axis=0)


def arrivals(log_weights: Array, s: Array, xp: Namespace) -> Arrivals:
    log_x = xp.clip(log_weights[:, None, :] + s[:, :, None], max=LARGEST_LOG_X)
    x = xp.exp(log_x)
    waiting = xp.exp(-x)
    return Arrivals(-xp.expm1(-x), waiting, x * waiting)


def _leave_one_out(x: Arrivals, degree: int, direction: Array | None, xp: Namespace) -> tuple[Array, Array | None]:
    """X, and Y of a direction (rows, n): for each item j, the sum over m != j of h_m P(N_{-jm} = degree).

    It is the coefficient of z^degree in the product over the other items of q + z a, with h_m for q_m + z a_m: of the
    prefix of j times its suffix, one of which is "marked", it holds m. Nothing is divided out.
    """
    rows, nodes, n = x.arrived.shape
    arrived, waiting, hazard = (xp.reshape(xp.moveaxis(each, -1, 0), (n, rows * nodes, 1)) for each in x)
    marks = [hazard]
    if direction is not None:
        u = xp.reshape(xp.broadcast_to(xp.moveaxis(direction, -1, 0)[:, :, None], (n, rows, nodes)), hazard.shape)
        marks.append(u * hazard)
    shape, dtype, device = (rows * nodes, degree), hazard.dtype, hazard.device
    one = xp.ones((rows * nodes, 1), dtype=dtype, device=device)
    zero = xp.zeros((rows * nodes, 1), dtype=dtype, device=device)
    rest = xp.zeros(shape, dtype=dtype, device=device)

    def extend(polynomials: list[Array], j: int, shifted: Callable[[Array], Array]) -> list[Array]:
        plain, *marked = (waiting[j, ...] * each + arrived[j, ...] * shifted(each) for each in polynomials)
        return [plain, *(new + mark[j, ...] * polynomials[0] for new, mark in zip(marked, marks, strict=True))]

    prefixes = [[xp.concat([one, rest], axis=-1), *(xp.concat([zero, rest], axis=-1) for _ in marks)]]
    for j in range(n - 1):
        prefixes.append(extend(prefixes[-1], j, lambda p: xp.concat([zero, p[:, :-1]], axis=-1)))
    # Suffixes go backwards, in their coefficients too: a product's coefficient is a sum over the last axis.
    suffix = [xp.concat([rest, one], axis=-1), *(xp.concat([rest, zero], axis=-1) for _ in marks)]
    columns: list[list[Array]] = [[] for _ in marks]
    for j in reversed(range(n)):
        prefix = prefixes.pop()
        for column, left, right in zip(columns, prefix[1:], suffix[1:], strict=True):
            column.append(xp.sum(prefix[0] * right + left * suffix[0], axis=-1))
        suffix = extend(suffix, j, lambda p: xp.concat([p[:, 1:], zero], axis=-1))
    sums = [xp.reshape(xp.stack(column[::-1], axis=-1), (rows, nodes, n)) for column in columns]
    return sums[0], sums[1] if direction is not None else None


# --- where to look --------------------------------------------------------------------------------


def make_nodes(log_weights: Array, first: int, last: int, xp: Namespace) -> Nodes:
    """Nodes from before arrival number `first` to after arrival number `last` + 1, in all but e^-FALL of cases.

    If both are one number, they reach as far to the left as the integrals of 1 - pi need.
    """
    unit = xp.sort(log_weights, axis=-1, descending=True)[:, last : last + 1]
    logs = in_units(log_weights, unit, xp)
    positive = xp.count_nonzero(logs > -math.inf, axis=-1, keepdims=True)
    positive = xp.astype(positive, logs.dtype)
    left, right, spacing = bracket(logs, xp.ones_like(logs), positive, first, last, xp)
    number = 1 + math.ceil(float(xp.max((right - left) / spacing)))
    return Nodes(logs, left, (right - left) / (number - 1), number)


def in_units(log_weights: Array, unit: Array, xp: Namespace) -> Array:
    """Divided by the (k + 1)-st weight. What is farther off than FARTHEST is moved there, which changes pi by 1e-65."""
    logs = xp.clip(log_weights - unit, min=-FARTHEST, max=FARTHEST)
    return xp.where(log_weights > -math.inf, logs, -math.inf)


def bracket(
    logs: Array, counts: Array, positive: Array, first: int, last: int, xp: Namespace
) -> tuple[Array, Array, Array]:
    """Log-times before which fewer than `first` items have arrived, and after which more than `last`; and a spacing.

    `logs` occur `counts` times each. The number of arrivals N, of the mean mu, has Poisson's tail bound,
    log P(N >= m) <= m - mu + m log(mu / m) for mu < m, and the same for P(N <= m), mu > m. Another bound is
    P(N <= k) <= (k + 1) exp(-w tau), w the (k + 1)-st weight. Integrals of q_i f_{-i} of heavy items have their mass
    where w_i tau is of order one or less, and on the left f falls like tau^k. Pairs, for which `first` < `last`, have
    no such integrals: theirs grow with tau by a_i a_j f_{-ij}.
    """
    end = math.log(FALL + math.log(last + 1.0))
    top = xp.max(logs, axis=-1, keepdims=True)
    total = top + xp.log(xp.sum(counts * xp.exp(logs - top), axis=-1, keepdims=True))
    begin, _ = _time_of(_mean_before(first, FALL), logs, counts, total, end, xp)
    _, right = _time_of(_mean_after(last, FALL), logs, counts, total, end, xp)
    spacing = _largest_spacing(positive, last, xp)
    if first < last:
        return begin, right, spacing
    far, _ = _time_of(_mean_before(first, FAR_FALL), logs, counts, total, end, xp)
    return xp.maximum(far, xp.minimum(begin, -top - FALL / (first + 1) - 1.0)), right, spacing


def _mean_before(count: int, fall: float) -> float:
    """The mean mu < count at which Poisson's bound of P(N >= count) is e^-fall."""
    low, high = -fall / count - 1.0, 0.0  # log(mu / count)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = count * (-math.expm1(middle) + middle) < -fall
        low, high = (middle, high) if below else (low, middle)
    return count * math.exp(low)


def _mean_after(count: int, fall: float) -> float:
    """The mean mu > count at which Poisson's bound of P(N <= count) is e^-fall."""
    low, high = 0.0, math.log(4.0 + 4.0 * fall / count)
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = count * (-math.expm1(middle) + middle) < -fall
        low, high = (low, middle) if above else (middle, high)
    return count * math.exp(high)


def _time_of(mean: float, logs: Array, counts: Array, total: Array, end: float, xp: Namespace) -> tuple[Array, Array]:
    """Log-times between which the mean number of arrivals passes `mean`, the later one at most `end`.

    It is at most tau times the sum of the weights, whose log is `total`.
    """
    low = xp.clip(math.log(mean) - total, max=end)
    high = xp.full_like(low, end)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        before = xp.sum(-xp.expm1(-xp.exp(logs + middle)) * counts, axis=-1, keepdims=True) < mean
        low, high = xp.where(before, middle, low), xp.where(before, high, middle)
    return low, high


def _largest_spacing(items: Array, k: int, xp: Namespace) -> Array:
    """Equal weights make the narrowest bell, of the width sigma / (d mean / ds).

    With d = n - k and x = log(n / d) that is sqrt(k d / n) / (d x), at least 1 / (sqrt(min(k, d)) (1 + x)).
    """
    others = items - k
    narrow = 1.0 / (xp.sqrt(xp.clip(others, max=float(k))) * (1.0 + xp.log(items / others)))
    return xp.clip(SPACING_OF_A_BELL * narrow, max=WIDEST_SPACING)
