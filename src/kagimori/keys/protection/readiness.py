"""
Opening the keys of a ring that are needed first.

Rules of this module:

1. Needed first are the key that protects, those that wait for their turn, and the one that
   protected last: what it made is still about. All others cost the vault nothing until a
   payload names them.
2. They are opened at the same time, one call of the wrapper each. A vault that does not answer
   is not asked for the next key too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kagimori.errors import KagimoriError
from kagimori.keys.protection.contents import Contents
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.parallel import in_parallel

MOST_TRIED = 8
"""How many keys are tried, at most, where one after the other cannot be read."""

MOST_WAITING = 3
"""How many waiting keys are opened ahead; one is the rule."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """
    What of a ring can be used.

    Attributes:
        protecting: the key that can protect; ``None`` where none can be read.
        worry: why a key that is needed, or a better one, cannot be read.
    """

    protecting: ProtectionKey | None
    worry: KagimoriError | None


def open_needed(contents: Contents, now: datetime) -> Readiness:
    """
    Unwrap what is needed first, and say what protects.
    """
    best = contents.current(now)
    if best is None:
        return Readiness(None, None)
    # So that the switch to a waiting key needs no vault at that instant.
    waiting = contents.waiting(now)[:MOST_WAITING]
    needed = list(dict.fromkeys([best, *waiting, *_last(contents, now, best)]))
    closed = [key for key in needed if not key.material.is_open]
    failures = in_parallel([_Attempt(key).failure for key in closed])
    for key in needed:
        key.material.retry()
    troubles = [one.material.trouble for one in needed]
    worry = next((one for one in (*failures, *troubles) if one is not None), None)
    if best.material.is_open:
        return Readiness(best, worry)
    return Readiness(_next_best(contents, now), worry)


def _last(
    contents: Contents, now: datetime, best: ProtectionKey
) -> list[ProtectionKey]:
    """
    Return the key that protected before `best`, if there is one.
    """
    active = [
        key
        for key in contents.keys
        if not key.is_revoked and key.timeline.activates <= now and key is not best
    ]
    return active[-1:]


def _next_best(contents: Contents, now: datetime) -> ProtectionKey | None:
    silent: set[tuple[str, ...]] = set()
    tried = 0
    for key in contents.candidates(now):
        if key.material.is_open:
            return key
        if key.stored.decryptors in silent or tried == MOST_TRIED:
            continue
        tried += 1
        failure = _Attempt(key).failure()
        if failure is None:
            return key
        if getattr(failure, "transient", False):
            silent.add(key.stored.decryptors)
    return None


class _Attempt:
    """
    One key to open.
    """

    def __init__(self, key: ProtectionKey) -> None:
        self._key = key

    def failure(self) -> KagimoriError | None:
        """
        Open it; return why that did not work.
        """
        try:
            self._key.material.open()
        except KagimoriError as error:
            return error
        return None
