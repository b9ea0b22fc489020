"""
Key derivation: HKDF (RFC 5869) and NIST SP 800-108 in counter mode.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_BLOCK = 64


def hkdf_sha256(
    secret: bytes, *, salt: bytes | None, info: bytes, length: int
) -> bytes:
    """
    Derive `length` bytes by HKDF-SHA-256 (RFC 5869).
    """
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


class BoundKdf:
    """
    A derivation whose label, leading context and length are fixed, and hashed once.

    What varies from call to call is the end of the context only. Safe to share between threads.
    """

    __slots__ = ("_blocks", "_length", "_suffix")

    def __init__(self, keyed: HMAC, label: bytes, context: bytes, length: int) -> None:
        self._length = length
        self._suffix = (length * 8).to_bytes(4, "big")
        blocks = []
        for index in range(1, -(-length // _BLOCK) + 1):
            block = keyed.copy()
            block.update(index.to_bytes(4, "big") + label + b"\x00" + context)
            blocks.append(block)
        self._blocks = tuple(blocks)

    def derive(self, context: bytes) -> bytes:
        """
        Return the bytes for a context that ends in `context`.
        """
        end = context + self._suffix
        if len(self._blocks) == 1:
            block = self._blocks[0].copy()
            block.update(end)
            return block.finalize()[: self._length]
        output = b""
        for keyed in self._blocks:
            block = keyed.copy()
            block.update(end)
            output += block.finalize()
        return output[: self._length]

    def __reduce__(self) -> str:
        raise TypeError("key material is not pickled")


class CounterKdf:
    """
    NIST SP 800-108 in counter mode with HMAC-SHA-512, as ASP.NET Core Data Protection uses it.

    Block i = HMAC-SHA-512(master, BE32(i) || label || 00 || context || BE32(bits of all output)).
    The master key is hashed once, when this is made. Safe to share between threads.

    Args:
        master: the master key, of any length.
    """

    __slots__ = ("_keyed",)

    def __init__(self, master: bytes) -> None:
        self._keyed = HMAC(master, hashes.SHA512())

    def derive(self, label: bytes, context: bytes, length: int) -> bytes:
        """
        Return `length` bytes for a label and a context.
        """
        return self.bind(label, context, length).derive(b"")

    def bind(self, label: bytes, context: bytes, length: int) -> BoundKdf:
        """
        Fix all but the end of the context, for callers who derive often.
        """
        return BoundKdf(self._keyed, label, context, length)

    def __reduce__(self) -> str:
        raise TypeError("key material is not pickled")
