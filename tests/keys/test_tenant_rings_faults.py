"""
The live rings of a server when something is wrong: they serve what they can and mint nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from kagimori.errors import (
    RingUnreadableError,
    SigningUnavailableError,
    StoreError,
)
from kagimori.events import Severity
from kagimori.keys.birth import NewRings
from kagimori.keys.documents import RINGS
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


# --- failing softly ------------------------------------------------------------------------


def test_row7_a_store_that_fails_leaves_the_last_good_ring_serving(world):
    """
    Row 7: published set unchanged, an alarm once, and the recovery is told.
    """

    async def story():
        listener = Listener()
        spy = SpyStore(world.store)
        rings = await world.server(store=spy, events=listener)
        token = await world.sign(rings)
        body = rings.jwks(TENANT, world.now).body
        works = spy.change_counter

        async def broken():
            raise StoreError("no answer", transient=True)

        spy.change_counter = broken
        for _ in range(3):
            world.clock.advance(20 * SECOND)
            await rings.refresh()
        assert world.verify(rings, token)
        assert body == rings.jwks(TENANT, world.now).body
        assert kid_of(token) == kid_of(await world.sign(rings, life=10))
        assert ["ring.unreadable"] == listener.names()
        assert Severity.ALARM is listener.events[0].severity
        assert rings.is_stale

        spy.change_counter = works
        await rings.refresh()
        assert "ring.recovered" == listener.names()[-1]
        world.clock.advance(MINUTE)
        await rings.refresh()
        assert not rings.is_stale

    run(story())


def test_without_room_in_the_ledger_nothing_is_signed(world):
    """
    A token that no ledger knows of would outlive its key.
    """

    async def story():
        spy = SpyStore(world.store)
        rings = await world.server(store=spy)
        works = spy.commit

        async def broken(tenant, changes):
            raise StoreError("disk full")

        spy.commit = broken
        with pytest.raises(SigningUnavailableError) as refused:
            await world.sign(rings)
        assert "ledger" in refused.value.text
        spy.commit = works
        assert await world.sign(rings)

    run(story())


def test_K5_a_wrong_protection_ring_mints_nothing(world):
    """
    K5, row 4: unreadable is not absent. Not ready, the missing key named, nothing changed.
    """

    async def story():
        rings = await world.server()
        token = await world.sign(rings)
        before = await stored(world)
        listener = Listener()
        other = await world.server(ring=world.open_ring("other"), events=listener)
        assert isinstance(other.problem, RingUnreadableError)
        assert before.keys[0].under in other.problem.text
        with pytest.raises(SigningUnavailableError):
            await world.sign(other)
        assert "ring.unreadable" in listener.names()
        # It verifies and publishes as before: public halves need no protection key.
        assert world.verify(other, token)
        assert rings.jwks(TENANT, world.now).body == other.jwks(TENANT, world.now).body
        world.clock.advance(200 * DAY)
        await other.tick(world.now)
        await other.refresh()
        assert before == await stored(world)
        # With the right ring everything is as before.
        assert await world.sign(rings)

    run(story())


def test_K5_one_unreadable_key_costs_that_key_alone(tmp_path):
    """
    K5: other good keys go on working, and the lost one is replaced by an operator only.
    """

    async def story():
        world = World(tmp_path, plan=NewRings())
        await world.server()
        ring = await RINGS.get(world.store, TENANT, SIGNING.value)
        keys = tuple(
            msgspec.structs.replace(key, private=key.private[:-8] + "AAAAAAAA")
            if key.algorithm == "RS256"
            else key
            for key in ring.value.keys
        )
        damaged = msgspec.structs.replace(ring.value, keys=keys)
        await world.store.commit(
            TENANT, [RINGS.put(SIGNING.value, damaged, ring.version)]
        )
        rings = await world.server()
        assert await world.sign(rings)
        with pytest.raises(SigningUnavailableError):
            await world.sign(rings, algorithm="RS256")
        assert 2 == len(json.loads(rings.jwks(TENANT, world.now).body)["keys"])

        await emergency(world, algorithm="RS256")
        await rings.refresh()
        assert await world.sign(rings, algorithm="RS256")
        assert rings.problem is None

    run(story())


def test_K5_what_was_unreadable_for_a_while_is_read_again(world):
    """
    K13: the protection ring came back; nobody has to restart.
    """

    async def story():
        await world.server()

        class Flaky:
            broken = True
            current_key_id = "none"

            def protector(self, *purposes):
                if self.broken:
                    raise StoreError("the vault does not answer", transient=True)
                return world.ring.protector(*purposes)

        root = Flaky()
        listener = Listener()
        rings = await world.server(ring=root, events=listener)
        assert rings.problem is not None
        root.broken = False
        world.clock.advance(6 * SECOND)
        await rings.refresh()
        assert rings.problem is None
        assert await world.sign(rings)
        assert "ring.recovered" in listener.names()

    run(story())


def test_K14_a_swapped_public_half_is_not_signed_for(world):
    """
    K14: the private half is proven against the public one when it is read.
    """

    async def story():
        await world.server()
        await world.tenants.create("acme", cause=CAUSE)
        other = (await RINGS.get(world.store, "acme", SIGNING.value)).value.keys[0]
        ring = await RINGS.get(world.store, TENANT, SIGNING.value)
        swapped = msgspec.structs.replace(
            ring.value.keys[0], jwk={**other.jwk, "kid": ring.value.keys[0].id}
        )
        document = msgspec.structs.replace(ring.value, keys=(swapped,))
        await world.store.commit(
            TENANT, [RINGS.put(SIGNING.value, document, ring.version)]
        )
        rings = await world.server()
        assert "do not fit" in rings.problems()[TENANT].detail
        with pytest.raises(SigningUnavailableError):
            await world.sign(rings)

    run(story())


def test_K3_a_private_half_is_bound_to_its_tenant(world):
    """
    K3: copied into another tenant's ring it does not open.
    """

    async def story():
        await world.server()
        await world.tenants.create("acme", cause=CAUSE)
        mine = (await RINGS.get(world.store, TENANT, SIGNING.value)).value
        theirs = await RINGS.get(world.store, "acme", SIGNING.value)
        copied = msgspec.structs.replace(theirs.value, keys=mine.keys)
        await world.store.commit(
            "acme", [RINGS.put(SIGNING.value, copied, theirs.version)]
        )
        rings = await world.server()
        assert "acme" in rings.problems()
        with pytest.raises(SigningUnavailableError):
            await world.sign(rings, tenant="acme")
        assert await world.sign(rings)
        assert rings.problem is None

    run(story())


def test_K7_a_ring_that_goes_back_is_not_taken(world):
    """
    K7: an older database put under a running server; the last good ring serves, alarmed.
    """

    async def story():
        listener = Listener()
        rings = await world.server(events=listener)
        before = await stored(world)
        await emergency(world)
        await rings.refresh()
        generation = rings.generation(TENANT, SIGNING)
        now = await RINGS.get(world.store, TENANT, SIGNING.value)
        await world.store.commit(
            TENANT, [RINGS.put(SIGNING.value, before, now.version)]
        )
        await rings.refresh()
        assert generation == rings.generation(TENANT, SIGNING)
        assert "ring.unreadable" in listener.names()

    run(story())


def test_a_damaged_document_takes_no_other_tenant_down(world):
    """
    One row that cannot be read hides no other and lets nothing go.
    """

    async def story():
        await world.tenants.create("acme", cause=CAUSE)
        listener = Listener()
        rings = await world.server(events=listener)
        token = await world.sign(rings, tenant="acme", life=60)
        ring = await RINGS.get(world.store, "acme", SIGNING.value)
        put = RINGS.put(SIGNING.value, ring.value, ring.version)
        await world.store.commit("acme", [replace(put, body=b"{}")])
        await rings.refresh()
        assert "ring.unreadable" in listener.names()
        assert await world.sign(rings)
        # The last good ring serves, but only as far as its ledger has room.
        assert await world.sign(rings, tenant="acme", life=60)
        assert world.verify(rings, token, "acme")
        with pytest.raises(SigningUnavailableError, match="cannot be read"):
            await world.sign(rings, tenant="acme", life=600)

    run(story())
