"""
Several calls of a vault at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_AT_ONCE = 8
"""How many calls run at a time: a vault that is asked for more throttles."""


def in_parallel(calls: Sequence[Callable[[], T]]) -> list[T]:
    """
    Make all calls, some at a time, and return what they gave in the order of the calls.

    After the first failure no further call is begun.

    Raises:
        Exception: what the first of the calls that failed, by their order, raised.
    """
    run = _Run(calls)
    threads = []
    for _ in range(min(len(calls), MOST_AT_ONCE) - 1):
        thread = threading.Thread(target=run.work, name="kagimori-wrap", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # No thread can be had: this one makes the calls alone.
            break
        threads.append(thread)
    run.work()
    for thread in threads:
        thread.join()
    return run.results()


class _Run(Generic[T]):
    """
    The calls of one `in_parallel`, handed out to its threads.
    """

    def __init__(self, calls: Sequence[Callable[[], T]]) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._next = 0
        self._given: dict[int, T] = {}
        self._failures: dict[int, Exception] = {}

    def work(self) -> None:
        while (index := self._take()) is not None:
            try:
                self._given[index] = self._calls[index]()
            except Exception as error:  # noqa: BLE001 - raised again by `results`
                self._failures[index] = error

    def results(self) -> list[T]:
        if self._failures:
            raise self._failures[min(self._failures)]
        return [self._given[index] for index in range(len(self._calls))]

    def _take(self) -> int | None:
        with self._lock:
            if self._failures or self._next == len(self._calls):
                return None
            self._next += 1
            return self._next - 1
