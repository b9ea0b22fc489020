"""
What the policy asks of a ring at a given moment.

Rules of this module:

1. A successor is published so early that it activates when its predecessor is due, with the
   whole propagation before it. Late is late: the propagation is never cut.
2. The ``max-age`` of the JWKS ends no later than the next planned publication, so that a
   verifier that obeys it fetches the new key early.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from kagimori.keys.lineup import K, Lineup
from kagimori.keys.policy import RotationPolicy
from kagimori.keys.timeline import KeyState, KeyTimeline

LEAST_MAX_AGE = timedelta(seconds=1)
"""What the JWKS may be cached for even while a publication is late."""


def propagated_at(timeline: KeyTimeline, policy: RotationPolicy) -> datetime:
    """
    Return from when on every verifier has seen a key.

    Never later than the date written on the key: a policy changed since then bends no date.
    """
    return min(timeline.published + policy.propagation, timeline.activates)


def wanting_successor(
    ring: Lineup[K], policy: RotationPolicy, now: datetime
) -> tuple[K, ...]:
    """
    Return the current keys for which the schedule asks to publish a successor now.
    """
    return tuple(
        key
        for key, publish in _planned(ring, policy, now)
        if publish <= now and ring.next_(key.algorithm, now) is None
    )


def successor_activates(key: K, policy: RotationPolicy, now: datetime) -> datetime:
    """
    Return when a successor published now takes over: when due, or after the propagation.
    """
    earliest = now + policy.propagation
    due = key.timeline.due
    return earliest if due is None else max(due, earliest)


def overdue(ring: Lineup[K], now: datetime) -> tuple[K, ...]:
    """
    Return the current keys that are past due without a successor: an alarm, never a gap.
    """
    return tuple(
        key
        for key in ring.keys
        if key.timeline.due is not None
        and key.timeline.due < now
        and key.timeline.retires is None
        and ring.state(key, now) is KeyState.CURRENT
    )


def next_publication(
    ring: Lineup[K], policy: RotationPolicy, now: datetime
) -> datetime | None:
    """
    Return when the schedule publishes the next key, ``None`` if nothing is planned.
    """
    return min((publish for _, publish in _planned(ring, policy, now)), default=None)


def jwks_max_age(ring: Lineup[K], policy: RotationPolicy, now: datetime) -> int:
    """
    Return for how many seconds a verifier may keep the JWKS.
    """
    planned = next_publication(ring, policy, now)
    age = policy.max_age
    if planned is not None:
        age = min(age, max(planned - now, LEAST_MAX_AGE))
    return int(age.total_seconds())


def _planned(
    ring: Lineup[K], policy: RotationPolicy, now: datetime
) -> list[tuple[K, datetime]]:
    if not policy.scheduled:
        return []
    return [
        (key, key.timeline.due - policy.propagation)
        for key in ring.keys
        if key.timeline.due is not None
        and key.timeline.retires is None
        and ring.state(key, now) is KeyState.CURRENT
    ]
