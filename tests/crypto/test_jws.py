"""
Compact JWS: signing, verifying, choosing the key.
"""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.crypto import jws
from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.digests import b64url_decode, b64url_encode
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.errors import (
    InvalidJwsError,
    InvalidKeyError,
    UnsupportedAlgorithmError,
)

PAYLOAD = b'{"sub":"keeper"}'
ALL = tuple(ALGORITHMS)


def header_of(text: str) -> object:
    """
    Read the header of a token without our own code.
    """
    return json.loads(b64url_decode(text.partition(".")[0]))


# --- signing -------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ALL)
def test_signed_text_verifies(alg, keys):
    """
    Each algorithm's token names its algorithm and key, and gives its payload back.
    """
    text = jws.sign(PAYLOAD, keys[alg])
    verified = jws.verify(text, keys[alg].public(), algorithms=[alg])

    assert header_of(text) == {"alg": alg, "kid": alg}
    assert verified.header == {"alg": alg, "kid": alg}
    assert verified.payload == PAYLOAD


@given(st.binary(max_size=500))
def test_any_payload_round_trips(keys, payload):
    """
    The payload is octets, the empty one included.
    """
    text = jws.sign(payload, keys["Ed25519"])

    assert jws.verify(text, keys["Ed25519"], algorithms=ALL).payload == payload


def test_header_members_are_added_and_the_key_rules(keys):
    """
    Further members are signed; alg and kid stay the key's, whatever order they are given in.
    """
    extra = {"typ": "dpop+jwt", "jwk": keys["ES256"].to_dict(), "alg": "ES256"}
    text = jws.sign(PAYLOAD, keys["ES256"], header=extra)
    verified = jws.verify(text, keys["ES256"], algorithms=ALL)

    assert verified.header == extra | {"kid": "ES256"}
    assert list(verified.header) == ["alg", "kid", "typ", "jwk"]


def test_a_key_of_several_algorithms_signs_with_the_one_the_header_names(keys):
    """
    An RSA key without alg signs RS256 by default, and PS384 when asked.
    """
    members = keys["RS256"].to_dict(private=True)
    del members["alg"], members["kid"]
    key = Jwk.from_trusted_dict(members)

    assert header_of(jws.sign(PAYLOAD, key)) == {"alg": "RS256"}
    text = jws.sign(PAYLOAD, key, header={"alg": "PS384", "kid": "chosen"})
    assert header_of(text) == {"alg": "PS384", "kid": "chosen"}
    assert jws.verify(text, key, algorithms=["PS384"]).payload == PAYLOAD


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({"alg": "ES384"}, UnsupportedAlgorithmError),
        ({"alg": "none"}, UnsupportedAlgorithmError),
        ({"alg": "HS256"}, UnsupportedAlgorithmError),
        ({"alg": None}, UnsupportedAlgorithmError),
        ({"alg": ["ES256"]}, UnsupportedAlgorithmError),
        ({"kid": "another"}, InvalidKeyError),
        ({"kid": None}, InvalidKeyError),
        ({"crit": ["exp"]}, InvalidJwsError),
        ({"b64": False}, InvalidJwsError),
        ({"typ": 1}, InvalidJwsError),
        ({"x": object()}, InvalidJwsError),
        ({"x": float("nan")}, InvalidJwsError),
        ({"x": "\ud800"}, InvalidJwsError),
        ({"x": [[[0] * 3] * 30] * 30}, InvalidJwsError),
        ({"x": "y" * 20_000}, InvalidJwsError),
    ],
)
def test_J5_what_no_verifier_would_accept_is_not_signed(keys, header, error):
    """
    A header with another algorithm, another kid, an extension, or no JSON is refused.
    """
    assert jws.sign(PAYLOAD, keys["ES256"], header={"x": "y"})
    with pytest.raises(error):
        jws.sign(PAYLOAD, keys["ES256"], header=header)


@pytest.mark.parametrize("key", [None, b"secret", "secret", {"kty": "oct", "k": "AA"}])
def test_J1_only_a_key_signs_or_verifies(keys, key):
    """
    Octets, text and dictionaries are no keys.
    """
    text = jws.sign(PAYLOAD, keys["ES256"])
    with pytest.raises(InvalidKeyError):
        jws.sign(PAYLOAD, key)
    with pytest.raises(InvalidKeyError):
        jws.sign(PAYLOAD, key, header={"typ": "JWT"})
    with pytest.raises(InvalidKeyError):
        jws.verify(text, key, algorithms=ALL)


