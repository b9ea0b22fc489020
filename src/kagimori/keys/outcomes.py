"""
What the verbs of a ring answer, and what they have to be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Generic

from kagimori.keys.lineup import K
from kagimori.keys.timeline import KeyState

if TYPE_CHECKING:
    from kagimori.keys.ring import KeyRing


@dataclass(frozen=True, slots=True)
class RingChange(Generic[K]):
    """
    What a verb did.

    Attributes:
        verb: the verb's name.
        ring: the ring after it.
        key: the key that the verb was about, as it is now; as it was, when it is gone.
        predecessors: keys whose end the verb wrote, moved or took back.
        destroyed: ids of keys whose private material has to go in the same commit.
    """

    verb: str
    ring: KeyRing[K]
    key: K
    predecessors: tuple[K, ...] = ()
    destroyed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveTokens:
    """
    What is known of the tokens that a key has signed.

    Attributes:
        count: how many may be alive; ``None`` where nobody counts.
        until: when the last of them is over everywhere; ``None`` if there are none.
    """

    count: int | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Preview(Generic[K]):
    """
    What ending a key would cut.

    Attributes:
        key: the key.
        state: its state now.
        live: its tokens that would fail at once.
        safe_at: from when on nothing would be cut; ``None`` if nobody can tell.
    """

    key: K
    state: KeyState
    live: LiveTokens
    safe_at: datetime | None
