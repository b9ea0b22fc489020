"""
Which tenant a request is for (attack A17, MET-1).
"""

from __future__ import annotations

import pytest

from kagimori.compose import Issuers
from kagimori.errors import OAuthError
from kagimori.http.places import OAUTH_METADATA, Places
from kagimori.settings import ServerSettings, Settings


def places(issuer="https://login.example", hosts=(), **more):
    settings = Settings(
        issuer=issuer, server=ServerSettings(hosts=tuple(hosts)), **more
    )
    issuers = Issuers(settings)
    found = Places(settings, issuers)
    found.set_hosts(issuers.set_hosts({"beta": "beta.example"}))
    return found


def seen(place):
    return place.tenant.id, place.tenant.issuer, place.path[len(place.root_path) :]


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        (
            b"login.example",
            "/oauth/token",
            ("default", "https://login.example", "/oauth/token"),
        ),
        (b"LOGIN.example:443", "/x", ("default", "https://login.example", "/x")),
        (
            b"login.example",
            "/t/acme/oauth/token",
            ("acme", "https://login.example/t/acme", "/oauth/token"),
        ),
        (
            b"beta.example",
            "/oauth/token",
            ("beta", "https://beta.example", "/oauth/token"),
        ),
        (
            b"login.example",
            OAUTH_METADATA,
            ("default", "https://login.example", OAUTH_METADATA),
        ),
        (
            b"login.example",
            OAUTH_METADATA + "/t/acme",
            ("acme", "https://login.example/t/acme", OAUTH_METADATA),
        ),
        (
            b"beta.example",
            OAUTH_METADATA,
            ("beta", "https://beta.example", OAUTH_METADATA),
        ),
        (
            b"login.example",
            "/t/acme/.well-known/openid-configuration",
            (
                "acme",
                "https://login.example/t/acme",
                "/.well-known/openid-configuration",
            ),
        ),
    ],
)
def test_MET_1_host_and_path_choose_the_tenant(host, path, expected):
    """
    A tenant is found by its host, by /t/{tenant}, or is the one at the root.
    """
    assert expected == seen(places().locate(host, path))


@pytest.mark.parametrize(
    "host",
    [
        None,
        b"",
        b"evil.example",
        b"login.example.evil",
        b"login.example:evil",
        b"login.example@evil",
        b"login.example/x",
        b"login.example\r\nx",
        b"[::1]",
        b"127.0.0.1",
        b"localhost",
        b"\xff",
        b"a" * 300,
    ],
)
def test_A17_an_unknown_host_is_refused(host):
    """
    A host that configuration does not name gets 400, and never reaches an issuer.
    """
    with pytest.raises(OAuthError) as caught:
        places().locate(host, "/oauth/token")

    assert (400, "invalid_request") == (caught.value.status, caught.value.error)


def test_A17_further_hosts_are_named_in_the_settings():
    """
    A host of the settings answers, with the issuer of the settings.
    """
    found = places(hosts=["inner.example"]).locate(b"inner.example", "/oauth/token")

    assert "https://login.example" == found.tenant.issuer


@pytest.mark.parametrize("host", [b"localhost:3000", b"127.0.0.1:3000", b"[::1]:3000"])
def test_A17_a_loopback_issuer_answers_by_every_name_of_loopback(host):
    """
    All names of this machine mean the same issuer, the configured one.
    """
    found = places("http://localhost:3000").locate(host, "/oauth/token")

    assert "http://localhost:3000" == found.tenant.issuer


@pytest.mark.parametrize(
    "path",
    [
        "/t/default/oauth/token",
        "/t/",
        "/t//oauth/token",
        "/t/UPPER/oauth/token",
        "/t/a b/oauth/token",
        "/t/acme",
        "/t/../oauth/token",
        "/t/" + "a" * 64 + "/x",
        OAUTH_METADATA + "x",
        OAUTH_METADATA + "/t/acme/x",
        OAUTH_METADATA + "/t/default",
    ],
)
def test_MET_1_what_is_no_place_is_not_found(path):
    """
    Every issuer has one place; no other spelling leads there.
    """
    with pytest.raises(OAuthError) as caught:
        places().locate(b"login.example", path)

    assert 404 == caught.value.status


def test_MET_1_an_issuer_with_a_path_keeps_its_metadata_where_rfc_8414_says():
    """
    One document stands before the path, the other behind it; endpoints lie below the path.
    """
    found = places("https://example.com/auth")
    issuer = "https://example.com/auth"
    host = b"example.com"

    assert ("default", issuer, "/oauth/token") == seen(
        found.locate(host, "/auth/oauth/token")
    )
    assert ("default", issuer, "/.well-known/openid-configuration") == seen(
        found.locate(host, "/auth/.well-known/openid-configuration")
    )
    assert ("default", issuer, OAUTH_METADATA) == seen(
        found.locate(host, OAUTH_METADATA + "/auth")
    )
    assert ("acme", issuer + "/t/acme", OAUTH_METADATA) == seen(
        found.locate(host, OAUTH_METADATA + "/auth/t/acme")
    )
    for path in ("/oauth/token", OAUTH_METADATA, "/authx/oauth/token"):
        with pytest.raises(OAuthError):
            found.locate(host, path)


def test_earlier_issuers_follow_each_tenant():
    """
    A tenant's earlier issuers are derived as its present one is.
    """
    found = places("http://localhost:3001", earlier_issuers=("http://localhost:3000",))

    tenant = found.locate(b"localhost:3001", "/t/acme/x").tenant

    assert ("http://localhost:3000/t/acme",) == tenant.earlier_issuers


def test_what_is_remembered_of_hosts_is_bounded():
    """
    Ports are free to choose: a flood of them neither fails nor grows the memory.
    """
    found = places()
    for port in range(1000):
        found.locate(b"login.example:%d" % port, "/x")

    assert len(found._known) <= 256
