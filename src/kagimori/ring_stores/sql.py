"""
SQL stores by their addresses, with the drivers that Kagimori names in its extras.

    sqlite:///path/ring.db                     standard library
    postgresql://user@host:port/database       psycopg 3      pip install 'kagimori[postgres]'
    mysql://user@host:port/database            pymysql        pip install 'kagimori[mysql]'
    mariadb://…                                likewise
                                               host may be a socket's path: %2Frun%2Fpostgresql

    options   table=DataProtectionKeys         or schema.table; one table for each ring
              password-env=NAME password-file=/path
              ca=/path/ca.pem                  TLS, with the server's certificate and name
                                               checked against this authority
              tls=system|prefer|off            against the system's authorities; encrypted where
                                               the server can (as it stands without ca=); none

A PostgreSQL address without a password leaves it to ``PGPASSFILE`` and ``PGPASSWORD``.
"""

from __future__ import annotations

import os
import selectors
import sqlite3
import ssl
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from kagimori.addresses import Address, absolute_path, secret_names
from kagimori.errors import ConfigError, ConflictError
from kagimori.keys.findings import Finding
from kagimori.keys.store import Element, KeyStore, Snapshot
from kagimori.ring_stores import safe_files
from kagimori.ring_stores.durability import lost_at_restart
from kagimori.ring_stores.servers import (
    authority_file,
    missing_package,
    password_of,
)
from kagimori.ring_stores.sql_connection import Connection
from kagimori.ring_stores.sql_store import DEFAULT_TABLE, SqlStore

_CONNECT_SECONDS = 2
_READ_SECONDS = 5
_TLS = ("system", "prefer", "off")

__all__ = ["SqlStore", "SqliteStore", "open_store"]

T = TypeVar("T")


def open_store(address: Address, *, read_only: bool) -> KeyStore:
    """
    Return the store of a ``sqlite:``, ``postgresql:``, ``mysql:`` or ``mariadb:`` address.

    Raises:
        ConfigError: the address is malformed, or the driver's package is not installed.
    """
    if address.scheme == "sqlite":
        return _sqlite(address, read_only=read_only)
    address.allow("table", "ca", "tls", *secret_names("password"))
    database = address.path.removeprefix("/")
    if not address.host or not database or "/" in database:
        raise ConfigError(
            f"A {address.scheme}: address names a host and a database.",
            hint=f"Write {address.scheme}://user@host:port/database.",
        )
    connect = _postgresql if address.scheme == "postgresql" else _mysql
    return SqlStore(
        connect(address, database),
        table=_table(address),
        dialect="postgresql" if address.scheme == "postgresql" else "mysql",
        name=address.text,
        role=address.user or "",
        read_only=read_only,
    )


def _table(address: Address) -> str:
    return address.option("table", DEFAULT_TABLE) or ""


def _tls(address: Address) -> tuple[str, Path | None]:
    ca = address.option("ca")
    mode = address.option("tls", "ca" if ca else "prefer") or ""
    if ca and mode == "ca":
        return "ca", authority_file(ca)
    if ca or mode not in _TLS:
        raise ConfigError(
            f"The option tls of the {address.scheme}: address is one of {', '.join(_TLS)}, "
            "and is left out where ca names an authority."
        )
    return mode, None


# --- SQLite --------------------------------------------------------------------------------


class SqliteStore(SqlStore):
    """
    A `KeyStore` over a table of a SQLite file, which the first commit makes.

    Args:
        path: the file. Not on a network share: SQLite's locks do not hold there.
    """

    def __init__(
        self, path: Path, *, table: str = DEFAULT_TABLE, read_only: bool = False
    ) -> None:
        self._path = path
        super().__init__(
            self._open,
            table=table,
            dialect="sqlite",
            name=f"sqlite://{path}",
            read_only=read_only,
        )

    def others_may_write(self) -> bool:
        """
        Whether group or world may write to the file or its folder.
        """
        return safe_files.others_may_write([self._path.parent, self._path])

    def loose_modes(self) -> tuple[str, ...]:
        """
        Say what of the ring group or world may read or write.
        """
        return safe_files.loose_modes([self._path])

    def probe(self) -> str | None:
        """
        Return the table's highest id, number of rows and size; ``None`` without a table.
        """
        return super().probe() if self._is_there() else None

    def load(self) -> Snapshot:
        """
        Read the whole ring by one statement.
        """
        return super().load() if self._is_there() else Snapshot((), None)

    def commit(  # noqa: D102
        self, add: Sequence[Element], remove: Sequence[str], expect: str | None
    ) -> Snapshot:
        if not self._read_only and not self._is_there():
            if expect is not None:
                raise ConflictError("The ring changed since it was read: it is gone.")
            with safe_files.declared(self.name):
                safe_files.make_folder(self._path.parent)
                flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
                os.close(os.open(self._path, flags, safe_files.FILE_MODE))
        return super().commit(add, remove, expect)

    def examine(self) -> tuple[Finding, ...]:
        """
        Try each right separately, and leave nothing behind.
        """
        lost = self.lost_at_restart()
        lasting: tuple[Finding, ...] = ()
        if lost:
            remedy = "Mount a volume there, or name a ring in a database server."
            lasting = (Finding("lasting", ok=False, text=f"{lost}.", remedy=remedy),)
        if self._is_there():
            return (*super().examine(), *lasting)
        folder = next(one for one in self._path.parents if one.exists())
        may = self._read_only or os.access(folder, os.W_OK | os.X_OK)
        return (
            Finding("read", ok=True, text="There is no file yet."),
            Finding(
                "create the table",
                ok=may,
                text=f"The folder {folder} can {'' if may else 'not '}be written.",
                remedy="" if may else f"Give this account the right to write {folder}.",
            ),
            *lasting,
        )

    def lost_at_restart(self) -> str:
        """
        Say why the ring does not outlive this container or machine; empty where it does.
        """
        return lost_at_restart(self._path)

    def _is_there(self) -> bool:
        with safe_files.declared(self.name):
            try:
                self._path.stat()
            except FileNotFoundError:
                return False
        return True

    def _open(self) -> Connection:
        # Read-only too: who may write puts right what a writer that died left half done.
        mode = "rw" if os.access(self._path, os.W_OK) else "ro"
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode={mode}",
            uri=True,
            timeout=_READ_SECONDS,
            check_same_thread=False,
        )
        if self._read_only:
            connection.execute("PRAGMA query_only = ON")
        return cast("Connection", connection)


