"""
Key material: made, protected, and read back.

Rules of this module:

1. What was protected is unprotected and compared before anybody stores it. A key that cannot
   be read back is never stored.
2. A private half is bound to use, tenant and kid by the purposes of its protector (attack K3),
   and is proven against the public half when it is read (attack K14).
3. Everything here computes or may wait for the protection ring: callers on an event loop run
   it in a thread.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Protocol

import msgspec

from kagimori.crypto.digests import b64url_decode, equal, random_bytes
from kagimori.crypto.jwk import Jwk
from kagimori.errors import (
    JoseError,
    KagimoriError,
    ProtectionError,
    RingUnreadableError,
)
from kagimori.keys.documents import KeyDocument
from kagimori.keys.key import COOKIE_ALGORITHM
from kagimori.keys.timeline import KeyTimeline, KeyUse

COOKIE_BYTES = 64

RSA_BITS = 2048

_PROBE = b"kagimori: are these two halves of one key?"


class Opened(Protocol):
    """
    What unprotecting gives, as `kagimori.keys.protection` defines it.
    """

    @property
    def payload(self) -> bytes:
        """
        Return the plaintext.
        """
        ...

    @property
    def key_id(self) -> str:
        """
        Return the id of the protection key.
        """
        ...


class MaterialProtector(Protocol):
    """
    A protector bound to its purposes.
    """

    def protect(self, payload: bytes, /) -> str:
        """
        Protect a payload under the current protection key.
        """
        ...

    def unprotect(self, text: str, /) -> Opened:
        """
        Return what was protected.
        """
        ...


class ProtectorRoot(Protocol):
    """
    Where protectors come from: a protection ring.
    """

    @property
    def current_key_id(self) -> str:
        """
        Return the id of the key that protects now.

        Raises:
            KeyRingError: there is none.
        """
        ...

    def protector(self, *purposes: str) -> MaterialProtector:
        """
        Return a protector for a chain of purposes.
        """
        ...


def _guid() -> str:
    return str(uuid.UUID(bytes=random_bytes(16), version=4))


def make_key(
    root: ProtectorRoot,
    tenant: str,
    use: KeyUse,
    algorithm: str,
    *,
    now: datetime,
    bits: int = RSA_BITS,
) -> KeyDocument:
    """
    Make a key, protected and read back, whose times no ring has written yet.

    Args:
        algorithm: of a signing key; cookie keys have their own.
        bits: the length of an RSA modulus.

    Raises:
        UnsupportedAlgorithmError: the algorithm is not offered.
        KeyRingError: the protection ring cannot protect at the moment.
        RingUnreadableError: what was protected does not read back.
    """
    born = KeyTimeline(created=now, published=now, activates=now)
    while True:
        kid, public, secret = (
            (_guid(), None, random_bytes(COOKIE_BYTES))
            if use is KeyUse.COOKIE
            else _signing_key(algorithm, bits)
        )
        # One id in 64 would look like an option on a command line.
        if not kid.startswith("-"):
            break
    private, under = seal(root, tenant, use, kid, secret)
    return KeyDocument(
        id=kid,
        algorithm=COOKIE_ALGORITHM if use is KeyUse.COOKIE else algorithm,
        timeline=born,
        jwk=public,
        private=private,
        under=under,
    )


def _signing_key(algorithm: str, bits: int) -> tuple[str, dict[str, str], bytes]:
    jwk = Jwk.generate(algorithm, bits=bits)
    secret = msgspec.json.encode(jwk.to_dict(private=True))
    return jwk.thumbprint(), jwk.to_dict(), secret


def seal(
    root: ProtectorRoot, tenant: str, use: KeyUse, kid: str, secret: bytes
) -> tuple[str, str]:
    """
    Protect a secret and read it back.

    Returns:
        The protected text, and the id of the protection key under which it lies.

    Raises:
        KeyRingError: the protection ring cannot protect at the moment.
        RingUnreadableError: what was protected does not read back.
    """
    protector = _protector(root, tenant, use, kid)
    text = protector.protect(secret)
    try:
        opened = protector.unprotect(text)
    except ProtectionError as exc:
        raise _unreadable(use, kid, "", exc.detail or exc.code) from None
    if not equal(opened.payload, secret):
        raise _unreadable(use, kid, opened.key_id, "what was read back differs")
    return text, opened.key_id


def open_secret(
    root: ProtectorRoot, tenant: str, use: KeyUse, key: KeyDocument
) -> bytes:
    """
    Return the secret of a stored key.

    Raises:
        RingUnreadableError: it cannot be unprotected; the text names the protection key.
    """
    if key.private is None:
        raise _unreadable(use, key.id, "", "its private half was destroyed")
    try:
        return _protector(root, tenant, use, key.id).unprotect(key.private).payload
    except KagimoriError as exc:
        raise _unreadable(
            use, key.id, key.under or "", exc.detail or exc.code
        ) from None


def open_signing_key(root: ProtectorRoot, tenant: str, key: KeyDocument) -> Jwk:
    """
    Return the private half of a stored signing key, proven against its public half.

    Raises:
        RingUnreadableError: it cannot be unprotected, or is not the other half.
    """
    secret = open_secret(root, tenant, KeyUse.SIGNING, key)
    try:
        jwk = Jwk.from_trusted_dict(msgspec.json.decode(secret, type=dict[str, str]))
        public = public_half(key)
        public.verify(jwk.sign(_PROBE, key.algorithm), _PROBE, key.algorithm)
    except (JoseError, msgspec.DecodeError) as exc:
        # A parser's message may quote the private half.
        detail = f"its two halves do not fit: {type(exc).__name__}"
        raise _unreadable(KeyUse.SIGNING, key.id, key.under or "", detail) from None
    return jwk


def public_half(key: KeyDocument) -> Jwk:
    """
    Return the public half of a stored signing key.

    Raises:
        InvalidKeyError: it is malformed.
    """
    return Jwk.from_dict(key.jwk or {}).public()


def rsa_bits(key: KeyDocument | None) -> int:
    """
    Return the length of a key's modulus, so that its successor is as strong.
    """
    modulus = (key.jwk or {}).get("n") if key is not None else None
    return RSA_BITS if modulus is None else len(b64url_decode(modulus)) * 8


def _protector(
    root: ProtectorRoot, tenant: str, use: KeyUse, kid: str
) -> MaterialProtector:
    return root.protector("kagimori", use.value, tenant, kid)


def _unreadable(use: KeyUse, kid: str, under: str, detail: str) -> RingUnreadableError:
    where = f" It lies under the protection key {under}." if under else ""
    return RingUnreadableError(
        f"The private half of the {use.value} key {kid} cannot be read.{where}",
        hint="Give the server the protection ring that it was made under, with its wrapping "
        "key. No new key is made in its place; `kagimori keys rotate` makes one if you must.",
        detail=detail,
        kid=kid,
        use=use.value,
        under=under,
    )
