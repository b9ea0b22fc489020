"""
The introspection endpoint (RFC 7662).

Rules of this module:

1. A token is told of to whom it is meant for: an access token to the clients that act for its
   resource, and to those that may introspect all; a refresh token to its own client. To anybody
   else it is inactive, like one that does not exist (INT-2, attacks T14).
2. What memory cannot say (revoked, user gone) is read in one round trip. Nothing is written, and
   no deadline moves (INT-3).
3. A disabled client, resource, user or tenant makes its tokens inactive.
"""

from __future__ import annotations

from kagimori.clock import seconds
from kagimori.errors import InvalidTokenError, KagimoriError, OAuthError
from kagimori.identity.user import USER_ID_PREFIX, USERS
from kagimori.oauth.access_tokens import AccessTokens
from kagimori.oauth.client import GrantType
from kagimori.oauth.client_auth import ClientAuthenticator
from kagimori.oauth.directory import ClientRecord, Directory, Resources
from kagimori.oauth.faults import invalid_client, translate
from kagimori.oauth.requests import INACTIVE, EndpointRequest, IntrospectionAnswer
from kagimori.oauth.service import remaining
from kagimori.storage.store import DocumentKey, Reference, Store
from kagimori.tokens.denied import denial_keys
from kagimori.tokens.families import RefreshFamilies
from kagimori.tokens.records import (
    FAMILIES,
    client_epoch,
    redemption_keys,
    user_standing,
)
from kagimori.tokens.redemption import UserStanding
from kagimori.tokens.verified import VerifiedToken


class IntrospectionService:
    """
    Answers the introspection endpoint.

    Args:
        directory: what clients and resources there are.
        authenticator: proves clients.
        store: where denied tokens, families and users lie.
        families: reads refresh tokens.
        access_tokens: reads our own access tokens.
    """

    def __init__(
        self,
        directory: Directory,
        authenticator: ClientAuthenticator,
        store: Store,
        families: RefreshFamilies,
        access_tokens: AccessTokens,
    ) -> None:
        self._directory = directory
        self._authenticator = authenticator
        self._store = store
        self._families = families
        self._access_tokens = access_tokens

    async def introspect(self, request: EndpointRequest) -> IntrospectionAnswer:
        """
        Say what the token of a request is.

        Raises:
            OAuthError: the error to answer with.
        """
        try:
            return await self._introspect(request)
        except KagimoriError as error:
            raise translate(error) from None

    async def _introspect(self, request: EndpointRequest) -> IntrospectionAnswer:
        record = await self._authenticator.authenticate(request)
        resources = await self._directory.get_resources(request.tenant.id)
        if not _may_ask(record, resources):
            raise invalid_client("not authorised to introspect")
        text = request.form.get("token")
        if text is None:
            raise OAuthError("invalid_request", "The parameter token is missing.")
        # Only a JWT has dots; a refresh token of ours never does. A hint changes nothing.
        if "." in text:
            return await self._access_token(request, record, resources, text)
        return await self._refresh_token(request, record, text)

    async def _access_token(
        self,
        request: EndpointRequest,
        record: ClientRecord,
        resources: Resources,
        text: str,
    ) -> IntrospectionAnswer:
        context = request.tenant
        try:
            token = await self._access_tokens.read(context, text, request.now)
        except InvalidTokenError:
            return INACTIVE
        audience = token.audience
        resource = resources.by_identifier.get(audience[0])
        client = record.client
        acts = resource is not None and client.id in resource.clients
        if not client.may_introspect and not acts:
            return INACTIVE
        if await why_inactive(self._directory, self._store, context.id, token):
            return INACTIVE
        return IntrospectionAnswer(
            active=True,
            iss=token.issuer,
            sub=token.subject,
            client_id=token.client_id,
            aud=audience[0],
            scope=" ".join(token.checked.scope.split()) or None,
            token_type="Bearer",
            exp=seconds(token.expires_at),
            iat=seconds(token.issued_at),
            jti=token.token_id,
        )

    async def _refresh_token(
        self, request: EndpointRequest, record: ClientRecord, text: str
    ) -> IntrospectionAnswer:
        context = request.tenant
        found = await self._families.inspect_token(context.id, text)
        if found is None or not found.is_active:
            return INACTIVE
        family = found.family
        if family.client != record.client.id:
            return INACTIVE
        timeout, ends = remaining(family, request.now)
        return IntrospectionAnswer(
            active=True,
            iss=context.issuer,
            sub=family.user,
            client_id=family.client,
            aud=tuple(family.resources) or None,
            scope=" ".join(family.scope) or None,
            exp=seconds(family.idle_deadline),
            iat=seconds(family.rotated_at or family.created),
            refresh_token_timeout=timeout,
            authorization_expires_in=ends,
        )


async def why_inactive(
    directory: Directory, store: Store, tenant: str, token: VerifiedToken
) -> str:
    """
    Return why an access token that verifies is over all the same, "" if it is not.

    Args:
        directory: what clients and resources there are.
        store: where denied tokens, families and users lie.

    Raises:
        StoreError: as the store raises.
    """
    owner = await directory.get_tenant(tenant)
    if owner is None or owner.disabled:
        return "the tenant is disabled"
    resources = await directory.get_resources(tenant)
    audience = token.audience
    resource = resources.by_identifier.get(audience[0])
    if resource is None or len(audience) > 1:
        return "there is no API of its audience"
    if resource.disabled:
        return "the API is disabled"
    issued_to = await directory.get_client(tenant, token.client_id)
    if issued_to is None:
        return "the client is gone"
    if issued_to.client.disabled:
        return "the client is disabled"
    return await _why_over(store, tenant, token)


async def _why_over(store: Store, tenant: str, token: VerifiedToken) -> str:
    family_id = token.family_id
    keys: list[DocumentKey | Reference] = []
    if family_id is not None:
        # First, since its references count from the beginning.
        keys += redemption_keys(family_id)
    elif token.subject.startswith(USER_ID_PREFIX):
        keys.append(USERS.key(token.subject))
    state = len(keys)
    keys += denial_keys(jti=token.token_id, family_id=family_id)
    loaded = await store.load_many(tenant, keys)
    if any(document is not None for document in loaded.documents[state:]):
        return "revoked"
    if not state:
        return ""
    if family_id is None:
        return _why_user(user_standing(loaded.documents[0]))
    found = FAMILIES.maybe(loaded.documents[0])
    if found is None:
        return "its sign-in is gone"
    user = user_standing(loaded.documents[1])
    if user is None or user.disabled:
        return _why_user(user)
    # Whoever signs out raises an epoch first, and marks families after.
    if found.value.revoked_at is not None:
        return "revoked"
    if found.value.epoch != user.epoch:
        return "the user was signed out"
    if found.value.client_epoch != client_epoch(loaded.documents[2]):
        return "the client was signed out"
    return ""


def _why_user(user: UserStanding | None) -> str:
    if user is None:
        return "the user is gone"
    return "the user is disabled" if user.disabled else ""


def _may_ask(record: ClientRecord, resources: Resources) -> bool:
    client = record.client
    # A public client proves nothing, so it is told nothing (INT-1).
    if client.is_public:
        return False
    return (
        client.may_introspect
        or GrantType.REFRESH_TOKEN in record.grants
        or resources.introspected_by(client.id)
    )
