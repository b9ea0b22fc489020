"""
Keys without material, and rings at a given moment, for tests of the pure verbs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from kagimori.keys.policy import RotationPolicy
from kagimori.keys.ring import KeyRing
from kagimori.keys.timeline import KeyTimeline, KeyUse

T0 = datetime(2030, 1, 1, tzinfo=UTC)
TICK = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
POLICY = RotationPolicy.signing()
COOKIE = RotationPolicy.cookie()

_numbers = itertools.count(1)


@dataclass(frozen=True)
class PlainKey:
    """
    What a ring has to know of a key, and nothing else.
    """

    id: str
    algorithm: str
    timeline: KeyTimeline

    def with_timeline(self, timeline):
        """
        Return the same key with other times.
        """
        return replace(self, timeline=timeline)


def key(algorithm="ES256", id_=None, at=T0):
    """
    Return a key whose times no ring has written yet.
    """
    times = KeyTimeline(created=at, published=at, activates=at)
    return PlainKey(id_ or f"k{next(_numbers)}", algorithm, times)


def ring(*algorithms, now=T0, policy=POLICY, use=KeyUse.SIGNING):
    """
    Return a new ring with one key of each algorithm; ES256 alone if none is named.
    """
    keys = [key(name, at=now) for name in algorithms or ("ES256",)]
    return KeyRing.first(use, keys, now=now, policy=policy)


def state(ring, id_, now):
    """
    Return the state of a key by its id, ``None`` if it is not in the ring.
    """
    found = ring.get(id_)
    return None if found is None else ring.state(found, now)
