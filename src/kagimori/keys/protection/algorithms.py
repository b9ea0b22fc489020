"""
The algorithms of a protection ring, as one table.

`aspnet-data-protection.md` 1.4 to 1.6. A row says all there is to say; the code that seals and
opens knows only rows. Custom managed and CNG descriptors make rows of their own.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import new as new_hash

from kagimori.crypto.aead import (
    BLOCK_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    cbc_encrypt,
    gcm_seal,
)
from kagimori.crypto.kdf import CounterKdf

DEFAULT = "AES_256_GCM"
"""What new rings use."""

AES = "AES"
TRIPLE_DES = "3DES"
"""Of custom configurations only; no key of ours is made for it."""


@dataclass(frozen=True, slots=True)
class ProtectionAlgorithm:
    """
    How payloads under a key are encrypted and authenticated.

    Attributes:
        name: our name of the combination, such as ``AES_256_CBC_HMACSHA256``.
        key_bytes: the length of the encryption key.
        mac: the digest of the HMAC; empty for GCM.
        cipher: `AES` or `TRIPLE_DES`.
    """

    name: str
    key_bytes: int
    mac: str = ""
    cipher: str = AES

    @property
    def is_gcm(self) -> bool:
        """
        Whether this is AES-GCM; otherwise it is CBC with HMAC.
        """
        return not self.mac

    @property
    def mac_bytes(self) -> int:
        """
        The length of the HMAC's key and of its output; 0 for GCM.
        """
        return new_hash(self.mac).digest_size if self.mac else 0

    @property
    def block_bytes(self) -> int:
        """
        The length of a block of the cipher, and of CBC's IV.
        """
        return BLOCK_BYTES if self.cipher == AES else 8

    @property
    def context_header(self) -> bytes:
        """
        The bytes that bind a derived key to this algorithm (1.4).
        """
        return _context_header(self)


@lru_cache(maxsize=64)
def _context_header(row: ProtectionAlgorithm) -> bytes:
    key_bytes, mac, mac_bytes = row.key_bytes, row.mac, row.mac_bytes
    keys = CounterKdf(b"").derive(b"", b"", key_bytes + mac_bytes)
    key, mac_key = keys[:key_bytes], keys[key_bytes:]
    if not mac:
        sizes = (key_bytes, NONCE_BYTES, BLOCK_BYTES, TAG_BYTES)
        tag = gcm_seal(key, bytes(NONCE_BYTES), b"")
        return b"\x00\x01" + _be32(sizes) + tag
    sizes = (key_bytes, row.block_bytes, mac_bytes, mac_bytes)
    iv = bytes(row.block_bytes)
    if row.cipher == TRIPLE_DES:
        # Not at the top: most programs never meet it.
        from kagimori.crypto import triple_des  # noqa: PLC0415

        block = triple_des.cbc_encrypt(key, iv, b"")
    else:
        block = cbc_encrypt(key, iv, b"")
    return b"\x00\x00" + _be32(sizes) + block + hmac.digest(mac_key, b"", mac)


def _be32(numbers: tuple[int, ...]) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def cbc_hmac(key_bits: int, mac: str) -> ProtectionAlgorithm:
    """
    Return the row for AES-CBC of `key_bits` with the HMAC of a digest such as ``sha256``.
    """
    name = f"AES_{key_bits}_CBC_HMAC{mac.upper()}"
    return ProtectionAlgorithm(name, key_bits // 8, mac)


def triple_des_hmac(key_bits: int, mac: str) -> ProtectionAlgorithm:
    """
    Return the row for Triple DES in CBC mode with the HMAC of a digest.

    Args:
        key_bits: 192, or 128 for two keys.
    """
    name = f"{TRIPLE_DES}_{key_bits}_CBC_HMAC{mac.upper()}"
    return ProtectionAlgorithm(name, key_bits // 8, mac, TRIPLE_DES)


def gcm(key_bits: int) -> ProtectionAlgorithm:
    """
    Return the row for AES-GCM of `key_bits`.
    """
    return ProtectionAlgorithm(f"AES_{key_bits}_GCM", key_bits // 8)


ALGORITHMS: Mapping[str, ProtectionAlgorithm] = {
    row.name: row
    for bits in (128, 192, 256)
    for row in (cbc_hmac(bits, "sha256"), cbc_hmac(bits, "sha512"), gcm(bits))
}
"""The nine algorithms of the specification, by our names."""
