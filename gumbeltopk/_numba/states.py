"""The states p^j of rows once more, for the derivatives, compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gumbeltopk._numba.compiling import Array, inner, maker
from gumbeltopk._numba.powers import Power
from gumbeltopk._numba.rows import (
    DISTANCE,
    FOUR,
    PART,
    Place,
    buffer_size,
    copy,
    decay,
    load_weights,
    product,
    raise_complements,
    row_of,
)
from gumbeltopk._numpy.direct_layouts import Steps


class States(NamedTuple):
    """Those of the rows in a buffer: of a segment of steps all, of the other segments the first."""

    firsts: Any  # (segments, size)
    at_hand: Any  # (steps in a segment, size)
    scales: Any  # (FOUR,), and two times (PART,): to work in
    c: Any
    square: Any


@maker
def new_states(k: int, length: int, n: int, dtype: Any) -> States:
    """For segments of `length` steps."""
    size = buffer_size(n)
    firsts, at_hand = np.zeros((-(-k // length), size), dtype), np.zeros((length, size), dtype)
    return States(firsts, at_hand, np.zeros(FOUR, dtype), np.empty(PART, dtype), np.empty(PART, dtype))


@inner
def fill_firsts(states: States, weights: Array, plain: bool, place: Place, power: Power, steps: Steps) -> None:
    """p^1 of the others, from the weights (see `load_weights`), and the first state of each segment."""
    load_weights(weights, plain, place, power, states.firsts[0])
    normalise(states.firsts[0], place, steps)
    for segment in range(states.firsts.shape[0] - 1):
        number = fill_segment(states, segment, place, power, steps)
        last, following = states.at_hand[number - 1], states.firsts[segment + 1]
        advance(last, following, place, power, steps, (segment + 1) * number - 1, states)


@inner
def fill_segment(states: States, segment: int, place: Place, power: Power, steps: Steps) -> int:
    """The states of a segment; their number."""
    at_hand = states.at_hand
    first = segment * at_hand.shape[0]
    number: int = min(at_hand.shape[0], steps.masses.shape[0] - first)
    copy(states.firsts[segment], place, at_hand[0])
    for i in range(number - 1):
        advance(at_hand[i], at_hand[i + 1], place, power, steps, first + i, states)
    return number


@inner
def normalise(p: Array, place: Place, steps: Steps) -> None:
    """p^1 of the others from the weights."""
    for r in range(place.count):
        row, own = place.first + r, row_of(p, place, r)
        own[steps.held[0, row]] = 0
        scale_row(own, p.dtype.type(1.0 / steps.masses[0, row]))


@inner
def scale_row(p: Array, scale: Any) -> None:
    for i in range(p.size):
        p[i] *= scale


@inner
def advance(p: Array, following: Array, place: Place, power: Power, steps: Steps, j: int, states: States) -> None:
    """p^{j+1} from p^j."""
    scales = states.scales
    for r in range(place.count):
        scales[r] = 1.0 / steps.masses[j + 1, place.first + r]
    if power.whole != 1:
        advance_by_any_power(p, following, place, power, steps, j, states)
    elif place.together:
        advance_four(p, scales, following, place.length)
    else:
        advance_one(p, scales[0], following)


@inner
def advance_item(p: Array, i: int, scale: Any, following: Array) -> None:
    following[i] = decay(p[i], p.dtype.type(1)) * scale


@inner
def advance_four(p: Array, scales: Array, following: Array, length: int) -> None:
    scale_0, scale_1, scale_2, scale_3 = scales[0], scales[1], scales[2], scales[3]
    for i in range(length):
        advance_item(p, i, scale_0, following)
        advance_item(p, i + DISTANCE, scale_1, following)
        advance_item(p, i + 2 * DISTANCE, scale_2, following)
        advance_item(p, i + 3 * DISTANCE, scale_3, following)


@inner
def advance_one(p: Array, scale: Any, following: Array) -> None:
    for i in range(p.size):
        advance_item(p, i, scale, following)


@inner
def advance_by_any_power(
    p: Array, following: Array, place: Place, power: Power, steps: Steps, j: int, states: States
) -> None:
    for r in range(place.count):
        own, own_following, row = row_of(p, place, r), row_of(following, place, r), place.first + r
        of_power = row if power.beta.size > 1 else 0
        advance_row(own, states.scales[r], own_following, power, of_power, states.c, states.square)
        before, after = steps.held[j, row], steps.held[j + 1, row]
        if before != after:
            back = steps.shares[j, 0, row] * steps.shares[j, 1, row] ** power.beta[of_power]
            own_following[before], own_following[after] = back / steps.masses[j + 1, row], 0


@inner
def advance_row(p: Array, scale: Any, following: Array, power: Power, own: int, c: Array, square: Array) -> None:
    for first in range(0, p.size, PART):
        part, part_following = p[first : first + PART], following[first : first + PART]
        raise_complements(part, power, own, c[: part.size], square[: part.size])
        multiply(part, c[: part.size], scale, part_following)


@inner
def multiply(p: Array, c: Array, scale: Any, following: Array) -> None:
    for i in range(p.size):
        following[i] = product(p[i], c[i]) * scale
