"""
Sealing and opening payloads under one key for one chain of purposes.

`aspnet-data-protection.md` 1.3 to 1.5:

1. The encryption key, and with CBC the MAC key, are derived for each payload from the master
   key, with the AAD as label and (context header || 16 random bytes) as context. The AAD is
   given to neither GCM nor HMAC: the derivation binds it.
2. What does not vary between payloads is hashed once, when a sealer is made.
3. Every failure is the same `ProtectionError`; only `detail`, for the log, tells them apart.
"""

from __future__ import annotations

from secrets import token_bytes
from typing import Protocol

from kagimori.crypto.aead import (
    BLOCK_BYTES,
    NONCE_BYTES,
    REFUSED,
    TAG_BYTES,
    cbc_hmac_open,
    cbc_hmac_seal,
    gcm_open,
    gcm_seal,
)
from kagimori.crypto.kdf import CounterKdf
from kagimori.errors import ProtectionError
from kagimori.keys.protection.algorithms import TRIPLE_DES, ProtectionAlgorithm
from kagimori.keys.protection.frame import HEADER_BYTES, MAGIC

MODIFIER_BYTES = 16

_BODY = HEADER_BYTES + MODIFIER_BYTES


class Sealer(Protocol):
    """
    Seals and opens whole payloads, frame included.
    """

    def seal(self, plaintext: bytes) -> bytes:
        """
        Return a fresh payload.
        """
        ...

    def open(self, payload: bytes) -> bytes:
        """
        Return the plaintext of a payload whose magic and key id were checked.

        Raises:
            ProtectionError: altered, cut short, or sealed for other purposes.
        """
        ...


class GcmSealer:
    """
    AES-GCM: body = modifier (16) || nonce (12) || ciphertext || tag (16).
    """

    __slots__ = ("_derive", "_header")

    def __init__(
        self, kdf: CounterKdf, algorithm: ProtectionAlgorithm, key_id: bytes, aad: bytes
    ) -> None:
        bound = kdf.bind(aad, algorithm.context_header, algorithm.key_bytes)
        self._derive = bound.derive
        self._header = MAGIC + key_id

    def seal(self, plaintext: bytes) -> bytes:
        """
        Return a fresh payload.
        """
        chance = token_bytes(MODIFIER_BYTES + NONCE_BYTES)
        key = self._derive(chance[:MODIFIER_BYTES])
        sealed = gcm_seal(key, chance[MODIFIER_BYTES:], plaintext)
        return self._header + chance + sealed

    def open(self, payload: bytes) -> bytes:
        """
        Return the plaintext of a payload.

        Raises:
            ProtectionError: altered, cut short, or sealed for other purposes.
        """
        if len(payload) < _BODY + NONCE_BYTES + TAG_BYTES:
            raise ProtectionError(REFUSED, detail="the payload is cut short")
        key = self._derive(payload[HEADER_BYTES:_BODY])
        end = _BODY + NONCE_BYTES
        return gcm_open(key, payload[_BODY:end], payload[end:])


class CbcHmacSealer:
    """
    AES-CBC: body = modifier (16) || iv (16) || ciphertext || HMAC(iv || ciphertext).
    """

    __slots__ = ("_derive", "_header", "_key_bytes", "_mac", "_tag_bytes")

    def __init__(
        self, kdf: CounterKdf, algorithm: ProtectionAlgorithm, key_id: bytes, aad: bytes
    ) -> None:
        length = algorithm.key_bytes + algorithm.mac_bytes
        self._derive = kdf.bind(aad, algorithm.context_header, length).derive
        self._header = MAGIC + key_id
        self._key_bytes = algorithm.key_bytes
        self._mac = algorithm.mac
        self._tag_bytes = algorithm.mac_bytes

    def seal(self, plaintext: bytes) -> bytes:
        """
        Return a fresh payload.
        """
        chance = token_bytes(MODIFIER_BYTES + BLOCK_BYTES)
        keys = self._derive(chance[:MODIFIER_BYTES])
        sealed = cbc_hmac_seal(
            keys[: self._key_bytes],
            keys[self._key_bytes :],
            chance[MODIFIER_BYTES:],
            plaintext,
            mac=self._mac,
        )
        return self._header + chance + sealed

    def open(self, payload: bytes) -> bytes:
        """
        Return the plaintext of a payload.

        Raises:
            ProtectionError: altered, cut short, or sealed for other purposes.
        """
        if len(payload) < _BODY + 2 * BLOCK_BYTES + self._tag_bytes:
            raise ProtectionError(REFUSED, detail="the payload is cut short")
        keys = self._derive(payload[HEADER_BYTES:_BODY])
        end = _BODY + BLOCK_BYTES
        return cbc_hmac_open(
            keys[: self._key_bytes],
            keys[self._key_bytes :],
            payload[_BODY:end],
            payload[end:],
            mac=self._mac,
            tag_bytes=self._tag_bytes,
        )


def sealer(
    kdf: CounterKdf, algorithm: ProtectionAlgorithm, key_id: bytes, aad: bytes
) -> Sealer:
    """
    Return the sealer of a key for the purposes in an AAD.
    """
    if algorithm.cipher == TRIPLE_DES:
        # Not at the top: most programs never meet it.
        from kagimori.keys.protection.triple_des import (  # noqa: PLC0415
            TripleDesSealer,
        )

        return TripleDesSealer(kdf, algorithm, key_id, aad)
    kind = GcmSealer if algorithm.is_gcm else CbcHmacSealer
    return kind(kdf, algorithm, key_id, aad)
