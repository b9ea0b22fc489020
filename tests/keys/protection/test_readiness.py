"""
Opening a ring's keys: which first, how many at once, and how often after a failure.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from kagimori.errors import KeyWrapError, StoreError, UnknownKeyIdError
from kagimori.keys.protection import elements, frame, key, minting, ticks, xml
from kagimori.keys.protection.algorithms import ALGORITHMS, DEFAULT
from kagimori.keys.protection.elements import Revocation
from kagimori.keys.protection.parallel import MOST_AT_ONCE, in_parallel
from kagimori.keys.protection.plan import Birth
from kagimori.keys.protection.readiness import MOST_TRIED
from kagimori.keys.store import Element, KeyStore
from kagimori.ring_stores.document import DocumentStore
from tests.keys.protection.vault import Vault, down
from tests.keys.protection.world import World

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def grown(world: World, vault: Vault, keys: int, store: KeyStore | None = None) -> None:
    """
    Fill a store with keys that followed each other day by day, the last one current.
    """
    now = world.clock.now()
    made = []
    for age in range(keys):
        at = now - age * DAY
        birth = Birth(at, at + 90 * DAY)
        made += minting.mint(vault, ALGORITHMS[DEFAULT], at, birth).elements
    (store or world.store.real).commit(made, (), None)


def stranger() -> bytes:
    return frame.MAGIC + ticks.SECOND.to_bytes(16, "little") + bytes(60)


# --- calls at once -------------------------------------------------------------------------


def test_calls_run_at_once_and_answer_in_order():
    """
    As many as the bound at a time, all of them in the end.
    """
    meeting = threading.Barrier(MOST_AT_ONCE)

    def call(number: int):
        def work() -> int:
            meeting.wait(10)
            return number

        return work

    calls = [call(number) for number in range(3 * MOST_AT_ONCE)]
    assert list(range(3 * MOST_AT_ONCE)) == in_parallel(calls)
    assert [] == in_parallel([])


def test_the_first_failure_is_raised_and_ends_the_calls():
    """
    No further call is begun after one has failed.
    """
    made = []

    def fails() -> None:
        raise ValueError("first")

    def works() -> None:
        made.append(True)

    with pytest.raises(ValueError, match="first"):
        in_parallel([fails, *[works] * 1000])
    assert len(made) < 1000
    in_parallel([works])
    assert made


def test_where_no_thread_can_be_had_one_makes_all_calls(monkeypatch):
    """
    At a limit of the system the calls are made one after the other.
    """

    def refused(_thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert [1, 2] == in_parallel([lambda: 1, lambda: 2])


# --- needed first --------------------------------------------------------------------------


def test_a_ring_of_a_hundred_keys_asks_the_vault_for_what_it_needs(world: World):
    """
    Pain 8: current, next and last, one call each and at the same time; the others when a payload
    names them, once.
    """
    vault = Vault()
    grown(world, vault, 100)
    waiting = world.ring(wrapper=vault).rotate().id
    vault.unwrapped, vault.most_at_once = [], 0
    vault.gate = threading.Barrier(3)
    ring = world.ring(wrapper=vault)
    vault.gate = None
    keys = [one.id for one in tuple(ring.keys())]

    assert 101 == len(keys)
    assert sorted(keys[-3:]) == sorted(vault.unwrapped)
    assert waiting == keys[-1]
    assert 3 == vault.most_at_once
    old = ring._live.contents.keys[5]
    sealed = old.sealer(frame.authenticated_data(old.raw_id, [b"shop", b"a"])).seal(b"")
    for _ in range(3):
        assert ring.protector("a").unprotect_bytes(sealed).needs_renewal
    assert 4 == vault.unwraps


def test_making_a_key_reads_all_others_once(world: World):
    """
    Unreadable is not absent: before a key is made every other is opened, with one call each.
    """
    vault = Vault()
    grown(world, vault, 40)
    vault.unwrapped = []
    ring = world.ring(wrapper=vault)
    assert 2 == vault.unwraps
    world.clock.advance(SECOND)
    new = ring.rotate(immediate=True).id

    keys = [one.id for one in tuple(ring.keys())]
    assert sorted(keys[:-1]) == sorted(set(vault.unwrapped) - {new})
    assert {1} == {vault.unwrapped.count(one) for one in keys[:-1]}
    assert new == keys[-1]


def test_a_vault_that_is_down_is_not_asked_for_every_key(world: World):
    """
    Pain 8: a start with a silent vault costs a few calls, not one timeout for each of a hundred
    keys; with keys that are refused one by one, a few more.
    """
    vault = Vault()
    grown(world, vault, 100)
    vault.unwrapped, vault.fault = [], down()
    with pytest.raises(KeyWrapError) as caught:
        world.ring(wrapper=vault)
    assert caught.value.transient
    assert 2 == vault.unwraps

    vault.unwrapped, vault.fault = [], KeyWrapError("forbidden")
    with pytest.raises(KeyWrapError):
        world.ring(wrapper=vault)
    assert vault.unwraps <= 2 + MOST_TRIED
    vault.fault = None
    assert world.ring(wrapper=vault).is_ready


# --- after a failure -----------------------------------------------------------------------


class Watch:
    """
    A monotonic clock that a test sets.
    """

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


def test_a_throttled_vault_is_left_alone_for_as_long_as_it_asks(
    world: World, monkeypatch
):
    """
    Pain 8: a 429 with Retry-After: no further call before, whatever reloads there are.
    """
    watch = Watch()
    monkeypatch.setattr(key, "time", watch)
    vault = Vault()
    grown(world, vault, 3)
    ring = world.ring(wrapper=vault)
    old = ring._live.contents.keys[0]
    vault.fault, vault.unwrapped = down(retry_after=40), []
    for _ in range(5):
        ring.refresh()
        with pytest.raises(KeyWrapError):
            old.material.open()
    watch.at += 39.9
    with pytest.raises(KeyWrapError):
        old.material.open()
    assert 1 == vault.unwraps

    vault.fault = None
    watch.at += 10
    assert old.material.open()
    assert 2 == vault.unwraps


def test_pauses_grow_and_differ_between_nodes(world: World, monkeypatch):
    """
    Five seconds, ten, twenty, up to a minute and a fifth, by chance.
    """
    watch = Watch()
    monkeypatch.setattr(key, "time", watch)
    vault = Vault()
    grown(world, vault, 3)
    pauses = []
    for _ in range(4):
        material = world.ring(wrapper=vault)._live.contents.keys[0].material
        vault.fault = down()
        for _ in range(6):
            with pytest.raises(KeyWrapError):
                material.open()
            pauses.append(material._retry_at - watch.at)
            watch.at = material._retry_at
        vault.fault = None

    for at, nominal in enumerate((5, 10, 20, 40, 60, 60)):
        assert all(nominal <= pause <= 1.2 * nominal for pause in pauses[at::6])
    assert 4 == len({round(pause, 6) for pause in pauses[::6]})


def test_a_store_that_asks_for_a_pause_gets_it(world: World):
    """
    Retry-After of the store holds for probes and loads; other failures start at a second.
    """
    ring = world.ring()
    world.clock.advance(5 * SECOND)
    world.store.fault = StoreError("429", transient=True, retry_after=30)
    ring.tick()
    asked = world.store.probes + world.store.loads
    world.clock.advance(29 * SECOND)
    ring.tick()
    assert asked == world.store.probes + world.store.loads

    world.store.fault = None
    world.clock.advance(8 * SECOND)
    ring.tick()
    assert ring.problem is None


def test_a_key_that_could_not_be_opened_is_tried_again_on_the_beat(
    world: World, monkeypatch
):
    """
    A new key arrives while the vault is down: the old one protects, with an alarm, until a
    later look finds the vault up; no reload of the store is needed for that.
    """
    watch = Watch()
    monkeypatch.setattr(key, "time", watch)
    vault = Vault()
    grown(world, vault, 1)
    other, ring = world.ring(wrapper=vault), world.ring(wrapper=vault)
    world.clock.advance(SECOND)
    new = other.rotate(immediate=True).id
    vault.fault = down()
    world.clock.advance(5 * SECOND)
    ring.tick()
    assert new != ring.current_key_id
    assert ring.problem.transient
    assert "ring.troubled" in world.heard.alarms()

    vault.fault = None
    loads = world.store.loads
    watch.at += 10
    world.clock.advance(5 * SECOND)
    ring.tick()
    assert new == ring.current_key_id
    assert ring.problem is None
    assert loads == world.store.loads


# --- floods --------------------------------------------------------------------------------


def test_a_flood_of_unknown_ids_costs_one_load_a_minute_and_no_wait(world: World):
    """
    10,000 random ids a second for three minutes of the clock: three loads beyond the probe; good
    payloads open in between.
    """
    ring = world.ring()
    protector = ring.protector("a")
    sealed = protector.protect_bytes(b"x")
    loads = world.store.loads
    head, tail = frame.MAGIC, bytes(60)
    for number in range(9_000):
        if number % 50 == 0:
            world.clock.advance(SECOND)
            ring.tick()
            assert b"x" == protector.unprotect_bytes(sealed).payload
        with pytest.raises(UnknownKeyIdError):
            protector.unprotect_bytes(head + number.to_bytes(16, "big") + tail)

    assert 2 <= world.store.loads - loads <= 3 + 1


def test_a_flood_while_the_store_hangs_blocks_nobody_for_long(world: World):
    """
    Once a load has hung for two seconds, unknown ids are refused at once, as transient; good
    payloads never wait.
    """
    ring = world.ring()
    protector = ring.protector("a")
    sealed = protector.protect_bytes(b"x")
    gate = world.store.gate = threading.Event()
    looker = threading.Thread(target=ring.refresh)
    looker.start()
    while not ring._live._flight.is_under_way:
        time.sleep(0.001)
    ring._live._flight._began -= 2.0
    began = time.monotonic()
    for _ in range(200):
        with pytest.raises(UnknownKeyIdError) as caught:
            protector.unprotect_bytes(stranger())
        assert caught.value.transient
        assert b"x" == protector.unprotect_bytes(sealed).payload

    assert time.monotonic() - began < 2
    gate.set()
    looker.join(30)


def test_the_number_of_keys_does_not_count_for_a_payload(world: World):
    """
    Under a thousand keys a payload's key is found as under one, and a window's turn builds
    nothing anew.
    """
    vault = Vault()
    store = DocumentStore(world.place / "ring.xml")
    grown(world, vault, 1000, store)
    vault.unwrapped = []
    ring = world.ring(wrapper=vault, store=store)
    serving = ring._live._serving
    assert 1000 == len(serving.by_id)
    world.clock.advance(2 * SECOND)
    sealed = ring.protector("a").protect_bytes(b"x")
    assert b"x" == ring.protector("a").unprotect_bytes(sealed).payload

    assert ring._live._serving.by_id is ring._live.contents.by_raw_id
    assert 2 == vault.unwraps


def test_when_a_key_was_last_named_is_told(world: World):
    """
    Pain 11: before a key is deleted one sees whether payloads still name it, here.
    """
    ring = world.ring()
    sealed = ring.protector("a").protect(b"x")
    world.clock.advance(DAY)
    ring.rotate(immediate=True)
    assert [None, None] == [one.last_named for one in tuple(ring.keys())]
    world.clock.advance(DAY)
    ring.protector("a").unprotect(sealed)

    assert [world.clock.now(), None] == [one.last_named for one in tuple(ring.keys())]


def test_revocations_of_others_hold_after_two_intervals(world: World):
    """
    However they were written: by .NET, as an element in the store.
    """
    ring = world.ring()
    sealed = ring.protector("a").protect(b"x")
    root = elements.revocation_element(
        Revocation(ring.current_key_id, ticks.from_datetime(world.clock.now()))
    )
    store = world.store.real
    store.commit(
        [Element(elements.friendly_name(root), xml.write(root))],
        (),
        store.load().version,
    )
    world.clock.advance(9 * SECOND)
    ring.tick()
    with pytest.raises(Exception, match="not valid"):
        ring.protector("a").unprotect(sealed)
    assert ring.protector("a").protect(b"y")


def test_pain_4_two_rotations_elsewhere_within_a_minute_are_both_seen_at_once(
    world: World,
):
    """
    Pain 4: the one reload a minute is spent; a second new key elsewhere is found by a probe that
    an unknown id may cause once a second, and no id makes more of them.
    """
    here, there = world.ring(), world.ring()
    opens = here.protector("a")
    for _ in range(2):
        world.clock.advance(2 * SECOND)
        there.rotate(immediate=True)
        sealed = there.protector("a").protect_bytes(b"x")
        assert b"x" == opens.unprotect_bytes(sealed).payload
    probes = world.store.probes
    for _ in range(20):
        with pytest.raises(UnknownKeyIdError):
            opens.unprotect_bytes(stranger())
    assert world.store.probes - probes <= 1
