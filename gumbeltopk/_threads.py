"""A thread pool over independent blocks of work: NumPy releases the GIL in the loops that matter.

Work is cut into the same blocks whatever the number of threads, and what blocks return is put together in their order:
results do not depend on the number of threads.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gumbeltopk import _array_api as api

ENVIRONMENT_VARIABLE = "GUMBELTOPK_NUM_THREADS"
SMALLEST_WORK = 1 << 18  # touched items, below which handing blocks to threads costs more than it gains

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Pool:
    """The number of threads, the executor that has them, and which threads are its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.number: int | None = None  # None: not asked for yet
        self.executor: ThreadPoolExecutor | None = None
        self.process = os.getpid()
        self.mine = threading.local()


_pool = _Pool()


def set_num_threads(number: int | None) -> None:
    """Set how many threads large NumPy work may use.

    Parameters
    ----------
    number : int or None
        At least 1. None goes back to the default: the environment variable ``GUMBELTOPK_NUM_THREADS`` if it is set,
        else all cores that this process may use. Small work runs on one thread in any case.

    Notes
    -----
    The results are the same, to the last bit, for every number of threads.

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.set_num_threads(1)
    >>> gt.get_num_threads()
    1
    >>> gt.set_num_threads(None)
    """
    if number is not None:
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise TypeError(f"number = {number!r} must be an integer or None")
        number = operator.index(number)
        if number < 1:
            raise ValueError(f"number = {number} must be at least 1")
    with _pool.lock:
        _pool.number = number
        if _pool.executor is not None:
            _pool.executor.shutdown(wait=False)
            _pool.executor = None


def get_num_threads() -> int:
    """How many threads large NumPy work may use; see `set_num_threads`.

    Returns
    -------
    int

    Examples
    --------
    >>> import gumbeltopk as gt
    >>> gt.get_num_threads() >= 1
    True
    """
    return _pool.number if _pool.number is not None else _default_number()


def _default_number() -> int:
    text = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if not text:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{ENVIRONMENT_VARIABLE} = {text!r} in the environment must be a whole number of at least 1")
    return int(text)


def map_blocks(function: Callable[[Item], Result], blocks: Sequence[Item], work: int) -> list[Result]:
    """``[function(block) for block in blocks]``, on several threads if `work` (items touched) is large."""
    threads = 1
    if len(blocks) > 1 and work >= SMALLEST_WORK and not getattr(_pool.mine, "is_worker", False):
        threads = get_num_threads()
    if threads == 1:
        return [function(block) for block in blocks]

    def on_worker(block: Item) -> Result:
        _pool.mine.is_worker = True
        with api.quiet():  # error states belong to a thread
            return function(block)

    return list(_executor(threads).map(on_worker, blocks))


def _executor(threads: int) -> ThreadPoolExecutor:
    with _pool.lock:
        if _pool.process != os.getpid():  # threads do not survive a fork
            _pool.executor, _pool.process = None, os.getpid()
        if _pool.executor is None:
            _pool.executor = ThreadPoolExecutor(threads, thread_name_prefix="gumbeltopk")
        return _pool.executor
