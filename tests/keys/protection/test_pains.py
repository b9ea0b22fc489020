"""
What users of ASP.NET Core Data Protection get hurt by, one test each that shows the pain gone
(`aspnet-data-protection.md` section 8).
"""

from __future__ import annotations

import threading
from base64 import b64decode
from datetime import timedelta

import pytest

from kagimori import open_ring
from kagimori.errors import (
    ConfigError,
    InsecureConfigError,
    KeyStateError,
    KeyWrapError,
    ProtectionError,
    RingMissingError,
    RingReadOnlyError,
    StoreError,
    UnknownKeyIdError,
)
from kagimori.keys.protection.copying import copy_ring
from kagimori.keys.store import Snapshot
from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore
from kagimori.wrappers.passphrase import PassphraseWrapper
from kagimori.wrappers.plaintext import PlaintextWrapper
from tests.keys.protection.vault import Vault, down
from tests.keys.protection.world import VECTORS, TroubledStore, World, vectors

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    "algorithm", ["AES_256_GCM", "AES_256_CBC_HMACSHA256", "AES_128_CBC_HMACSHA512"]
)
def test_pain_1_forged_payloads_are_refused_and_a_leak_is_answered_in_seconds(
    world: World, algorithm: str
):
    """
    CVE-2026-40372: an empty, a zero and a cut tag and each flipped byte are refused with one
    text; `compromise` revokes, replaces, reaches every node within seconds and says what it cut.
    """
    ring, node = world.ring(algorithm=algorithm), world.ring()
    protector = ring.protector("a")
    sealed = protector.protect_bytes(b"who I am")
    tag = {"GCM": 16, "256": 32, "512": 64}[algorithm[-3:]]
    forged = [
        sealed[:-tag] + bytes(tag),
        sealed[:-tag],
        sealed[:-1],
        *(
            sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :]
            for at in range(20, len(sealed))
        ),
    ]
    texts = set()
    for one in forged:
        with pytest.raises(ProtectionError) as caught:
            protector.unprotect_bytes(one)
        texts.add(str(caught.value))
    assert 1 == len(texts)
    assert b"who I am" == node.protector("a").unprotect_bytes(sealed).payload

    leaked = ring.current_key_id
    world.clock.advance(DAY)
    ended = ring.compromise(leaked, "CVE-2026-40372", wait=world.clock.advance)
    (cut,) = ended.cuts
    assert (leaked, DAY) == (cut.key_id, cut.until - cut.since - timedelta(minutes=1))
    with pytest.raises(ProtectionError):
        node.protector("a").unprotect_bytes(sealed)
    fresh = node.protector("a").protect_bytes(b"again")
    assert ended.replacement.id == protector.unprotect_bytes(fresh).key_id


