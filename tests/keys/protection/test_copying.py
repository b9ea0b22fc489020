"""
Copying a whole ring between any two stores.
"""

from __future__ import annotations

from base64 import b64decode
from datetime import timedelta

import pytest

from kagimori.errors import (
    InsecureConfigError,
    KeyWrapError,
    ProtectionError,
    RefusedError,
    RingMissingError,
    RingUnreadableError,
    StoreError,
)
from kagimori.keys.protection.copying import copy_ring
from kagimori.keys.store import Element
from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore
from kagimori.wrappers.plaintext import PlaintextWrapper
from tests.keys.protection.vault import Vault, down
from tests.keys.protection.world import VECTORS, TroubledStore, World, vectors

DAY = timedelta(days=1)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def lived_in(world: World, **options):
    """
    Return a ring with keys in every state, and a payload under each that may open.
    """
    ring = world.ring(**options)
    revoked = ring.current_key_id
    lost = ring.protector("a").protect(b"lost")
    world.clock.advance(DAY)
    ring.rotate(immediate=True, reason="the first was stolen")
    sealed = [ring.protector("a").protect(b"0")]
    ring.revoke(revoked, "stolen")
    world.clock.advance(DAY)
    ring.revoke_before(ring.keys()[1].timeline.created, "to be sure")
    ring.rotate(immediate=True)
    sealed.append(ring.protector("a").protect(b"1"))
    ring.rotate(reason="the next one")
    return ring, sealed, lost


def shown(ring):
    return [
        (key.id, key.algorithm, key.timeline, key.state, key.reason)
        for key in tuple(ring.keys())
    ]


@pytest.mark.parametrize("layout", ["folder", "document"])
def test_a_copy_is_the_same_ring(world: World, tmp_path, layout: str):
    """
    Ids, dates, states, reasons and revocations are the same, wrapped by another wrapper; what
    was protected opens, what was revoked does not. The source is as it was.
    """
    target = (
        FolderStore(tmp_path / "new")
        if layout == "folder"
        else DocumentStore(tmp_path / "new.xml")
    )
    vault = Vault()
    ring, sealed, lost = lived_in(world)
    before = world.store.real.load()
    copied = copy_ring(
        world.store,
        target,
        unwrap_by=[world.wrapper],
        wrapper=vault,
        clock=world.clock,
        events=world.heard,
    )
    fresh = world.ring(store=target, wrapper=vault)

    assert before == world.store.real.load()
    assert (tuple(k.id for k in tuple(ring.keys())), (), 2) == (
        copied.keys,
        copied.already,
        copied.revocations,
    )
    assert shown(ring) == shown(fresh)
    assert {("VaultXmlDecryptor",)} == {key.wrapped_by for key in tuple(fresh.keys())}
    for number, text in enumerate(sealed):
        opened = fresh.protector("a").unprotect(text).payload
        assert str(number).encode() == opened
    with pytest.raises(ProtectionError):
        fresh.protector("a").unprotect(lost)
    assert "ring.copied" in world.heard.names()


def test_leaving_a_folder_of_clear_keys_logs_nobody_out(tmp_path):
    """
    Pain 5: an App Service's DataProtection-Keys as .NET made it, copied and wrapped, opens the
    payloads that .NET had protected.
    """
    name = "AES_256_CBC_HMACSHA256"
    source = FolderStore(VECTORS / "rings" / name, read_only=True)
    target, vault = DocumentStore(tmp_path / "keys.xml"), Vault()
    copy_ring(source, target, wrapper=vault)
    payloads = [
        one
        for one in vectors("payloads")
        if one["ring"] == name and "expires" not in one
    ][:20]
    assert 20 == len(payloads)
    assert "<value>" not in (tmp_path / "keys.xml").read_text("utf-8-sig")

    for one in payloads:
        ring = World(tmp_path).ring(
            store=target,
            wrapper=vault,
            application=one["application"],
            read_only=True,
        )
        protector = ring.protector(*one["purposes"])
        opened = protector.unprotect(one["payload"])
        assert b64decode(one["plaintext"]) == opened.payload


def test_a_copy_done_again_fetches_what_came_meanwhile(world: World, tmp_path):
    """
    What is there is not touched; a new key and a new revocation are added.
    """
    target, vault = FolderStore(tmp_path / "new"), Vault()
    ring, _, _ = lived_in(world)

    def copy():
        return copy_ring(
            world.store,
            target,
            unwrap_by=[world.wrapper],
            wrapper=vault,
            clock=world.clock,
        )

    copy()
    wraps, version = vault.wraps, target.load().version
    assert ((), 0) == (copy().keys, copy().revocations)
    assert (wraps, version) == (vault.wraps, target.load().version)
    world.clock.advance(DAY)
    ended = ring.revoke(ring.current_key_id)
    again = copy()

    assert ((ended.replacement.id,), 1) == (again.keys, again.revocations)
    assert shown(ring) == shown(world.ring(store=target, wrapper=vault))


