"""
What thieves, wrong clocks and lost answers must not do to a protection ring.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from kagimori.errors import (
    ClockBehindError,
    ConflictError,
    KagimoriError,
    KeyRingError,
    KeyStateError,
    KeyWrapError,
    NotFoundError,
    NotPropagatedError,
    ProtectionError,
    RingUnreadableError,
)
from kagimori.keys.protection.carrying import Cost
from kagimori.keys.protection.copying import copy_ring
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.store import Element
from kagimori.keys.timeline import rfc3339
from kagimori.ring_stores.file import FolderStore
from kagimori.testing.clock import FixedClock
from kagimori.wrappers.plaintext import PlaintextWrapper
from tests.keys.protection.vault import Vault, down
from tests.keys.protection.world import TroubledStore, World

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
WORDS = "correct horse battery staple zebra"
CHEAP = Cost(8192, 1, 1)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


@pytest.fixture
def elsewhere(tmp_path, world: World) -> World:
    return World(tmp_path / "elsewhere", world.clock)


class Forgetful(TroubledStore):
    """
    A real store that commits, and answers with a conflict as often as a test says.
    """

    lost = 0

    def commit(self, add, remove, expect):
        done = super().commit(add, remove, expect)
        if self.lost:
            self.lost -= 1
            raise ConflictError("Somebody else was faster.")
        return done


def _revocation(key_id: str) -> Element:
    text = (
        '<revocation version="1"><revocationDate>2026-01-01T00:00:00Z</revocationDate>'
        f'<key id="{key_id}"/><reason/></revocation>'
    )
    return Element(f"revocation-{key_id}", text)


def _add(world: World, *add: Element) -> None:
    store = world.store.real
    store.commit(add, (), store.load().version)


# --- revocations hold ----------------------------------------------------------------------


def test_a_revocation_holds_although_no_other_key_can_be_opened(world: World):
    """
    Attack: a thief's payloads go on opening where the vault is down, for as long as it is.
    """
    vault = Vault()
    here, there = world.ring(wrapper=vault), world.ring(wrapper=vault)
    mine = Vault()
    mine.versions = vault.versions
    node = world.ring(wrapper=mine)
    stolen = here.protector("a").protect(b"forged")
    assert b"forged" == node.protector("a").unprotect(stolen).payload

    mine.fault = down()
    here.compromise(wait=lambda _: None)
    with pytest.raises(KeyWrapError):
        node.refresh()
    with pytest.raises(ProtectionError):
        node.protector("a").unprotect(stolen)
    with pytest.raises(KeyRingError):
        node.protector("a").protect(b"x")
    assert not node.is_ready
    assert node.problem is not None
    assert "ring.unreadable" in world.heard.alarms()

    there.refresh()
    fresh = there.protector("a").protect(b"new")
    mine.fault = None
    world.clock.advance(2 * MINUTE)
    node.tick()
    assert b"new" == node.protector("a").unprotect(fresh).payload
    assert node.is_ready
    assert node.problem is None


def test_a_reader_heeds_that_its_only_key_was_revoked(world: World):
    """
    Attack: .NET revokes the one key of a ring, and read-only nodes open what its thief makes.
    """
    writer = world.ring()
    reader = world.ring(read_only=True)
    stolen = writer.protector("a").protect(b"forged")
    assert b"forged" == reader.protector("a").unprotect(stolen).payload
    _add(world, _revocation(writer.current_key_id))

    with pytest.raises(RingUnreadableError):
        reader.refresh()
    with pytest.raises(ProtectionError):
        reader.protector("a").unprotect(stolen)
    with pytest.raises(KeyRingError):
        reader.protector("a").protect(b"x")


def test_retries_of_a_ring_that_cannot_protect_come_less_and_less_often(world: World):
    """
    A vault that is down is not asked each second although the store answers each time.
    """
    vault = Vault()
    here = world.ring(wrapper=vault)
    other = Vault()
    other.versions = vault.versions
    node = world.ring(wrapper=other)
    other.fault = down()
    here.compromise(wait=lambda _: None)
    loads = world.store.loads
    for _ in range(60):
        world.clock.advance(timedelta(seconds=1))
        node.tick()

    assert 0 < world.store.loads - loads <= 10


def test_keys_whose_elements_are_garbled_go_on_opening_unless_revoked(world: World):
    """
    Unreadable is not absent; but a revocation of such a key holds.
    """
    ring = world.ring()
    key_id = ring.current_key_id
    sealed = ring.protector("a").protect(b"x")
    garbled = Element(f"key-{key_id}", f'<key id="{key_id}" version="1"/>')
    _add(world, garbled)
    with pytest.raises(KagimoriError):
        ring.refresh()
    assert b"x" == ring.protector("a").unprotect(sealed).payload

    _add(world, _revocation(key_id))
    with pytest.raises(KagimoriError):
        ring.refresh()
    with pytest.raises(ProtectionError):
        ring.protector("a").unprotect(sealed)


def test_another_ring_in_the_place_does_not_cut_everybody_off(
    world: World, elsewhere: World
):
    """
    A wrong mount, with keys that cannot be opened here: what served goes on, with an alarm.
    """
    ring = world.ring(wrapper=Vault())
    sealed = ring.protector("a").protect(b"x")
    elsewhere.ring(wrapper=Vault("other", "Test.OtherXmlDecryptor"))
    own = world.place.rename(world.place.with_name("unmounted"))
    elsewhere.place.rename(world.place)
    with pytest.raises(KeyRingError):
        ring.refresh()
    assert b"x" == ring.protector("a").unprotect(sealed).payload
    assert "ring.unreadable" in world.heard.alarms()

    world.place.rename(own.with_name("wrong"))
    own.rename(world.place)
    ring.refresh()
    assert ring.problem is None
    assert 1 == len(ring.keys())


def test_a_change_that_is_stored_does_not_look_failed(world: World):
    """
    The vault goes down between the commit and the look at its result: the problem says so.
    """

    class GoesDown(TroubledStore):
        def commit(self, add, remove, expect):
            done = super().commit(add, remove, expect)
            vault.fault = down()
            return done

    vault = Vault()
    world.ring(wrapper=vault)
    ring = world.ring(wrapper=vault, store=GoesDown(world.store.real))
    stolen = ring.protector("a").protect(b"forged")
    first = ring.current_key_id
    ended = ring.compromise(wait=lambda _: None)

    assert [first] == [cut.key_id for cut in ended.cuts]
    assert ring.problem is not None
    with pytest.raises(ProtectionError):
        ring.protector("a").unprotect(stolen)
    vault.fault = None
    ring.refresh()
    assert ended.replacement is not None
    assert ended.replacement.id == ring.current_key_id


# --- clocks --------------------------------------------------------------------------------


def _ran_ahead(world: World):
    """
    Return a ring in which a node left a key whose clock was 100 days ahead for a moment.
    """
    ring = world.ring()
    old = ring.current_key_id
    world.ring(clock=FixedClock(world.clock.now() + 100 * DAY))
    ring.refresh()
    (ahead,) = {key.id for key in ring.keys()} - {old}
    return ring, old, ahead


@pytest.mark.parametrize("named", [True, False])
def test_a_clock_that_ran_ahead_does_not_keep_others_from_a_compromise(
    world: World, named: bool
):
    """
    Attack: the theft of a key is noticed while a key of the future lies in the ring.
    """
    ring, old, _ = _ran_ahead(world)
    stolen = ring.protector("a").protect(b"forged")
    ended = ring.compromise(old if named else None, wait=lambda _: None)

    assert old in {cut.key_id for cut in ended.cuts}
    assert ended.replacement is not None
    assert ended.replacement.id == ring.current_key_id
    with pytest.raises(ProtectionError):
        ring.protector("a").unprotect(stolen)


def test_the_key_of_a_clock_that_ran_ahead_is_named_and_its_revocation_frees_the_ring(
    world: World,
):
    """
    Verbs that may wait are refused, and say which key to revoke; after that they work.
    """
    ring, _, ahead = _ran_ahead(world)
    for verb in (
        lambda: ring.rotate(immediate=True),
        lambda: ring.rotate(replace=True),
        ring.cancel,
        ring.activate,
    ):
        with pytest.raises(KeyRingError) as caught:
            verb()
        assert ahead in caught.value.hint
    assert ring.problem is not None
    assert ahead in ring.problem.hint

    ring.revoke(ahead, "made by a wrong clock")
    assert ring.problem is None
    assert ring.rotate().state.value == "next"
    assert ring.rotate(immediate=True).id == ring.current_key_id


@pytest.mark.parametrize("late", [False, True])
def test_a_clock_that_is_far_ahead_makes_no_key(world: World, late: bool):
    """
    Past the last expiration and a whole lifetime: nobody knows which clock is wrong.
    """
    world.ring()
    days = 181 if late else 179
    other = world.ring(clock=FixedClock(world.clock.now() + days * DAY))

    assert (1 if late else 2) == len(other.keys())
    assert late == (other.problem is not None)
    assert other.rotate(immediate=True).id == other.current_key_id


@pytest.mark.parametrize("replaces", [False, True])
def test_a_clock_set_back_does_not_cancel_the_key_that_protects(
    world: World, replaces: bool
):
    """
    Attack or accident: a host restored from a snapshot takes the current key to be waiting.
    """
    ring = world.ring()
    new = ring.rotate()
    world.clock.advance(3 * DAY + timedelta(hours=2))
    ring.refresh()
    session = ring.protector("a").protect(b"session")
    behind = world.ring(clock=FixedClock(world.clock.now() - 2 * DAY))
    verb = partial(behind.rotate, replace=True) if replaces else behind.cancel
    with pytest.raises(ClockBehindError) as caught:
        verb()
    assert new.id in caught.value.text
    with pytest.raises(ClockBehindError):
        behind.activate(emergency=True)

    ring.refresh()
    assert b"session" == ring.protector("a").unprotect(session).payload
    waiting = ring.rotate()
    assert waiting.id == ring.cancel()


def test_that_a_key_took_over_is_noted_once(world: World):
    """
    By the first writer that loads then, in one commit; not by readers.
    """
    ring, other = world.ring(), world.ring()
    ring.rotate()
    world.clock.advance(3 * DAY)
    commits = world.store.commits
    world.ring(read_only=True)
    assert commits == world.store.commits
    for _ in range(3):
        ring.refresh()
        other.refresh()

    assert commits + 1 == world.store.commits


def test_a_note_that_cannot_be_written_troubles_nobody(world: World):
    """
    A store that turned read-only serves as before.
    """

    class Full(TroubledStore):
        def commit(self, add, remove, expect):
            raise PermissionError("read-only file system")

    world.ring().rotate()
    world.clock.advance(3 * DAY)
    ring = world.ring(store=Full(world.store.real))

    assert ring.problem is None
    sealed = ring.protector("a").protect(b"x")
    assert b"x" == ring.protector("a").unprotect(sealed).payload


# --- what was deleted stays away -----------------------------------------------------------


def test_a_stolen_key_that_was_deleted_does_not_come_back(
    world: World, elsewhere: World
):
    """
    Attack: neither a repeated copy nor an import revives it; what is new in the source comes.
    """
    source = world.ring()
    stolen = source.current_key_id
    forged = source.protector("a").protect(b"forged")
    source.rotate(immediate=True)
    wrapper = PlaintextWrapper()

    def copy():
        return copy_ring(
            world.store.real,
            elsewhere.store.real,
            unwrap_by=[world.wrapper],
            wrapper=wrapper,
            clock=world.clock,
        )

    copy()
    target = elsewhere.ring(wrapper=wrapper)
    text = target.export_key(stolen, WORDS, cost=CHEAP)
    assert b"forged" == target.protector("a").unprotect(forged).payload
    world.clock.advance(5 * MINUTE)
    target.revoke(stolen, "stolen")
    target.delete(stolen)
    fresh = source.rotate(immediate=True).id

    assert (fresh,) == copy().keys
    target.refresh()
    assert stolen not in {key.id for key in target.keys()}
    with pytest.raises(KeyStateError):
        target.import_key(text, WORDS)
    with pytest.raises(ProtectionError):
        target.protector("a").unprotect(forged)
    assert target.current_key_id == fresh


# --- lost answers --------------------------------------------------------------------------


def test_a_lost_answer_does_not_make_a_verb_act_twice(world: World, elsewhere: World):
    """
    Pain: one `cancel`, whose answer is lost, takes the next waiting key too.
    """
    store = Forgetful(FolderStore(world.place))
    ring = world.ring(store=store)
    waiting = ring.rotate().id
    other = elsewhere.ring()
    later = other.rotate(activates=world.clock.now() + 20 * DAY).id
    ring.import_key(other.export_key(later, WORDS, cost=CHEAP), WORDS)
    store.lost = 1

    assert waiting == ring.cancel()
    assert later in {key.id for key in ring.keys()}
    assert 1 == world.heard.names().count("key.cancelled")


def test_a_lost_answer_does_not_hide_what_a_compromise_cut(world: World):
    """
    The answer to a theft says what it made unreadable, and what took over.
    """
    store = Forgetful(FolderStore(world.place))
    ring = world.ring(store=store)
    first = ring.current_key_id
    store.lost = 1
    ended = ring.compromise(wait=lambda _: None)

    assert [first] == [cut.key_id for cut in ended.cuts]
    assert ended.replacement is not None
    assert ended.replacement.id == ring.current_key_id
    assert 2 == len(ring.keys())
    assert "key.revoked" in world.heard.names()


def test_who_loses_to_another_writer_does_not_cancel_the_next_key(
    world: World, elsewhere: World
):
    """
    Two operators cancel the waiting key at once: it goes, and the one after it stays.
    """

    class Overtaken(TroubledStore):
        def commit(self, add, remove, expect):
            if remove and rivals:
                rivals.pop().cancel(waiting)
            return super().commit(add, remove, expect)

    rivals: list[ProtectionRing] = []
    ring = world.ring(store=Overtaken(FolderStore(world.place)))
    waiting = ring.rotate().id
    other = elsewhere.ring()
    later = other.rotate(activates=world.clock.now() + 20 * DAY).id
    ring.import_key(other.export_key(later, WORDS, cost=CHEAP), WORDS)
    rivals.append(world.ring())
    with pytest.raises(NotFoundError):
        ring.cancel()
    ring.refresh()
    assert later in {key.id for key in ring.keys()}


# --- dates ---------------------------------------------------------------------------------


def test_a_key_that_was_imported_counts_from_its_import(world: World, elsewhere: World):
    """
    It is old, but nodes of this ring have not seen it: only an emergency activates it now.
    """
    other = elsewhere.ring()
    carried = other.rotate(activates=world.clock.now() + 20 * DAY).id
    text = other.export_key(carried, WORDS, cost=CHEAP)
    world.clock.advance(5 * DAY)
    ring = world.ring()
    ring.import_key(text, WORDS)
    with pytest.raises(NotPropagatedError):
        ring.activate(carried)
    ended = ring.revoke(ring.current_key_id, "the imported key does not take over yet")
    assert ended.replacement is not None
    assert carried != ended.replacement.id

    world.clock.advance(3 * DAY)
    assert carried == ring.activate(carried).id == ring.current_key_id


def test_a_successor_later_than_the_expiration_is_refused(world: World):
    """
    Pain: a typing error in a year, and a key protects for ten years without an alarm.
    """
    ring = world.ring()
    due = ring.keys()[0].timeline.due
    assert due is not None
    with pytest.raises(KeyStateError):
        ring.rotate(activates=due + DAY)

    assert due == ring.rotate(activates=due).timeline.activates


def test_a_key_past_its_expiration_alarms_although_a_successor_waits(
    world: World, elsewhere: World
):
    """
    One that takes over in years, from another tool, is no reason to keep silent.
    """
    ring = world.ring()
    world.clock.advance(85 * DAY)
    other = elsewhere.ring()
    late = other.rotate(activates=world.clock.now() + 80 * DAY)
    ring.import_key(other.export_key(late.id, WORDS, cost=CHEAP), WORDS)
    assert ring.problem is None

    world.clock.advance(10 * DAY)
    ring.refresh()
    assert ring.problem is not None
    assert rfc3339(late.timeline.activates) in ring.problem.text
    assert "ring.troubled" in world.heard.alarms()
    ring.rotate(immediate=True)
    assert ring.problem is None


# --- planted keys --------------------------------------------------------------------------


def test_a_clear_key_that_turns_up_in_a_wrapped_ring_alarms_once(
    world: World, elsewhere: World
):
    """
    Attack: who can write the store plants a key that he knows, and makes payloads by it.
    """
    ring = world.ring(wrapper=Vault())
    elsewhere.ring(wrapper=PlaintextWrapper())
    planted = [
        one
        for one in elsewhere.store.real.load().elements
        if one.name.startswith("key-")
    ]
    _add(world, *planted)
    for _ in range(3):
        ring.refresh()

    told = [one for one in world.heard.events if one.name == "ring.clear_key"]
    assert [planted[0].name] == [f"key-{one.fields['key']}" for one in told]
    assert "ring.clear_key" in world.heard.alarms()


def test_clear_keys_of_a_clear_ring_are_no_alarm(world: World):
    """
    Whoever chose so was warned at opening.
    """
    ring = world.ring(wrapper=PlaintextWrapper())
    world.ring(wrapper=PlaintextWrapper()).rotate()
    ring.refresh()

    assert 2 == len(ring.keys())
    assert "ring.clear_key" not in world.heard.names()
