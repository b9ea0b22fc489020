"""
How the rings of a server lie in the store: made once, protected, counted.
"""

from __future__ import annotations

import asyncio
import json
import pickle
from datetime import timedelta

import pytest

from kagimori.crypto import jws
from kagimori.errors import (
    StoreError,
)
from kagimori.keys.documents import LEDGERS, RINGS
from kagimori.storage.store import Delete
from kagimori.testing.spy_store import SpyStore
from tests.keys.worlds import (
    CAUSE,
    SIGNING,
    TENANT,
    Listener,
    World,
    kid_of,
    run,
)

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def stored(world, use=SIGNING):
    """
    Return the stored ring document.
    """
    return (await RINGS.get(world.store, TENANT, use.value)).value


async def emergency(world, **more):
    """
    Rotate at once.
    """
    return await world.keys.rotate(
        TENANT, SIGNING, now_flag=True, emergency=True, cause=CAUSE, **more
    )


# --- creation and protection ---------------------------------------------------------------


def test_K4_twenty_processes_on_an_empty_store_make_one_ring(world):
    """
    K4, row 5: exactly one winner; everybody serves its keys.
    """

    async def story():
        servers = await asyncio.gather(*(world.server() for _ in range(20)))
        document = await stored(world)
        assert (1, 1) == (document.generation, len(document.keys))
        assert 1 == len({rings.jwks(TENANT, world.now).body for rings in servers})
        for rings in servers:
            assert await world.sign(rings)

    run(story())


def test_K4_twenty_rotations_at_once_leave_one_next(world):
    """
    K4, row 5: the others are told that a key waits.
    """

    async def story():
        await world.server()
        outcomes = await asyncio.gather(
            *(world.keys.rotate(TENANT, SIGNING, cause=CAUSE) for _ in range(20)),
            return_exceptions=True,
        )
        assert 1 == sum(not isinstance(each, Exception) for each in outcomes)
        assert {"key.next_waits"} == {
            each.code for each in outcomes if isinstance(each, Exception)
        }
        assert 1 == len(await world.kids("next"))

    run(story())


def test_row10_private_halves_lie_protected_and_name_their_protection_key(world):
    """
    Row 10: nothing readable in the document; the protection key is found by its index.
    """

    async def story():
        await world.server()
        document = await stored(world)
        key = document.keys[0]
        assert key.private.startswith("CfDJ8")
        assert "d" not in key.jwk
        assert world.ring.current_key_id == key.under
        found = await world.store.find(None, "ring", (f"protection:{key.under}", "1"))
        assert {"signing", "cookie"} == {each.id for each in found}

    run(story())


def test_when_the_protection_ring_turns_everything_is_protected_anew(world):
    """
    In the background, counted; then nothing names the old protection key.
    """

    async def story():
        rings = await world.server()
        token = await world.sign(rings)
        old = world.ring.current_key_id
        world.ring.rotate(immediate=True)
        assert old != world.ring.current_key_id
        generation = rings.generation(TENANT, SIGNING)
        await rings.tick(world.now)
        assert 2 == rings.reprotected
        assert () == await world.store.find(None, "ring", (f"protection:{old}", "1"))
        assert generation == rings.generation(TENANT, SIGNING)
        fresh = await world.server()
        assert kid_of(token) == kid_of(await world.sign(fresh))
        await rings.tick(world.now)
        assert 2 == rings.reprotected

    run(story())


def test_a_spent_key_keeps_its_public_half_only(world):
    """
    RETIRED: it verifies internally and can never sign again.
    """

    async def story():
        rings = await world.server()
        old = (await world.kids("current"))[0]
        await emergency(world)
        await rings.refresh()
        await rings.tick(world.now)
        ring = (await stored(world)).ring()
        assert (True, None) == (bool(ring.get(old).jwk), ring.get(old).private)
        world.clock.advance(91 * DAY)
        await rings.tick(world.now)
        assert (await stored(world)).ring().get(old) is None

    run(story())


# --- the ledger ----------------------------------------------------------------------------


def test_counts_of_two_processes_are_one_ledger(world):
    """
    Each flushes its own part.
    """

    async def story():
        one, two = await world.server(), await world.server()
        for rings in (one, two, two):
            await world.sign(rings)
        await asyncio.gather(one.flush_ledger(), two.flush_ledger())
        kid = (await world.kids("current"))[0]
        assert 3 == (await world.keys.preview(TENANT, SIGNING, kid)).live_tokens
        world.clock.advance(timedelta(minutes=12))
        assert 0 == (await world.keys.preview(TENANT, SIGNING, kid)).live_tokens

    run(story())


