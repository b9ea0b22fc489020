"""
The revocation endpoint (RFC 7009).

Rules of this module:

1. A hint is only a hint: what a token is, it says itself (REV-3).
2. A refresh token ends its family and all access tokens of it, an access token only itself.
3. Of a token of another client nothing is revoked, and nothing is said but that (REV-2).
4. Whatever is unknown, expired or over already is answered as a success (REV-1).
"""

from __future__ import annotations

from kagimori.errors import (
    InvalidTokenError,
    KagimoriError,
    OAuthError,
)
from kagimori.oauth.access_tokens import AccessTokens
from kagimori.oauth.client_auth import ClientAuthenticator
from kagimori.oauth.directory import ClientRecord
from kagimori.oauth.faults import invalid_grant, translate
from kagimori.oauth.requests import EndpointRequest
from kagimori.storage.store import Store
from kagimori.tokens.denied import deny_token
from kagimori.tokens.revocation import FamilyRevocation


class RevocationService:
    """
    Answers the revocation endpoint.

    Args:
        authenticator: proves clients; a public one is known by its id alone.
        store: where the deny set lies.
        families: ends refresh-token families.
        access_tokens: reads our own access tokens.
    """

    def __init__(
        self,
        authenticator: ClientAuthenticator,
        store: Store,
        families: FamilyRevocation,
        access_tokens: AccessTokens,
    ) -> None:
        self._authenticator = authenticator
        self._store = store
        self._families = families
        self._access_tokens = access_tokens

    async def revoke(self, request: EndpointRequest) -> None:
        """
        Revoke the token of a request. Returning is a success, also where there was nothing.

        Raises:
            OAuthError: the error to answer with.
        """
        try:
            await self._revoke(request)
        except KagimoriError as error:
            raise translate(error) from None

    async def _revoke(self, request: EndpointRequest) -> None:
        record = await self._authenticator.authenticate(request)
        text = request.form.get("token")
        if text is None:
            raise OAuthError("invalid_request", "The parameter token is missing.")
        # Only a JWT has dots; a refresh token of ours never does.
        if "." in text:
            is_over = await self._deny(request, record, text)
        else:
            is_over = await self._families.revoke_token(
                request.tenant.id, text, client=record.client.id
            )
        if not is_over:
            raise invalid_grant("token of another client")

    async def _deny(
        self, request: EndpointRequest, record: ClientRecord, text: str
    ) -> bool:
        context = request.tenant
        try:
            token = await self._access_tokens.read(context, text, request.now)
        except InvalidTokenError:
            return True
        if token.client_id != record.client.id:
            return False
        await deny_token(self._store, context.id, token.token_id, token.expires_at)
        return True
