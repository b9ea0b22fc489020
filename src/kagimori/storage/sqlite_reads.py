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


Keys = Sequence[DocumentKey | Reference]
Shape = tuple[str | tuple[str, int, str], ...]
"""What several questions have in common: for each key its kind, and for a reference all of it."""


def shape_of(keys: Keys) -> Shape:
    """
    Return what `keys` have in common with other questions of their kind: all but the ids.
    """
    return tuple(
        [
            key.kind if isinstance(key, DocumentKey) else (key.kind, key.of, key.field)
            for key in keys
        ]
    )


def load(tenant: str, now: int, asked: Sequence[Keys]) -> tuple[str, list[object]]:
    """
    Return the statement that answers questions of one shape, and its parameters.

    Each of its rows, in no order, holds the position of its question and the time of the last
    commit; `loaded` makes documents of the rest.
    """
    # For each key: the position of the earlier key that it refers to, or -1.
    sources: list[int] = []
    parameters: list[object] = [tenant, now]
    for key in asked[0]:
        if isinstance(key, Reference):
            sources.append(key.of)
            parameters += (key.kind, f'$."{key.field}"')
        else:
            sources.append(-1)
            parameters.append(key.kind)
    for keys in asked:
        parameters += [key.id for key in keys if isinstance(key, DocumentKey)]
    # Without a key the statement asks for the time alone, and takes nothing.
    return _load(tuple(sources), len(asked)), parameters if sources else []


def loaded(row: Row, keys: Keys) -> tuple[Document | None, ...]:
    """
    Return the documents in a row of `load`, ``None`` where there is none.
    """
    return tuple(
        [
            None if row[at] is None else _document(key.kind, *row[at : at + 4])
            for at, key in zip(range(2, len(row), 4), keys, strict=True)
        ]
    )


@lru_cache(maxsize=256)
def _load(sources: tuple[int, ...], count: int) -> str:
    columns, joins = ["q.number", "s.last_commit"], []
    place, ids = 3, 0
    for position, source in enumerate(sources):
        d, kind = f"d{position}", place
        columns.append(f"{d}.id, {d}.version, {d}.body, {d}.expires")
        if source < 0:
            wanted = f"q.id{ids}"
            ids += 1
            place += 1
        else:
            wanted = f"json_extract(d{source}.indexes, ?{place + 1})"
            place += 2
        joins.append(
            f" LEFT JOIN document {d} ON {d}.tenant = ?1 AND {d}.kind = ?{kind}"
            f" AND {d}.id = {wanted} AND {_live(d)}"
        )
    names = ", ".join(["number", *(f"id{n}" for n in range(ids))])
    rows = ", ".join(
        f"({', '.join([str(n), *(f'?{place + n * ids + m}' for m in range(ids))])})"
        for n in range(count)
    )
    # Positions only; what a caller names is a parameter.
    return (
        f"WITH q({names}) AS (VALUES {rows})"  # noqa: S608
        f" SELECT {', '.join(columns)} FROM q CROSS JOIN state s{''.join(joins)}"
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
