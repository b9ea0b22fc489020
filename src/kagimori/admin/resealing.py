"""
Protecting anew what a server stores: the secret parts of keys, and the tag keys of sign-ins.

Rules of this module:

1. What was protected is opened again and compared before anybody may store it.
2. What cannot be read is left out and counted: it stays as it is.
3. Everything here computes or may wait for the protection ring: callers on an event loop run
   it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from kagimori.crypto.digests import equal
from kagimori.errors import KagimoriError
from kagimori.keys.changing import StoredRing
from kagimori.keys.material import (
    MaterialProtector,
    Opened,
    ProtectorRoot,
    open_secret,
    seal,
)
from kagimori.keys.protection.protector import Protector
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.storage.store import Versioned
from kagimori.tokens.family import RefreshTokenFamily, SealedTagKey
from kagimori.tokens.tag_keys import PURPOSES


def secrets_anew(
    root: ProtectorRoot, seen: StoredRing, current: str
) -> tuple[dict[str, tuple[str, str]], int]:
    """
    Protect anew the secrets of a ring that lie under another key than `current`.

    Returns:
        The new text and its protection key by the text that it replaces; and how many secrets
        could not be read.
    """
    document = seen.document
    fresh: dict[str, tuple[str, str]] = {}
    failed = 0
    for key in document.keys:
        if key.private is None or key.under == current:
            continue
        try:
            secret = open_secret(root, document.tenant, document.use, key)
            fresh[key.private] = seal(
                root, document.tenant, document.use, key.id, secret
            )
        except KagimoriError:
            failed += 1
    return fresh, failed


def tag_keys_anew(
    root: ProtectorRoot,
    tenant: str,
    page: Iterable[Versioned[RefreshTokenFamily]],
) -> dict[str, SealedTagKey]:
    """
    Protect the tag keys of families anew.

    Returns:
        What can be stored instead, by the families' ids.
    """
    protector = root.protector(*PURPOSES, tenant)
    fresh = {}
    for found in page:
        try:
            payload = protector.unprotect(found.value.tag_key.text).payload
            text = protector.protect(payload)
            opened = protector.unprotect(text)
        except KagimoriError:
            continue
        if equal(opened.payload, payload):
            fresh[found.id] = SealedTagKey(text, opened.key_id)
    return fresh


class TrustingRoot:
    """
    A ring that opens what its revoked keys protected, too: the explicit dangerous read.
    """

    def __init__(self, ring: ProtectionRing) -> None:
        self._ring = ring

    @property
    def current_key_id(self) -> str:
        """
        Return the id of the key that protects now.
        """
        return self._ring.current_key_id

    def protector(self, *purposes: str) -> MaterialProtector:
        """
        Return a protector for a chain of purposes.
        """
        return _TrustingProtector(self._ring.protector(*purposes))


class _TrustingProtector:
    def __init__(self, protector: Protector) -> None:
        self._protector = protector

    def protect(self, payload: bytes, /) -> str:
        """
        Protect a payload under the current key.
        """
        return self._protector.protect(payload)

    def unprotect(self, text: str, /) -> Opened:
        """
        Return what was protected, also under a revoked key.
        """
        return self._protector.unprotect_dangerously(text)
