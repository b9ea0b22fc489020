"""
The ledger: what a signing key has signed that may still be alive.

Rules of this module:

1. Before the first token beyond a key's high-water expiry leaves the server, a higher one is
   committed. So whatever crashes, no living token lies beyond it.
2. Counts per expiry minute follow later, each second and at drain. They are for people
   ("how many would this cut"); safety stands on the high-water alone.
3. Two instances merge: high-waters by the greater, counts by the sum. Nothing is lowered.
4. A ledger is bounded: what is over is forgotten, and many minutes become coarser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from kagimori.clock import from_seconds
from kagimori.keys.lineup import RingKey
from kagimori.keys.outcomes import LiveTokens

MINUTE = 60

LOOK_AHEAD = timedelta(seconds=10)
"""How long before a reservation is used up the next one is made, while a key is busy."""

MAX_MINUTES = 240
"""How many counts one key keeps before neighbours are merged."""


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What is known of one key's tokens. Times are whole POSIX seconds.

    Attributes:
        high: no token of this key expires later.
        tolerance: how much longer verifiers may accept one, in seconds.
        counts: tokens by the end of the minute in which they expire.
    """

    high: int = 0
    tolerance: int = 0
    counts: dict[int, int] = {}

    @property
    def until(self) -> datetime:
        """
        When the last token is over everywhere.
        """
        return from_seconds(self.high + self.tolerance)


class LedgerDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The ledger of one ring.

    Attributes:
        since: keys published earlier may have signed what stands in no ledger.
        entries: by kid.
    """

    since: datetime
    entries: dict[str, LedgerEntry] = {}

    def reserved(
        self, kid: str, until: datetime, tolerance: timedelta
    ) -> LedgerDocument:
        """
        Return the ledger with room for tokens of a key up to `until`.
        """
        entry = self.entries.get(kid, LedgerEntry())
        entry = msgspec.structs.replace(
            entry,
            high=max(entry.high, minute_end(until)),
            tolerance=max(entry.tolerance, int(tolerance.total_seconds())),
        )
        return msgspec.structs.replace(self, entries={**self.entries, kid: entry})

    def counted(
        self, counts: Mapping[str, Mapping[int, int]], now: datetime
    ) -> LedgerDocument:
        """
        Return the ledger with further tokens, and without what is over.

        Args:
            counts: by kid and end of the expiry minute.
        """
        entries = {}
        for kid, entry in self.entries.items():
            merged = dict(entry.counts)
            for minute, count in counts.get(kid, {}).items():
                merged[minute] = merged.get(minute, 0) + count
            over = int(now.timestamp()) - entry.tolerance
            alive = {minute: n for minute, n in merged.items() if minute > over}
            entries[kid] = msgspec.structs.replace(entry, counts=_bounded(alive))
        return msgspec.structs.replace(self, entries=entries)

    def without(self, kids: Iterable[str]) -> LedgerDocument:
        """
        Return the ledger without keys that have left the ring.
        """
        gone = frozenset(kids)
        kept = {kid: entry for kid, entry in self.entries.items() if kid not in gone}
        return msgspec.structs.replace(self, entries=kept)

    def is_whole(self, key: RingKey) -> bool:
        """
        Whether everything that the key has signed stands here.
        """
        return key.timeline.published >= self.since


def last_expiries(
    ledger: LedgerDocument | None, keys: Iterable[RingKey]
) -> Mapping[str, datetime | None]:
    """
    Return per key when its last token is over everywhere, as `KeyRing.settle` wants it.

    A key that has signed nothing is left out; ``None`` where nobody can tell.
    """
    last: dict[str, datetime | None] = {}
    for key in keys:
        if ledger is None or not ledger.is_whole(key):
            last[key.id] = None
        elif key.id in ledger.entries:
            last[key.id] = ledger.entries[key.id].until
    return last


def live_tokens(
    ledger: LedgerDocument | None, key: RingKey, now: datetime
) -> LiveTokens:
    """
    Return what is known of a key's living tokens.
    """
    if ledger is None or not ledger.is_whole(key):
        return LiveTokens()
    entry = ledger.entries.get(key.id)
    if entry is None or entry.until <= now:
        return LiveTokens(0)
    over = now.timestamp() - entry.tolerance
    count = sum(n for minute, n in entry.counts.items() if minute > over)
    return LiveTokens(count, entry.until)


def minute_end(instant: datetime) -> int:
    """
    Return the end of the minute in which an instant lies, in POSIX seconds.
    """
    return -int(-instant.timestamp() // MINUTE) * MINUTE


def _bounded(counts: dict[int, int]) -> dict[int, int]:
    while len(counts) > MAX_MINUTES:
        # Pairs fall together into the later minute: a count may stay too long, never too short.
        minutes = sorted(counts)
        coarser: dict[int, int] = {}
        for earlier, later in zip(minutes[::2], minutes[1::2], strict=False):
            coarser[later] = counts[earlier] + counts[later]
        if len(minutes) % 2:
            coarser[minutes[-1]] = counts[minutes[-1]]
        counts = coarser
    return counts


class LedgerBook:
    """
    One process's own part of a ledger: what it has reserved, and what it has yet to count.
    """

    __slots__ = ("_counts", "_last", "_reserved")

    def __init__(self) -> None:
        self._reserved: dict[str, int] = {}
        self._counts: dict[str, dict[int, int]] = {}
        self._last: dict[str, int] = {}

    def take(self, kid: str, until: datetime) -> bool:
        """
        Count one token if its expiry lies within what is reserved; say whether it does.
        """
        end = int(until.timestamp())
        if end > self._reserved.get(kid, 0):
            return False
        minute = end if end % MINUTE == 0 else end - end % MINUTE + MINUTE
        counts = self._counts.get(kid)
        if counts is None:
            counts = self._counts[kid] = {}
        counts[minute] = counts.get(minute, 0) + 1
        if end > self._last.get(kid, 0):
            self._last[kid] = end
        return True

    def reserved(self, kid: str, until: datetime) -> None:
        """
        Note what has been committed for a key.
        """
        self._reserved[kid] = max(self._reserved.get(kid, 0), minute_end(until))

    def running_short(self) -> tuple[tuple[str, datetime], ...]:
        """
        Return the keys used since the last call whose reservation is nearly used up.

        Each comes with the expiry to reserve for.
        """
        last, self._last = self._last, {}
        ahead = int(LOOK_AHEAD.total_seconds())
        return tuple(
            (kid, from_seconds(end + ahead))
            for kid, end in last.items()
            if end + ahead > self._reserved.get(kid, 0)
        )

    def drain(self) -> dict[str, dict[int, int]]:
        """
        Hand over what has been counted since the last call.
        """
        counts, self._counts = self._counts, {}
        return counts

    def refill(self, counts: Mapping[str, Mapping[int, int]]) -> None:
        """
        Take back what could not be written.
        """
        for kid, minutes in counts.items():
            mine = self._counts.setdefault(kid, {})
            for minute, count in minutes.items():
                mine[minute] = mine.get(minute, 0) + count
