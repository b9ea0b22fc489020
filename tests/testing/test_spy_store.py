"""
The store that remembers what was asked of it; that it passes calls on, the suite proves.
"""

from __future__ import annotations

import asyncio

from kagimori.storage.store import ABSENT, DocumentKey, Put, Reference
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore
from kagimori.testing.spy_store import SpyStore, StoreCall


def test_a_spy_remembers_every_call():
    """
    Each call is remembered by name, tenant and kinds, until it is told to forget.
    """

    async def story() -> SpyStore:
        store = SpyStore(MemoryStore(FixedClock()))
        await store.commit("acme", [Put("family", "f", b"", ABSENT)])
        keys = [DocumentKey("family", "f"), Reference("user", 0, "user")]
        await store.load_many("acme", keys)
        await store.find(None, "tenant")
        await store.count("acme", "family")
        await store.change_counter()
        await store.purge()
        await store.close()
        return store

    store = asyncio.run(story())

    assert [
        StoreCall("commit", "acme", ("family",)),
        StoreCall("load_many", "acme", ("family", "user")),
        StoreCall("find", None, ("tenant",)),
        StoreCall("count", "acme", ("family",)),
        StoreCall("change_counter"),
        StoreCall("purge"),
        StoreCall("close"),
    ] == store.calls
    assert "load_many(family, user)" == str(store.calls[1])
    assert 2 == store.times("commit", "load_many")
    assert (store.calls[2],) == store.of("find")
    assert "memory" == store.name
    store.clear()
    assert 0 == store.times("commit")
