"""
Reading our own access tokens, for revocation and introspection.

Rules of this module:

1. The keys are the tenant's own, from memory, at the leeway of none: issuer and reader are one
   installation (JAT-5). A key id that nobody knows costs one rate-limited look.
2. The issuer is this tenant's, byte for byte, or an earlier address of it (attacks J7).
3. The audience is left to the caller, who knows whom it tells.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from kagimori.crypto import jws
from kagimori.crypto.jwk import JwkSet
from kagimori.errors import ExpiredTokenError, InvalidTokenError, JoseError
from kagimori.oauth.requests import TenantContext
from kagimori.tokens.verified import VerifiedToken
from kagimori.tokens.verifier import TokenVerifier


class PublishedKeys(Protocol):
    """
    The keys that verify what a tenant signed.
    """

    def verification_keys(self, tenant: str, now: datetime) -> JwkSet:
        """
        Return the published keys: current, next and previous ones.
        """
        ...

    async def learns(self, tenant: str, kid: str, now: datetime) -> bool:
        """
        Say whether a key is published, after a look at the store if it is not known.
        """
        ...


class AccessTokens:
    """
    Reads the access tokens of this installation.

    Args:
        keys: what they are verified with.
    """

    def __init__(self, keys: PublishedKeys) -> None:
        self._keys = keys

    async def read(
        self, context: TenantContext, text: str, now: datetime
    ) -> VerifiedToken:
        """
        Return what an access token says.

        Raises:
            InvalidTokenError: it is none of this tenant's; `ExpiredTokenError`: it is over.
        """
        try:
            return self._verify(context, text, now)
        except ExpiredTokenError:
            raise
        except InvalidTokenError as error:
            if await self.learns_key(context, text, now):
                return self._verify(context, text, now)
            raise error from None

    def _verify(
        self, context: TenantContext, text: str, now: datetime
    ) -> VerifiedToken:
        verifier = TokenVerifier.from_keys(
            self._keys.verification_keys(context.id, now),
            issuer=(context.issuer, *context.earlier_issuers),
            audience=None,
            allow_any_audience=True,
        )
        return verifier.verify(text, now=now)

    async def learns_key(
        self, context: TenantContext, text: str, now: datetime
    ) -> bool:
        """
        Say whether a refused token was signed by a key that a look at the store has found.

        Key ids come from attackers: there is one look a second at most, and none for a token
        whose key was known all along.
        """
        tenant = context.id
        try:
            kid = jws.peek_header(text).get("kid")
        except JoseError:
            return False
        if not isinstance(kid, str):
            return False
        if self._keys.verification_keys(tenant, now).get(kid) is not None:
            # The key was known, so the token was refused for another reason.
            return False
        return await self._keys.learns(tenant, kid, now)
