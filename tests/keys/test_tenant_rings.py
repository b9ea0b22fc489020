"""
The live rings of a server: serving, following changes, rotating, failing softly.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import msgspec
import pytest

from kagimori.errors import (
    InvalidJwsError,
    NotFoundError,
    ProtectionError,
    UnsupportedAlgorithmError,
)
from kagimori.keys.birth import NewRings
from kagimori.keys.documents import RINGS
from kagimori.keys.policy import RotationPolicy
from kagimori.testing.clock import FixedClock
from kagimori.testing.spy_store import SpyStore
from tests.keys.worlds import (
    CAUSE,
    COOKIE,
    SIGNING,
    TENANT,
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
        cookie = rings.cookie_key(TENANT, world.now).sealer(TENANT, "session")
        assert b"me" == cookie.open(cookie.seal(b"me"))
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
    Row 1: older tokens verify everywhere; old keys leave once their tokens are over.
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
        assert kid_of(token) in {key.kid for key in rings.known_keys(TENANT, world.now)}

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
        made = old.sealer(TENANT, "session").seal(b"me")
        await world.keys.rotate(
            TENANT, COOKIE, now_flag=True, emergency=True, cause=CAUSE
        )
        await rings.refresh()
        new = rings.cookie_key(TENANT, world.now)
        assert new.id != old.id
        again = rings.cookie_key(TENANT, world.now, old.id)
        assert b"me" == again.sealer(TENANT, "session").open(made)
        with pytest.raises(ProtectionError):
            again.sealer(TENANT, "other").open(made)
        with pytest.raises(ProtectionError):
            new.sealer(TENANT, "session").open(made)
        await world.keys.revoke(TENANT, COOKIE, old.id, cause=CAUSE)
        await rings.refresh()
        assert rings.cookie_key(TENANT, world.now, old.id) is None

    run(story())
