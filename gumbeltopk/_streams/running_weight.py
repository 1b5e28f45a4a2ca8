"""The total weight of a stream, exactly, and the pending jump of A-ExpJ on it.

All floats are multiples of 2^-1074, so that a Python integer counts them without rounding and without overflow. Single
weights are first summed as floats, a few thousand at a time: however many there are, the relative error stays below
1e-12.
"""

from __future__ import annotations

import math
from typing import Any

ITEMS_PER_SUM = 1 << 12  # single weights summed as floats, before their sum joins the exact total
UNIT_BITS = 1074
UNIT = 1 << UNIT_BITS
OVERFLOW_SCALE_BITS = 64


def exact(number: float) -> int:
    """A finite float in units of 2^-1074."""
    numerator, denominator = number.as_integer_ratio()
    return numerator << (UNIT_BITS + 1 - denominator.bit_length())


def exact_sum(weights: Any, total: float) -> int:
    """The sum of finite weights in the same units, where their float sum `total` may have overflowed."""
    if total < math.inf:
        return exact(total)
    return exact(float((weights * 2.0**-OVERFLOW_SCALE_BITS).sum())) << OVERFLOW_SCALE_BITS


class RunningWeight:
    """The weight that has passed, and where the next single item arrives (the end of the jump, if one is drawn)."""

    def __init__(self) -> None:
        self.total = 0  # in units, of all weights but `passed`
        self.passed = 0.0  # of the last few single items
        self.passed_items = 0
        self.jump_end: int | None = None  # in units
        self.limit = 0.0  # single items are passed over as long as `passed` stays below

    def value(self) -> float:
        """The total weight as a float, inf beyond the largest one."""
        try:
            return (self.total + exact(self.passed)) / UNIT
        except OverflowError:
            return math.inf

    def pass_over(self, weight: float) -> bool:
        """Whether the jump goes on beyond this single item, whose weight then counts as passed."""
        passed = self.passed + weight
        if passed < self.limit and self.passed_items < ITEMS_PER_SUM:
            self.passed = passed
            self.passed_items += 1
            return True
        return False

    def fold(self) -> None:
        """Let the weight of the last single items join the exact total."""
        self.total += exact(self.passed)
        self.passed, self.passed_items = 0.0, 0
        self._set_limit()

    def add(self, units: int) -> None:
        """Add to the total; nothing may be left to fold."""
        self.total += units
        self._set_limit()

    def begin_jump(self, length: float) -> None:
        """The next single item arrives after the weight `length`."""
        self.resume_jump(self.total + exact(length))

    def resume_jump(self, end: int) -> None:
        """Go on with a jump that ends at this total, in units."""
        self.jump_end = end
        self._set_limit()

    def drop_jump(self) -> None:
        """Jumps are memoryless: what is left of one that has not ended is distributed as a new one."""
        self.jump_end = None
        self.limit = 0.0

    def jump_ends_within(self, weight: float) -> bool:
        """Whether the item of this weight is the one that arrives."""
        return self.jump_end is not None and self.total + exact(weight) >= self.jump_end

    def _set_limit(self) -> None:
        self.limit = 0.0 if self.jump_end is None else (self.jump_end - self.total) / UNIT
