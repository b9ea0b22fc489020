"""
Any input at all: headers of unverified tokens, and texts, octets and objects to verify.
"""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from kagimori.crypto import jws
from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.digests import b64url_encode
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.errors import InvalidJwsError, KagimoriError

PAYLOAD = b'{"sub":"keeper"}'
ALL = tuple(ALGORITHMS)


# --- peeking -------------------------------------------------------------------------------


def test_peek_reads_the_header_of_an_unverified_token(keys):
    """
    The header is there whether or not the signature is right.
    """
    text = jws.sign(PAYLOAD, keys["ES384"], header={"typ": "JWT"})

    assert jws.peek_header(text) == {"alg": "ES384", "kid": "ES384", "typ": "JWT"}
    assert jws.peek_header(text[:-4] + "AAAA")["kid"] == "ES384"


@given(st.text(max_size=60) | st.binary(max_size=30))
def test_S6_peek_refuses_with_our_error_only(text):
    """
    No text or octets raise anything but InvalidJwsError.
    """
    try:
        header = jws.peek_header(text)
    except InvalidJwsError:
        return

    assert isinstance(header["alg"], str)


# --- any input -----------------------------------------------------------------------------


def _verdict(text: object, key: Jwk | JwkSet) -> bool:
    try:
        jws.verify(text, key, algorithms=ALL)
    except KagimoriError:
        return False
    return True


@given(
    st.text(max_size=80)
    | st.binary(max_size=80)
    | st.none()
    | st.integers()
    | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,90}")
)
def test_S6_any_input_is_refused_with_our_error(keys, text):
    """
    No text, octets or other object verifies, and none raises anything but a KagimoriError.
    """
    assert not _verdict(text, keys["ES256"])
    assert not _verdict(text, JwkSet.of(keys.values()))


@given(
    st.dictionaries(
        st.sampled_from(
            ["alg", "kid", "typ", "cty", "crit", "b64", "jwk", "jku", "x5c"]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from([*ALL, "none", "HS256"])
        | st.text(max_size=5)
        | st.lists(st.text(max_size=3), max_size=2),
    ),
    st.binary(min_size=64, max_size=64),
)
def test_S6_any_header_without_the_right_signature_is_refused(keys, header, signature):
    """
    No header makes 64 arbitrary octets a signature.
    """
    text = (
        f"{b64url_encode(json.dumps(header).encode())}.e30.{b64url_encode(signature)}"
    )

    assert not _verdict(text, keys["ES256"])
    assert not _verdict(text, JwkSet.of(keys.values()))


@given(st.data())
def test_any_change_of_one_character_is_refused(keys, data):
    """
    A genuine token with one character replaced, removed or inserted is refused.
    """
    text = jws.sign(PAYLOAD, keys["ES256"])
    index = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters(max_codepoint=0x2100))
    changed = data.draw(
        st.sampled_from(
            [
                text[:index] + character + text[index + 1 :],
                text[:index] + text[index + 1 :],
                text[:index] + character + text[index:],
            ]
        )
    )

    assert _verdict(changed, keys["ES256"]) is (changed == text)
