"""
Digests, comparison, base64url and randomness: the small tools that every layer shares.

Rules of this module:

1. Secrets, and whatever an attacker may vary against a secret, are compared by `equal` only.
2. base64url has one accepted text for each value, since blocklists and stored hashes compare
   texts (attack J8): no padding, no foreign character, no set unused bit.
3. Randomness comes from the operating system only.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os

_TO_URL = bytes.maketrans(b"+/", b"-_")
# The standard alphabet's own "+", "/" and "=" become an illegal character, so that the
# strict decoder refuses them.
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/***")
_BLOCK = 64
_INNER_PAD = bytes(octet ^ 0x36 for octet in range(256))
_OUTER_PAD = bytes(octet ^ 0x5C for octet in range(256))
_PADDING = (b"", None, b"==", b"=")
# A last character outside these carries bits that no octet uses (RFC 4648 section 3.5).
_LAST_OF_TWO = frozenset(b"AQgw")
_LAST_OF_THREE = frozenset(b"AEIMQUYcgkosw048")


def sha256(data: bytes) -> bytes:
    """
    Return the 32 octets of SHA-256 over `data`.
    """
    return hashlib.sha256(data).digest()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """
    Return the 32 octets of HMAC-SHA-256 (RFC 2104).
    """
    return hmac.digest(key, message, "sha256")


class HmacKey:
    """
    HMAC-SHA-256 under one key, prepared once: less than half the time of `hmac_sha256`.

    Args:
        key: of 64 octets at most.

    Raises:
        ValueError: the key is longer.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK:
            raise ValueError("a key fills one block at most")
        # RFC 2104 section 4: both pads fill a block, so their states can be kept.
        padded = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(padded.translate(_INNER_PAD))
        self._outer = hashlib.sha256(padded.translate(_OUTER_PAD))

    def digest(self, message: bytes) -> bytes:
        """
        Return the 32 octets of the HMAC of a message.
        """
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


def equal(left: bytes | str, right: bytes | str) -> bool:
    """
    Compare in a time that depends on the lengths only. Text is compared as UTF-8.
    """
    return hmac.compare_digest(_octets(left), _octets(right))


def _octets(value: bytes | str) -> bytes:
    # A lone surrogate has no UTF-8; an unequal stand-in is better than a crash.
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def b64url_encode(data: bytes) -> str:
    """
    Return base64url without padding (RFC 7515 section 2).
    """
    return (
        binascii.b2a_base64(data, newline=False)
        .translate(_TO_URL, b"=")
        .decode("ascii")
    )


def b64url_encode_bytes(data: bytes) -> bytes:
    """
    Return base64url without padding as ASCII octets, for callers that go on hashing.
    """
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=")


def b64url_decode(text: str) -> bytes:
    """
    Decode base64url, canonical only.

    Raises:
        ValueError: padding, a foreign character, an impossible length, or set unused bits.
            The message never quotes the text.
    """
    try:
        raw = text.encode("ascii")
    except UnicodeEncodeError:
        # Not chained: the error object holds the text, which may be a secret.
        raise ValueError("base64url has a foreign character") from None
    return b64url_decode_bytes(raw)


def b64url_decode_bytes(text: bytes) -> bytes:
    """
    Decode base64url given as ASCII octets, as `b64url_decode` does.
    """
    rest = len(text) & 3
    padding = _PADDING[rest]
    if padding is None:
        raise ValueError("base64url has an impossible length")
    if (rest == 2 and text[-1] not in _LAST_OF_TWO) or (
        rest == 3 and text[-1] not in _LAST_OF_THREE
    ):
        raise ValueError("base64url is not canonical")
    try:
        return binascii.a2b_base64(
            text.translate(_FROM_URL) + padding, strict_mode=True
        )
    except binascii.Error:
        raise ValueError("base64url has a foreign character") from None


def random_bytes(count: int) -> bytes:
    """
    Return `count` octets from the operating system's generator.
    """
    return os.urandom(count)


def random_id(nbytes: int = 16) -> str:
    """
    Return `nbytes` random octets as base64url: by default 22 characters, 128 bits.
    """
    return b64url_encode(os.urandom(nbytes))
