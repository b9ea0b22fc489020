"""
What the commands for rings show of keys, as values for scripts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from kagimori.keys.protection.outcomes import GuardedKey, ProtectionKeyView


class RingKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """
    A key of a protection ring, as ``ring list --json`` has it.

    Attributes:
        wrapped_by: the classes of the envelopes around its secret; empty for a clear key.
        wrapping_key: the wrapping key and version that the envelope needs, where it says.
        is_newest: whether a new key would be wrapped by that version too.
        recovery_by: the class of its second envelope; empty where it has none.
    """

    id: str
    algorithm: str
    state: str
    created: datetime
    activates: datetime
    due: datetime | None
    retires: datetime | None
    revoked: datetime | None
    wrapped_by: tuple[str, ...]
    wrapping_key: str | None = None
    is_newest: bool | None = None
    recovery_by: str = ""
    recovery_key: str | None = None
    reason: str = ""


def outcome_of(
    key: ProtectionKeyView, guarded: GuardedKey | None = None
) -> RingKeyView:
    """
    Return the view of a key, with what guards it where that is known.
    """
    times = key.timeline
    return RingKeyView(
        id=key.id,
        algorithm=key.algorithm,
        state=key.state.value,
        created=times.created,
        activates=times.activates,
        due=times.due,
        retires=times.retires,
        revoked=times.revoked,
        wrapped_by=key.wrapped_by,
        wrapping_key=guarded.wrapping_key if guarded else None,
        is_newest=guarded.is_newest if guarded else None,
        recovery_by=guarded.recovery_by if guarded else "",
        recovery_key=guarded.recovery_key if guarded else None,
        reason=key.reason,
    )


@dataclass(frozen=True, slots=True)
class DrawnLife:
    """
    The times of a protection key as they are drawn: revocation closes it for good.
    """

    published: datetime | None
    activates: datetime | None
    due: datetime | None
    retires: datetime | None
    expires: datetime | None

    @classmethod
    def of(cls, key: RingKeyView) -> DrawnLife:
        """
        Return the life of a key.
        """
        retires = key.retires
        if key.revoked is not None:
            retires = min(key.revoked, retires or key.revoked)
            begins = min(key.activates, retires)
            return cls(key.created, begins, None, retires, key.revoked)
        return cls(key.created, key.activates, key.due, retires, None)
