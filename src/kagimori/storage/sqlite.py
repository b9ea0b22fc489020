"""
The embedded store: documents in one SQLite file (DESIGN decision 3).

Rules of this module:

1. Reads run on the event loop's own thread: one statement that finds its few pages is faster
   than the way to another thread and back. Those of one turn of the loop are one statement
   (see `kagimori.storage.sqlite_gathering`).
2. Writes go to the one thread that writes (see `kagimori.storage.sqlite_writer`).
3. Any number of threads, event loops and processes may use one file at once. Each thread
   reads through a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

from kagimori.clock import Clock
from kagimori.storage import sqlite_faults, sqlite_reads
from kagimori.storage.checks import check_changes, check_keys, check_page
from kagimori.storage.sqlite_connection import Database, pause
from kagimori.storage.sqlite_gathering import ReadGatherer
from kagimori.storage.sqlite_reads import Row, from_micros, micros
from kagimori.storage.sqlite_writer import GroupCommitter
from kagimori.storage.sqlite_writes import Transaction
from kagimori.storage.store import (
    ABSENT,
    Change,
    Document,
    DocumentKey,
    Loaded,
    Put,
    Reference,
)

Parameters = Sequence[object] | Mapping[str, object]

_COUNTER = "SELECT counter FROM state"


class SqliteStore:
    """
    Versioned documents in an SQLite file; see `kagimori.storage.store.Store`.

    Made by `open`.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._readers_gate = threading.Lock()
        self._closed = False
        self._writer = GroupCommitter(database, clock)
        self._gatherer = ReadGatherer(clock, self._fetch, self._read)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        clock: Clock,
        create: bool = True,
        patience: float = 5.0,
    ) -> Self:
        """
        Open a database file and bring its schema up to date. Blocks while it does.

        Args:
            path: the file; its folder must be there.
            clock: where the store's time comes from; it is asked by several threads.
            create: make the file where there is none, with mode 0600.
            patience: how long to try for a lock that another process holds, in seconds.

        Raises:
            StoreError: the file cannot be opened, made, read or written, is damaged, belongs
                to another program, or (then `transient`) is locked for too long.
            SchemaError: the file was written by a program too new for this one.
        """
        database = Database(Path(path), patience=patience)
        database.open(create=create)
        return cls(database, clock)

    @property
    def name(self) -> str:
        """
        Say which file it is.
        """
        return f"sqlite:///{self._database.path.lstrip('/')}"

    async def load_many(
        self, tenant: str, keys: Sequence[DocumentKey | Reference]
    ) -> Loaded:
        """
        Read several documents of a tenant; see `kagimori.storage.store.Store`.
        """
        check_keys(tenant, keys)
        return await self._gatherer.load(tenant, keys)

    async def commit(self, tenant: str, changes: Sequence[Change]) -> datetime:
        """
        Write several documents of a tenant at once; see `kagimori.storage.store.Store`.

        A task that is cancelled while it waits does not take its commit back.
        """
        check_changes(tenant, changes)

        def work(transaction: Transaction) -> int:
            transaction.apply(tenant, changes)
            return transaction.now

        # A lone change compares before it writes.
        single = len(changes) == 1
        refresh = None
        if single and isinstance(changes[0], Put) and changes[0].expect != ABSENT:
            refresh = (tenant, changes[0])
        return from_micros(await self._writer.run(work, single=single, refresh=refresh))

    async def find(
        self,
        tenant: str | None,
        kind: str,
        index: tuple[str, str] | None = None,
        *,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[Document, ...]:
        """
        List documents of a kind in the order of their ids; see `kagimori.storage.store.Store`.

        Where `tenant` is ``None``, documents of several tenants that share an id are never
        split between two pages: a page may then be longer than `limit`.
        """
        check_page(limit)
        now = micros(self._clock.now())
        return sqlite_reads.listed(
            await self._read(
                *sqlite_reads.page(tenant, now, kind, index, limit=limit, after=after)
            )
        )

    async def count(
        self, tenant: str, kind: str, index: tuple[str, str] | None = None
    ) -> int:
        """
        Count documents of a kind; see `kagimori.storage.store.Store`.

        Runs beside the event loop: there may be very many.
        """
        now = micros(self._clock.now())
        question = sqlite_reads.count(tenant, now, kind, index)
        rows = await asyncio.to_thread(
            self._database.patiently, lambda: self._fetch(*question)
        )
        return int(rows[0][0])

    async def change_counter(self) -> int:
        """
        Return a number that moves with every commit that announces a change.

        Raises:
            StoreError: the database file was removed or replaced, among other reasons.
        """
        self._refuse_closed()
        # Once a poll, so that readers too hear of a file that is gone.
        self._database.verify()
        # Reading the counter costs no more than asking SQLite whether anything changed.
        rows = await self._read(_COUNTER, ())
        return int(rows[0][0])

    async def purge(self, limit: int = 1000) -> int:
        """
        Delete documents that have expired, `limit` at most; return how many.

        A document may stay for another 1/32 of its life after it has expired and is absent.
        """
        return await self._writer.run(
            lambda transaction: transaction.purge(limit), single=True
        )

    async def close(self) -> None:
        """
        Finish what is queued and let go of the file; from then on every call is refused.
        """
        with self._readers_gate:
            self._closed = True
            readers = list(self._readers)
        for reader in readers:
            reader.close()
        # The last connection to close puts the log back into the file and removes it.
        await self._writer.close()

    async def _read(self, statement: str, parameters: Parameters) -> list[Row]:
        deadline: float | None = None
        while True:
            try:
                return self._fetch(statement, parameters)
            except sqlite_faults.FAULTS as exc:
                if not sqlite_faults.is_busy(exc):
                    raise sqlite_faults.fault(exc, self._database.path) from exc
                # Readers wait for nobody but a process that recovers the log after a crash.
                deadline = deadline or time.monotonic() + self._database.patience
                if time.monotonic() >= deadline:
                    raise sqlite_faults.locked(self._database.path) from exc
            await asyncio.sleep(pause())

    def _fetch(self, statement: str, parameters: Parameters) -> list[Row]:
        reader = getattr(self._local, "reader", None) or self._connect_reader()
        try:
            return reader.fetch(statement, parameters)
        except sqlite_faults.FAULTS as exc:
            # A connection that was closed under a read fails in its own words.
            self._refuse_closed()
            if sqlite_faults.is_lasting(exc):
                self._local.reader = None
                reader.close()
            raise

    def _connect_reader(self) -> _Reader:
        self._refuse_closed()
        reader = _Reader(self._database.reader())
        with self._readers_gate:
            # Closed in the meantime? It goes out of scope, and is closed with that.
            self._refuse_closed()
            self._readers.add(reader)
        self._local.reader = reader
        return reader

    def _refuse_closed(self) -> None:
        if self._closed:
            raise sqlite_faults.closed(self._database.path)


class _Reader:
    """
    One thread's connection for reading; it goes with the thread, or when the store closes it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._gate = threading.Lock()

    def fetch(self, statement: str, parameters: Parameters) -> list[Row]:
        """
        Return all rows at once: a statement left open would keep the log from starting over.
        """
        with self._gate:
            return self._cursor.execute(statement, parameters).fetchall()

    def close(self) -> None:
        """
        Close the connection, once no statement runs on it.
        """
        with self._gate, contextlib.suppress(*sqlite_faults.FAULTS):
            self._connection.close()

    def __del__(self) -> None:
        self.close()
