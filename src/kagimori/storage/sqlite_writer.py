"""
The one thread that writes: what is queued together is committed together.

Rules of this module:

1. A disk is asked to be durable once for all commits that wait, not once for each.
2. A commit that conflicts fails alone; a fault of the database fails all that shared it.
3. Nobody is told of a commit before the database is durable, and the file still in its place.
4. Nobody is left waiting: every call that was taken is answered, whatever happens here.
5. A loop hands over once per turn what its tasks asked for in it: a thread that is woken by the
   first of many would share the interpreter with those that the others still have to run in.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from kagimori.clock import Clock
from kagimori.errors import KagimoriError, StoreError
from kagimori.storage import sqlite_faults
from kagimori.storage.sqlite_connection import Database, pause
from kagimori.storage.sqlite_log import LogKeeper
from kagimori.storage.sqlite_reads import micros
from kagimori.storage.sqlite_writes import Transaction
from kagimori.storage.store import Put

R = TypeVar("R")
T = TypeVar("T")

_Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]

MOST_IN_ONE = 256
"""
About how many calls share one commit at most, so that other processes get their turn; the last
hand-over that fits in part is taken whole.
"""

LEAST_TOGETHER = 2
MOST_TOGETHER = 64
"""How many documents one statement refreshes."""

_IDLE = 0.05

Refresh = tuple[str, Put]
"""A tenant, and a change of one of its documents that expects the document to be there."""


class _Call(Generic[R]):
    """
    One call, from the task that waits for it to the thread that does it.
    """

    __slots__ = (
        "asked",
        "error",
        "future",
        "loop",
        "refresh",
        "result",
        "single",
        "work",
    )

    def __init__(
        self,
        work: Callable[[Transaction], R],
        *,
        single: bool,
        refresh: Refresh | None,
    ) -> None:
        self.work = work
        self.single = single
        self.refresh = refresh
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[R] = self.loop.create_future()
        self.asked = time.monotonic()
        self.result: R | None = None
        self.error: KagimoriError | None = None


class GroupCommitter:
    """
    Runs work under the write lock, in a thread of its own, many calls to a commit.

    Args:
        database: the database, open.
        clock: where the store's time comes from; asked by the thread.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._connection: sqlite3.Connection | None = database.writer()
        self._queue: queue.SimpleQueue[list[_Call[Any]] | None] = queue.SimpleQueue()
        # Each list is touched in the thread of its own loop only.
        self._asked: dict[asyncio.AbstractEventLoop, list[_Call[Any]]] = {}
        self._gate = threading.Lock()
        self._closed = False
        self._ended = False
        self._waiting_for_end: list[_Waiter] = []
        self._thread = threading.Thread(
            target=self._run, name="kagimori-sqlite-writer", daemon=True
        )
        self._thread.start()

    async def run(
        self,
        work: Callable[[Transaction], R],
        *,
        single: bool = False,
        refresh: Refresh | None = None,
    ) -> R:
        """
        Do `work` in a transaction, and return what it returned once that is durable.

        Args:
            work: runs in the thread; what it raises as `KagimoriError` undoes it alone.
            single: the work writes nothing before it knows that it will not raise.
            refresh: all that the work does, where it is one document that is there already;
                it then may be written together with others, and gets their time as its result.

        Raises:
            StoreError: the database failed or is closed.
        """
        if self._closed:
            raise sqlite_faults.closed(self._database.path)
        call = _Call(work, single=single, refresh=refresh)
        asked = self._asked.get(call.loop)
        if asked is None:
            self._asked[call.loop] = [call]
            call.loop.call_soon(self._hand_over, call.loop)
        else:
            asked.append(call)
        return await call.future

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        calls = self._asked.pop(loop, None)
        if not calls:
            return
        # Under the gate, so that nothing is put behind the end of the queue.
        with self._gate:
            if not self._closed:
                for start in range(0, len(calls), MOST_IN_ONE):
                    self._queue.put(calls[start : start + MOST_IN_ONE])
                return
        _fail(calls, sqlite_faults.closed(self._database.path))
        _deliver(calls)

    async def close(self) -> None:
        """
        Finish what is queued, and let go of the database.
        """
        loop = asyncio.get_running_loop()
        self._hand_over(loop)
        ended = loop.create_future()
        with self._gate:
            if self._ended:
                return
            self._waiting_for_end.append((loop, ended))
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        await ended

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        log = LogKeeper(self._database)
        while True:
            try:
                # A moment's rest is used for the log, if there is something in it.
                calls = self._queue.get(timeout=_IDLE if log.is_worth_it else None)
            except queue.Empty:
                log.idle(self._connection)
                continue
            if calls is None:
                break
            pages = self._serve(calls)
            if self._connection is not None:
                log.written(self._connection, pages)
        log.close()
        self._drop_connection()
        with self._gate:
            self._ended = True
        for loop, ended in self._waiting_for_end:
            _tell(loop, _resolve, ended)

    def _serve(self, calls: list[_Call[Any]]) -> int:
        pages = 0
        try:
            deadline = calls[0].asked + self._database.patience
            cursor = self._begin(deadline)
            self._gather(calls)
            transaction = Transaction(cursor, micros(self._clock.now()))
            rest = self._refresh_together(transaction, calls)
            if rest is None:
                cursor.execute("ROLLBACK")
                cursor = self._begin(deadline)
                transaction = Transaction(cursor, micros(self._clock.now()))
                rest = calls
            for call in rest:
                self._work(cursor, transaction, call)
            transaction.finish()
            cursor.execute("COMMIT")
            self._database.verify()
            pages = transaction.pages
        except sqlite_faults.FAULTS as exc:
            self._undo(lasting=sqlite_faults.is_lasting(exc))
            _fail(calls, sqlite_faults.fault(exc, self._database.path), exc)
        except StoreError as exc:
            self._undo(lasting=False)
            _fail(calls, exc)
        except BaseException as exc:  # noqa: BLE001 - rule 4
            # A mistake of ours: whoever waits hears of it, and the thread lives on.
            self._undo(lasting=True)
            _fail(
                calls, StoreError("The store failed.", detail=type(exc).__name__), exc
            )
        _answer(calls)
        return pages

    def _begin(self, deadline: float) -> sqlite3.Cursor:
        if self._connection is None:
            self._connection = self._database.writer()
        cursor = self._connection.cursor()
        while True:
            try:
                return cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if not sqlite_faults.is_busy(exc):
                    raise
                if time.monotonic() >= deadline:
                    raise sqlite_faults.locked(self._database.path) from exc
            time.sleep(pause())

    def _gather(self, calls: list[_Call[Any]]) -> None:
        while len(calls) < MOST_IN_ONE:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                return
            if more is None:
                # The end of the queue: leave it there for the loop.
                self._queue.put(None)
                return
            calls += more

    @staticmethod
    def _refresh_together(
        transaction: Transaction, calls: list[_Call[Any]]
    ) -> list[_Call[Any]] | None:
        """
        Write what can be written in few statements; return what is left to do one by one.

        Returns ``None`` where something conflicts: what was written is to be rolled back.
        """
        together = [call for call in calls if call.refresh is not None]
        if len(together) < LEAST_TOGETHER:
            return calls
        for start in range(0, len(together), MOST_TOGETHER):
            part = together[start : start + MOST_TOGETHER]
            if not transaction.refresh([call.refresh for call in part if call.refresh]):
                return None
            for call in part:
                call.result = transaction.now
        return [call for call in calls if call.refresh is None]

    @staticmethod
    def _work(
        cursor: sqlite3.Cursor, transaction: Transaction, call: _Call[Any]
    ) -> None:
        if not call.single:
            cursor.execute("SAVEPOINT one")
        try:
            call.result = call.work(transaction)
        except KagimoriError as exc:
            call.error = exc
            if not call.single:
                cursor.execute("ROLLBACK TO one")
        if not call.single:
            cursor.execute("RELEASE one")

    def _undo(self, *, lasting: bool) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            # SQLite has rolled back by itself after some faults.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite_faults.FAULTS:
            lasting = True
        if lasting:
            self._drop_connection()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(*sqlite_faults.FAULTS):
                self._connection.close()
            self._connection = None


def _fail(
    calls: list[_Call[Any]], error: StoreError, cause: BaseException | None = None
) -> None:
    for call in calls:
        # One that failed alone keeps its own reason: it would not have been written anyway.
        if call.error is None:
            # To each its own: an exception that several tasks raise mixes their tracebacks.
            call.error = copy.copy(error)
            call.error.__cause__ = cause


def _answer(calls: list[_Call[Any]]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Call[Any]]] = {}
    for call in calls:
        by_loop.setdefault(call.loop, []).append(call)
    for loop, answered in by_loop.items():
        _tell(loop, _deliver, answered)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[T], None], about: T) -> None:
    # A loop that is closed has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(what, about)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _deliver(calls: list[_Call[Any]]) -> None:
    for call in calls:
        if call.future.done():
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.result)
