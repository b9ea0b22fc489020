"""
Digests, comparison, base64url and randomness.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.crypto.digests import (
    HmacKey,
    b64url_decode,
    b64url_decode_bytes,
    b64url_encode,
    b64url_encode_bytes,
    equal,
    hmac_sha256,
    random_bytes,
    random_id,
    sha256,
)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def test_sha256_is_the_standard_digest():
    """
    The digest of "abc" is that of FIPS 180-4.
    """
    assert sha256(b"abc").hex() == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_hmac_sha256_is_the_standard_one():
    """
    The second test case of RFC 4231.
    """
    assert hmac_sha256(b"Jefe", b"what do ya want for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@given(st.binary(max_size=80), st.binary(max_size=200))
def test_hmac_sha256_agrees_with_the_object_interface(key, message):
    """
    Any key and message give what `hmac.new` gives.
    """
    assert hmac_sha256(key, message) == hmac.new(key, message, hashlib.sha256).digest()


@given(st.binary(max_size=64), st.lists(st.binary(max_size=200), max_size=3))
def test_a_prepared_hmac_key_gives_the_same_macs(key, messages):
    """
    A key prepared once gives for every message what `hmac` gives.
    """
    prepared = HmacKey(key)

    for message in messages:
        assert prepared.digest(message) == hmac.digest(key, message, "sha256")


def test_K9_a_prepared_hmac_key_is_bounded_and_shows_nothing():
    """
    A key beyond one block is refused; the object shows no octet of the key.
    """
    assert "secret" not in repr(HmacKey(b"secret" * 10))
    with pytest.raises(ValueError, match="block"):
        HmacKey(bytes(65))


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (b"secret", b"secret", True),
        (b"secret", b"secreu", False),
        (b"secret", b"secrets", False),
        (b"", b"", True),
        ("鍵守", "鍵守", True),
        ("鍵守", "鍵森", False),
        ("text", b"text", True),
        ("\ud800", "\ud801", False),
    ],
)
def test_T9_equal_compares_values(left, right, same):
    """
    Octets and texts are equal when their octets are, a lone surrogate included.
    """
    assert same is equal(left, right)


@given(st.binary(max_size=300))
def test_base64url_round_trip(data):
    """
    What is encoded decodes to itself, and the text is the standard library's without padding.
    """
    text = b64url_encode(data)

    assert text == base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    assert text.encode() == b64url_encode_bytes(data)
    assert data == b64url_decode(text)


@given(st.text(ALPHABET, max_size=40) | st.text(max_size=12))
def test_J8_base64url_has_one_text_for_each_value(text):
    """
    Whatever decodes at all encodes back to the very same text.
    """
    try:
        data = b64url_decode(text)
    except ValueError:
        return

    assert text == b64url_encode(data)


@given(st.text(ALPHABET, max_size=40))
def test_J8_base64url_refuses_only_what_is_not_canonical(text):
    """
    A text of the alphabet is refused exactly when re-encoding would change it.
    """
    padded = text + "=" * (-len(text) % 4)
    canonical = len(text) % 4 != 1 and (
        base64.urlsafe_b64encode(base64.urlsafe_b64decode(padded)).decode() == padded
    )
    try:
        b64url_decode(text)
    except ValueError:
        accepted = False
    else:
        accepted = True

    assert canonical is accepted


@pytest.mark.parametrize(
    "text",
    [
        "Zg==",  # padding
        "Zg=",
        "Zm9=",
        "====",
        "=",
        "Zh",  # set unused bits
        "Zm9vYh",
        "Zm9vYmF",
        "Zm9v\n",  # white space
        "Zm9v ",
        " Zm9v",
        "Zm\n9v",
        "Zm9+",  # foreign characters, the standard alphabet's among them
        "Zm9/",
        "Zm9v.",
        "Zm9v?",
        "Zm9v*",
        "Zm9\x00",
        "Zm9é",
        "\u202eZm9",
        "\ud800Zm9",
        "Z",  # impossible lengths
        "Zm9vZ",
    ],
)
def test_J8_base64url_refuses(text):
    """
    Padding, foreign characters, white space, impossible lengths and unused bits are refused.
    """
    assert b64url_decode("Zm9vYg") == b"foob"
    with pytest.raises(ValueError, match=r"^base64url ") as refusal:
        b64url_decode(text)

    assert refusal.value.__cause__ is None
    assert text not in str(refusal.value)


def test_base64url_of_octets():
    """
    The form for octets decodes and refuses as the one for text.
    """
    assert b64url_decode_bytes(b"-_-_") == b"\xfb\xff\xbf"
    with pytest.raises(ValueError, match="foreign"):
        b64url_decode_bytes(b"+/+/")
    with pytest.raises(ValueError, match="foreign"):
        b64url_decode_bytes(b"Zm9\xff")


def test_random_values_have_their_length_and_differ():
    """
    A random id of the default length is 22 characters; two draws differ.
    """
    assert len(random_bytes(33)) == 33
    assert len(random_id()) == 22
    assert len(b64url_decode(random_id(32))) == 32
    assert random_bytes(16) != random_bytes(16)
    assert random_id() != random_id()
