"""
The connection to the database of a ring, and the transactions on it.

Rules of this module:

1. A connection that dies is made anew once. A commit whose answer was lost is looked up by its
   name, and tried again only where it was not done.
2. What a driver raises becomes a declared error that quotes nothing of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

from kagimori.errors import ConfigError, ConflictError, KagimoriError, StoreError
from kagimori.ring_stores.held import Held
from kagimori.ring_stores.sql_connection import Connection, Fault, Session, driver_of
from kagimori.ring_stores.sql_dialect import Dialect
from kagimori.ring_stores.sql_dialects import DIALECTS, dialect_of
from kagimori.ring_stores.sql_faults import declared

_MOST_TRIES = 4

T = TypeVar("T")


class Database:
    """
    Runs transactions, one at a time.

    Args:
        connect: makes a DB-API 2.0 connection.
        dialect: its name; ``None`` where it follows from the driver.
        name: where the ring lies, for people.
        table: the table's name, for people.
        role: who signs in, for people; asked of the database where it answers.
        read_only: whether reading is all that is wanted.

    Raises:
        ConfigError: there is no such dialect.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        dialect: str | None,
        name: str,
        table: str,
        role: str,
        read_only: bool,
    ) -> None:
        if dialect is not None and dialect not in DIALECTS:
            raise ConfigError(
                f"No dialect is called {dialect!r}.",
                hint=f"There are {', '.join(sorted(DIALECTS))}.",
            )
        self._connect = connect
        self._dialect = DIALECTS[dialect]() if dialect else None
        self._name = name
        self._table = table
        self._role = role
        self._read_only = read_only
        keep = self._dialect is None or self._dialect.keeps_connection
        self._held: Held[Connection] = Held(_close, name, keep=keep)

    def close(self) -> None:
        """
        Let go of the connection. It is made anew by the next transaction.
        """
        self._held.close()

    def transact(
        self,
        work: Callable[[Session, Dialect], T],
        *,
        absent: Callable[[], T],
        unsure: bool = False,
    ) -> T:
        """
        Run a transaction; the answer of `absent` is returned where the table is not there.

        `unsure` work may have been committed when its connection died, and knows itself.
        """
        was_lost = False
        for left in reversed(range(_MOST_TRIES)):
            with self._held.turn():
                try:
                    connection, is_fresh = self._held.get(self._opened)
                except KagimoriError:
                    raise
                except Exception as error:  # noqa: BLE001 - any driver's
                    raise self._declared(error, None) from None
                dialect = self._dialect_there()
                try:
                    return self._ended(connection, work(Session(connection), dialect))
                except KagimoriError:
                    self._roll_back(connection)
                    raise
                except Exception as error:  # noqa: BLE001 - any driver's
                    fault = dialect.fault(error)
                    self._roll_back(connection, is_lost=fault is Fault.LOST)
                    if fault is Fault.NO_TABLE:
                        break
                    if fault is Fault.LOST:
                        self._held.drop()
                        if left and not was_lost and (unsure or not is_fresh):
                            was_lost = True
                            continue
                    if fault is Fault.CONFLICT and unsure:
                        # Perhaps it was ourselves, by the connection that was lost.
                        if was_lost and left:
                            continue
                        raise ConflictError(
                            "Another writer changed the ring first."
                        ) from None
                    raise self._declared(error, connection) from None
                except BaseException:
                    # Interrupted amid an answer, it cannot be asked anything more.
                    self._held.drop()
                    raise
        return absent()

    def _opened(self) -> Connection:
        connection = self._connect()
        if self._dialect is None:
            self._dialect = dialect_of(driver_of(connection))
            if self._dialect is None:
                _close(connection)
                raise ConfigError(
                    f"Which database {driver_of(connection)} speaks to is not known.",
                    hint=f"Name its dialect: {', '.join(sorted(DIALECTS))}.",
                )
            self._held.keep = self._dialect.keeps_connection
        self._dialect.prepare(connection)
        return connection

    def _ended(self, connection: Connection, result: T) -> T:
        # The end of a transaction that was read in, too: an open one holds old rows back.
        self._roll_back(connection)
        return result

    def _roll_back(self, connection: Connection, *, is_lost: bool = False) -> None:
        try:
            if not is_lost:
                connection.rollback()
        except Exception:  # noqa: BLE001 - whatever it is, this connection is of no more use
            self._held.drop()

    def _dialect_there(self) -> Dialect:
        assert self._dialect is not None  # noqa: S101 - `_opened` has seen to it
        return self._dialect

    def _declared(self, error: Exception, connection: Connection | None) -> StoreError:
        """
        Return the declared error of a driver's exception, with role and table where rights lack.
        """
        role = self._role
        remedy = ""
        dialect = self._dialect
        if dialect is not None:
            remedy = dialect.read_right if self._read_only else dialect.write_right
        fault = Fault.LOST if dialect is None else dialect.fault(error)
        if fault is Fault.FORBIDDEN and dialect is not None and connection is not None:
            with contextlib.suppress(Exception):
                ((found,),) = Session(connection).rows(dialect.role)
                role = str(found)
            # Some databases look at a connection's rights once, when it is made.
            self._held.drop()
        return declared(
            fault,
            error,
            where=self._name,
            table=self._table,
            role=role,
            remedy=remedy,
        )


def _close(connection: Connection) -> None:
    connection.close()