def test_a_copy_into_another_ring_is_refused(world: World, tmp_path):
    """
    It would mix two rings; nothing is written.
    """
    other = World(tmp_path / "other", world.clock)
    other.ring()
    world.ring()
    before = other.store.real.load()
    with pytest.raises(RefusedError):
        copy_ring(world.store, other.store, unwrap_by=[world.wrapper], wrapper=Vault())
    assert before == other.store.real.load()

    place = FolderStore(tmp_path / "empty")
    assert 1 == len(
        copy_ring(world.store, place, unwrap_by=[world.wrapper], wrapper=Vault()).keys
    )


def test_what_cannot_be_copied_is_said(world: World, tmp_path):
    """
    An empty source, a key that cannot be read or opened, a store that is down: nothing is written.
    """
    target = FolderStore(tmp_path / "new")
    with pytest.raises(RingMissingError):
        copy_ring(world.store, target, wrapper=Vault())
    vault = Vault()
    ring = world.ring(wrapper=vault)
    with pytest.raises(KeyWrapError):
        copy_ring(world.store, target, wrapper=Vault())
    vault.fault = down()
    with pytest.raises(KeyWrapError) as caught:
        copy_ring(world.store, target, unwrap_by=[vault], wrapper=Vault("b", "B.B"))
    assert caught.value.transient
    vault.fault = None
    for fault in (StoreError("down", transient=True), OSError("surprise")):
        world.store.fault = fault
        with pytest.raises(StoreError):
            copy_ring(world.store, target, unwrap_by=[vault], wrapper=vault)
    world.store.fault = None
    path = world.place / f"key-{ring.current_key_id}.xml"
    good = path.read_text("utf-8")
    path.write_text(good.replace("creationDate", "created"))
    with pytest.raises(RingUnreadableError):
        copy_ring(world.store, target, unwrap_by=[vault], wrapper=vault)
    assert target.load().version is None

    path.write_text(good)
    assert copy_ring(world.store, target, unwrap_by=[vault], wrapper=vault).keys


def test_K11_clear_keys_are_not_copied_where_others_write(world: World, tmp_path):
    """
    K11: wrapped ones are.
    """
    world.ring()
    place = tmp_path / "new"
    place.mkdir()
    place.chmod(0o777)
    target = FolderStore(place)
    with pytest.raises(InsecureConfigError):
        copy_ring(
            world.store,
            target,
            unwrap_by=[world.wrapper],
            wrapper=PlaintextWrapper(),
        )

    assert copy_ring(
        world.store, target, unwrap_by=[world.wrapper], wrapper=Vault()
    ).keys


def test_a_revoked_key_that_cannot_be_opened_goes_along_as_it_is(
    world: World, tmp_path
):
    """
    Its record stays whole; one that is not revoked stops the copy.
    """
    lost, kept = Vault("lost", "Test.Lost"), Vault("kept", "Test.Kept")
    first = world.ring(wrapper=lost).current_key_id
    world.clock.advance(DAY)
    both = world.ring(wrapper=kept, also_unwrap=[lost])
    both.rotate(immediate=True)
    target = FolderStore(tmp_path / "new")
    with pytest.raises(KeyWrapError):
        copy_ring(world.store, target, unwrap_by=[kept], wrapper=kept)

    both.revoke(first)
    copied = copy_ring(world.store, target, unwrap_by=[kept], wrapper=kept)
    assert first in copied.keys
    fresh = world.ring(store=target, wrapper=kept)
    assert "revoked" == fresh.keys()[0].state.value


def test_second_envelopes_go_along_or_are_made_anew(world: World, tmp_path):
    """
    Left alone they open as before; with a wrapper named every key gets one by it.
    """
    safe, other = Vault("safe", "Test.Safe"), Vault("other", "Test.Other")
    sealed = world.ring(recovery=safe).protector("a").protect(b"x")
    for number, named in enumerate((None, other)):
        target = FolderStore(tmp_path / f"new{number}")
        copy_ring(
            world.store,
            target,
            unwrap_by=[world.wrapper],
            wrapper=Vault("gone", "Test.Gone"),
            recovery=named,
        )
        rescued = world.ring(store=target, wrapper=named or safe)
        assert b"x" == rescued.protector("a").unprotect(sealed).payload


def test_a_copy_that_died_is_done_again(world: World, tmp_path):
    """
    A commit that another writer beat is decided anew, one that failed wrote nothing.
    """
    lived_in(world)
    target = TroubledStore(FolderStore(tmp_path / "new"))
    real_commit, meddled = target.commit, []

    def commit(add, remove, expect):
        if not meddled:
            meddled.append(True)
            stray = Element("other-thing", '<other xmlns="urn:x" />')
            target.real.commit([stray], (), expect)
        return real_commit(add, remove, expect)

    target.commit = commit
    vault = Vault()
    copied = copy_ring(world.store, target, unwrap_by=[world.wrapper], wrapper=vault)
    assert 4 == len(copied.keys)
    # Wrapped once for both attempts.
    assert 4 == vault.wraps
