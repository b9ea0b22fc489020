"""
What is known without asking the store, and when it is forgotten.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from kagimori.errors import ConflictError
from kagimori.oauth.client import CLIENTS, Client
from kagimori.oauth.directory import Directory
from kagimori.oauth.resource import RESOURCES, Resource
from kagimori.oauth.tenant import TENANTS, Tenant
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore
from kagimori.testing.spy_store import SpyStore


class Place:
    """
    A store with one tenant, one client and one resource, and a directory of it.
    """

    def __init__(self, **bounds):
        self.clock = FixedClock()
        self.memory = MemoryStore(self.clock)
        self.store = SpyStore(self.memory)
        self.directory = Directory(self.store, **bounds)
        now = self.clock.now()
        self.client = Client(id="app", created=now)
        self.resource = Resource(id="api", identifier="urn:x:api", created=now)
        asyncio.run(self.put(TENANTS.put("t", Tenant(id="t", created=now), 0)))
        asyncio.run(self.put(CLIENTS.put("app", self.client, 0)))
        asyncio.run(self.put(RESOURCES.put("api", self.resource, 0)))

    async def put(self, *changes):
        await self.memory.commit("t", changes)

    async def rename(self, name):
        found = await CLIENTS.get(self.memory, "t", "app")
        changed = msgspec.structs.replace(found.value, name=name)
        await self.put(CLIENTS.put("app", changed, found.version))


@pytest.fixture
def place():
    return Place()


def names(place):
    return [call.name for call in place.store.calls]


def test_what_was_read_once_is_not_read_again(place):
    """
    Clients, resources and tenants come from memory after the first time.
    """

    async def story():
        for _ in range(3):
            assert await place.directory.get_client("t", "app")
            assert await place.directory.get_tenant("t")
            resources = await place.directory.get_resources("t")
            assert resources.by_id["api"] is resources.by_identifier["urn:x:api"]

    asyncio.run(story())

    assert ["load_many", "load_many", "find"] == names(place)


def test_a_change_is_seen_at_the_next_poll(place):
    """
    The change counter drops everything; without a change polling keeps everything.
    """

    async def story():
        directory = place.directory
        await directory.poll()
        before = await directory.get_client("t", "app")
        assert not await directory.poll()
        assert before is await directory.get_client("t", "app")
        await place.rename("new")
        stale = await directory.get_client("t", "app")
        assert await directory.poll()
        return before, stale, await directory.get_client("t", "app")

    before, stale, after = asyncio.run(story())

    assert before is stale
    assert ("", "new") == (before.client.name, after.client.name)
    assert after.version != before.version


def test_what_was_read_while_a_change_came_in_is_not_kept(place):
    """
    A read that began before an invalidation is answered, but asked again the next time.
    """

    async def story():
        directory = place.directory
        reading = asyncio.create_task(directory.get_client("t", "app"))
        others = [
            asyncio.create_task(directory.get_resources("t")),
            asyncio.create_task(directory.get_tenant("t")),
            asyncio.create_task(directory.offers_password_grant("t")),
            asyncio.create_task(directory.get_client("t", "absent")),
        ]
        await asyncio.sleep(0)
        directory.invalidate()
        await asyncio.gather(reading, *others)
        place.store.calls.clear()
        await directory.get_client("t", "app")
        await directory.get_resources("t")
        await directory.get_tenant("t")
        await directory.offers_password_grant("t")
        await directory.get_client("t", "absent")

    asyncio.run(story())

    assert 5 == len(place.store.calls)


def test_S2_a_flood_of_unknown_clients_stays_small(place):
    """
    Absent names are remembered, a bounded number; impossible ones are not even asked for.
    """
    small = Directory(place.store, capacity=10)

    async def story():
        for n in range(100):
            for _ in range(3):
                assert await small.get_client("t", f"absent {n}") is None
        for impossible in ("", "x" * 10_000, "a\0b", " app", "usr_1"):
            assert await small.get_client("t", impossible) is None

    asyncio.run(story())

    assert 100 == len(place.store.calls)
    assert 10 == len(small._absent._entries)


def test_a_client_that_is_made_later_is_found(place):
    """
    A remembered absence ends with the next change.
    """

    async def story():
        directory = place.directory
        await directory.poll()
        assert await directory.get_client("t", "late") is None
        late = Client(id="late", created=place.clock.now())
        await place.put(CLIENTS.put("late", late, 0))
        await directory.poll()
        return await directory.get_client("t", "late")

    assert "late" == asyncio.run(story()).client.id


def test_known_clients_are_bounded(place):
    """
    Of more clients than there is room for the oldest is read again.
    """
    small = Directory(place.store, capacity=2)

    async def story():
        for n in range(5):
            client = Client(id=f"c{n}", created=place.clock.now())
            await place.put(CLIENTS.put(client.id, client, 0))
            await small.get_client("t", client.id)

    asyncio.run(story())

    assert 2 == len(small._clients._entries)


def test_all_resources_are_found_whatever_their_number(place):
    """
    More resources than fit a page are all known.
    """

    async def story():
        now = place.clock.now()
        for start in range(0, 1200, 100):
            await place.put(
                *(
                    RESOURCES.put(
                        f"r{n}",
                        Resource(id=f"r{n}", identifier=f"urn:x:{n}", created=now),
                        0,
                    )
                    for n in range(start, start + 100)
                )
            )
        return await place.directory.get_resources("t")

    assert 1201 == len(asyncio.run(story()).by_id)


def test_tenants_are_apart(place):
    """
    A client of one tenant is nobody in another.
    """

    async def story():
        return (
            await place.directory.get_client("t", "app"),
            await place.directory.get_client("u", "app"),
            await place.directory.get_tenant("u"),
        )

    mine, theirs, tenant = asyncio.run(story())

    assert mine is not None
    assert theirs is None
    assert tenant is None


def test_a_stale_writer_is_refused(place):
    """
    The directory's version is the document's: writing on an old one conflicts.
    """

    async def story():
        record = await place.directory.get_client("t", "app")
        await place.rename("new")
        with pytest.raises(ConflictError):
            await place.put(CLIENTS.put("app", record.client, record.version))

    asyncio.run(story())
    place.clock.advance(timedelta(0))
