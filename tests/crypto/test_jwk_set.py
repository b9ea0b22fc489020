"""
Sets of keys, and keys and sets as JSON.
"""

from __future__ import annotations

import json

import pytest

from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.jwk import MAX_SET_KEYS, Jwk, JwkSet
from kagimori.errors import InvalidKeyError


def test_set_finds_keys_by_kid(keys):
    """
    A set of several keys is iterated in order, counted, searched, and written back.
    """
    document = {"keys": [key.to_dict() for key in keys.values()]}
    made = JwkSet.from_dict(document)

    assert len(made) == len(ALGORITHMS)
    assert [key.kid for key in made] == list(ALGORITHMS)
    assert made.get("PS256") == keys["PS256"].public()
    assert made.get("ps256") is None
    assert made.to_dict() == document
    assert JwkSet.from_json(json.dumps(document).encode()).to_dict() == document
    assert JwkSet.of(keys.values()).to_dict() == document
    assert len(JwkSet.from_dict({"keys": []})) == 0


def test_J9_a_kid_twice_in_a_set_is_refused(keys):
    """
    Two keys of one kid are refused, read or composed; two keys without a kid are not.
    """
    one = keys["ES256"].to_dict()
    two = keys["ES384"].to_dict() | {"kid": "ES256"}
    with pytest.raises(InvalidKeyError):
        JwkSet.from_dict({"keys": [one, two]})
    with pytest.raises(InvalidKeyError):
        JwkSet.of([keys["ES256"], Jwk.from_dict(two)])
    with pytest.raises(InvalidKeyError):
        JwkSet.from_dict({"keys": [one, one]})
    del one["kid"], two["kid"]

    assert len(JwkSet.from_dict({"keys": [one, two]})) == 2


def test_J9_mixed_sets_are_refused(keys):
    """
    A symmetric key beside a public one, or a private one beside a public one: refused.
    """
    public, private = keys["ES256"].to_dict(), keys["ES384"].to_dict(private=True)
    symmetric = {"kty": "oct", "k": "A" * 43, "kid": "s", "alg": "HS256"}
    for mixture in ([public, symmetric], [symmetric, public], [public, private]):
        with pytest.raises(InvalidKeyError):
            JwkSet.from_dict({"keys": mixture})

    assert len(JwkSet.from_dict({"keys": [public, keys["ES384"].to_dict()]})) == 2
    assert len(JwkSet.from_dict({"keys": [private]})) == 1


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "keys",
        {},
        {"keys": None},
        {"keys": {}},
        {"keys": "abc"},
        {"keys": [None]},
        {"keys": ["abc"]},
        {"keys": [[]]},
        {"keys": [{}]},
    ],
)
def test_S6_a_malformed_set_is_refused(document):
    """
    Whatever is no JWK Set is refused as one.
    """
    with pytest.raises(InvalidKeyError):
        JwkSet.from_dict(document)


def test_a_set_holds_keys_only():
    """
    A set composed of something else is refused.
    """
    with pytest.raises(InvalidKeyError):
        JwkSet.of([{"kty": "EC"}])


def test_J14_sets_and_keys_are_bounded(keys):
    """
    Too many keys, too long texts and too long members are refused before they are decoded.
    """
    key = keys["ES256"].to_dict()
    fitting = [key | {"kid": str(number)} for number in range(MAX_SET_KEYS)]

    assert len(JwkSet.from_dict({"keys": fitting})) == MAX_SET_KEYS
    with pytest.raises(InvalidKeyError):
        JwkSet.from_dict({"keys": [*fitting, key]})
    with pytest.raises(InvalidKeyError):
        JwkSet.from_dict({"keys": [None] * 10**6})
    with pytest.raises(InvalidKeyError):
        JwkSet.from_json(b" " * (2**20 + 1))
    with pytest.raises(InvalidKeyError):
        Jwk.from_json(json.dumps(key) + " " * 2**15)
    with pytest.raises(InvalidKeyError):
        Jwk.from_dict(key | {"x": "A" * 10**7})
    with pytest.raises(InvalidKeyError):
        Jwk.from_dict(keys["RS256"].to_dict() | {"n": "A" * 10**7})


@pytest.mark.parametrize(
    "text",
    [
        '{"kty":"EC","kty":"RSA"}',
        '{"keys":[],"keys":[]}',
        '{"keys":[{"kty":"EC","x":1,"x":2}]}',
        '{"kty":NaN}',
        "[]",
        "",
        "\ud800",
    ],
)
def test_J8_json_is_read_strictly(text):
    """
    Duplicate members and texts that are no JSON object are refused as keys and as sets.
    """
    with pytest.raises(InvalidKeyError):
        Jwk.from_json(text)
    with pytest.raises(InvalidKeyError):
        JwkSet.from_json(text)
