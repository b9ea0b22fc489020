"""
Where the stories of the suite are played: a store, a clock, and short words for long calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from kagimori.clock import Clock
from kagimori.errors import ConflictError
from kagimori.storage.store import (
    Check,
    Delete,
    Document,
    DocumentKey,
    Put,
    Reference,
    Store,
)
from kagimori.testing.clock import FixedClock
from kagimori.testing.conformance.counting import TENANT

Story = Callable[[Store, FixedClock], Awaitable[None]]

Key = DocumentKey | Reference

OTHER = "globex"
TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


class StoreStage:
    """
    Makes the store that is tested.
    """

    def make_store(self, place: Path, clock: Clock) -> Store:
        """
        Open the store that is tested: the hook to fill in.

        Args:
            place: an empty folder of this test; the same folder means the same data.
            clock: the store's clock.
        """
        raise NotImplementedError

    def play(self, place: Path, story: Story) -> None:
        """
        Open a store, tell a story with it in an event loop, and close it.
        """

        async def told() -> None:
            clock = FixedClock()
            store = self.make_store(place, clock)
            try:
                await story(store, clock)
            finally:
                await store.close()

        asyncio.run(told())


async def load(store: Store, id_: str, *, tenant: str = TENANT) -> Document | None:
    """
    Read one note.
    """
    return (await store.load_many(tenant, [DocumentKey("note", id_)])).documents[0]


async def make(store: Store, *puts: Put, tenant: str = TENANT) -> tuple[Document, ...]:
    """
    Write documents in one commit, and return them as the store holds them.
    """
    await store.commit(tenant, puts)
    loaded = await store.load_many(tenant, [DocumentKey(p.kind, p.id) for p in puts])
    return tuple(document for document in loaded.documents if document is not None)


async def refuses(store: Store, *changes: Put | Delete | Check) -> None:
    """
    See that a commit conflicts.
    """
    with pytest.raises(ConflictError):
        await store.commit(TENANT, changes)


async def ids(
    store: Store, index: tuple[str, str] | None = None, *, tenant: str | None = TENANT
) -> list[str]:
    """
    Return the ids of the notes that a list brings.
    """
    return [found.id for found in await store.find(tenant, "note", index)]
