"""
A `Store` that passes every call on and remembers it, for tests that count round trips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kagimori.storage.store import (
    Change,
    Document,
    DocumentKey,
    Loaded,
    Reference,
    Store,
)


@dataclass(frozen=True, slots=True)
class StoreCall:
    """
    One call of a store.

    Attributes:
        name: the method, such as ``load_many``.
        tenant: whose; ``None`` where the call has none.
        kinds: the kinds of document that it names, in order.
    """

    name: str
    tenant: str | None = None
    kinds: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.kinds)})"


class SpyStore:
    """
    Passes every call to another store and remembers it in `calls`.

    Polling (`change_counter`) is remembered too; `of` and `times` select by method.

    Args:
        store: the store that does the work.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[StoreCall] = []

    @property
    def name(self) -> str:
        """
        Say where the data lies.
        """
        return self._store.name

    def of(self, *names: str) -> tuple[StoreCall, ...]:
        """
        Return the remembered calls of some methods.
        """
        return tuple(call for call in self.calls if call.name in names)

    def times(self, *names: str) -> int:
        """
        Count the remembered calls of some methods.
        """
        return len(self.of(*names))

    def clear(self) -> None:
        """
        Forget what was remembered.
        """
        self.calls.clear()

    async def load_many(
        self, tenant: str, keys: Sequence[DocumentKey | Reference]
    ) -> Loaded:
        """
        Remember and pass on.
        """
        self._remember("load_many", tenant, *(key.kind for key in keys))
        return await self._store.load_many(tenant, keys)

    async def commit(self, tenant: str, changes: Sequence[Change]) -> datetime:
        """
        Remember and pass on.
        """
        self._remember("commit", tenant, *(change.kind for change in changes))
        return await self._store.commit(tenant, changes)

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
        Remember and pass on.
        """
        self._remember("find", tenant, kind)
        return await self._store.find(tenant, kind, index, limit=limit, after=after)

    async def count(
        self, tenant: str, kind: str, index: tuple[str, str] | None = None
    ) -> int:
        """
        Remember and pass on.
        """
        self._remember("count", tenant, kind)
        return await self._store.count(tenant, kind, index)

    async def change_counter(self) -> int:
        """
        Remember and pass on.
        """
        self._remember("change_counter", None)
        return await self._store.change_counter()

    async def purge(self, limit: int = 1000) -> int:
        """
        Remember and pass on.
        """
        self._remember("purge", None)
        return await self._store.purge(limit)

    async def close(self) -> None:
        """
        Remember and pass on.
        """
        self._remember("close", None)
        await self._store.close()

    def _remember(self, name: str, tenant: str | None, *kinds: str) -> None:
        self.calls.append(StoreCall(name, tenant, kinds))
