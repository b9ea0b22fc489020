"""
What protecting and opening need at one moment: an immutable value, good for a short window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kagimori.keys.manager import KeyManager
from kagimori.keys.protection.contents import Contents
from kagimori.keys.protection.key import ProtectionKey

_BACK = timedelta(seconds=5)
_BUSY = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Serving:
    """
    What uses need, good from `begins` until `ends`.
    """

    begins: datetime
    ends: datetime
    current: ProtectionKey | None
    by_id: Mapping[bytes, ProtectionKey] = field(repr=False)


NEVER = datetime.max.replace(tzinfo=UTC)
NOTHING = Serving(NEVER, NEVER, None, {})


def window(contents: Contents, manager: KeyManager[Contents], now: datetime) -> Serving:
    """
    Say what of a ring serves at `now`, and for how long nobody need ask again.
    """
    # No I/O here: keys that were not unwrapped at the load do not protect.
    current = next(
        (key for key in contents.candidates(now) if key.material.is_open), None
    )
    # While a look after a pause is under way, no use goes by without seeing it.
    is_open = not manager.is_after_pause(now)
    ends = max(manager.next_look(now), now + _BUSY) if is_open else now
    turn = contents.next_turn(now)
    if turn is not None:
        ends = min(ends, turn)
    return Serving(now - _BACK, ends, current, contents.by_raw_id)
