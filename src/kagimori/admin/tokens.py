"""
The operator's verbs for tokens: issue, inspect, list, revoke.

Rules of this module:

1. A token issued by hand is in the audit trail before it exists; so is a revocation.
2. Inspecting uses nothing up and moves no deadline. It answers "why was this user signed out".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from kagimori.admin.audit import Fact, Trail
from kagimori.admin.users import UserAdmin
from kagimori.errors import ConfigError, InvalidTokenError, NotFoundError
from kagimori.keys.journal import Cause
from kagimori.oauth.access_tokens import AccessTokens
from kagimori.oauth.directory import Directory
from kagimori.oauth.introspection import why_inactive
from kagimori.oauth.operator import OperatorIssue
from kagimori.oauth.requests import TenantContext, TokenAnswer
from kagimori.storage.store import Decision, Loaded, Store, transact
from kagimori.tokens.denied import deny_token
from kagimori.tokens.families import RefreshFamilies
from kagimori.tokens.family import EndReason, RefreshTokenFamily
from kagimori.tokens.verified import VerifiedToken

PAGE = 200


class FamilyView(msgspec.Struct, frozen=True, kw_only=True):
    """
    What may be shown of a family; `ends` is the nearer of its two deadlines.
    """

    id: str
    user: str
    client: str
    generation: int
    created: datetime
    last_used: datetime
    ends: datetime
    state: str
    device: str

    @classmethod
    def of(cls, family: RefreshTokenFamily, now: datetime) -> FamilyView:
        """
        Return the view of a family; its state is ``active`` or why it ended.
        """
        end = family.end(now)
        return cls(
            id=family.id,
            user=family.user,
            client=family.client,
            generation=family.generation,
            created=family.created,
            last_used=family.touched,
            ends=end.at if end else min(family.idle_deadline, family.absolute_deadline),
            state=end.reason.value if end else "active",
            device=family.device,
        )


class TokenReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a token is.

    Attributes:
        kind: ``access_token``, ``refresh_token`` or ``unknown``.
        active: whether it works at this moment.
        reason: why not.
        facts: what it says and what is known of it; nothing secret.
    """

    kind: str
    active: bool
    reason: str = ""
    facts: Mapping[str, str] = {}


