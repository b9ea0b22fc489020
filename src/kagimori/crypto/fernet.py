"""
Reading Fernet tokens, for those who move from them to a ring.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from kagimori.errors import InvalidKeyError

__all__ = ["FernetKeys", "InvalidToken"]


class FernetKeys:
    """
    Opens the tokens of any of several Fernet keys.

    Args:
        keys: as `cryptography.fernet.Fernet.generate_key` made them.

    Raises:
        InvalidKeyError: one of them is no Fernet key.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        try:
            self._keys = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            # Not chained: the message may quote the key.
            raise InvalidKeyError("This is no Fernet key.") from None

    def decrypt(self, token: bytes) -> bytes:
        """
        Return what a token holds, however old it is.

        Raises:
            InvalidToken: altered, or of another key.
        """
        return self._keys.decrypt(token)

    def extract_timestamp(self, token: bytes) -> int:
        """
        Return when a token was made, in POSIX seconds.

        Raises:
            InvalidToken: altered, or of another key.
        """
        return self._keys.extract_timestamp(token)

    def __repr__(self) -> str:
        return "<FernetKeys>"
