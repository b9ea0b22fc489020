"""
How Microsoft SQL Server keeps the table of a ring.
"""

from __future__ import annotations

import re
from typing import ClassVar

from kagimori.ring_stores.sql_connection import Fault, Session, is_operational
from kagimori.ring_stores.sql_dialect import STATEMENT_SECONDS, Dialect, Table


class SqlServer(Dialect):
    """
    Microsoft SQL Server, by pyodbc or pymssql. Written from its documentation: not run by us.

    Explicit ids need IDENTITY_INSERT, which needs ALTER on the table; they move the counter.
    """

    name = "sqlserver"
    quotes = ("[", "]")
    text_type = "nvarchar(max)"
    id_type = "int NOT NULL IDENTITY"
    length = "datalength"
    role = "SELECT suser_sname()"
    write_right = "GRANT SELECT, INSERT, DELETE, ALTER ON {table} TO {role}."
    locked_from = " WITH (UPDLOCK, HOLDLOCK)"

    _BY_NUMBER: ClassVar[dict[int, Fault]] = {
        208: Fault.NO_TABLE,
        229: Fault.FORBIDDEN,
        230: Fault.FORBIDDEN,
        262: Fault.FORBIDDEN,
        1088: Fault.FORBIDDEN,
        1205: Fault.CONFLICT,
        1222: Fault.SLOW,
        2601: Fault.CONFLICT,
        2627: Fault.CONFLICT,
        2714: Fault.EXISTS,
        2760: Fault.FORBIDDEN,
        3906: Fault.READ_ONLY,
        4060: Fault.NO_DATABASE,
        18456: Fault.NOT_SIGNED_IN,
    }
    _BY_STATE: ClassVar[dict[str, Fault]] = {
        "28000": Fault.NOT_SIGNED_IN,
        "40001": Fault.CONFLICT,
        "42S01": Fault.EXISTS,
        "42S02": Fault.NO_TABLE,
        "HYT00": Fault.SLOW,
        "HYT01": Fault.LOST,
    }

    def begin_reading(self, session: Session) -> None:  # noqa: D102
        # A scan at the default level may see half of somebody's commit.
        session.run("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        session.run(f"SET LOCK_TIMEOUT {STATEMENT_SECONDS * 1000}")

    def begin_writing(self, session: Session) -> None:  # noqa: D102
        self.begin_reading(session)

    def before_inserts(  # noqa: D102
        self, session: Session, table: Table, last: int, count: int
    ) -> None:
        session.run(f"SET IDENTITY_INSERT {table.text} ON")

    def after_inserts(self, session: Session, table: Table) -> None:  # noqa: D102
        session.run(f"SET IDENTITY_INSERT {table.text} OFF")

    def fault(self, error: Exception) -> Fault:  # noqa: D102
        # pyodbc: (SQLSTATE, "... (number) (SQLExecDirectW)"); pymssql: (number, b"text").
        first = error.args[0] if error.args else None
        numbers = [first] if type(first) is int else []
        if isinstance(first, str):
            numbers = [int(found) for found in re.findall(r"\((\d{3,5})\)", str(error))]
        for number in numbers:
            if number in self._BY_NUMBER:
                return self._BY_NUMBER[number]
        if isinstance(first, str):
            if first in self._BY_STATE:
                return self._BY_STATE[first]
            if first.startswith("08"):
                return Fault.LOST
        if is_operational(error):
            return Fault.LOST
        return Fault.OTHER
