"""
The text of a refresh token (requirements B3).

``kgm_rt_`` + base64url( version | family id 16 B | generation varint | secret 32 B | tag 16 B |
checksum 4 B ), all numbers big-endian but the varint, which is LEB128.

Rules of this module:

1. One token has one text. Anything but the canonical one is refused, since what is compared
   later is a hash of it.
2. Length first, then alphabet, then checksum: garbage costs next to nothing and no query.
3. The checksum (CRC-32 of all bytes before it) finds typing errors and helps secret scanners.
   It proves nothing. The tag proves that we made the token, once. Neither gives access.
4. No object here has a readable repr or can be pickled.
"""

from __future__ import annotations

import zlib
from typing import NoReturn

from kagimori.crypto.digests import (
    b64url_decode,
    b64url_encode,
    equal,
    hmac_sha256,
    sha256,
)
from kagimori.errors import InvalidTokenError

PREFIX = "kgm_rt_"
VERSION = 1

FAMILY_BYTES = 16
SECRET_BYTES = 32
TAG_BYTES = 16
CHECKSUM_BYTES = 4
TAG_KEY_BYTES = 32

MOST_GENERATIONS = (1 << 32) - 1
"""A family that rotated each second would reach it after 136 years."""

_VERSION = bytes((VERSION,))
_FIXED = 1 + FAMILY_BYTES + SECRET_BYTES + TAG_BYTES + CHECKSUM_BYTES
_LONGEST_VARINT = 5
_TAG_AT = -TAG_BYTES - CHECKSUM_BYTES
_LONGEST_TEXT = len(PREFIX) + ((_FIXED + _LONGEST_VARINT) * 4 + 2) // 3


class TagKey:
    """
    The key by which one family knows its own tokens again.

    Args:
        key: 32 random bytes.

    Raises:
        ValueError: another length.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != TAG_KEY_BYTES:
            raise ValueError("A tag key has 32 bytes.")
        self._key = key

    def tag(self, message: bytes) -> bytes:
        """
        Return the tag over what stands before it in a token.
        """
        return hmac_sha256(self._key, message)[:TAG_BYTES]

    def __repr__(self) -> str:
        return "TagKey()"

    def __copy__(self) -> TagKey:
        return self

    def __deepcopy__(self, memo: object) -> TagKey:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("key material is not pickled")


class RefreshToken:
    """
    One refresh token, parsed or just made.

    Attributes:
        family_id: the id of its family, as documents are named.
        generation: its position in the family, from 1.
        digest: SHA-256 over all of it but the checksum; what a family stores.
    """

    __slots__ = ("_raw", "digest", "family_id", "generation")

    family_id: str
    generation: int
    digest: bytes

    def __init__(self, raw: bytes, family_id: str, generation: int) -> None:
        self._raw = raw
        self.family_id = family_id
        self.generation = generation
        self.digest = sha256(raw[:-CHECKSUM_BYTES])

    @classmethod
    def parse(cls, text: str) -> RefreshToken:
        """
        Read the text of a token. That it parses says nothing of its worth.

        Raises:
            InvalidTokenError: the text is not the canonical form of any token.
        """
        if len(text) > _LONGEST_TEXT or not text.startswith(PREFIX):
            raise _refused("length or prefix")
        try:
            raw = b64url_decode(text[len(PREFIX) :])
        except ValueError:
            raise _refused("base64url") from None
        return cls.from_bytes(raw)

    @classmethod
    def from_bytes(cls, raw: bytes) -> RefreshToken:
        """
        Read the bytes of a token, the checksum included.

        Raises:
            InvalidTokenError: they are not those of any token.
        """
        if not _FIXED < len(raw) <= _FIXED + _LONGEST_VARINT:
            raise _refused("length")
        body = raw[:-CHECKSUM_BYTES]
        if _checksum(body) != raw[-CHECKSUM_BYTES:]:
            raise _refused("checksum")
        if body[0] != VERSION:
            raise _refused("version")
        generation, after = _read_varint(body, 1 + FAMILY_BYTES)
        if len(body) != after + SECRET_BYTES + TAG_BYTES:
            raise _refused("length")
        return cls(raw, b64url_encode(body[1 : 1 + FAMILY_BYTES]), generation)

    @classmethod
    def make(
        cls, family_id: str, generation: int, secret: bytes, tag_key: TagKey
    ) -> RefreshToken:
        """
        Make the token of a generation.

        Args:
            family_id: the id of a family: 16 bytes in base64url.
            secret: 32 random bytes that no other token has.

        Raises:
            ValueError: an argument has the wrong length or range.
        """
        family = b64url_decode(family_id)
        return cls._tagged(family, family_id, generation, secret, tag_key)

    def successor(self, secret: bytes, tag_key: TagKey) -> RefreshToken:
        """
        Make the token of the next generation of this one's family.

        Args:
            secret: 32 random bytes that no other token has.

        Raises:
            ValueError: the secret has another length, or the family has no generation left.
        """
        return self._tagged(
            self._raw[1 : 1 + FAMILY_BYTES],
            self.family_id,
            self.generation + 1,
            secret,
            tag_key,
        )

    @classmethod
    def _tagged(
        cls,
        family: bytes,
        family_id: str,
        generation: int,
        secret: bytes,
        tag_key: TagKey,
    ) -> RefreshToken:
        if len(family) != FAMILY_BYTES or len(secret) != SECRET_BYTES:
            raise ValueError("A family id has 16 bytes and a secret 32.")
        if not 1 <= generation <= MOST_GENERATIONS:
            raise ValueError("A generation is from 1 to 2^32 - 1.")
        head = _VERSION + family + _write_varint(generation) + secret
        body = head + tag_key.tag(head)
        return cls(body + _checksum(body), family_id, generation)

    @property
    def text(self) -> str:
        """
        Return the token as the client gets it.
        """
        return PREFIX + b64url_encode(self.to_bytes())

    def to_bytes(self) -> bytes:
        """
        Return all bytes of the token, the checksum included.
        """
        return self._raw

    @property
    def family_bytes(self) -> bytes:
        """
        Return the id of the family as bytes.
        """
        return self._raw[1 : 1 + FAMILY_BYTES]

    def is_tagged_by(self, tag_key: TagKey) -> bool:
        """
        Whether the token was made under this tag key, that is: by us, once.
        """
        head, rest = self._raw[:_TAG_AT], self._raw[_TAG_AT:]
        return equal(tag_key.tag(head), rest[:TAG_BYTES])

    def __repr__(self) -> str:
        return (
            f"RefreshToken(family_id={self.family_id!r}, generation={self.generation})"
        )

    def __copy__(self) -> RefreshToken:
        return self

    def __deepcopy__(self, memo: object) -> RefreshToken:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("tokens are not pickled")


def _refused(what: str) -> InvalidTokenError:
    return InvalidTokenError(
        "The refresh token is not valid.", detail=f"refresh token: {what}"
    )


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "big")


def _write_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(body: bytes, start: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        byte = body[start + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            # A last byte of zero would be a second spelling of a shorter number.
            canonical = byte or not index
            if not canonical or not 1 <= value <= MOST_GENERATIONS:
                break
            return value, start + index + 1
    raise _refused("generation")
