"""
The live rings of a server: serving, following changes, rotating, failing softly.
"""

from __future__ import annotations

import asyncio
import json
import pickle
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from kagimori.crypto import jws
from kagimori.errors import (
    InvalidJwsError,
    NotFoundError,
    RingUnreadableError,
    SigningUnavailableError,
    StoreError,
    UnsupportedAlgorithmError,
)
from kagimori.events import Severity
from kagimori.keys.birth import NewRings
from kagimori.keys.documents import LEDGERS, RINGS
from kagimori.keys.policy import RotationPolicy
from kagimori.storage.store import Delete
from kagimori.testing.clock import FixedClock
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


# --- serving -------------------------------------------------------------------------------


def test_a_tenant_without_rings_gets_them_at_start(tmp_path):
    """
    ES256 current and the default, RS256 current beside it (OID-9), and a cookie key.
    """

    async def story():
        world = World(tmp_path, plan=NewRings())
        rings = await world.server()
        for algorithm in (None, "ES256", "RS256"):
            token = await world.sign(rings, algorithm=algorithm)
            assert b"a token" == world.verify(rings, token).payload
        assert ("ES256", "RS256") == rings.algorithms(TENANT, world.now)
        assert 32 == len(rings.cookie_key(TENANT, world.now).derive("session"))
        assert 1 == rings.generation(TENANT, SIGNING)
        assert rings.problem is None

    run(story())


def test_the_jwks_is_public_and_holds_each_published_key_once(world):
    """
    K9: no private member, and what is served is what verifies.
    """

    async def story():
        rings = await world.server()
        await world.keys.rotate(TENANT, SIGNING, cause=CAUSE)
        await rings.refresh()
        served = rings.jwks(TENANT, world.now)
        keys = json.loads(served.body)["keys"]
        assert 2 == len(keys)
        assert {"kty", "crv", "x", "y", "kid", "alg", "use"} == set(keys[0])
        assert await world.kids("current") == [keys[0]["kid"]]
        assert served.etag == rings.jwks(TENANT, world.now).etag
        assert served.etag.startswith('"')
        assert served.body is rings.jwks(TENANT, world.now + MINUTE).body

    run(story())


def test_a_warm_key_signs_and_verifies_without_the_store(world):
    """
    The request path is in memory: a thousand tokens, not one call.
    """

    async def story():
        spy = SpyStore(world.store)
        rings = await world.server(store=spy)
        await world.sign(rings)
        before = len(spy.calls)
        for _ in range(1000):
            world.verify(rings, await world.sign(rings))
        assert before == len(spy.calls)

    run(story())


def test_an_unknown_tenant_or_algorithm_is_refused(world):
    """
    Neither gets another's key.
    """

    async def story():
        rings = await world.server()
        with pytest.raises(NotFoundError):
            await world.sign(rings, tenant="nobody")
        with pytest.raises(NotFoundError):
            rings.jwks("nobody", world.now)
        with pytest.raises(UnsupportedAlgorithmError, match="PS256"):
            await world.sign(rings, algorithm="PS256")
        assert await world.sign(rings, algorithm="ES256")

    run(story())


def test_a_tenant_made_elsewhere_is_found_when_it_is_asked_for(world):
    """
    At once, though the poll has not come by yet; and gone with its rings.
    """

    async def story():
        rings = await world.server()
        await world.tenants.create("acme", cause=CAUSE)
        token = await world.sign(rings, tenant="acme")
        with pytest.raises(InvalidJwsError):
            world.verify(rings, token)
        assert world.verify(rings, token, "acme")

        await world.tenants.delete("acme", force=True, cause=CAUSE)
        await rings.refresh()
        assert (TENANT,) == rings.tenants
        with pytest.raises(NotFoundError):
            rings.verification_keys("acme", world.now)

    run(story())


# --- rotating ------------------------------------------------------------------------------


def test_K6_a_rotation_is_published_first_and_switches_at_its_instant(world):
    """
    K6, row 3: NEXT in the JWKS of every process, CURRENT from one instant on.
    """

    async def story():
        one, two = await world.server(), await world.server()
        old = kid_of(await world.sign(one))
        new = (await world.keys.rotate(TENANT, SIGNING, cause=CAUSE)).key.kid
        for rings in (one, two):
            await rings.refresh()
            assert rings.knows(TENANT, new, world.now)
            assert old == kid_of(await world.sign(rings))
        world.clock.advance(DAY - SECOND)
        assert {old} == {kid_of(await world.sign(r)) for r in (one, two)}
        world.clock.advance(SECOND)
        assert {new} == {kid_of(await world.sign(r)) for r in (one, two)}

    run(story())


