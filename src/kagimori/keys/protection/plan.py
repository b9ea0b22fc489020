"""
What a verb decided: a change of a ring, before it is committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from kagimori.events import Severity
from kagimori.keys.store import Element
from kagimori.keys.timeline import KeyState

Tale = tuple[str, Severity, Mapping[str, str]]
"""An event to tell once the change is committed: name, severity, fields."""


class Birth(msgspec.Struct, frozen=True):
    """
    A key to be made.

    Attributes:
        activates: when it takes over.
        expires: .NET's expirationDate.
        reason: why, for the ring's state.
    """

    activates: datetime
    expires: datetime
    reason: str = ""


class Cut(msgspec.Struct, frozen=True):
    """
    What a key's end invalidates: payloads that were made under it can no longer be opened.

    Attributes:
        key_id: the key.
        state: what it was before.
        since: from when on it protected; ``None`` where it never did.
        until: until when; the instant of the change for a key that was CURRENT.
    """

    key_id: str
    state: KeyState
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    A change to commit; one that is empty commits nothing.

    Attributes:
        birth: a key to make with it.
        add: elements to write; one whose name is there already replaces it.
        remove: names of elements to take away, in this order where it takes several steps.
        reasons: why, by key id; ``*`` stands for a revocation by date.
        cuts: what the change makes unreadable.
        heir: the key of the ring that takes over because of the change.
        tales: what to tell once it is done.
        entered: ids of added keys that come from another ring.
        is_note: whether to commit our state although nothing else changes.
    """

    birth: Birth | None = None
    add: tuple[Element, ...] = ()
    remove: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    cuts: tuple[Cut, ...] = ()
    heir: str | None = None
    tales: tuple[Tale, ...] = ()
    entered: tuple[str, ...] = ()
    is_note: bool = False

    @property
    def is_empty(self) -> bool:
        """
        Whether there is nothing to commit.
        """
        return not (self.birth or self.add or self.remove or self.is_note)


NOTHING_TO_DO = Plan()
