"""The states p^j of rows once more, for the derivatives, compiled."""

from __future__ import annotations

from typing import Any

from gumbeltopk._numba.compiling import Array, inner
from gumbeltopk._numba.powers import Power
from gumbeltopk._numba.rows import PART, SHORT, Place, decay, load, product, raise_complements, row_of


@inner
def start(weights: Array, place: Place, held: Array, masses: Array, p: Array) -> None:
    """p^1 of the others."""
    load(weights, place, p)
    for r in range(place.count):
        row = place.first + r
        scale = p.dtype.type(1.0 / masses[0, row])
        p[r * SHORT + held[0, row]] = 0
        for i in range(place.length):
            p[r * SHORT + i] *= scale


@inner
def advance_item(p: Array, i: int, scale: Any, following: Array) -> None:
    following[i] = decay(p[i], p.dtype.type(1)) * scale


@inner
def advance_by_power_1(p: Array, scales: Array, following: Array, place: Place) -> None:
    scale_0, scale_1, scale_2, scale_3 = scales[0], scales[1], scales[2], scales[3]
    if place.together:
        for i in range(place.length):
            advance_item(p, i, scale_0, following)
            advance_item(p, i + SHORT, scale_1, following)
            advance_item(p, i + 2 * SHORT, scale_2, following)
            advance_item(p, i + 3 * SHORT, scale_3, following)
    else:
        for i in range(p.size):
            advance_item(p, i, scale_0, following)


@inner
def advance_by_any_power(
    p: Array,
    scales: Array,
    following: Array,
    place: Place,
    power: Power,
    held: Array,
    shares: Array,
    masses: Array,
    j: int,
    c: Array,
    square: Array,
) -> None:
    for r in range(place.count):
        own, own_following, row = row_of(p, place, r), row_of(following, place, r), place.first + r
        of_power = row if power.beta.size > 1 else 0
        advance_row(own, scales[r], own_following, power, of_power, c, square)
        before, after = held[j, row], held[j + 1, row]
        if before != after:
            back = shares[j, 0, row] * shares[j, 1, row] ** power.beta[of_power]
            own_following[before], own_following[after] = back / masses[j + 1, row], 0


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


@inner
def advance(
    p: Array,
    following: Array,
    place: Place,
    power: Power,
    held: Array,
    shares: Array,
    masses: Array,
    j: int,
    scales: Array,
    c: Array,
    square: Array,
) -> None:
    """p^{j+1} from p^j. There is memory to work in: `scales` (FOUR,), `c` and `square` (PART,)."""
    for r in range(place.count):
        scales[r] = 1.0 / masses[j + 1, place.first + r]
    if power.whole == 1:
        advance_by_power_1(p, scales, following, place)
    else:
        advance_by_any_power(p, scales, following, place, power, held, shares, masses, j, c, square)