def test_a_ledger_that_was_lost_is_not_taken_for_empty(world):
    """
    K7: keys that are older than the ledger stay for the longest life of a token.
    """

    async def story():
        rings = await world.server()
        old = kid_of(await world.sign(rings))
        ledger = await LEDGERS.get(world.store, TENANT, SIGNING.value)
        await world.store.commit(
            TENANT, [Delete("ledger", SIGNING.value, ledger.version)]
        )
        world.clock.advance(MINUTE)
        await emergency(world)
        await rings.refresh()
        await rings.tick(world.now)
        (view,) = [v for v in await world.keys.list(TENANT) if v.kid == old]
        assert view.retires + DAY + MINUTE == view.expires

    run(story())


def test_a_flush_that_fails_loses_no_count(world):
    """
    It is written the next time.
    """

    async def story():
        spy = SpyStore(world.store)
        rings = await world.server(store=spy)
        await world.sign(rings)
        works = spy.commit

        async def broken(tenant, changes):
            raise StoreError("disk full")

        spy.commit = broken
        with pytest.raises(StoreError):
            await rings.flush_ledger()
        spy.commit = works
        await rings.flush_ledger()
        kid = (await world.kids("current"))[0]
        assert 1 == (await world.keys.preview(TENANT, SIGNING, kid)).live_tokens

    run(story())


def test_a_busy_key_does_not_wait_for_its_ledger(world):
    """
    Room is made ahead by the tick, so that requests find it.
    """

    async def story():
        spy = SpyStore(world.store)
        rings = await world.server(store=spy)
        waited = 0
        for _ in range(180):
            world.clock.advance(SECOND)
            await rings.refresh()
            before = len(spy.calls)
            await world.sign(rings)
            waited += len(spy.calls) > before
            await rings.tick(world.now)
        assert 1 == waited

    run(story())


def test_transitions_are_told_once(world):
    """
    Published, activated, retired, expired: events with ids and nothing secret.
    """

    async def story():
        listener = Listener()
        rings = await world.server(events=listener)
        await rings.tick(world.now)
        token = await world.sign(rings, life=60)
        new = (await world.keys.rotate(TENANT, SIGNING, cause=CAUSE)).key.kid
        await world.run(rings, MINUTE, 20 * SECOND)
        world.clock.advance(DAY)
        await world.run(rings, 3 * MINUTE, 20 * SECOND)
        told = [
            (event.name, event.fields["kid"])
            for event in listener.events
            if event.name.startswith("key.")
        ]
        old = kid_of(token)
        assert ("key.published", new) == told[0]
        assert {("key.activated", new), ("key.retired", old)} == set(told[1:3])
        assert [("key.expired", old)] == told[3:]

    run(story())


def test_live_keys_show_and_leak_nothing(world):
    """
    K9: neither repr nor pickle give a private half away.
    """

    async def story():
        rings = await world.server()
        until = world.now + HOUR
        key = await rings.signing_key(TENANT, None, world.now, until)
        cookie = rings.cookie_key(TENANT, world.now)
        document = (await stored(world)).keys[0]
        private = world.ring.protector("kagimori", "signing", TENANT, key.id)
        secret = json.loads(private.unprotect(document.private).payload)["d"]
        for one in (key, cookie, document):
            assert secret not in repr(one)
            assert document.private not in repr(one)
        for one in (key, cookie):
            with pytest.raises(TypeError):
                pickle.dumps(one)
        message = b"signed"
        key.public.verify(key.sign(message), message)
        assert jws.verify(
            key.jws_signer().sign(message), key.public, algorithms=["ES256"]
        )

    run(story())


def test_many_requests_at_once_make_one_reservation(world):
    """
    They wait for one write, not each for its own; two processes do not starve each other.
    """

    async def story():
        spies = [SpyStore(world.store), SpyStore(world.store)]
        servers = [await world.server(store=spy) for spy in spies]
        before = [len(spy.calls) for spy in spies]
        tokens = await asyncio.gather(
            *(world.sign(servers[number % 2]) for number in range(100))
        )
        assert 1 == len({kid_of(token) for token in tokens})
        for spy, calls in zip(spies, before, strict=True):
            assert len(spy.calls) - calls <= 6

    run(story())


def test_a_cancelled_successor_is_not_published_again_at_once(world):
    """
    Cancelling puts the schedule off by a period.
    """

    async def story():
        rings = await world.server()
        world.clock.advance(89 * DAY)
        await rings.tick(world.now)
        (kid,) = await world.kids("next")
        await world.keys.cancel(TENANT, SIGNING, kid=kid, cause=CAUSE)
        await rings.refresh()
        await rings.tick(world.now)
        assert [] == await world.kids("next")
        world.clock.advance(89 * DAY)
        await rings.tick(world.now)
        assert 1 == len(await world.kids("next"))

    run(story())
