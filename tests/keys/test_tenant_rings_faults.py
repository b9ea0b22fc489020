"""
The live rings of a server when something is wrong: they serve what they can and mint nothing.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import msgspec
import pytest

from kagimori.errors import (
    KeyRingError,
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
    COOKIE,
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
        assert rings.is_stale
        # What it signs with is confirmed by a read of its own.
        assert kid_of(token) == kid_of(await world.sign(rings, life=10))
        assert ["ring.unreadable"] == listener.names()
        assert Severity.ALARM is listener.events[0].severity

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
        await world.store.commit("acme", [msgspec.structs.replace(put, body=b"{}")])
        await rings.refresh()
        assert "ring.unreadable" in listener.names()
        assert await world.sign(rings)
        # The last good ring serves, but only as far as its ledger has room.
        assert await world.sign(rings, tenant="acme", life=60)
        assert world.verify(rings, token, "acme")
        with pytest.raises(SigningUnavailableError, match="cannot be read"):
            await world.sign(rings, tenant="acme", life=600)

    run(story())


def test_a_malformed_public_half_leaves_the_last_good_ring_serving(world):
    """
    Row 7: one bad row shrinks nothing.
    """

    async def story():
        listener = Listener()
        rings = await world.server(events=listener)
        token = await world.sign(rings)
        ring = await RINGS.get(world.store, TENANT, SIGNING.value)
        bad = msgspec.structs.replace(
            ring.value.keys[0], id="other", jwk={"kty": "EC", "crv": "P-256"}
        )
        document = msgspec.structs.replace(ring.value, keys=(*ring.value.keys, bad))
        await world.store.commit(
            TENANT, [RINGS.put(SIGNING.value, document, ring.version)]
        )
        await rings.refresh()
        assert world.verify(rings, token)
        assert ["ring.unreadable"] == listener.names()
        fresh = await world.server()
        assert "other" in fresh.problem.text
        with pytest.raises(SigningUnavailableError):
            fresh.jwks(TENANT, world.now)

    run(story())


class Sulking:
    """
    A protection ring that can be made to refuse.
    """

    def __init__(self, ring):
        """
        Begin by working.
        """
        self.ring = ring
        self.refuses = False

    @property
    def current_key_id(self):
        """
        Return the key that protects.
        """
        if self.refuses:
            raise KeyRingError("No key can protect.")
        return self.ring.current_key_id

    def protector(self, *purposes):
        """
        Return a protector, or refuse.
        """
        if self.refuses:
            raise KeyRingError("No key can protect.")
        return self.ring.protector(*purposes)


def test_a_successor_that_cannot_be_protected_is_an_alarm_and_tried_again(world):
    """
    The current key signs on past its date: late, never a gap.
    """

    async def story():
        listener = Listener()
        root = Sulking(world.ring)
        rings = await world.server(ring=root, events=listener)
        root.refuses = True
        world.clock.advance(100 * DAY)
        for _ in range(2):
            await rings.tick(world.now)
        alarms = [e.name for e in listener.events if e.severity is Severity.ALARM]
        assert ["ring.upkeep_failed", "ring.upkeep_failed"] == alarms
        assert [] == await world.kids("next")
        assert await world.sign(rings)
        root.refuses = False
        await rings.tick(world.now)
        assert 1 == len(await world.kids("next"))
        assert 1 == len(await world.kids("next", "cookie"))

    run(story())


def test_what_cannot_be_re_protected_stays_and_is_tried_again(world):
    """
    Half moved is fine: each private half names the key under which it lies.
    """

    async def story():
        await world.server()
        ring = await RINGS.get(world.store, TENANT, SIGNING.value)
        lost = msgspec.structs.replace(
            ring.value.keys[0], id="lost", jwk={**ring.value.keys[0].jwk, "kid": "lost"}
        )
        document = msgspec.structs.replace(ring.value, keys=(*ring.value.keys, lost))
        await world.store.commit(
            TENANT, [RINGS.put(SIGNING.value, document, ring.version)]
        )
        rings = await world.server()
        old = world.ring.current_key_id
        world.ring.rotate(immediate=True)
        for _ in range(3):
            await rings.tick(world.now)
            world.clock.advance(MINUTE)
        assert 2 == rings.reprotected
        under = {key.id: key.under for key in (await stored(world)).keys}
        assert old == under.pop("lost")
        assert {world.ring.current_key_id} == set(under.values())

    run(story())


def test_what_does_not_read_back_is_never_stored(world):
    """
    After protecting, before the commit: a key that could not be used again is no key.
    """

    class Forgetful:
        current_key_id = "any"

        def protector(self, *purposes):
            return self

        def protect(self, payload):
            return "protected"

        def unprotect(self, text):
            return world.ring.protector("x").unprotect(
                world.ring.protector("x").protect(b"something else")
            )

    async def story():
        with pytest.raises(RingUnreadableError, match="cannot be read"):
            await world.server(ring=Forgetful())
        assert await RINGS.get(world.store, TENANT, SIGNING.value) is None
        assert await world.server()

    run(story())


def test_an_unreadable_cookie_key_is_a_problem_of_its_tenant(world):
    """
    It derives nothing and is not replaced.
    """

    async def story():
        await world.server()
        ring = await RINGS.get(world.store, TENANT, COOKIE.value)
        key = ring.value.keys[0]
        damaged = msgspec.structs.replace(key, private=key.private[:-8] + "AAAAAAAA")
        document = msgspec.structs.replace(ring.value, keys=(damaged,))
        await world.store.commit(
            TENANT, [RINGS.put(COOKIE.value, document, ring.version)]
        )
        rings = await world.server()
        assert "cookie" in rings.problem.text
        with pytest.raises(SigningUnavailableError):
            rings.cookie_key(TENANT, world.now).sealer("session")
        assert [key.id] == await world.kids("current", "cookie")

    run(story())


def test_K5_a_clock_set_back_does_not_put_a_retry_off(world):
    """
    The vault is back, and the clock an hour behind: the key is read at the next look.
    """

    async def story():
        await world.server()
        world.clock.advance(2 * HOUR)
        root = Sulking(world.ring)
        root.refuses = True
        rings = await world.server(ring=root)
        assert rings.problem is not None
        root.refuses = False
        world.clock.advance(-HOUR)
        await rings.refresh()
        assert rings.problem is None

    run(story())


def test_a_clock_set_back_does_not_put_re_protection_off(world):
    """
    What could not be moved before is moved now, not in an hour.
    """

    class Jammed(Sulking):
        @property
        def current_key_id(self):
            return self.ring.current_key_id

    async def story():
        await world.server()
        root = Jammed(world.ring)
        rings = await world.server(ring=root)
        world.ring.rotate(immediate=True)
        world.clock.advance(2 * SECOND)
        root.refuses = True
        await rings.tick(world.now + HOUR)
        assert 0 == rings.reprotected
        root.refuses = False
        await rings.tick(world.now + HOUR + SECOND)
        assert 0 == rings.reprotected
        await rings.tick(world.now)
        assert 2 == rings.reprotected

    run(story())


class Cut:
    """
    A store that a process can be cut off from.
    """

    def __init__(self, store):
        self.store = store
        self.cut = False

    @property
    def name(self):
        return self.store.name

    def __getattr__(self, name):
        if not self.cut:
            return getattr(self.store, name)

        async def silent(*_, **__):
            raise StoreError("no answer", transient=True)

        return silent


def test_a_process_cut_off_does_not_go_on_signing_with_a_revoked_key(world):
    """
    Room in the ledger is not enough: the ring has to be confirmed within 30 s.
    """

    async def story():
        store = Cut(world.store)
        rings = await world.server(store=store)
        kid = kid_of(await world.sign(rings, life=86400))
        store.cut = True
        await world.keys.revoke(TENANT, SIGNING, kid, cause=CAUSE)
        world.clock.advance(20 * SECOND)
        await rings.refresh()
        assert kid == kid_of(await world.sign(rings))
        world.clock.advance(10 * SECOND)
        await rings.refresh()
        assert rings.is_stale
        with pytest.raises(SigningUnavailableError):
            await world.sign(rings)
        store.cut = False
        assert kid != kid_of(await world.sign(rings))
        assert not rings.is_stale

    run(story())


def test_a_healthy_process_stays_fresh_and_asks_for_nothing(world):
    """
    Each look that finds no change confirms what serves.
    """

    async def story():
        spy = SpyStore(world.store)
        rings = await world.server(store=spy)
        await world.sign(rings, life=86400)
        for _ in range(480):
            world.clock.advance(timedelta(milliseconds=250))
            await rings.refresh()
            assert not rings.is_stale
        spy.calls.clear()
        await world.sign(rings)
        assert [] == spy.calls

    run(story())


def test_who_waited_for_a_reservation_that_failed_shares_the_failure(world):
    """
    Thirty requests wait once for a locked database, not thirty times in a row.
    """

    async def story():
        spy = SpyStore(world.store)
        rings = await world.server(store=spy)
        works, tried = spy.commit, []

        async def locked(tenant, changes):
            tried.append(changes)
            await asyncio.sleep(0)
            raise StoreError("locked", transient=True)

        spy.commit = locked
        answers = await asyncio.gather(
            *(world.sign(rings) for _ in range(30)), return_exceptions=True
        )
        assert {SigningUnavailableError} == {type(each) for each in answers}
        assert 1 == len(tried)
        with pytest.raises(SigningUnavailableError):
            await world.sign(rings)
        assert 2 == len(tried)
        spy.commit = works
        assert await world.sign(rings)

    run(story())


def test_K7_a_look_that_was_overtaken_raises_no_alarm(world):
    """
    K7: what a slow look read is older than what was taken meanwhile, and not a restored backup.
    """

    async def story():
        listener = Listener()
        spy = SpyStore(world.store)
        rings = await world.server("a", "b", store=spy, events=listener)
        await rings.refresh()
        listener.events.clear()
        for tenant in "ab":
            await world.keys.rotate(tenant, SIGNING, cause=CAUSE)
        finds = spy.find

        async def slow(*args, **more):
            found = await finds(*args, **more)
            spy.find = finds
            await world.keys.rotate("b", SIGNING, replace=True, cause=CAUSE)
            await rings.refresh("b")
            return found

        spy.find = slow
        await rings.refresh()
        assert [] == listener.names()
        for tenant in "ab":
            published = {key.kid for key in rings.verification_keys(tenant, world.now)}
            assert set(await world.kids("next", tenant=tenant)) < published

    run(story())


def test_JAT5_a_key_stays_published_past_the_greatest_leeway(world):
    """
    JAT-5: a verifier that allows 60 s finds the key of a token that ended 59 s ago.
    """

    async def story():
        rings = await world.server()
        kid = kid_of(await world.sign(rings, life=600))
        end = world.now + 10 * MINUTE
        await emergency(world)
        for past, published in ((59, True), (61, False)):
            world.clock.set(end + past * SECOND)
            await rings.refresh()
            await rings.tick(world.now)
            assert published is rings.knows(TENANT, kid, world.now)

    run(story())
