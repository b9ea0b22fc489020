"""
The metadata document: MET-1 to MET-3, and where it lies.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from kagimori.errors import ConfigError, NotFoundError, OAuthError
from kagimori.oauth.client import CLIENTS
from kagimori.oauth.endpoints import check_issuer, document_paths, endpoint_url
from kagimori.oauth.requests import TenantContext
from kagimori.oauth.resource import RESOURCES
from kagimori.oauth.tenant import TENANTS
from tests.oauth.world import ISSUER


def document(world):
    body = asyncio.run(world.services.discovery.document(world.context, world.now))
    return json.loads(body)


@pytest.fixture
def started(world):
    asyncio.run(world.start())
    return world


def test_MET2_the_document_of_a_tenant(started):
    """
    Required members are there, the issuer byte for byte, empty arrays left out but one.
    """
    found = document(started)

    assert ISSUER == found["issuer"]
    assert [] == found["response_types_supported"]
    assert [] == [
        name
        for name, value in found.items()
        if value in ([], None) and name != "response_types_supported"
    ]
    assert ["public"] == found["subject_types_supported"]
    assert ["ES256", "Ed25519"] == found["id_token_signing_alg_values_supported"]
    assert {"read", "write", "mail"} == set(found["scopes_supported"])
    for name, path in (
        ("token_endpoint", "/oauth/token"),
        ("revocation_endpoint", "/oauth/revoke"),
        ("introspection_endpoint", "/oauth/introspect"),
        ("jwks_uri", "/oidc/jwks"),
    ):
        assert ISSUER + path == found[name]
    assert "authorization_endpoint" not in found
    assert ["authorization", "token_timeout"] == found[
        "refresh_token_expiration_types_supported"
    ]


def test_MET3_no_none_and_a_code_challenge_method(started):
    """
    ``none`` is no signing algorithm, no symmetric one is offered; S256 is named.
    """
    found = document(started)

    for name, values in found.items():
        if name.endswith("alg_values_supported"):
            assert "none" not in values
            assert not [each for each in values if each.startswith("HS")]
    assert ["S256"] == found["code_challenge_methods_supported"]
    assert "none" not in found["introspection_endpoint_auth_methods_supported"]


def test_MET2_every_grant_that_is_advertised_works(started):
    """
    Each entry is probed: it is answered by something else than ``unsupported_grant_type``.
    """
    found = document(started)

    async def probe(grant):
        try:
            await started.token("machine", grant)
        except OAuthError as error:
            return error.error
        return "ok"

    async def story():
        return {
            grant: await probe(grant)
            for grant in (*found["grant_types_supported"], "implicit")
        }

    assert {
        "client_credentials": "ok",
        "refresh_token": "invalid_request",
        "password": "unauthorized_client",
        "implicit": "unsupported_grant_type",
    } == asyncio.run(story())


def test_MET2_every_authentication_method_that_is_advertised_works(started):
    """
    A client of each method is let in where the method is named.
    """
    found = document(started)
    clients = {
        "client_secret_basic": "machine",
        "client_secret_post": "poster",
        "private_key_jwt": "signer",
        "none": "spa",
    }

    async def story():
        for method in found["token_endpoint_auth_methods_supported"]:
            first = await started.family("spa")
            form = (
                {"token": first.refresh_token} if method == "none" else {"token": "x"}
            )
            request = started.shown(clients[method], form)
            assert await started.services.revocation.revoke(request) is None

    asyncio.run(story())
    assert set(clients) == set(found["token_endpoint_auth_methods_supported"])


def test_what_is_live_is_what_is_told(started):
    """
    The document follows clients and resources: a grant or a scope that went is not told.
    """
    before = document(started)
    asyncio.run(started.change(CLIENTS, "legacy", disabled=True))
    asyncio.run(started.change(RESOURCES, "mail", disabled=True))
    after = document(started)

    assert "password" in before["grant_types_supported"]
    assert "password" not in after["grant_types_supported"]
    assert ["read", "write"] == after["scopes_supported"]


def test_the_document_is_made_once_while_nothing_changes(started):
    """
    A second request is answered from memory, without the store.
    """
    document(started)
    started.store.calls.clear()
    document(started)

    assert [] == started.store.calls


@pytest.mark.parametrize("state", ["disabled", "absent"])
def test_a_tenant_that_is_not_there_has_no_document(started, state):
    """
    Disabled and unknown tenants are not found.
    """
    context = started.context
    if state == "disabled":
        asyncio.run(started.change(TENANTS, "default", disabled=True))
    else:
        context = TenantContext("other", ISSUER)

    with pytest.raises(NotFoundError):
        asyncio.run(started.services.discovery.document(context, started.now))


@pytest.mark.parametrize(
    ("issuer", "openid", "oauth"),
    [
        (
            "https://a.example",
            "/.well-known/openid-configuration",
            "/.well-known/oauth-authorization-server",
        ),
        (
            "https://a.example/t/one",
            "/t/one/.well-known/openid-configuration",
            "/.well-known/oauth-authorization-server/t/one",
        ),
        (
            "https://a.example/t/one/",
            "/t/one/.well-known/openid-configuration",
            "/.well-known/oauth-authorization-server/t/one",
        ),
    ],
)
def test_MET1_where_the_two_documents_lie(issuer, openid, oauth):
    """
    One is appended to the issuer's path, the other inserted before it.
    """
    assert (openid, oauth) == document_paths(issuer)
    assert issuer.rstrip("/") + "/oauth/token" == endpoint_url(issuer, "/oauth/token")


@pytest.mark.parametrize(
    "issuer",
    [
        "https://id.example.com",
        "https://id.example.com:8443/t/one",
        "http://localhost:3000",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
    ],
)
def test_MET2_a_good_issuer(issuer):
    """
    Https anywhere, http on loopback only.
    """
    assert check_issuer(issuer) is None


@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "id.example.com",
        "http://id.example.com",
        "http://192.168.0.1",
        "ftp://id.example.com",
        "https://id.example.com?x=1",
        "https://id.example.com?",
        "https://id.example.com#x",
        "https://user@id.example.com",
        "https://id.example.com/a b",
        "https://id.example.com:port",
        "https://é.example",
        "https://[::1",
    ],
)
def test_MET1_a_bad_issuer(issuer):
    """
    No query, no fragment, no user, no other scheme, nothing that is no URL.
    """
    with pytest.raises(ConfigError):
        check_issuer(issuer)
