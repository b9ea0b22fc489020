"""
Bearer tokens at resources (BEA-1 to BEA-5) and the transcript of part C (ACC-1 to ACC-4, C3).
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from kagimori.oauth.resource import RESOURCES
from tests.http.world import (
    MACHINE,
    PASSWORD,
    TESTCLIENT,
    claims,
    header,
    world,
)


def run(tmp_path, work):
    async def scene():
        async with world(tmp_path) as made:
            return await work(made)

    return asyncio.run(scene())


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def tampered(token):
    head, payload, signature = token.split(".")
    return f"{head}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


# --- strict legacy -------------------------------------------------------------------------


def test_ACC_1_the_transcript_of_2015(tmp_path):
    """
    Steps 1 to 4 with the members, their order, the codes and the bodies of the article.
    """

    async def transcript(w):
        one = await w.post("/oauth/token", PASSWORD, authorization=TESTCLIENT)
        token = one.json["access_token"]
        two = await w.get(f"/secret?access_token={token}")
        w.clock.advance(timedelta(seconds=20))
        three = await w.get(f"/secret?access_token={token}")
        four = await w.refresh(one.json["refresh_token"])
        five = await w.get(f"/secret?access_token={four.json['access_token']}")
        return one, two, three, four, five

    one, two, three, four, five = run(tmp_path, transcript)

    members = ["token_type", "access_token", "expires_in", "refresh_token"]
    for answer in (one, four):
        assert 200 == answer.status
        assert members == list(answer.json)
        assert ("bearer", 20) == (answer.json["token_type"], answer.json["expires_in"])
        said = claims(answer.json["access_token"])
        assert 20 == said["exp"] - said["iat"]
        assert "no-store" == answer.headers["cache-control"]
        assert "no-cache" == answer.headers["pragma"]
    assert (200, b"Secret area") == (two.status, two.body)
    assert 401 == three.status
    assert (
        b'{"code":401,"error":"invalid_token",'
        b'"error_description":"The access token provided has expired."}'
    ) == three.body
    assert one.json["access_token"] != four.json["access_token"]
    assert one.json["refresh_token"] != four.json["refresh_token"]
    assert (200, b"Secret area") == (five.status, five.body)


def test_ACC_3_the_resource_makes_no_storage_call(tmp_path):
    """
    Neither profile asks the store, for a good token or a bad one, after any change either.
    """

    async def counted(w):
        legacy = (await w.sign_in())["access_token"]
        modern = (await w.machine())["access_token"]
        await w.installation.poll()
        w.spy.clear()
        answers = [
            await w.get(f"/secret?access_token={legacy}"),
            await w.get("/secret", headers=bearer(legacy)),
            await w.get("/api/secret", headers=bearer(modern)),
            await w.get(f"/secret?access_token={tampered(legacy)}"),
            await w.get("/api/secret", headers=bearer("eyJ.unknown.kid")),
            await w.get("/api/secret"),
        ]
        return [a.status for a in answers], list(w.spy.calls)

    statuses, calls = run(tmp_path, counted)

    assert [200, 200, 200, 401, 401, 401] == statuses
    assert [] == [str(call) for call in calls]


def test_ACC_4_tokens_are_better_than_the_source(tmp_path):
    """
    An asymmetric at+jwt with our claims; the user's name only where the profile says so.
    """

    async def both(w):
        return (await w.sign_in())["access_token"], (await w.machine())["access_token"]

    legacy, modern = run(tmp_path, both)

    assert ("at+jwt", "ES256") == (header(legacy)["typ"], header(legacy)["alg"])
    assert header(legacy)["kid"]
    assert (
        "http://localhost:3000",
        "urn:kagimori:demo",
        "testclient",
        "test",
    ) == tuple(claims(legacy)[name] for name in ("iss", "aud", "client_id", "user"))
    assert claims(legacy)["sub"] not in ("test", "testclient")
    assert claims(legacy)["jti"]
    assert "user" not in claims(modern)
    assert "machine" == claims(modern)["sub"]


@pytest.mark.parametrize(
    "token", ["x", "a.b.c", "...", "%00", "eyJhbGciOiJub25lIn0.e30.", "é", "a" * 20_000]
)
def test_ACC_4_a_malformed_token_is_401_and_never_5xx(tmp_path, token):
    """
    Whatever stands in place of a token is an invalid one, with a challenge.
    """

    async def both(w):
        return [
            await w.get(f"/secret?access_token={token}"),
            await w.get("/api/secret", headers=bearer(token)),
        ]

    legacy, modern = run(tmp_path, both)

    for answer in (legacy, modern):
        assert (401, "invalid_token") == (answer.status, answer.json["error"])
        assert "invalid_token" in answer.headers["www-authenticate"]
    assert 401 == legacy.json["code"]
    assert "code" not in modern.json


def test_C3_without_a_token_strict_legacy_answers_400(tmp_path):
    """
    The library of 2015 said invalid_request, with its code.
    """
    answer = run(tmp_path, lambda w: w.get("/secret"))

    assert 400 == answer.status
    assert ["code", "error", "error_description"] == list(answer.json)
    assert (400, "invalid_request") == (answer.json["code"], answer.json["error"])


def test_C3_a_token_in_the_query_marks_the_answer(tmp_path):
    """
    Private, no referrer, deprecated, counted; by the header nothing of it.
    """

    async def both(w):
        token = (await w.sign_in())["access_token"]
        answers = (
            await w.get(f"/secret?access_token={token}"),
            await w.get("/secret", headers=bearer(token)),
            await w.get("/secret?access_token=bad"),
        )
        return *answers, w.metrics.text().decode()

    query, by_header, bad, text = run(tmp_path, both)

    for answer in (query, bad):
        assert "private, no-store" == answer.headers["cache-control"]
        assert answer.headers["deprecation"].startswith("@")
        assert 'rel="deprecation"' in answer.headers["link"]
    assert "no-referrer" == query.headers["referrer-policy"]
    assert "deprecation" not in by_header.headers
    assert "no-store" == by_header.headers["cache-control"]
    assert 'kagimori_bearer_in_query_total{resource="demo"} 2.0' in text


def test_C3_a_token_in_the_query_lives_five_minutes_at_most(tmp_path):
    """
    A longer-lived token is taken from the header only.
    """

    async def long_lived(w):
        found = await RESOURCES.get(w.spy, "default", "demo")
        changed = msgspec.structs.replace(
            found.value, access_token_lifetime=timedelta(minutes=6), scopes=("api",)
        )
        from kagimori.oauth.client import CLIENTS

        client = await CLIENTS.get(w.spy, "default", "machine")
        other = msgspec.structs.replace(client.value, resources=("demo",))
        await w.spy.commit(
            "default",
            [
                RESOURCES.put("demo", changed, found.version),
                CLIENTS.put("machine", other, client.version),
            ],
        )
        await w.installation.poll()
        token = (await w.machine())["access_token"]
        return (
            await w.get(f"/secret?access_token={token}"),
            await w.get("/secret", headers=bearer(token)),
        )

    query, by_header = run(tmp_path, long_lived)

    assert 401 == query.status
    assert 200 == by_header.status


@pytest.mark.parametrize("path", ["/secret", "/api/secret"])
def test_BEA_1_more_than_one_place_is_400(tmp_path, path):
    """
    Header and query, or twice in the query, are ambiguous.
    """

    async def all_(w):
        return [
            await w.get(f"{path}?access_token=x", headers=bearer("y")),
            await w.get(f"{path}?access_token=x&access_token=y"),
            await w.get(f"{path}?access_token=x&access%5ftoken=x"),
            await w.get(path, headers=[*bearer("x"), *bearer("y")]),
        ]

    for answer in run(tmp_path, all_):
        assert (400, "invalid_request") == (answer.status, answer.json["error"])


# --- the default profile -------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_BEA_1_the_scheme_is_case_insensitive(tmp_path, scheme):
    """
    Any case of the scheme is taken.
    """

    async def one(w):
        token = (await w.machine())["access_token"]
        return await w.get(
            "/api/secret", headers=[("authorization", f"{scheme} {token}")]
        )

    answer = run(tmp_path, one)

    assert (200, b"Secret area") == (answer.status, answer.body)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/secret", []),
        ("/api/secret", [("authorization", "Basic eDp5")]),
        ("/api/secret?access_token=x", []),
    ],
)
def test_BEA_3_without_credentials_the_challenge_names_no_error(
    tmp_path, path, headers
):
    """
    Nothing that counts as a token was sent: bare Bearer, empty body.
    """
    answer = run(tmp_path, lambda w: w.get(path, headers=headers))

    assert (401, b"") == (answer.status, answer.body)
    assert "Bearer" == answer.headers["www-authenticate"]


def test_ACC_2_the_default_profile(tmp_path):
    """
    No password grant, tokens in the header only, and the exact answer to an expired one.
    """

    async def steps(w):
        refused = await w.post("/oauth/token", PASSWORD, authorization=MACHINE)
        token = (await w.machine())["access_token"]
        by_header = await w.get("/api/secret", headers=bearer(token))
        by_query = await w.get(f"/api/secret?access_token={token}")
        w.clock.advance(timedelta(seconds=599))
        still = await w.get("/api/secret", headers=bearer(token))
        w.clock.advance(timedelta(seconds=1))
        expired = await w.get("/api/secret", headers=bearer(token))
        return refused, by_header, by_query, still, expired

    refused, by_header, by_query, still, expired = run(tmp_path, steps)

    assert (400, "unauthorized_client") == (refused.status, refused.json["error"])
    assert [200, 401, 200] == [by_header.status, by_query.status, still.status]
    assert 401 == expired.status
    assert (
        'Bearer error="invalid_token", '
        'error_description="The access token provided has expired."'
    ) == expired.headers["www-authenticate"]
    assert {
        "error": "invalid_token",
        "error_description": "The access token provided has expired.",
    } == expired.json


def test_ACC_2_where_no_client_has_the_password_grant_it_is_not_offered(tmp_path):
    """
    Then the error is unsupported_grant_type, and the metadata does not list it.
    """

    async def without(w):
        before = (await w.get("/.well-known/openid-configuration")).json
        from kagimori.keys.journal import Cause

        await w.installation.clients.delete(
            "default", "testclient", cause=Cause("test")
        )
        await w.installation.poll()
        after = (await w.get("/.well-known/openid-configuration")).json
        refused = await w.post("/oauth/token", PASSWORD, authorization=MACHINE)
        return before, after, refused

    before, after, refused = run(tmp_path, without)

    assert "unsupported_grant_type" == refused.json["error"]
    assert "password" in before["grant_types_supported"]
    assert "password" not in after["grant_types_supported"]


def test_BEA_4_a_missing_scope_is_403_and_names_it(tmp_path):
    """
    A sound token for the API without its scope is refused with the scope that is needed.
    """

    async def scopeless(w):
        from kagimori.oauth.client import CLIENTS

        found = await CLIENTS.get(w.spy, "default", "machine")
        changed = msgspec.structs.replace(found.value, scopes=())
        put = CLIENTS.put("machine", changed, found.version)
        await w.spy.commit("default", [put])
        await w.installation.poll()
        token = (await w.machine())["access_token"]
        return await w.get("/api/secret", headers=bearer(token))

    answer = run(tmp_path, scopeless)

    assert (403, "insufficient_scope") == (answer.status, answer.json["error"])
    assert 'scope="api"' in answer.headers["www-authenticate"]


def test_BEA_4_JAT_3_a_token_of_another_api_is_refused(tmp_path):
    """
    Each API takes tokens with its own audience only.
    """

    async def crossed(w):
        legacy = (await w.sign_in())["access_token"]
        modern = (await w.machine())["access_token"]
        return (
            await w.get("/api/secret", headers=bearer(legacy)),
            await w.get("/secret", headers=bearer(modern)),
        )

    for answer in run(tmp_path, crossed):
        assert (401, "invalid_token") == (answer.status, answer.json["error"])


def test_BEA_4_an_empty_bearer_is_malformed(tmp_path):
    """
    The scheme without a token is a malformed request.
    """
    answer = run(
        tmp_path, lambda w: w.get("/api/secret", headers=[("authorization", "Bearer ")])
    )

    assert (400, "invalid_request") == (answer.status, answer.json["error"])


@pytest.mark.parametrize("path", ["/secret", "/api/secret"])
def test_resources_are_read_only(tmp_path, path):
    """
    GET and HEAD; a POST gets 405 with Allow.
    """

    async def both(w):
        token = (await w.machine())["access_token"]
        return (
            await w.send("HEAD", "/api/secret", headers=bearer(token)),
            await w.post(path, {"access_token": "x"}),
        )

    head, post = run(tmp_path, both)

    assert 200 == head.status
    assert (405, "GET, HEAD") == (post.status, post.headers["allow"])


def test_a_disabled_resource_is_not_there(tmp_path):
    """
    Once its API is disabled the resource is gone.
    """

    async def gone(w):
        found = await RESOURCES.get(w.spy, "default", "api")
        changed = msgspec.structs.replace(found.value, disabled=True)
        await w.spy.commit("default", [RESOURCES.put("api", changed, found.version)])
        await w.installation.poll()
        return await w.get("/api/secret")

    assert 404 == run(tmp_path, gone).status


def test_outside_the_demo_there_are_no_demo_resources(tmp_path):
    """
    A real installation has neither route.
    """

    async def scene():
        async with world(tmp_path, demo=False) as w:
            return [await w.get("/secret"), await w.get("/api/secret")]

    assert [404, 404] == [answer.status for answer in asyncio.run(scene())]
