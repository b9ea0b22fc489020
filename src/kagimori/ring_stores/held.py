"""
The one connection that a store holds to its server in each process.

Rules of this module:

1. One connection for each store and process, used by one thread at a time: a ring is read
   seldom, and a fleet of workers must not eat the server's connections.
2. After a fork the child connects anew. It neither uses nor closes what it inherited: closing
   would say goodbye on the parent's connection.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from kagimori.errors import StoreError

C = TypeVar("C")

_PATIENCE = 20.0
"""Seconds to wait for another thread's use; longer than a use can last."""


class Held(Generic[C]):
    """
    A connection that is made when it is needed, and closed with whoever holds this.

    Args:
        close: lets go of a connection; a function that holds no reference to the holder.
        where: the store, for people.
        keep: hold on to the connection between uses.
    """

    def __init__(
        self, close: Callable[[C], None], where: str, *, keep: bool = True
    ) -> None:
        self._close = close
        self._where = where
        self.keep = keep
        self._lock = threading.Lock()
        self._connection: C | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        _all.add(self)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """
        Wait for this thread's turn; inside, `get` and `drop` may be called.

        Raises:
            StoreError: other threads kept the connection for too long.
        """
        lock = self._lock
        if not lock.acquire(timeout=_PATIENCE):
            raise StoreError(
                f"{self._where} is busy: other threads wait for its answer.",
                transient=True,
            )
        try:
            yield
        finally:
            if not self.keep:
                self.drop()
            lock.release()

    def get(self, connect: Callable[[], C]) -> tuple[C, bool]:
        """
        Return the connection, and whether it was made just now.
        """
        if self._connection is not None:
            return self._connection, False
        connection = self._connection = connect()
        # Held from here too, so that no collection of garbage takes it before it is closed.
        self._finalizer = weakref.finalize(self, _closed, self._close, connection)
        self._finalizer.atexit = False
        return connection, True

    def drop(self) -> None:
        """
        Close the connection; the next use makes another.
        """
        self._connection = None
        if self._finalizer is not None:
            self._finalizer()

    def close(self) -> None:
        """
        Close the connection once nobody uses it.
        """
        with self.turn():
            self.drop()

    def forget(self) -> None:
        """
        Leave the connection to the parent process.
        """
        if self._finalizer is not None:
            self._finalizer.detach()
        _inherited.append(self._connection)
        self._connection = self._finalizer = None
        self._lock = threading.Lock()

    def let_go(self) -> None:
        """
        Close the connection unless another thread uses it.
        """
        if self._lock.acquire(blocking=False):
            try:
                self.drop()
            finally:
                self._lock.release()


def _closed(close: Callable[[Any], object], connection: object) -> None:
    with contextlib.suppress(Exception):
        close(connection)


_all: weakref.WeakSet[Held[Any]] = weakref.WeakSet()
_inherited: list[object] = []
"""Kept for ever, so that no destructor of theirs runs in the child."""


def _after_fork() -> None:
    for held in list(_all):
        held.forget()


def _at_exit() -> None:
    for held in list(_all):
        held.let_go()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
