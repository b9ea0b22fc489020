from __future__ import annotations

import base64
import pickle
import re
import secrets
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.crypto.digests import b64url_decode, b64url_encode, hmac_sha256, random_id
from kagimori.errors import InvalidTokenError
from kagimori.tokens.refresh_token import (
    MOST_GENERATIONS,
    PREFIX,
    RefreshToken,
    TagKey,
)

KEY = bytes(range(32))
TAG_KEY = TagKey(KEY)
FAMILY = b64url_encode(bytes(range(16)))
SECRET = bytes(range(100, 132))

ALPHABET = re.compile(r"kgm_rt_[A-Za-z0-9_-]+")


def with_checksum(body):
    return PREFIX + b64url_encode(body + zlib.crc32(body).to_bytes(4, "big"))


def body(generation=b"\x01", version=b"\x01", secret=SECRET):
    head = version + bytes(range(16)) + generation + secret
    return head + hmac_sha256(KEY, head)[:16]


def test_B3_layout_is_exactly_the_documented_one():
    """
    The bytes are version, family id, generation, secret, tag, checksum, put together by hand.
    """
    head = b"\x01" + bytes(range(16)) + b"\xac\x02" + SECRET
    tagged = head + hmac_sha256(KEY, head)[:16]
    raw = tagged + zlib.crc32(tagged).to_bytes(4, "big")
    text = "kgm_rt_" + base64.urlsafe_b64encode(raw).decode().rstrip("=")

    made = RefreshToken.make(FAMILY, 300, SECRET, TAG_KEY)

    assert text == made.text
    assert ALPHABET.fullmatch(text)


@given(st.integers(1, MOST_GENERATIONS), st.binary(min_size=32, max_size=32))
def test_B3_round_trip(generation, secret):
    """
    What was made parses back to the same family, generation and hash, and proves itself.
    """
    made = RefreshToken.make(FAMILY, generation, secret, TAG_KEY)

    parsed = RefreshToken.parse(made.text)

    assert (FAMILY, generation) == (parsed.family_id, parsed.generation)
    assert (made.text, made.digest) == (parsed.text, parsed.digest)
    assert parsed.is_tagged_by(TAG_KEY)
    assert not parsed.is_tagged_by(TagKey(secrets.token_bytes(32)))


@pytest.mark.parametrize("bit", range(8))
def test_B3_every_flipped_bit_is_refused_or_unproven(bit):
    """
    No altered byte is accepted: without a new checksum it does not parse, with one the tag fails.
    """
    raw = body()
    for index in range(len(raw)):
        altered = bytearray(raw)
        altered[index] ^= 1 << bit

        with pytest.raises(InvalidTokenError):
            RefreshToken.parse(
                PREFIX
                + b64url_encode(bytes(altered) + zlib.crc32(raw).to_bytes(4, "big"))
            )
        try:
            parsed = RefreshToken.parse(with_checksum(bytes(altered)))
        except InvalidTokenError:
            continue
        assert not parsed.is_tagged_by(TAG_KEY)


GOOD = with_checksum(body())
REFUSED = {
    "empty": "",
    "prefix only": PREFIX,
    "no prefix": GOOD.removeprefix(PREFIX),
    "other prefix": GOOD.replace("kgm_rt_", "kgm_ac_"),
    "prefix in capitals": GOOD.replace("kgm_rt_", "KGM_RT_"),
    "a blank before": " " + GOOD,
    "a newline after": GOOD + "\n",
    "padding": GOOD + "==",
    "standard alphabet": PREFIX + "+/" + GOOD[len(PREFIX) + 2 :],
    "set unused bits": GOOD[:-1] + chr(ord(GOOD[-1]) + 1),
    "not ASCII": GOOD[:-1] + "é",
    "a lone surrogate": GOOD[:-1] + "\ud800",
    "NUL": GOOD[:-1] + "\0",
    "one byte short": with_checksum(body()[:-1]),
    "one byte long": with_checksum(body() + b"\0"),
    "very long": PREFIX + "A" * 1_000_000,
    "another version": with_checksum(body(version=b"\x02")),
    "generation 0": with_checksum(body(b"\x00")),
    "generation with a useless zero": with_checksum(body(b"\x81\x00")),
    "generation beyond 2^32": with_checksum(body(b"\x80\x80\x80\x80\x10")),
    "endless generation": with_checksum(body(b"\xff" * 5)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_J8_anything_but_the_canonical_text_is_refused(name):
    """
    One token has one text; garbage is refused without looking at any family.
    """
    with pytest.raises(InvalidTokenError) as caught:
        RefreshToken.parse(REFUSED[name])

    assert "The refresh token is not valid." == caught.value.text
    assert RefreshToken.parse(GOOD).text == GOOD


@given(st.text(max_size=200) | st.binary(max_size=120).map(b64url_encode))
def test_J8_whatever_comes_is_a_token_or_refused(text):
    """
    Any text, with or without the prefix, raises InvalidTokenError or is canonical.
    """
    for candidate in (text, PREFIX + text):
        try:
            parsed = RefreshToken.parse(candidate)
        except InvalidTokenError:
            continue
        assert candidate == parsed.text


@pytest.mark.parametrize(
    ("family", "generation", "secret"),
    [
        (random_id(15), 1, SECRET),
        (FAMILY, 0, SECRET),
        (FAMILY, MOST_GENERATIONS + 1, SECRET),
        (FAMILY, 1, SECRET[:-1]),
    ],
    ids=["family", "first", "last", "secret"],
)
def test_what_would_not_parse_is_not_made(family, generation, secret):
    """
    A wrong length or range is a mistake of the caller.
    """
    with pytest.raises(ValueError, match="A "):
        RefreshToken.make(family, generation, secret, TAG_KEY)


def test_a_tag_key_has_32_bytes():
    """
    A shorter key would weaken what tells our tokens from forged ones.
    """
    with pytest.raises(ValueError, match="32"):
        TagKey(b"short")


def test_the_secret_is_all_that_a_hash_needs():
    """
    Two tokens that differ in their secret only have unrelated hashes.
    """
    one = RefreshToken.make(FAMILY, 1, SECRET, TAG_KEY)
    two = RefreshToken.make(FAMILY, 1, SECRET[::-1], TAG_KEY)

    assert one.digest != two.digest
    assert 32 == len(one.digest)


@pytest.mark.parametrize("thing", [RefreshToken.parse(GOOD), TAG_KEY])
def test_K9_tokens_and_keys_are_not_pickled(thing):
    """
    A token or a tag key leaves the process on the wire or wrapped, never by accident.
    """
    with pytest.raises(TypeError):
        pickle.dumps(thing)


def test_family_id_is_the_text_form_of_its_bytes():
    """
    Documents are named by the same 16 bytes that the token carries.
    """
    parsed = RefreshToken.parse(GOOD)

    assert b64url_decode(parsed.family_id) == parsed.family_bytes
