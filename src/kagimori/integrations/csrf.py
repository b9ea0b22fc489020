"""
CSRF tokens that a key ring protects, bound to the session.

A token holds its session's id. It opens in every slot that shares the ring, under keys old and
new, and no two look alike: compression tells nothing of them (BREACH). They are our own;
ASP.NET Core's antiforgery tokens are neither written nor read.
"""

from __future__ import annotations

from datetime import timedelta

from kagimori.clock import from_seconds, seconds
from kagimori.crypto.digests import equal
from kagimori.errors import KagimoriError, ProtectionError
from kagimori.integrations.sessions import Session
from kagimori.keys.protection.ring import ProtectionRing

FIELD = "csrf_token"
HEADER = "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_MOST_TOKEN = 1024
_STAMP_BYTES = 8


class CsrfError(KagimoriError):
    """
    A request that changes something carries no token of its session.
    """

    code = "csrf"


class Csrf:
    """
    Makes and checks the tokens of sessions. Safe to share between threads.

    Args:
        lifetime: how long a form may lie open; ``None`` for as long as its session.
    """

    def __init__(
        self, ring: ProtectionRing, *, lifetime: timedelta | None = None
    ) -> None:
        self._ring = ring
        self._lifetime = lifetime
        self._protector = ring.protector("kagimori.csrf.v1")

    def token(self, session: Session) -> str:
        """
        Return a token of a session, which is kept from now on.

        Raises:
            KeyRingError: no key can protect now.
        """
        stamp = seconds(self._ring.now()).to_bytes(_STAMP_BYTES, "big")
        return self._protector.protect(stamp + session.keep().encode())

    def check(self, session: Session, token: str | None) -> None:
        """
        Refuse a token that is not of this session.

        Raises:
            CsrfError: there is no token, or none of this session, or its time is over.
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        session.mark_accessed()
        if not token or len(token) > _MOST_TOKEN:
            raise CsrfError("The form's token is missing.")
        try:
            payload = self._protector.unprotect(token).payload
        except ProtectionError as error:
            if error.transient:
                raise
            raise CsrfError("The form's token is not good.") from None
        issued = from_seconds(int.from_bytes(payload[:_STAMP_BYTES], "big"))
        if not equal(payload[_STAMP_BYTES:], session.id):
            raise CsrfError("The form's token is of another session.")
        if self._lifetime is not None and self._ring.now() >= issued + self._lifetime:
            raise CsrfError("The form has lain open too long.")
