"""The states p^j of tiles of rows once more, for the derivatives, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from gumbeltopk._numba.compiling import Array, inner
from gumbeltopk._numba.powers import Power
from gumbeltopk._numba.tiles import (
    LANES,
    PART,
    Buffers,
    Lanes,
    Place,
    decay,
    fill_row,
    load,
    product,
    raise_complements,
    slot,
)
from gumbeltopk._numpy.direct_layouts import Steps


@inner
def start(weights: Array, place: Place, steps: Steps, p: Array) -> None:
    """p^1 of the others."""
    load(weights, place, p)
    for r in range(place.count):
        p[slot(place, r, steps.held[0, place.first + r])] = 0
    scale = scales(place, steps, 0, p.dtype)
    for i in range(p.shape[0]):
        for lane in range(LANES):
            p[i, lane] *= scale[lane]


@inner
def scales(place: Place, steps: Steps, j: int, dtype: Any) -> Array:
    """What the lanes are scaled by in step j."""
    scale = np.zeros(LANES, dtype)
    for r in range(place.count):
        fill_row(scale, place, r, 1.0 / steps.masses[j, place.first + r])
    return scale


@inner
def advance(
    p: Array,
    following: Array,
    place: Place,
    power: Power,
    lanes: Lanes,
    steps: Steps,
    j: int,
    buffers: Buffers,
) -> None:
    """p^{j+1} from p^j."""
    one, scale = p.dtype.type(1), scales(place, steps, j + 1, p.dtype)
    if power.whole == 1:
        for i in range(p.shape[0]):
            for lane in range(LANES):
                following[i, lane] = decay(p[i, lane], one) * scale[lane]
        return
    for begin in range(0, p.shape[0], PART):
        end = min(begin + PART, p.shape[0])
        raise_complements(p, begin, end, lanes, buffers)
        for i in range(begin, end):
            for lane in range(LANES):
                following[i, lane] = product(p[i, lane], buffers.c[i - begin, lane]) * scale[lane]
    for r in range(place.count):
        row = place.first + r
        before, after = steps.held[j, row], steps.held[j + 1, row]
        if before != after:
            beta = power.beta[row if power.beta.size > 1 else 0]
            back = steps.shares[j, 0, row] * steps.shares[j, 1, row] ** beta / steps.masses[j + 1, row]
            following[slot(place, r, before)] = back
            following[slot(place, r, after)] = 0
