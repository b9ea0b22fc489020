"""
From Fernet to a ring: old tokens are read, new ones are written.

A ring's tokens and Fernet's differ in their first bytes (``CfDJ8…`` and ``gAAAA…``), so none is
tried as the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from kagimori.clock import seconds
from kagimori.crypto.fernet import FernetKeys, InvalidToken
from kagimori.errors import ProtectionError
from kagimori.keys.protection.ring import ProtectionRing

__all__ = ["InvalidToken", "RingFernet"]

_STAMP_BYTES = 8
# The version byte 0x80 and the upper half of a time before the year 2106, in base64url.
_FERNET = b"gAAAA"


class RingFernet:
    """
    In the place of ``Fernet`` and ``MultiFernet``: same methods, same exception.

    Args:
        purpose: what the tokens are for; what was encrypted for one purpose opens for no other.
        old: the Fernet keys whose tokens are still read; none when their time is over.

    Raises:
        InvalidKeyError: one of the old keys is no Fernet key.
    """

    def __init__(
        self,
        ring: ProtectionRing,
        *,
        purpose: str = "fernet",
        old: Sequence[str | bytes] = (),
    ) -> None:
        self._ring = ring
        self._protector = ring.protector("kagimori.fernet.v1", purpose)
        self._old = FernetKeys(old) if old else None

    def encrypt(self, data: bytes) -> bytes:
        """
        Return a token that holds `data`.

        Raises:
            KeyRingError: no key can protect now.
        """
        return self._seal(data, seconds(self._ring.now()))

    def decrypt(self, token: bytes | str, ttl: int | None = None) -> bytes:
        """
        Return what a token holds, new or old.

        Args:
            ttl: seconds after which a token is refused; ``None`` for never.

        Raises:
            InvalidToken: altered, too old, of another ring, or of another key.
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        data, made = self._open(token)
        if ttl is not None and seconds(self._ring.now()) > made + ttl:
            raise InvalidToken
        return data

    def rotate(self, token: bytes | str) -> bytes:
        """
        Return the token anew, under the ring's current key; its time stays.

        Raises:
            InvalidToken: altered, of another ring, or of another key.
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
            KeyRingError: no key can protect now.
        """
        return self._seal(*self._open(token))

    def extract_timestamp(self, token: bytes | str) -> int:
        """
        Return when a token was made, in POSIX seconds.

        Raises:
            InvalidToken: altered, of another ring, or of another key.
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        return self._open(token)[1]

    def _seal(self, data: bytes, made: int) -> bytes:
        stamp = made.to_bytes(_STAMP_BYTES, "big")
        return self._protector.protect(stamp + data).encode()

    def _open(self, token: bytes | str) -> tuple[bytes, int]:
        raw = token.encode() if isinstance(token, str) else bytes(token)
        if raw.startswith(_FERNET):
            if self._old is None:
                raise InvalidToken
            return self._old.decrypt(raw), self._old.extract_timestamp(raw)
        try:
            content = self._protector.unprotect(raw.decode("latin-1")).payload
        except ProtectionError as error:
            if error.transient:
                raise
            raise InvalidToken from None
        return content[_STAMP_BYTES:], int.from_bytes(content[:_STAMP_BYTES], "big")
