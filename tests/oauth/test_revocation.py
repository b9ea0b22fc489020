"""
Revocation: REV-1 to REV-5, and T14.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kagimori.errors import OAuthError, StoreError
from tests.oauth.world import basic


async def refused(awaitable):
    with pytest.raises(OAuthError) as caught:
        await awaitable
    return caught.value


@pytest.mark.parametrize("hint", [None, "refresh_token", "access_token", "nonsense"])
def test_REV3_a_refresh_token_ends_its_family_whatever_the_hint(world, hint):
    """
    Family and access tokens are over, whichever kind the hint names.
    """

    async def story():
        await world.start()
        first = await world.family()
        second = await world.refresh("web", first.refresh_token)
        await world.revoke("web", second.refresh_token, token_type_hint=hint)
        error = await refused(world.refresh("web", second.refresh_token))
        seen = [
            await world.introspect("watcher", each.access_token)
            for each in (first, second)
        ]
        return error, seen

    error, seen = asyncio.run(story())

    assert "invalid_grant" == error.error
    assert [{"active": False}] * 2 == seen


@pytest.mark.parametrize("hint", [None, "refresh_token", "access_token"])
def test_REV3_an_access_token_ends_alone(world, hint):
    """
    Its family lives on, and so do the other access tokens of it.
    """

    async def story():
        await world.start()
        first = await world.family()
        second = await world.refresh("web", first.refresh_token)
        await world.revoke("web", first.access_token, token_type_hint=hint)
        seen = [
            (await world.introspect("watcher", each.access_token))["active"]
            for each in (first, second)
        ]
        return seen, await world.refresh("web", second.refresh_token)

    seen, answer = asyncio.run(story())

    assert [False, True] == seen
    assert answer.refresh_token


def test_REV1_unknown_expired_and_revoked_tokens_are_a_success(world):
    """
    There is nothing to tell: every such answer is empty and good.
    """

    async def story():
        await world.start()
        first = await world.family()
        await world.revoke("web", first.refresh_token)
        expired = await world.token("web")
        world.clock.advance(timedelta(hours=1))
        for text in (
            first.refresh_token,
            expired.access_token,
            "nonsense",
            "kgm_rt_nonsense",
            "a.b.c",
            "x" * 100_000,
            "." * 1000,
        ):
            assert await world.revoke("web", text) is None

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["refresh_token", "access_token"])
def test_REV2_T14_another_clients_token_is_not_revoked(world, kind):
    """
    400 invalid_grant without a word on whose it is, and the token still works.
    """

    async def story():
        await world.start()
        first = await world.family()
        error = await refused(world.revoke("machine", getattr(first, kind)))
        seen = await world.introspect("watcher", first.access_token)
        return error, seen, await world.refresh("web", first.refresh_token)

    error, seen, answer = asyncio.run(story())

    assert ("invalid_grant", 400) == (error.error, error.status)
    assert "web" not in str(error)
    assert seen["active"]
    assert answer.refresh_token


def test_T14_strangers_may_not_revoke(world):
    """
    Without authentication, and with a wrong secret, nothing is revoked.
    """

    async def story():
        await world.start()
        first = await world.family()
        form = {"token": first.refresh_token}
        for request in (
            world.request(form),
            world.request(form, basic("web", "wrong")),
            world.request({**form, "client_id": "web"}),
        ):
            error = await refused(world.services.revocation.revoke(request))
            assert "invalid_client" == error.error
        return await world.refresh("web", first.refresh_token)

    assert asyncio.run(story()).refresh_token


def test_a_public_client_revokes_its_own(world):
    """
    RFC 7009 section 2.1: a public client is known by its id.
    """

    async def story():
        await world.start()
        first = await world.family("spa")
        await world.revoke("spa", first.refresh_token)
        return await refused(world.refresh("spa", first.refresh_token))

    assert "invalid_grant" == asyncio.run(story()).error


def test_a_request_without_a_token_is_invalid(world):
    """
    REV-1: the parameter is required.
    """

    async def story():
        await world.start()
        return await refused(world.revoke("web", None))

    assert "invalid_request" == asyncio.run(story()).error


def test_REV4_no_descendant_of_a_revoked_token_works(world):
    """
    Of a refresh and a revocation at once: after the revocation's success nothing works.
    """

    async def story():
        await world.start()
        for _ in range(20):
            first = await world.family()
            raced, _ = await asyncio.gather(
                world.refresh("web", first.refresh_token),
                world.revoke("web", first.refresh_token),
                return_exceptions=True,
            )
            texts = [first]
            if not isinstance(raced, OAuthError):
                texts.append(raced)
            for each in texts:
                error = await refused(world.refresh("web", each.refresh_token))
                assert "invalid_grant" == error.error
                seen = await world.introspect("watcher", each.access_token)
                assert {"active": False} == seen

    asyncio.run(story())


def test_REV5_a_store_that_is_down_answers_503(world):
    """
    The client must assume that the token lives, and try again.
    """

    async def story():
        await world.start()
        first = await world.family()
        load_many = world.memory.load_many

        async def fail(*_):
            raise StoreError("no answer", transient=True)

        world.memory.load_many = fail
        error = await refused(world.revoke("web", first.refresh_token))
        world.memory.load_many = load_many
        return error, await world.refresh("web", first.refresh_token)

    error, answer = asyncio.run(story())

    assert (503, 1) == (error.status, error.retry_after)
    assert answer.refresh_token
