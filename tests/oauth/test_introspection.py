"""
Introspection: INT-1 to INT-3, J6, J7 and T14.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from kagimori.admin.audit import Trail
from kagimori.admin.tokens import TokenAdmin
from kagimori.admin.users import UserAdmin
from kagimori.clock import seconds
from kagimori.crypto import jws
from kagimori.crypto.jwk import Jwk
from kagimori.errors import OAuthError
from kagimori.oauth.client import CLIENTS
from kagimori.oauth.requests import TenantContext
from kagimori.oauth.resource import RESOURCES
from kagimori.oauth.tenant import TENANTS
from tests.oauth.world import API, ISSUER, MAIL, basic, claims_of

INACTIVE = {"active": False}


async def refused(awaitable):
    with pytest.raises(OAuthError) as caught:
        await awaitable
    return caught.value


def test_INT3_what_is_told_of_an_access_token(world):
    """
    The members of the specification, as the token itself says them.
    """

    async def story():
        await world.start()
        answer = await world.family()
        return claims_of(answer.access_token), await world.introspect(
            "watcher", answer.access_token
        )

    claims, told = asyncio.run(story())

    assert {
        "active": True,
        "token_type": "Bearer",
        **{
            name: claims[name]
            for name in ("iss", "sub", "client_id", "aud", "scope", "exp", "iat", "jti")
        },
    } == told


def test_INT3_what_is_told_of_a_refresh_token_and_nothing_moves(world):
    """
    Its own client sees scope and deadlines; asking moves no deadline and writes nothing.
    """

    async def story():
        await world.start()
        answer = await world.family()
        world.clock.advance(timedelta(days=1))
        world.store.calls.clear()
        told = await world.introspect("web", answer.refresh_token)
        return told, {call.name for call in world.store.calls}

    told, calls = asyncio.run(story())

    assert told["active"]
    assert (ISSUER, world.user.id, "web") == (
        told["iss"],
        told["sub"],
        told["client_id"],
    )
    assert [API, MAIL] == told["aud"]
    assert "read write mail" == told["scope"]
    assert (13 * 86400, 364 * 86400) == (
        told["refresh_token_timeout"],
        told["authorization_expires_in"],
    )
    assert {"load_many"} == calls


@pytest.mark.parametrize(
    ("asker", "resource", "active"),
    [
        ("watcher", API, True),
        ("watcher", MAIL, True),
        ("mailer", MAIL, True),
        ("mailer", API, False),
        ("web", API, False),
        ("signer", API, False),
    ],
)
def test_INT2_only_the_audience_is_told(world, asker, resource, active):
    """
    The resource's own clients, and those that may introspect all; not even the token's client.
    """

    async def story():
        await world.start()
        answer = await world.token("web", resource=resource)
        return await world.introspect(asker, answer.access_token)

    told = asyncio.run(story())

    assert active == told["active"]
    assert active or told == INACTIVE


@pytest.mark.parametrize("asker", ["machine", "watcher", "mailer"])
def test_T14_another_clients_refresh_token_is_inactive(world, asker):
    """
    A refresh token is told of to its own client alone.
    """

    async def story():
        await world.start()
        answer = await world.family()
        return await world.introspect(asker, answer.refresh_token)

    assert INACTIVE == asyncio.run(story())


def test_INT1_strangers_are_401(world):
    """
    No credentials, wrong ones, a public client, and a client that may ask for nothing.
    """

    async def story():
        await world.start()
        await world.client("plain", grants=("client_credentials",))
        answer = await world.token("machine")
        form = {"token": answer.access_token}
        return [
            await refused(world.services.introspection.introspect(request))
            for request in (
                world.request(form),
                world.request(form, basic("watcher", "wrong")),
                world.request({**form, "client_id": "spa"}),
                world.shown("plain", form),
            )
        ]

    for error in asyncio.run(story()):
        assert ("invalid_client", 401) == (error.error, error.status)
        assert error.challenge


def test_a_request_without_a_token_is_invalid(world):
    """
    The parameter is required.
    """

    async def story():
        await world.start()
        return await refused(world.introspect("watcher", None))

    assert "invalid_request" == asyncio.run(story()).error


async def end(world, how, answer):
    match how:
        case "expired":
            world.clock.advance(timedelta(minutes=10))
        case "access token revoked":
            await world.revoke("web", answer.access_token)
        case "family revoked":
            await world.revoke("web", answer.refresh_token)
        case "client disabled":
            await world.change(CLIENTS, "web", disabled=True)
        case "resource disabled":
            await world.change(RESOURCES, "api", disabled=True)
        case "user disabled":
            await world.change_user(disabled=True)
        case "user removed":
            await world.remove_user()
        case "user signed out":
            # The first of the two steps of a sign-out; the second only tidies.
            await world.change_user(epoch=1)
        case "client's sign-ins ended":
            await world.services.families.revocation.revoke_client("default", "web")


ENDS = [
    "expired",
    "access token revoked",
    "family revoked",
    "client disabled",
    "resource disabled",
    "user disabled",
    "user removed",
    "user signed out",
    "client's sign-ins ended",
]


@pytest.mark.parametrize("how", ENDS)
def test_INT2_inactive_for_any_reason_is_exactly_that(world, how):
    """
    Whatever ended the token, the answer is the same one member.
    """

    async def story():
        await world.start()
        answer = await world.family()
        before = await world.introspect("watcher", answer.access_token)
        await end(world, how, answer)
        return before, await world.introspect("watcher", answer.access_token)

    before, after = asyncio.run(story())

    assert before["active"]
    assert INACTIVE == after


@pytest.mark.parametrize("how", ["user disabled", "user removed"])
def test_a_token_without_a_family_ends_with_its_user(world, how):
    """
    A user's token that no refresh token stands behind is inactive when the user is gone.
    """

    async def story():
        await world.start()
        await world.change(CLIENTS, "legacy", grants=("password",))
        answer = await world.password()
        before = await world.introspect("watcher", answer.access_token)
        await end(world, how, answer)
        return before, await world.introspect("watcher", answer.access_token)

    before, after = asyncio.run(story())

    assert before["active"]
    assert INACTIVE == after


def test_the_state_is_read_in_one_round_trip(world):
    """
    Denials, family, user and epoch come by one read; for a client's own token less is read.
    """

    async def story():
        await world.start()
        family, own = await world.family(), await world.token("machine")
        await world.introspect("watcher", own.access_token)
        world.store.calls.clear()
        await world.introspect("watcher", family.access_token)
        await world.introspect("watcher", own.access_token)

    asyncio.run(story())

    assert [
        "load_many(family, user, client_epoch, denied, denied)",
        "load_many(denied)",
    ] == list(map(str, world.store.calls))


def forged(world, *, key=None, typ="at+jwt", **changed):
    claims = {
        "iss": ISSUER,
        "sub": "machine",
        "aud": API,
        "client_id": "machine",
        "exp": seconds(world.now) + 60,
        "iat": seconds(world.now),
        "jti": "forged",
        **changed,
    }
    return jws.sign(
        json.dumps(claims).encode(), key or world.signer_key, header={"typ": typ}
    )


def test_a_token_of_somebody_else_is_inactive(world):
    """
    Foreign keys, foreign issuers, other kinds of token and nonsense are all the same.
    """

    async def story():
        await world.start()
        ours = await world.rings.signing_key(
            "default", None, world.now, world.now + timedelta(minutes=1)
        )

        def own(typ, **changed):
            body = json.loads(
                json.dumps(
                    {
                        "iss": ISSUER,
                        "sub": "machine",
                        "aud": API,
                        "client_id": "machine",
                        "exp": seconds(world.now) + 60,
                        "iat": seconds(world.now),
                        "jti": "x",
                        **changed,
                    }
                )
            )
            return ours.jws_signer(typ).sign(json.dumps(body).encode())

        assert (await world.introspect("watcher", own("at+jwt")))["active"]
        return [
            await world.introspect("watcher", text)
            for text in (
                forged(world),
                forged(world, key=Jwk.generate("ES256")),
                own("JWT"),
                own("logout+jwt"),
                own("at+jwt", iss=ISSUER + "/"),
                own("at+jwt", iss=ISSUER.upper()),
                own("at+jwt", aud="machine"),
                own("at+jwt", aud=[API, MAIL]),
                own("at+jwt", client_id="nobody"),
                world.assertion(),
                "nonsense",
                "a.b.c",
                "kgm_rt_nonsense",
                "." * 5000,
                "x" * 100_000,
            )
        ]

    assert [INACTIVE] * 15 == asyncio.run(story())


def test_J7_another_tenants_token_is_inactive(world):
    """
    Each tenant knows its own tokens only.
    """

    async def story():
        await world.start()
        answer = await world.token("machine")
        world.context = TenantContext("default", "https://other.example")
        elsewhere = await world.introspect("watcher", answer.access_token)
        world.context = TenantContext("default", "https://other.example", (ISSUER,))
        earlier = await world.introspect("watcher", answer.access_token)
        return elsewhere, earlier

    elsewhere, earlier = asyncio.run(story())

    assert INACTIVE == elsewhere
    # An earlier address of this installation: its tokens stay good until they expire.
    assert earlier["active"]


def test_a_disabled_tenant_tells_nothing(world):
    """
    Nobody is authenticated at a tenant that is switched off.
    """

    async def story():
        await world.start()
        answer = await world.token("machine")
        await world.change(TENANTS, "default", disabled=True)
        return await refused(world.introspect("watcher", answer.access_token))

    assert "invalid_client" == asyncio.run(story()).error


def test_a_key_that_another_node_made_is_learned_at_once(world):
    """
    An unknown key id makes the node look once; then the token is known.
    """

    async def story():
        await world.start()
        answer = await world.token("machine")
        known = world.rings.verification_keys
        calls = []

        def unknown(tenant, now):
            return known(tenant, now) if calls else type(known(tenant, now)).of(())

        async def learns(tenant, kid, now):
            calls.append(kid)
            return True

        world.rings.verification_keys = unknown
        world.rings.learns = learns
        return calls, await world.introspect("watcher", answer.access_token)

    calls, told = asyncio.run(story())

    assert told["active"]
    assert 1 == len(calls)


@pytest.mark.parametrize("how", ENDS)
def test_an_operator_is_told_what_introspection_tells(world, how):
    """
    Inactive in the same cases, and why.
    """

    async def story():
        await world.start()
        trail, services = Trail(), world.services
        revocation = services.families.revocation
        tokens = TokenAdmin(
            world.store,
            trail,
            services.families,
            services.access_tokens,
            services.operator,
            UserAdmin(world.store, trail, world.pool, revocation, lambda: world.now),
            lambda: world.now,
        )
        answer = await world.family()
        before = await tokens.inspect(world.context, answer.access_token)
        await end(world, how, answer)
        return before, await tokens.inspect(world.context, answer.access_token)

    before, after = asyncio.run(story())

    assert (True, "") == (before.active, before.reason)
    assert not after.active
    assert after.reason
