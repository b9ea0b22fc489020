"""
The verbs on a ring: what they write, what they refuse, and what they leave to other readers.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from kagimori.errors import (
    ClockBehindError,
    ConfigError,
    ConflictError,
    KeyRingError,
    KeyStateError,
    KeyWrapError,
    NextKeyWaitsError,
    NotFoundError,
    NotPropagatedError,
    ProtectionError,
    RingReadOnlyError,
    RingUnreadableError,
    StoreError,
)
from kagimori.keys.protection import elements, xml
from kagimori.keys.timeline import KeyState
from kagimori.wrappers.passphrase import PassphraseWrapper
from tests.keys.protection.vault import Vault, down
from tests.keys.protection.world import TroubledStore, World

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def states(ring) -> dict[str, str]:
    return {key.id: key.state.value for key in tuple(ring.keys())}


def stored_reasons(world: World) -> dict[str, str]:
    state = world.store.real.load().elements[-1]
    return dict(elements.read_state(xml.parse(state.xml)).reasons)


def names(world: World) -> set[str]:
    return {element.name for element in world.store.real.load().elements}


# --- rotate --------------------------------------------------------------------------------


def test_rotate_can_replace_the_key_that_waits(world: World):
    """
    Unless told to, it refuses and names the key that waits; told to, that one is gone.
    """
    ring = world.ring()
    waiting = ring.rotate()
    with pytest.raises(NextKeyWaitsError) as caught:
        ring.rotate()
    assert waiting.id == caught.value.params["key"]

    other = ring.rotate(replace=True, reason="a better one")
    assert [ring.current_key_id, other.id] == [key.id for key in tuple(ring.keys())]
    assert f"key-{waiting.id}" not in names(world)
    assert {waiting.id, other.id} <= set(stored_reasons(world))
    assert "a better one" == other.reason


def test_rotate_for_a_date_before_nodes_have_the_key_is_refused(world: World):
    """
    Three days where .NET may share the ring; two probe intervals where only our nodes can.
    """
    ring = world.ring()
    with pytest.raises(NotPropagatedError) as caught:
        ring.rotate(activates=world.clock.now() + 2 * DAY)
    assert ".NET" in caught.value.text
    assert caught.value.params["safe"]
    at = world.clock.now() + 3 * DAY
    assert at == ring.rotate(activates=at).timeline.activates


def test_rings_that_dotnet_cannot_open_turn_within_seconds(tmp_path):
    """
    A passphrase's envelopes are ours alone: 10 s are enough for every node to see a key.
    """
    world = World(tmp_path)
    ring = world.ring(wrapper=PassphraseWrapper(b"only ours"))
    with pytest.raises(NotPropagatedError):
        ring.rotate(activates=world.clock.now() + 9 * SECOND)
    new = ring.rotate(activates=world.clock.now() + 10 * SECOND)
    world.clock.advance(10 * SECOND)

    assert new.id == ring.current_key_id


def test_an_instant_without_a_zone_is_refused(world: World):
    """
    Nobody knows when that is.
    """
    ring = world.ring()
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - that is what is tested
    for verb in (
        lambda: ring.rotate(activates=naive),
        lambda: ring.revoke_before(naive),
    ):
        with pytest.raises(ConfigError):
            verb()


def test_of_two_immediate_keys_the_later_one_protects(world: World):
    """
    Even where the clock stands still between the two: all readers take the smallest id then.
    """
    ring, other = world.ring(), world.ring()
    for _ in range(12):
        assert ring.rotate(immediate=True).id == ring.current_key_id
    other.refresh()

    assert ring.current_key_id == other.current_key_id


# --- activate ------------------------------------------------------------------------------


def test_activate_brings_a_waiting_key_forward(world: World):
    """
    Once every node can have it; its term stays as long, and other nodes follow.
    """
    ring, other = world.ring(), world.ring()
    first = ring.current_key_id
    waiting = ring.rotate(activates=world.clock.now() + 10 * DAY)
    world.clock.advance(3 * DAY - SECOND)
    with pytest.raises(NotPropagatedError) as caught:
        ring.activate()
    assert ".NET" in caught.value.text
    assert first == ring.current_key_id

    world.clock.advance(SECOND)
    active = ring.activate(reason="the audit asked for it")
    assert (waiting.id, KeyState.CURRENT) == (active.id, active.state)
    assert active.id == ring.current_key_id
    length = waiting.timeline.due - waiting.timeline.activates
    assert length == active.timeline.due - active.timeline.activates
    assert world.clock.now() == active.timeline.activates
    assert "the audit asked for it" == stored_reasons(world)[active.id]
    other.refresh()
    assert active.id == other.current_key_id


def test_activate_in_an_emergency(world: World):
    """
    Before every node has it, if that is said to be an emergency.
    """
    ring = world.ring()
    waiting = ring.rotate()
    with pytest.raises(NotPropagatedError):
        ring.activate(waiting.id)

    assert waiting.id == ring.activate(waiting.id, emergency=True).id
    assert waiting.id == ring.current_key_id


def test_activate_revives_no_key(world: World):
    """
    Neither a PREVIOUS nor a REVOKED nor the CURRENT key, nor one that is not there.
    """
    ring = world.ring()
    first = ring.current_key_id
    world.clock.advance(DAY)
    second = ring.rotate(immediate=True).id
    for key_id in (first, second):
        with pytest.raises(KeyStateError):
            ring.activate(key_id, emergency=True)
    ring.revoke(first)
    with pytest.raises(KeyStateError):
        ring.activate(first, emergency=True)
    with pytest.raises(NotFoundError):
        ring.activate(NOBODY, emergency=True)
    with pytest.raises(KeyStateError):
        ring.activate(emergency=True)

    waiting = ring.rotate().id
    assert waiting == ring.activate(emergency=True).id


def test_K7_nothing_is_moved_by_a_clock_set_back(world: World):
    """
    K7: years before the ring was made, dates would be wrong, and the current key seems to wait.
    """
    ring = world.ring()
    waiting = ring.rotate()
    world.clock.advance(-1000 * DAY)
    with pytest.raises(ClockBehindError):
        ring.activate(emergency=True)
    with pytest.raises(ClockBehindError):
        ring.cancel()

    world.clock.advance(1000 * DAY)
    assert waiting.id == ring.activate(emergency=True).id


# --- cancel --------------------------------------------------------------------------------


def test_cancel_takes_a_waiting_key_back(world: World):
    """
    It is gone from the store; the current key goes on, and another can be made.
    """
    ring = world.ring()
    first = ring.current_key_id
    waiting = ring.rotate()
    assert waiting.id == ring.cancel(reason="made too early")
    assert {first: "current"} == states(ring)
    assert "made too early" == stored_reasons(world)[waiting.id]
    with pytest.raises(KeyStateError):
        ring.cancel()
    with pytest.raises(KeyStateError):
        ring.cancel(first)

    assert "next" == ring.rotate().state.value


def test_cancel_comes_too_late_where_a_fast_clock_may_use_the_key(world: World):
    """
    Five minutes before its turn a node whose clock is ahead may have protected with it.
    """
    ring = world.ring()
    waiting = ring.rotate()
    world.clock.advance(3 * DAY - timedelta(minutes=5))
    with pytest.raises(KeyStateError, match="ahead"):
        ring.cancel(waiting.id)
    with pytest.raises(KeyStateError, match="ahead"):
        ring.rotate(replace=True)

    world.clock.advance(-SECOND)
    assert waiting.id == ring.cancel(waiting.id)


# --- revoke --------------------------------------------------------------------------------


def test_revoking_the_current_key_replaces_it_in_the_same_commit(world: World):
    """
    No moment without a protecting key; the answer says what it cut, and from when to when.
    """
    ring, other = world.ring(), world.ring()
    first, sealed = ring.current_key_id, ring.protector("a").protect(b"x")
    began = ring.keys()[0].timeline.activates
    world.clock.advance(DAY)
    commits = world.store.commits
    ended = ring.revoke(first, "a laptop was stolen")

    assert 1 == world.store.commits - commits
    (cut,) = ended.cuts
    assert (first, KeyState.CURRENT) == (cut.key_id, cut.state)
    assert (began, world.clock.now()) == (cut.since, cut.until)
    assert ended.replacement is not None
    assert ended.replacement.id == ring.current_key_id
    assert ring.generation == ended.generation
    assert {first: "revoked", ended.replacement.id: "current"} == states(ring)
    with pytest.raises(ProtectionError):
        ring.protector("a").unprotect(sealed)
    other.refresh()
    assert ended.replacement.id == other.current_key_id
    revocation = world.place / f"revocation-{first}.xml"
    assert "a laptop was stolen" in revocation.read_text("utf-8")
    assert "a laptop was stolen" == ring.keys()[0].reason


def test_a_waiting_key_takes_over_if_every_node_has_it(world: World):
    """
    Then nobody is cut off, .NET nodes included; one they cannot have yet is left to wait.
    """
    ring = world.ring()
    waiting = ring.rotate(activates=world.clock.now() + 30 * DAY)
    world.clock.advance(3 * DAY)
    ended = ring.revoke(ring.current_key_id)
    assert waiting.id == ended.replacement.id == ring.current_key_id

    young = ring.rotate()
    ended = ring.revoke(ring.current_key_id)
    assert ended.replacement.id not in {young.id, waiting.id}
    assert "next" == states(ring)[young.id]


def test_revoking_other_keys_replaces_nothing(world: World):
    """
    A PREVIOUS one is cut from its beginning to its end; a NEXT one had made nothing.
    """
    ring = world.ring()
    first = ring.current_key_id
    world.clock.advance(DAY)
    current = ring.rotate(immediate=True)
    waiting = ring.rotate()
    world.clock.advance(DAY)

    before = ring.revoke(first)
    assert before.replacement is None
    assert current.timeline.activates == before.cuts[0].until
    ahead = ring.revoke(waiting.id)
    assert (None, None) == (ahead.cuts[0].since, ahead.cuts[0].until)
    assert current.id == ring.current_key_id


def test_revoking_twice_is_done_once(world: World):
    """
    The second time nothing is written and nothing cut; a key that is not there is an error.
    """
    ring = world.ring()
    first = ring.current_key_id
    ring.revoke(first)
    commits = world.store.commits
    assert () == ring.revoke(first).cuts
    assert commits == world.store.commits

    with pytest.raises(NotFoundError):
        ring.revoke(NOBODY)


def test_revoke_before_spares_what_was_made_at_the_date_or_after(world: World):
    """
    Strictly before, to the tick; the current key is replaced if it is among them.
    """
    ring = world.ring()
    first = ring.current_key_id
    world.clock.advance(DAY)
    second = ring.rotate(immediate=True)
    ended = ring.revoke_before(second.timeline.created, "the old vault leaked")
    assert [first] == [cut.key_id for cut in ended.cuts]
    assert ended.replacement is None
    assert "the old vault leaked" == stored_reasons(world)["*"]

    world.clock.advance(SECOND)
    ended = ring.revoke_before(world.clock.now())
    assert [second.id] == [cut.key_id for cut in ended.cuts]
    assert ended.replacement.id == ring.current_key_id
    assert () == ring.revoke_before(second.timeline.created).cuts


def test_revoke_before_a_date_ahead_is_refused(world: World):
    """
    Keys made until then would be born revoked, and .NET would fail to load the ring.
    """
    ring = world.ring()
    with pytest.raises(KeyStateError):
        ring.revoke_before(world.clock.now() + SECOND)

    assert ring.protector("a").protect(b"x")
    world.clock.advance(SECOND)
    assert 1 == len(ring.revoke_before(world.clock.now()).cuts)


def test_an_unreadable_key_can_be_revoked_and_then_keys_are_made_again(world: World):
    """
    The way out where a wrapping key is lost: what cannot be read any more is revoked or deleted.
    """
    lost, kept = Vault("lost", "Test.Lost"), Vault("kept", "Test.Kept")
    first = world.ring(wrapper=lost).current_key_id
    world.clock.advance(DAY)
    world.ring(wrapper=kept, also_unwrap=[lost]).rotate(immediate=True)
    ring = world.ring(wrapper=kept)
    with pytest.raises((KeyWrapError, RingUnreadableError)):
        ring.rotate(immediate=True)

    ring.revoke(first, "its vault is gone")
    world.clock.advance(SECOND)
    assert ring.rotate(immediate=True).id == ring.current_key_id


# --- delete --------------------------------------------------------------------------------


def test_delete_refuses_what_is_needed(world: World):
    """
    Never the current or a waiting key; a PREVIOUS one only by force, and that says what it cuts.
    """
    ring = world.ring()
    first, sealed = ring.current_key_id, ring.protector("a").protect(b"x")
    world.clock.advance(DAY)
    current, waiting = ring.rotate(immediate=True).id, ring.rotate().id
    for key_id in (current, waiting):
        with pytest.raises(KeyStateError):
            ring.delete(key_id, force=True)
    with pytest.raises(KeyStateError):
        ring.delete(first)
    with pytest.raises(NotFoundError):
        ring.delete(NOBODY, force=True)
    assert b"x" == ring.protector("a").unprotect(sealed).payload

    ended = ring.delete(first, force=True, reason="nothing of it is left")
    assert [first] == [cut.key_id for cut in ended.cuts]
    assert {current, waiting} == set(states(ring))
    assert f"key-{first}" not in names(world)
    assert "nothing of it is left" == stored_reasons(world)[first]


def test_the_revocation_of_a_deleted_key_stays(world: World):
    """
    Nobody meets the key without it, and nothing brings the key back.
    """
    removed: list[tuple[str, ...]] = []

    class Watched(TroubledStore):
        def commit(self, add, remove, expect):
            removed.append(tuple(remove))
            return super().commit(add, remove, expect)

    ring = world.ring(store=Watched(world.store.real))
    first = ring.current_key_id
    ring.revoke(first)
    assert () == ring.delete(first).cuts

    assert (f"key-{first}",) == removed[-1]
    assert [f"revocation-{first}"] == [name for name in names(world) if first in name]
    assert 1 == len(world.ring().keys())


def test_an_element_that_cannot_be_read_is_deleted_by_force_only(world: World):
    """
    A key with a broken date stops the making of keys; by force it goes.
    """
    ring = world.ring()
    first = ring.current_key_id
    world.clock.advance(DAY)
    ring.rotate(immediate=True)
    path = world.place / f"key-{first}.xml"
    path.write_text(path.read_text("utf-8").replace("creationDate", "created"))
    ring.refresh()
    with pytest.raises(KeyStateError):
        ring.delete(first)
    with pytest.raises(KeyRingError):
        ring.rotate(immediate=True)

    ring.delete(first, force=True)
    assert not path.exists()
    assert ring.rotate(immediate=True).id == ring.current_key_id


# --- compromise ----------------------------------------------------------------------------


def test_compromise_revokes_replaces_and_waits_for_the_nodes(world: World):
    """
    A key made now takes over, not the waiting one; it returns after two probe intervals, when
    a node that serves has seen it.
    """
    ring, node = world.ring(), world.ring()
    first, sealed = ring.current_key_id, ring.protector("a").protect(b"x")
    waiting = ring.rotate(activates=world.clock.now() + 30 * DAY)
    world.clock.advance(4 * DAY)
    node.refresh()
    waited = []

    def wait(duration: timedelta) -> None:
        waited.append(duration)
        world.clock.advance(duration)

    ended = ring.compromise(first, "found in a log", wait=wait)
    assert [10 * SECOND] == waited
    assert [first] == [cut.key_id for cut in ended.cuts]
    assert ended.replacement.id not in {first, waiting.id}
    with pytest.raises(ProtectionError):
        node.protector("a").unprotect(sealed)
    assert ended.replacement.id == node.current_key_id


def test_compromise_of_everything(world: World):
    """
    Without an id every key there is goes, the waiting one too, and a fresh one protects.
    """
    ring = world.ring()
    world.clock.advance(DAY)
    ring.rotate(immediate=True)
    ring.rotate()
    old = set(states(ring))
    ended = ring.compromise(wait=lambda _: None)

    assert old == {cut.key_id for cut in ended.cuts}
    assert {"revoked"} == {states(ring)[key_id] for key_id in old}
    assert ended.replacement.id == ring.current_key_id


# --- what holds for all --------------------------------------------------------------------

VERBS = {
    "rotate": lambda ring, _: ring.rotate(immediate=True),
    "activate": lambda ring, _: ring.activate(emergency=True),
    "cancel": lambda ring, _: ring.cancel(),
    "revoke": lambda ring, first: ring.revoke(first),
    "revoke_before": lambda ring, _: ring.revoke_before(ring.now()),
    "delete": lambda ring, first: ring.delete(first, force=True),
    "compromise": lambda ring, first: ring.compromise(first, wait=lambda _: None),
    "rewrap": lambda ring, _: ring.rewrap(),
    "add_recovery": lambda ring, _: ring.add_recovery(Vault("second", "Test.Second")),
}


def prepared(world: World):
    """
    Return a ring with a PREVIOUS, a CURRENT and a NEXT key, and the id of the first.
    """
    ring = world.ring()
    first = ring.current_key_id
    world.clock.advance(DAY)
    ring.rotate(immediate=True)
    ring.rotate()
    world.clock.advance(SECOND)
    return ring, first


@pytest.mark.parametrize("name", VERBS)
def test_a_read_only_ring_refuses_every_verb(world: World, name: str):
    """
    Nothing is written by it; the ring open for writing can.
    """
    ring, first = prepared(world)
    reader = world.ring(read_only=True)
    before = world.store.real.load()
    with pytest.raises(RingReadOnlyError):
        VERBS[name](reader, first)
    assert before == world.store.real.load()

    assert VERBS[name](ring, first) is not None


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_lost_is_decided_anew(world: World, name: str):
    """
    K4: another node's change comes in between, and both are in the ring afterwards.
    """
    ring, first = prepared(world)
    other = world.ring(store=world.store.real)
    real_commit, meddled = world.store.commit, []

    def commit(add, remove, expect):
        if not meddled:
            meddled.append(other.rotate(immediate=True).id)
        return real_commit(add, remove, expect)

    world.store.commit = commit
    before = ring.generation
    VERBS[name](ring, first)

    assert meddled[0] in states(world.ring())
    assert before + 2 == ring.generation


def test_a_replacement_that_another_node_made_meanwhile_is_enough(world: World):
    """
    K4: the key made for the first attempt is not written where the second needs none.
    """
    ring = world.ring()
    first, other = ring.current_key_id, world.ring(store=world.store.real)
    world.clock.advance(DAY)
    real_commit, meddled = world.store.commit, []

    def commit(add, remove, expect):
        if not meddled:
            meddled.append(other.rotate(immediate=True).id)
        return real_commit(add, remove, expect)

    world.store.commit = commit
    ended = ring.revoke(first)

    assert ended.replacement is None
    assert {first: "revoked", meddled[0]: "current"} == states(ring)
    assert "previous" == ended.cuts[0].state.value


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_others_always_beat_is_given_up(world: World, name: str):
    """
    Bounded, transient, and nothing was written.
    """
    ring, first = prepared(world)
    before = world.store.real.load()

    def busy(_add, _remove, _expect):
        raise ConflictError("busy")

    world.store.commit = busy
    with pytest.raises(StoreError) as caught:
        VERBS[name](ring, first)
    assert caught.value.transient
    assert before == world.store.real.load()


@pytest.mark.parametrize("name", VERBS)
def test_the_ring_serves_while_a_verb_fails(world: World, name: str):
    """
    The store is down: an error, and what was protected opens all the same.
    """
    ring, first = prepared(world)
    sealed = ring.protector("a").protect(b"x")
    world.store.fault = StoreError("down", transient=True)
    with pytest.raises(StoreError):
        VERBS[name](ring, first)

    assert b"x" == ring.protector("a").unprotect(sealed).payload
    world.store.fault = None
    assert VERBS[name](ring, first) is not None


def test_a_lost_answer_to_the_own_commit_makes_no_second_key(world: World):
    """
    The commit went through, its answer did not, and the client's own retry met a conflict.
    """
    ring = world.ring()
    real_commit, answered = world.store.commit, []

    def commit(add, remove, expect):
        snapshot = real_commit(add, remove, expect)
        if not answered:
            answered.append(True)
            raise ConflictError("412 to the retry of a write that was done")
        return snapshot

    world.store.commit = commit
    new = ring.rotate(immediate=True)
    assert 2 == len(ring.keys())
    assert new.id == ring.current_key_id


def test_reasons_are_kept_in_the_order_in_which_they_were_given(world: World):
    """
    Two hundred of them; the oldest go first, and a newer reason for a key replaces its older.
    """
    ring = world.ring()
    first = ring.current_key_id
    ring.rotate(reason="one")
    waiting = ring.keys()[1].id
    ring.revoke(waiting, "two")
    ring.revoke(first, "three")

    reasons = stored_reasons(world)
    assert ("two", "three") == (reasons[waiting], reasons[first])
    assert [waiting, first] == [key for key in reasons if key in {waiting, first}]


def test_a_vault_that_is_down_stops_verbs_that_make_keys_only(world: World):
    """
    K13: revoking a key that does not protect needs no vault; making one does, and says so.
    """
    vault = Vault()
    ring = world.ring(wrapper=vault)
    first = ring.current_key_id
    world.clock.advance(DAY)
    ring.rotate(immediate=True)
    vault.fault = down()
    with pytest.raises(KeyWrapError) as caught:
        ring.rotate(immediate=True)
    assert caught.value.transient

    assert [first] == [cut.key_id for cut in ring.revoke(first).cuts]
