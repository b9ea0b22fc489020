"""
Protectors: what they open and what they refuse.
"""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.errors import (
    ConfigError,
    PayloadExpiredError,
    ProtectionError,
    UnknownKeyIdError,
)
from kagimori.keys.protection import frame
from kagimori.keys.protection.algorithms import ALGORITHMS
from tests.keys.protection.world import World


@pytest.fixture(scope="module", params=sorted(ALGORITHMS))
def ring(request, tmp_path_factory):
    """
    A ring of each algorithm.
    """
    world = World(tmp_path_factory.mktemp("ring"))
    return world.ring(algorithm=request.param)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)), b"y" * 100_000])
def test_what_was_protected_is_unprotected(ring, payload: bytes):
    """
    As bytes and as text, by the same protector and by another one of the same purposes.
    """
    protector, other = ring.protector("a", "b"), ring.protector("a").protector("b")
    opened = other.unprotect_bytes(protector.protect_bytes(payload))

    assert (payload, False, ring.current_key_id) == (
        opened.payload,
        opened.needs_renewal,
        opened.key_id,
    )
    assert payload == other.unprotect(protector.protect(payload)).payload
    assert protector.protect(payload).startswith("CfDJ8")
    assert protector.protect(payload) != protector.protect(payload)


def test_K1_every_flipped_bit_is_refused(ring):
    """
    K1: whatever bit of a payload flips, header, key id and tag included, is refused; and every
    bit of its text form.
    """
    protector = ring.protector("a")
    sealed = protector.protect_bytes(b"payload")
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtectionError):
            protector.unprotect_bytes(bytes(changed))
    text = protector.protect(b"payload").encode()
    for bit in range(len(text) * 8):
        changed = bytearray(text)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtectionError):
            protector.unprotect(changed.decode("latin-1"))

    assert b"payload" == protector.unprotect_bytes(sealed).payload
    assert b"payload" == protector.unprotect(text.decode()).payload


def test_K1_cut_and_grown_payloads_are_refused(ring):
    """
    K1: every shorter payload, one that is longer, and a tag of zeros.
    """
    protector = ring.protector("a")
    sealed = protector.protect_bytes(b"")
    for length in range(len(sealed)):
        with pytest.raises(ProtectionError):
            protector.unprotect_bytes(sealed[:length])
    for tag_bytes in (16, 32, 64):
        with pytest.raises(ProtectionError):
            protector.unprotect_bytes(sealed[:-tag_bytes] + bytes(tag_bytes))
    with pytest.raises(ProtectionError):
        protector.unprotect_bytes(sealed + b"\x00")

    assert b"" == protector.unprotect_bytes(sealed).payload


@given(st.binary(max_size=120), st.integers(0, 20), st.integers(0, 10))
def test_K1_anything_else_is_refused_by_one_class(ring, junk, keep, cut):
    """
    K1: junk, and junk behind an honest header, raises `ProtectionError` and nothing else.
    """
    protector = ring.protector("a")
    sealed = protector.protect_bytes(b"")
    with pytest.raises(ProtectionError):
        protector.unprotect_bytes(sealed[:keep] + junk[cut:])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "CfDJ8",
        "CfDJ8=",
        "CfDJ8 AA",
        "CfDJ8\n",
        "鍵",
        "\ud800",
        "CfDJ8+/A",
        "A" * 5,
    ],
)
def test_text_that_is_no_payload_is_refused(world: World, text: str):
    """
    Padding, blanks, the standard alphabet, other scripts: all one class.
    """
    protector = world.ring().protector("a")

    with pytest.raises(ProtectionError):
        protector.unprotect(text)


PURPOSES = [
    ("a",),
    ("b",),
    ("a", "b"),
    ("b", "a"),
    ("ab",),
    ("a", ""),
    ("", "a"),
    ("A",),
]


def test_K3_purposes_and_applications_do_not_mix(world: World):
    """
    K3: a payload opens under its own purposes in their order and its own application only.
    """
    rings = {name: world.ring(application=name) for name in ("shop", "Shop", "a", None)}
    chains = [(name, chain) for name in rings for chain in PURPOSES]
    for name, chain in chains:
        sealed = rings[name].protector(*chain).protect_bytes(b"x")
        for other, purposes in chains:
            protector = rings[other].protector(*purposes)
            # An application's name is nothing but the first purpose.
            same = ((name,) if name else ()) + chain == (
                (other,) if other else ()
            ) + purposes
            if same:
                assert b"x" == protector.unprotect_bytes(sealed).payload
            else:
                with pytest.raises(ProtectionError):
                    protector.unprotect_bytes(sealed)


