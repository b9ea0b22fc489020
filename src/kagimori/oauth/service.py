"""
The token endpoint (RFC 6749 section 3.2), below HTTP.

Rules of this module:

1. The phases are fixed: parse, authenticate the client, allow the grant, run it (which decides
   and commits), sign, answer.
2. Signing comes after the commit. Where it fails the answer is 503, and the same request again
   gets the same refresh token and a fresh access token (requirements B5).
3. Strict legacy answers have four members and no more (requirements C2, ACC-1).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from kagimori.errors import KagimoriError, OAuthError
from kagimori.events import Event, EventSink
from kagimori.oauth.admission import check_grant
from kagimori.oauth.client import GrantType
from kagimori.oauth.client_auth import ClientAuthenticator
from kagimori.oauth.directory import ClientRecord, Directory
from kagimori.oauth.faults import translate
from kagimori.oauth.grants.grant import Grant, GrantCall, Issue
from kagimori.oauth.requests import EndpointRequest, TokenAnswer
from kagimori.tokens.claims import AccessTokenClaims
from kagimori.tokens.family import RefreshTokenFamily
from kagimori.tokens.issuer import IssuedToken, TokenIssuer


class TokenService:
    """
    Answers the token endpoint.

    Args:
        directory: what tenants, clients and resources there are.
        authenticator: proves clients.
        grants: the grant types that are offered.
        issuer: signs access tokens.
        events: told of every token.
    """

    def __init__(
        self,
        directory: Directory,
        authenticator: ClientAuthenticator,
        grants: Iterable[Grant],
        issuer: TokenIssuer,
        events: EventSink,
    ) -> None:
        self._directory = directory
        self._authenticator = authenticator
        self._grants = {grant.type.value: grant for grant in grants}
        self._issuer = issuer
        self._events = events

    @property
    def grant_types(self) -> tuple[GrantType, ...]:
        """
        The grant types that are offered.
        """
        return tuple(grant.type for grant in self._grants.values())

    async def token(self, request: EndpointRequest) -> TokenAnswer:
        """
        Answer a token request.

        Raises:
            OAuthError: the error to answer with.
        """
        try:
            return await self._token(request)
        except KagimoriError as error:
            raise translate(error) from None

    async def sign(
        self,
        request: EndpointRequest,
        record: ClientRecord,
        grant: str,
        issue: Issue,
    ) -> TokenAnswer:
        """
        Sign what was issued, and say it in the client's way.

        Args:
            grant: what it was issued by, for the event.

        Raises:
            SigningUnavailableError: no key can sign at this moment.
        """
        client, access = record.client, issue.access
        claims = _claims(request, record, issue)
        token = await self._issuer.access_token(
            claims,
            tenant=request.tenant.id,
            algorithm=access.resource.signing_algorithm,
            now=request.now,
        )
        self._events.emit(
            Event(
                "token.issued",
                {
                    "tenant": request.tenant.id,
                    "client": client.id,
                    "grant": grant,
                    "resource": access.resource.id,
                    "jti": token.jti,
                    "family": claims.family,
                    "request_id": request.request_id,
                },
            )
        )
        return _answer(record, issue, token, request.now)

    async def _token(self, request: EndpointRequest) -> TokenAnswer:
        grant_type = request.form.get("grant_type")
        if grant_type is None:
            raise OAuthError("invalid_request", "The parameter grant_type is missing.")
        record = await self._authenticator.authenticate(request)
        tenant = request.tenant.id
        grant = self._grants.get(grant_type)
        if grant is None or (
            grant_type not in record.grants
            and grant.type is GrantType.PASSWORD
            and not await self._directory.offers_password_grant(tenant)
        ):
            # What no client has is not offered at all (ACC-2).
            raise OAuthError(
                "unsupported_grant_type", "The grant type is not supported."
            )
        # Before the grant runs, so that nobody is hashed for a client without the grant.
        check_grant(record, grant.type)
        call = GrantCall(
            request,
            record,
            await self._directory.get_tenant(tenant),
            await self._directory.get_resources(tenant),
        )
        issue = await grant.run(call)
        return await self.sign(request, record, grant_type, issue)


def _claims(
    request: EndpointRequest, record: ClientRecord, issue: Issue
) -> AccessTokenClaims:
    client, access, family = record.client, issue.access, issue.family
    username = issue.username if record.is_legacy else None
    if family is None:
        return AccessTokenClaims(
            issuer=request.tenant.issuer,
            subject=issue.subject,
            audience=access.resource.identifier,
            client=client.id,
            lifetime=access.lifetime,
            scope=access.scope_text or "",
            auth_time=issue.auth_time,
            amr=issue.amr,
            username=username,
        )
    return AccessTokenClaims(
        issuer=request.tenant.issuer,
        subject=issue.subject,
        audience=access.resource.identifier,
        client=client.id,
        lifetime=family.access_lifetime(access.lifetime, record.policy, request.now),
        scope=access.scope_text or "",
        family=family.id,
        session=family.session,
        auth_time=family.auth_time,
        acr=family.acr,
        amr=family.amr,
        username=username,
    )


def _answer(
    record: ClientRecord, issue: Issue, token: IssuedToken, now: datetime
) -> TokenAnswer:
    if record.is_legacy:
        return TokenAnswer(
            token_type="bearer",
            access_token=token.text,
            expires_in=token.expires_in,
            refresh_token=issue.refresh_token,
        )
    timeout = ends = None
    if issue.family is not None and issue.refresh_token is not None:
        timeout, ends = remaining(issue.family, now)
    return TokenAnswer(
        token_type="Bearer",
        access_token=token.text,
        expires_in=token.expires_in,
        refresh_token=issue.refresh_token,
        scope=issue.access.scope_text,
        refresh_token_timeout=timeout,
        authorization_expires_in=ends,
    )


def remaining(family: RefreshTokenFamily, now: datetime) -> tuple[int, int]:
    """
    Return the seconds until a family's idle and absolute deadlines.

    The first is never more than the second (draft-ietf-oauth-refresh-token-expiration-03,
    section 6.1).
    """
    idle, absolute = family.idle_deadline - now, family.absolute_deadline - now
    nothing = timedelta()
    return (
        int(max(min(idle, absolute), nothing).total_seconds()),
        int(max(absolute, nothing).total_seconds()),
    )
