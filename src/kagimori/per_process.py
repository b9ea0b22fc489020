"""
What a process may not inherit from its parent: connections, sessions, their locks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")

# Closing what a parent process still uses would disturb the parent: it is kept, unused.
_INHERITED: list[object] = []


class PerProcess(Generic[_T]):
    """
    A value that each process makes for itself, when it first needs it.

    There is no lock, which a fork could find taken for ever: threads that come at the same time
    may each make a value, and all go on with the last one.

    Args:
        make: makes the value; what it raises is raised by `get`.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._held: tuple[int, _T] | None = None

    def get(self) -> _T:
        """
        Return this process's value.
        """
        held = self._held
        if held is not None and held[0] == os.getpid():
            return held[1]
        if held is not None:
            _INHERITED.append(held)
        value = self._make()
        self._held = os.getpid(), value
        return value
