"""
What may be shown of a ring's keys, and what its verbs answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from kagimori.keys.protection.plan import Cut
from kagimori.keys.timeline import KeyState, KeyTimeline


class ProtectionKeyView(msgspec.Struct, frozen=True):
    """
    What may be shown of a key.

    Attributes:
        wrapped_by: the classes of the envelopes around its secret; empty for a clear key.
        reason: why it was made, moved or revoked, where somebody said.
        last_named: when a payload last named it, in this process, while another key protected.
        has_recovery: whether a second envelope guards it.
    """

    id: str
    algorithm: str
    timeline: KeyTimeline
    state: KeyState
    wrapped_by: tuple[str, ...]
    reason: str = ""
    last_named: datetime | None = None
    has_recovery: bool = False


class Ended(msgspec.Struct, frozen=True):
    """
    What a verb that ends keys brought about.

    Attributes:
        cuts: what it made unreadable, key by key; empty where there was nothing left to do.
        replacement: the key that took over because of it; ``None`` where another protects.
        generation: the ring's generation from here on.
    """

    cuts: tuple[Cut, ...]
    replacement: ProtectionKeyView | None
    generation: int


class Rewrapped(msgspec.Struct, frozen=True):
    """
    What wrapping a ring's keys anew brought about.

    Attributes:
        wrapper: what wraps them now.
        changed: the ids of the keys that were wrapped anew.
        unchanged: the ids of those that were wrapped so already.
        left: why a key could not be opened and stays as it is, by id.
    """

    wrapper: str
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    left: Mapping[str, str]


class Copied(msgspec.Struct, frozen=True):
    """
    What copying a ring brought about.

    Attributes:
        keys: the ids of the keys that were written.
        already: the ids of those that the target held.
        revocations: how many revocations were written.
    """

    keys: tuple[str, ...]
    already: tuple[str, ...]
    revocations: int


class GuardedKey(msgspec.Struct, frozen=True):
    """
    What guards one key.

    Attributes:
        wrapped_by: the classes of the envelopes around its secret; empty for a clear key.
        wrapping_key: the wrapping key and version that its envelope needs; ``None`` where the
            envelope does not say, or no wrapper named here knows.
        is_newest: whether a new key would be wrapped by the same version; ``None`` where the
            wrapper does not say.
        recovery_by: the class of its second envelope; empty where it has none.
        recovery_key: what the second envelope needs, as `wrapping_key`.
    """

    key_id: str
    state: KeyState
    wrapped_by: tuple[str, ...]
    wrapping_key: str | None
    is_newest: bool | None
    recovery_by: str = ""
    recovery_key: str | None = None
