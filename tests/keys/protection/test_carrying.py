"""
Single keys as text under a passphrase.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kagimori.errors import (
    ClockBehindError,
    InsecureConfigError,
    KagimoriError,
    KeyStateError,
    KeyWrapError,
    NotFoundError,
    NotPropagatedError,
    ProtectionError,
    RingMalformedError,
)
from kagimori.keys.protection import carrying
from kagimori.keys.protection.carrying import Cost, check_passphrase
from tests.keys.protection.vault import Vault
from tests.keys.protection.world import World

DAY = timedelta(days=1)
GOOD = "wistful-Kettle-9-parade-onyx"
CHEAP = Cost(memory_kib=8 * 1024, iterations=1, lanes=1)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


@pytest.fixture
def elsewhere(tmp_path, world) -> World:
    return World(tmp_path / "elsewhere", world.clock)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> str:
    ring = World(tmp_path_factory.mktemp("exported")).ring()
    return ring.export_key(ring.current_key_id, GOOD, cost=CHEAP)


def test_a_key_travels_from_ring_to_ring(world: World, elsewhere: World):
    """
    Id, dates and algorithm are the same, the wrapper is the other ring's; what the one protected
    the other opens, and its own key goes on protecting.
    """
    source = world.ring(algorithm="AES_256_CBC_HMACSHA512")
    sealed = source.protector("a").protect(b"x")
    (key,) = source.keys()
    text = source.export_key(key.id, GOOD)
    world.clock.advance(DAY)
    vault = Vault()
    target = elsewhere.ring(wrapper=vault)
    with pytest.raises(ProtectionError):
        target.protector("a").unprotect(sealed)
    taken = target.import_key(text, GOOD, reason="from the old site")

    assert b"x" == target.protector("a").unprotect(sealed).payload
    assert (key.id, key.algorithm) == (taken.id, taken.algorithm)
    assert key.timeline.activates == taken.timeline.activates
    assert key.timeline.due == taken.timeline.due
    assert ("VaultXmlDecryptor",) == taken.wrapped_by
    assert "previous" == taken.state.value
    assert "from the old site" == taken.reason
    assert taken.id != target.current_key_id
    assert "key.exported" in world.heard.names()
    assert "key.imported" in elsewhere.heard.names()


def test_an_import_done_again_does_nothing(world: World, elsewhere: World):
    """
    The key is there; nothing is written.
    """
    text = _old_key(world)
    target = elsewhere.ring()
    target.import_key(text, GOOD)
    commits = elsewhere.store.commits
    assert "previous" == target.import_key(text, GOOD).state.value

    assert commits == elsewhere.store.commits


def test_a_key_that_would_protect_before_others_have_it_is_refused(
    world: World, elsewhere: World
):
    """
    One that activates later than the current key takes over: in an emergency only.
    """
    target = elsewhere.ring()
    world.clock.advance(DAY)
    young = world.ring()
    text = young.export_key(young.current_key_id, GOOD, cost=CHEAP)
    with pytest.raises(NotPropagatedError):
        target.import_key(text, GOOD)

    taken = target.import_key(text, GOOD, emergency=True)
    assert taken.id == young.current_key_id == target.current_key_id


def test_a_revoked_key_does_not_come_back(world: World, elsewhere: World):
    """
    Neither by its id, although it was deleted, nor by its date.
    """
    text = _old_key(world)
    key_id = text.split("Key: ")[1][:36]
    by_date, by_id = elsewhere.ring(), World(elsewhere.place / "id", world.clock).ring()
    world.clock.advance(DAY)
    by_date.revoke_before(world.clock.now())
    with pytest.raises(KeyStateError):
        by_date.import_key(text, GOOD)

    by_id.import_key(text, GOOD)
    assert "previous" == by_id.keys()[0].state.value
    by_id.revoke(key_id)
    assert "revoked" == by_id.import_key(text, GOOD).state.value


def test_K7_a_key_of_the_future_is_refused(world: World, elsewhere: World):
    """
    K7: beside it no key could be made; by a clock that is right it is taken.
    """
    target = elsewhere.ring()
    text = _old_key(world)
    world.clock.advance(-2 * DAY)
    with pytest.raises(ClockBehindError):
        target.import_key(text, GOOD, emergency=True)

    world.clock.advance(2 * DAY)
    assert target.import_key(text, GOOD, emergency=True).id


def test_imported_keys_get_a_second_envelope_too(world: World, elsewhere: World):
    """
    Where the ring that takes them gives its keys one.
    """
    text = _old_key(world)
    taken = elsewhere.ring(recovery=Vault("safe", "Test.Safe")).import_key(text, GOOD)

    assert taken.has_recovery


def test_what_is_not_there_or_cannot_be_opened_is_not_exported(world: World):
    """
    An unknown id, and a key whose wrapper is missing.
    """
    vault = Vault()
    ring = world.ring(wrapper=vault)
    with pytest.raises(NotFoundError):
        ring.export_key("00000000-0000-4000-8000-000000000000", GOOD, cost=CHEAP)
    vault.broken = set(vault.versions)
    with pytest.raises(KeyWrapError):
        ring.export_key(ring.current_key_id, GOOD, cost=CHEAP)

    vault.broken = set()
    assert ring.export_key(ring.current_key_id, GOOD, cost=CHEAP)


def test_the_text_shows_what_it_is_and_nothing_secret(exported: str):
    """
    Lines of at most 64 characters of ASCII after the headers, costly by default.
    """
    lines = exported.splitlines()

    assert "-----BEGIN KAGIMORI PROTECTION KEY-----" == lines[0]
    assert "-----END KAGIMORI PROTECTION KEY-----" == lines[-1]
    assert "Derivation: argon2id v=19 m=8192 t=1 p=1" == lines[3]
    assert exported.isascii()
    assert "masterKey" not in exported
    assert Cost() == Cost(256 * 1024, 3, 4)


@pytest.mark.parametrize(
    "weak",
    [
        "",
        "short",
        "fifteen-letters",
        "a" * 100,
        "abcabcabcabcabcabcabcabc",
        "passwordpassword",
        "abcdefghijklmnopqrstuvwxyz",
        "9876543210987654321",
        "aaaaaaaabbbbbbbbcccccccc",
        "x" * 1025,
    ],
)
def test_K10_weak_passphrases_are_refused(world: World, weak: str):
    """
    K10: the text leaves the house; the refusal does not name the passphrase.
    """
    ring = world.ring()
    with pytest.raises(InsecureConfigError) as caught:
        ring.export_key(ring.current_key_id, weak, cost=CHEAP)

    assert not weak or len(weak) < 16 or weak not in str(caught.value)


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        "m8Zp0aTq4Yx2Lw9KcV7d",
        "correct-otter-battery-stapler",
        "q1lhF7mWJkX0mOQm7cVnq3v3p7sJwR8bU0l0uYdJ0Zg=",
        "鍵守は森の奥で静かに鍵を守っている人です",
    ],
)
def test_strong_passphrases_are_taken(good: str):
    """
    What a machine makes, or several words of a list, in any script.
    """
    assert check_passphrase(good) is None


def test_another_passphrase_does_not_open(exported: str):
    """
    One error, which names neither.
    """
    with pytest.raises(KeyWrapError) as caught:
        carrying.read_export(exported, GOOD + "x")

    assert GOOD not in str(caught.value)
    assert carrying.read_export(exported, GOOD).is_clear


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Version: 1", "Version: 2"),
        ("t=1 ", "t=2 "),
        ("m=8192", "m=8193"),
        ("m=8192", "m=99999999"),
        ("t=1 ", "t=99 "),
        ("p=1\n", "p=17\n"),
        ("m=8192", "m=08192"),
        ("v=19", "v=16"),
        ("Key: ", "Key: 0"),
        ("Salt: ", "Salt: AAAA"),
        ("Nonce: ", "Nonce: !"),
        ("Salt", "Pepper"),
        ("-----BEGIN", "----BEGIN"),
        ("\n\n", "\n"),
        ("-----END", ""),
    ],
)
def test_altered_texts_are_refused(exported: str, old: str, new: str):
    """
    Every line counts, and costs are bounded before anything is derived.
    """
    assert old in exported
    with pytest.raises((KeyWrapError, RingMalformedError)):
        carrying.read_export(exported.replace(old, new, 1), GOOD)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_alteration_opens(exported: str, data):
    """
    A text with any character replaced is refused, or says the same as before.
    """
    at = data.draw(st.integers(0, len(exported) - 1))
    letter = data.draw(st.characters(codec="utf-8"))
    altered = exported[:at] + letter + exported[at + 1 :]
    try:
        opened = carrying.read_export(altered, GOOD)
    except KagimoriError:
        return

    assert carrying.read_export(exported, GOOD).text == opened.text


@pytest.mark.parametrize("text", ["", "\n", "x" * 100_000, "-----BEGIN", "\x00"])
def test_other_texts_are_no_exports(text: str):
    """
    One declared error.
    """
    with pytest.raises(RingMalformedError):
        carrying.read_export(text, GOOD)


def _old_key(world: World) -> str:
    """
    Return a key that is older than the rings made from now on.
    """
    ring = world.ring()
    text = ring.export_key(ring.current_key_id, GOOD, cost=CHEAP)
    world.clock.advance(DAY)
    return text
