"""
From itsdangerous to a ring: old tokens and session cookies are read, new ones are written.

Rules of this module:

1. What a token is shows in its form: the ring's begin with its magic and hold no dot, those of
   itsdangerous hold two. None is tried as the other.
2. Old tokens are refused once no old key is given any more.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import itsdangerous
from itsdangerous import BadPayload, BadSignature, SignatureExpired

from kagimori.clock import from_seconds, seconds
from kagimori.errors import ProtectionError
from kagimori.integrations.cookies import Cookie, SetCookie
from kagimori.integrations.packing import decode, encode
from kagimori.keys.protection.protector import Protector
from kagimori.keys.protection.ring import ProtectionRing

__all__ = ["FlaskCookies", "StarletteCookies", "URLSafeTimedSerializer"]

_STAMP_BYTES = 8
_OLD_LIFETIME = timedelta(days=31)

Keys = str | bytes | Sequence[str | bytes]


class URLSafeTimedSerializer:
    """
    In the place of the class of this name in itsdangerous: `dumps`, `loads`, their exceptions.

    `loads_unsafe` has no counterpart: what was not checked is not returned.

    What `dumps` makes is encrypted, and may hold what `kagimori.integrations.packing` says.

    Args:
        secret_key: what signed the old tokens, the newest key last; ``None`` when their time
            is over, and none is read any more.
        salt: separates uses; it is one of the new tokens' purposes.
        ring: protects the new tokens.
        options: of the old class, where it was given more: for reading old tokens.
    """

    def __init__(
        self,
        secret_key: Keys | None,
        salt: str | bytes = b"itsdangerous",
        *,
        ring: ProtectionRing,
        **options: Any,
    ) -> None:
        self._ring = ring
        self._salt = salt
        self._old: itsdangerous.URLSafeTimedSerializer | None = None
        if secret_key is not None:
            self._old = itsdangerous.URLSafeTimedSerializer(
                _keys(secret_key), salt=salt, **options
            )

    def dumps(self, obj: object, salt: str | bytes | None = None) -> str:
        """
        Return a token that holds an object.

        Raises:
            TypeError: it holds something that has no place in JSON.
            KeyRingError: no key can protect now.
        """
        stamp = seconds(self._ring.now()).to_bytes(_STAMP_BYTES, "big")
        return self._protector(salt).protect(stamp + encode(obj))

    def loads(
        self,
        s: str | bytes,
        max_age: float | None = None,
        return_timestamp: bool = False,  # noqa: FBT001, FBT002  the old class's
        salt: str | bytes | None = None,
    ) -> Any:
        """
        Return the object of a token, new or old.

        Args:
            max_age: seconds after which a token is refused.
            return_timestamp: return a tuple of the object and the time of its signing.

        Raises:
            SignatureExpired: it is older than `max_age` (a `BadSignature` too).
            BadSignature: it was changed, or made by nobody of ours.
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        text = s.decode("latin-1") if isinstance(s, bytes) else s
        if "." in text:
            if self._old is None:
                raise BadSignature("The token is not good.")
            return self._old.loads(
                text,
                max_age=_whole(max_age),
                return_timestamp=return_timestamp,
                salt=salt,
            )
        obj, signed = self._open(text, salt)
        age = (self._ring.now() - signed).total_seconds()
        if max_age is not None and age > max_age:
            raise SignatureExpired(
                f"Signature age {int(age)} > {max_age} seconds", date_signed=signed
            )
        return (obj, signed) if return_timestamp else obj

    def _open(self, text: str, salt: str | bytes | None) -> tuple[Any, datetime]:
        try:
            payload = self._protector(salt).unprotect(text).payload
        except ProtectionError as error:
            if error.transient:
                raise
            raise BadSignature("The token is not good.") from None
        try:
            obj = decode(payload[_STAMP_BYTES:])
        except ValueError:
            raise BadPayload("The token holds something else.") from None
        signed = from_seconds(int.from_bytes(payload[:_STAMP_BYTES], "big"))
        return obj, signed

    def _protector(self, salt: str | bytes | None) -> Protector:
        named = self._salt if salt is None else salt
        purpose = named.decode("latin-1") if isinstance(named, bytes) else named
        return self._ring.protector("kagimori.itsdangerous.v1", purpose)


class StarletteCookies:
    """
    Reads the session cookie of Starlette's and FastAPI's own ``SessionMiddleware``.

    Args:
        secret_key: what signed it.
        cookie: as that middleware set it.
        lifetime: as that middleware's ``max_age``.
    """

    def __init__(
        self,
        secret_key: str,
        *,
        cookie: Cookie | None = None,
        lifetime: timedelta = timedelta(days=14),
    ) -> None:
        self._signer = itsdangerous.TimestampSigner(str(secret_key))
        self._cookie = cookie or Cookie.for_plain_http("session")
        self._max_age = int(lifetime.total_seconds())

    def read(self, cookies: Mapping[str, str]) -> dict[str, Any] | None:
        """
        Return what the old cookie holds; ``None`` for nothing, or nothing good.
        """
        text = cookies.get(self._cookie.name)
        if not text:
            return None
        try:
            data = self._signer.unsign(text.encode("utf-8"), max_age=self._max_age)
            content = json.loads(b64decode(data))
        except (BadSignature, binascii.Error, ValueError):
            return None
        return content if isinstance(content, dict) and content else None

    def expire(self, cookies: Mapping[str, str]) -> tuple[SetCookie, ...]:
        """
        Return what makes the browser forget the old cookie, where it is there.
        """
        return self._cookie.expire({self._cookie.name} & set(cookies))


class FlaskCookies:
    """
    Reads the session cookie of Flask's own sessions. It needs Flask.

    Args:
        secret_key: ``SECRET_KEY``, or a list of ``SECRET_KEY_FALLBACKS`` and it, it last.
        cookie: as Flask set it.
        lifetime: as Flask's ``PERMANENT_SESSION_LIFETIME``.
    """

    def __init__(
        self,
        secret_key: Keys,
        *,
        cookie: Cookie | None = None,
        lifetime: timedelta = _OLD_LIFETIME,
    ) -> None:
        from flask.sessions import (  # noqa: PLC0415  for those who move from it
            SecureCookieSessionInterface,
        )

        old = SecureCookieSessionInterface
        self._serializer = itsdangerous.URLSafeTimedSerializer(
            _keys(secret_key),
            salt=old.salt,
            serializer=old.serializer,
            signer_kwargs={
                "key_derivation": old.key_derivation,
                "digest_method": old.digest_method,
            },
        )
        self._cookie = cookie or Cookie.for_plain_http("session")
        self._max_age = int(lifetime.total_seconds())

    def read(self, cookies: Mapping[str, str]) -> dict[str, Any] | None:
        """
        Return what the old cookie holds; ``None`` for nothing, or nothing good.
        """
        text = cookies.get(self._cookie.name)
        if not text:
            return None
        try:
            content = self._serializer.loads(text, max_age=self._max_age)
        except (BadSignature, ValueError):
            return None
        return content if isinstance(content, dict) and content else None

    def expire(self, cookies: Mapping[str, str]) -> tuple[SetCookie, ...]:
        """
        Return what makes the browser forget the old cookie, where it is there.
        """
        return self._cookie.expire({self._cookie.name} & set(cookies))


def _keys(secret_key: Keys) -> Any:
    # itsdangerous takes one key or a list; types of either kind are its own business.
    if isinstance(secret_key, str | bytes):
        return secret_key
    return list(secret_key)


def _whole(max_age: float | None) -> int | None:
    return None if max_age is None else int(max_age)
