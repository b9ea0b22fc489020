"""
Puts SQLite's write-ahead log back into the database file, out of the way of commits.

Rules of this module:

1. Commits never wait for it: what takes long runs in a thread of its own, beside them.
2. The log starts over only when all of it has been put back and nobody reads or writes at
   that instant. So the thread leaves a short rest, and the writer puts that back between
   two commits.
3. The log stays bounded: where the disk cannot keep up, commits wait after all.
"""

from __future__ import annotations

import contextlib
import enum
import queue
import sqlite3
import threading
import time

from kagimori.storage import sqlite_faults
from kagimori.storage.sqlite_connection import Database, pause

WHEN_IDLE = 256
"""How many pages in the log are worth putting back while nobody writes."""

WHEN_BUSY = 4096
"""How many pages (of 4 KiB) are put back also while others write. More at once are cheaper:
a page that was changed many times is put back once."""

AT_MOST = 4 * WHEN_BUSY
"""At how many pages commits wait."""

_REST = 64
_ROUNDS = 4
_TRIES = 3
# Stops nobody, and leaves what was written since it began.
_PUT_BACK = "PRAGMA wal_checkpoint(PASSIVE)"
# Holds the write lock; where somebody else has it, or reads, no more than the one above.
_START_OVER = "PRAGMA wal_checkpoint(RESTART)"


class _Order(enum.Enum):
    """
    What the thread is told.
    """

    PUT_BACK = "put back"
    END = "end"


class LogKeeper:
    """
    Decides when the log is put back, and does it.

    All methods but the constructor are for the thread that writes.

    Args:
        database: the database, open.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pages = 0
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._at_rest = threading.Event()
        self._at_rest.set()
        self._rest_is_due = False
        self._thread = threading.Thread(
            target=self._run, name="kagimori-sqlite-log", daemon=True
        )
        self._thread.start()

    @property
    def is_worth_it(self) -> bool:
        """
        Whether a moment without writes should be used.
        """
        return self._pages >= WHEN_IDLE

    def written(self, connection: sqlite3.Connection, pages: int) -> None:
        """
        Take note of a commit, and do what is due after it.

        Args:
            connection: the one that committed; it is between two transactions.
            pages: about how many pages it changed.
        """
        self._pages += pages
        if self._pages >= AT_MOST:
            self._at_rest.wait()
        if self._at_rest.is_set():
            if self._rest_is_due:
                # Where it cannot start over, it is tried again soon.
                self._put_back_rest(connection, otherwise=WHEN_BUSY // 2)
            elif self._pages >= WHEN_BUSY:
                self._order()

    def idle(self, connection: sqlite3.Connection | None) -> None:
        """
        Use a moment without writes.
        """
        if self._at_rest.is_set():
            if self._rest_is_due and connection is not None:
                # Where it cannot start over, it goes on growing; there is no hurry.
                self._put_back_rest(connection, otherwise=0)
            elif self.is_worth_it:
                self._order()

    def close(self) -> None:
        """
        End the thread; what is left in the log is put back by the last connection to close.
        """
        self._orders.put(_Order.END)
        self._thread.join()

    def _order(self) -> None:
        self._at_rest.clear()
        self._orders.put(_Order.PUT_BACK)

    def _put_back_rest(self, connection: sqlite3.Connection, *, otherwise: int) -> None:
        # A failure here or below shows itself in the next commit; the log holds everything.
        self._rest_is_due = False
        self._pages = otherwise
        with contextlib.suppress(*sqlite_faults.FAULTS):
            for _ in range(_TRIES):
                (busy, *_) = connection.execute(_START_OVER).fetchone()
                if not busy:
                    self._pages = 0
                    break
                time.sleep(pause())

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while self._orders.get() is _Order.PUT_BACK:
            try:
                connection = connection or self._database.keeper()
                for _ in range(_ROUNDS):
                    before = self._pages
                    connection.execute(_PUT_BACK).fetchone()
                    if self._pages - before < _REST:
                        break
            except Exception:  # noqa: BLE001 - without this thread commits would stop
                _close(connection)
                connection = None
            self._rest_is_due = True
            self._at_rest.set()
        _close(connection)


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(*sqlite_faults.FAULTS):
            connection.close()
