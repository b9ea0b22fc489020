"""
A `Store` in memory, for tests: all the rules of the real ones, none of their durability.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kagimori.clock import Clock
from kagimori.errors import ConflictError, StoreError
from kagimori.storage.checks import check_changes, check_keys, check_page
from kagimori.storage.store import (
    ABSENT,
    Change,
    Check,
    Delete,
    Document,
    DocumentKey,
    Loaded,
    Put,
    Reference,
)

TIME_FLOOR = timedelta(seconds=5)
"""How far the store's time may fall behind its last commit (DESIGN decision 11)."""

_Address = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Held:
    document: Document
    indexes: Mapping[str, str]


class MemoryStore:
    """
    Versioned documents in a dictionary.

    Several event loops in several threads may share one. Every call gives other tasks a turn
    first, so that races show as they would on a real store.

    Args:
        clock: where the store's time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[_Address, _Held] = {}
        self._revision = 0
        self._counter = 0
        self._last_commit = datetime.min.replace(tzinfo=UTC) + TIME_FLOOR
        self._closed = False

    @property
    def name(self) -> str:
        """
        Say where the data lies.
        """
        return "memory"

    async def load_many(
        self, tenant: str, keys: Sequence[DocumentKey | Reference]
    ) -> Loaded:
        """
        Read several documents of a tenant; see `kagimori.storage.store.Store`.
        """
        check_keys(tenant, keys)
        await self._turn()
        with self._lock:
            now = self._now()
            found: list[_Held | None] = []
            for key in keys:
                if isinstance(key, Reference):
                    source = found[key.of]
                    id_ = None if source is None else source.indexes.get(key.field)
                else:
                    id_ = key.id
                found.append(
                    None if id_ is None else self._live((tenant, key.kind, id_), now)
                )
        return Loaded(tuple(None if h is None else h.document for h in found), now)

    async def commit(self, tenant: str, changes: Sequence[Change]) -> datetime:
        """
        Write several documents of a tenant at once; see `kagimori.storage.store.Store`.
        """
        check_changes(tenant, changes)
        await self._turn()
        with self._lock:
            now = self._now()
            for change in changes:
                held = self._live((tenant, change.kind, change.id), now)
                version = ABSENT if held is None else held.document.version
                if version != change.expect:
                    raise ConflictError(
                        "A stored document changed in the meantime.",
                        detail=f"kind {change.kind}",
                    )
            self._revision += 1
            for change in changes:
                self._apply(tenant, change)
            if any(not isinstance(c, Check) and c.announce for c in changes):
                self._counter += 1
            self._last_commit = max(self._last_commit, now)
            return now

    async def find(
        self,
        tenant: str | None,
        kind: str,
        index: tuple[str, str] | None = None,
        *,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[Document, ...]:
        """
        List documents of a kind in the order of their ids; see `kagimori.storage.store.Store`.

        Where `tenant` is ``None``, documents of several tenants that share an id are never
        split between two pages: a page may then be longer than `limit`.
        """
        check_page(limit)
        await self._turn()
        with self._lock:
            found = sorted(
                (
                    (whose, held.document)
                    for whose, held in self._matching(tenant, kind, index)
                    if after is None or held.document.id > after
                ),
                key=lambda pair: (pair[1].id, pair[0]),
            )
        page = [document for _, document in found]
        end = limit
        while tenant is None and end < len(page) and page[end].id == page[end - 1].id:
            end += 1
        return tuple(page[:end])

    async def count(
        self, tenant: str, kind: str, index: tuple[str, str] | None = None
    ) -> int:
        """
        Count documents of a kind; see `kagimori.storage.store.Store`.
        """
        await self._turn()
        with self._lock:
            return sum(1 for _ in self._matching(tenant, kind, index))

    async def change_counter(self) -> int:
        """
        Return a number that moves with every commit that announces a change.
        """
        await self._turn()
        return self._counter

    async def purge(self, limit: int = 1000) -> int:
        """
        Delete documents that have expired, `limit` at most; return how many.
        """
        await self._turn()
        with self._lock:
            now = self._now()
            gone = [a for a, held in self._held.items() if _expired(held, now)][:limit]
            for address in gone:
                del self._held[address]
            return len(gone)

    async def close(self) -> None:
        """
        Refuse everything from here on.
        """
        self._closed = True

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self._closed:
            raise StoreError("The store is closed.", transient=True)

    def _now(self) -> datetime:
        return max(self._clock.now(), self._last_commit - TIME_FLOOR)

    def _live(self, address: _Address, now: datetime) -> _Held | None:
        held = self._held.get(address)
        return None if held is None or _expired(held, now) else held

    def _apply(self, tenant: str, change: Change) -> None:
        address = (tenant, change.kind, change.id)
        match change:
            case Put():
                self._held[address] = _Held(
                    Document(
                        change.kind,
                        change.id,
                        self._revision,
                        change.body,
                        change.expires and change.expires.astimezone(UTC),
                    ),
                    dict(change.indexes),
                )
            case Delete() if change.expect != ABSENT:
                del self._held[address]
            case _:
                pass

    def _matching(
        self, tenant: str | None, kind: str, index: tuple[str, str] | None
    ) -> Iterator[tuple[str, _Held]]:
        now = self._now()
        for (whose, of_kind, _), held in self._held.items():
            if of_kind != kind or (tenant is not None and whose != tenant):
                continue
            if index is not None and held.indexes.get(index[0]) != index[1]:
                continue
            if not _expired(held, now):
                yield whose, held


def _expired(held: _Held, now: datetime) -> bool:
    expires = held.document.expires
    return expires is not None and expires <= now
