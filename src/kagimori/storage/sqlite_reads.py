"""
What is asked of SQLite: documents by id, by reference, by page, and how many.

Rules of this module:

1. Every read is one statement. The store's time is part of it, so that what counts as expired
   is judged by the time that the same statement returns.
2. A statement is built once for a shape of question; what a caller names is a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from kagimori.storage.store import Document, DocumentKey, Reference

TIME_FLOOR = 5_000_000
"""How far the store's time may fall behind its last commit, in microseconds (decision 11)."""

Row = tuple[Any, ...]
"""A row as sqlite3 gives it; STRICT tables hold what they declare."""

# Steps from tenant to tenant in the primary key instead of reading all of it.
_TENANTS = (
    "WITH RECURSIVE w(tenant) AS (SELECT min(tenant) FROM document UNION ALL"
    " SELECT (SELECT min(tenant) FROM document WHERE tenant > w.tenant)"
    " FROM w WHERE w.tenant IS NOT NULL)"
)

_encode_ids = msgspec.json.Encoder().encode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(instant: datetime) -> int:
    """
    Return an aware `datetime` as microseconds since 1970.
    """
    return (instant - _EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    """
    Return microseconds since 1970 as an aware UTC `datetime`.
    """
    return _EPOCH + _MICROSECOND * value


# --- by id and by reference ----------------------------------------------------------------


def load(
    tenant: str, now: int, keys: Sequence[DocumentKey | Reference]
) -> tuple[str, list[object]]:
    """
    Return the statement that reads several documents, and its parameters.

    Its one row holds the time of the last commit; `loaded` makes documents of the rest.
    """
    shape: list[int] = []
    parameters: list[object] = [tenant, now]
    for key in keys:
        if isinstance(key, Reference):
            shape.append(key.of)
            parameters += (key.kind, f'$."{key.field}"')
        else:
            shape.append(-1)
            parameters += key
    # Without a key the statement asks for the time alone, and takes nothing.
    return _load(tuple(shape)), parameters if shape else []


def loaded(
    row: Row, keys: Sequence[DocumentKey | Reference]
) -> tuple[Document | None, ...]:
    """
    Return the documents in the row of `load`, ``None`` where there is none.
    """
    return tuple(
        [
            None if row[at] is None else _document(key.kind, *row[at : at + 4])
            for at, key in zip(range(1, len(row), 4), keys, strict=True)
        ]
    )


@lru_cache(maxsize=256)
def _load(shape: tuple[int, ...]) -> str:
    # For each key: the position of the earlier key that it refers to, or -1.
    columns, joins = ["s.last_commit"], []
    for position, source in enumerate(shape):
        d, kind, id_ = f"d{position}", 2 * position + 3, 2 * position + 4
        wanted = f"?{id_}" if source < 0 else f"json_extract(d{source}.indexes, ?{id_})"
        columns.append(f"{d}.id, {d}.version, {d}.body, {d}.expires")
        joins.append(
            f" LEFT JOIN document {d} ON {d}.tenant = ?1 AND {d}.kind = ?{kind}"
            f" AND {d}.id = {wanted} AND {_live(d)}"
        )
    # Positions only; what a caller names is a parameter.
    return f"SELECT {', '.join(columns)} FROM state s{''.join(joins)}"  # noqa: S608


Shape = tuple[str | tuple[str, int, str], ...]
"""What several questions have in common: for each key its kind, and for a reference all of it."""


def shape_of(keys: Sequence[DocumentKey | Reference]) -> Shape:
    """
    Return what `keys` have in common with other questions of their kind: all but the ids.
    """
    return tuple(
        [
            key.kind if isinstance(key, DocumentKey) else (key.kind, key.of, key.field)
            for key in keys
        ]
    )


def load_together(
    tenant: str,
    now: int,
    shape: Shape,
    asked: Sequence[Sequence[DocumentKey | Reference]],
) -> tuple[str, list[object]]:
    """
    Return the statement that answers several questions of one shape, and its parameters.

    Each of its rows, in no order, begins with the position of its question; the rest of it is
    a row of `load`.
    """
    ids = [[key.id for key in keys if isinstance(key, DocumentKey)] for keys in asked]
    parameters: list[object] = [tenant, now, _encode_ids(ids).decode()]
    for each in shape:
        if isinstance(each, str):
            parameters.append(each)
        else:
            parameters += (each[0], f'$."{each[2]}"')
    return _load_together(
        tuple([-1 if isinstance(e, str) else e[1] for e in shape])
    ), parameters


@lru_cache(maxsize=256)
def _load_together(shape: tuple[int, ...]) -> str:
    columns, joins = ["q.key", "s.last_commit"], []
    place, named = 4, 0
    for position, source in enumerate(shape):
        d = f"d{position}"
        columns.append(f"{d}.id, {d}.version, {d}.body, {d}.expires")
        kind = place
        if source < 0:
            wanted = f"json_extract(q.value, '$[{named}]')"
            named += 1
            place += 1
        else:
            wanted = f"json_extract(d{source}.indexes, ?{place + 1})"
            place += 2
        joins.append(
            f" LEFT JOIN document {d} ON {d}.tenant = ?1 AND {d}.kind = ?{kind}"
            f" AND {d}.id = {wanted} AND {_live(d)}"
        )
    return (
        f"SELECT {', '.join(columns)} FROM json_each(?3) q CROSS JOIN state s"  # noqa: S608
        f"{''.join(joins)}"
    )


# --- by page -------------------------------------------------------------------------------


def page(
    tenant: str | None,
    now: int,
    kind: str,
    index: tuple[str, str] | None,
    *,
    limit: int,
    after: str | None,
) -> tuple[str, dict[str, object]]:
    """
    Return the statement that reads a page of documents, and its parameters.

    Through all tenants, documents that share an id come together, even past the limit:
    the next page begins after that id.
    """
    parameters: dict[str, object] = {
        "tenant": tenant,
        "now": now,
        "kind": kind,
        "limit": limit,
        "after": after,
    }
    if index is not None:
        parameters["field"], parameters["value"] = index
    statement = _page(
        all_tenants=tenant is None,
        indexed=index is not None,
        continued=after is not None,
    )
    return statement, parameters


def listed(rows: Sequence[Row]) -> tuple[Document, ...]:
    """
    Return the documents in the rows of `page`.
    """
    return tuple(_document(*row) for row in rows)


@lru_cache
def _page(*, all_tenants: bool, indexed: bool, continued: bool) -> str:
    whose = "w.tenant" if all_tenants else ":tenant"
    id_ = "i.id" if indexed else "d.id"
    page_of_one = f"SELECT d.rowid {_candidates(whose, indexed=indexed)}"
    if continued:
        page_of_one += f" AND {id_} > :after"
    page_of_one += f" ORDER BY {id_} LIMIT :limit"
    columns = "d.kind, d.id, d.version, d.body, d.expires"
    if not all_tenants:
        return (
            f"SELECT {columns} FROM document d"  # noqa: S608 - of constants
            f" WHERE d.rowid IN ({page_of_one}) ORDER BY d.id"
        )
    placed = (
        f"SELECT {columns}, d.tenant, rank() OVER (ORDER BY d.id) AS place"  # noqa: S608
        f" FROM w CROSS JOIN document d WHERE d.rowid IN ({page_of_one})"
    )
    return (
        f"{_TENANTS} SELECT kind, id, version, body, expires FROM ({placed})"  # noqa: S608
        " WHERE place <= :limit ORDER BY id, tenant"
    )


# --- how many ------------------------------------------------------------------------------


def count(
    tenant: str, now: int, kind: str, index: tuple[str, str] | None
) -> tuple[str, dict[str, object]]:
    """
    Return the statement that counts documents, and its parameters.
    """
    parameters: dict[str, object] = {"tenant": tenant, "now": now, "kind": kind}
    if index is not None:
        parameters["field"], parameters["value"] = index
    candidates = _candidates(":tenant", indexed=index is not None)
    return f"SELECT count(*) {candidates}", parameters


def _candidates(whose: str, *, indexed: bool) -> str:
    if not indexed:
        return (
            "FROM state s CROSS JOIN document d"
            f" WHERE d.tenant = {whose} AND d.kind = :kind AND {_live('d', ':now')}"
        )
    return (
        "FROM state s CROSS JOIN document_index i CROSS JOIN document d"
        f" WHERE i.tenant = {whose} AND i.kind = :kind"
        " AND i.field = :field AND i.value = :value"
        " AND d.tenant = i.tenant AND d.kind = i.kind AND d.id = i.id"
        f" AND {_live('d', ':now')}"
    )


def _live(alias: str, now: str = "?2") -> str:
    return (
        f"({alias}.expires IS NULL"
        f" OR {alias}.expires > max({now}, s.last_commit - {TIME_FLOOR}))"
    )


def _document(
    kind: str, id_: str, version: int, body: bytes, expires: int | None
) -> Document:
    return Document(
        kind, id_, version, body, None if expires is None else from_micros(expires)
    )
