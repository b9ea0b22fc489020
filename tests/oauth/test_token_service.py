"""
The token endpoint below HTTP: TOK-2 to TOK-5, TOK-13, TOK-14, ACC-1, ACC-2 and B7, B8.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import msgspec
import pytest

from kagimori.errors import OAuthError, SigningUnavailableError
from kagimori.identity.user import USER_ID_PREFIX
from kagimori.oauth.client import (
    CLIENTS,
    AfterExpiry,
    AuthMethod,
    Profile,
)
from kagimori.oauth.resource import RESOURCES
from kagimori.tokens.policy import RefreshPolicy
from kagimori.tokens.verifier import TokenVerifier
from tests.oauth.world import API, ISSUER, MAIL, OLD, basic, claims_of, header_of


def members(answer):
    return list(json.loads(msgspec.json.encode(answer)))


async def refused(awaitable):
    with pytest.raises(OAuthError) as caught:
        await awaitable
    return caught.value


def test_TOK4_a_client_credentials_answer(world):
    """
    Bearer, an integer of seconds, the scope always; and no refresh token (TOK-13).
    """

    async def story():
        await world.start()
        return await world.token("machine", scope="read")

    answer = asyncio.run(story())
    claims = claims_of(answer.access_token)

    assert ["token_type", "access_token", "expires_in", "scope"] == members(answer)
    assert ("Bearer", 600, "read") == (
        answer.token_type,
        answer.expires_in,
        answer.scope,
    )
    assert 600 == claims["exp"] - claims["iat"]
    assert (ISSUER, API, "machine", "machine") == (
        claims["iss"],
        claims["aud"],
        claims["sub"],
        claims["client_id"],
    )
    assert "at+jwt" == header_of(answer.access_token)["typ"]


def test_TOK13_the_sub_of_a_client_is_never_a_users(world):
    """
    A user's id begins as no client's may, so the two kinds of subject cannot meet.
    """

    async def story():
        await world.start()
        return await world.token("machine")

    answer = asyncio.run(story())

    assert not claims_of(answer.access_token)["sub"].startswith(USER_ID_PREFIX)
    assert world.user.id.startswith(USER_ID_PREFIX)


def test_client_credentials_read_and_write_nothing_once_warm(world):
    """
    After the first request a second one asks the store for nothing.
    """

    async def story():
        await world.start()
        for client in ("machine", "poster"):
            await world.token(client)
        world.store.calls.clear()
        for client in ("machine", "poster"):
            await world.token(client)

    asyncio.run(story())

    assert [] == world.store.calls


@pytest.mark.parametrize(
    ("client", "form", "error"),
    [
        ("machine", {}, "invalid_request"),
        ("machine", {"grant_type": "implicit"}, "unsupported_grant_type"),
        ("machine", {"grant_type": "CLIENT_CREDENTIALS"}, "unsupported_grant_type"),
        ("machine", {"grant_type": "password"}, "unauthorized_client"),
        ("legacy", {"grant_type": "client_credentials"}, "unauthorized_client"),
        ("watcher", {"grant_type": "refresh_token"}, "unauthorized_client"),
        ("spa", {"grant_type": "client_credentials"}, "unauthorized_client"),
        ("legacy", {"grant_type": "password"}, "invalid_request"),
        ("legacy", {"grant_type": "password", "username": "alice"}, "invalid_request"),
        ("web", {"grant_type": "refresh_token"}, "invalid_request"),
        (None, {"grant_type": "client_credentials"}, "invalid_client"),
        (None, {}, "invalid_request"),
    ],
)
def test_TOK5_what_is_missing_or_not_allowed(world, client, form, error):
    """
    Each fault has its registered error code and a plain description.
    """

    async def story():
        await world.start()
        return await refused(world.services.token.token(world.shown(client, form)))

    found = asyncio.run(story())

    assert error == found.error
    assert found.description.isascii()
    assert not set(found.description) & set('"\\')


def test_ACC2_password_is_unsupported_when_no_client_has_it(world):
    """
    While one client has the grant another is unauthorized; without any it does not exist.
    """

    async def story():
        await world.start()
        some = await refused(world.password(client="web"))
        await world.change(CLIENTS, "legacy", disabled=True)
        none = await refused(world.password(client="web"))
        return some.error, none.error

    assert ("unauthorized_client", "unsupported_grant_type") == asyncio.run(story())


def test_ACC1_the_strict_legacy_answers(world):
    """
    Exactly four members in this order, lower-case bearer, 20 seconds; at both grants.
    """

    async def story():
        await world.start()
        first = await world.password()
        world.clock.advance(timedelta(seconds=30))
        return first, await world.refresh("legacy", first.refresh_token)

    for answer in asyncio.run(story()):
        claims = claims_of(answer.access_token)
        order = ["token_type", "access_token", "expires_in", "refresh_token"]
        assert order == members(answer)
        assert "bearer" == answer.token_type
        assert 20 == answer.expires_in == claims["exp"] - claims["iat"]
        assert (world.user.id, "legacy", "alice") == (
            claims["sub"],
            claims["client_id"],
            claims["user"],
        )
        assert OLD == claims["aud"]
        assert claims["jti"]


def test_ACC1_a_refresh_gives_new_tokens(world):
    """
    Both the access token and the refresh token of step 4 are new.
    """

    async def story():
        await world.start()
        first = await world.password()
        return first, await world.refresh("legacy", first.refresh_token)

    first, second = asyncio.run(story())

    assert first.access_token != second.access_token
    assert first.refresh_token != second.refresh_token


def test_the_name_of_the_user_stays_out_of_default_tokens(world):
    """
    Only strict legacy puts the user's name into access tokens.
    """

    async def story():
        await world.start()
        return await world.family()

    assert "user" not in claims_of(asyncio.run(story()).access_token)


def test_legacy_refresh_after_a_restart_still_names_the_user(world):
    """
    Another process reads the name once, and then no more.
    """

    async def story():
        await world.start()
        first = await world.password()
        usernames = world.services.token._grants["refresh_token"]._usernames
        usernames._names.clear()
        second = await world.refresh("legacy", first.refresh_token)
        world.store.calls.clear()
        third = await world.refresh("legacy", second.refresh_token)
        return second, third

    for answer in asyncio.run(story()):
        assert "alice" == claims_of(answer.access_token)["user"]
    assert ["load_many(family, user, client_epoch)", "commit(family)"] == [
        str(call) for call in world.store.calls if "ring" not in call.kinds
    ]


@pytest.mark.parametrize(
    ("username", "password"), [("alice", "wrong"), ("nobody", "wrong"), ("", "x")]
)
def test_ACC4_wrong_user_and_wrong_password_are_one_invalid_grant(
    world, username, password
):
    """
    Unknown user and wrong password are answered with the same error and text.
    """

    async def story():
        await world.start()
        return await refused(world.password(username, password))

    error = asyncio.run(story())

    assert ("invalid_grant", 400) == (error.error, error.status)
    assert "user" not in error.description.lower()


def test_TOK14_T11_a_stored_grant_alone_does_not_open_the_password_grant(world):
    """
    A document that says so without the profile, or of a public client, opens nothing.
    """

    async def story():
        await world.start()
        found = {}
        await world.change(CLIENTS, "legacy", profile=Profile.DEFAULT)
        found["default profile"] = (await refused(world.password())).error
        await world.change(
            CLIENTS, "legacy", profile=Profile.LEGACY_2015, auth_method=AuthMethod.NONE
        )
        request = world.request(
            {
                "grant_type": "password",
                "client_id": "legacy",
                "username": "alice",
                "password": "tin kettle 7 rooftop",
            }
        )
        found["public"] = (await refused(world.services.token.token(request))).error
        return found

    found = asyncio.run(story())

    assert "unauthorized_client" == found["default profile"]
    assert "unauthorized_client" == found["public"]


def test_T11_nobody_is_hashed_for_a_client_without_the_grant(world):
    """
    The grant is refused before the password is looked at.
    """

    async def story():
        await world.start()
        await world.token("machine")
        world.pool.close()
        return await refused(world.password(client="machine"))

    assert "unauthorized_client" == asyncio.run(story()).error


def test_B7_an_api_sets_the_lifetime_and_a_client_may_shorten_it(world):
    """
    The API's lifetime, the client's if shorter, ten minutes without either.
    """

    async def story():
        await world.start()
        lives = [
            (await world.token("machine")).expires_in,
            (await world.token("machine", resource=MAIL)).expires_in,
        ]
        for minutes in (1, 5):
            await world.change(
                CLIENTS, "machine", access_token_lifetime=timedelta(minutes=minutes)
            )
            lives += [
                (await world.token("machine")).expires_in,
                (await world.token("machine", resource=MAIL)).expires_in,
            ]
        return lives

    assert [600, 120, 60, 60, 300, 120] == asyncio.run(story())


def test_the_algorithm_is_the_resources(world):
    """
    Each API's tokens are signed with its algorithm, the tenant's default without one.
    """

    async def story():
        await world.start()
        api = await world.token("machine")
        mail = await world.token("machine", resource=MAIL)
        return [header_of(each.access_token)["alg"] for each in (api, mail)]

    assert ["ES256", "Ed25519"] == asyncio.run(story())


def test_B7_after_expiry_sign_in_gives_no_refresh_token(world):
    """
    Such a client renews only by a new sign-in: no refresh token, no family, no deadlines.
    """

    async def story():
        await world.start()
        await world.change(CLIENTS, "web", after_expiry=AfterExpiry.SIGN_IN)
        answer = await world.family()
        listed = await world.services.families.list_families("default")
        return answer, listed

    answer, listed = asyncio.run(story())

    assert ["token_type", "access_token", "expires_in", "scope"] == members(answer)
    claims = claims_of(answer.access_token)
    assert "fid" not in claims
    assert claims["auth_time"] == claims["iat"]
    assert () == listed


def test_a_client_without_the_refresh_grant_gets_no_refresh_token(world):
    """
    What it could not use it is not given.
    """

    async def story():
        await world.start()
        await world.change(CLIENTS, "legacy", grants=("password",))
        return await world.password()

    assert ["token_type", "access_token", "expires_in"] == members(asyncio.run(story()))


def test_B8_answers_carry_the_remaining_seconds_of_both_deadlines(world):
    """
    The names are those of draft-ietf-oauth-refresh-token-expiration-03.
    """
    policy = RefreshPolicy(
        idle_lifetime=timedelta(days=7),
        absolute_lifetime=timedelta(days=10),
        replay_until_used=False,
    )

    async def story():
        await world.start()
        await world.change(CLIENTS, "web", refresh=policy)
        answers = [await world.family()]
        for days in (2, 5):
            world.clock.advance(timedelta(days=days))
            answers.append(await world.refresh("web", answers[-1].refresh_token))
        return answers

    # The figures of the draft's own example (section 6.3).
    seen = [
        (each.refresh_token_timeout, each.authorization_expires_in)
        for each in asyncio.run(story())
    ]
    assert [(604800, 864000), (604800, 691200), (259200, 259200)] == seen


def test_B7_no_access_token_outlives_its_family(world):
    """
    Near the absolute end access tokens become shorter, and the claims agree.
    """
    policy = RefreshPolicy(
        absolute_lifetime=timedelta(days=1), idle_lifetime=timedelta(days=1)
    )

    async def story():
        await world.start()
        await world.change(CLIENTS, "web", refresh=policy)
        first = await world.family()
        world.clock.advance(timedelta(days=1) - timedelta(seconds=90))
        return await world.refresh("web", first.refresh_token)

    answer = asyncio.run(story())
    claims = claims_of(answer.access_token)

    assert 90 == answer.expires_in == claims["exp"] - claims["iat"]


def test_a_signer_that_fails_answers_503_and_the_retry_gets_the_same(world):
    """
    Signing comes after the commit: the client loses nothing, the retry is a replay (B5).
    """

    async def story():
        await world.start()
        first = await world.family()
        signing_key = world.rings.signing_key

        async def fail(*_):
            raise SigningUnavailableError("the vault does not answer")

        world.rings.signing_key = fail
        error = await refused(world.refresh("web", first.refresh_token))
        world.rings.signing_key = signing_key
        second = await world.refresh("web", first.refresh_token)
        third = await world.refresh("web", second.refresh_token)
        return error, second, third

    error, second, third = asyncio.run(story())

    assert (503, "temporarily_unavailable", 1) == (
        error.status,
        error.error,
        error.retry_after,
    )
    assert third.refresh_token != second.refresh_token
    assert ["refresh.rotated", "refresh.replayed", "refresh.rotated"] == [
        name for name in world.events.names() if name.startswith("refresh.")
    ]


def test_every_token_is_told_once(world):
    """
    The event names tenant, client, grant and ids; no token stands in it.
    """

    async def story():
        await world.start()
        return [await world.token("machine"), await world.password()]

    answers = asyncio.run(story())
    issued = [each for each in world.events if each.name == "token.issued"]

    assert ["client_credentials", "password"] == [e.fields["grant"] for e in issued]
    for event, answer in zip(issued, answers, strict=True):
        assert claims_of(answer.access_token)["jti"] == event.fields["jti"]
        assert answer.access_token not in str(event)
        assert answer.access_token not in repr(answer)


def test_the_tokens_verify_offline(world):
    """
    A verifier with the tenant's keys alone accepts them, for their audience.
    """

    async def story():
        await world.start()
        return await world.token("machine"), await world.token("machine", resource=MAIL)

    for answer, audience in zip(asyncio.run(story()), (API, MAIL), strict=True):
        verifier = TokenVerifier.from_keys(
            world.rings.verification_keys("default", world.now),
            issuer=ISSUER,
            audience=audience,
        )
        token = verifier.verify(answer.access_token, now=world.now)
        assert "machine" == token.client_id


def test_disabled_during_the_sign_in_is_an_invalid_grant(world):
    """
    A user who is disabled between password and family gets nothing.
    """

    async def story():
        await world.start()
        open_family = world.services.families.open_family

        async def meanwhile(*args, **kwargs):
            await world.change_user(disabled=True)
            return await open_family(*args, **kwargs)

        world.services.families.open_family = meanwhile
        error = await refused(world.password())
        return error, await world.services.families.list_families("default")

    error, listed = asyncio.run(story())

    assert "invalid_grant" == error.error
    assert () == listed


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"allow_operator_grants": False}, "unauthorized_client"),
        ({"disabled": True}, "invalid_client"),
        ({}, None),
    ],
)
def test_an_operator_issues_only_where_the_client_allows_it(world, fields, error):
    """
    Operator grants go through the same choke point, and want the client's own consent.
    """

    async def story():
        await world.start()
        await world.change(CLIENTS, "web", **fields)
        if error is None:
            return await world.family()
        return await refused(world.family())

    found = asyncio.run(story())

    assert error == getattr(found, "error", None)


def test_an_operator_must_name_a_client_and_a_user(world):
    """
    An unknown client or user is told to the operator as what it is.
    """

    async def story():
        await world.start()
        issue = world.services.operator.issue
        for client, username in (("nobody", "alice"), ("web", "nobody")):
            with pytest.raises(Exception, match="There is no such") as caught:
                await issue(
                    world.context, client=client, username=username, now=world.now
                )
            yield caught.value.code

    async def collect():
        return [code async for code in story()]

    assert ["not_found", "not_found"] == asyncio.run(collect())


def test_TOK2_unknown_parameters_are_ignored(world):
    """
    What nobody knows does not matter; what is known still does.
    """

    async def story():
        await world.start()
        return await world.token("machine", nonsense="1", scope="read")

    assert "read" == asyncio.run(story()).scope


def test_a_resource_whose_algorithm_has_no_key_is_the_operators_fault(world):
    """
    No key of the algorithm is current: the server's error, told apart from the client's.
    """

    async def story():
        await world.start()
        await world.change(RESOURCES, "api", signing_algorithm="ES512")
        return await refused(world.token("machine"))

    error = asyncio.run(story())

    assert error.status >= 500


def test_a_user_removed_between_two_refreshes_ends_the_family(world):
    """
    Without its user a family gives nothing more.
    """

    async def story():
        await world.start()
        first = await world.family()
        await world.remove_user()
        return await refused(world.refresh("web", first.refresh_token))

    assert "invalid_grant" == asyncio.run(story()).error


def test_a_wrong_secret_never_reaches_the_grant(world):
    """
    A good refresh token with a wrong client secret is not used up.
    """

    async def story():
        await world.start()
        first = await world.family()
        form = {"grant_type": "refresh_token", "refresh_token": first.refresh_token}
        request = world.request(form, basic("web", "wrong"))
        error = await refused(world.services.token.token(request))
        return error, await world.refresh("web", first.refresh_token)

    error, answer = asyncio.run(story())

    assert "invalid_client" == error.error
    assert answer.refresh_token
