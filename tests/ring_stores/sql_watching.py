"""
Something that happens, or dies, before a chosen statement of a SQL store.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from kagimori.ring_stores import sql
from tests.ring_stores.sql_worlds import World


class Died(BaseException):
    """
    The process is gone: no handler of ours runs to any effect any more.
    """


class Watch:
    """
    Counts statements and commits, and does something before a chosen one.
    """

    def __init__(self, at: int, act: Any) -> None:
        self._at = at
        self._act = act
        self.count = 0

    @property
    def is_over(self) -> bool:
        return self.count <= self._at

    def step(self, connection: Any) -> None:
        mine, self.count = self.count, self.count + 1
        if mine == self._at:
            self._act(connection)


class Watched:
    """
    A driver's connection under a watch.
    """

    __module__ = "sqlite3"

    def __init__(self, connection: Any, watch: Watch) -> None:
        self._connection = connection
        self._watch = watch

    def step(self) -> None:
        self._watch.step(self._connection)

    def cursor(self) -> Any:
        return WatchedCursor(self._connection.cursor(), self)

    def commit(self) -> None:
        self.step()
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()


class WatchedCursor:
    def __init__(self, cursor: Any, owner: Watched) -> None:
        self._cursor = cursor
        self._owner = owner

    def execute(self, *words: Any) -> object:
        self._owner.step()
        if isinstance(self._cursor, sqlite3.Cursor):
            return self._cursor.execute(*words)
        return self._cursor.execute(words[0].replace("?", "%s"), *words[1:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def watched(place: World, at: int, act: Any) -> tuple[sql.SqlStore, Watch]:
    """
    Return a store that runs `act` before its statement number `at`.
    """
    watch = Watch(at, act)

    def connect() -> Any:
        connection = place.connect()
        if place.kind == "postgresql":
            connection.autocommit = False
        elif place.kind == "mariadb":
            connection.autocommit(False)
        else:
            connection.isolation_level = None
        return Watched(connection, watch)

    dialect = {"mariadb": "mysql"}.get(place.kind, place.kind)
    return sql.SqlStore(connect, table=place.table, dialect=dialect), watch