def test_pain_2_many_instances_that_start_at_once_make_one_key(world: World):
    """
    Twenty instances on an empty place agree on one key, and a successor is in the ring days
    before it protects; so it goes again after months without anybody.
    """
    for expected in (1, 2):
        start, rings = threading.Barrier(20), []

        def begin(start=start, rings=rings) -> None:
            own = TroubledStore(FolderStore(world.place))
            start.wait(30)
            rings.append(world.ring(store=own))

        threads = [threading.Thread(target=begin) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert 20 == len(rings)
        assert 1 == len({ring.current_key_id for ring in rings})
        assert expected == len(list(world.place.glob("key-*.xml")))
        world.clock.advance(170 * DAY)
    ring = world.ring()
    due = ring.keys()[-1].timeline.due
    world.clock.set(due - 4 * DAY)
    ring.refresh()
    successor = ring.keys()[-1].timeline
    assert successor.activates - world.clock.now() >= 3 * DAY
    assert due == successor.activates


@pytest.mark.parametrize("at", ["start", "refresh"])
def test_pain_3_a_passing_failure_makes_no_key(world: World, at: str):
    """
    Vault or store fail for a moment, just when a successor is due: nothing is made, the last
    good key goes on, there is an alarm; afterwards one successor comes, on all nodes the same.
    """
    vault = Vault()
    ring = world.ring(wrapper=vault)
    first, sealed = ring.current_key_id, ring.protector("a").protect(b"x")
    world.clock.advance(91 * DAY)
    faults = [down(), KeyWrapError("disabled"), TimeoutError("surprise")]
    for fault in faults:
        vault.fault = fault
        if at == "start":
            with pytest.raises(KeyWrapError):
                world.ring(wrapper=vault)
        else:
            ring.refresh()
            assert first == ring.current_key_id
            assert b"x" == ring.protector("a").unprotect(sealed).payload
            assert ring.problem is not None
            assert "ring.troubled" in world.heard.alarms()
        assert 1 == len(list(world.place.glob("key-*.xml")))
    vault.fault = None
    world.store.fault = StoreError("503", transient=True)
    with pytest.raises(StoreError):
        ring.refresh() if at == "refresh" else world.ring(wrapper=vault)
    world.store.fault = None

    ring.refresh()
    assert 2 == len(ring.keys())
    assert ring.current_key_id == world.ring(wrapper=vault).current_key_id
    assert ring.problem is None


def test_pain_4_a_key_made_elsewhere_is_found_at_any_time(world: World):
    """
    Not in the first two minutes only: a payload of a new key causes a reload whenever it comes,
    and a probe sees changes within five seconds; the refusal says where was looked and when.
    """
    ring, other = world.ring(), world.ring()
    world.clock.advance(5 * DAY)
    ring.refresh()
    other.rotate(immediate=True)
    sealed = other.protector("a").protect(b"new")
    assert b"new" == ring.protector("a").unprotect(sealed).payload

    world.clock.advance(DAY)
    ring.refresh()
    newest = other.rotate(immediate=True).id
    world.clock.advance(5 * SECOND)
    ring.tick()
    assert newest == ring.current_key_id
    deleted = other.keys()[0].id
    gone = World(world.place.parent / "gone", world.clock).ring().protector("a")
    other.delete(deleted, force=True, reason="nobody needs it")
    ring.refresh()
    with pytest.raises(UnknownKeyIdError) as caught:
        ring.protector("a").unprotect(gone.protect(b"x"))
    assert str(world.place) in caught.value.detail
    assert "never recorded" in caught.value.detail
    assert f"last loaded {world.clock.now()}" in caught.value.detail


def test_pain_5_a_slot_swap_signs_nobody_out(world: World, tmp_path):
    """
    Two slots that name one ring and one application read each other, before and after a
    rotation; each has to be named, the same ring moves with `copy`, and a wrong name shows as
    such instead of as an unknown key.
    """
    with pytest.raises(ConfigError, match="application"):
        open_ring(FolderStore(world.place), wrapper=PlaintextWrapper())
    blue, green = world.ring(), world.ring()
    session = blue.protector("session").protect(b"alice")
    assert b"alice" == green.protector("session").unprotect(session).payload
    world.clock.advance(DAY)
    green.rotate(immediate=True)
    renewed = green.protector("session").protect(b"alice")
    assert b"alice" == blue.protector("session").unprotect(renewed).payload
    assert green.protector("session").unprotect(session).needs_renewal

    target = FolderStore(tmp_path / "moved")
    copy_ring(
        world.store, target, unwrap_by=[world.wrapper], wrapper=PlaintextWrapper()
    )
    moved = world.ring(store=target, wrapper=PlaintextWrapper())
    assert b"alice" == moved.protector("session").unprotect(session).payload
    misnamed = world.ring(application="Shop/")
    with pytest.raises(ProtectionError) as caught:
        misnamed.protector("session").unprotect(session)
    assert not isinstance(caught.value, UnknownKeyIdError)
    assert "ring.application_differs" in world.heard.names()


def test_pain_6_keys_are_not_lost_with_a_container_unseen(world: World, tmp_path):
    """
    A ring is named or refused, never kept in memory; a place that goes with the container is
    told of, and refused where that is asked for; a wiped one is no reason to begin anew.
    """

    class OwnLayer(FolderStore):
        def lost_at_restart(self) -> str:
            return "it lies in the container's own layer"

    store = OwnLayer(world.place)
    with pytest.raises(ConfigError, match="container"):
        world.ring(store=store, require_lasting=True)
    assert not world.place.exists()
    ring = world.ring(store=store)
    assert "container" in ring.lost_at_restart
    assert "ring.not_lasting" in world.heard.names()
    sealed = ring.protector("a").protect(b"x")

    for path in world.place.iterdir():
        path.unlink()
    with pytest.raises(RingMissingError):
        ring.refresh()
    assert "ring.unreadable" in world.heard.alarms()
    assert b"x" == ring.protector("a").unprotect(sealed).payload
    with pytest.raises(RingMissingError):
        world.ring(create=False)
    assert [] == list(world.place.iterdir())


def test_pain_7_the_wrapping_key_can_be_turned_and_lost(world: World):
    """
    `rewrap` moves a ring to a newer version or another wrapper, verified and in one commit; the
    inventory says what the old version is still needed for; a second wrapper survives the loss
    of the first.
    """
    certificate, vault = Vault("certificate", "Test.Old"), Vault("vault", "Test.New")
    safe = Vault("safe", "Test.Safe")
    ring = world.ring(wrapper=certificate)
    sealed = ring.protector("a").protect(b"x")
    ring.rewrap(vault)
    certificate.versions.clear()
    vault.turn()
    world.clock.advance(DAY)
    ring.rotate(immediate=True)
    assert ["vault/1", "vault/2"] == [one.wrapping_key for one in ring.inventory()]
    ring.rewrap()
    assert {"vault/2"} == {one.wrapping_key for one in ring.inventory()}
    del vault.versions["vault/1"]
    fresh = world.ring(wrapper=vault)
    assert b"x" == fresh.protector("a").unprotect(sealed).payload

    fresh.add_recovery(safe)
    vault.versions.clear()
    rescued = world.ring(wrapper=safe)
    assert b"x" == rescued.protector("a").unprotect(sealed).payload
    assert rescued.protector("a").protect(b"y")


def test_pain_8_a_vault_under_load_is_neither_stormed_nor_waited_for(world: World):
    """
    A ring is ready when it is loaded; a hundred threads that start on it make no call of the
    vault, a failed refresh is nobody's error, and a throttled vault is left alone.
    """
    vault = Vault()
    first = world.ring(wrapper=vault)
    for _ in range(5):
        world.clock.advance(DAY)
        first.rotate(immediate=True)
    sealed = first.protector("a").protect(b"x")
    vault.unwrapped = []
    ring = world.ring(wrapper=vault)
    assert ring.is_ready
    assert 2 == vault.unwraps
    vault.fault, opened = down(retry_after=30), []
    start = threading.Barrier(100)

    def use() -> None:
        start.wait(30)
        opened.append(ring.protector("a").unprotect(sealed).payload)
        ring.protector("a").protect(b"y")

    threads = [threading.Thread(target=use) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [b"x"] * 100 == opened
    assert 2 == vault.unwraps

    world.store.fault = StoreError("503", transient=True, retry_after=20)
    world.clock.advance(5 * SECOND)
    ring.tick()
    asked = world.store.probes
    for _ in range(19):
        world.clock.advance(SECOND)
        ring.tick()
        assert b"x" == ring.protector("a").unprotect(sealed).payload
    assert asked == world.store.probes


def test_pain_9_a_missing_right_is_named_with_its_remedy(world: World):
    """
    What the store or the vault said, the place and what to do reach whoever starts the program,
    and the alarm of one that runs; reading goes on where only writing is refused.
    """
    remedy = "Assign Storage Blob Data Contributor on the container."
    refused = StoreError(
        f"The container at {world.place} refuses writing (403).", hint=remedy
    )

    class NoWriting(TroubledStore):
        def commit(self, add, remove, expect) -> Snapshot:
            raise refused

    store = NoWriting(world.store.real)
    with pytest.raises(StoreError) as caught:
        world.ring(store=store)
    assert remedy in str(caught.value)
    assert str(world.place) in str(caught.value)
    sealed = world.ring().protector("a").protect(b"x")
    world.clock.advance(87 * DAY)
    ring = world.ring(store=store)
    assert b"x" == ring.protector("a").unprotect(sealed).payload
    alarm = next(one for one in world.heard.events if one.name == "ring.troubled")
    assert remedy == alarm.fields["hint"] == ring.problem.hint

    role = "Assign Key Vault Crypto Service Encryption User."
    world.wrapper.fault = KeyWrapError("The vault refuses unwrapKey (403).", hint=role)
    with pytest.raises(KeyWrapError) as denied:
        world.ring()
    assert role in str(denied.value)
    assert str(world.place) in str(denied.value)


@pytest.mark.parametrize("version", ["", ", Version=3.1.0.0", ", Version=99.0.0.0"])
def test_pain_10_upgrades_do_not_break_decryption(tmp_path, version: str):
    """
    Type names of any version load, as golden payloads of .NET prove; the application is recorded
    in the ring, and a name that gained or lost a separator is told.
    """
    name = "AES_256_CBC_HMACSHA256"
    world = World(tmp_path)
    world.place.mkdir(mode=0o700)
    for path in (VECTORS / "rings" / name).glob("*.xml"):
        text = path.read_text("utf-8-sig")
        before, _, after = text.partition(", Version=")
        kept = before + version + "," + after.partition(",")[2] if after else text
        (world.place / path.name).write_text(kept, "utf-8")
    cases = [c for c in vectors("payloads") if c["ring"] == name and "expires" not in c]
    for case in cases[:10]:
        ring = world.ring(application=case["application"], wrapper=None, read_only=True)
        opened = ring.protector(*case["purposes"]).unprotect(case["payload"])
        assert b64decode(case["plaintext"]) == opened.payload

    other = World(tmp_path / "other")
    other.ring(application="/home/site/wwwroot")
    other.ring(application="/home/site/wwwroot")
    assert "ring.application_differs" not in other.heard.names()
    other.ring(application="/home/site/wwwroot/")
    told = next(e for e in other.heard.events if e.name == "ring.application_differs")
    assert "/home/site/wwwroot" == told.fields["made_for"]


@pytest.mark.parametrize("layout", ["folder", "document"])
def test_pain_11_keys_are_removed_when_nothing_needs_them(
    world: World, tmp_path, layout: str
):
    """
    In every store, by one verb that refuses what is needed; whether payloads still name a key is
    told before, and why it went is kept.
    """
    store = (
        FolderStore(tmp_path / "keys")
        if layout == "folder"
        else DocumentStore(tmp_path / "keys.xml")
    )
    ring = world.ring(store=store)
    first, sealed = ring.current_key_id, ring.protector("a").protect(b"x")
    with pytest.raises(KeyStateError):
        ring.delete(first, force=True)
    world.clock.advance(DAY)
    ring.rotate(immediate=True)
    ring.protector("a").unprotect(sealed)
    assert world.clock.now() == ring.keys()[0].last_named
    with pytest.raises(KeyStateError):
        ring.delete(first)

    ring.delete(first, force=True, reason="its cookies are over")
    assert 1 == len(world.ring(store=store).keys())
    assert not any(first in element.name for element in store.load().elements)
    with pytest.raises(UnknownKeyIdError) as caught:
        ring.protector("a").unprotect(sealed)
    assert "its cookies are over" in caught.value.detail


def test_pain_12_keys_are_wrapped_rings_have_names_and_readers_only_read(
    world: World, tmp_path
):
    """
    A new ring without a wrapper is refused; several rings lie side by side; a reader protects
    and opens and never writes.
    """
    with pytest.raises(InsecureConfigError):
        world.ring(wrapper=None)
    wrapper = PassphraseWrapper(b"long enough for this")
    shop = world.ring(store=DocumentStore(tmp_path / "shop.xml"), wrapper=wrapper)
    blog = world.ring(store=DocumentStore(tmp_path / "blog.xml"), wrapper=wrapper)
    assert shop.current_key_id != blog.current_key_id
    for name in ("shop", "blog"):
        text = (tmp_path / f"{name}.xml").read_text("utf-8-sig")
        assert "passphraseKey" in text
        assert "<value>" not in text.partition("passphraseKey")[0]

    reader = world.ring(
        store=DocumentStore(tmp_path / "shop.xml", read_only=True),
        wrapper=wrapper,
        read_only=True,
    )
    before = (tmp_path / "shop.xml").read_bytes()
    sealed = reader.protector("a").protect(b"x")
    assert b"x" == shop.protector("a").unprotect(sealed).payload
    with pytest.raises(RingReadOnlyError):
        reader.rotate()
    world.clock.advance(100 * DAY)
    reader.refresh()
    assert before == (tmp_path / "shop.xml").read_bytes()
    assert shop.rotate(immediate=True).id != reader.current_key_id
