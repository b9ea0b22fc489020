"""
What unprotecting gives.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class Unprotected(msgspec.Struct, frozen=True, gc=False):
    """
    What a payload held.

    Attributes:
        payload: the bytes that were protected.
        needs_renewal: whether the key is no longer the current one; protect again when you can.
        key_id: the key that opened it.
        expires: when a time-limited payload ends, rounded down to the microsecond; ``None``
            where there is no limit.
    """

    payload: bytes
    needs_renewal: bool
    key_id: str
    expires: datetime | None = None

    def __repr__(self) -> str:
        return f"<Unprotected {len(self.payload)} bytes, key {self.key_id}>"


class DangerousUnprotected(msgspec.Struct, frozen=True, gc=False):
    """
    What a payload held whose key may be revoked: whoever stole that key may have made it.

    Attributes:
        payload: the bytes that somebody protected.
        needs_renewal: whether the key is revoked or no longer the current one.
        was_revoked: whether the key is revoked.
        key_id: the key that opened it.
        expires: as in `Unprotected`.
    """

    payload: bytes
    needs_renewal: bool
    was_revoked: bool
    key_id: str
    expires: datetime | None = None

    def __repr__(self) -> str:
        return f"<DangerousUnprotected {len(self.payload)} bytes, key {self.key_id}>"
