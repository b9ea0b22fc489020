"""
Comparing two slots: what each proves, and which difference explains that it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from kagimori.cli.ring_peer import Difference, LocalSlot, RemoteSlot, compare
from kagimori.cli.texts import LANGUAGES, Texts
from kagimori.errors import StoreError
from kagimori.keys.protection.inspecting import Verdict
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.ring_stores.document import DocumentStore
from kagimori.testing.clock import FixedClock
from kagimori.wrappers.plaintext import PlaintextWrapper
from tests.servers.listening_proxy import proxy

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def ring_at(tmp_path):
    """
    Return a maker of rings in places of the test's own.
    """
    made: list[ProtectionRing] = []

    def make(place: str, application: str = "shop") -> ProtectionRing:
        ring = ProtectionRing(
            DocumentStore(tmp_path / place),
            PlaintextWrapper(),
            application=application,
            clock=FixedClock(NOW),
        )
        ring.start()
        made.append(ring)
        return ring

    yield make
    for ring in made:
        ring.close()


class Altered:
    """
    A slot whose answers are changed on their way.
    """

    def __init__(self, slot: LocalSlot, **changes: object) -> None:
        self.name = slot.name
        self._slot = slot
        self._changes = changes

    def ask(self, challenge: str, texts: Sequence[str]) -> bytes:
        answer = msgspec.json.decode(self._slot.ask(challenge, texts))
        return msgspec.json.encode(answer | self._changes)


def test_slots_on_one_ring_prove_each_other(ring_at):
    """
    Both directions hold, and nothing is noted.
    """
    compared = compare(
        LocalSlot(ring_at("one"), "blue"), LocalSlot(ring_at("one"), "green")
    )

    assert compared.is_good
    assert ["green", "blue"] == [each.reader for each in compared.crossings]
    assert () == compared.notes


def test_a_slot_that_claims_to_read_is_not_believed(ring_at):
    """
    What came back is compared with the challenge: a word alone proves nothing.
    """
    liar = Altered(
        LocalSlot(ring_at("two"), "green"),
        opened=[{"ok": True, "payload": "AAAA", "why": None}],
    )

    compared = compare(LocalSlot(ring_at("one"), "blue"), liar)

    assert not compared.crossings[0].reads


@pytest.mark.parametrize(
    ("why", "places", "names", "expected"),
    [
        ("unknown-key", ("one", "two"), ("shop", "shop"), Difference.RING),
        ("not-ours", ("one", "one"), ("shop", "Shop"), Difference.APPLICATION),
    ],
)
def test_the_difference_that_explains_it_is_named(
    ring_at, why, places, names, expected
):
    """
    Other rings and other names are told apart.
    """
    slots = [
        LocalSlot(ring_at(place, name), each)
        for place, name, each in zip(places, names, ("blue", "green"), strict=True)
    ]

    compared = compare(*slots)

    assert {why} == {each.why for each in compared.crossings}
    assert {expected} == {each.differences[0] for each in compared.crossings}


def test_a_key_that_only_one_of_them_knows_yet_is_named_so(ring_at):
    """
    Rings with a key in common are one ring, seen at another time.
    """
    blue, green = ring_at("one"), ring_at("two")
    shared = [{"id": "shared", "algorithm": "AES_256_GCM", "state": "previous"}]

    compared = compare(
        Altered(LocalSlot(blue, "blue"), keys=shared),
        Altered(LocalSlot(green, "green"), keys=shared),
    )

    assert {(Difference.UNKNOWN_KEY,)} == {
        each.differences for each in compared.crossings
    }


def test_a_key_revoked_for_one_of_them_is_named_so(ring_at):
    """
    A slot that still protects with a revoked key has not seen the revocation yet.
    """
    behind, ahead = ring_at("one"), ring_at("one")
    ahead.revoke(ahead.current_key_id, "leaked")

    compared = compare(LocalSlot(behind, "blue"), LocalSlot(ahead, "green"))

    assert (Difference.REVOKED,) == compared.crossings[0].differences


def test_a_wrapper_that_cannot_open_the_others_keys_is_named(ring_at):
    """
    Same ring and name, other wrapper: the key is known there and cannot be read.
    """
    refused = [{"ok": False, "payload": None, "why": "not-ours"}]
    green = Altered(LocalSlot(ring_at("one"), "green"), opened=refused, wrapper="vault")

    compared = compare(LocalSlot(ring_at("one"), "blue"), green)

    assert (Difference.WRAPPER,) == compared.crossings[0].differences


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_difference_and_verdict_has_its_words(language):
    """
    Whatever is found can be said in each language.
    """
    texts = Texts(language)
    named = [each.value for each in Difference if each is not Difference.CLOCK]
    verdicts = [each.value.replace("-", "_") for each in Verdict]

    keys = [f"ring.peer.{each}" for each in named]
    keys += [f"ring.verdict.{each}" for each in verdicts]
    keys += [
        f"ring.peer.note.{each}" for each in ("application", "clock", "ring", "wrapper")
    ]

    assert [key for key in keys if not texts.has(key)] == []


def test_clocks_that_differ_are_noted(ring_at):
    """
    More than five seconds apart is a note, and not good; less is nothing.
    """
    real = datetime.now(UTC)

    def skewed(seconds: float) -> Altered:
        there = (real + timedelta(seconds=seconds)).isoformat()
        return Altered(LocalSlot(ring_at("one"), "green"), now=there)

    blue = LocalSlot(ring_at("one"), "blue")
    late = compare(Altered(blue, now=real.isoformat()), skewed(60))
    near = compare(Altered(blue, now=real.isoformat()), skewed(1))

    assert (Difference.CLOCK,) == late.notes
    assert not late.is_good
    assert 55 < late.skew < 65
    assert near.is_good


def test_a_token_for_this_machine_goes_by_no_proxy(monkeypatch):
    """
    Attack: the environment's proxy reads the token that is sent over http to localhost. By
    https it is only asked for a tunnel.
    """
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with proxy() as (url, asked):
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, url)
        for scheme in ("http", "https"):
            with pytest.raises(StoreError, match="does not answer"):
                RemoteSlot(f"{scheme}://localhost:9/", token="A" * 43).ask("x", [])

    assert ["CONNECT localhost:9"] == asked