def test_row1_fifty_rotations_in_a_row_break_no_token(world):
    """
    Row 1: random older tokens verify on every process all along; and in the end all old
    keys leave, once their tokens are over.
    """

    async def story():
        one, two = await world.server(), await world.server()
        tokens = []
        for turn in range(50):
            tokens.append(await world.sign((one, two)[turn % 2], life=3600))
            await emergency(world)
            for rings in (one, two):
                await rings.refresh()
                await rings.tick(world.now)
                await rings.flush_ledger()
                for token in tokens:
                    assert world.verify(rings, token).payload
            assert len(tokens) == len({kid_of(token) for token in tokens})
        await world.run(one, HOUR + 5 * MINUTE, 10 * SECOND)
        assert 1 == len(await world.kids("current"))
        assert [] == await world.kids("previous")
        assert 50 == len(await world.kids("retired"))
        keys = json.loads(one.jwks(TENANT, world.now).body)["keys"]
        assert 1 == len(keys)

    run(story())


def test_row1_a_key_leaves_the_jwks_when_its_last_token_is_over(world):
    """
    Row 1: not before, and within two minutes after.
    """

    async def story():
        rings = await world.server()
        token = await world.sign(rings, life=600)
        await emergency(world)
        await rings.refresh()
        await world.run(rings, timedelta(seconds=628))
        assert world.verify(rings, token).payload
        await world.run(rings, timedelta(seconds=92))
        with pytest.raises(InvalidJwsError):
            world.verify(rings, token)
        assert kid_of(token) in {
            key.kid for key in rings.known_keys(TENANT, world.now)
        }

    run(story())


def test_a_replaced_key_that_signed_nothing_leaves_at_once(world):
    """
    An empty ledger: it leaves at `retires`.
    """

    async def story():
        rings = await world.server()
        old = (await world.kids("current"))[0]
        await emergency(world)
        await rings.refresh()
        assert [old] == await world.kids("retired")
        assert not rings.knows(TENANT, old, world.now)

    run(story())


def test_a_process_that_missed_the_change_learns_of_it_before_it_signs(world):
    """
    The reservation is made on condition of the ring's version.
    """

    async def story():
        rings = await world.server()
        old = kid_of(await world.sign(rings, life=60))
        await emergency(world)
        # Not refreshed; the next token lies beyond what is reserved.
        token = await world.sign(rings, life=3600)
        assert old != kid_of(token)
        assert world.verify(rings, token)
        assert 3 == rings.generation(TENANT, SIGNING)

    run(story())


def test_K7_a_fast_clock_cannot_use_a_key_before_its_date(world):
    """
    K7: a reservation is granted by the store's time.
    """

    async def story():
        fast = FixedClock(world.now + 4 * SECOND)
        rings = await world.server(clock=fast)
        outcome = await emergency(world)
        # The switch has happened for this process, not for the store.
        world.clock.set(outcome.key.activates - SECOND)
        await rings.refresh()
        until = fast.now() + HOUR
        key = await rings.signing_key(TENANT, None, fast.now(), until)
        assert outcome.key.kid != key.id
        world.clock.advance(SECOND)
        key = await rings.signing_key(TENANT, None, fast.now(), until + HOUR)
        assert outcome.key.kid == key.id

    run(story())


def test_K7_a_slow_clock_does_not_go_on_with_a_key_that_is_over(world):
    """
    K7: beyond its reservation a process that is behind signs with the successor.
    """

    async def story():
        slow = FixedClock(world.now - 4 * SECOND)
        rings = await world.server(clock=slow)
        old = (await world.kids("current"))[0]
        outcome = await emergency(world)
        await rings.refresh()
        key = await rings.signing_key(TENANT, None, slow.now(), slow.now() + HOUR)
        assert (outcome.key.kid, True) == (key.id, old != key.id)

    run(story())


def test_revoking_replaces_at_once_and_the_tokens_fail(world):
    """
    Unlike a rotation; every process that has looked refuses them.
    """

    async def story():
        one, two = await world.server(), await world.server()
        token = await world.sign(one)
        await one.flush_ledger()
        outcome = await world.keys.revoke(TENANT, SIGNING, kid_of(token), cause=CAUSE)
        assert 1 == outcome.live_tokens
        for rings in (one, two):
            await rings.refresh()
            with pytest.raises(InvalidJwsError):
                world.verify(rings, token)
            assert kid_of(token) != kid_of(await world.sign(rings))
        document = await stored(world)
        assert document.ring().get(kid_of(token)).private is None

    run(story())


