"""
What differs between databases, for the table of a ring.

Rules of this module:

1. The table is the one that EF Core's migrations make for ``DataProtectionKey``: ``Id`` (int,
   identity, primary key), ``FriendlyName``, ``Xml``.
2. Our rows have explicit ids. The database's own counter is moved past them in the same
   transaction and never back, so that EF Core's next insert finds a free id.
3. Writers of ours exclude or refuse each other; EF Core's plain inserts are never kept waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kagimori.ring_stores.sql_connection import Connection, Fault, Session

STATEMENT_SECONDS = 4
"""How long a server works on a statement before it gives up; the client waits a bit longer."""


@dataclass(frozen=True, slots=True)
class Table:
    """
    Where the elements lie: names as they stand in statements, quoted.

    Attributes:
        plain: the table's own name, unquoted.
    """

    text: str
    plain: str
    id: str
    friendly: str
    xml: str


class Dialect:
    """
    One database's way to speak; the base is the standard's.
    """

    name: ClassVar[str] = ""
    quotes: ClassVar[tuple[str, str]] = ('"', '"')
    text_type: ClassVar[str] = "text"
    id_type: ClassVar[str] = ""
    key: ClassVar[str] = "PRIMARY KEY ({id})"
    ending: ClassVar[str] = ""
    length: ClassVar[str] = "length"
    role: ClassVar[str] = "SELECT current_user"
    overriding: ClassVar[str] = ""
    locked_from: ClassVar[str] = ""
    locking: ClassVar[str] = ""
    read_right: ClassVar[str] = "GRANT SELECT ON {table} TO {role}."
    write_right: ClassVar[str] = (
        "GRANT SELECT, INSERT, DELETE ON {table} TO {role}. Where the table is still to be "
        "made: grant the right to create it too, or make it by EF Core's migration."
    )
    creates_in_transactions: ClassVar[bool] = True
    keeps_connection: ClassVar[bool] = True

    def quoted(self, *names: str) -> str:
        """
        Return a name, of one or several parts, as it stands in a statement.
        """
        before, after = self.quotes
        return ".".join(before + name + after for name in names)

    def creation(self, table: str, constraint: str) -> str:
        """
        Return the statement that makes the table (quoted), as EF Core makes it.
        """
        id_, name, text = map(self.quoted, ("Id", "FriendlyName", "Xml"))
        return (
            f"CREATE TABLE {table} ({id_} {self.id_type}, "
            f"{name} {self.text_type} NULL, {text} {self.text_type} NULL, "
            f"CONSTRAINT {self.quoted(constraint)} {self.key.format(id=id_)})"
            f"{self.ending}"
        )

    def prepare(self, connection: Connection) -> None:
        """
        Make a new connection ready for explicit transactions.
        """
        switch = getattr(connection, "autocommit", None)
        if callable(switch):
            switch(False)  # noqa: FBT003 - the drivers' own signature
        elif switch is not None:
            connection.autocommit = False  # type: ignore[attr-defined] # no part of PEP 249

    def begin_reading(self, session: Session) -> None:
        """
        Begin a transaction that reads by single statements.
        """

    def begin_writing(self, session: Session) -> None:
        """
        Begin a transaction that reads, decides and writes.
        """

    def before_inserts(
        self, session: Session, table: Table, last: int, count: int
    ) -> None:
        """
        See to it that `count` explicit ids up to `last` may be given.
        """

    def after_inserts(self, session: Session, table: Table) -> None:
        """
        Undo what `before_inserts` has set.
        """

    def hidden_in(self, session: Session, plain: str) -> str | None:
        """
        Return the schema in which a table lies that was not found for want of a right.
        """
        return None

    def fault(self, error: Exception) -> Fault:
        """
        Say what a driver's exception means.
        """
        raise NotImplementedError
