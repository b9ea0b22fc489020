"""
Opens the database file, and notices when it is not the same file any more.

Rules of this module:

1. The file is made with mode 0600, and SQLite gives its -wal and -shm the same.
2. No descriptor of the database is ever opened and closed beside SQLite's own: closing one
   would drop the locks that this process holds on the file (POSIX).
3. SQLite never waits for a lock itself: its own wait is unfair between processes (one of
   them can starve). Whoever meets a lock tries again after a short random pause.
"""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from kagimori.errors import StoreError
from kagimori.storage import sqlite_faults, sqlite_schema

R = TypeVar("R")

OLDEST_SQLITE = (3, 37)
"""The first SQLite with STRICT tables."""

PAUSE = (0.0001, 0.002)
"""The bounds of the random pause between two tries for a lock, in seconds."""

_MODE = stat.S_IRUSR | stat.S_IWUSR
_READER_CACHE = 4096
_WRITER_CACHE = 16384
_KEEPER_CACHE = 256
_BY_HAND = "wal_autocheckpoint = 0"
_STATEMENTS = 256
_LOG_LEFT = 32 * 1024 * 1024


def pause() -> float:
    """
    Return how long to wait before trying for a lock again, in seconds.
    """
    return random.uniform(*PAUSE)  # noqa: S311 - jitter


class Database:
    """
    One database file: made, migrated, connected to.

    Args:
        path: the file; its folder must be there.
        patience: how long to try for a lock, in seconds.
        migrations: the schema that the program knows.
    """

    def __init__(
        self,
        path: Path,
        *,
        patience: float = 5.0,
        migrations: tuple[sqlite_schema.Migration, ...] | None = None,
    ) -> None:
        self.path = str(path.absolute())
        self._file = Path(self.path)
        self._log = Path(f"{self.path}-wal")
        self.patience = patience
        self._migrations = migrations or sqlite_schema.shipped()
        self._identity: tuple[int, ...] | None = None

    def open(self, *, create: bool) -> None:
        """
        Make the file where it is missing, and bring its schema up to ours.

        Raises:
            StoreError: it cannot be made, opened, read or written, is locked for too long,
                or belongs to another program.
            SchemaError: it is too new for this program.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreError(
                f"SQLite {sqlite3.sqlite_version} is too old.",
                hint="Use a Python that is linked with SQLite 3.37 or newer.",
            )
        try:
            self._make_file(create=create)
        except OSError as exc:
            raise sqlite_faults.os_fault(exc, self.path) from exc
        self.patiently(self._prepare)

    def reader(self) -> sqlite3.Connection:
        """
        Connect for reading; the connection refuses to write.
        """
        return self.patiently(lambda: self._connect(_READER_CACHE, "query_only = ON"))

    def writer(self) -> sqlite3.Connection:
        """
        Connect for writing; the log is put back into the file only when it is asked for.

        Raises:
            StoreError: also where the file is not the one that was connected to before.
        """
        connection = self.patiently(lambda: self._connect(_WRITER_CACHE, _BY_HAND))
        try:
            self._recognize()
        except StoreError:
            connection.close()
            raise
        return connection

    def keeper(self) -> sqlite3.Connection:
        """
        Connect for putting the log back into the file.
        """
        return self.patiently(lambda: self._connect(_KEEPER_CACHE, _BY_HAND))

    def verify(self) -> None:
        """
        Refuse to go on where the files were removed or replaced.

        What is written to a removed file is acknowledged and then lost.

        Raises:
            StoreError: they are not the same any more.
        """
        try:
            same = self._look() == self._identity
        except OSError:
            same = False
        if not same:
            raise sqlite_faults.replaced(self.path)

    def _recognize(self) -> None:
        # The log comes and goes with the connections, the file must stay the same.
        try:
            identity = self._look()
        except OSError as exc:
            raise sqlite_faults.replaced(self.path) from exc
        if self._identity is not None and identity[:2] != self._identity[:2]:
            raise sqlite_faults.replaced(self.path)
        self._identity = identity

    def patiently(self, action: Callable[[], R]) -> R:
        """
        Do something now, or as soon as nobody else is in the way. Blocks the thread.

        Raises:
            StoreError: it failed, or the lock did not come in time.
        """
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return action()
            except sqlite_faults.FAULTS as exc:
                if not sqlite_faults.is_busy(exc):
                    raise sqlite_faults.fault(exc, self.path) from exc
                if time.monotonic() >= deadline:
                    raise sqlite_faults.locked(self.path) from exc
            time.sleep(pause())

    def _make_file(self, *, create: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            kind = self._file.lstat().st_mode
        except FileNotFoundError:
            if not create:
                raise
            try:
                os.close(os.open(self.path, flags, _MODE))
            except FileExistsError:
                return
            _sync(self._file.parent)
            return
        if not stat.S_ISREG(kind):
            # Whoever can plant a link in the folder could make us write somewhere else.
            raise StoreError(
                f"The database {self.path} is not a regular file.",
                hint="Name the file itself, not a link to it.",
            )
        if not sqlite_faults.is_writable(self.path):
            raise sqlite_faults.read_only(self.path, "os.access")

    def _prepare(self) -> None:
        with closing(self._connect(_READER_CACHE, _BY_HAND)) as connection:
            cursor = connection.cursor()
            level = sqlite_schema.read_level(cursor, self.path)
            if sqlite_schema.is_current(level, self._migrations, self.path):
                return
            (mode,) = cursor.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreError(
                    f"The database {self.path} lies where SQLite cannot share memory.",
                    hint="Put it on a local disk.",
                    detail=f"journal mode {mode}",
                )
            cursor.execute("BEGIN IMMEDIATE")
            try:
                sqlite_schema.migrate(cursor, self._migrations, self.path)
                cursor.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    cursor.execute("ROLLBACK")

    def _connect(self, cache: int, *pragmas: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS,
        )
        try:
            for pragma in (
                # An acknowledged commit survives a power failure.
                "synchronous = FULL",
                f"cache_size = -{cache}",
                # What is mapped counts as our memory and is remapped after each commit.
                "mmap_size = 0",
                f"journal_size_limit = {_LOG_LEFT}",
                "temp_store = MEMORY",
                # A database somebody handed us runs no code of its own.
                "trusted_schema = OFF",
                "cell_size_check = ON",
                *pragmas,
            ):
                connection.execute(f"PRAGMA {pragma}").close()
            # Makes SQLite look at the file, and open its log.
            connection.execute("SELECT count(*) FROM sqlite_schema").close()
        except BaseException:
            connection.close()
            raise
        return connection

    def _look(self) -> tuple[int, ...]:
        file, log = self._file.stat(), self._log.stat()
        return file.st_dev, file.st_ino, log.st_dev, log.st_ino


def _sync(folder: Path) -> None:
    # The name of a new file is durable only once its folder is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
