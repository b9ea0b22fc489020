"""
What may be stored as a client, a resource or a secret, and what may not.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kagimori.crypto.jwk import Jwk
from kagimori.errors import ConfigError, InsecureConfigError, InvalidKeyError
from kagimori.identity.credentials import SHA256_PREFIX
from kagimori.identity.hashing import HashPool
from kagimori.oauth.client import AuthMethod, Client, ClientSecret, Profile
from kagimori.oauth.resource import Resource
from kagimori.oauth.secrets import SECRET_PREFIX, choose_secret, generate_secret
from kagimori.testing.clock import START
from kagimori.tokens.policy import RefreshPolicy, Rotation

KEY = Jwk.generate("ES256")
PUBLIC = {"keys": [KEY.public().to_dict()]}


def client(**fields):
    return Client(**{"id": "app", "created": START, **fields})


def resource(**fields):
    return Resource(
        **{"id": "api", "identifier": "urn:x:api", "created": START, **fields}
    )


def secret(id_):
    return ClientSecret(id=id_, digest="sha256:00", created=START)


GOOD_CLIENTS = [
    {},
    {"id": "a:b+c%d e é鍵"},
    {"grants": ("client_credentials", "refresh_token")},
    {"grants": ("password", "refresh_token"), "profile": Profile.LEGACY_2015},
    {"auth_method": AuthMethod.NONE, "grants": ("refresh_token",)},
    {"auth_method": AuthMethod.PRIVATE_KEY_JWT, "jwks": PUBLIC},
    {"secrets": (secret("a"), secret("b"))},
    {"access_token_lifetime": timedelta(minutes=1)},
    {"access_token_lifetime": timedelta(hours=24)},
    {"access_token_lifetime": timedelta(seconds=10), "profile": Profile.LEGACY_2015},
    {"refresh": RefreshPolicy.for_confidential()},
    {"origins": ("https://app.example", "http://localhost:5173")},
]
BAD_CLIENTS = [
    ({"id": ""}, ConfigError),
    ({"id": "x" * 129}, ConfigError),
    ({"id": "a\nb"}, ConfigError),
    ({"id": " a"}, ConfigError),
    ({"id": "usr_1"}, ConfigError),
    ({"scopes": ("two words",)}, ConfigError),
    ({"scopes": ('quo"te',)}, ConfigError),
    ({"resources": ("urn:x:api",)}, ConfigError),
    ({"origins": ("https://app.example/path",)}, ConfigError),
    ({"origins": ("*",)}, ConfigError),
    ({"grants": ("implicit",)}, ConfigError),
    ({"grants": ("password",)}, ConfigError),
    (
        {"grants": ("client_credentials",), "auth_method": AuthMethod.NONE},
        ConfigError,
    ),
    ({"auth_method": AuthMethod.NONE, "profile": Profile.LEGACY_2015}, ConfigError),
    ({"auth_method": AuthMethod.NONE, "secrets": (secret("a"),)}, ConfigError),
    ({"secrets": tuple(map(secret, "abcdef"))}, ConfigError),
    ({"secrets": (secret("a"), secret("a"))}, ConfigError),
    ({"auth_method": AuthMethod.PRIVATE_KEY_JWT}, ConfigError),
    ({"jwks": PUBLIC}, ConfigError),
    (
        {"auth_method": AuthMethod.PRIVATE_KEY_JWT, "jwks": {"keys": []}},
        InvalidKeyError,
    ),
    (
        {
            "auth_method": AuthMethod.PRIVATE_KEY_JWT,
            "jwks": {"keys": [KEY.to_dict(private=True)]},
        },
        InvalidKeyError,
    ),
    (
        {
            "auth_method": AuthMethod.PRIVATE_KEY_JWT,
            "jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]},
        },
        InvalidKeyError,
    ),
    ({"access_token_lifetime": timedelta(seconds=59)}, ConfigError),
    ({"access_token_lifetime": timedelta(hours=24, seconds=1)}, ConfigError),
    ({"access_token_lifetime": timedelta(minutes=1, milliseconds=1)}, ConfigError),
    (
        {"access_token_lifetime": timedelta(seconds=9), "profile": Profile.LEGACY_2015},
        ConfigError,
    ),
    (
        {
            "auth_method": AuthMethod.NONE,
            "refresh": RefreshPolicy(rotation=Rotation.NEVER),
        },
        InsecureConfigError,
    ),
]


@pytest.mark.parametrize("fields", GOOD_CLIENTS)
def test_a_client_that_may_be_stored(fields):
    """
    The twins of the refusals below.
    """
    assert client(**fields).validate() is None


@pytest.mark.parametrize(("fields", "error"), BAD_CLIENTS)
def test_a_client_that_may_not_be_stored(fields, error):
    """
    TOK-13, TOK-14, B7, J9: what contradicts itself or opens a hole is refused at writing.
    """
    with pytest.raises(error):
        client(**fields).validate()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"identifier": "https://api.example.com/v1?x=1"},
        {"signing_algorithm": "RS256"},
        {"scopes": ("read", "urn:x:scope")},
        {"access_token_lifetime": timedelta(seconds=10), "bearer_in_query": True},
    ],
)
def test_a_resource_that_may_be_stored(fields):
    """
    The twins of the refusals below.
    """
    assert resource(**fields).validate() is None


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "urn:x"},
        {"id": ""},
        {"id": "-x"},
        {"identifier": "api"},
        {"identifier": ""},
        {"identifier": "https://api.example.com/#x"},
        {"identifier": "https://api.example.com/ x"},
        {"identifier": "https://é.example"},
        {"identifier": "urn:"},
        {"identifier": "https://[x"},
        {"identifier": "urn:" + "x" * 300},
        {"signing_algorithm": "none"},
        {"signing_algorithm": "HS256"},
        {"scopes": ("",)},
        {"access_token_lifetime": timedelta(seconds=10)},
    ],
)
def test_a_resource_that_may_not_be_stored(fields):
    """
    RFC 8707 section 2 and B7: absolute URI without fragment, asymmetric algorithm, bounds.
    """
    with pytest.raises(ConfigError):
        resource(**fields).validate()


def test_a_generated_secret_has_256_bits_and_is_stored_as_a_digest():
    """
    Its text is in nothing that is stored or shown; its last characters tell it apart.
    """
    made = generate_secret(START, expires=START + timedelta(days=1))

    assert made.text.startswith(SECRET_PREFIX)
    assert 43 == len(made.text.removeprefix(SECRET_PREFIX))
    assert made.stored.digest.startswith(SHA256_PREFIX)
    assert made.text.endswith(made.stored.last)
    assert made.text not in repr(made)
    assert made.text != generate_secret(START).text


def test_K10_a_weak_chosen_secret_is_refused_outside_the_demo():
    """
    The same words are taken with the exemption of the demo world alone.
    """
    pool = HashPool()

    async def story():
        with pytest.raises(InsecureConfigError):
            await choose_secret(pool, "secret", START)
        return await choose_secret(pool, "secret", START, allow_known_secrets=True)

    stored = asyncio.run(story())
    pool.close()

    assert stored.digest.startswith("$argon2id$")
    assert "" == stored.last


def test_the_defaults_of_the_two_kinds_of_client():
    """
    B7: without a policy of its own a client has the defaults of its kind.
    """
    public = client(auth_method=AuthMethod.NONE)

    assert RefreshPolicy.for_public() == public.refresh_policy
    assert RefreshPolicy.for_confidential() == client().refresh_policy
