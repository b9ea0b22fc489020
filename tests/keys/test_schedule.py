"""
What the schedule asks for, and what the JWKS may be cached for.
"""

from __future__ import annotations

import msgspec
import pytest

from kagimori.keys.schedule import (
    jwks_max_age,
    next_publication,
    overdue,
    successor_activates,
    wanting_successor,
)
from tests.keys.stories import DAY, HOUR, MINUTE, POLICY, T0, TICK, key, ring

OFF = msgspec.structs.replace(POLICY, scheduled=False)
FIRST = ring()
DUE = FIRST.current(T0).timeline.due
PUBLISH = DUE - POLICY.propagation


def test_a_successor_is_asked_for_one_propagation_before_it_is_due():
    """
    Published then, it activates exactly when its predecessor is due.
    """
    current = FIRST.current(T0)

    assert () == wanting_successor(FIRST, POLICY, PUBLISH - TICK)
    assert (current,) == wanting_successor(FIRST, POLICY, PUBLISH)
    assert successor_activates(current, POLICY, PUBLISH) == DUE


def test_a_late_successor_keeps_its_whole_propagation():
    """
    K6: late is late; verifiers are not cut short.
    """
    late = DUE + 10 * DAY
    current = FIRST.current(T0)

    assert late + POLICY.propagation == successor_activates(current, POLICY, late)


def test_off_the_schedule_nothing_is_asked_for():
    """
    The key's date stands, but nobody acts on it.
    """
    assert () == wanting_successor(FIRST, OFF, DUE + 99 * DAY)
    assert next_publication(FIRST, OFF, T0) is None


def test_a_waiting_key_is_not_asked_for_again():
    """
    One successor at a time.
    """
    staged = FIRST.rotate(key(), now=PUBLISH, policy=POLICY).ring

    assert () == wanting_successor(staged, POLICY, PUBLISH + HOUR)


def test_each_algorithm_is_asked_for_on_its_own():
    """
    Row 9: one due algorithm does not re-create all.
    """
    both = ring("ES256", "RS256")
    turned = both.rotate(key("RS256"), now=T0 + 10 * DAY, policy=POLICY).ring

    assert (both.current(T0),) == wanting_successor(turned, POLICY, PUBLISH)


def test_past_due_without_a_successor_is_told():
    """
    Never a gap, but an alarm.
    """
    assert () == overdue(FIRST, DUE)
    assert (FIRST.current(T0),) == overdue(FIRST, DUE + TICK)


@pytest.mark.parametrize(
    ("now", "age"),
    [
        (T0, 300),
        (PUBLISH - 5 * MINUTE, 300),
        (PUBLISH - 2 * MINUTE, 120),
        (PUBLISH - TICK, 1),
        (PUBLISH + HOUR, 1),
    ],
)
def test_row16_the_jwks_is_not_cached_past_the_next_publication(now, age):
    """
    Row 16: max-age is the shorter of five minutes and the time to the planned change.
    """
    assert age == jwks_max_age(FIRST, POLICY, now)


def test_row16_without_a_plan_the_jwks_is_cached_as_the_policy_says():
    """
    Row 16: nothing planned, nothing to shorten.
    """
    assert 300 == jwks_max_age(FIRST, OFF, PUBLISH)
