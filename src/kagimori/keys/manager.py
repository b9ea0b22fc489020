"""
The live ring as a state machine without I/O.

Rules of this module:

1. In go what happened (a ring was loaded, a load failed, an unknown id turned up); out come
   wishes (load now, probe now). Drivers do the I/O: `ProtectionRing` over a `KeyStore`, and
   `TenantRings` over a `Store`.
2. Unreadable is not absent: a failed load never empties the ring. The last good one serves on,
   `error` says why, and `is_stale` says since when nobody could confirm it.
3. Two clocks: the cheap probe runs on its own beat, which no attacker can use up; a reload for
   an unknown id is granted at most once in `unknown_id_every`.
4. A wall clock that was set back makes things due rather than never due.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

R = TypeVar("R")

_JITTER = 0.2
_MOST_ASKED_FOR = timedelta(minutes=5)
_CHANCE = secrets.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPolicy:
    """
    How often a live ring is looked at.

    Attributes:
        probe_every: how often a cheap probe may run (DESIGN section 9).
        reload_every: how often everything is read anew although no probe saw a change; up to a
            fifth less, by chance, so that many instances do not come at once.
        unknown_id_every: how often an unknown id may cause a reload.
        peek_every: how often one may cause a cheap probe before its time.
        retry_first: the pause after a first failed load; it doubles up to `retry_most`.
        stale_after: how long a ring counts as fresh after it was last confirmed.
    """

    probe_every: timedelta = timedelta(seconds=5)
    reload_every: timedelta = timedelta(minutes=5)
    unknown_id_every: timedelta = timedelta(seconds=60)
    peek_every: timedelta = timedelta(seconds=1)
    retry_first: timedelta = timedelta(seconds=1)
    retry_most: timedelta = timedelta(seconds=60)
    stale_after: timedelta = timedelta(seconds=30)


class KeyManager(Generic[R]):
    """
    Holds the ring that serves and says when to look for another.

    Reading `ring` needs no lock. The driver calls the other methods from one thread at a time.

    Args:
        policy: the intervals.
        chance: a number from 0 up to 1, asked for once a load, for the jitter.
    """

    def __init__(
        self,
        policy: RefreshPolicy | None = None,
        *,
        chance: Callable[[], float] = _CHANCE.random,
    ) -> None:
        self.policy = policy or RefreshPolicy()
        self.ring: R | None = None
        self.error: Exception | None = None
        self.loaded_at: datetime | None = None
        self.confirmed_at: datetime | None = None
        self._fresh: tuple[datetime, datetime] | None = None
        self.failures = 0
        self._chance = chance
        self._wanted = True
        self._reload_after = self.policy.reload_every
        self._failed_at: datetime | None = None
        self._retry_after = timedelta()
        self._probed_at: datetime | None = None
        self._unknown_at: datetime | None = None

    # --- what happened ---------------------------------------------------------------------

    def loaded(self, ring: R, now: datetime) -> None:
        """
        Take a ring that was read whole; it serves from here on.
        """
        self.ring = ring
        self.loaded_at = self._probed_at = now
        self._confirmed(now)
        self._reload_after = self.policy.reload_every * (1 - _JITTER * self._chance())
        self._wanted = False
        self._recovered()

    def adopted(self, ring: R, now: datetime) -> None:
        """
        Take a ring that was read whole and has trouble: it serves, and `failed` comes next.
        """
        self.ring = ring
        self.loaded_at = now
        self._confirmed(now)

    def probed(self, now: datetime, *, changed: bool) -> None:
        """
        Take the answer of a probe: the store's content differs from what serves, or not.
        """
        self._probed_at = now
        if changed:
            self._wanted = True
            return
        if not self._wanted:
            self._confirmed(now)
            self._recovered()

    def failed(self, error: Exception, now: datetime) -> None:
        """
        Take the failure of a load or a probe; the ring that serves goes on serving.

        Where the error says how long to wait (`retry_after`), the pause is not shorter.
        """
        self.error = error
        self.failures += 1
        self._failed_at = self._probed_at = now
        self._wanted = True
        pause = self.policy.retry_first * 2 ** min(self.failures - 1, 16)
        pause = min(pause, self.policy.retry_most)
        pause *= 1 - _JITTER * self._chance()
        asked = getattr(error, "retry_after", None)
        if asked is not None:
            # Who was asked to wait comes no earlier, and not together with all others.
            wait = min(timedelta(seconds=asked), _MOST_ASKED_FOR)
            pause = max(pause, wait * (1 + _JITTER * self._chance()))
        self._retry_after = pause

    def notified(self) -> None:
        """
        Take the news that the stored ring changed: a load is wanted at once.
        """
        self._wanted = True
        self._failed_at = None

    def may_seek(self, now: datetime) -> bool:
        """
        Say whether `unknown_id` would grant a reload; changes nothing, and needs no turn.
        """
        return _due(self._unknown_at, self.policy.unknown_id_every, now)

    def unknown_id(self, now: datetime) -> bool:
        """
        Say whether an id that the ring does not hold may cause a reload now.

        Ids come from attackers, so this is granted once in `unknown_id_every` and no more.
        """
        if not self.may_seek(now):
            return False
        self._unknown_at = now
        return True

    def may_peek(self, now: datetime) -> bool:
        """
        Say whether an id that the ring does not hold may cause a probe before its time.

        So a key that was made a moment ago, on another node, is found although a reload for
        unknown ids was granted lately.
        """
        return (
            self.ring is not None
            and self._failed_at is None
            and _due(self._probed_at, self.policy.peek_every, now)
        )

    # --- what is wanted --------------------------------------------------------------------

    def wants_load(self, now: datetime) -> bool:
        """
        Say whether the driver should read everything now.
        """
        if self._failed_at is not None:
            return _due(self._failed_at, self._retry_after, now)
        return self._wanted or _due(self.loaded_at, self._reload_after, now)

    def wants_probe(self, now: datetime) -> bool:
        """
        Say whether the driver should ask cheaply if the stored ring changed.
        """
        return (
            self.ring is not None
            and self._failed_at is None
            and _due(self._probed_at, self.policy.probe_every, now)
        )

    def next_look(self, now: datetime) -> datetime:
        """
        Return the earliest instant, from `now` on, at which something may be wanted.
        """
        if self.wants_load(now) or self.wants_probe(now):
            return now
        if self._failed_at is not None:
            return self._failed_at + self._retry_after
        if self._probed_at is None or self.loaded_at is None:
            return now
        return min(
            self._probed_at + self.policy.probe_every,
            self.loaded_at + self._reload_after,
        )

    def is_after_pause(self, now: datetime) -> bool:
        """
        Say whether nobody asked for two probe intervals if the ring is still what it was.

        A store that was asked and failed makes no such pause: nobody waits for it again.
        """
        if self.confirmed_at is None or self.error is not None:
            return False
        return abs(now - self.confirmed_at) >= 2 * self.policy.probe_every

    def is_stale(self, now: datetime) -> bool:
        """
        Say whether nobody could confirm the ring for longer than `stale_after`.
        """
        fresh = self._fresh
        # Asked for each token that is signed, so it compares and computes nothing.
        return fresh is None or not fresh[0] <= now < fresh[1]

    def _confirmed(self, now: datetime) -> None:
        self.confirmed_at = now
        interval = self.policy.stale_after
        # Before the first instant the clock was set back: nobody knows for how long.
        self._fresh = (now - interval, now + interval)

    def _recovered(self) -> None:
        self.error = None
        self.failures = 0
        self._failed_at = None


def _due(since: datetime | None, interval: timedelta, now: datetime) -> bool:
    if since is None:
        return True
    elapsed = now - since
    # A clock that was set back would otherwise put the next look off by as much.
    return elapsed >= interval or elapsed < -interval
