"""
The verbs of a ring, as stories. Rows are those of `signing-keys.md` section 8.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from kagimori.errors import (
    KeyStateError,
    NextKeyWaitsError,
    NotPropagatedError,
)
from kagimori.keys.ring import KeyRing, LiveTokens
from kagimori.keys.timeline import KeyState, KeyUse
from tests.keys.stories import (
    COOKIE,
    DAY,
    HOUR,
    MINUTE,
    POLICY,
    T0,
    TICK,
    key,
    ring,
    state,
)

SKEW = timedelta(seconds=5)
NO_TOKENS = LiveTokens(0)


def turn(old, new=None, *, now, **how):
    """
    Rotate, and return the ring alone.
    """
    return old.rotate(new or key(at=now), now=now, policy=POLICY, **how).ring


# --- beginning -----------------------------------------------------------------------------


def test_the_first_keys_are_current_at_once_and_slightly_in_the_past():
    """
    A node whose clock is behind agrees that the first key signs.
    """
    first = ring("ES256", "RS256")

    assert ("ES256", "RS256") == first.algorithms(T0)
    assert ("ES256", "RS256") == first.algorithms(T0 - SKEW)
    assert "ES256" == first.default(T0)
    assert 1 == first.generation
    assert T0 - SKEW + 90 * DAY == first.current(T0).timeline.due


@pytest.mark.parametrize("algorithms", [(), ("ES256", "ES256")])
def test_a_ring_begins_with_one_key_of_each_algorithm(algorithms):
    """
    No ring without a key, and no two current keys of one algorithm.
    """
    with pytest.raises(KeyStateError):
        KeyRing.first(
            KeyUse.SIGNING, [key(name) for name in algorithms], now=T0, policy=POLICY
        )


def test_a_cookie_ring_has_one_line_whatever_the_algorithm():
    """
    Cookie keys succeed each other in one line.
    """
    with pytest.raises(KeyStateError):
        ring("A", "B", use=KeyUse.COOKIE, policy=COOKIE)

    one = ring("A", use=KeyUse.COOKIE, policy=COOKIE)
    new = one.rotate(key("B"), now=T0 + DAY, policy=COOKIE)

    assert new.predecessors[0].id == one.current(T0).id


# --- rotate --------------------------------------------------------------------------------


def test_row3_a_new_key_is_published_long_before_it_signs():
    """
    K6, row 3: NEXT for the whole propagation, CURRENT from its instant on, on every node.
    """
    new = key()
    after = turn(ring(), new, now=T0 + DAY)
    switch = T0 + DAY + POLICY.propagation

    assert KeyState.NEXT is state(after, new.id, T0 + DAY)
    assert new.id in {k.id for k in after.verifying(T0 + DAY)}
    assert new.id != after.current(switch - TICK).id
    assert new.id == after.current(switch).id


def test_row6_the_end_of_the_predecessor_is_written_in_the_same_step():
    """
    Row 6: `retires` is the successor's `activates`, no setting is asked again.
    """
    first = ring()
    old = first.current(T0)
    new = key()
    change = first.rotate(new, now=T0 + DAY, policy=POLICY)

    assert (old.id,) == tuple(k.id for k in change.predecessors)
    times = change.ring.get(old.id).timeline
    assert (change.key.timeline.activates, new.id) == (times.retires, times.successor)
    assert times.due == old.timeline.due


def test_row2_a_second_next_is_refused_with_the_dates_of_the_first():
    """
    Row 2: staging again neither loses the waiting key nor piles up another.
    """
    waiting = key()
    staged = turn(ring(), waiting, now=T0)

    with pytest.raises(NextKeyWaitsError) as refused:
        turn(staged, now=T0 + HOUR)

    assert waiting.id == refused.value.params["kid"]
    assert "2030-01-02T00:00:00Z" == refused.value.params["activates"]
    assert "2030-01-01T00:00:00Z" == refused.value.params["published"]


def test_row2_replacing_the_next_is_explicit_and_leaves_one():
    """
    Row 2: with `replace` the waiting key leaves, and another waits from now on.
    """
    waiting, other = key(), key()
    staged = turn(ring(), waiting, now=T0)
    change = staged.rotate(other, now=T0 + HOUR, policy=POLICY, replace_waiting=True)

    assert (waiting.id,) == change.destroyed
    assert change.ring.get(waiting.id) is None
    assert other.id == change.ring.next_("ES256", T0 + HOUR).id
    assert 2 == len(change.ring)
    assert other.id == change.ring.current(T0 + 2 * DAY).id


def test_a_date_before_the_propagation_is_refused_and_the_safe_moment_named():
    """
    K6: who wants it earlier has to say that it is an emergency.
    """
    soon = T0 + MINUTE

    with pytest.raises(NotPropagatedError) as refused:
        turn(ring(), now=T0, activates=soon)

    assert "2030-01-02T00:00:00Z" == refused.value.params["safe"]
    urgent = key()
    forced = turn(ring(), urgent, now=T0, activates=soon, emergency=True)
    assert urgent.id == forced.current(soon).id


def test_a_date_in_the_past_is_refused_even_in_an_emergency():
    """
    K14: no back-dated activation.
    """
    with pytest.raises(NotPropagatedError):
        turn(ring(), now=T0, activates=T0 - TICK, emergency=True)


def test_a_key_enters_once():
    """
    The same key cannot be there twice.
    """
    first = ring()

    with pytest.raises(KeyStateError):
        turn(first, first.current(T0), now=T0)


def test_row1_fifty_rotations_in_a_row_lose_no_key_that_is_needed():
    """
    Row 1: with tokens alive under every key, all of them stay published.
    """
    now, turned, used = T0, ring(), []
    for _ in range(50):
        used.append(turned.current(now).id)
        turned = turn(turned, now=now, activates=now + TICK, emergency=True)
        now += TICK
    last = dict.fromkeys(used, now + HOUR)
    turned = turned.settle(now=now, policy=POLICY, last_expiry=last)

    assert set(used) <= {k.id for k in turned.verifying(now)}
    assert 51 == len(turned)
    assert 1 == sum(turned.state(k, now) is KeyState.CURRENT for k in turned)


# --- algorithms ----------------------------------------------------------------------------


def test_row9_algorithms_turn_independently():
    """
    Row 9: rotating RS256 leaves ES256 and the default alone.
    """
    both = ring("ES256", "RS256")
    after = turn(both, key("RS256"), now=T0)
    later = T0 + 2 * DAY

    assert both.current(T0).id == after.current(later).id
    assert both.current(T0, "RS256").id != after.current(later, "RS256").id
    assert "ES256" == after.default(later)


def test_row9_a_first_key_of_an_algorithm_is_announced_too():
    """
    Verifiers hold a JWKS without it, so it waits like any other.
    """
    new = key("PS256")
    after = turn(ring(), new, now=T0)

    assert after.current(T0, "PS256") is None
    assert new.id == after.current(T0 + DAY, "PS256").id
    assert ("ES256",) == after.algorithms(T0)


def test_row9_a_new_default_holds_from_the_activation_of_its_key_on():
    """
    Row 9: `--default` changes the default when the key signs, and ends the old line if told.
    """
    first = ring()
    old = first.current(T0)
    new = key("PS256")
    after = turn(first, new, now=T0, make_default=True, end_old_default=True)
    switch = T0 + DAY

    assert ("ES256", "PS256") == (after.default(switch - TICK), after.default(switch))
    assert new.id == after.current(switch).id
    assert KeyState.PREVIOUS is state(after, old.id, switch)


def test_row9_the_old_default_lives_on_beside_the_new_one():
    """
    Where somebody names the old algorithm its key stays current.
    """
    first = ring()
    after = turn(first, key("PS256"), now=T0, make_default=True)

    assert ("PS256", "ES256") == after.algorithms(T0 + DAY)


def test_cancelling_a_new_default_restores_the_old_one():
    """
    Cancel takes back the key, the default and the end of the old line.
    """
    first = ring()
    old = first.current(T0)
    new = key("PS256")
    staged = turn(first, new, now=T0, make_default=True, end_old_default=True)
    back = staged.cancel(new.id, now=T0 + HOUR, policy=POLICY).ring

    assert "ES256" == back.default(T0 + 9 * DAY)
    assert old.id == back.current(T0 + 9 * DAY).id
    assert back.get(old.id).timeline.retires is None


def test_a_line_that_is_about_to_end_is_not_continued_by_accident():
    """
    Rotating the old default while its end is written is refused with the way out.
    """
    new = key("PS256")
    staged = turn(ring(), new, now=T0, make_default=True, end_old_default=True)

    with pytest.raises(KeyStateError, match=f"Cancel {new.id}"):
        turn(staged, key("ES256"), now=T0 + HOUR)


def test_one_change_of_the_default_waits_at_a_time():
    """
    Two pending defaults would be decided by chance.
    """
    both = ring("ES256", "RS256")
    staged = turn(both, key("PS256"), now=T0, make_default=True)

    with pytest.raises(KeyStateError, match="about to change"):
        turn(staged, key("ES384"), now=T0, make_default=True)
    with pytest.raises(KeyStateError, match="about to change"):
        staged.make_default("RS256", now=T0 + HOUR)
    assert staged.make_default("RS256", now=T0 + 2 * DAY).ring


def test_the_default_can_move_to_an_algorithm_that_signs_already():
    """
    `make_default` needs no new key, and takes effect at once.
    """
    both = ring("ES256", "RS256")
    change = both.make_default("RS256", now=T0 + DAY, end_old_default=True)

    assert "RS256" == change.ring.default(T0 + DAY)
    assert KeyState.PREVIOUS is state(change.ring, both.current(T0).id, T0 + DAY)


@pytest.mark.parametrize("algorithm", ["ES256", "PS256"])
def test_what_is_default_or_has_no_key_cannot_become_the_default(algorithm):
    """
    Both are refused with the reason.
    """
    with pytest.raises(KeyStateError, match=algorithm):
        ring().make_default(algorithm, now=T0)


def test_ending_the_old_default_while_its_next_waits_is_refused():
    """
    The waiting key would revive a line that is to end.
    """
    staged = turn(ring("ES256", "RS256"), now=T0)

    with pytest.raises(NextKeyWaitsError):
        staged.make_default("RS256", now=T0 + HOUR, end_old_default=True)


# --- activate and cancel -------------------------------------------------------------------


def test_a_next_can_be_activated_earlier_once_it_has_propagated():
    """
    Row 2: what waits longer than it must can be let go.
    """
    new = key()
    staged = turn(ring(), new, now=T0, activates=T0 + 10 * DAY)
    at = T0 + 2 * DAY
    change = staged.activate(new.id, now=at, at=at + TICK, policy=POLICY)

    assert new.id == change.ring.current(at + TICK).id
    assert at + TICK == change.predecessors[0].timeline.retires
    assert at + TICK + 90 * DAY == change.key.timeline.due


def test_row3_activating_before_the_propagation_needs_an_emergency():
    """
    K6, row 3: the refusal names the safe moment; the emergency is said by name.
    """
    new = key()
    staged = turn(ring(), new, now=T0)
    at = T0 + HOUR

    with pytest.raises(NotPropagatedError, match="2030-01-02T00:00:00Z"):
        staged.activate(new.id, now=at, at=at, policy=POLICY)

    forced = staged.activate(new.id, now=at, at=at, policy=POLICY, emergency=True)
    assert new.id == forced.ring.current(at).id


def test_a_later_activation_changes_nothing():
    """
    `activate` only moves a date earlier.
    """
    new = key()
    staged = turn(ring(), new, now=T0)
    same = staged.activate(new.id, now=T0, at=T0 + 9 * DAY, policy=POLICY)

    assert T0 + DAY == same.key.timeline.activates


def test_a_longer_propagation_set_later_bends_no_date():
    """
    Row 6: the key's own date stands, whatever the policy says now.
    """
    new = key()
    staged = turn(ring(), new, now=T0)
    slower = msgspec.structs.replace(POLICY, propagation=7 * DAY)
    at = T0 + DAY - TICK

    assert new.id == staged.current(T0 + DAY).id
    with pytest.raises(NotPropagatedError, match="2030-01-02T00:00:00Z"):
        staged.activate(new.id, now=at, at=at, policy=slower)


def test_row2_cancelling_restores_the_predecessor():
    """
    Row 2: the waiting key leaves, and the current one goes on as if nothing had been.
    """
    first = ring()
    old = first.current(T0)
    new = key()
    change = turn(first, new, now=T0).cancel(new.id, now=T0 + HOUR, policy=POLICY)

    assert (old.timeline, old.id) == (change.ring.get(old.id).timeline, old.id)
    assert change.ring.get(new.id) is None
    assert (new.id,) == change.destroyed
    assert old.id == change.ring.current(T0 + 99 * DAY).id


def test_cancelling_a_scheduled_successor_puts_the_schedule_off():
    """
    Otherwise the schedule would publish another one in the next second.
    """
    first = ring()
    near = T0 + 90 * DAY - HOUR
    new = key()
    staged = turn(first, new, now=near)
    back = staged.cancel(new.id, now=near + MINUTE, policy=POLICY).ring

    assert near + MINUTE + 90 * DAY == back.current(near).timeline.due


@pytest.mark.parametrize("verb", ["activate", "cancel"])
def test_only_a_next_is_activated_or_cancelled(verb):
    """
    Row 11: the refusal names the state; a current key is neither.
    """
    first = ring()
    current = first.current(T0)
    times = {"at": T0} if verb == "activate" else {}

    with pytest.raises(KeyStateError, match="CURRENT") as refused:
        getattr(first, verb)(current.id, now=T0, policy=POLICY, **times)

    assert refused.value.hint


def test_a_cookie_key_is_not_cancelled_when_a_fast_clock_may_use_it():
    """
    Row 14: cookie keys have no ledger that would hold a fast node back.
    """
    first = ring("C", use=KeyUse.COOKIE, policy=COOKIE)
    new = key("C")
    staged = first.rotate(new, now=T0, policy=COOKIE).ring
    switch = T0 + 5 * MINUTE

    with pytest.raises(KeyStateError, match="too late"):
        staged.cancel(new.id, now=switch - SKEW, policy=COOKIE)
    early = staged.cancel(new.id, now=switch - SKEW - TICK, policy=COOKIE)
    assert early.ring.get(new.id) is None


def test_row14_cookie_keys_are_announced_too():
    """
    Row 14: other instances know a cookie key before the first cookie carries it.
    """
    first = ring("C", use=KeyUse.COOKIE, policy=COOKIE)
    new = key("C")
    after = first.rotate(new, now=T0, policy=COOKIE).ring

    assert KeyState.NEXT is state(after, new.id, T0 + 5 * MINUTE - TICK)
    assert KeyState.CURRENT is state(after, new.id, T0 + 5 * MINUTE)