def test_purposes_are_unicode_text(world: World):
    """
    Any text is a purpose, never normalised; what is no text or no Unicode is refused.
    """
    ring = world.ring()
    composed, apart = "é", "e\u0301"
    sealed = ring.protector(composed).protect(b"x")
    assert b"x" == ring.protector(composed).unprotect(sealed).payload
    with pytest.raises(ProtectionError):
        ring.protector(apart).unprotect(sealed)

    for bad in ("\ud800", 5, None, b"x"):
        with pytest.raises(ConfigError):
            ring.protector(bad)


def test_a_payload_of_another_ring_names_an_unknown_key(tmp_path):
    """
    It is refused as unknown, which is a refusal as any other; the log learns which key.
    """
    world, other = World(tmp_path / "one"), World(tmp_path / "two")
    ring, stranger = world.ring(), other.ring()
    sealed = stranger.protector("a").protect(b"x")

    with pytest.raises(UnknownKeyIdError) as caught:
        ring.protector("a").unprotect(sealed)
    assert stranger.current_key_id in caught.value.detail
    assert stranger.current_key_id not in str(caught.value)


# --- time-limited --------------------------------------------------------------------------


def test_a_time_limited_payload_ends_with_its_expiry(world: World):
    """
    Valid at the very instant, refused a microsecond later; of one class with other refusals.
    """
    limited = world.ring().protector("a").time_limited()
    sealed = limited.protect(b"x", expires_in=timedelta(hours=1))
    ends = world.clock.now() + timedelta(hours=1)

    assert (b"x", ends) == (
        limited.unprotect(sealed).payload,
        limited.unprotect(sealed).expires,
    )
    world.clock.set(ends)
    assert b"x" == limited.unprotect(sealed).payload
    world.clock.advance(timedelta(microseconds=1))
    with pytest.raises(PayloadExpiredError):
        limited.unprotect(sealed)
    assert issubclass(PayloadExpiredError, ProtectionError)


def test_a_time_limited_payload_may_have_no_end(world: World):
    """
    With no expiry named it opens for ever, and says that it has none.
    """
    limited = world.ring().protector("a").time_limited()
    sealed = limited.protect_bytes(b"x")
    world.clock.advance(timedelta(days=365 * 50))

    opened = limited.unprotect_bytes(sealed)
    assert (b"x", None) == (opened.payload, opened.expires)


def test_time_limited_and_plain_do_not_mix(world: World):
    """
    K3: neither opens the other's payloads; sub-purposes go before the limit, as in .NET.
    """
    plain = world.ring().protector("a")
    limited = plain.time_limited()
    with pytest.raises(ProtectionError):
        limited.unprotect(plain.protect(b"x" * 20))
    with pytest.raises(ProtectionError):
        plain.unprotect(limited.protect(b"x"))

    sealed = limited.protector("b").protect(b"x")
    assert b"x" == plain.protector("b").time_limited().unprotect(sealed).payload
    assert limited is limited.time_limited()
    inner = plain.protector("b", frame.TIME_LIMITED).unprotect(sealed)
    assert b"x" == inner.payload[8:]


def test_expiries_that_make_no_sense_are_refused(world: World):
    """
    Two at once, or one without a time zone; an aware one in any zone is taken.
    """
    limited = world.ring().protector("a").time_limited()
    now = world.clock.now()

    with pytest.raises(ConfigError):
        limited.protect(b"x", expires_in=timedelta(1), expires_at=now)
    with pytest.raises(ConfigError):
        limited.protect(b"x", expires_at=datetime(2030, 1, 1))  # noqa: DTZ001 - that is it
    assert now == limited.unprotect(limited.protect(b"x", expires_at=now)).expires


# --- revoked keys, secrets -----------------------------------------------------------------


def test_K9_nothing_shows_a_payload_or_a_key(world: World):
    """
    K9: no repr tells of payloads, purposes or keys, and what holds keys is not pickled.
    """
    ring = world.ring()
    protector = ring.protector("purpose-xyz")
    opened = protector.unprotect(protector.protect(b"payload-xyz"))
    (key,) = ring._live.contents.keys
    for thing in (
        opened,
        protector,
        protector.time_limited(),
        ring,
        key,
        ring._live._serving,
    ):
        assert "xyz" not in repr(thing)
        assert "masterKey" not in repr(thing)
    for secret in (ring, ring._live, key, key.material):
        with pytest.raises(TypeError):
            pickle.dumps(secret)
