"""
The state table.
"""

from __future__ import annotations

from datetime import timedelta, timezone

import msgspec
import pytest

from kagimori.keys.timeline import KeyState, KeyTimeline, KeyUse, rfc3339
from tests.keys.stories import DAY, HOUR, T0, TICK

TIMES = KeyTimeline(
    created=T0,
    published=T0,
    activates=T0 + DAY,
    due=T0 + 10 * DAY,
    retires=T0 + 12 * DAY,
    expires=T0 + 13 * DAY,
)


@pytest.mark.parametrize(
    ("at", "signing", "protection"),
    [
        (T0, KeyState.NEXT, KeyState.NEXT),
        (T0 + DAY - TICK, KeyState.NEXT, KeyState.NEXT),
        (T0 + DAY, KeyState.CURRENT, KeyState.CURRENT),
        (T0 + 11 * DAY, KeyState.CURRENT, KeyState.CURRENT),
        (T0 + 12 * DAY, KeyState.PREVIOUS, KeyState.PREVIOUS),
        (T0 + 13 * DAY - TICK, KeyState.PREVIOUS, KeyState.PREVIOUS),
        (T0 + 13 * DAY, KeyState.RETIRED, KeyState.PREVIOUS),
    ],
)
def test_a_state_follows_from_the_times(at, signing, protection):
    """
    The state is a function of the times and of now; protection keys never retire.
    """
    assert signing is TIMES.state(at, KeyUse.SIGNING)
    assert signing is TIMES.state(at, KeyUse.COOKIE)
    assert protection is TIMES.state(at, KeyUse.PROTECTION)


def test_past_due_without_a_successor_a_key_stays_current():
    """
    Late is late, never a gap.
    """
    alone = msgspec.structs.replace(TIMES, retires=None, expires=None)

    assert KeyState.CURRENT is alone.state(T0 + 1000 * DAY, KeyUse.SIGNING)


def test_a_key_whose_end_is_not_written_stays_previous():
    """
    Unknown is not over.
    """
    open_end = msgspec.structs.replace(TIMES, expires=None)

    assert KeyState.PREVIOUS is open_end.state(T0 + 1000 * DAY, KeyUse.SIGNING)


def test_a_revoked_key_is_revoked_whatever_its_other_times_say():
    """
    Revocation outranks everything from its instant on.
    """
    revoked = msgspec.structs.replace(TIMES, revoked=T0 + 2 * DAY)

    assert KeyState.CURRENT is revoked.state(T0 + 2 * DAY - TICK, KeyUse.SIGNING)
    assert KeyState.REVOKED is revoked.state(T0 + 2 * DAY, KeyUse.SIGNING)
    assert KeyState.REVOKED is revoked.state(T0 + 99 * DAY, KeyUse.PROTECTION)


def test_published_and_verifying_are_the_same_three_states():
    """
    NEXT, CURRENT and PREVIOUS are in the JWKS and verify; the others are and do neither.
    """
    published = {state for state in KeyState if state.is_published}

    assert {KeyState.NEXT, KeyState.CURRENT, KeyState.PREVIOUS} == published
    assert published == {state for state in KeyState if state.verifies}


def test_a_timeline_survives_json():
    """
    What is stored is what was written.
    """
    stored = msgspec.json.encode(TIMES)

    assert TIMES == msgspec.json.decode(stored, type=KeyTimeline)


def test_times_are_told_in_one_unit():
    """
    Row 12: RFC 3339 in UTC, whatever the zone of the value.
    """
    assert "2030-01-01T01:00:00Z" == rfc3339(T0 + HOUR)
    east = timezone(timedelta(hours=9))
    assert "2030-01-01T01:00:00Z" == rfc3339((T0 + HOUR).astimezone(east))


def test_a_told_time_is_never_too_early():
    """
    Whoever waits for the safe moment that a refusal names is not refused again.
    """
    assert "2030-01-01T00:00:01Z" == rfc3339(T0 + timedelta(microseconds=1))
