"""
The frame of a protected payload, and what binds a payload to its key and purposes.

`aspnet-data-protection.md` 1.1 and 1.2:

1. payload = magic (4) || key id (16, GUID in .NET's mixed byte order) || body.
2. The count of purposes is a big-endian 32-bit number, their lengths are 7-bit encoded. Purposes
   are strict UTF-8, never normalised or trimmed; empty ones are legal and order matters.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import lru_cache

from kagimori.crypto.aead import REFUSED
from kagimori.crypto.digests import b64url_decode
from kagimori.errors import ConfigError, ProtectionError

MAGIC = b"\x09\xf0\xc9\xf0"
HEADER_BYTES = 20

TIME_LIMITED = "Microsoft.AspNetCore.DataProtection.TimeLimitedDataProtector.v1"
"""The purpose that a time-limited protector appends last (1.8)."""


@lru_cache
def id_bytes(key_id: str) -> bytes:
    """
    Return a key's id as it lies in a frame.
    """
    return uuid.UUID(key_id).bytes_le


def id_text(raw: bytes) -> str:
    """
    Return the id in a frame as text: lower case, with hyphens.
    """
    # By slices, since floods of unknown ids are told to the log one by one.
    low, middle, high = raw[3::-1], raw[5:3:-1], raw[7:5:-1]
    parts = (low, middle, high, raw[8:10], raw[10:16])
    return "-".join([part.hex() for part in parts])


def authenticated_data(key_id: bytes, purposes: Sequence[bytes]) -> bytes:
    """
    Return the AAD: magic, key id and purposes (1.2). It becomes the label of the derivation.

    Args:
        key_id: 16 bytes, as in the frame.
        purposes: UTF-8, from `purpose_bytes`.
    """
    parts = [MAGIC, key_id, len(purposes).to_bytes(4, "big")]
    for purpose in purposes:
        parts += seven_bit(len(purpose)), purpose
    return b"".join(parts)


def purpose_bytes(purpose: str) -> bytes:
    """
    Return a purpose as strict UTF-8.

    Raises:
        ConfigError: it is no text, or holds half of a surrogate pair.
    """
    if not isinstance(purpose, str):
        raise ConfigError("A purpose is a text.")
    try:
        return purpose.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("A purpose holds half of a surrogate pair.") from None


def seven_bit(number: int) -> bytes:
    """
    Return a number in groups of seven bits, the low group first (.NET's BinaryWriter).
    """
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def check(payload: bytes) -> None:
    """
    Refuse bytes that are no frame of this version.

    Raises:
        ProtectionError: too short, another magic, or a newer version.
    """
    if payload[:4] == MAGIC and len(payload) >= HEADER_BYTES:
        return
    if payload[:3] == MAGIC[:3] and payload[3:4] and payload[3] & 0xF0 == MAGIC[3]:
        detail = "the frame is cut short, or of a newer version"
    else:
        detail = "this was not protected with ASP.NET Core Data Protection's format"
    raise ProtectionError(REFUSED, detail=detail)


def from_text(text: str) -> bytes:
    """
    Return the bytes of a payload's text form.

    Raises:
        ProtectionError: this is no canonical base64url. Padding counts as an error.
    """
    try:
        return b64url_decode(text)
    except (ValueError, AttributeError, TypeError):
        raise ProtectionError(REFUSED, detail="the text is not base64url") from None
