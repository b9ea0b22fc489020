"""
A bounded pool for hashing chosen secrets (Argon2id).

Rules of this module:

1. Argon2id takes tens of milliseconds and 19 MiB: it runs off the event loop, a few at once.
2. The queue is bounded. Beyond it the caller is told to come back, before any work (A15).
3. Whoever is refused costs one hash, for whatever reason, so that time tells nothing (A13, T9).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from kagimori.crypto import passwords
from kagimori.errors import BusyError

T = TypeVar("T")

THREADS = 2
"""How many hashes run at once unless told otherwise."""

QUEUE = 32
"""How many may wait for a thread unless told otherwise."""


class HashPool:
    """
    Hashes and verifies chosen secrets, a few at once.

    Args:
        threads: how many run at once; each takes 19 MiB while it runs.
        queue: how many more may wait.
    """

    def __init__(self, *, threads: int = THREADS, queue: int = QUEUE) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._places = threading.BoundedSemaphore(threads + queue)

    async def verify(self, phc: str, text: str) -> bool:
        """
        Return whether `text` is the secret that the PHC string was made of.

        Raises:
            BusyError: too many are waiting already.
        """
        return await self._run(lambda: passwords.verify_secret(phc, text))

    async def waste(self) -> None:
        """
        Do the work of one verification for somebody who is not known (A13).

        Raises:
            BusyError: too many are waiting already.
        """
        await self._run(lambda: passwords.verify_secret(passwords.DUMMY_HASH, "dummy"))

    async def hash(self, text: str) -> str:
        """
        Return the Argon2id PHC string of a secret.

        Raises:
            BusyError: too many are waiting already.
        """
        return await self._run(lambda: passwords.hash_secret(text))

    def close(self) -> None:
        """
        Let go of the threads; what still waits is dropped.
        """
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise BusyError(
                "Too many sign-ins are being checked; try again in a moment."
            )
        try:
            future = self._executor.submit(work)
        except RuntimeError:
            self._places.release()
            raise BusyError("The server is stopping.") from None
        # The place is given back when the thread is done, not when the caller goes away:
        # callers that hang up must not make room for more hashes than the bound.
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _: Future[T]) -> None:
        self._places.release()
