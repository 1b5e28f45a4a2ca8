"""Values as messages show them."""

from __future__ import annotations

from typing import Any

MOST_CHARACTERS = 100


def shown(value: Any) -> str:
    """The value as a message shows it: not longer than a line."""
    try:
        text = repr(value)
    except Exception:  # an integer of more digits than Python prints, or an object that cannot be shown
        return f"<{type(value).__name__}>"
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."
