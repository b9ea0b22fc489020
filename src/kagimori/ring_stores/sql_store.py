"""
A ring in a table of a database, as ASP.NET Core's ``PersistKeysToDbContext`` has it (EF Core).

Rules of this module (`aspnet-data-protection.md` 2.6):

1. A row is an element: one line of XML. Rows without XML are no elements. Ids mean nothing to
   .NET, which only ever adds rows.
2. A commit is one transaction. It reads all rows, compares, and takes the ids from the highest
   one on, so that the primary key refuses the second of two writers. The last of them holds our
   state element, written anew each time (see `kagimori.ring_stores.marks`); deleting the row
   of the state before refuses a second writer once more.
3. Before it is committed everything is read back: what a short column or a foreign character
   set changed is not stored, and a row that came in between is a conflict.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from kagimori.errors import ConflictError, RingReadOnlyError, StoreError
from kagimori.keys.findings import Finding
from kagimori.keys.store import Element, Snapshot
from kagimori.ring_stores import marks
from kagimori.ring_stores.sql_connection import Connection, Fault, Session
from kagimori.ring_stores.sql_database import Database
from kagimori.ring_stores.sql_dialect import Dialect, Table
from kagimori.ring_stores.sql_rows import Reading, Row, table_of

DEFAULT_TABLE = "DataProtectionKeys"

_MOST_ID = 2**31 - 1


class SqlStore:
    """
    A `KeyStore` over a table.

    Args:
        connect: makes a DB-API 2.0 connection; called again after a fork or a broken
            connection. Its timeouts are the caller's to set.
        table: the table's name, or ``schema.name``; made by the first commit where the
            role may.
        dialect: ``sqlite``, ``postgresql``, ``mysql`` or ``sqlserver``; follows from the driver
            where it is known.
        name: where the ring lies, for people; never a secret.
        role: who signs in, for people.
        read_only: refuse commits, and make no table.

    Raises:
        ConfigError: the table's name or the dialect is none.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        table: str = DEFAULT_TABLE,
        dialect: str | None = None,
        name: str = "a database",
        role: str = "",
        read_only: bool = False,
    ) -> None:
        self._names = table_of(table)
        self._table: Table | None = None
        self._name = f"{name} (table {table})"
        self._read_only = read_only
        self._database = Database(
            connect,
            dialect=dialect,
            name=self._name,
            table=table,
            role=role,
            read_only=read_only,
        )

    @property
    def name(self) -> str:
        """
        The database's address and the table.
        """
        return self._name

    def close(self) -> None:
        """
        Let go of the connection. It is made anew when the store is used again.
        """
        self._database.close()

    # --- the protocol ----------------------------------------------------------------------

    def probe(self) -> str | None:
        """
        Return the table's highest id, number of rows and size; ``None`` without a table.
        """

        def work(session: Session, dialect: Dialect) -> str:
            dialect.begin_reading(session)
            table = self.table_in(session, dialect)
            ((most, count, size),) = session.rows(
                f"SELECT max({table.id}), count(*), sum({dialect.length}({table.xml})) "  # noqa: S608 - quoted names
                f"FROM {table.text}"
            )
            return f"{most}.{count}.{size}"

        return self._database.transact(work, absent=lambda: None)

    def load(self) -> Snapshot:
        """
        Read the whole ring by one statement.
        """

        def work(session: Session, dialect: Dialect) -> Snapshot:
            dialect.begin_reading(session)
            return self.read_in(session, dialect).snapshot()

        return self._database.transact(work, absent=self._nothing)

    def commit(
        self, add: Sequence[Element], remove: Sequence[str], expect: str | None
    ) -> Snapshot:
        """
        Add and remove elements if the ring is still at version `expect`.

        Raises:
            ConflictError: the ring changed since; nothing was written.
            RingReadOnlyError: this store was opened read-only.
            StoreError: the database refuses or does not answer. Where it fell silent just as
                the change was to be committed, the change may have been written.
        """
        if self._read_only:
            raise RingReadOnlyError(f"The ring at {self._name} was opened read-only.")
        ring_state, others = marks.split_state(add)
        rows = [(element.name, marks.one_line(element)) for element in others]
        gone = {*remove, *(element.name for element in others)}
        commit = secrets.token_hex(16)

        def work(session: Session, dialect: Dialect) -> Snapshot:
            dialect.begin_writing(session)
            before = self.read_in(session, dialect, locking=True)
            if before.mark.descends_from(commit):
                return before.snapshot()
            if before.version != expect:
                raise ConflictError("The ring changed since it was read.")
            mark = before.mark.followed_by(commit, ring_state)
            new = before.following([*rows, ("state", mark.text())])
            if new[-1].id > _MOST_ID:
                raise StoreError(f"The ids of the table at {self._name} are used up.")
            self.write_in(session, dialect, new, before.ids_of(gone))
            after = self.read_in(session, dialect)
            self._compare(before.without(gone), new, after)
            session.connection.commit()
            return after.snapshot()

        def absent() -> Snapshot:
            if expect is not None:
                raise ConflictError("The ring changed since it was read: it is gone.")
            self._table = None
            self._database.transact(self._create, absent=self._no_schema)
            return self._database.transact(work, absent=_vanished, unsure=True)

        return self._database.transact(work, absent=absent, unsure=True)

    def examine(self) -> tuple[Finding, ...]:
        """
        Try each right separately, and leave nothing behind.
        """
        from kagimori.ring_stores.sql_examination import examine

        return examine(self)

    # --- for the examination -----------------------------------------------------------------

    @property
    def database(self) -> Database:
        """
        What runs transactions.
        """
        return self._database

    @property
    def is_read_only(self) -> bool:
        """
        Whether this store refuses commits.
        """
        return self._read_only

    def is_there(self) -> bool:
        """
        Whether the table is there.
        """
        return self.probe() is not None

    # --- statements ------------------------------------------------------------------------

    def table_in(self, session: Session, dialect: Dialect) -> Table:
        """
        Return the table with its columns' names, which naming conventions may have changed.
        """
        if self._table is None:
            text = dialect.quoted(*self._names)
            columns = session.columns(f"SELECT * FROM {text} WHERE 1 = 0")  # noqa: S608 - quoted names
            plain = {column.lower().replace("_", ""): column for column in columns}
            missing = {"id", "friendlyname", "xml"} - set(plain)
            if missing:
                raise StoreError(
                    f"{self._name} is no table of a ring: it has no column "
                    f"{' and no '.join(sorted(missing))}.",
                    hint="Name another table by table=, or another database.",
                )
            quoted = (
                dialect.quoted(plain[name]) for name in ("id", "friendlyname", "xml")
            )
            self._table = Table(text, self._names[-1], *quoted)
        return self._table

    def read_in(
        self, session: Session, dialect: Dialect, *, locking: bool = False
    ) -> Reading:
        """
        Read all rows in a transaction, `locking` where a write follows.
        """
        table = self.table_in(session, dialect)
        found = session.rows(
            f"SELECT {table.id}, {table.friendly}, {table.xml} FROM {table.text}"  # noqa: S608 - quoted names
            f"{dialect.locked_from if locking else ''} ORDER BY {table.id}"
            f"{dialect.locking if locking else ''}",
            most=marks.MOST_ELEMENTS + 1,
        )
        marks.bounded(len(found), self._name)
        return Reading.of(found, self._name)

    def write_in(
        self,
        session: Session,
        dialect: Dialect,
        new: Sequence[Row],
        gone: Sequence[int],
    ) -> None:
        """
        Add rows under their ids and delete others, in a transaction.

        Raises:
            ConflictError: a row to be deleted is gone.
        """
        table = self.table_in(session, dialect)
        dialect.before_inserts(session, table, new[-1].id, len(new))
        for row in new:
            session.run(
                f"INSERT INTO {table.text} ({table.id}, {table.friendly}, {table.xml})"  # noqa: S608 - quoted names
                f"{dialect.overriding} VALUES (?, ?, ?)",
                *(row.id, row.friendly, row.xml),
            )
        dialect.after_inserts(session, table)
        for number in gone:
            statement = f"DELETE FROM {table.text} WHERE {table.id} = ?"  # noqa: S608 - quoted names
            if session.run(statement, number) == 0:
                raise ConflictError("Another writer took an element away first.")

    def _compare(self, kept: Sequence[Row], new: Sequence[Row], after: Reading) -> None:
        """
        Refuse a transaction that does not see exactly what it has written.
        """
        found = {row.id: row for row in after.rows}
        if any(found.get(row.id) != row for row in new):
            raise StoreError(
                f"{self._name} does not give back what was written; nothing was kept.",
                hint="The columns FriendlyName and Xml have to hold texts of any length "
                "and of any Unicode character.",
            )
        if after.rows != (*kept, *new):
            raise ConflictError("Another writer changed the ring first.")

    def create_in(self, session: Session, dialect: Dialect) -> None:
        """
        Make the table, as EF Core makes it.
        """
        hidden = dialect.hidden_in(session, self._names[-1])
        if hidden is not None and len(self._names) == 1:
            raise StoreError(
                f"There is a table {self._names[-1]} in the schema {hidden}, which this "
                "role may not use.",
                hint=f"GRANT USAGE ON SCHEMA {hidden} TO the role.",
            )
        text = dialect.quoted(*self._names)
        session.run(dialect.creation(text, f"PK_{self._names[-1]}"[:63]))

    def _nothing(self) -> Snapshot:
        # A table that is made later may be another's, with other columns.
        self._table = None
        return Snapshot((), None)

    def _no_schema(self) -> None:
        raise StoreError(
            f"{self._name}: there is no schema in which the table can be made, or this role "
            "may not use it.",
            hint="GRANT USAGE, CREATE ON SCHEMA public TO the role, or name another schema by "
            "table=schema.name.",
        )

    def _create(self, session: Session, dialect: Dialect) -> None:
        try:
            self.create_in(session, dialect)
            session.connection.commit()
        except Exception as error:
            # Another writer made it first.
            if dialect.fault(error) not in {Fault.EXISTS, Fault.CONFLICT}:
                raise


def _vanished() -> Snapshot:
    raise StoreError(
        "The table of the ring was made, and is gone again.", transient=True
    )