def test_the_schedule_publishes_activates_and_ends_by_itself(world):
    """
    After 90 days another key signs; published a day before, exactly one, by one process.
    """

    async def story():
        one, two = await world.server(), await world.server()
        old = (await world.kids("current"))[0]
        due = (await stored(world)).keys[0].timeline.due
        world.clock.set(due - DAY - SECOND)
        await one.tick(world.now)
        assert [] == await world.kids("next")
        world.clock.advance(SECOND)
        await asyncio.gather(one.tick(world.now), two.tick(world.now))
        (new,) = await world.kids("next")
        world.clock.set(due)
        for rings in (one, two):
            await rings.refresh()
            assert new == kid_of(await world.sign(rings))
        await one.tick(world.now)
        assert [old] == await world.kids("retired")
        assert 1 == len(await world.kids("current", "cookie"))

    run(story())


def test_off_the_schedule_nothing_turns(tmp_path):
    """
    A key signs until somebody rotates.
    """

    async def story():
        off = msgspec.structs.replace(RotationPolicy.signing(), scheduled=False)
        plan = NewRings(algorithms=("ES256",), signing=off)
        world = World(tmp_path, plan=plan)
        rings = await world.server()
        old = kid_of(await world.sign(rings))
        world.clock.advance(400 * DAY)
        await rings.tick(world.now)
        assert old == kid_of(await world.sign(rings))
        assert [] == await world.kids("next")

    run(story())


def test_row16_max_age_follows_from_the_next_planned_publication(world):
    """
    Row 16: five minutes, less when a publication is near.
    """

    async def story():
        rings = await world.server()
        assert 300 == rings.jwks(TENANT, world.now).max_age
        publish = (await stored(world)).keys[0].timeline.due - DAY
        assert 60 == rings.jwks(TENANT, publish - MINUTE).max_age

    run(story())


def test_row15_a_process_reports_the_generation_that_it_serves(world):
    """
    Row 15: one can wait until all have taken in a change.
    """

    async def story():
        rings = await world.server()
        outcome = await world.keys.rotate(TENANT, SIGNING, cause=CAUSE)
        assert (2, 1) == (outcome.generation, rings.generation(TENANT, SIGNING))
        await rings.refresh()
        assert 2 == rings.generation(TENANT, SIGNING)
        assert 1 == rings.generation(TENANT, COOKIE)
        assert 0 == rings.generation("nobody", COOKIE)

    run(story())


def test_an_unknown_kid_costs_one_look_a_second(world):
    """
    Kids come from attackers; a true one is found though the poll has not come by.
    """

    async def story():
        spy = SpyStore(world.store)
        rings = await world.server(store=spy)
        new = (await world.keys.rotate(TENANT, SIGNING, cause=CAUSE)).key.kid
        assert await rings.learns(TENANT, new, world.now)
        before = len(spy.calls)
        world.clock.advance(SECOND)
        for _ in range(100):
            assert not await rings.learns(TENANT, "forged", world.now)
            assert not await rings.learns("nobody", "forged", world.now)
        assert before + 1 == len(spy.calls)

    run(story())


# --- cookie keys ---------------------------------------------------------------------------


def test_row13_a_cookie_is_opened_by_the_key_that_it_names(world):
    """
    Row 13: current and previous keys open, each found by its id.
    """

    async def story():
        rings = await world.server()
        old = rings.cookie_key(TENANT, world.now)
        made = old.derive("session")
        await world.keys.rotate(
            TENANT, COOKIE, now_flag=True, emergency=True, cause=CAUSE
        )
        await rings.refresh()
        new = rings.cookie_key(TENANT, world.now)
        assert new.id != old.id
        assert made == rings.cookie_key(TENANT, world.now, old.id).derive("session")
        assert made != new.derive("session")
        await world.keys.revoke(TENANT, COOKIE, old.id, cause=CAUSE)
        await rings.refresh()
        assert rings.cookie_key(TENANT, world.now, old.id) is None

    run(story())


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
        assert "do not fit" in rings.problem.detail
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
        assert view.retires + HOUR + timedelta(seconds=30) == view.expires

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
