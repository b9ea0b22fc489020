"""
The operator's verbs for keys, as the command line asks for them.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from kagimori.admin.audit import read_trail, verify_trail
from kagimori.admin.keys import KeyAdmin
from kagimori.clock import SystemClock
from kagimori.errors import (
    ConfigError,
    InvalidJwsError,
    KeyStateError,
    NextKeyWaitsError,
    NotFoundError,
    NotPropagatedError,
    RefusedError,
    UnsupportedAlgorithmError,
)
from kagimori.keys.birth import NewRings
from kagimori.keys.policy import RotationPolicy
from kagimori.keys.timeline import KeyUse
from kagimori.oauth.resource import RESOURCES, Resource
from kagimori.storage.store import ABSENT
from tests.keys.worlds import CAUSE, COOKIE, SIGNING, TENANT, World, kid_of, run

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
DEMO = NewRings(algorithms=("ES256",), signing=RotationPolicy.demo())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def rotate(world, use=SIGNING, **flags):
    """
    Rotate a ring of the tenant.
    """
    return world.keys.rotate(TENANT, use, cause=CAUSE, **flags)


async def one(world, kid):
    """
    Return the view of one key.
    """
    return next(view for view in await world.keys.list(TENANT) if view.kid == kid)


# --- list ----------------------------------------------------------------------------------


def test_list_shows_all_three_uses_with_every_time(world):
    """
    The fields are exactly those that scripts rely on, in RFC 3339 or null.
    """

    async def story():
        await world.server()
        views = await world.keys.list(TENANT)
        assert ["signing", "cookie", "protection"] == [view.use for view in views]
        shown = msgspec.json.decode(msgspec.json.encode(views))[0]
        fields = (
            "use kid algorithm state created published activates due retires expires"
        )
        assert fields.split() == list(shown)
        assert "2030-01-01T00:00:00Z" == shown["created"]
        assert (None, None) == (shown["retires"], shown["expires"])
        assert "current" == shown["state"]

    run(story())


def test_list_of_a_tenant_that_is_not_there_is_refused(world):
    """
    With a stable code, and the next step.
    """

    async def story():
        with pytest.raises(NotFoundError) as refused:
            await world.keys.list("nobody")
        assert "tenants list" in refused.value.hint

    run(story())


def test_list_foretells_the_end_of_a_key_that_is_being_replaced(world):
    """
    Before it is written: the best present knowledge, from the ledger.
    """

    async def story():
        rings = await world.server()
        token = await world.sign(rings, life=600)
        outcome = await rotate(world)
        view = await one(world, kid_of(token))
        assert (view.state, view.retires) == ("current", outcome.key.activates)
        assert view.expires == view.retires

    run(story())


# --- rotate --------------------------------------------------------------------------------


def test_rotate_makes_a_next_and_names_the_instant(world):
    """
    The answer tells from when on the new key signs, and the generation.
    """

    async def story():
        await world.server()
        outcome = await rotate(world)
        assert ("next", 2) == (outcome.key.state, outcome.generation)
        assert world.now + DAY == outcome.key.activates
        assert [outcome.key.kid] == await world.kids("next")
        assert outcome.key.activates == outcome.ended[0].retires

    run(story())


def test_row2_rotate_while_a_next_waits_is_refused_with_its_dates(world):
    """
    Row 2: exit 4 of the command line; `replace` makes another.
    """

    async def story():
        await world.server()
        first = await rotate(world)
        with pytest.raises(NextKeyWaitsError) as refused:
            await rotate(world)
        assert first.key.kid == refused.value.params["kid"]
        assert "2030-01-02T00:00:00Z" in refused.value.text

        world.clock.advance(HOUR)
        second = await rotate(world, replace=True)
        assert (first.key.kid,) == second.dropped
        assert [second.key.kid] == await world.kids("next")
        assert world.now + DAY == second.key.activates

    run(story())


def test_now_without_a_next_is_refused_and_the_safe_moment_named(world):
    """
    K6: exit 5 of the command line.
    """

    async def story():
        await world.server()
        with pytest.raises(NotPropagatedError) as refused:
            await rotate(world, now_flag=True)
        assert "2030-01-02T00:00:00Z" == refused.value.params["safe"]
        assert [] == await world.kids("next")

    run(story())


def test_now_activates_a_propagated_next_and_only_that(tmp_path):
    """
    K6: one second ahead, and the verb returns after it.
    """

    async def story():
        world = World(tmp_path, plan=DEMO)
        rings = await world.server()
        token = await world.sign(rings)
        waiting = await rotate(world)
        with pytest.raises(NotPropagatedError) as refused:
            await rotate(world, now_flag=True)
        assert "2030-01-01T00:00:10Z" == refused.value.params["safe"]

        world.clock.advance(9 * SECOND)
        outcome = await rotate(world, now_flag=True)
        assert waiting.key.kid == outcome.key.kid
        assert "current" == outcome.key.state
        assert outcome.key.activates == world.now
        await rings.refresh()
        assert outcome.key.kid == kid_of(await world.sign(rings))
        assert world.verify(rings, token)

    run(story())


def test_an_emergency_makes_and_activates_another_key(world):
    """
    Without a NEXT: one second ahead, returns after it, older tokens stay valid.
    """

    async def story():
        rings = await world.server()
        token = await world.sign(rings)
        before = world.now
        outcome = await rotate(world, now_flag=True, emergency=True)
        assert before + SECOND == outcome.key.activates == world.now
        assert "current" == outcome.key.state
        await rings.refresh()
        assert outcome.key.kid == kid_of(await world.sign(rings))
        assert world.verify(rings, token)
        assert "previous" == (await one(world, kid_of(token))).state

    run(story())


def test_an_emergency_takes_the_place_of_a_next_nobody_has_seen(world):
    """
    The unpropagated NEXT leaves, the new key signs at once.
    """

    async def story():
        await world.server()
        waiting = await rotate(world)
        outcome = await rotate(world, now_flag=True, emergency=True)
        assert (waiting.key.kid,) == outcome.dropped
        assert [outcome.key.kid] == await world.kids("current")
        assert [] == await world.kids("next")

    run(story())


def test_an_emergency_prefers_a_propagated_next(tmp_path):
    """
    Verifiers have it already.
    """

    async def story():
        world = World(tmp_path, plan=DEMO)
        await world.server()
        waiting = await rotate(world)
        world.clock.advance(9 * SECOND)
        outcome = await rotate(world, now_flag=True, emergency=True)
        assert waiting.key.kid == outcome.key.kid
        assert 2 == len(await world.kids("current") + await world.kids("retired"))

    run(story())


def test_a_real_wait_returns_after_the_switch(tmp_path):
    """
    Without a test's clock the verb sleeps until the instant is past.
    """

    async def story():
        world = World(tmp_path)
        await world.server()
        keys = type(world.keys)(world.store, world.ring, SystemClock())
        start = asyncio.get_running_loop().time()
        instant = SystemClock().now() + timedelta(milliseconds=30)
        await keys._wait(instant)
        assert SystemClock().now() >= instant
        assert asyncio.get_running_loop().time() - start < 5

    run(story())


def test_row9_another_algorithm_becomes_the_default_with_its_key(world):
    """
    Row 9: the old default's key ends when nobody names its algorithm.
    """

    async def story():
        rings = await world.server()
        (old,) = await world.kids("current")
        outcome = await rotate(world, algorithm="ES384", default=True)
        assert "ES384" == outcome.default_algorithm
        assert ("ES256",) == rings.algorithms(TENANT, world.now)
        world.clock.advance(DAY)
        await rings.refresh()
        assert ("ES384",) == rings.algorithms(TENANT, world.now)
        assert [old] == await world.kids("previous")

    run(story())


def test_row9_an_algorithm_that_an_api_names_stays(world):
    """
    Row 9: the API goes on getting what it can verify.
    """

    async def story():
        rings = await world.server()
        api = Resource(
            id="api", identifier="urn:x", created=world.now, signing_algorithm="ES256"
        )
        await world.store.commit(TENANT, [RESOURCES.put("api", api, ABSENT)])
        await rotate(world, algorithm="ES384", default=True)
        world.clock.advance(DAY)
        await rings.refresh()
        assert ("ES384", "ES256") == rings.algorithms(TENANT, world.now)

    run(story())


def test_row9_rs256_stays_beside_any_default(tmp_path):
    """
    OID-9: every client verifies it.
    """

    async def story():
        world = World(tmp_path, plan=NewRings.with_default("RS256"))
        rings = await world.server()
        assert ("RS256", "ES256") == rings.algorithms(TENANT, world.now)
        await world.keys.set_default(TENANT, "ES256", cause=CAUSE)
        await rings.refresh()
        assert ("ES256", "RS256") == rings.algorithms(TENANT, world.now)

    run(story())


def test_a_successor_of_an_rsa_key_is_as_long(tmp_path):
    """
    2048 bits by default; another algorithm's first key too.
    """

    async def story():
        world = World(tmp_path)
        rings = await world.server()
        await rotate(world, algorithm="PS256")
        world.clock.advance(DAY)
        await rings.refresh()
        token = await world.sign(rings, algorithm="PS256")
        assert world.verify(rings, token)
        await rotate(world, algorithm="PS256")

    run(story())


@pytest.mark.parametrize(
    ("use", "flags", "error"),
    [
        (SIGNING, {"emergency": True}, RefusedError),
        (COOKIE, {"algorithm": "ES256"}, RefusedError),
        (COOKIE, {"default": True}, RefusedError),
        (KeyUse.PROTECTION, {}, RefusedError),
        (SIGNING, {"algorithm": "none"}, UnsupportedAlgorithmError),
        (SIGNING, {"algorithm": "HS256"}, UnsupportedAlgorithmError),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(world, use, flags, error):
    """
    Before anything is made.
    """

    async def story():
        await world.server()
        before = len(await read_trail(world.store, TENANT))
        with pytest.raises(error):
            await rotate(world, use, **flags)
        assert before == len(await read_trail(world.store, TENANT))

    run(story())


def test_row14_cookie_keys_turn_alike(world):
    """
    Row 14: announced for five minutes, then in force; an emergency is at once.
    """

    async def story():
        rings = await world.server()
        old = rings.cookie_key(TENANT, world.now).id
        outcome = await rotate(world, COOKIE)
        assert world.now + timedelta(minutes=5) == outcome.key.activates
        await rings.refresh()
        assert old == rings.cookie_key(TENANT, world.now).id
        world.clock.advance(timedelta(minutes=5))
        assert outcome.key.kid == rings.cookie_key(TENANT, world.now).id
        await rings.tick(world.now)
        view = await one(world, old)
        assert view.retires + 30 * DAY + 5 * SECOND == view.expires
        at_once = await rotate(world, COOKIE, now_flag=True, emergency=True)
        await rings.refresh()
        assert at_once.key.kid == rings.cookie_key(TENANT, world.now).id

    run(story())


# --- cancel --------------------------------------------------------------------------------


def test_cancel_takes_the_waiting_key_back(world):
    """
    It may be named or not; the current key goes on.
    """

    async def story():
        rings = await world.server()
        for named in (True, False):
            waiting = (await rotate(world)).key.kid
            kid = waiting if named else None
            outcome = await world.keys.cancel(TENANT, SIGNING, kid=kid, cause=CAUSE)
            assert waiting == outcome.key.kid
            assert (waiting,) == outcome.dropped
            assert outcome.ended[0].retires is None
        world.clock.advance(2 * DAY)
        await rings.refresh()
        assert 1 == len(await world.kids("current"))
        assert [] == await world.kids("next")

    run(story())


def test_cancel_needs_something_that_waits(world):
    """
    Nothing waits, or several keys do: each refusal says what to name.
    """

    async def story():
        await world.server()
        with pytest.raises(KeyStateError, match="nothing to cancel"):
            await world.keys.cancel(TENANT, SIGNING, cause=CAUSE)
        first = (await rotate(world)).key.kid
        await rotate(world, algorithm="ES384")
        with pytest.raises(KeyStateError) as refused:
            await world.keys.cancel(TENANT, SIGNING, cause=CAUSE)
        assert first in refused.value.hint
        with pytest.raises(NotFoundError):
            await world.keys.cancel(TENANT, SIGNING, kid="nobody", cause=CAUSE)

    run(story())


# --- delete and revoke ---------------------------------------------------------------------


def test_K12_delete_states_the_number_and_the_safe_moment(world):
    """
    K12: refused while tokens live; forced, they fail; later, nobody is hurt.
    """

    async def story():
        rings = await world.server()
        token = await world.sign(rings, life=600)
        await world.sign(rings, life=600)
        await rings.flush_ledger()
        await rotate(world, now_flag=True, emergency=True)
        kid = kid_of(token)
        seen = await world.keys.preview(TENANT, SIGNING, kid)
        with pytest.raises(KeyStateError) as refused:
            await world.keys.delete(TENANT, SIGNING, kid, cause=CAUSE)
        assert "2 tokens" in refused.value.text
        assert "2030-01-01T00:11:00Z" == refused.value.params["safe"]
        assert (2, "2030-01-01T00:11:00+00:00") == (
            seen.live_tokens,
            seen.safe.isoformat(),
        )
        outcome = await world.keys.delete(TENANT, SIGNING, kid, force=True, cause=CAUSE)
        assert 2 == outcome.live_tokens
        await rings.refresh()
        with pytest.raises(InvalidJwsError):
            world.verify(rings, token)
        assert kid not in {view.kid for view in await world.keys.list(TENANT)}
        record = (await read_trail(world.store, TENANT))[-1]
        assert ("key.deleted", kid, "2", "yes") == (
            record.action,
            record.subject,
            record.details["live_tokens"],
            record.details["forced"],
        )

    run(story())


def test_a_key_whose_tokens_are_over_is_deleted_without_force(world):
    """
    From the named moment on.
    """

    async def story():
        rings = await world.server()
        token = await world.sign(rings, life=600)
        await rotate(world, now_flag=True, emergency=True)
        await rings.refresh()
        world.clock.advance(timedelta(seconds=660))
        kid = kid_of(token)
        await world.keys.delete(TENANT, SIGNING, kid, cause=CAUSE)
        assert kid not in {view.kid for view in await world.keys.list(TENANT)}

    run(story())


@pytest.mark.parametrize("use", [SIGNING, COOKIE])
def test_row8_the_key_that_signs_is_not_deleted(world, use):
    """
    K12, row 8: cookie keys included, force or not.
    """

    async def story():
        await world.server()
        (kid,) = await world.kids("current", use.value)
        for force in (False, True):
            with pytest.raises(KeyStateError):
                await world.keys.delete(TENANT, use, kid, force=force, cause=CAUSE)
        assert [kid] == await world.kids("current", use.value)

    run(story())


@pytest.mark.parametrize("use", [SIGNING, COOKIE])
def test_revoke_replaces_the_current_key(world, use):
    """
    At once, in one commit; the material of the revoked key is gone.
    """

    async def story():
        await world.server()
        (old,) = await world.kids("current", use.value)
        outcome = await world.keys.revoke(TENANT, use, old, cause=CAUSE)
        (new,) = await world.kids("current", use.value)
        assert ("revoked", new) == (outcome.key.state, outcome.ended[0].kid)
        assert old != new
        with pytest.raises(KeyStateError, match="REVOKED"):
            await world.keys.revoke(TENANT, use, old, cause=CAUSE)
        with pytest.raises(NotFoundError):
            await world.keys.revoke(TENANT, use, "nobody", cause=CAUSE)

    run(story())


# --- policy and audit ----------------------------------------------------------------------


def test_row6_a_new_policy_bends_no_date(world):
    """
    Row 6: it applies to the next key; an impossible one is refused.
    """

    async def story():
        await world.server()
        before = await world.keys.list(TENANT)
        policy = msgspec.structs.replace(
            RotationPolicy.signing(), period=10 * DAY, propagation=2 * DAY
        )
        assert 2 == await world.keys.set_policy(TENANT, SIGNING, policy, cause=CAUSE)
        assert before == await world.keys.list(TENANT)
        outcome = await rotate(world)
        assert world.now + 2 * DAY == outcome.key.activates
        assert outcome.key.activates + 10 * DAY == outcome.key.due
        with pytest.raises(ConfigError):
            await world.keys.set_policy(
                TENANT,
                SIGNING,
                msgspec.structs.replace(policy, propagation=SECOND),
                cause=CAUSE,
            )

    run(story())


def test_row17_every_verb_leaves_a_chained_record(world):
    """
    Row 17: actor, reason, request, generation before and after, kid; the chain is whole.
    """

    async def story():
        rings = await world.server()
        waiting = (await rotate(world)).key.kid
        await world.keys.cancel(TENANT, SIGNING, cause=CAUSE)
        outcome = await rotate(world, now_flag=True, emergency=True)
        await world.keys.revoke(TENANT, SIGNING, outcome.key.kid, cause=CAUSE)
        await rings.refresh()
        await rings.tick(world.now)
        records = await read_trail(world.store, TENANT)
        assert list(range(1, len(records) + 1)) == [record.seq for record in records]
        assert len(records) == await verify_trail(world.store, TENANT)
        told = {record.action: record for record in records}
        cancelled = told["key.cancelled"]
        assert ("cli:tester", "because", "req-1", waiting, "2", "3") == (
            cancelled.actor,
            cancelled.reason,
            cancelled.request_id,
            cancelled.subject,
            cancelled.details["generation_before"],
            cancelled.details["generation"],
        )
        assert {"key.created", "key.published", "key.revoked", "key.retired"} <= set(
            told
        )
        assert "schedule" == told["key.retired"].actor

    run(story())


# --- a NEXT that turns before the commit -----------------------------------------------------


class Late:
    """
    A store in which something happens just before a commit.
    """

    def __init__(self, store, before):
        self.store = store
        self.before = before

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def commit(self, tenant, changes):
        before, self.before = self.before, None
        if before is not None:
            await before()
        return await self.store.commit(tenant, changes)


async def turn_late(world, verb, *, signs):
    """
    Decide a verb just before a NEXT activates, and commit it just after.
    """
    rings = await world.server()
    waiting = (await rotate(world)).key
    world.clock.set(waiting.activates - timedelta(milliseconds=200))
    await rings.refresh()
    tokens = []

    async def meanwhile():
        world.clock.advance(timedelta(milliseconds=400))
        if signs:
            tokens.append(await world.sign(rings))

    late = Late(world.store, meanwhile)
    admin = KeyAdmin(late, world.ring, world.clock, world.trail, wait=world.wait)
    try:
        if verb == "cancel":
            await admin.cancel(TENANT, SIGNING, cause=CAUSE)
        elif verb == "replace":
            await admin.rotate(TENANT, SIGNING, replace=True, cause=CAUSE)
        else:
            await admin.rotate(
                TENANT,
                SIGNING,
                now_flag=True,
                emergency=True,
                replace=True,
                cause=CAUSE,
            )
    finally:
        await rings.refresh(TENANT)
    return waiting.kid, rings, tokens


@pytest.mark.parametrize("verb", ["cancel", "replace", "emergency"])
def test_K12_a_next_that_signed_before_the_commit_is_not_dropped(world, verb):
    """
    K12: the verb rests on the ledger, so it is decided again and the token stays valid.
    """

    async def story():
        if verb == "cancel":
            with pytest.raises(KeyStateError):
                await turn_late(world, verb, signs=True)
            (kid,) = await world.kids("current")
            rings = await world.server()
            assert rings.knows(TENANT, kid, world.now)
            return
        kid, rings, (token,) = await turn_late(world, verb, signs=True)
        assert kid == kid_of(token)
        assert world.verify(rings, token)

    run(story())


@pytest.mark.parametrize("verb", ["cancel", "replace"])
def test_a_next_that_has_signed_nothing_is_dropped(world, verb):
    """
    The twin: nobody used it, so what was decided holds.
    """

    async def story():
        kid, rings, _ = await turn_late(world, verb, signs=False)
        assert not rings.knows(TENANT, kid, world.now)

    run(story())
