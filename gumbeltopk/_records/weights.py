"""Weights as they are written, and how values are shown in messages."""

from __future__ import annotations

import math
import re

LONGEST_SHOWN = 60  # characters of a value in a message
MOST_SHOWN = 20  # columns in a message


class BadRecord(ValueError):
    """Data that cannot be read; the message says where and what to do."""


def parse_weight(text: str, line: int, column: str) -> float:
    """The weight that a field, in this line, stands for."""
    where = f"line {line}, column {column!r}: the weight"
    if not text.strip():
        raise BadRecord(f"{where} is empty; write 0 for a row that is never to be drawn")
    try:
        weight = float(text)
    except ValueError:
        raise BadRecord(f"{where} {shown(text)} is not a number; write one such as 0.5") from None
    if "_" in text:
        raise BadRecord(f"{where} {shown(text)} is not a number; write it without underscores")
    if not 0.0 <= weight < math.inf:
        raise BadRecord(f"{where} {shown(text)} must be finite and not negative; 0 is a row that is never drawn")
    if weight == 0 and re.match(r"[\s+-]*[0.]*[1-9]", text):
        raise BadRecord(f"{where} {shown(text)} is too small for a float64; scale the whole column")
    return weight


def shown(text: str) -> str:
    """A value in a message."""
    return repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}..."


def listed(names: list[str]) -> str:
    """Columns in a message."""
    text = ", ".join(map(shown, names[:MOST_SHOWN]))
    return text if len(names) <= MOST_SHOWN else f"{text} and {len(names) - MOST_SHOWN} more"
