"""The progress bar."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["progress_bar"]


class NoBar:
    """Stands in for a progress bar where there is no terminal, or no tqdm."""

    update: Callable[[int], object] = staticmethod(lambda done: None)

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *exception: object) -> None:
        return None


def progress_bar(total: int | None, unit: str) -> Any:
    """A bar on a terminal's standard error."""
    if not sys.stderr.isatty():
        return NoBar()
    try:
        from tqdm import tqdm
    except ImportError:
        return NoBar()
    # The size is given because tqdm draws nothing on a terminal that calls itself 0 x 0, as those of containers do.
    columns, rows = shutil.get_terminal_size()
    return tqdm(total=total, unit=unit, unit_scale=True, leave=False, ncols=columns, nrows=rows)
