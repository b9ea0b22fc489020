"""
The verbs that end keys, as stories. Rows are those of `signing-keys.md` section 8.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from kagimori.errors import (
    ClockBehindError,
    KeyStateError,
    NotFoundError,
)
from kagimori.keys.ring import LiveTokens
from kagimori.keys.timeline import KeyState, KeyUse
from tests.keys.stories import (
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


# --- revoke --------------------------------------------------------------------------------


def test_revoking_the_current_key_replaces_it_at_once():
    """
    No gap, no second current key, and the tokens of the revoked one fail.
    """
    first = ring()
    old, heir = first.current(T0), key()
    now = T0 + DAY
    change = first.revoke(old.id, now=now, policy=POLICY, replacement=heir)

    assert KeyState.REVOKED is state(change.ring, old.id, now)
    assert heir.id == change.ring.current(now).id
    assert heir.id == change.ring.current(now - SKEW).id
    assert old.id not in {k.id for k in change.ring.verifying(now)}
    assert old.id in change.destroyed
    assert 2 == change.ring.generation


def test_revoking_prefers_a_propagated_next():
    """
    What verifiers have seen already serves best.
    """
    first = ring()
    waiting = key()
    staged = turn(first, waiting, now=T0, activates=T0 + 10 * DAY)
    now = T0 + 2 * DAY
    change = staged.revoke(
        first.current(T0).id, now=now, policy=POLICY, replacement=key()
    )

    assert waiting.id == change.ring.current(now).id
    assert 2 == len(change.ring)


def test_revoking_drops_a_next_that_nobody_has_seen():
    """
    The fresh key takes the place of both.
    """
    first = ring()
    waiting, heir = key(), key()
    staged = turn(first, waiting, now=T0)
    change = staged.revoke(
        first.current(T0).id, now=T0 + HOUR, policy=POLICY, replacement=heir
    )

    assert heir.id == change.ring.current(T0 + HOUR).id
    assert change.ring.get(waiting.id) is None
    assert change.ring.get(heir.id).timeline.retires is None


def test_the_current_key_is_not_revoked_without_a_replacement():
    """
    K12: revoking would leave nothing to sign with.
    """
    first = ring()

    with pytest.raises(KeyStateError, match="nothing is ready"):
        first.revoke(first.current(T0).id, now=T0, policy=POLICY)


def test_a_replacement_takes_over_the_end_of_a_line():
    """
    Revoking the old default while its end is written keeps that end.
    """
    first = ring()
    new, heir = key("PS256"), key()
    staged = turn(first, new, now=T0, make_default=True, end_old_default=True)
    change = staged.revoke(
        first.current(T0).id, now=T0 + HOUR, policy=POLICY, replacement=heir
    )

    assert heir.id == change.ring.current(T0 + HOUR).id
    assert new.id == change.ring.get(heir.id).timeline.successor
    assert KeyState.PREVIOUS is state(change.ring, heir.id, T0 + DAY)
    assert "PS256" == change.ring.default(T0 + DAY)


def test_revoking_a_next_frees_its_predecessor():
    """
    It never signs, and the current key goes on.
    """
    first = ring()
    new = key()
    change = turn(first, new, now=T0).revoke(new.id, now=T0 + HOUR, policy=POLICY)

    assert KeyState.REVOKED is state(change.ring, new.id, T0 + 9 * DAY)
    assert first.current(T0).id == change.ring.current(T0 + 9 * DAY).id


def test_a_previous_key_is_revoked_alone_and_only_once():
    """
    Revoked is final.
    """
    first = ring()
    old = first.current(T0)
    later = T0 + 2 * DAY
    change = turn(first, now=T0).revoke(old.id, now=later, policy=POLICY)

    assert KeyState.REVOKED is state(change.ring, old.id, later)
    with pytest.raises(KeyStateError, match="REVOKED"):
        change.ring.revoke(old.id, now=later, policy=POLICY)


# --- delete, settle, prune -----------------------------------------------------------------


def previous_ring():
    """
    Return a ring, its PREVIOUS key's id, and a time at which it is.
    """
    first = ring()
    old = first.current(T0).id
    return turn(first, now=T0), old, T0 + 2 * DAY


def test_K12_row8_the_key_that_signs_is_never_deleted():
    """
    K12, row 8: not even with force.
    """
    first = ring()

    for force in (False, True):
        with pytest.raises(KeyStateError, match="CURRENT") as refused:
            first.delete(first.current(T0).id, now=T0, live=NO_TOKENS, force=force)
        assert "Rotate first" in refused.value.hint


def test_K12_a_key_with_living_tokens_is_deleted_by_force_only():
    """
    K12: the refusal states the number of tokens and the earliest safe moment.
    """
    turned, old, now = previous_ring()
    live = LiveTokens(3, now + HOUR)

    with pytest.raises(KeyStateError) as refused:
        turned.delete(old, now=now, live=live)
    assert "3 tokens" in refused.value.text
    assert "2030-01-03T01:00:00Z" in refused.value.text

    change = turned.delete(old, now=now, live=live, force=True)
    assert change.ring.get(old) is None
    assert (old,) == change.destroyed


def test_a_key_without_living_tokens_is_deleted_without_force():
    """
    Also when its last token has just expired.
    """
    turned, old, now = previous_ring()

    assert turned.delete(old, now=now, live=NO_TOKENS).ring.get(old) is None
    over = LiveTokens(0, now)
    assert turned.delete(old, now=now, live=over).ring.get(old) is None


def test_K12_where_nobody_counts_only_the_written_end_makes_it_safe():
    """
    K12: unknown is not zero.
    """
    turned, old, now = previous_ring()

    with pytest.raises(KeyStateError, match="nobody counts"):
        turned.delete(old, now=now, live=LiveTokens())
    settled = turned.settle(now=now, policy=POLICY, last_expiry=None)
    end = settled.get(old).timeline.expires
    with pytest.raises(KeyStateError, match="nobody counts"):
        settled.delete(old, now=end - TICK, live=LiveTokens())
    assert settled.delete(old, now=end, live=LiveTokens()).ring.get(old) is None


@pytest.mark.parametrize("kind", ["next", "revoked"])
def test_what_waits_or_is_revoked_is_not_deleted(kind):
    """
    Each refusal names the way: cancel, or nothing at all.
    """
    first = ring()
    new = key()
    staged = turn(first, new, now=T0)
    if kind == "revoked":
        staged = staged.revoke(new.id, now=T0, policy=POLICY).ring

    with pytest.raises(KeyStateError, match=kind.upper()) as refused:
        staged.delete(new.id, now=T0, live=NO_TOKENS, force=True)
    assert refused.value.hint


def test_a_key_that_nobody_knows_is_not_found():
    """
    Row 11: a stable code and a next step.
    """
    with pytest.raises(NotFoundError) as refused:
        ring().delete("nobody", now=T0, live=NO_TOKENS)

    assert ("not_found", "nobody") == (refused.value.code, refused.value.params["kid"])


def test_row1_a_replaced_key_leaves_when_its_last_token_is_over():
    """
    Row 1: `expires` is the ledger's last expiry, never before `retires`.
    """
    turned, old, _ = previous_ring()
    retires = turned.get(old).timeline.retires
    last = retires + 10 * MINUTE
    settled = turned.settle(now=retires, policy=POLICY, last_expiry={old: last})

    assert KeyState.PREVIOUS is state(settled, old, last - TICK)
    assert KeyState.RETIRED is state(settled, old, last)


def test_a_replaced_key_that_signed_nothing_leaves_at_once():
    """
    With an empty ledger it leaves the JWKS at `retires`.
    """
    turned, old, _ = previous_ring()
    retires = turned.get(old).timeline.retires
    settled = turned.settle(now=retires, policy=POLICY, last_expiry={})

    assert KeyState.RETIRED is state(settled, old, retires)


@pytest.mark.parametrize("last", [None, {}])
def test_without_a_whole_ledger_a_key_stays_for_the_longest_life(last):
    """
    Nobody counts (cookie), or the ledger did not see everything (restore).
    """
    turned, old, _ = previous_ring()
    times = turned.get(old).timeline
    known = None if last is None else {old: None}
    settled = turned.settle(now=times.retires, policy=POLICY, last_expiry=known)

    end = times.retires + POLICY.longest_life + POLICY.tolerance
    assert end == settled.get(old).timeline.expires


def test_an_end_once_written_is_not_written_again():
    """
    After `retires` nothing moves `expires`, whatever the ledger says then.
    """
    turned, old, now = previous_ring()
    settled = turned.settle(now=now, policy=POLICY, last_expiry={old: now + HOUR})

    assert settled.settle(now=now + MINUTE, policy=POLICY, last_expiry={}) is None


def test_before_its_end_nothing_is_settled():
    """
    Tokens are still being signed.
    """
    staged = turn(ring(), now=T0)

    assert staged.settle(now=T0 + HOUR, policy=POLICY, last_expiry={}) is None


def test_row7_pruning_takes_only_what_is_long_over():
    """
    Row 7: RETIRED and REVOKED keys leave after the policy's time, nothing else ever.
    """
    turned, old, now = previous_ring()
    settled = turned.settle(now=now, policy=POLICY, last_expiry={})
    end = settled.get(old).timeline.expires + POLICY.keep_retired

    assert settled.prune(now=end - TICK, policy=POLICY) is None
    pruned, gone = settled.prune(now=end, policy=POLICY)
    assert ((old,), 1) == (tuple(k.id for k in gone), len(pruned))


def test_protection_keys_are_neither_settled_nor_pruned():
    """
    PREVIOUS protection keys open until they are deleted.
    """
    first = ring("P", use=KeyUse.PROTECTION)
    turned = first.rotate(key("P"), now=T0, policy=POLICY).ring
    late = T0 + 999 * DAY

    assert turned.settle(now=late, policy=POLICY, last_expiry=None) is None
    assert turned.prune(now=late, policy=POLICY) is None
    assert KeyState.PREVIOUS is state(turned, first.current(T0).id, late)


# --- preview, order, clocks ----------------------------------------------------------------


def test_a_preview_counts_what_would_be_cut_and_changes_nothing():
    """
    What `delete` and `revoke` would cut, and from when on they would cut nothing.
    """
    turned, old, now = previous_ring()
    seen = turned.preview(old, now=now, live=LiveTokens(2, now + HOUR))

    assert (KeyState.PREVIOUS, 2, now + HOUR) == (
        seen.state,
        seen.live.count,
        seen.safe_at,
    )
    current = turned.preview(turned.current(now).id, now=now, live=NO_TOKENS)
    assert current.safe_at is None


def test_the_published_set_is_ordered_current_next_previous():
    """
    Verifiers that take the first key take the one that signs.
    """
    turned, old, _ = previous_ring()
    now = T0 + 2 * DAY
    new = key()
    staged = turn(turned, new, now=now)

    assert [staged.current(now).id, new.id, old] == [
        k.id for k in staged.verifying(now)
    ]


def test_K7_a_clock_far_behind_writes_no_dates():
    """
    K7: a verb under a clock that was set back is refused, within the skew it is not.
    """
    staged = turn(ring(), now=T0 + DAY)

    with pytest.raises(ClockBehindError):
        turn(staged, now=T0 + DAY - SKEW - TICK, replace_waiting=True)
    assert turn(staged, now=T0 + DAY - SKEW, replace_waiting=True)


def test_every_verb_raises_the_generation_by_one():
    """
    Row 15: a change can be named.
    """
    first = ring()
    new = key()
    one = turn(first, new, now=T0)
    two = one.cancel(new.id, now=T0, policy=POLICY).ring
    three = two.revoke(
        first.current(T0).id, now=T0, policy=POLICY, replacement=key()
    ).ring

    assert [1, 2, 3, 4] == [r.generation for r in (first, one, two, three)]
