"""
Who follows whom: how the ends and the beginnings of keys are written on each other.

Rules of this module:

1. `retires` and `successor` of a key are always written together, equal to `activates` and
   `id` of the key that follows it.
2. Whoever takes a waiting key out of the ring takes its marks off its predecessors too.
3. Nothing is written before the last change of the ring: a clock that stands far behind
   writes no dates at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

import msgspec

from kagimori.keys import refusals
from kagimori.keys.lineup import K, Lineup, RingKey
from kagimori.keys.policy import CLOCK_SKEW, RotationPolicy
from kagimori.keys.timeline import KeyState, KeyTimeline, KeyUse


@dataclass(frozen=True, slots=True)
class Heritage:
    """
    What a key brings about besides taking over its line.

    Attributes:
        make_default: its algorithm becomes the default when it activates.
        end_old_default: the line of the old default ends at that instant.
    """

    make_default: bool = False
    end_old_default: bool = False


class Succession(Lineup[K]):
    """
    A `Lineup` that can be relinked; the verbs of `KeyRing` are made of these steps.
    """

    __slots__ = ()

    def _entered(self, now: datetime) -> Self:
        """
        Return the ring as every verb begins: with a default change that is due made final.
        """
        if self.changed is not None and now < self.changed - CLOCK_SKEW:
            raise refusals.clock_behind(self.changed, now)
        default = self.default(now)
        if default == self.default_algorithm:
            return self
        return replace(self, default_algorithm=default, pending_default=None)

    def _with(self, now: datetime, keys: tuple[K, ...]) -> Self:
        return type(self)(
            self.use,
            keys,
            self.generation + 1,
            self.default_algorithm,
            self.pending_default,
            now,
        )

    def _updated(self, keys: Sequence[K]) -> tuple[K, ...]:
        by_id = {key.id: key for key in keys}
        return tuple(by_id.get(key.id, key) for key in self.keys)

    def _select(self, ids: tuple[str, ...]) -> tuple[K, ...]:
        return tuple(key for key in self.keys if key.id in ids)

    def _predecessors(self, id_: str) -> tuple[str, ...]:
        return tuple(key.id for key in self.keys if key.timeline.successor == id_)

    def _require(self, id_: str, now: datetime, verb: str, *states: KeyState) -> K:
        key = self.get(id_)
        if key is None:
            raise refusals.no_such_key(id_, self.use)
        if self.state(key, now) not in states:
            raise refusals.wrong_state(key, self.state(key, now), verb)
        return key

    def _heritage(self, waiting: K, asked: Heritage) -> Heritage:
        ends = any(
            key.timeline.successor == waiting.id and key.algorithm != waiting.algorithm
            for key in self.keys
        )
        return Heritage(
            asked.make_default or self.pending_default == waiting.id,
            asked.end_old_default or (self.use is KeyUse.SIGNING and ends),
        )

    def _without_next(self, waiting: K, *, keep: bool = False) -> Self:
        """
        Return the ring as if `waiting` had not been announced.

        Args:
            keep: leave the key itself in the ring, for a verb that marks it.
        """
        keys = tuple(
            _freed(key, waiting) if key.timeline.successor == waiting.id else key
            for key in self.keys
            if keep or key.id != waiting.id
        )
        pending = self.pending_default
        return type(self)(
            self.use,
            keys,
            self.generation,
            self.default_algorithm,
            None if pending == waiting.id else pending,
            self.changed,
        )

    def _take_over(
        self, key: K, now: datetime, heritage: Heritage, *, takes_place: bool
    ) -> tuple[Self, K, tuple[K, ...]]:
        """
        Add `key`, whose dates are written, and write the end of those it follows.

        Args:
            takes_place: where the line is about to end, end in the place of the current key
                instead of refusing.

        Returns:
            The ring, the key as it stands in it, and those it follows.
        """
        at = key.timeline.activates
        followed: tuple[K, ...] = ()
        old = self.current(now, key.algorithm)
        if old is not None:
            end, heir = old.timeline.retires, old.timeline.successor
            if end is not None:
                if not takes_place:
                    raise refusals.line_ends(old)
                times = msgspec.structs.replace(
                    key.timeline, retires=max(end, at), successor=heir
                )
                key = key.with_timeline(times)
            followed = (ended_by(old, at, key.id),)
        ring = self
        if heritage.make_default and self.default_algorithm != key.algorithm:
            if self.pending_default is not None:
                raise refusals.default_waits(self.pending_default)
            if heritage.end_old_default:
                followed += self._end_default(key, now, at)
            ring = replace(self, pending_default=key.id)
        return ring._with(now, (*ring._updated(followed), key)), key, followed

    def _end_default(self, key: K, now: datetime, at: datetime) -> tuple[K, ...]:
        waiting = self.next_(self.default_algorithm, now)
        if waiting is not None:
            raise refusals.next_waits(waiting)
        old = self.current(now, self.default_algorithm)
        return () if old is None else (ended_by(old, at, key.id),)


def born(
    key: RingKey, now: datetime, activates: datetime, policy: RotationPolicy
) -> KeyTimeline:
    """
    Return the times of a key that enters a ring now.
    """
    return KeyTimeline(
        created=min(key.timeline.created, now),
        published=now,
        activates=activates,
        due=policy.due(activates),
    )


def moved(key: K, at: datetime) -> K:
    """
    Return a waiting key that takes over at another instant; its term stays as long.
    """
    times = key.timeline
    due = None if times.due is None else times.due - (times.activates - at)
    return key.with_timeline(msgspec.structs.replace(times, activates=at, due=due))


def ended_by(key: K, at: datetime, successor: str) -> K:
    """
    Return a key that stops signing when its successor begins.
    """
    return key.with_timeline(
        msgspec.structs.replace(key.timeline, retires=at, successor=successor)
    )


def put_off(key: K, now: datetime, policy: RotationPolicy) -> K:
    """
    Return a key whose `due` does not make the schedule publish a successor at once.
    """
    due = key.timeline.due
    if due is None or due - policy.propagation > now:
        return key
    return key.with_timeline(
        msgspec.structs.replace(key.timeline, due=now + policy.period)
    )


def _freed(key: K, waiting: K) -> K:
    """
    Return a key whose successor `waiting` is not to come.
    """
    # Within a line the key goes on for as long as its successor would have.
    same_line = key.algorithm == waiting.algorithm
    times = msgspec.structs.replace(
        key.timeline,
        retires=waiting.timeline.retires if same_line else None,
        successor=waiting.timeline.successor if same_line else None,
    )
    return key.with_timeline(times)
