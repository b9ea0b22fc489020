"""
What protecting and opening need at one moment: an immutable value, good for a short window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kagimori.keys.protection.key import ProtectionKey


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
