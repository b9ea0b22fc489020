"""
Client assertions: TOK-17, and the attacks T7 and J6.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from kagimori.clock import seconds
from kagimori.crypto import jws
from kagimori.crypto.digests import b64url_encode
from kagimori.crypto.jwk import Jwk
from kagimori.errors import OAuthError, StoreError
from kagimori.oauth.assembly import assemble
from kagimori.oauth.assertions import ASSERTION_TYPE
from kagimori.oauth.client import CLIENTS, AssertionAudience
from tests.oauth.world import ISSUER, World

TOKEN_URL = ISSUER + "/oauth/token"
OTHER_KEY = Jwk.generate("ES256")


@pytest.fixture(scope="module")
def world():
    world = World()
    asyncio.run(world.start())
    yield world
    world.pool.close()


async def outcome(world, form):
    """
    Return what a token request with this form ends in: ``ok``, or the error.
    """
    request = world.request({"grant_type": "client_credentials", **form})
    # Each case is judged by itself, not by the failures of those before it.
    world.clock.advance(timedelta(minutes=2))
    request = world.request(request.form)
    try:
        await world.services.token.token(request)
    except OAuthError as error:
        return error.error
    return "ok"


def shown(assertion, type_=ASSERTION_TYPE):
    return {"client_assertion_type": type_, "client_assertion": assertion}


def judge(world, **changed):
    """
    Return the outcome of an assertion that differs from a good one in these claims.
    """
    # `outcome` moves the clock first.
    later = seconds(world.now) + 120
    claims = {"exp": later + 60, "iat": later, **changed}
    return asyncio.run(outcome(world, shown(world.assertion(**claims))))


def test_a_good_assertion_passes(world):
    """
    The twin of every refusal below.
    """
    assert "ok" == judge(world)


@pytest.mark.parametrize(
    ("policy", "audience", "expected"),
    [
        (AssertionAudience.ISSUER, ISSUER, "ok"),
        (AssertionAudience.ISSUER, TOKEN_URL, "invalid_client"),
        (AssertionAudience.ISSUER_OR_TOKEN_ENDPOINT, ISSUER, "ok"),
        (AssertionAudience.ISSUER_OR_TOKEN_ENDPOINT, TOKEN_URL, "ok"),
        *(
            (policy, audience, "invalid_client")
            for policy in AssertionAudience
            for audience in (
                None,
                "",
                ISSUER + "/",
                ISSUER.upper(),
                "https://other.example",
                TOKEN_URL + "/",
                [ISSUER],
                [ISSUER, "https://other.example"],
                [],
                7,
            )
        ),
    ],
)
def test_TOK17_T7_the_audience_is_one_string_by_the_clients_policy(
    world, policy, audience, expected
):
    """
    Exactly the issuer or, where the policy says so, the token endpoint; never a list.
    """
    asyncio.run(world.change(CLIENTS, "signer", assertion_audience=policy))

    assert expected == judge(world, aud=audience)


HOUR = 3600


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": None}, "invalid_client"),
        ({"iss": "machine"}, "invalid_client"),
        ({"sub": None}, "invalid_client"),
        ({"sub": "nobody"}, "invalid_client"),
        ({"sub": 7}, "invalid_client"),
        ({"jti": None}, "invalid_client"),
        ({"jti": ""}, "invalid_client"),
        ({"jti": 7}, "invalid_client"),
        ({"jti": "x" * 256}, "invalid_client"),
        ({"jti": "x" * 255}, "ok"),
        ({"exp": None}, "invalid_client"),
        ({"exp": "soon"}, "invalid_client"),
        ({"exp": True}, "invalid_client"),
        ({"exp": 10**30}, "invalid_client"),
        ({"iat": None}, "ok"),
        ({"iat": "now"}, "invalid_client"),
    ],
)
def test_T7_a_missing_or_malformed_claim_is_refused(world, claims, expected):
    """
    iss, sub, aud, exp and jti are required, each of its own type.
    """
    assert expected == judge(world, **claims)


@pytest.mark.parametrize(
    ("exp", "iat", "nbf", "expected"),
    [
        (0, None, None, "invalid_client"),
        (-1, None, None, "invalid_client"),
        (1, None, None, "ok"),
        (HOUR, None, None, "ok"),
        (HOUR + 1, None, None, "invalid_client"),
        (365 * 24 * HOUR, None, None, "invalid_client"),
        (60, 10, 10, "ok"),
        (60, 11, None, "invalid_client"),
        (60, None, 60, "invalid_client"),
    ],
)
def test_T7_FAP4_the_times_of_an_assertion(world, exp, iat, nbf, expected):
    """
    No tolerance at exp, an hour ahead at most; iat and nbf up to 10 s in the future.
    """
    at = seconds(world.now) + 120
    claims = {
        "exp": at + exp,
        "iat": None if iat is None else at + iat,
        "nbf": None if nbf is None else at + nbf,
    }

    assert expected == judge(world, **claims)


@pytest.mark.parametrize(
    ("typ", "expected"),
    [
        (None, "ok"),
        ("JWT", "ok"),
        ("client-authentication+jwt", "ok"),
        ("at+jwt", "invalid_client"),
        ("logout+jwt", "invalid_client"),
        ("dpop+jwt", "invalid_client"),
        ("oauth-authz-req+jwt", "invalid_client"),
    ],
)
def test_J6_another_kind_of_token_is_no_assertion(world, typ, expected):
    """
    A JWT that says it is something else is refused, whatever its claims.
    """
    later = seconds(world.now) + 120
    assertion = world.assertion(
        header={"typ": typ} if typ else None, exp=later + 60, iat=later
    )

    assert expected == asyncio.run(outcome(world, shown(assertion)))


def test_J6_our_own_access_token_is_no_assertion(world):
    """
    An access token of the client itself is refused as an assertion.
    """
    answer = asyncio.run(world.token("machine"))

    assert "invalid_client" == asyncio.run(outcome(world, shown(answer.access_token)))


def test_T7_another_clients_key_is_refused(world):
    """
    Who holds another key cannot speak for this client, also not under its key id.
    """
    kid = world.signer_key.kid
    forged = Jwk.from_dict({**OTHER_KEY.to_dict(private=True), "kid": kid})

    async def story():
        later = seconds(world.now) + 120
        times = {"exp": later + 60, "iat": later}
        own = world.assertion(key=OTHER_KEY, **times)
        same = world.assertion(key=forged, **times)
        return await outcome(world, shown(own)), await outcome(world, shown(same))

    assert ("invalid_client", "invalid_client") == asyncio.run(story())


@pytest.mark.parametrize(
    "assertion",
    [
        "",
        "a.b.c",
        "no dots",
        "." * 10_000,
        "x" * 100_000,
        "e30." + b64url_encode(b'{"sub":"signer","sub":"signer"}') + ".e30",
        "e30." + b64url_encode(b"[]") + ".e30",
        b64url_encode(b'{"alg":"none"}')
        + "."
        + b64url_encode(b'{"sub":"signer"}')
        + ".",
        b64url_encode(b'{"alg":"HS256"}')
        + "."
        + b64url_encode(b'{"sub":"signer"}')
        + ".AAAA",
    ],
)
def test_a_malformed_assertion_is_refused(world, assertion):
    """
    Whatever stands there, the answer is an error of the client.
    """
    assert "invalid_client" == asyncio.run(outcome(world, shown(assertion)))


def test_an_assertion_that_is_no_object_is_refused(world):
    """
    A sound signature over something else than claims proves nothing.
    """
    body = jws.sign(json.dumps(["signer"]).encode(), world.signer_key)

    assert "invalid_client" == asyncio.run(outcome(world, shown(body)))


@pytest.mark.parametrize(
    "form",
    [
        {"client_assertion_type": ASSERTION_TYPE},
        {"client_assertion": "a.b.c"},
        {"client_assertion": "a.b.c", "client_assertion_type": "urn:other"},
    ],
)
def test_half_an_assertion_is_an_invalid_request(world, form):
    """
    Type and assertion come together, and the type is the one of RFC 7523.
    """
    assert "invalid_request" == asyncio.run(outcome(world, form))


@pytest.mark.parametrize(
    ("named", "expected"), [("signer", "ok"), ("machine", "invalid_request")]
)
def test_a_client_id_beside_an_assertion_must_agree(world, named, expected):
    """
    The body may name the client once more, but no other one.
    """
    later = seconds(world.now) + 120
    form = shown(world.assertion(exp=later + 60, iat=later))

    found = asyncio.run(outcome(world, {**form, "client_id": named}))
    assert expected == found


def test_TOK17_T7_an_assertion_is_used_once_across_nodes(world):
    """
    Of many uses at once, at two nodes on one store, exactly one succeeds; and none later.
    """
    nodes = [
        world.services,
        assemble(world.store, world.rings, world.ring, pool=world.pool),
    ]

    async def story():
        form = world.asserted()
        request = world.request({"grant_type": "client_credentials", **form})
        race = [nodes[n % 2].token.token(request) for n in range(8)]
        raced = await asyncio.gather(*race, return_exceptions=True)
        with pytest.raises(OAuthError) as caught:
            await world.services.token.token(request)
        return raced, caught.value

    world.clock.advance(timedelta(minutes=2))
    raced, later = asyncio.run(story())

    assert 1 == sum(not isinstance(each, OAuthError) for each in raced)
    assert "invalid_client" == later.error
    assert "used before" in later.detail


def test_TOK17_the_same_jti_of_another_client_is_another(world):
    """
    A jti belongs to its client: nobody can use up another client's.
    """

    async def story():
        later = seconds(world.now) + 120
        times = {"exp": later + 60, "iat": later, "jti": "shared"}
        await world.client(
            "second",
            method=(
                await CLIENTS.get(world.memory, "default", "signer")
            ).value.auth_method,
            jwks={"keys": [OTHER_KEY.public().to_dict()]},
            grants=("client_credentials",),
            resources=("api",),
        )
        first = world.assertion(**times)
        second = world.assertion(key=OTHER_KEY, iss="second", sub="second", **times)
        world.clock.advance(timedelta(minutes=2))
        answers = []
        for assertion in (first, second, first):
            request = world.request(
                {"grant_type": "client_credentials", **shown(assertion)}
            )
            try:
                await world.services.token.token(request)
            except OAuthError as error:
                answers.append(error.error)
            else:
                answers.append("ok")
        return answers

    assert ["ok", "ok", "invalid_client"] == asyncio.run(story())


def test_TOK17_where_use_cannot_be_recorded_nothing_is_issued(world):
    """
    A store that does not take the jti makes the request fail: no token without single use.
    """

    async def story():
        request = world.request(
            {"grant_type": "client_credentials", **world.asserted()}
        )
        commit = world.memory.commit

        async def fail(*_):
            raise StoreError("disk full", transient=True)

        world.memory.commit = fail
        try:
            with pytest.raises(OAuthError) as caught:
                await world.services.token.token(request)
        finally:
            world.memory.commit = commit
        await world.services.token.token(request)
        return caught.value

    world.clock.advance(timedelta(minutes=2))
    error = asyncio.run(story())

    assert (503, "temporarily_unavailable") == (error.status, error.error)
