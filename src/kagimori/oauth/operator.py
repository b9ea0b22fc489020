"""
An operator issues tokens in a client's name, for a user.

Rules of this module:

1. Only where the client allows it (`Client.allow_operator_grants`), and through the same choke
   point as every grant.
2. Whoever calls this keeps the audit record: before anything is issued.
"""

from __future__ import annotations

from datetime import datetime

from kagimori.errors import NotFoundError
from kagimori.identity.user import USERNAMES, USERS, User, username_key
from kagimori.oauth.admission import Access, Asked, admit
from kagimori.oauth.client import GrantType
from kagimori.oauth.directory import ClientRecord, Directory
from kagimori.oauth.grants.sign_in import issue_for_user
from kagimori.oauth.requests import EndpointRequest, TenantContext, TokenAnswer
from kagimori.oauth.service import TokenService
from kagimori.storage.store import Reference, Store
from kagimori.tokens.families import RefreshFamilies

NAME = "operator"
"""What the event of such a token names as its grant."""


class OperatorIssue:
    """
    Issues tokens for operators.

    Args:
        directory: what clients and resources there are.
        store: where users lie.
        families: opens the family.
        service: signs.
    """

    def __init__(
        self,
        directory: Directory,
        store: Store,
        families: RefreshFamilies,
        service: TokenService,
    ) -> None:
        self._directory = directory
        self._store = store
        self._families = families
        self._service = service

    async def issue(
        self,
        context: TenantContext,
        *,
        client: str,
        username: str,
        now: datetime,
        scope: str | None = None,
        resource: str | None = None,
        device: str = "",
        request_id: str = "",
    ) -> TokenAnswer:
        """
        Start a family for a user at a client, and return its first tokens.

        Args:
            device: what the user may know the sign-in by.

        Raises:
            NotFoundError: there is no such client or user.
            OAuthError: client, user, scope or resource stand against it.
            SigningUnavailableError: no key can sign at this moment.
            StoreError: as the store raises.
        """
        record = await self._directory.get_client(context.id, client)
        if record is None:
            raise NotFoundError("There is no such client.")
        user = await self._user(context.id, username)
        access = await self._admit(context.id, record, user, Asked(scope, resource))
        issue = await issue_for_user(
            self._families,
            context.id,
            record,
            user,
            access,
            now=now,
            device=device,
        )
        request = EndpointRequest(context, {}, None, now, request_id=request_id)
        return await self._service.sign(request, record, NAME, issue)

    async def _admit(
        self, tenant: str, record: ClientRecord, user: User, asked: Asked
    ) -> Access:
        return admit(
            await self._directory.get_tenant(tenant),
            record,
            GrantType.REFRESH_TOKEN,
            await self._directory.get_resources(tenant),
            asked,
            user=user,
            by_operator=True,
        )

    async def _user(self, tenant: str, username: str) -> User:
        loaded = await self._store.load_many(
            tenant,
            [USERNAMES.key(username_key(username)), Reference(USERS.kind, 0, "user")],
        )
        found = USERS.maybe(loaded.documents[1])
        if found is None:
            raise NotFoundError("There is no such user.")
        return found.value
