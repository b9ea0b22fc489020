"""
The keys of one use at one moment: who signs, who verifies.

Rules of this module:

1. A lineup is immutable. Everything is a function of it and of ``now``.
2. A *line* is a row of keys that succeed each other. Signing keys have one line per algorithm,
   side by side; protection and cookie keys have one line in all.
3. Whatever the times say, at most one key of a line is current, and a line that has been
   activated once has a current key until a verb ends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, Self, TypeVar

from kagimori.keys.timeline import KeyState, KeyTimeline, KeyUse


class RingKey(Protocol):
    """
    What a ring has to know of a key; the material is none of its business.
    """

    @property
    def id(self) -> str:
        """
        Return the key's id: the ``kid`` of a signing key.
        """
        ...

    @property
    def algorithm(self) -> str:
        """
        Return the name of the key's one algorithm.
        """
        ...

    @property
    def timeline(self) -> KeyTimeline:
        """
        Return the key's times.
        """
        ...

    def with_timeline(self, timeline: KeyTimeline) -> Self:
        """
        Return the same key with other times.
        """
        ...


K = TypeVar("K", bound=RingKey)

_ORDER = {
    KeyState.CURRENT: 0,
    KeyState.NEXT: 1,
    KeyState.PREVIOUS: 2,
    KeyState.RETIRED: 3,
    KeyState.REVOKED: 4,
}


@dataclass(frozen=True, slots=True)
class Lineup(Generic[K]):
    """
    All keys of one use.

    Attributes:
        use: what the keys are for.
        keys: all of them, in the order in which they entered.
        generation: raised by every verb; 0 means that there has been none.
        default_algorithm: the default as of the last verb; ask `default` for the present one.
        pending_default: the id of a key whose algorithm becomes the default when it activates.
        changed: when the last verb was.
    """

    use: KeyUse
    keys: tuple[K, ...] = ()
    generation: int = 0
    default_algorithm: str = ""
    pending_default: str | None = None
    changed: datetime | None = None

    def __iter__(self) -> Iterator[K]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def get(self, id_: str) -> K | None:
        """
        Return the key with this id, ``None`` where there is none.
        """
        for key in self.keys:
            if key.id == id_:
                return key
        return None

    def state(self, key: K, now: datetime) -> KeyState:
        """
        Return the state of a key at `now`.
        """
        return key.timeline.state(now, self.use)

    def default(self, now: datetime) -> str:
        """
        Return the algorithm that those who name none get at `now`.
        """
        pending = self.get(self.pending_default) if self.pending_default else None
        if pending is not None and pending.timeline.activates <= now:
            return pending.algorithm
        return self.default_algorithm

    def line(self, algorithm: str | None, now: datetime) -> tuple[K, ...]:
        """
        Return the keys of the line of an algorithm; ``None`` means the default's.
        """
        if self.use is not KeyUse.SIGNING:
            return self.keys
        wanted = self.default(now) if algorithm is None else algorithm
        return tuple(key for key in self.keys if key.algorithm == wanted)

    def current(self, now: datetime, algorithm: str | None = None) -> K | None:
        """
        Return the key that signs or protects at `now`.

        ``None`` means that the line has none: its first key has not been activated yet, or the
        line was ended, or there never was one.
        """
        best: K | None = None
        for key in self.line(algorithm, now):
            if self.state(key, now) is not KeyState.CURRENT:
                continue
            if best is None or key.timeline.activates > best.timeline.activates:
                best = key
        return best

    def next_(self, algorithm: str | None, now: datetime) -> K | None:
        """
        Return the key that waits to become current, the earliest where there are several.
        """
        waiting = [
            key
            for key in self.line(algorithm, now)
            if self.state(key, now) is KeyState.NEXT
        ]
        return min(waiting, key=lambda key: key.timeline.activates, default=None)

    def algorithms(self, now: datetime) -> tuple[str, ...]:
        """
        Return the algorithms that have a current key at `now`, the default first.
        """
        default = self.default(now)
        names = {
            key.algorithm
            for key in self.keys
            if self.state(key, now) is KeyState.CURRENT
        }
        return tuple(sorted(names, key=lambda name: (name != default, name)))

    def verifying(self, now: datetime) -> tuple[K, ...]:
        """
        Return the keys that verify or unprotect at `now`: CURRENT, NEXT, then PREVIOUS.

        For signing keys this is what the JWKS holds.
        """
        return tuple(key for key in self.ordered(now) if self.state(key, now).verifies)

    def ordered(self, now: datetime) -> tuple[K, ...]:
        """
        Return all keys: by state, the default algorithm first, the younger before the older.
        """
        default = self.default(now)

        def rank(key: K) -> tuple[int, bool, str, float, str]:
            return (
                _ORDER[self.state(key, now)],
                key.algorithm != default,
                key.algorithm,
                -key.timeline.activates.timestamp(),
                key.id,
            )

        return tuple(sorted(self.keys, key=rank))
