from __future__ import annotations

import pytest

from kagimori.errors import KeyRingError, ProtectionError, RingUnreadableError
from kagimori.tokens import tag_keys
from kagimori.tokens.tag_keys import TagKeyring
from tests.tokens.world import Ring, Story, Unprotected


def test_a_tag_key_is_protected_and_read_back():
    """
    What is stored opens to the key that tokens are tagged with.
    """
    ring = Ring()
    made = TagKeyring(ring).make("t")

    read = TagKeyring(ring).reader("t").of(made.sealed)

    assert read.current.tag(b"x") == made.successors.tag(b"x")
    assert made.sealed == read.sealed
    assert "key-1" == made.sealed.protection_key


def test_K3_a_tag_key_of_another_tenant_does_not_open():
    """
    K3: the tenant is among the purposes, so a copied document is of no use elsewhere.
    """
    keyring = TagKeyring(Ring())
    made = keyring.make("a")

    read = keyring.reader("b").of(made.sealed)

    assert read.current is None


def test_a_ring_that_does_not_read_back_makes_no_family():
    """
    A tag key that cannot be read back is never stored.
    """

    class Lying(Ring):
        def protector(self, *purposes):
            return Lying(self.keys)

        def unprotect(self, text):
            return Unprotected(b"\0" * 32, needs_renewal=False, key_id="key-1")

    class Failing(Lying):
        def protector(self, *purposes):
            return Failing(self.keys)

        def unprotect(self, text):
            raise ProtectionError("no")

    for ring in (Lying(), Failing()):
        with pytest.raises(RingUnreadableError):
            TagKeyring(ring).make("t")


def test_one_request_sees_one_key_however_often_it_decides():
    """
    A new key is drawn once for a request, so deciding again gives the same token.
    """
    ring = Ring()
    keyring = TagKeyring(ring)
    story = Story()
    reader = keyring.reader("t")

    once, twice = reader.of(story.sealed), reader.of(story.sealed)

    assert once is twice
    assert once.current is None


def test_renewal_waits_while_the_ring_cannot_protect():
    """
    A ring that opens but cannot protect leaves tag keys where they are.
    """

    class Full(Ring):
        protects = True

        def protector(self, *purposes):
            found = Full(self.keys)
            found.root = self
            return found

        def protect(self, payload):
            if not self.root.protects:
                raise KeyRingError("no current key")
            return super().protect(payload)

    ring = Full()
    keyring = TagKeyring(ring)
    made = keyring.make("t")
    ring.turn()
    ring.protects = False

    read = keyring.reader("t").of(made.sealed)

    assert made.sealed == read.sealed
    assert read.current is not None


def test_a_token_is_proven_by_tag_or_by_hash():
    """
    Without the ring a remembered hash proves a token; a guess is proven by nothing.
    """
    keyring = TagKeyring(Ring())
    story = Story()
    reader = keyring.reader("t")

    assert reader.proves(story.current, story.family)
    assert not reader.proves(story.token(1), story.family)


def test_a_tag_key_in_use_is_opened_once():
    """
    What was opened lately is at hand, until the ring turns: then it moves to the current key.
    """
    ring, opened = Ring(), []

    class Counting(Ring):
        def protector(self, *purposes):
            return Counting(self.keys, "\0".join(purposes).encode())

        def unprotect_at_hand(self, text):
            opened.append(text)
            return super().unprotect_at_hand(text)

    keyring = TagKeyring(Counting(ring.keys))
    made = keyring.make("t")
    for _ in range(3):
        read = keyring.reader("t").of(made.sealed)
    assert 1 == len(opened)

    ring.turn()
    moved = keyring.reader("t").of(made.sealed)

    assert "key-2" == moved.sealed.protection_key
    assert read.current.tag(b"x") == moved.current.tag(b"x")


def test_K8_what_is_at_hand_is_of_no_use_without_its_protection_key():
    """
    K8: a protection key that the ring lets nobody use any more opens nothing from memory either.
    """
    ring = Ring()
    keyring = TagKeyring(ring)
    made = keyring.make("t")
    assert keyring.reader("t").of(made.sealed).current is not None

    ring.forget("key-1")

    assert keyring.reader("t").of(made.sealed).current is None


def test_K3_what_is_at_hand_is_of_its_tenant_only():
    """
    K3: a copied document finds nothing in the memory of another tenant.
    """
    keyring = TagKeyring(Ring())
    made = keyring.make("a")
    assert keyring.reader("a").of(made.sealed).current is not None

    assert keyring.reader("b").of(made.sealed).current is None


def test_what_is_at_hand_is_bounded(monkeypatch):
    """
    The tag keys that were used longest ago go first.
    """
    monkeypatch.setattr(tag_keys, "MOST_OPENED", 2)
    ring = Ring()
    keyring = TagKeyring(ring)
    first, second, third = (keyring.make("t").sealed for _ in range(3))
    for sealed in (first, second, first, third):
        keyring.reader("t").of(sealed)
    protector = ring.protector("x")

    assert keyring.opened.get("t", second, protector) is None
    assert keyring.opened.get("t", first, protector) is not None
    assert keyring.opened.get("t", third, protector) is not None