def _sqlite(address: Address, *, read_only: bool) -> SqliteStore:
    address.allow("table")
    if address.authority not in {"", "localhost"} or not address.rest.startswith("//"):
        raise ConfigError(
            "A sqlite: address has three slashes and an absolute path.",
            hint="Write sqlite:///path/ring.db.",
        )
    path = absolute_path(address.path, "A sqlite: address's file")
    return SqliteStore(path, table=_table(address), read_only=read_only)


# --- PostgreSQL ----------------------------------------------------------------------------


def _postgresql(address: Address, database: str) -> Callable[[], Connection]:
    try:
        import psycopg
    except ImportError:
        raise missing_package("psycopg", "postgres") from None

    class Bounded(psycopg.Connection[Any]):
        """
        A connection that gives up on a server which has fallen silent.
        """

        def __del__(self, *_: object) -> None:
            # No warning that nobody closed it: who holds it does, and psycopg frees it
            # without a word to the server where it was inherited by a fork.
            pass

        def wait(self, gen: Generator[Any, Any, T], *_: object, **__: object) -> T:
            """
            Run a generator of psycopg's until it is done.

            Raises:
                psycopg.OperationalError: the server said nothing for too long.
            """
            until = time.monotonic() + _READ_SECONDS
            try:
                wanted = next(gen)
                with selectors.DefaultSelector() as selector:
                    while True:
                        selector.register(self.fileno(), int(wanted))
                        ready = selector.select(max(0.0, until - time.monotonic()))
                        selector.unregister(self.fileno())
                        if not ready:
                            gen.close()
                            raise psycopg.OperationalError("no answer in time")
                        wanted = gen.send(ready[0][1])
            except StopIteration as done:
                return cast("T", done.value)

    mode, ca = _tls(address)
    options: dict[str, Any] = {
        "system": {"sslmode": "verify-full", "sslrootcert": "system"},
        "prefer": {"sslmode": "prefer"},
        "off": {"sslmode": "disable"},
        "ca": {"sslmode": "verify-full", "sslrootcert": str(ca)},
    }[mode]
    password_of(address)  # and at each connection, since its file may be renewed

    def connect() -> Connection:
        connection = Bounded.connect(
            host=address.host,
            port=address.port or 5432,
            dbname=database,
            user=address.user,
            password=password_of(address),
            connect_timeout=_CONNECT_SECONDS,
            application_name="kagimori",
            **options,
        )
        return cast("Connection", connection)

    return connect


# --- MariaDB and MySQL ---------------------------------------------------------------------


def _mysql(address: Address, database: str) -> Callable[[], Connection]:
    try:
        import pymysql
    except ImportError:
        raise missing_package("pymysql", "mysql") from None

    mode, ca = _tls(address)
    options: dict[str, Any] = {}
    if mode == "off":
        options["ssl_disabled"] = True
    elif mode != "prefer":
        options["ssl"] = _checking(ca)
    if address.host.startswith("/"):
        options["unix_socket"] = address.host
    password_of(address)  # and at each connection, since its file may be renewed

    def connect() -> Connection:
        return cast(
            "Connection",
            pymysql.connect(
                host=address.host,
                port=address.port or 3306,
                database=database,
                user=address.user,
                password=(password_of(address) or "").encode(),
                charset="utf8mb4",
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                write_timeout=_READ_SECONDS,
                program_name="kagimori",
                **options,
            ),
        )

    return connect


def _checking(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise ConfigError(f"There is no certificate authority in {ca}.") from None
