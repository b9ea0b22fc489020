"""
The live ring: created once, kept fresh, serving through trouble, never minting in its place.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from datetime import timedelta

import pytest

from kagimori.errors import (
    ConfigError,
    ConflictError,
    InsecureConfigError,
    KeyRingError,
    KeyStateError,
    KeyWrapError,
    NextKeyWaitsError,
    ProtectionError,
    RingMalformedError,
    RingMissingError,
    RingReadOnlyError,
    RingUnreadableError,
    StoreError,
    UnknownKeyIdError,
)
from kagimori.keys.protection import elements, ticks, xml
from kagimori.keys.protection.elements import Revocation
from kagimori.keys.store import Element
from kagimori.wrappers.passphrase import PassphraseWrapper
from kagimori.wrappers.plaintext import PlaintextWrapper
from tests.keys.protection.world import TroubledStore, TroubledWrapper, World

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
DOWN = StoreError("down", transient=True)
VAULT_DOWN = KeyWrapError("the vault does not answer", transient=True)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def revoke(world: World, key_id: str | None, date=None) -> None:
    """
    Revoke as another node would: by an element in the store.
    """
    when = ticks.from_datetime(date or world.clock.now())
    root = elements.revocation_element(Revocation(key_id, when))
    element = Element(elements.friendly_name(root), xml.write(root))
    store = world.store.real
    store.commit([element], (), store.load().version)


def wait_until(what) -> None:
    """
    Wait for a thread of the ring's own; its work is real, not a clock's.
    """
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- creation ------------------------------------------------------------------------------


def test_an_empty_place_gets_one_key(world: World):
    """
    It activates a little in the past, expires after 90 days, uses AES-256-GCM, and is found
    again; ring state and event say so.
    """
    ring = world.ring()
    (key,) = ring.keys()
    now = world.clock.now()

    assert (now, now - timedelta(minutes=1)) == (
        key.timeline.created,
        key.timeline.activates,
    )
    assert now + 90 * DAY == key.timeline.due
    assert ("AES_256_GCM", "current") == (key.algorithm, key.state.value)
    assert ("TroubledXmlDecryptor",) == key.wrapped_by
    assert ring.is_ready
    assert ring.problem is None
    assert 1 == ring.generation
    assert "key.published" in world.heard.names()
    assert [key.id] == [key.id for key in tuple(world.ring().keys())]
    assert 1 == world.wrapper.wraps


def test_K4_the_loser_of_the_first_commit_adopts_the_winner(world: World):
    """
    K4: who finds at the commit that another was faster takes the other's key.
    """
    winner = World(world.place.parent, world.clock)

    class Slow(TroubledStore):
        def commit(self, add, remove, expect):
            if not winner.heard.names():
                winner.ring()
            return super().commit(add, remove, expect)

    ring = world.ring(store=Slow(world.store.real))

    (key,) = ring.keys()
    assert 1 == winner.wrapper.wraps == world.wrapper.wraps
    assert winner.ring().current_key_id == key.id
    assert "key.published" not in world.heard.names()


def test_a_store_that_conflicts_for_ever_is_given_up(world: World):
    """
    The driver decides anew a bounded number of times, then says that it may be tried later.
    """

    class Busy(TroubledStore):
        def commit(self, add, remove, expect):
            raise ConflictError("busy")

    with pytest.raises(StoreError) as caught:
        world.ring(store=Busy(world.store.real))
    assert caught.value.transient


def test_what_cannot_be_read_back_is_not_stored(world: World):
    """
    A wrapper that gives back something else stops the creation; nothing is written.
    """
    world.wrapper.spoils = True
    with pytest.raises(KeyWrapError):
        world.ring()

    assert not world.place.exists()
    world.wrapper.spoils = False
    assert world.ring().is_ready


@pytest.mark.parametrize("options", [{"read_only": True}, {"create": False}])
def test_K5_a_missing_ring_is_not_made_unasked(world: World, options):
    """
    K5: read-only, or where a ring must be, its absence is said with the place, and nothing made.
    """
    with pytest.raises(RingMissingError) as caught:
        world.ring(**options)

    assert str(world.place) in caught.value.text
    assert not world.place.exists()


def test_a_new_ring_needs_a_wrapper(world: World):
    """
    Without one no key is made; an existing clear ring opens, and says that it is clear.
    """
    with pytest.raises(InsecureConfigError):
        world.ring(wrapper=None)
    assert not world.place.exists()

    world.ring(wrapper=PlaintextWrapper())
    ring = world.ring(wrapper=None)
    assert ring.is_clear
    assert "none" == ring.wrapper_name
    assert (
        b"x" == ring.protector("a").unprotect(ring.protector("a").protect(b"x")).payload
    )
    with pytest.raises(InsecureConfigError):
        ring.rotate()


def test_K11_clear_keys_are_not_written_where_others_write(world: World):
    """
    K11: a folder that group or world may write takes wrapped keys, and no clear ones.
    """
    world.place.mkdir(mode=0o700)
    world.place.chmod(0o770)
    with pytest.raises(InsecureConfigError):
        world.ring(store=world.store.real, wrapper=PlaintextWrapper())
    assert [] == list(world.place.iterdir())

    world.place.chmod(0o700)
    assert world.ring(store=world.store.real, wrapper=PlaintextWrapper()).is_ready
    world.place.chmod(0o770)
    ring = world.ring(store=world.store.real, wrapper=PlaintextWrapper())
    with pytest.raises(InsecureConfigError):
        ring.rotate(immediate=True)


# --- unreadable is not absent --------------------------------------------------------------


def test_K5_a_wrong_passphrase_is_an_error_and_no_new_key(world: World):
    """
    K5: the ring is there: which one cannot be read is said, and nothing is minted.
    """
    world.ring(wrapper=PassphraseWrapper(b"right", source="env:RING"))
    before = sorted(world.place.iterdir())
    with pytest.raises(KeyWrapError) as caught:
        world.ring(wrapper=PassphraseWrapper(b"wrong", source="env:RING"))

    assert str(world.place) in caught.value.text
    assert "passphrase" in str(caught.value)
    assert not caught.value.transient
    assert before == sorted(world.place.iterdir())
    assert world.ring(wrapper=PassphraseWrapper(b"right")).is_ready


@pytest.mark.parametrize("text", ["", "<key", "\x00\x00", "<!DOCTYPE key><key/>"])
def test_a_corrupt_file_is_an_error_and_no_new_key(world: World, text: str):
    """
    A key file that is not well-formed makes the ring unreadable, with a hint what to do.
    """
    ring = world.ring()
    (path,) = world.place.glob("key-*.xml")
    good = path.read_text("utf-8")
    path.write_text(text)
    with pytest.raises(RingMalformedError) as caught:
        world.ring()

    assert "backup" in caught.value.hint
    assert [path] == list(world.place.glob("key-*.xml"))
    path.write_text(good, "utf-8")
    assert ring.current_key_id == world.ring().current_key_id


def test_a_skipped_key_is_not_replaced(world: World):
    """
    A ring whose only key has an unreadable date is unreadable, not empty.
    """
    world.ring()
    (path,) = world.place.glob("key-*.xml")
    path.write_text(path.read_text("utf-8").replace("creationDate", "created"))
    with pytest.raises(RingUnreadableError) as caught:
        world.ring()

    assert path.stem in caught.value.text
    assert "ring.key_skipped" in world.heard.names()
    assert 1 == world.wrapper.wraps


@pytest.mark.parametrize(
    "error", [VAULT_DOWN, ValueError("surprise"), KeyWrapError("no")]
)
def test_a_vault_that_fails_at_the_start_makes_no_key(world: World, error):
    """
    K13: a passing failure is said to be one; a later start finds the same key.
    """
    key_id = world.ring().current_key_id
    world.wrapper.fault = error
    with pytest.raises(KeyWrapError) as caught:
        world.ring()
    assert caught.value.transient == (
        error is VAULT_DOWN or isinstance(error, ValueError)
    )
    assert "surprise" not in str(caught.value) + caught.value.detail

    world.wrapper.fault = None
    assert key_id == world.ring().current_key_id
    assert 1 == len(list(world.place.glob("key-*.xml")))


@pytest.mark.parametrize("error", [DOWN, OSError("surprise"), RuntimeError("surprise")])
def test_a_store_that_fails_at_the_start_is_an_error(world: World, error):
    """
    An adapter's surprise is a declared error too.
    """
    world.store.fault = error
    with pytest.raises(StoreError) as caught:
        world.ring()

    assert caught.value.transient


@pytest.mark.parametrize("error", [DOWN, OSError("surprise")])
def test_the_last_good_ring_serves_while_the_store_is_down(world: World, error):
    """
    Protecting and unprotecting go on, one alarm is raised, and recovery is told of.
    """
    ring = world.ring()
    protector = ring.protector("a")
    sealed = protector.protect(b"x")
    world.store.fault = error
    for _ in range(3):
        world.clock.advance(timedelta(minutes=10))
        with pytest.raises(StoreError):
            ring.refresh()
        assert b"x" == protector.unprotect(sealed).payload
        assert b"y" == protector.unprotect(protector.protect(b"y")).payload
    assert ["ring.unreadable"] == world.heard.alarms()
    assert isinstance(ring.problem, StoreError)
    assert ring.is_ready
    assert ring.is_stale()

    world.store.fault = None
    ring.refresh()
    assert ring.problem is None
    assert not ring.is_stale()
    assert "ring.recovered" == world.heard.names()[-1]


def test_a_ring_that_vanished_is_not_made_anew(world: World):
    """
    An emptied folder (an unmounted share) leaves the keys in memory serving, with an alarm.
    """
    ring = world.ring()
    sealed = ring.protector("a").protect(b"x")
    kept = {path: path.read_bytes() for path in world.place.iterdir()}
    for path in kept:
        path.unlink()
    world.clock.advance(100 * DAY)
    with pytest.raises(RingMissingError):
        ring.refresh()
    assert b"x" == ring.protector("a").unprotect(sealed).payload
    assert [] == list(world.place.iterdir())

    for path, data in kept.items():
        path.write_bytes(data)
    ring.refresh()
    assert ring.problem is None


def test_no_successor_is_made_while_a_key_is_unreadable(world: World):
    """
    A due successor waits, with an alarm, until every key can be read; the current one serves.
    """
    old = World(world.place.parent, world.clock)
    first = old.ring().current_key_id
    world.clock.advance(88 * DAY)
    newer = TroubledWrapper(PassphraseWrapper(b"newer"))
    ring = world.ring(also_unwrap=[newer])
    assert 2 == len(ring.keys())

    world.clock.advance(88 * DAY)
    late = world.ring(wrapper=newer, also_unwrap=[world.wrapper])
    assert 3 == len(late.keys())
    world.clock.advance(91 * DAY)
    world.wrapper.fault = VAULT_DOWN
    fresh = world.ring(wrapper=newer, also_unwrap=[world.wrapper])
    assert 3 == len(fresh.keys())
    assert fresh.is_ready
    assert isinstance(fresh.problem, KeyWrapError)
    assert "ring.troubled" in world.heard.alarms()
    assert first != fresh.current_key_id

    world.wrapper.fault = None
    fresh.refresh()
    assert 4 == len(fresh.keys())
    assert fresh.problem is None


def test_an_older_key_protects_where_the_newest_cannot_be_read(world: World):
    """
    With an alarm; the newest takes over once it can be read.
    """
    ring = world.ring()
    other = TroubledWrapper(PassphraseWrapper(b"x"))
    other.can_unwrap = lambda wrapped: wrapped.decryptor_type == "Other.Xml, X"
    wrap = other.wrap
    other.wrap = lambda p, c: type(wrap(p, c))("Other.Xml, X", wrap(p, c).child)
    elsewhere = world.ring(wrapper=other, also_unwrap=[world.wrapper])
    newest = elsewhere.rotate(immediate=True).id
    assert newest == elsewhere.current_key_id

    ring.refresh()
    assert newest != ring.current_key_id
    assert "Other" in world.ring().problem.text or "Xml" in world.ring().problem.text
    both = world.ring(also_unwrap=[other])
    assert newest == both.current_key_id
    with pytest.raises(ProtectionError) as caught:
        ring.protector("a").unprotect(both.protector("a").protect(b"x"))
    assert "cannot read" in caught.value.hint


# --- turning -------------------------------------------------------------------------------


def test_a_successor_is_published_ahead_and_takes_over_at_the_instant(world: World):
    """
    Four days before the expiration a load adds it; at the expiration, without any I/O, it
    protects; what the old key made opens and asks to be renewed.
    """
    ring = world.ring()
    protector = ring.protector("a")
    first, sealed = ring.current_key_id, protector.protect(b"x")
    world.clock.advance(86 * DAY - SECOND)
    ring.refresh()
    assert 1 == len(ring.keys())
    world.clock.advance(SECOND)
    ring.refresh()
    old, new = ring.keys()
    assert (first, "current", "next") == (old.id, old.state.value, new.state.value)
    assert old.timeline.due == new.timeline.activates == old.timeline.retires
    assert first == ring.current_key_id
    assert not protector.unprotect(sealed).needs_renewal

    world.clock.advance(4 * DAY - timedelta(microseconds=1))
    ring.refresh()
    assert first == ring.current_key_id
    world.store.fault = DOWN
    world.clock.advance(timedelta(microseconds=1))
    assert new.id == ring.current_key_id
    opened = protector.unprotect(sealed)
    assert (b"x", True, first) == (opened.payload, opened.needs_renewal, opened.key_id)
    assert not protector.unprotect(protector.protect(b"y")).needs_renewal
    assert "key.activated" in world.heard.names()


def test_instances_switch_together(world: World):
    """
    Two instances that saw the successor once agree before and after the instant, offline.
    """
    one, two = world.ring(), world.ring()
    world.clock.advance(87 * DAY)
    one.refresh()
    two.refresh()
    world.store.fault = DOWN
    for _ in range(10):
        world.clock.advance(timedelta(hours=12))
        assert one.current_key_id == two.current_key_id

    assert 2 == len({key.id for key in tuple(one.keys())})
    assert one.keys()[1].id == one.current_key_id


def test_a_read_only_ring_uses_what_others_made(world: World):
    """
    It protects with the current key, makes no successor, and says when one is overdue.
    """
    writer = world.ring()
    reader = world.ring(read_only=True)
    assert (
        b"x"
        == writer.protector("a").unprotect(reader.protector("a").protect(b"x")).payload
    )
    world.clock.advance(91 * DAY)
    reader.refresh()
    assert 1 == len(reader.keys())
    assert "successor" in reader.problem.text
    with pytest.raises(RingReadOnlyError):
        reader.rotate()

    writer.refresh()
    reader.refresh()
    assert writer.keys()[1].id == reader.current_key_id
    assert reader.problem is None


def test_rotate_adds_a_successor_for_later(world: World):
    """
    In three days, when .NET nodes have seen it, or at the date given; one at a time.
    """
    ring = world.ring()
    first = ring.current_key_id
    waiting = ring.rotate(reason="yearly exercise")
    assert world.clock.now() + 3 * DAY == waiting.timeline.activates
    assert "next" == waiting.state.value
    with pytest.raises(NextKeyWaitsError) as caught:
        ring.rotate()
    assert caught.value.params["activates"]
    assert first == ring.current_key_id

    world.clock.advance(3 * DAY)
    assert waiting.id == ring.current_key_id
    at = world.clock.now() + 10 * DAY
    assert at == ring.rotate(activates=at).timeline.activates
    state = world.store.real.load().elements[-1]
    reasons = elements.read_state(xml.parse(state.xml)).reasons
    assert {waiting.id: "yearly exercise"} == reasons


def test_rotate_at_once(world: World):
    """
    An immediate key protects when the call returns, here and, at first sight, elsewhere.
    """
    one, two = world.ring(), world.ring()
    sealed = one.protector("a").protect(b"old")
    waiting = one.rotate()
    new = one.rotate(immediate=True)
    assert new.id == one.current_key_id
    assert "current" == new.state.value

    fresh = one.protector("a").protect(b"new")
    assert b"new" == two.protector("a").unprotect(fresh).payload
    assert new.id == two.current_key_id
    assert two.protector("a").unprotect(sealed).needs_renewal
    world.clock.advance(3 * DAY)
    assert waiting.id == one.current_key_id == two.current_key_id


def test_two_who_rotate_at_once_make_two_keys_and_agree(world: World):
    """
    K4: the second decides anew on what the first wrote.
    """
    one, two = world.ring(), world.ring()
    one.rotate(immediate=True)
    one.rotate()
    with pytest.raises(NextKeyWaitsError):
        two.rotate()
    two.rotate(immediate=True)
    one.refresh()
    two.refresh()

    assert one.current_key_id == two.current_key_id
    assert 4 == len(one.keys()) == len(two.keys())


# --- revocation ----------------------------------------------------------------------------


def test_a_revoked_key_opens_nothing_any_more(world: World):
    """
    Revoked by another node: refused after the next look; a new key is made where none is left.
    """
    ring = world.ring()
    protector = ring.protector("a")
    sealed, first = protector.protect(b"x"), ring.current_key_id
    revoke(world, first)
    assert b"x" == protector.unprotect(sealed).payload
    ring.refresh()

    with pytest.raises(ProtectionError) as caught:
        protector.unprotect(sealed)
    assert "revoked" in caught.value.detail
    assert "revoked" not in str(caught.value)
    states = {key.id: key.state.value for key in tuple(ring.keys())}
    assert {first: "revoked", ring.current_key_id: "current"} == states
    assert first != protector.unprotect(protector.protect(b"y")).key_id
    dangerous = protector.unprotect_dangerously
    raw = world.ring().protector("a").protect_bytes(b"z")
    assert not dangerous(raw).was_revoked


def test_a_read_only_ring_of_revoked_keys_is_unreadable(world: World):
    """
    With nothing left to protect with, a start says so.
    """
    ring = world.ring()
    revoke(world, ring.current_key_id)

    with pytest.raises(RingUnreadableError, match="revoked"):
        world.ring(read_only=True)


def test_revocation_by_date_spares_later_keys(world: World):
    """
    All keys made before the date are refused, a key made after it opens.
    """
    ring = world.ring()
    old = ring.protector("a").protect(b"x")
    world.clock.advance(DAY)
    ring.rotate(immediate=True)
    new = ring.protector("a").protect(b"y")
    revoke(world, None)
    ring.refresh()

    with pytest.raises(ProtectionError):
        ring.protector("a").unprotect(old)
    # Created in the very tick of the date: strictly before is meant.
    assert b"y" == ring.protector("a").unprotect(new).payload


def test_a_key_that_would_be_born_revoked_is_not_made(world: World):
    """
    While a revocation by date lies in the future, a new key would be useless.
    """
    ring = world.ring()
    revoke(world, None, world.clock.now() + DAY)
    with pytest.raises(KeyStateError):
        ring.rotate(immediate=True)

    world.clock.advance(DAY)
    assert ring.rotate(immediate=True).id == ring.current_key_id


# --- clocks --------------------------------------------------------------------------------


def test_K7_a_clock_set_back_makes_no_key(world: World):
    """
    K7: years before the ring was made: no new key, an alarm, and what is there serves.
    """
    ring = world.ring()
    key_id, sealed = ring.current_key_id, ring.protector("a").protect(b"x")
    world.clock.advance(-1000 * DAY)
    assert b"x" == ring.protector("a").unprotect(sealed).payload
    ring.refresh()
    fresh = world.ring()

    for one in (ring, fresh):
        assert [key_id] == [key.id for key in tuple(one.keys())]
        assert key_id == one.current_key_id
        assert "clock" in one.problem.text
        with pytest.raises(KeyRingError, match="clock"):
            one.rotate(immediate=True)
    world.clock.advance(1000 * DAY)
    ring.refresh()
    assert ring.problem is None


def test_K7_small_differences_between_clocks_do_no_harm(world: World):
    """
    K7: a node whose clock is a minute behind the creator's protects with the same key.
    """
    key_id = world.ring().current_key_id
    world.clock.advance(-timedelta(minutes=1))
    behind = world.ring()

    assert key_id == behind.current_key_id
    assert behind.problem is None


# --- the two clocks, threads ---------------------------------------------------------------


def test_a_probe_sees_a_change_within_five_seconds(world: World):
    """
    A cheap probe every 5 s, and a load only where it saw something.
    """
    world.ring()
    ring = world.ring()
    loads, probes = world.store.loads, world.store.probes
    world.clock.advance(4 * SECOND)
    ring.tick()
    assert (loads, probes) == (world.store.loads, world.store.probes)
    world.clock.advance(SECOND)
    ring.tick()
    assert (loads, probes + 1) == (world.store.loads, world.store.probes)

    other = World(world.place.parent, world.clock).ring(wrapper=world.wrapper)
    new = other.rotate(immediate=True).id
    world.clock.advance(5 * SECOND)
    ring.tick()
    assert loads + 1 == world.store.loads
    assert new == ring.current_key_id


def test_uses_look_by_themselves(world: World):
    """
    Without anybody's beat, a use that comes after the interval looks, in a thread aside.
    """
    ring = world.ring()
    new = World(world.place.parent, world.clock).ring(wrapper=world.wrapper)
    new_id = new.rotate(immediate=True).id
    world.clock.advance(5 * SECOND)
    protector = ring.protector("a")

    protector.protect(b"x")
    wait_until(lambda: ring.current_key_id == new_id)
    assert 2 == len(ring.keys())


def test_unknown_ids_reload_once_a_minute_and_not_more(world: World):
    """
    A flood of unknown ids causes one load a minute; a probe's beat finds keys all the same.
    """
    ring = world.ring()
    stranger = (
        World(world.place.parent / "elsewhere").ring().protector("a").protect(b"x")
    )
    world.clock.advance(SECOND)
    loads = world.store.loads
    for _ in range(100):
        with pytest.raises(UnknownKeyIdError):
            ring.protector("a").unprotect(stranger)
    assert loads + 1 == world.store.loads

    other = World(world.place.parent, world.clock).ring(wrapper=world.wrapper)
    other.rotate(immediate=True)
    sealed = other.protector("a").protect(b"new")
    with pytest.raises(UnknownKeyIdError):
        ring.protector("a").unprotect(sealed)
    world.clock.advance(5 * SECOND)
    ring.tick()
    assert b"new" == ring.protector("a").unprotect(sealed).payload
    world.clock.advance(60 * SECOND)
    loads = world.store.loads
    with pytest.raises(UnknownKeyIdError):
        ring.protector("a").unprotect(stranger)
    wait_until(lambda: world.store.loads == loads + 1)


def test_nobody_waits_for_a_slow_store_where_a_ring_is(world: World):
    """
    While a look hangs, threads protect and unprotect under the old ring; only one looks.
    """
    ring = world.ring()
    protector = ring.protector("a")
    sealed = protector.protect(b"x")
    gate = world.store.gate = threading.Event()
    probes = world.store.probes
    done = []

    def work():
        for _ in range(50):
            world.clock.advance(SECOND)
            done.append(protector.unprotect(sealed).payload)
            protector.protect(b"y")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert 400 == len(done)
    assert 1 == world.store.probes - probes
    gate.set()
    wait_until(lambda: ring.problem is None and not ring._live._flight.is_under_way)


def test_many_threads_share_one_reload(world: World):
    """
    Twenty threads that meet a new key at once cause one load, and all of them open.
    """
    ring = world.ring()
    other = World(world.place.parent, world.clock).ring(wrapper=world.wrapper)
    other.rotate(immediate=True)
    sealed = other.protector("a").protect(b"new")
    loads = world.store.loads
    start, opened = threading.Barrier(20), []

    def work():
        start.wait()
        opened.append(ring.protector("a").unprotect(sealed).payload)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [b"new"] * 20 == opened
    assert loads + 1 == world.store.loads


def test_a_secret_is_unwrapped_once_and_when_it_is_needed(world: World):
    """
    The current key, the waiting one and the last one are opened at the start; older ones cost
    the vault nothing until a payload names them, and a reload costs it nothing.
    """
    ring = world.ring()
    old = ring.protector("a").protect(b"x")
    for _ in range(3):
        world.clock.advance(SECOND)
        ring.rotate(immediate=True)
    ring.rotate()
    world.wrapper.unwraps = 0
    fresh = world.ring()
    assert 5 == len(fresh.keys())
    assert 3 == world.wrapper.unwraps
    for _ in range(3):
        assert b"x" == fresh.protector("a").unprotect(old).payload
        fresh.refresh()
    assert 4 == world.wrapper.unwraps


def test_an_unreadable_key_is_asked_for_once_in_a_while(world: World):
    """
    K13: payloads of a key whose vault is down fail at once, without a call each.
    """
    ring = world.ring()
    old = ring.protector("a").protect(b"x")
    new = TroubledWrapper(PassphraseWrapper(b"x"))
    new.can_unwrap = lambda wrapped: wrapped.decryptor_type == "New.Xml, X"
    wrap = new.wrap
    new.wrap = lambda p, c: type(wrap(p, c))("New.Xml, X", wrap(p, c).child)
    turned = world.ring(wrapper=new, also_unwrap=[world.wrapper])
    for _ in range(2):
        world.clock.advance(SECOND)
        turned.rotate(immediate=True)
    fresh = world.ring(wrapper=new, also_unwrap=[world.wrapper])
    world.wrapper.fault = VAULT_DOWN
    world.wrapper.unwraps = 0
    for _ in range(50):
        with pytest.raises(ProtectionError):
            fresh.protector("a").unprotect(old)
    assert 1 == world.wrapper.unwraps

    world.wrapper.fault = None
    fresh.refresh()
    assert b"x" == fresh.protector("a").unprotect(old).payload


# --- the end -------------------------------------------------------------------------------


def test_a_closed_ring_is_refused(world: World):
    """
    After `close` neither old protectors nor the ring itself work, and it is not ready.
    """
    ring = world.ring()
    protector = ring.protector("a")
    sealed = protector.protect(b"x")
    ring.close()

    assert not ring.is_ready
    for use in (
        lambda: protector.protect(b"x"),
        lambda: protector.unprotect(sealed),
        ring.refresh,
        ring.keys,
        ring.rotate,
    ):
        with pytest.raises(KeyRingError, match="closed"):
            use()


def test_a_ring_of_no_purposes_is_a_mistake(world: World):
    """
    A protector without any purpose would open what every other such one made.
    """
    with pytest.raises(ConfigError):
        world.ring().protector()


def test_a_forked_worker_has_its_own_state(world: World):
    """
    A fork while a look is under way leaves a child that works, with nonces of its own.
    """
    ring = world.ring()
    protector = ring.protector("a")
    assert ring._live._flight.take()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads that other tests may have left.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            world.clock.advance(10 * SECOND)
            ring.refresh()
            os.write(writer, protector.protect_bytes(b"child"))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        sealed = pipe.read()
    os.waitpid(child, 0)
    ring._live._flight.land()

    assert b"child" == protector.unprotect_bytes(sealed).payload
    assert sealed[20:48] != protector.protect_bytes(b"child")[20:48]


def test_a_ring_closed_during_a_look_stays_closed(world: World):
    """
    What a look brings after `close` does not bring the keys back.
    """
    ring = world.ring()
    world.clock.advance(timedelta(minutes=10))
    gate = world.store.gate = threading.Event()
    ring.protector("a").protect(b"x")
    wait_until(lambda: world.store.probes + world.store.loads > 2)
    ring.close()
    gate.set()
    wait_until(lambda: not ring._live._flight.is_under_way)

    assert not ring.is_ready
    with pytest.raises(KeyRingError, match="closed"):
        ring.protector("a").protect(b"x")


def test_where_no_thread_can_be_had_the_ring_serves(world: World, monkeypatch):
    """
    At the end of an interpreter, or at a limit, uses go on; a later one looks.
    """
    ring = world.ring()
    world.clock.advance(5 * SECOND)

    def refused(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        assert ring.protector("a").protect(b"x")
    probes = world.store.probes
    world.clock.advance(5 * SECOND)
    ring.protector("a").protect(b"x")
    wait_until(lambda: world.store.probes > probes)
    wait_until(lambda: not ring._live._flight.is_under_way)


def test_a_waiting_key_that_cannot_be_read_is_an_alarm_before_its_time(world: World):
    """
    It is unwrapped at the load, so that its failure shows while there is time.
    """
    ring = world.ring()
    first = ring.current_key_id
    foreign = TroubledWrapper(PassphraseWrapper(b"x"))
    foreign.can_unwrap = lambda wrapped: wrapped.decryptor_type == "New.Xml, X"
    wrap = foreign.wrap
    foreign.wrap = lambda p, c: type(wrap(p, c))("New.Xml, X", wrap(p, c).child)
    world.ring(wrapper=foreign, also_unwrap=[world.wrapper]).rotate()
    ring.refresh()

    assert "New" in ring.problem.text or "Xml" in ring.problem.text
    assert "ring.troubled" in world.heard.alarms()
    assert first == ring.current_key_id
    world.clock.advance(3 * DAY)
    assert first == ring.current_key_id


def test_a_rotation_that_others_always_beat_is_given_up(world: World):
    """
    Bounded here too, and nothing was written.
    """
    ring = world.ring()

    def busy(_add, _remove, _expect):
        raise ConflictError("busy")

    world.store.commit = busy
    with pytest.raises(StoreError) as caught:
        ring.rotate()
    assert caught.value.transient
    assert 1 == len(ring.keys())


@pytest.mark.parametrize("error", [OSError("surprise"), DOWN])
def test_a_commit_that_fails_is_an_error_and_the_ring_serves(world: World, error):
    """
    A rotation that the store does not take changes nothing here.
    """
    ring = world.ring()

    def fails(_add, _remove, _expect):
        raise error

    world.store.commit = fails
    with pytest.raises(StoreError):
        ring.rotate(immediate=True)
    assert 1 == len(ring.keys())
    assert ring.is_ready


def test_a_wrapper_that_surprises_is_an_error(world: World):
    """
    Of a foreign error only its class is kept: its message may quote what was wrapped.
    """
    ring = world.ring()
    world.wrapper.fault = ValueError("secret bytes")
    with pytest.raises(KeyWrapError) as caught:
        ring.rotate()

    assert "secret bytes" not in str(caught.value) + caught.value.detail
    assert "ValueError" == caught.value.detail
