"""
What applications hold: protectors bound to a chain of purposes.

Rules of this module:

1. A payload opens only under the same application and the same purposes in the same order (K3).
   The application name, where there is one, is simply the first purpose.
2. Every failure is a `ProtectionError` with one text; `detail` holds the reason, for the log.
3. Here is the hot path: everything that does not vary from payload to payload is made once per
   protector and key, and no lock is taken.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from kagimori.crypto.aead import REFUSED
from kagimori.crypto.digests import b64url_encode
from kagimori.errors import (
    ConfigError,
    KeyRingError,
    PayloadExpiredError,
    ProtectionError,
)
from kagimori.keys.protection import frame, ticks
from kagimori.keys.protection.derivation import Sealer
from kagimori.keys.protection.key import Material, ProtectionKey
from kagimori.keys.protection.ticks import Ticks
from kagimori.keys.protection.unprotected import DangerousUnprotected, Unprotected

_MAGIC = frame.MAGIC
_SPLIT = len(frame.MAGIC)
_HEADER = frame.HEADER_BYTES
_EXPIRY_BYTES = 8
_MOST_SEALERS = 256


class KeySource(Protocol):
    """
    What a protector needs of a ring.
    """

    def protecting_key(self) -> ProtectionKey:
        """
        Return the key that protects now.

        Raises:
            KeyRingError: there is none.
        """
        ...

    def opening_key(self, raw_id: bytes) -> tuple[ProtectionKey, bool]:
        """
        Return the key of an id in a frame, revoked or not, and whether it is the current one.

        Raises:
            UnknownKeyIdError: the ring holds no such key.
        """
        ...

    def key_at_hand(self, raw_id: bytes) -> tuple[ProtectionKey, bool] | None:
        """
        Return what `opening_key` would, if it takes no I/O; ``None`` if it may take some.
        """
        ...

    def now(self) -> datetime:
        """
        Return the ring's time.
        """
        ...


class Protector:
    """
    Protects and unprotects for one chain of purposes. Safe to share between threads.
    """

    __slots__ = ("_purposes", "_sealers", "_source")

    def __init__(self, source: KeySource, purposes: tuple[bytes, ...]) -> None:
        self._source = source
        self._purposes = purposes
        self._sealers: dict[Material, Sealer] = {}

    def protector(self, *purposes: str) -> Protector:
        """
        Return a protector whose chain of purposes is longer by these.

        Raises:
            ConfigError: a purpose is no text or no valid Unicode.
        """
        more = tuple(frame.purpose_bytes(purpose) for purpose in purposes)
        return Protector(self._source, self._purposes + more)

    def time_limited(self) -> TimeLimitedProtector:
        """
        Return a protector whose payloads may carry an expiry.
        """
        return TimeLimitedProtector(self._source, self._purposes)

    def protect_bytes(self, payload: bytes) -> bytes:
        """
        Protect `payload` under the current key.

        Raises:
            KeyRingError: no key can protect now.
        """
        key = self._source.protecting_key()
        sealer = self._sealers.get(key.material) or self._sealer(key)
        return sealer.seal(payload)

    def protect(self, payload: bytes) -> str:
        """
        Protect `payload`; return text that fits a cookie or a URL.

        Raises:
            KeyRingError: no key can protect now.
        """
        return b64url_encode(self.protect_bytes(payload))

    def unprotect_bytes(self, protected: bytes) -> Unprotected:
        """
        Return what was protected.

        Raises:
            ProtectionError: altered, of other purposes, of another ring, or of a revoked key.
            UnknownKeyIdError: the ring holds no such key (a `ProtectionError` too).
        """
        if protected[:_SPLIT] != _MAGIC or len(protected) < _HEADER:
            frame.check(protected)
        return self._open(
            protected, self._source.opening_key(protected[_SPLIT:_HEADER])
        )

    def unprotect(self, protected: str) -> Unprotected:
        """
        Return what was protected, from text.

        Raises:
            ProtectionError: as `unprotect_bytes`, or the text is not base64url.
        """
        return self.unprotect_bytes(frame.from_text(protected))

    def unprotect_at_hand(self, protected: str) -> Unprotected | None:
        """
        Return what was protected, from text, without ever waiting: for event loops.

        ``None`` means that the payload's key must be looked for or unwrapped first; then call
        `unprotect` in a thread.

        Raises:
            ProtectionError: as `unprotect`.
        """
        data = frame.from_text(protected)
        frame.check(data)
        found = self._source.key_at_hand(data[_SPLIT:_HEADER])
        return None if found is None else self._open(data, found)

    def protects(self, key_id: str) -> bool | None:
        """
        Whether a key protects at present, for callers who keep what they have unprotected.

        Returns:
            False: it only opens. ``None``: it must not be used any more, or must be looked for
            first; then unprotect again.
        """
        found = self._source.key_at_hand(frame.id_bytes(key_id))
        if found is None or found[0].is_revoked:
            return None
        return found[1]

    def _open(self, protected: bytes, found: tuple[ProtectionKey, bool]) -> Unprotected:
        key, is_current = found
        if key.is_revoked:
            raise ProtectionError(REFUSED, detail=f"the key {key.id} is revoked")
        sealer = self._sealers.get(key.material) or self._opening_sealer(key)
        return Unprotected(sealer.open(protected), not is_current, key.id)

    def unprotect_dangerously(self, protected: str | bytes) -> DangerousUnprotected:
        """
        Return what was protected although its key may be revoked (1.9).

        Whoever stole the key may have made the payload: this is for re-protecting what lies
        in a trusted place, and for nothing that came over a wire.

        Raises:
            ProtectionError: altered, of other purposes, or of another ring.
        """
        data = frame.from_text(protected) if isinstance(protected, str) else protected
        frame.check(data)
        key, is_current = self._source.opening_key(data[_SPLIT:_HEADER])
        sealer = self._sealers.get(key.material) or self._opening_sealer(key)
        payload = sealer.open(data)
        renew = key.is_revoked or not is_current
        return DangerousUnprotected(payload, renew, key.is_revoked, key.id)

    def _sealer(self, key: ProtectionKey) -> Sealer:
        sealer = key.sealer(frame.authenticated_data(key.raw_id, self._purposes))
        # Keys come and go with loads; what is kept stays bounded, and a race loses nothing.
        if len(self._sealers) > _MOST_SEALERS:
            self._sealers = {}
        self._sealers[key.material] = sealer
        return sealer

    def _opening_sealer(self, key: ProtectionKey) -> Sealer:
        try:
            return self._sealer(key)
        except KeyRingError as error:
            raise ProtectionError(
                REFUSED,
                hint="The ring holds the payload's key but cannot read it.",
                detail=f"the key {key.id} cannot be read: {error.text}",
                transient=bool(getattr(error, "transient", False)),
            ) from error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._purposes)} purposes>"


class TimeLimitedProtector:
    """
    Like `Protector`, for payloads that may carry an expiry (`aspnet-data-protection.md` 1.8).

    Expired is what lies after the expiry; the very instant is still valid. There is no
    allowance for clocks.
    """

    __slots__ = ("_inner", "_purposes", "_source")

    def __init__(self, source: KeySource, purposes: tuple[bytes, ...]) -> None:
        self._source = source
        self._purposes = purposes
        last = frame.TIME_LIMITED.encode()
        self._inner = Protector(source, (*purposes, last))

    def protector(self, *purposes: str) -> TimeLimitedProtector:
        """
        Return a time-limited protector whose chain of purposes is longer by these.

        Raises:
            ConfigError: a purpose is no text or no valid Unicode.
        """
        more = tuple(frame.purpose_bytes(purpose) for purpose in purposes)
        return TimeLimitedProtector(self._source, self._purposes + more)

    def time_limited(self) -> TimeLimitedProtector:
        """
        Return this protector: it is time-limited already.
        """
        return self

    def protect_bytes(
        self,
        payload: bytes,
        *,
        expires_in: timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> bytes:
        """
        Protect `payload` until an instant; with neither argument, without end.

        Raises:
            ConfigError: both arguments were given, or an instant without a time zone.
            KeyRingError: no key can protect now.
        """
        expiry = self._expiry(expires_in, expires_at)
        return self._inner.protect_bytes(
            expiry.to_bytes(_EXPIRY_BYTES, "big") + payload
        )

    def protect(
        self,
        payload: bytes,
        *,
        expires_in: timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> str:
        """
        Protect `payload` until an instant; return text that fits a cookie or a URL.

        Raises:
            ConfigError: both arguments were given, or an instant without a time zone.
            KeyRingError: no key can protect now.
        """
        return b64url_encode(
            self.protect_bytes(payload, expires_in=expires_in, expires_at=expires_at)
        )

    def unprotect_bytes(self, protected: bytes) -> Unprotected:
        """
        Return what was protected.

        Raises:
            PayloadExpiredError: sound, but its time is over (a `ProtectionError` too).
            ProtectionError: as `Protector.unprotect_bytes`.
        """
        opened = self._inner.unprotect_bytes(protected)
        payload, expires = self._unexpired(opened.payload)
        return Unprotected(payload, opened.needs_renewal, opened.key_id, expires)

    def unprotect(self, protected: str) -> Unprotected:
        """
        Return what was protected, from text.

        Raises:
            PayloadExpiredError: sound, but its time is over (a `ProtectionError` too).
            ProtectionError: as `Protector.unprotect`.
        """
        return self.unprotect_bytes(frame.from_text(protected))

    def unprotect_dangerously(self, protected: str | bytes) -> DangerousUnprotected:
        """
        Return what was protected although its key may be revoked; its expiry holds.

        Raises:
            PayloadExpiredError: sound, but its time is over (a `ProtectionError` too).
            ProtectionError: as `Protector.unprotect_dangerously`.
        """
        opened = self._inner.unprotect_dangerously(protected)
        payload, expires = self._unexpired(opened.payload)
        return DangerousUnprotected(
            payload, opened.needs_renewal, opened.was_revoked, opened.key_id, expires
        )

    def _unexpired(self, plaintext: bytes) -> tuple[bytes, datetime | None]:
        payload, expiry = split_expiry(plaintext)
        if ticks.from_datetime(self._source.now()) > expiry:
            raise PayloadExpiredError(REFUSED, detail="the payload has expired")
        return payload, None if expiry == ticks.MOST else ticks.to_datetime(expiry)

    def _expiry(
        self, expires_in: timedelta | None, expires_at: datetime | None
    ) -> Ticks:
        if expires_in is not None and expires_at is not None:
            raise ConfigError("Name expires_in or expires_at, not both.")
        if expires_in is not None:
            expires_at = self._source.now() + expires_in
        if expires_at is None:
            return ticks.MOST
        if expires_at.tzinfo is None:
            raise ConfigError("expires_at needs a time zone.")
        return ticks.from_datetime(expires_at)

    def __repr__(self) -> str:
        return f"<TimeLimitedProtector of {len(self._purposes)} purposes>"


def split_expiry(plaintext: bytes) -> tuple[bytes, Ticks]:
    """
    Return payload and expiry of what a time-limited protector had sealed.

    Raises:
        ProtectionError: too short to hold an expiry, or one beyond all calendars.
    """
    expiry = Ticks(int.from_bytes(plaintext[:_EXPIRY_BYTES], "big"))
    if len(plaintext) < _EXPIRY_BYTES or expiry > ticks.MOST:
        raise ProtectionError(REFUSED, detail="the payload holds no expiry")
    return plaintext[_EXPIRY_BYTES:], expiry
