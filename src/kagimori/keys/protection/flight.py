"""
One load at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Flight:
    """
    Held by the one thread of a process that loads; others may wait for it, and not for long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = 0.0

    @property
    def is_under_way(self) -> bool:
        """
        Whether a thread loads.
        """
        return self._lock.locked()

    def take(self, within: float = 0.0) -> bool:
        """
        Begin a flight, once the one that is under way ends; say whether that came to be.

        Args:
            within: seconds to wait for that.
        """
        taken = (
            self._lock.acquire(timeout=within)
            if within
            else self._lock.acquire(blocking=False)
        )
        if taken:
            self._began = time.monotonic()
        return taken

    def land(self) -> None:
        """
        End the flight.
        """
        self._lock.release()

    def aside(self, work: Callable[[], None]) -> None:
        """
        Let a thread of its own do `work`, which lands the flight; nothing if it is taken.
        """
        if not self.take():
            return
        try:
            threading.Thread(target=work, name="kagimori-ring", daemon=True).start()
        except RuntimeError:
            # No thread can be had (the interpreter ends, or a limit): serve what there is.
            self.land()

    def landed(self, most: float) -> bool:
        """
        Wait until no flight is under way; say whether that came to be.

        Args:
            most: seconds, counted from the flight's beginning: a load that hangs costs those
                who come later no time at all.
        """
        if not self._lock.locked():
            return True
        left = most - (time.monotonic() - self._began)
        if left <= 0 or not self._lock.acquire(timeout=left):
            return False
        self._lock.release()
        return True

    def renew(self) -> None:
        """
        Forget a flight of the parent process: its thread does not exist after a fork.
        """
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
