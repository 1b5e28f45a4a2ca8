"""Runs that cannot go on, and what is said about them."""

from __future__ import annotations

FAILED, BAD_INPUT = 1, 2


class Failure(Exception):
    """A run that cannot go on: message and exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def reason(error: OSError) -> str:
    """What the system said, without number and path."""
    return error.strerror or str(error)