def test_public_key_does_not_sign(keys):
    """
    The public half verifies and does not sign.
    """
    with pytest.raises(InvalidKeyError):
        jws.sign(PAYLOAD, keys["ES256"].public())


def test_signer_signs_many_under_one_header(keys):
    """
    A signer's tokens share their header text, and differ where the payloads do.
    """
    signer = jws.Signer(keys["ES256"], typ="at+jwt", extra={"cty": "JWT"})
    texts = [signer.sign(b"%d" % number) for number in range(3)]

    assert {text.split(".")[0] for text in texts} == {texts[0].split(".")[0]}
    assert signer.header == header_of(texts[0])
    assert signer.header == {
        "alg": "ES256",
        "kid": "ES256",
        "cty": "JWT",
        "typ": "at+jwt",
    }
    assert [
        jws.verify(text, keys["ES256"], algorithms=ALL).payload for text in texts
    ] == [b"0", b"1", b"2"]


def test_threads_share_a_key(keys):
    """
    One key signs and verifies in eight threads at once.
    """
    key = Jwk.from_dict(keys["ES256"].to_dict(private=True))
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        try:
            for step in range(50):
                payload = b"%d-%d" % (number, step)
                text = jws.sign(payload, key)
                assert jws.verify(text, key, algorithms=ALL).payload == payload
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert failures == []


# --- choosing the key ----------------------------------------------------------------------


def test_kid_chooses_exactly_its_key(keys):
    """
    In a set the token's kid is found, or the token is refused; no other key is tried.
    """
    made = JwkSet.of(key.public() for key in keys.values())
    text = jws.sign(PAYLOAD, keys["PS256"])
    without = JwkSet.of(
        Jwk.from_dict(keys["PS256"].to_dict() | {"kid": f"copy-{number}"})
        for number in range(2)
    )

    assert jws.verify(text, made, algorithms=ALL).payload == PAYLOAD
    with pytest.raises(InvalidJwsError, match="names a key"):
        jws.verify(text, without, algorithms=ALL)


def test_kid_of_another_key_is_refused(keys):
    """
    A token that names one key and was signed by another fails, with a set and with one key.
    """
    renamed = Jwk.from_dict(keys["ES256"].to_dict(private=True) | {"kid": "mallory"})
    other = Jwk.generate("ES256").to_dict() | {"kid": "mallory"}
    made = JwkSet.of([keys["ES256"].public(), Jwk.from_dict(other)])
    text = jws.sign(PAYLOAD, renamed)

    assert jws.verify(text, renamed, algorithms=ALL).payload == PAYLOAD
    with pytest.raises(InvalidJwsError):
        jws.verify(text, made, algorithms=ALL)
    with pytest.raises(InvalidJwsError, match="names a key"):
        jws.verify(text, keys["ES256"], algorithms=ALL)


def test_without_kid_exactly_one_key_must_fit(keys):
    """
    A token without kid verifies where one key of the set has its algorithm, and only there.
    """
    members = keys["ES256"].to_dict(private=True)
    del members["kid"]
    text = jws.sign(PAYLOAD, Jwk.from_dict(members))
    second = Jwk.generate("ES256")
    mixed = [keys["ES256"].public(), keys["RS256"].public()]

    assert jws.verify(text, JwkSet.of(mixed), algorithms=ALL).payload == PAYLOAD
    assert jws.verify(text, keys["ES256"], algorithms=ALL).payload == PAYLOAD
    for unfit in ([*mixed, second], [keys["RS256"]], []):
        with pytest.raises(InvalidJwsError, match="which key"):
            jws.verify(text, JwkSet.of(unfit), algorithms=ALL)


# --- algorithms ----------------------------------------------------------------------------


