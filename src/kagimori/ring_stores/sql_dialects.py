"""
The databases that the table of a ring may lie in, and which of them a driver speaks to.
"""

from __future__ import annotations

from typing import ClassVar

from kagimori.ring_stores.sql_connection import (
    Connection,
    Fault,
    Session,
    is_operational,
)
from kagimori.ring_stores.sql_dialect import STATEMENT_SECONDS, Dialect
from kagimori.ring_stores.sql_postgresql import PostgreSql
from kagimori.ring_stores.sql_server import SqlServer


class Sqlite(Dialect):
    """
    SQLite, by the standard library; explicit ids move its counter by themselves.
    """

    name = "sqlite"
    text_type = "TEXT"
    id_type = "INTEGER NOT NULL"
    role = "SELECT 'of this process'"
    read_right = "Give the account of this process the right to read the file."
    write_right = (
        "Give the account of this process the right to write the file and its folder."
    )
    keeps_connection = False

    _BY_CODE: ClassVar[dict[int, Fault]] = {
        3: Fault.FORBIDDEN,
        5: Fault.SLOW,
        6: Fault.SLOW,
        8: Fault.READ_ONLY,
        14: Fault.FORBIDDEN,
        19: Fault.CONFLICT,
        23: Fault.FORBIDDEN,
    }

    def creation(self, table: str, constraint: str) -> str:  # noqa: D102
        return (
            f'CREATE TABLE {table} ("Id" INTEGER NOT NULL CONSTRAINT '
            f"{self.quoted(constraint)} PRIMARY KEY AUTOINCREMENT, "
            '"FriendlyName" TEXT NULL, "Xml" TEXT NULL)'
        )

    def prepare(self, connection: Connection) -> None:  # noqa: D102
        # Transactions begin where they are said to, and not by the driver's guesses.
        if hasattr(connection, "autocommit"):
            connection.autocommit = -1
        connection.isolation_level = None  # type: ignore[attr-defined] # sqlite3's own
        session = Session(connection)
        session.rows(f"PRAGMA busy_timeout = {int(STATEMENT_SECONDS * 1000)}")
        session.run("PRAGMA synchronous = FULL")

    def begin_writing(self, session: Session) -> None:  # noqa: D102
        session.run("BEGIN IMMEDIATE")

    def fault(self, error: Exception) -> Fault:  # noqa: D102
        text = str(error)
        if "no such table" in text:
            return Fault.NO_TABLE
        if "already exists" in text:
            return Fault.EXISTS
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return self._BY_CODE.get(code, Fault.OTHER)


class MySql(Dialect):
    """
    MariaDB and MySQL; explicit ids move their counter by themselves.

    A commit locks the rows that it read, so that our writers come one after the other, and no
    gap: an insert of EF Core that waited would come out of it with an id that we have taken.
    """

    name = "mysql"
    quotes = ("`", "`")
    text_type = "longtext"
    id_type = "int NOT NULL AUTO_INCREMENT"
    ending = " CHARACTER SET utf8mb4 ENGINE InnoDB"
    length = "octet_length"
    role = "SELECT current_user()"
    locking = " FOR UPDATE"
    creates_in_transactions = False

    _BY_NUMBER: ClassVar[dict[int, Fault]] = {
        1020: Fault.CONFLICT,
        1040: Fault.SLOW,
        1044: Fault.FORBIDDEN,
        1045: Fault.NOT_SIGNED_IN,
        1049: Fault.NO_DATABASE,
        1050: Fault.EXISTS,
        1053: Fault.LOST,
        1062: Fault.CONFLICT,
        1142: Fault.FORBIDDEN,
        1143: Fault.FORBIDDEN,
        1146: Fault.NO_TABLE,
        1203: Fault.SLOW,
        1205: Fault.SLOW,
        1213: Fault.CONFLICT,
        1226: Fault.SLOW,
        1227: Fault.FORBIDDEN,
        1290: Fault.READ_ONLY,
        1317: Fault.SLOW,
        1698: Fault.NOT_SIGNED_IN,
        1792: Fault.READ_ONLY,
        1836: Fault.READ_ONLY,
        1927: Fault.LOST,
        1969: Fault.SLOW,
        2026: Fault.NOT_SIGNED_IN,
        3024: Fault.SLOW,
    }

    def prepare(self, connection: Connection) -> None:  # noqa: D102
        super().prepare(connection)
        for limit in ("innodb_lock_wait_timeout", "lock_wait_timeout"):
            Session(connection).run(f"SET SESSION {limit} = {STATEMENT_SECONDS}")

    def begin_writing(self, session: Session) -> None:  # noqa: D102
        session.run("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def fault(self, error: Exception) -> Fault:  # noqa: D102
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return Fault.NOT_SIGNED_IN
        number = error.args[0] if error.args else None
        if type(number) is int and number in self._BY_NUMBER:
            return self._BY_NUMBER[number]
        if is_operational(error):
            return Fault.LOST
        return Fault.OTHER


_BY_DRIVER: dict[str, type[Dialect]] = {
    "MySQLdb": MySql,
    "mariadb": MySql,
    "mysql": MySql,
    "pg8000": PostgreSql,
    "psycopg": PostgreSql,
    "psycopg2": PostgreSql,
    "pymssql": SqlServer,
    "pymysql": MySql,
    "pyodbc": SqlServer,
    "sqlite3": Sqlite,
}

DIALECTS: dict[str, type[Dialect]] = {
    kind.name: kind for kind in (Sqlite, PostgreSql, MySql, SqlServer)
}


def dialect_of(driver: str) -> Dialect | None:
    """
    Return the dialect that a driver's package speaks; ``None`` for a package that is not known.
    """
    kind = _BY_DRIVER.get(driver)
    return None if kind is None else kind()
