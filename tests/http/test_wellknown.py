"""
Metadata and JWKS over HTTP (MET-1 to MET-5, TOK-15, attack S3).
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kagimori.keys.journal import Cause
from kagimori.keys.timeline import KeyUse
from tests.http.world import header, world

OPENID = "/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server"
DOCUMENTS = [OPENID, OAUTH, "/oidc/jwks"]
CAUSE = Cause("test")


def run(tmp_path, work, **settings):
    async def scene():
        async with world(tmp_path, **settings) as made:
            return await work(made)

    return asyncio.run(scene())


def test_MET_1_both_documents_have_one_content(tmp_path):
    """
    The issuer is the configured one, byte for byte, at both addresses.
    """

    async def both(w):
        return await w.get(OPENID), await w.get(OAUTH)

    openid, oauth = run(tmp_path, both)

    assert openid.body == oauth.body
    assert "http://localhost:3000" == openid.json["issuer"]


def test_MET_2_every_entry_works_and_what_works_is_listed(tmp_path):
    """
    Each advertised endpoint answers as one: not 404, and 405 to the wrong method.
    """

    async def probed(w):
        document = (await w.get(OPENID)).json
        issuer = document["issuer"]
        found = {}
        for name, value in document.items():
            if name.endswith("_endpoint"):
                path = value.removeprefix(issuer)
                found[name] = ((await w.get(path)).status, (await w.post(path)).status)
        jwks = await w.get(document["jwks_uri"].removeprefix(issuer))
        return found, jwks.status

    found, jwks = run(tmp_path, probed)

    assert {"token_endpoint", "revocation_endpoint", "introspection_endpoint"} == set(
        found
    )
    for wrong, right in found.values():
        assert 405 == wrong
        assert right in (400, 401)
    assert 200 == jwks


@pytest.mark.parametrize("path", DOCUMENTS)
def test_MET_4_S3_documents_may_be_cached_and_revalidated(tmp_path, path):
    """
    max-age, a strong ETag, 304 to who has it, open to every origin.
    """

    async def all_(w):
        first = await w.get(path)
        etag = first.headers["etag"]
        again = [
            await w.get(path, headers=[("if-none-match", value)])
            for value in (etag, f"W/{etag}", f'"other", {etag}', "*")
        ]
        other = await w.get(path, headers=[("if-none-match", '"other"')])
        return first, again, other

    first, again, other = run(tmp_path, all_)

    assert 200 == first.status == other.status
    assert first.headers["cache-control"].startswith("public, max-age=")
    assert first.headers["etag"].startswith('"')
    assert "*" == first.headers["access-control-allow-origin"]
    for answer in again:
        assert (304, b"") == (answer.status, answer.body)
        assert first.headers["etag"] == answer.headers["etag"]
        assert "content-length" not in answer.headers


@pytest.mark.parametrize("path", DOCUMENTS)
def test_documents_are_read_only(tmp_path, path):
    """
    HEAD and preflights are answered, other methods get 405 with Allow.
    """

    async def all_(w):
        return (
            await w.send("HEAD", path),
            await w.send("OPTIONS", path, headers=[("origin", "https://x.example")]),
            await w.post(path),
        )

    head, preflight, post = run(tmp_path, all_)

    assert 200 == head.status
    assert (204, "*") == (
        preflight.status,
        preflight.headers["access-control-allow-origin"],
    )
    assert (405, "GET, HEAD, OPTIONS") == (post.status, post.headers["allow"])


def test_MET_5_a_next_key_is_published_before_it_signs(tmp_path):
    """
    After a gentle rotation the new key is in the JWKS at once and signs from its date on.
    """

    async def rotated(w):
        before = await w.get("/oidc/jwks")
        outcome = await w.installation.keys.rotate(
            "default", KeyUse.SIGNING, cause=CAUSE
        )
        await w.installation.poll()
        after = await w.get("/oidc/jwks")
        signed = header((await w.machine())["access_token"])["kid"]
        w.clock.set(outcome.key.activates)
        later = header((await w.machine())["access_token"])["kid"]
        return before, after, signed, later, outcome.key

    before, after, signed, later, key = run(tmp_path, rotated)

    kids = {each["kid"] for each in after.json["keys"]}
    assert before.headers["etag"] != after.headers["etag"]
    assert key.kid in kids
    assert {each["kid"] for each in before.json["keys"]} < kids
    assert key.kid != signed
    assert key.kid == later


def test_MET_4_max_age_follows_the_next_planned_change(tmp_path):
    """
    Shortly before a due rotation the documents may be kept for a shorter time.
    """

    async def ages(w):
        usual = await w.get("/oidc/jwks")
        document = await w.get(OPENID)
        return usual, document

    usual, document = run(tmp_path, ages)

    assert usual.headers["cache-control"] == document.headers["cache-control"]
    assert "public, max-age=5" == usual.headers["cache-control"]


def test_tenants_have_documents_of_their_own(tmp_path):
    """
    Under /t/{tenant} and at a host of their own; a disabled or unknown one has none.
    """

    async def all_(w):
        tenants = w.installation.tenants
        await tenants.create("acme", name="Acme", cause=CAUSE)
        await tenants.create("beta", name="Beta", host="beta.example", cause=CAUSE)
        await w.installation.poll()
        w.places.set_hosts(w.installation.hosts)
        acme = await w.get(f"/t/acme{OPENID}")
        inserted = await w.get(f"{OAUTH}/t/acme")
        beta = await w.get(OPENID, host="beta.example:3000")
        keys = await w.get("/t/acme/oidc/jwks")
        root = await w.get("/oidc/jwks")
        await tenants.disable("acme", cause=CAUSE)
        await w.installation.poll()
        gone = [await w.get(f"/t/acme{OPENID}"), await w.get("/t/acme/oidc/jwks")]
        unknown = [
            await w.get(f"/t/nobody{OPENID}"),
            await w.get("/t/nobody/oidc/jwks"),
        ]
        return acme, inserted, beta, keys, root, gone, unknown

    acme, inserted, beta, keys, root, gone, unknown = run(tmp_path, all_)

    assert "http://localhost:3000/t/acme" == acme.json["issuer"]
    assert "http://localhost:3000/t/acme/oauth/token" == acme.json["token_endpoint"]
    assert acme.body == inserted.body
    assert "http://beta.example:3000" == beta.json["issuer"]
    ours = {each["kid"] for each in keys.json["keys"]}
    assert not ours & {each["kid"] for each in root.json["keys"]}
    assert [404] * 4 == [answer.status for answer in gone + unknown]


def test_K9_no_private_member_is_published(tmp_path):
    """
    The JWKS holds public members only.
    """
    answer = run(tmp_path, lambda w: w.get("/oidc/jwks"))

    allowed = {"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"}
    for key in answer.json["keys"]:
        assert set(key) <= allowed
        assert "sig" == key["use"]
    assert ["ES256", "RS256"] == [key["alg"] for key in answer.json["keys"]]


def test_J7_a_token_of_another_tenant_is_refused(tmp_path):
    """
    A tenant's token says its own issuer and is worth nothing at another's introspection.
    """

    async def crossed(w):
        await w.installation.tenants.create("acme", name="Acme", cause=CAUSE)
        await w.installation.poll()
        w.clock.advance(timedelta(seconds=2))
        token = (await w.machine())["access_token"]
        from tests.http.world import MACHINE

        here = await w.post(
            "/oauth/token", {"grant_type": "client_credentials"}, authorization=MACHINE
        )
        there = await w.post(
            "/t/acme/oauth/token",
            {"grant_type": "client_credentials"},
            authorization=MACHINE,
        )
        return token, here, there

    _, here, there = run(tmp_path, crossed)

    assert 200 == here.status
    assert (401, "invalid_client") == (there.status, there.json["error"])
