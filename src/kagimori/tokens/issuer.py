"""
Claims become a signed access token: in memory, with the current key.
"""

from __future__ import annotations

from datetime import datetime
from typing import NoReturn, Protocol

import msgspec

from kagimori.clock import from_seconds, seconds
from kagimori.crypto.digests import random_id
from kagimori.tokens.claims import TYP, AccessTokenClaims

_encode = msgspec.json.Encoder().encode


class JwsSigner(Protocol):
    """
    Signs payloads under one header.
    """

    def sign(self, payload: bytes, /) -> str:
        """
        Return the compact JWS of a payload.
        """
        ...


class IssuingKey(Protocol):
    """
    A key that signs now.
    """

    def jws_signer(self, typ: str | None = None) -> JwsSigner:
        """
        Return the signer for a ``typ``, made once.
        """
        ...


class IssuingKeys(Protocol):
    """
    The signing keys of all tenants.
    """

    async def signing_key(
        self, tenant: str, algorithm: str | None, now: datetime, until: datetime
    ) -> IssuingKey:
        """
        Return the current key of an algorithm, reserved for tokens that live until `until`.

        Raises:
            SigningUnavailableError: there is none at this moment.
        """
        ...


class IssuedToken:
    """
    An access token as it is handed out.

    Attributes:
        text: the compact JWS. It is a secret, so nothing here shows it.
        jti: its id.
        expires_in: its life in seconds: ``exp`` minus ``iat``.
    """

    __slots__ = ("expires_in", "jti", "text")

    def __init__(self, text: str, jti: str, expires_in: int) -> None:
        self.text = text
        self.jti = jti
        self.expires_in = expires_in

    def __repr__(self) -> str:
        return f"IssuedToken(jti={self.jti!r}, expires_in={self.expires_in})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("tokens are not pickled")


class TokenIssuer:
    """
    Makes access tokens.

    Args:
        keys: where the current key comes from.
    """

    def __init__(self, keys: IssuingKeys) -> None:
        self._keys = keys

    async def access_token(
        self,
        claims: AccessTokenClaims,
        *,
        tenant: str,
        algorithm: str | None,
        now: datetime,
    ) -> IssuedToken:
        """
        Sign an access token (RFC 9068).

        Args:
            algorithm: what its resource wants; ``None``: the tenant's default.
            now: becomes ``iat``, rounded down.

        Raises:
            SigningUnavailableError: no key can sign at this moment.
            ValueError: the lifetime is under one second.
        """
        lifetime = int(claims.lifetime.total_seconds())
        if lifetime < 1:
            raise ValueError("An access token lives for a second at least.")
        issued_at = seconds(now)
        expires_at = issued_at + lifetime
        jti = random_id()
        payload = _encode(claims.payload(jti, issued_at, expires_at))
        key = await self._keys.signing_key(
            tenant, algorithm, now, from_seconds(expires_at)
        )
        return IssuedToken(key.jws_signer(TYP).sign(payload), jti, lifetime)
