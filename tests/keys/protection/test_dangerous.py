"""
Reads that ignore a revocation: what they open, and what they do not.
"""

from __future__ import annotations

from base64 import b64decode
from datetime import timedelta

import pytest

from kagimori.errors import (
    PayloadExpiredError,
    ProtectionError,
    UnknownKeyIdError,
)
from kagimori.keys.protection import frame
from tests.keys.protection.world import World, vector_ring, vectors


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="module")
def revoked():
    """
    The ring of .NET's of which two keys are revoked, and its payloads.
    """
    case = vectors("revoked")
    return vector_ring(case["ring"], case["application"]), case


def test_K8_revoked_payloads_open_only_where_that_is_asked_for(revoked):
    """
    As in .NET: payload, whether the key was revoked, and that it wants renewal.
    """
    ring, case = revoked
    protector = ring.protector(*case["purposes"])
    for one in case["payloads"]:
        text, plaintext = one["payload"], b64decode(one["plaintext"])
        opened = protector.unprotect_dangerously(text)

        assert (plaintext, one["key"], one["dangerous_was_revoked"]) == (
            opened.payload,
            opened.key_id,
            opened.was_revoked,
        )
        current = one["key"] == ring.current_key_id
        assert (one["revoked"] or not current) == opened.needs_renewal
        assert opened == protector.unprotect_dangerously(frame.from_text(text))
        if one["revoked"]:
            with pytest.raises(ProtectionError):
                protector.unprotect(text)
        else:
            assert plaintext == protector.unprotect(text).payload


def test_a_dangerous_read_still_verifies(revoked):
    """
    K1: altered, cut, of other purposes, of another ring: refused, revoked key or not.
    """
    ring, case = revoked
    one = next(one for one in case["payloads"] if one["revoked"])
    data = frame.from_text(one["payload"])
    protector = ring.protector(*case["purposes"])
    assert protector.unprotect_dangerously(data).was_revoked

    for place in range(frame.HEADER_BYTES, len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(ProtectionError):
            protector.unprotect_dangerously(bytes(changed))
    for bad in (b"", data[:19], data[:40], data[:-1], data + b"x", "", "=", "é"):
        with pytest.raises(ProtectionError):
            protector.unprotect_dangerously(bad)
    with pytest.raises(ProtectionError):
        ring.protector("other").unprotect_dangerously(data)
    with pytest.raises(UnknownKeyIdError):
        protector.unprotect_dangerously(data[:4] + bytes(16) + data[20:])


def test_a_dangerous_read_of_a_sound_key_is_an_ordinary_one(world: World):
    """
    Nothing was revoked, and a rotation makes it want renewal.
    """
    ring = world.ring()
    protector = ring.protector("a")
    sealed = protector.protect(b"x")

    opened = protector.unprotect_dangerously(sealed)
    assert (b"x", False, False) == (
        opened.payload,
        opened.needs_renewal,
        opened.was_revoked,
    )
    assert opened.expires is None
    ring.rotate(immediate=True)
    opened = protector.unprotect_dangerously(sealed)
    assert (True, False) == (opened.needs_renewal, opened.was_revoked)
    secret = protector.unprotect_dangerously(protector.protect(b"payload-xyz"))
    assert "xyz" not in repr(secret)


def test_a_dangerous_read_keeps_to_the_expiry(world: World):
    """
    Only the revocation is ignored: the time of a time-limited payload is still its end.
    """
    limited = world.ring().protector("a").time_limited()
    ends = world.clock.now() + timedelta(hours=1)
    sealed = limited.protect(b"x", expires_at=ends)
    for_ever = limited.protect_bytes(b"y")
    world.clock.set(ends)

    assert (b"x", ends) == (
        limited.unprotect_dangerously(sealed).payload,
        limited.unprotect_dangerously(sealed).expires,
    )
    world.clock.advance(timedelta(microseconds=1))
    with pytest.raises(PayloadExpiredError):
        limited.unprotect_dangerously(sealed)
    assert limited.unprotect_dangerously(for_ever).expires is None
