"""
The life of a key, computed from times.

Rules of this module:

1. A state is never stored: it follows from the times written on the key and from ``now``, so
   all instances switch at the same instant without talking to each other.
2. The times of a key are written by verbs (see `kagimori.keys.ring`) and by nothing else; a
   changed setting never moves them.
3. Past `due` without a successor a key stays CURRENT: late is an alarm, never a gap.
4. Protection keys never retire: PREVIOUS opens until deleted, and only revocation closes it.
5. A key whose `expires` is not known yet is not expired: it stays PREVIOUS.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta

import msgspec


class KeyUse(enum.Enum):
    """
    What a ring of keys is for.
    """

    SIGNING = "signing"
    COOKIE = "cookie"
    PROTECTION = "protection"


class KeyState(enum.Enum):
    """
    Where in its life a key is.
    """

    NEXT = "next"
    CURRENT = "current"
    PREVIOUS = "previous"
    RETIRED = "retired"
    REVOKED = "revoked"

    @property
    def is_published(self) -> bool:
        """
        Whether the public half of a signing key in this state is in the JWKS.
        """
        return self in _PUBLISHED

    @property
    def verifies(self) -> bool:
        """
        Whether a key in this state verifies or unprotects what it once made.
        """
        return self in _PUBLISHED


_PUBLISHED = frozenset({KeyState.NEXT, KeyState.CURRENT, KeyState.PREVIOUS})


class KeyTimeline(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The times of one key; all are aware UTC.

    Attributes:
        created: when the key was made.
        published: when its public half entered the JWKS (for others: when it entered the ring).
        activates: from when on it signs or protects.
        due: when a successor should take over; ``None`` while the schedule is off.
        retires: its successor's `activates`, written in the commit that adds the successor.
        expires: when nothing that it made can be alive any more.
        revoked: when it was revoked.
        successor: the id of the key whose `activates` is this key's `retires`.
    """

    created: datetime
    published: datetime
    activates: datetime
    due: datetime | None = None
    retires: datetime | None = None
    expires: datetime | None = None
    revoked: datetime | None = None
    successor: str | None = None

    def state(self, now: datetime, use: KeyUse) -> KeyState:
        """
        Return the state at `now`.

        Bounds: a key is CURRENT from `activates` on, PREVIOUS from `retires` on, and, unless it
        is a protection key, RETIRED from `expires` on.
        """
        if self.revoked is not None and self.revoked <= now:
            return KeyState.REVOKED
        if now < self.activates:
            return KeyState.NEXT
        if self.retires is None or now < self.retires:
            return KeyState.CURRENT
        if use is KeyUse.PROTECTION or self.expires is None or now < self.expires:
            return KeyState.PREVIOUS
        return KeyState.RETIRED

    def turns(self) -> tuple[datetime, ...]:
        """
        Return the instants at which the state may change, in no particular order.
        """
        times = (self.activates, self.retires, self.expires, self.revoked)
        return tuple(time for time in times if time is not None)


def rfc3339(instant: datetime) -> str:
    """
    Write an instant for people and scripts, in UTC, to the second (RFC 3339).

    It is rounded up, so that whoever waits for it does not come too early.
    """
    if instant.microsecond:
        instant = instant.replace(microsecond=0) + timedelta(seconds=1)
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
