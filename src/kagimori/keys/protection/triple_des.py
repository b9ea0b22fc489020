"""
Payloads under Triple DES with HMAC, which custom managed and CNG configurations may name.

`aspnet-data-protection.md` 1.5 and 1.6: the formulas are those of AES-CBC with blocks of 8
bytes, and the modifier still has 16. No key of ours is ever made for it; a ring that has one
goes on working until it rotates.
"""

from __future__ import annotations

import hmac
from secrets import token_bytes

from kagimori.crypto.aead import REFUSED
from kagimori.crypto.kdf import CounterKdf
from kagimori.crypto.triple_des import BLOCK_BYTES, cbc_decrypt, cbc_encrypt
from kagimori.errors import ProtectionError
from kagimori.keys.protection.algorithms import ProtectionAlgorithm
from kagimori.keys.protection.frame import HEADER_BYTES, MAGIC

_MODIFIER_BYTES = 16
_BODY = HEADER_BYTES + _MODIFIER_BYTES


class TripleDesSealer:
    """
    3DES-CBC: body = modifier (16) || iv (8) || ciphertext || HMAC(iv || ciphertext).
    """

    __slots__ = ("_algorithm", "_derive", "_header")

    def __init__(
        self, kdf: CounterKdf, algorithm: ProtectionAlgorithm, key_id: bytes, aad: bytes
    ) -> None:
        length = algorithm.key_bytes + algorithm.mac_bytes
        self._derive = kdf.bind(aad, algorithm.context_header, length).derive
        self._header = MAGIC + key_id
        self._algorithm = algorithm

    def seal(self, plaintext: bytes) -> bytes:
        """
        Return a fresh payload.
        """
        modifier, iv = token_bytes(_MODIFIER_BYTES), token_bytes(BLOCK_BYTES)
        key, mac_key = self._keys(modifier)
        sealed = iv + cbc_encrypt(key, iv, plaintext)
        tag = hmac.digest(mac_key, sealed, self._algorithm.mac)
        return self._header + modifier + sealed + tag

    def open(self, payload: bytes) -> bytes:
        """
        Return the plaintext of a payload.

        Raises:
            ProtectionError: altered, cut short, or sealed for other purposes.
        """
        tag_bytes = self._algorithm.mac_bytes
        if len(payload) < _BODY + 2 * BLOCK_BYTES + tag_bytes:
            raise ProtectionError(REFUSED, detail="the payload is cut short")
        key, mac_key = self._keys(payload[HEADER_BYTES:_BODY])
        sealed, tag = payload[_BODY:-tag_bytes], payload[-tag_bytes:]
        expected = hmac.digest(mac_key, sealed, self._algorithm.mac)
        if not hmac.compare_digest(expected, tag):
            raise ProtectionError(REFUSED, detail="HMAC does not verify")
        return cbc_decrypt(key, sealed[:BLOCK_BYTES], sealed[BLOCK_BYTES:])

    def _keys(self, modifier: bytes) -> tuple[bytes, bytes]:
        keys = self._derive(modifier)
        end = self._algorithm.key_bytes
        return keys[:end], keys[end:]
