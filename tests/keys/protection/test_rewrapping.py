"""
Wrapping a ring anew, a second wrapper alongside, and what guards which key.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from kagimori.errors import (
    ConfigError,
    InsecureConfigError,
    KeyWrapError,
    ProtectionError,
    StoreError,
)
from kagimori.keys.protection import elements, xml
from kagimori.wrappers.passphrase import PassphraseWrapper
from kagimori.wrappers.plaintext import PlaintextWrapper
from tests.keys.protection.vault import Vault, down
from tests.keys.protection.world import VECTOR_NOW, VECTORS, World

DAY = timedelta(days=1)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def ring_of(world: World, vault: Vault, keys: int = 3):
    """
    Return a ring of several keys and a payload under each.
    """
    ring = world.ring(wrapper=vault)
    sealed = [ring.protector("a").protect(b"1")]
    for number in range(2, keys + 1):
        world.clock.advance(DAY)
        ring.rotate(immediate=True)
        sealed.append(ring.protector("a").protect(f"{number}".encode()))
    return ring, sealed


def opens(ring, sealed) -> bool:
    protector = ring.protector("a")
    return [protector.unprotect(text).payload for text in sealed] == [
        f"{number}".encode() for number in range(1, len(sealed) + 1)
    ]


def texts(world: World) -> dict[str, str]:
    return {one.name: one.xml for one in world.store.real.load().elements}


def test_rewrap_to_another_wrapper(world: World):
    """
    Pain 7: in one commit, ids and dates unchanged; the new wrapper alone opens everything.
    """
    old, new = Vault("old", "Test.Old"), Vault("new", "Test.New")
    ring, sealed = ring_of(world, old)
    before, commits = ring.keys(), world.store.commits
    done = ring.rewrap(new)

    assert 1 == world.store.commits - commits
    assert tuple(key.id for key in before) == done.changed
    assert ("new", (), {}) == (done.wrapper, done.unchanged, dict(done.left))
    assert opens(ring, sealed)
    fresh = world.ring(wrapper=new)
    assert opens(fresh, sealed)
    assert [(k.id, k.timeline, k.algorithm) for k in before] == [
        (k.id, k.timeline, k.algorithm) for k in tuple(fresh.keys())
    ]
    assert {"New"} == {one for key in tuple(fresh.keys()) for one in key.wrapped_by}
    assert "new" == ring.wrapper_name
    world.clock.advance(DAY)
    assert ("New",) == ring.rotate(immediate=True).wrapped_by
    with pytest.raises(KeyWrapError):
        world.ring(wrapper=old)


def test_rewrap_to_a_newer_version_of_the_wrapping_key(world: World):
    """
    Only what lies under older versions is touched; done again, nothing is left to do.
    """
    vault = Vault()
    ring, sealed = ring_of(world, vault, 2)
    vault.turn()
    world.clock.advance(DAY)
    newest = ring.rotate(immediate=True).id
    done = ring.rewrap()
    assert ((newest,), 2) == (done.unchanged, len(done.changed))
    assert {"vault/2"} == {guard.wrapping_key for guard in ring.inventory()}

    del vault.versions["vault/1"]
    assert opens(world.ring(wrapper=vault), sealed)
    commits = world.store.commits
    assert () == ring.rewrap().changed
    assert commits == world.store.commits


def test_a_rewrapping_that_died_is_done_again(world: World):
    """
    Whatever fails on the way (vault, store, what comes back), the ring is as it was.
    """
    old, new = Vault("old", "Test.Old"), Vault("new", "Test.New")
    ring, sealed = ring_of(world, old)
    before = texts(world)
    new.spoils = True
    with pytest.raises(KeyWrapError):
        ring.rewrap(new)
    new.spoils, new.fault = False, down()
    with pytest.raises(KeyWrapError):
        ring.rewrap(new)
    new.fault, old.fault = None, down()
    with pytest.raises(KeyWrapError) as caught:
        ring.rewrap(new)
    assert caught.value.transient
    old.fault, world.store.fault = None, StoreError("down", transient=True)
    with pytest.raises(StoreError):
        ring.rewrap(new)
    world.store.fault = None
    assert before == texts(world)
    assert opens(world.ring(wrapper=old), sealed)

    assert 3 == len(ring.rewrap(new).changed)
    assert opens(world.ring(wrapper=new), sealed)


def test_a_key_that_is_lost_stays_and_is_named(world: World):
    """
    The others are wrapped anew; once its version is back, the next try does what is left.
    """
    old, new = Vault("old", "Test.Old"), Vault("new", "Test.New")
    first = world.ring(wrapper=old).current_key_id
    old.turn()
    world.clock.advance(DAY)
    world.ring(wrapper=old).rotate(immediate=True)
    lost = old.versions.pop("old/1")
    ring = world.ring(wrapper=old)
    done = ring.rewrap(new)
    assert {first} == set(done.left)
    assert "old/1" in done.left[first]
    assert 1 == len(done.changed)

    old.versions["old/1"] = lost
    ring = world.ring(wrapper=new, also_unwrap=[old])
    assert (first,) == ring.rewrap().changed
    assert 2 == len(world.ring(wrapper=new).rewrap().unchanged)


def test_nodes_with_the_old_wrapper_serve_on_and_alarm(world: World):
    """
    What they had opened goes on opening; they make no key, since they cannot read the ring.
    """
    old, new = Vault("old", "Test.Old"), Vault("new", "Test.New")
    ring, sealed = ring_of(world, old)
    node = world.ring(wrapper=old)
    assert opens(node, sealed)
    ring.rewrap(new)
    node.refresh()

    assert opens(node, sealed)
    assert node.is_ready
    assert "New" in node.problem.text
    assert "ring.troubled" in world.heard.alarms()
    keys = len(node.keys())
    world.clock.advance(88 * DAY)
    node.refresh()
    assert keys == len(node.keys())
    with pytest.raises(KeyWrapError):
        node.rotate(immediate=True)
    ring.refresh()
    assert keys + 1 == len(ring.keys())


def test_a_node_with_both_wrappers_notices_nothing(world: World):
    """
    The way to go: name the new wrapper to all nodes first; not even its outage makes a gap.
    """
    old, new = Vault("old", "Test.Old"), Vault("new", "Test.New")
    ring, sealed = ring_of(world, old)
    node = world.ring(wrapper=old, also_unwrap=[new])
    assert opens(node, sealed)
    ring.rewrap(new)
    new.fault = down()
    node.refresh()
    assert opens(node, sealed)
    assert node.problem.transient

    new.fault = None
    world.clock.advance(timedelta(minutes=10))
    node.refresh()
    assert node.problem is None
    assert opens(node, sealed)


def test_readers_during_a_rewrapping_always_find_a_ring(world: World):
    """
    Pain 7: at every step of the commit, a reader with both wrappers opens every payload.
    """
    old, new = Vault("old", "Test.Old"), Vault("new", "Test.New")
    ring, sealed = ring_of(world, old)
    real_commit, seen = world.store.commit, []

    def commit(add, remove, expect):
        seen.append(opens(world.ring(wrapper=old, store=world.store.real), sealed))
        snapshot = real_commit(add, remove, expect)
        seen.append(opens(world.ring(wrapper=new, store=world.store.real), sealed))
        return snapshot

    world.store.commit = commit
    ring.rewrap(new)
    assert [True, True] == seen


def test_clear_rings_are_wrapped_and_not_the_other_way_unasked(world: World):
    """
    Pain 12: leaving clear keys behind is one call; K11: clear ones where others write, never.
    """
    ring = world.ring(store=world.store.real, wrapper=PlaintextWrapper())
    sealed = ring.protector("a").protect(b"x")
    assert ring.is_clear
    done = ring.rewrap(PassphraseWrapper(b"a good one"))
    assert 1 == len(done.changed)
    assert not ring.is_clear
    fresh = world.ring(wrapper=PassphraseWrapper(b"a good one"))
    assert b"x" == fresh.protector("a").unprotect(sealed).payload

    world.place.chmod(0o770)
    with pytest.raises(InsecureConfigError):
        ring.rewrap(PlaintextWrapper())
    with pytest.raises(InsecureConfigError):
        world.ring(
            wrapper=None, also_unwrap=[PassphraseWrapper(b"a good one")]
        ).rewrap()


@pytest.mark.parametrize(
    "name", ["AES_256_CBC_HMACSHA256", "managed_Aes_256_HMACSHA1", "null-encryptor"]
)
def test_dotnet_rings_keep_their_descriptors(tmp_path, name: str):
    """
    A ring that .NET made is wrapped anew; algorithm and all else stay, to the last comment.
    """
    world = World(tmp_path)
    world.place.mkdir(mode=0o700)
    for path in (VECTORS / "rings" / name).glob("*.xml"):
        (world.place / path.name).write_bytes(path.read_bytes())
    world.clock.set(VECTOR_NOW)
    vault = Vault()
    ring = world.ring(wrapper=PlaintextWrapper(), application=None)
    before, old = ring.keys(), texts(world)
    ring.rewrap(vault)
    after = world.ring(wrapper=vault, application=None, read_only=True)

    assert [(k.id, k.algorithm, k.timeline) for k in before] == [
        (k.id, k.algorithm, k.timeline) for k in tuple(after.keys())
    ]
    for key in before:
        kept, new = (xml.parse(one[f"key-{key.id}"]) for one in (old, texts(world)))
        kept_outer, new_outer = kept.find("descriptor"), new.find("descriptor")
        assert kept_outer.attrib == new_outer.attrib
        tags = [node.tag for node in xml.only_child(kept_outer)][:-1]
        assert tags == [node.tag for node in xml.only_child(new_outer)][:-1]


# --- a second wrapper ----------------------------------------------------------------------


def test_a_second_wrapper_opens_the_ring_when_the_first_is_gone(world: World):
    """
    Pain 7: the vault was deleted; the certificate in the safe opens everything, and new keys
    are wrapped by it.
    """
    vault, safe = Vault("vault", "Test.Gone"), Vault("safe", "Test.Safe")
    ring, sealed = ring_of(world, vault)
    assert 3 == ring.add_recovery(safe)
    assert all(key.has_recovery for key in tuple(ring.keys()))
    assert 3 == sum(name.startswith("recovery-") for name in texts(world))
    assert all(
        elements.is_recovery(xml.parse(text))
        for name, text in texts(world).items()
        if name.startswith("recovery-")
    )

    rescued = world.ring(wrapper=safe)
    assert opens(rescued, sealed)
    assert "Gone" in rescued.problem.text
    world.clock.advance(DAY)
    assert ("Safe",) == rescued.rotate(immediate=True).wrapped_by
    assert 3 == len(rescued.rewrap().changed)
    assert world.ring(wrapper=safe).problem is None


def test_a_vault_that_is_only_down_is_no_disaster(world: World):
    """
    The second envelope is not touched for a transient failure: the ring waits for its vault.
    """
    vault, safe = Vault("vault", "Test.Down"), Vault("safe", "Test.Safe")
    ring, sealed = ring_of(world, vault)
    ring.add_recovery(safe)
    vault.fault, safe.unwrapped = down(), []
    with pytest.raises(KeyWrapError) as caught:
        world.ring(wrapper=vault, recovery=safe)
    assert caught.value.transient
    assert [] == safe.unwrapped

    vault.fault = None
    vault.broken = set(vault.versions)
    rescued = world.ring(wrapper=vault, recovery=safe)
    assert opens(rescued, sealed)


def test_new_keys_get_a_second_envelope_in_the_same_commit(world: World):
    """
    From the first one on, where the ring is opened with the wrapper for recovery.
    """
    safe = Vault("safe", "Test.Safe")
    ring = world.ring(recovery=safe)
    world.clock.advance(DAY)
    commits = world.store.commits
    ring.rotate(immediate=True)

    assert 1 == world.store.commits - commits
    assert [True, True] == [key.has_recovery for key in tuple(ring.keys())]
    waiting = ring.rotate()
    ring.cancel()
    assert f"recovery-{waiting.id}" not in texts(world)
    assert 0 == ring.add_recovery()
    assert 2 == ring.remove_recovery()
    assert not any(name.startswith("recovery-") for name in texts(world))
    assert ring.protector("a").protect(b"x")


def test_a_second_wrapper_that_hides_nothing_is_refused(world: World):
    """
    K10: it would lay every key open; none at all is a mistake.
    """
    ring = world.ring()
    with pytest.raises(InsecureConfigError):
        ring.add_recovery(PlaintextWrapper())
    with pytest.raises(ConfigError):
        ring.add_recovery()

    assert 1 == ring.add_recovery(Vault("safe", "Test.Safe"))


def test_second_envelopes_survive_a_rewrapping(world: World):
    """
    They guard the same secret whatever wraps it first.
    """
    old, new = Vault("old", "Test.Old"), Vault("new", "Test.New")
    safe = Vault("safe", "Test.Safe")
    ring, sealed = ring_of(world, old)
    ring.add_recovery(safe)
    ring.rewrap(new)

    assert opens(world.ring(wrapper=safe), sealed)


def test_a_second_envelope_of_another_key_opens_nothing(world: World):
    """
    K: who may write the store moves a second envelope to another key: it does not open.
    """
    vault, safe = Vault("vault", "Test.Gone"), Vault("safe", "Test.Safe")
    ring, sealed = ring_of(world, vault, 2)
    ring.add_recovery(safe)
    one, two = (key.id for key in tuple(ring.keys()))
    path = world.place / f"recovery-{one}.xml"
    swapped = (world.place / f"recovery-{two}.xml").read_text("utf-8")
    path.write_text(swapped.replace(two, one), "utf-8")
    rescued = world.ring(wrapper=safe)

    assert b"2" == rescued.protector("a").unprotect(sealed[1]).payload
    with pytest.raises(ProtectionError):
        rescued.protector("a").unprotect(sealed[0])


# --- what guards what ----------------------------------------------------------------------


def test_the_inventory_says_which_version_guards_which_key(world: World):
    """
    Pain 7: before an old version is disabled one sees what still needs it; nothing is unwrapped.
    """
    vault, safe = Vault(), Vault("safe", "Test.Safe")
    ring, _ = ring_of(world, vault, 2)
    vault.turn()
    world.clock.advance(DAY)
    ring.rotate(immediate=True)
    ring.add_recovery(safe)
    calls = vault.unwraps
    guards = ring.inventory()

    assert ["vault/1", "vault/1", "vault/2"] == [g.wrapping_key for g in guards]
    assert [False, False, True] == [g.is_newest for g in guards]
    assert {("Safe", "safe/1")} == {(g.recovery_by, g.recovery_key) for g in guards}
    assert ["previous", "previous", "current"] == [g.state.value for g in guards]
    assert calls == vault.unwraps
    vault.fault = down()
    assert {None} == {guard.is_newest for guard in ring.inventory()}


def test_the_inventory_of_wrappers_that_do_not_say(world: World):
    """
    What is not known is open; clear keys have no envelope at all.
    """
    (guard,) = world.ring(wrapper=PassphraseWrapper(b"x")).inventory()

    assert (("PassphraseXmlDecryptor",), None, None) == (
        guard.wrapped_by,
        guard.wrapping_key,
        guard.is_newest,
    )
