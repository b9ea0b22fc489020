"""
Cookies that a key ring protects: what is inside, and what becomes of bad ones.

Rules of this module:

1. A bad cookie is no cookie: tampered, cut short, revoked or foreign, it never raises. What
   raises is a ring that cannot answer at the moment (`transient`): nobody is signed out by it.
2. A cookie opens under its own name and purpose only, so one is no use in another's place.
3. Sizes are checked before anything is decoded. Nothing is compressed: lengths would tell of
   secrets that lie beside what an attacker chose.
4. A cookie whose key is not known here may be another slot's, and one whose key cannot be
   unwrapped may be read again. It counts as none, and is left where it is: deleting it would
   sign out whom the other slot knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kagimori.clock import from_seconds, seconds
from kagimori.crypto.digests import b64url_decode, b64url_encode, equal, sha256
from kagimori.errors import (
    KeyRingError,
    ProtectionError,
    UnknownKeyIdError,
)
from kagimori.integrations.cookie_shape import (
    Cookie,
    CookieTooLargeError,
    SetCookie,
    SetsCookies,
    parse,
)
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.protection.unprotected import Unprotected

__all__ = [
    "Cookie",
    "CookieTooLargeError",
    "ProtectedCookie",
    "Reading",
    "SetCookie",
    "SignedCookie",
    "parse",
]

_STAMP_BYTES = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """
    What a request's cookies held.

    Attributes:
        payload: ``None`` if there is nothing that opens.
        issued: when it was written, to the second.
        needs_renewal: whether a key that is no longer the current one protected it.
        names: the cookies that are there, good or bad.
        is_unknown: whether its key is not known here, or cannot be read.
    """

    payload: bytes | None = field(default=None, repr=False)
    issued: datetime | None = None
    needs_renewal: bool = False
    names: tuple[str, ...] = ()
    is_unknown: bool = False


class ProtectedCookie:
    """
    A cookie whose content nobody can read or change. Safe to share between threads.

    Args:
        cookie: its name and attributes.
        purpose: what it is for; what was written for one purpose opens for no other.
        lifetime: how long it is good after it was written; ``None`` for ever, and in the
            browser until that is closed.
    """

    kind = "kagimori.cookie.v1"

    def __init__(
        self,
        ring: ProtectionRing,
        cookie: Cookie | None = None,
        *,
        purpose: str = "cookie",
        lifetime: timedelta | None = timedelta(days=14),
    ) -> None:
        self.cookie = cookie or Cookie()
        self.lifetime = lifetime
        self._ring = ring
        self._protector = ring.protector(self.kind, purpose, self.cookie.name)

    def get(self, cookies: Mapping[str, str]) -> bytes | None:
        """
        Return what the cookie of a request holds; ``None`` for nothing, or nothing good.

        Args:
            cookies: by `parse`. The ones of Django and Starlette take a name with U+00A0 before
                it for the name: a sibling host can set it where ``__Host-`` should forbid it.

        Raises:
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        return self.read(cookies).payload

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """
        Return what the cookie of a request holds, and all about it.

        Raises:
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        names = self.cookie.names_in(cookies)
        text = self.cookie.join(cookies) if names else None
        return Reading(names=names) if text is None else self.read_text(text, names)

    def read_text(self, text: str, names: tuple[str, ...] = ()) -> Reading:
        """
        Return what a cookie's text holds, once its chunks are joined.

        Raises:
            ProtectionError: as `read`.
        """
        try:
            opened = self._open(text)
        except ProtectionError as error:
            return _unreadable(error, names)
        return self._reading(opened, names)

    def read_at_hand(self, cookies: Mapping[str, str]) -> Reading | None:
        """
        Do what `read` does without ever waiting; ``None`` if it would have to: for event loops.

        Raises:
            ProtectionError: as `read`.
        """
        names = self.cookie.names_in(cookies)
        text = self.cookie.join(cookies) if names else None
        if text is None:
            return Reading(names=names)
        try:
            opened = self._open_at_hand(text)
        except ProtectionError as error:
            return _unreadable(error, names)
        return None if opened is None else self._reading(opened, names)

    def write(
        self,
        payload: bytes,
        present: Iterable[str] = (),
        *,
        lifetime: timedelta | None = None,
    ) -> tuple[SetCookie, ...]:
        """
        Return the cookies to set for a payload, under the current key.

        Args:
            present: the names of the request's cookies: left-over chunks are expired.
            lifetime: how long the browser keeps it; left out: the cookie's own lifetime.

        Raises:
            CookieTooLargeError: the payload fills too many chunks.
            KeyRingError: no key can protect now.
        """
        age = self.lifetime if lifetime is None else lifetime
        max_age = None if age is None else max(0, int(age.total_seconds()))
        names = self.cookie.names_in(present)
        return self.cookie.lay(self.write_text(payload), max_age, names)

    def write_text(self, payload: bytes) -> str:
        """
        Return the text of a cookie, before it is split into chunks.

        Raises:
            KeyRingError: no key can protect now.
        """
        stamp = seconds(self._ring.now()).to_bytes(_STAMP_BYTES, "big")
        return self._seal(stamp + payload)

    def set_on(
        self, response: SetsCookies, payload: bytes, cookies: Mapping[str, str]
    ) -> None:
        """
        Set the cookie on a framework's response.

        Args:
            cookies: the request's; chunks left over from a longer value are expired.

        Raises:
            CookieTooLargeError: the payload fills too many chunks.
            KeyRingError: no key can protect now.
        """
        for each in self.write(payload, cookies):
            each.set_on(response)

    def renew_on(self, response: SetsCookies, cookies: Mapping[str, str]) -> None:
        """
        Write a good cookie anew where its key is no longer the current one.

        Raises:
            ProtectionError: as `read`.
            KeyRingError: no key can protect now.
        """
        reading = self.read(cookies)
        if reading.payload is not None and reading.needs_renewal:
            self.set_on(response, reading.payload, cookies)

    def expire_on(self, response: SetsCookies, cookies: Mapping[str, str]) -> None:
        """
        Let the browser forget the cookie, with all its chunks.
        """
        for each in self.cookie.expire(self.cookie.names_in(cookies)):
            each.set_on(response)

    def _reading(self, opened: Unprotected, names: tuple[str, ...]) -> Reading:
        stamp, payload = opened.payload[:_STAMP_BYTES], opened.payload[_STAMP_BYTES:]
        issued = from_seconds(int.from_bytes(stamp, "big"))
        if self.lifetime is not None and self._ring.now() >= issued + self.lifetime:
            return Reading(names=names)
        return Reading(payload, issued, opened.needs_renewal, names)

    def _seal(self, content: bytes) -> str:
        return self._protector.protect(content)

    def _open(self, text: str) -> Unprotected:
        return self._protector.unprotect(text)

    def _open_at_hand(self, text: str) -> Unprotected | None:
        return self._protector.unprotect_at_hand(text)


class SignedCookie(ProtectedCookie):
    """
    A cookie that everybody can read and nobody can change: base64url, a dot, a seal.
    """

    kind = "kagimori.signed-cookie.v1"

    def _seal(self, content: bytes) -> str:
        return f"{b64url_encode(content)}.{self._protector.protect(sha256(content))}"

    def _open(self, text: str) -> Unprotected:
        body, _, seal = text.partition(".")
        return _sealed(body, self._protector.unprotect(seal))

    def _open_at_hand(self, text: str) -> Unprotected | None:
        body, _, seal = text.partition(".")
        opened = self._protector.unprotect_at_hand(seal)
        return None if opened is None else _sealed(body, opened)


def _sealed(body: str, opened: Unprotected) -> Unprotected:
    try:
        content = b64url_decode(body)
    except ValueError:
        content = b""
    if len(content) < _STAMP_BYTES or not equal(sha256(content), opened.payload):
        raise ProtectionError(detail="the seal is of another value")
    return Unprotected(content, opened.needs_renewal, opened.key_id)


def _unreadable(error: ProtectionError, names: tuple[str, ...]) -> Reading:
    if error.transient:
        raise error
    # A key that is there and cannot be unwrapped is the ring's fault, and not the cookie's.
    is_unread = isinstance(error.__cause__, KeyRingError)
    return Reading(
        names=names, is_unknown=is_unread or isinstance(error, UnknownKeyIdError)
    )
