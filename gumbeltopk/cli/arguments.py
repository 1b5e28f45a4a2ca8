"""Values of options."""

from __future__ import annotations

import argparse
import math

LONGEST_INTEGER = 4000  # digits; Python refuses to read many more
LARGEST_ITEM_NUMBER = 2**62


def natural_number(text: str) -> int:
    """0, 1, 2, ..."""
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_INTEGER):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more, such as 1000")
    return int(text)


def positive_integer(text: str) -> int:
    """1, 2, ..."""
    number = natural_number(text)
    if number == 0:
        raise argparse.ArgumentTypeError("0 is not enough; give 1 or more")
    return number


def positive_number(text: str) -> float:
    """A temperature."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive finite number, such as 0.5")
    return number


def item_number(text: str) -> int:
    """The number of a record."""
    number = natural_number(text)
    if number > LARGEST_ITEM_NUMBER:
        raise argparse.ArgumentTypeError(f"{text} is too large; numbers of records go up to {LARGEST_ITEM_NUMBER}")
    return number