def test_algorithms_narrow_the_keys_own(keys):
    """
    The token's algorithm must be in the caller's list and in the key's own.
    """
    text = jws.sign(PAYLOAD, keys["RS256"])
    verify = jws.verify

    for names in (["RS256"], ("RS256", "ES256"), {"RS256"}, iter(["RS256"]), ALL):
        assert verify(text, keys["RS256"], algorithms=names).payload == PAYLOAD
    with pytest.raises(InvalidJwsError):
        verify(text, keys["RS256"], algorithms=["ES256", "PS256"])
    # The same material under a key of another algorithm.
    with pytest.raises(InvalidJwsError):
        verify(
            text,
            Jwk.from_dict(keys["PS256"].to_dict() | {"kid": "RS256"}),
            algorithms=ALL,
        )


@pytest.mark.parametrize(
    "algorithms",
    [
        [],
        (),
        ["none"],
        ["HS256"],
        ["ES256", "HS256"],
        ["ES256", "none"],
        ["es256"],
        ["ES256K"],
        [None],
        [["ES256"]],
        "ES256",
        "",
        None,
        5,
    ],
)
def test_J2_unsupported_names_are_refused_by_themselves(keys, algorithms):
    """
    One name that we do not offer refuses the call, whatever the token says.
    """
    text = jws.sign(PAYLOAD, keys["ES256"])
    with pytest.raises(UnsupportedAlgorithmError):
        jws.verify(text, keys["ES256"], algorithms=algorithms)


def test_both_names_of_ed25519(keys):
    """
    A key without alg accepts either name, each only where the caller lists it.
    """
    members = keys["Ed25519"].to_dict(private=True)
    del members["alg"]
    bare = Jwk.from_dict(members)
    for name, other in (("EdDSA", "Ed25519"), ("Ed25519", "EdDSA")):
        text = jws.sign(PAYLOAD, bare, header={"alg": name})

        assert jws.verify(text, bare, algorithms=[name]).payload == PAYLOAD
        with pytest.raises(InvalidJwsError):
            jws.verify(text, bare, algorithms=[other])
    with pytest.raises(InvalidJwsError):
        jws.verify(
            jws.sign(PAYLOAD, bare, header={"alg": "EdDSA"}),
            keys["Ed25519"],
            algorithms=ALL,
        )


# --- what is remembered --------------------------------------------------------------------


def test_only_headers_that_verified_are_remembered(keys):
    """
    A forged token leaves nothing behind; a genuine one its header, and both judge the same.
    """
    key = Jwk.generate("ES256")
    text = jws.sign(PAYLOAD, key)
    header, payload, _ = text.split(".")
    forged = f"{header}.{payload}.{b64url_encode(bytes(range(64)))}"
    with pytest.raises(InvalidJwsError):
        jws.verify(forged, key, algorithms=ALL)
    assert header.encode() not in jws._remembered
    assert jws.verify(text, key, algorithms=ALL).payload == PAYLOAD
    assert header.encode() in jws._remembered

    with pytest.raises(InvalidJwsError):
        jws.verify(forged, key, algorithms=ALL)
    with pytest.raises(InvalidJwsError):
        jws.verify(text, keys["ES256"], algorithms=ALL)
    with pytest.raises(InvalidJwsError):
        jws.verify(text, key, algorithms=["ES384"])
    assert jws.verify(text, key, algorithms=ALL) == jws.VerifiedJws(
        {"alg": "ES256", "kid": key.kid}, PAYLOAD
    )


def test_J14_what_is_remembered_is_bounded_and_flat(keys):
    """
    A thousand genuine headers, long ones and nested ones leave at most a few hundred short ones.
    """
    key = keys["Ed25519"]
    for number in range(1000):
        text = jws.sign(b"", key, header={"typ": f"t{number}"})
        jws.verify(text, key, algorithms=ALL)
        assert len(jws._remembered) <= 256
    for header in ({"jwk": {"a": "b"}}, {"typ": "x" * 600}):
        text = jws.sign(b"", key, header=header)
        jws.verify(text, key, algorithms=ALL)

        assert text.split(".")[0].encode() not in jws._remembered


def test_a_verified_header_cannot_be_changed(keys):
    """
    Callers share remembered headers, so they are read-only.
    """
    header = jws.verify(
        jws.sign(PAYLOAD, keys["ES256"]), keys["ES256"], algorithms=ALL
    ).header
    with pytest.raises(TypeError):
        header["alg"] = "none"

    assert header["alg"] == "ES256"