class TokenAdmin:
    """
    Issues, explains and revokes tokens for operators.
    """

    def __init__(
        self,
        store: Store,
        trail: Trail,
        families: RefreshFamilies,
        access_tokens: AccessTokens,
        operator: OperatorIssue,
        users: UserAdmin,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._trail = trail
        self._families = families
        self._access_tokens = access_tokens
        self._operator = operator
        self._users = users
        self._now = now

    async def issue(
        self,
        context: TenantContext,
        *,
        client: str,
        username: str,
        scope: str | None = None,
        cause: Cause,
    ) -> TokenAnswer:
        """
        Start a family for a user at a client that allows it, and return its first tokens.

        Raises:
            NotFoundError: there is no such client or user.
            OAuthError: client, user or scope stand against it.
        """
        user = await self._users.find(context.id, username)
        details = {"client": client, "scope": scope or ""}
        await self._note(
            context.id, "token.issued_by_operator", user.id, cause, details
        )
        return await self._operator.issue(
            context,
            client=client,
            username=username,
            now=self._now(),
            scope=scope,
            device=cause.actor,
            request_id=cause.request_id,
        )

    async def inspect(self, context: TenantContext, text: str) -> TokenReport:
        """
        Say what a token is and whether it works, without using it.
        """
        if "." in text:
            return await self._inspect_access(context, text)
        found = await self._families.inspect_token(context.id, text)
        if found is None:
            return TokenReport(
                kind="unknown", active=False, reason="not a token of this tenant"
            )
        view = FamilyView.of(found.family, self._now())
        facts = {
            name: str(value) for name, value in msgspec.structs.asdict(view).items()
        }
        facts["token_generation"] = str(found.generation)
        facts["scope"] = " ".join(found.family.scope)
        return TokenReport(
            kind="refresh_token",
            active=found.is_active,
            reason="" if found.is_active else _why(view, found.generation),
            facts=facts,
        )

    async def _inspect_access(self, context: TenantContext, text: str) -> TokenReport:
        now = self._now()
        try:
            token = await self._access_tokens.read(context, text, now)
        except InvalidTokenError as error:
            return TokenReport(
                kind="access_token", active=False, reason=error.detail or error.text
            )
        # A directory of its own remembers nothing, so this is what holds at this moment.
        directory = Directory(self._store)
        reason = await why_inactive(directory, self._store, context.id, token)
        return TokenReport(
            kind="access_token",
            active=not reason,
            reason=reason,
            facts=_facts(token),
        )

    async def list(
        self, tenant: str, *, username: str | None = None, client: str | None = None
    ) -> tuple[FamilyView, ...]:
        """
        Return families, those over included, in the order of their ids.

        Raises:
            NotFoundError: there is no such user.
        """
        user = (await self._users.find(tenant, username)).id if username else None
        now = self._now()
        found: list[FamilyView] = []
        after: str | None = None
        while True:
            page = await self._families.list_families(
                tenant, user=user, client=client, limit=PAGE, after=after
            )
            found += [FamilyView.of(family, now) for family in page]
            if len(page) < PAGE:
                return tuple(found)
            after = page[-1].id

    async def revoke(
        self,
        context: TenantContext,
        *,
        token: str | None = None,
        family: str | None = None,
        username: str | None = None,
        client: str | None = None,
        cause: Cause,
    ) -> int:
        """
        Revoke a token, a family, or all of a user, a client, or a user at a client.

        Returns:
            How many families (or access tokens) that still lived are over now.

        Raises:
            NotFoundError: there is no such user or family.
            ConfigError: nothing was named.
            InvalidTokenError: the text is no token of this tenant.
        """
        tenant, revocation = context.id, self._families.revocation
        if token is not None:
            return await self._revoke_token(context, token, cause)
        if family is not None:
            if await self._families.get_family(tenant, family) is None:
                raise NotFoundError(
                    f"There is no family {family!r}.",
                    hint="See `kagimori tokens list`.",
                )
            await self._note(tenant, "family.revoked", family, cause)
            return int(await revocation.revoke_family(tenant, family))
        if username is not None:
            user = await self._users.find(tenant, username)
            details = {"client": client} if client else {}
            await self._note(tenant, "user.signed_out", user.id, cause, details)
            if client is None:
                return await revocation.revoke_user(tenant, user.id)
            return await self._revoke_pair(tenant, user.id, client)
        if client is not None:
            await self._note(tenant, "client.signed_out", client, cause)
            return await revocation.revoke_client(tenant, client, EndReason.OPERATOR)
        raise ConfigError(
            "Nothing was named to revoke.", hint="Name a token, family, user or client."
        )

    async def _revoke_pair(self, tenant: str, user: str, client: str) -> int:
        count, after = 0, None
        while True:
            page = await self._families.list_families(
                tenant, user=user, client=client, limit=PAGE, after=after
            )
            for family in page:
                count += await self._families.revocation.revoke_family(
                    tenant, family.id
                )
            if len(page) < PAGE:
                return count
            after = page[-1].id

    async def _revoke_token(
        self, context: TenantContext, text: str, cause: Cause
    ) -> int:
        if "." in text:
            token = await self._access_tokens.read(context, text, self._now())
            await self._note(context.id, "token.revoked", token.token_id, cause)
            await deny_token(self._store, context.id, token.token_id, token.expires_at)
            return 1
        found = await self._families.inspect_token(context.id, text)
        if found is None:
            raise InvalidTokenError("This is no token of this tenant.")
        await self._note(context.id, "family.revoked", found.family.id, cause)
        return int(
            await self._families.revocation.revoke_family(context.id, found.family.id)
        )

    async def _note(
        self,
        tenant: str,
        action: str,
        subject: str,
        cause: Cause,
        details: Mapping[str, str] | None = None,
    ) -> None:
        fact = Fact(action, subject, cause, details or {})

        def decide(loaded: Loaded) -> Decision[None]:
            changes = self._trail.facts(tenant, loaded.documents, loaded.now, (fact,))
            return Decision(None, changes)

        await transact(self._store, tenant, self._trail.keys, decide, attempts=50)


def _why(view: FamilyView, generation: int) -> str:
    if view.state != "active":
        return view.state
    if generation < view.generation:
        return "rotated: a newer token has replaced it"
    return "signed out, disabled, or ahead of the database"


def _facts(token: VerifiedToken) -> dict[str, str]:
    facts = {
        "issuer": token.issuer,
        "subject": token.subject,
        "client": token.client_id,
        "audience": " ".join(token.audience),
        "scope": token.checked.scope,
        "issued": token.issued_at.isoformat(),
        "expires": token.expires_at.isoformat(),
        "id": token.token_id,
        "family": token.family_id or "",
    }
    return {name: value for name, value in facts.items() if value}
