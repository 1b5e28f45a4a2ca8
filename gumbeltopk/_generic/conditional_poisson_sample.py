"""Exact conditional Poisson samples: independent swaps, again and again until as many come in as go out.

Given that the sizes agree, independent swaps with log-odds x_i have the probabilities that are wanted, whatever the
common tilt in x; under the tilt that is used, sizes agree in one of 2.5 sigma trials or so, sigma^2 = sum p (1 - p).
Item i is swapped if its unit exponential is below -log(1 - p_i) = log(1 + e^{x_i}), which is exact for every p_i.
"""

from __future__ import annotations

from collections.abc import Callable

from gumbeltopk._array_api import Array, Namespace
from gumbeltopk._generic import conditional_poisson
from gumbeltopk._generic.swaps import softplus

Source = Callable[[tuple[int, ...]], Array]  # of unit exponentials of a shape

LARGEST_BLOCK = 1 << 20  # exponentials at a time


def sample(logits: Array, k: int, copies: int, exponentials: Source, xp: Namespace) -> Array:
    """Truth values (copies, rows, n) with k in each row: independent subsets for the logits (rows, n), 0 < k < n."""
    rows, n = logits.shape
    mode = conditional_poisson.find_mode(logits, k, xp)
    rate = softplus(conditional_poisson.tilt(mode, xp).log_odds, xp)
    in_block = max(1, LARGEST_BLOCK // n)
    parts = []
    for first in range(0, copies * rows, in_block):
        numbers = xp.arange(first, min(first + in_block, copies * rows), device=logits.device) % rows
        parts.append(_until_sizes_agree(mode.inside, rate, numbers, k, exponentials, xp))
    return xp.reshape(xp.concat(parts, axis=0), (copies, rows, n))


def _until_sizes_agree(
    inside: Array, rate: Array, numbers: Array, k: int, exponentials: Source, xp: Namespace
) -> Array:
    """(samples, n) for the row `numbers` (samples,)."""
    waiting = xp.arange(numbers.shape[0], device=numbers.device)
    accepted, places = [], []
    while waiting.shape[0]:
        own = xp.take(numbers, waiting, axis=0)
        swapped = exponentials((own.shape[0], rate.shape[1])) < xp.take(rate, own, axis=0)
        selected = xp.take(inside, own, axis=0) != swapped
        agrees = xp.count_nonzero(selected, axis=-1) == k
        (good,), (bad,) = xp.nonzero(agrees), xp.nonzero(~agrees)
        accepted.append(xp.take(selected, good, axis=0))
        places.append(xp.take(waiting, good, axis=0))
        waiting = xp.take(waiting, bad, axis=0)
    order = xp.argsort(xp.concat(places, axis=0))
    return xp.take(xp.concat(accepted, axis=0), order, axis=0)
