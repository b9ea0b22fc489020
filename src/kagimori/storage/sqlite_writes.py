"""
How a change becomes statements, under the write lock.

Rules of this module:

1. A change whose index fields stay the same touches one row of one table, and no index.
2. Whatever is compared is compared under the write lock, by the time of the transaction.
3. A version is the store's revision, which only grows: none ever comes back for an id.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from kagimori.errors import ConflictError
from kagimori.storage.sqlite_reads import TIME_FLOOR, micros
from kagimori.storage.store import ABSENT, Change, Check, Delete, Put

_SWEEP_BITS = 6
_PAGE = 4096

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(dict[str, str]).decode

_HEAD = (
    "SELECT version, expires, indexes FROM document"
    " WHERE tenant = ? AND kind = ? AND id = ?"
)
_REFRESH = (
    "UPDATE document SET version = ?, expires = ?, body = ?"
    " WHERE tenant = ? AND kind = ? AND id = ? AND version = ?"
    " AND (expires IS NULL OR expires > ?) AND sweep IS ? AND indexes IS ?"
)
_REFRESH_MANY = (
    "WITH new(tenant, kind, id, expect, expires, sweep, indexes, body) AS (VALUES {rows})"
    " UPDATE document AS d SET version = ?1, expires = new.expires, body = new.body FROM new"
    " WHERE d.tenant = new.tenant AND d.kind = new.kind AND d.id = new.id"
    " AND d.version = new.expect AND (d.expires IS NULL OR d.expires > ?2)"
    " AND d.sweep IS new.sweep AND d.indexes IS new.indexes"
)
_REPLACE = (
    "UPDATE document SET version = ?, expires = ?, sweep = ?, indexes = ?, body = ?"
    " WHERE tenant = ? AND kind = ? AND id = ?"
)
_INSERT = (
    "INSERT INTO document (tenant, kind, id, version, expires, sweep, indexes, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_DELETE = "DELETE FROM document WHERE tenant = ? AND kind = ? AND id = ?"
_INDEX = "INSERT OR REPLACE INTO document_index VALUES (?, ?, ?, ?, ?)"
_UNINDEX = (
    "DELETE FROM document_index"
    " WHERE tenant = ? AND kind = ? AND field = ? AND value = ? AND id = ?"
)
_SWEEP = (
    "DELETE FROM document WHERE rowid IN (SELECT rowid FROM document"
    " WHERE sweep <= ?1 AND expires <= ?1 LIMIT ?2)"
    " RETURNING tenant, kind, id, indexes"
)
_BEGIN = "SELECT revision, last_commit, counter FROM state"
_END = "UPDATE state SET revision = ?, last_commit = max(last_commit, ?), counter = ?"


class Transaction:
    """
    The write lock, held: the store's time, its revision, and a way to change documents.

    Args:
        cursor: of a connection that has begun.
        clock: what the clock says, in microseconds since 1970.
    """

    __slots__ = ("_began", "_counter", "_cursor", "_revision", "now", "pages")

    def __init__(self, cursor: sqlite3.Cursor, clock: int) -> None:
        self._cursor = cursor
        self._revision, last_commit, self._counter = cursor.execute(_BEGIN).fetchone()
        self._began = (self._revision, self._counter)
        self.now: int = max(clock, last_commit - TIME_FLOOR)
        # About how many pages were changed; the row above lies on one.
        self.pages = 1

    def finish(self) -> None:
        """
        Write down what the store must remember of this transaction, before it is committed.
        """
        if (self._revision, self._counter) != self._began:
            self._cursor.execute(_END, (self._revision, self.now, self._counter))

    def apply(self, tenant: str, changes: Sequence[Change]) -> None:
        """
        Write the changes of one commit.

        Raises:
            ConflictError: a version is not the expected one; earlier changes of this commit
                may have been written, and the caller rolls them back.
        """
        version = self._revision + 1
        writes = announced = False
        for change in changes:
            if isinstance(change, Check):
                self._expect(tenant, change)
                continue
            if isinstance(change, Put):
                self._put(tenant, change, version)
            else:
                self._delete(tenant, change)
            writes = True
            announced = announced or change.announce
        # Only now: a conflict on the way here leaves the revision as it was.
        self._revision += writes
        self._counter += announced

    def refresh(self, puts: Sequence[tuple[str, Put]]) -> bool:
        """
        Write documents that are there already, each for itself, in one statement.

        Returns:
            Whether all could be written. If not, some may have been, and the caller rolls the
            transaction back and applies them one by one.
        """
        version = self._revision + 1
        parameters: list[object] = [version, self.now]
        for tenant, put in puts:
            expires, sweep = self._dates(put)
            indexes = _indexes(put)
            parameters += (tenant, put.kind, put.id, put.expect)
            parameters += (expires, sweep, indexes, put.body)
            self.pages += 1 + len(put.body) // _PAGE
            self._counter += put.announce
        self._revision = version
        statement = _refresh_many(len(puts))
        return self._cursor.execute(statement, parameters).rowcount == len(puts)

    def purge(self, limit: int) -> int:
        """
        Delete documents that have expired; return how many.
        """
        gone = self._cursor.execute(_SWEEP, (self.now, limit)).fetchall()
        self.pages += 3 * len(gone)
        for tenant, kind, id_, indexes in gone:
            self._reindex((tenant, kind, id_), indexes, {})
        self._revision += bool(gone)
        return len(gone)

    def _put(self, tenant: str, change: Put, version: int) -> None:
        address = (tenant, change.kind, change.id)
        indexes = _indexes(change)
        self.pages += 1 + len(change.body) // _PAGE
        expires, sweep = self._dates(change)
        if change.expect == ABSENT:
            new = (*address, version, expires, sweep, indexes, change.body)
            if self._cursor.execute(_INSERT, new).rowcount:
                self._reindex(address, None, change.indexes)
                return
        else:
            same = (*address, change.expect, self.now, sweep, indexes)
            if self._cursor.execute(
                _REFRESH, (version, expires, change.body, *same)
            ).rowcount:
                return
        before = self._expect(tenant, change)
        self._cursor.execute(
            _REPLACE, (version, expires, sweep, indexes, change.body, *address)
        )
        self._reindex(address, before, change.indexes)

    def _dates(self, put: Put) -> tuple[int | None, int | None]:
        if put.expires is None:
            return None, None
        expires = micros(put.expires)
        return expires, sweep_after(expires, self.now)

    def _delete(self, tenant: str, change: Delete) -> None:
        before = self._expect(tenant, change)
        if change.expect != ABSENT:
            address = (tenant, change.kind, change.id)
            self._cursor.execute(_DELETE, address)
            self._reindex(address, before, {})

    def _expect(self, tenant: str, change: Change) -> str | None:
        # Returns the index fields of the row that is there, be it live or expired.
        address = (tenant, change.kind, change.id)
        row = self._cursor.execute(_HEAD, address).fetchone()
        version, indexes = ABSENT, None
        if row is not None:
            indexes = row[2]
            if row[1] is None or row[1] > self.now:
                version = row[0]
        if version != change.expect:
            raise ConflictError(
                "A stored document changed in the meantime.",
                detail=f"kind {change.kind}",
            )
        return indexes

    def _reindex(
        self,
        address: tuple[str, str, str],
        before: str | None,
        after: Mapping[str, str],
    ) -> None:
        if before is None and not after:
            return
        old = {} if before is None else _decode(before)
        if old == after:
            return
        self.pages += 2 + len(old) + len(after)
        tenant, kind, id_ = address
        for field, value in old.items():
            if after.get(field) != value:
                self._cursor.execute(_UNINDEX, (tenant, kind, field, value, id_))
        for field, value in after.items():
            if old.get(field) != value:
                self._cursor.execute(_INDEX, (tenant, kind, field, value, id_))


def _indexes(put: Put) -> str | None:
    return _encode(put.indexes).decode() if put.indexes else None


@lru_cache
def _refresh_many(count: int) -> str:
    places = iter(range(3, 3 + 8 * count))
    rows = ", ".join(
        f"({', '.join(f'?{next(places)}' for _ in range(8))})" for _ in range(count)
    )
    return _REFRESH_MANY.format(rows=rows)


def sweep_after(expires: int, now: int) -> int:
    """
    Return when a purge should look at a document: `expires`, rounded up to a power of two.

    The coarser the longer the document lives (1/32 to 1/64 of its life), so that a document
    whose expiry moves a little with each use hardly ever moves in the index of the purge.
    All are microseconds since 1970.
    """
    step = 1 << max((expires - now).bit_length() - _SWEEP_BITS, 0)
    return (expires + step - 1) & -step
