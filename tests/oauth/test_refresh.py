"""
The refresh grant: how the verdicts of requirements B5 are answered, and ACC-4, ACC-5, T4, T5.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kagimori.errors import ContentionError, OAuthError
from kagimori.oauth.client import CLIENTS
from kagimori.storage.store import Put
from kagimori.tokens.policy import RefreshPolicy, Rotation
from tests.oauth.world import claims_of


async def refused(awaitable):
    with pytest.raises(OAuthError) as caught:
        await awaitable
    return caught.value


def refresh_events(world):
    return [name for name in world.events.names() if name.startswith("refresh.")]


def test_a_refresh_is_one_read_and_one_commit(world):
    """
    Family, user and the client's epoch by one read; one conditional write; nothing else.
    """

    async def story():
        await world.start()
        first = await world.family()
        second = await world.refresh("web", first.refresh_token)
        world.store.calls.clear()
        await world.refresh("web", second.refresh_token)

    asyncio.run(story())

    assert ["load_many(family, user, client_epoch)", "commit(family)"] == list(
        map(str, world.store.calls)
    )


def test_T4_T5_a_herd_with_one_token_gets_one_successor(world):
    """
    R1: fifty at once all succeed with the same successor; one generation was added.
    """

    async def story():
        await world.start()
        first = await world.family()
        herd = [world.refresh("web", first.refresh_token) for _ in range(50)]
        return await asyncio.gather(*herd)

    answers = asyncio.run(story())

    assert 1 == len({answer.refresh_token for answer in answers})
    assert 50 == len({claims_of(answer.access_token)["jti"] for answer in answers})
    assert 1 == refresh_events(world).count("refresh.rotated")


def test_ACC4_a_lost_answer_is_repeated_and_a_late_reuse_revokes(world):
    """
    A retry gets the same successor; once that was used and W is over, reuse ends the family.
    """

    async def story():
        await world.start()
        first = await world.password()
        second = await world.refresh("legacy", first.refresh_token)
        world.clock.advance(timedelta(seconds=29))
        again = await world.refresh("legacy", first.refresh_token)
        third = await world.refresh("legacy", second.refresh_token)
        world.clock.advance(timedelta(seconds=31))
        reuse = await refused(world.refresh("legacy", first.refresh_token))
        dead = await refused(world.refresh("legacy", third.refresh_token))
        return second, again, reuse, dead

    second, again, reuse, dead = asyncio.run(story())

    assert second.refresh_token == again.refresh_token
    assert "invalid_grant" == reuse.error == dead.error
    assert "refresh.reuse_detected" in refresh_events(world)


def test_all_rejections_look_the_same(world):
    """
    Forged, foreign, expired, revoked and reused: one error, one text; the reason is inside.
    """

    async def story():
        await world.start()
        found = {}
        first = await world.family()
        foreign = await refused(world.refresh("machine", first.refresh_token))
        found["foreign"] = foreign
        found["garbage"] = await refused(world.refresh("web", "kgm_rt_garbage"))
        text = first.refresh_token
        flipped = text[:20] + ("A" if text[20] != "A" else "B") + text[21:]
        found["forged"] = await refused(world.refresh("web", flipped))
        await world.revoke("web", first.refresh_token)
        found["revoked"] = await refused(world.refresh("web", first.refresh_token))
        idle = await world.family()
        world.clock.advance(timedelta(days=14))
        found["idle"] = await refused(world.refresh("web", idle.refresh_token))
        return found

    found = asyncio.run(story())

    answers = {(e.error, e.description, e.status) for e in found.values()}
    assert 1 == len(answers)
    assert len(found) == len({error.detail for error in found.values()})


def test_ACC5_one_client_only(world):
    """
    Another client's refresh token is refused there, alarms, and still works at its own.
    """

    async def story():
        await world.start()
        first = await world.family()
        error = await refused(world.refresh("machine", first.refresh_token))
        return error, await world.refresh("web", first.refresh_token)

    error, answer = asyncio.run(story())

    assert "invalid_grant" == error.error
    assert answer.refresh_token
    assert "refresh.foreign_client" in refresh_events(world)


def test_ACC5_a_session_slides_with_use_and_ends_absolutely(world):
    """
    No use: idle expiry. Regular use: no expiry, until the absolute end.
    """
    policy = RefreshPolicy(
        idle_lifetime=timedelta(hours=1), absolute_lifetime=timedelta(hours=3)
    )

    async def story():
        await world.start()
        await world.change(CLIENTS, "web", refresh=policy)
        unused = await world.family()
        token = (await world.family()).refresh_token
        for _ in range(4):
            world.clock.advance(timedelta(minutes=40))
            token = (await world.refresh("web", token)).refresh_token
        idle = await refused(world.refresh("web", unused.refresh_token))
        world.clock.advance(timedelta(minutes=20))
        absolute = await refused(world.refresh("web", token))
        return idle.detail, absolute.detail

    idle, absolute = asyncio.run(story())

    assert "expired_idle" in idle
    assert "expired_absolute" in absolute


def test_ACC5_a_revoked_refresh_token_fails_at_once_and_its_access_token_too(world):
    """
    After the revocation neither the refresh nor introspection lets the sign-in live.
    """

    async def story():
        await world.start()
        first = await world.password()
        before = await world.introspect("watcher", first.access_token)
        await world.revoke("legacy", first.refresh_token)
        error = await refused(world.refresh("legacy", first.refresh_token))
        after = await world.introspect("watcher", first.access_token)
        return before, error, after

    before, error, after = asyncio.run(story())

    assert before["active"]
    assert "invalid_grant" == error.error
    assert {"active": False} == after


def test_B5_odd_scopes_do_not_hide_a_reuse(world):
    """
    A reused token is a reuse whatever scope is asked for, even a malformed one.
    """

    async def story():
        await world.start()
        await world.change(CLIENTS, "web", refresh=RefreshPolicy())
        first = await world.family()
        second = await world.refresh("web", first.refresh_token)
        await world.refresh("web", second.refresh_token)
        world.clock.advance(timedelta(minutes=5))
        return await refused(
            world.refresh("web", first.refresh_token, scope='no"such\\scope')
        )

    error = asyncio.run(story())

    assert "invalid_grant" == error.error
    assert "refresh.reuse_detected" in refresh_events(world)


def test_B5_case_8_a_kept_token_stays(world):
    """
    Under `never` the same refresh token is answered, with a new access token.
    """

    async def story():
        await world.start()
        await world.change(
            CLIENTS, "web", refresh=RefreshPolicy(rotation=Rotation.NEVER)
        )
        first = await world.family()
        return first, await world.refresh("web", first.refresh_token)

    first, second = asyncio.run(story())

    assert first.refresh_token == second.refresh_token
    assert first.access_token != second.access_token


def test_B5_case_11_too_many_replays_are_429(world):
    """
    Beyond K replays of one generation the answer is 429 with Retry-After, nothing changes.
    """

    async def story():
        await world.start()
        await world.change(CLIENTS, "web", refresh=RefreshPolicy(replay_limit=2))
        first = await world.family()
        second = await world.refresh("web", first.refresh_token)
        for _ in range(2):
            await world.refresh("web", first.refresh_token)
        error = await refused(world.refresh("web", first.refresh_token))
        return error, await world.refresh("web", second.refresh_token)

    error, answer = asyncio.run(story())

    assert 429 == error.status
    assert error.retry_after >= 1
    assert answer.refresh_token


def test_B5_case_10_lost_races_without_end_are_503(world):
    """
    When every attempt loses, the client is asked to come again.
    """

    async def story():
        await world.start()
        first = await world.family()
        commit = world.memory.commit

        async def lose(tenant, changes):
            if any(isinstance(each, Put) and each.kind == "family" for each in changes):
                raise ContentionError("lost", transient=True)
            return await commit(tenant, changes)

        world.memory.commit = lose
        error = await refused(world.refresh("web", first.refresh_token))
        world.memory.commit = commit
        return error, await world.refresh("web", first.refresh_token)

    error, answer = asyncio.run(story())

    assert (503, "temporarily_unavailable") == (error.status, error.error)
    assert answer.refresh_token


def test_B5_case_1_forged_tokens_count_against_the_address(world):
    """
    A hundred forged tokens stop guessing of secrets from that address, not good requests.
    """

    async def story():
        await world.start()
        good = await world.family()
        await world.refresh("web", good.refresh_token)
        for _ in range(100):
            await refused(world.refresh("web", "kgm_rt_garbage"))
        wrong = world.request(
            {"grant_type": "client_credentials", "client_id": "nobody"}
        )
        error = await refused(world.services.token.token(wrong))
        return error, await world.token("web")

    error, answer = asyncio.run(story())

    assert 429 == error.status
    assert answer.access_token


def test_a_public_client_refreshes_by_its_id(world):
    """
    TOK-8: the client_id must match the family's; another public client's does not.
    """

    async def story():
        await world.start()
        spa = await CLIENTS.get(world.memory, "default", "spa")
        await world.client(
            "spa2", method=spa.value.auth_method, grants=("refresh_token",)
        )
        first = await world.family("spa")
        form = {"grant_type": "refresh_token", "refresh_token": first.refresh_token}
        other = await refused(
            world.services.token.token(world.request({"client_id": "spa2", **form}))
        )
        return other, await world.refresh("spa", first.refresh_token)

    other, answer = asyncio.run(story())

    assert "invalid_grant" == other.error
    assert answer.refresh_token


def test_B7_public_clients_end_after_90_days_confidential_after_365(world):
    """
    The absolute lifetimes of the two kinds of client.
    """

    async def story():
        await world.start()
        return [
            (await world.family(client)).authorization_expires_in
            for client in ("spa", "web")
        ]

    assert [90 * 86400, 365 * 86400] == asyncio.run(story())
