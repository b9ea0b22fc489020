"""
What a forked worker must not go on with: locks that a thread of its parent may have held.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """
    What is told in the child of each fork.
    """

    def after_fork(self) -> None:
        """
        Renew what threads of the parent may have held.
        """
        ...


_told: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell_of_forks(one: Forked) -> None:
    """
    Tell `one` in the child of each fork, for as long as it lives.
    """
    _told.add(one)


def _after_fork() -> None:
    for one in list(_told):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
