"""
What a database lets a ring do, each right tried separately in a transaction that is undone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kagimori.errors import KagimoriError
from kagimori.keys.findings import Finding
from kagimori.ring_stores.sql_connection import Session
from kagimori.ring_stores.sql_dialect import Dialect

if TYPE_CHECKING:
    from kagimori.ring_stores.sql_store import SqlStore


def examine(store: SqlStore) -> tuple[Finding, ...]:
    """
    Try to read, to write where nothing changed, and to delete; or to make the table.
    """
    read = _tried("read", lambda: _read(store))
    if not read.ok or store.is_read_only:
        return (read,)
    if not store.is_there():
        return (read, _tried("create the table", lambda: _create(store)))
    return (
        read,
        _tried("write if unchanged", lambda: _write(store)),
        _tried("delete", lambda: _delete(store)),
    )


def _tried(right: str, work: Callable[[], str]) -> Finding:
    try:
        return Finding(right, ok=True, text=work())
    except KagimoriError as error:
        return Finding(right, ok=False, text=error.text, remedy=error.hint)


def _read(store: SqlStore) -> str:
    count = len(store.load().elements)
    if not count and not store.is_there():
        return "There is no table yet."
    return f"{count} elements were read."


def _create(store: SqlStore) -> str:
    def work(session: Session, dialect: Dialect) -> str:
        if not dialect.creates_in_transactions:
            return "Not tried: this database cannot undo it. The first commit makes the table."
        store.create_in(session, dialect)
        return "The table can be made by the first commit."

    return store.database.transact(work, absent=lambda: "")


def _write(store: SqlStore) -> str:
    def work(session: Session, dialect: Dialect) -> str:
        dialect.begin_writing(session)
        before = store.read_in(session, dialect, locking=True)
        new = before.following([("blank", "")])
        store.write_in(session, dialect, new, ())
        return "A row was added under the next id, and taken back."

    return store.database.transact(work, absent=lambda: "There is no table any more.")


def _delete(store: SqlStore) -> str:
    def work(session: Session, dialect: Dialect) -> str:
        table = store.table_in(session, dialect)
        session.run(f"DELETE FROM {table.text} WHERE {table.id} IS NULL")  # noqa: S608
        return "Rows can be deleted."

    return store.database.transact(work, absent=lambda: "There is no table any more.")
