"""
The operator's verbs for tenants: create, list, disable, enable, delete.

Rules of this module:

1. A tenant, its first signing keys, its first cookie key and the audit record are one commit,
   or nothing.
2. The tenant `default` holds the installation together and is never deleted.
3. Deleting disables first, takes what lies in the tenant page by page, and ends with one
   commit that takes the tenant and its rings. Whatever dies in between, doing it again is
   safe. The audit trail stays.
4. A host belongs to one tenant; see `kagimori.admin.hosts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from kagimori.admin.apis import IDENTIFIERS
from kagimori.admin.audit import Fact, Trail
from kagimori.admin.bootstrap import INVITATIONS
from kagimori.admin.hosts import claim_host, release_host
from kagimori.clock import Clock
from kagimori.errors import (
    ConfigError,
    ConflictError,
    ContentionError,
    KagimoriError,
    NotFoundError,
    RefusedError,
    StoreError,
)
from kagimori.identity.user import USERNAMES, USERS
from kagimori.keys.birth import FirstKeys, NewRings, make_first_keys
from kagimori.keys.documents import LEDGERS, RINGS, RingDocument
from kagimori.keys.journal import Cause
from kagimori.keys.ledger import LedgerDocument, live_tokens
from kagimori.keys.material import ProtectorRoot
from kagimori.keys.timeline import KeyUse, rfc3339
from kagimori.oauth.assertions import USED
from kagimori.oauth.client import CLIENTS
from kagimori.oauth.resource import RESOURCES
from kagimori.oauth.tenant import DEFAULT_TENANT, TENANTS, Tenant
from kagimori.storage.store import (
    ABSENT,
    Change,
    Decision,
    Delete,
    Document,
    DocumentKey,
    Loaded,
    Store,
    transact,
)
from kagimori.tokens.denied import DENIED
from kagimori.tokens.records import CLIENT_EPOCHS, FAMILIES

USES = (KeyUse.SIGNING, KeyUse.COOKIE)

EMPTIED_KINDS = (
    CLIENTS.kind,
    CLIENT_EPOCHS.kind,
    DENIED.kind,
    FAMILIES.kind,
    IDENTIFIERS.kind,
    INVITATIONS.kind,
    RESOURCES.kind,
    USED,
    USERNAMES.kind,
    USERS.kind,
)
"""What else lies in a tenant. Its audit trail is not among them: it stays."""

PAGE = 200

ATTEMPTS = 50

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"(?=.{1,253}(?::|\Z))[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::[0-9]{1,5})?")


class TenantAdmin:
    """
    Makes and removes tenants.

    Args:
        store: where they lie.
        protection: the protection ring under which their first keys lie.
        clock: this process's time.
        trail: the audit trail.
        plan: what the rings of a new tenant begin with.
    """

    def __init__(
        self,
        store: Store,
        protection: ProtectorRoot,
        clock: Clock,
        trail: Trail | None = None,
        *,
        plan: NewRings | None = None,
    ) -> None:
        self._store = store
        self._protection = protection
        self._clock = clock
        self._trail = trail or Trail()
        self._plan = plan or NewRings()

    async def list(self) -> tuple[Tenant, ...]:
        """
        Return all tenants in the order of their names.
        """
        found: list[Tenant] = []
        after: str | None = None
        while True:
            page = await TENANTS.find(self._store, None, limit=PAGE, after=after)
            found += [tenant.value for tenant in page]
            if len(page) < PAGE:
                return tuple(found)
            after = page[-1].id

    async def create(
        self,
        tenant: str,
        *,
        name: str = "",
        host: str | None = None,
        plan: NewRings | None = None,
        cause: Cause,
    ) -> Tenant:
        """
        Make a tenant with its first keys.

        Args:
            tenant: its short name, in paths and on the command line.
            host: the host that it answers on; left out, it answers under ``/t/{tenant}``.
            plan: what its rings begin with; left out, what this installation's do.

        Raises:
            ConfigError: the name, the host or a rotation policy is impossible.
            RefusedError: the name or the host is taken.
            KeyRingError: the first keys cannot be protected.
        """
        check_name(tenant)
        check_host(host)
        await self._refuse_taken(tenant, host)
        now = self._clock.now()
        first = await make_first_keys(
            self._protection, tenant, plan or self._plan, now=now
        )
        keys = [TENANTS.key(tenant), *_ring_keys(), *self._trail.keys]

        def rule(loaded: Loaded) -> Decision[Tenant]:
            if loaded.documents[0] is not None:
                raise _taken(tenant)
            made = Tenant(id=tenant, created=loaded.now, name=name, host=host)
            put = TENANTS.put(tenant, made, ABSENT)
            births = self._births(first, loaded, cause)
            return Decision(made, (put, *births))

        claim = await claim_host(self._store, tenant, host) if host else None
        try:
            return await transact(self._store, tenant, keys, rule, attempts=ATTEMPTS)
        except KagimoriError as exc:
            if host and not _may_have_committed(exc):
                await release_host(self._store, tenant, host, claim)
            raise

    async def disable(self, tenant: str, *, cause: Cause) -> Tenant:
        """
        Let a tenant answer nothing until it is enabled again; its keys go on turning.

        Raises:
            NotFoundError: there is no such tenant.
        """
        return await self._switch(tenant, disabled=True, cause=cause)

    async def enable(self, tenant: str, *, cause: Cause) -> Tenant:
        """
        Let a disabled tenant answer again.

        Raises:
            NotFoundError: there is no such tenant.
        """
        return await self._switch(tenant, disabled=False, cause=cause)

    async def delete(self, tenant: str, *, force: bool = False, cause: Cause) -> None:
        """
        Delete a tenant with its keys and everything in it.

        Args:
            force: although tokens of it are alive.

        Raises:
            NotFoundError: there is no such tenant.
            RefusedError: it is `default`, or tokens of it are alive and there is no `force`:
                the text says how many, and from when on it is safe.
        """
        if tenant == DEFAULT_TENANT:
            raise RefusedError(
                f"The tenant {DEFAULT_TENANT} cannot be deleted: the installation rests on it.",
                hint="Disable it instead.",
            )
        found = await TENANTS.get(self._store, tenant, tenant)
        if found is None:
            raise _unknown(tenant)
        await self._refuse_alive(tenant, force=force)
        await self._switch(tenant, disabled=True, cause=cause)
        try:
            # What was signed until then counts too.
            await self._refuse_alive(tenant, force=force)
        except RefusedError:
            if not found.value.disabled:
                await self._switch(tenant, disabled=False, cause=cause)
            raise
        for kind in EMPTIED_KINDS:
            await self._empty(tenant, kind)
        ledgers = [LEDGERS.key(use.value) for use in USES]
        keys = [TENANTS.key(tenant), *_ring_keys(), *ledgers]

        def rule(loaded: Loaded) -> Decision[None]:
            if loaded.documents[0] is None:
                return Decision(None)
            if not force:
                # A server that had not heard of the end may have signed until a moment ago.
                # The ledger goes in this commit by its version, so nothing slips in after.
                _refuse_tokens(
                    tenant, loaded.documents[1], loaded.documents[3], loaded.now
                )
            gone: list[Change] = [
                Delete(document.kind, document.id, document.version, announce=True)
                for document in loaded.documents[: len(keys)]
                if document is not None
            ]
            details = {"forced": "yes"} if force else {}
            facts = (Fact("tenant.deleted", tenant, cause, details),)
            written = self._trail.facts(
                tenant, loaded.documents[len(keys) :], loaded.now, facts
            )
            return Decision(None, (*gone, *written))

        await transact(
            self._store,
            tenant,
            [*keys, *self._trail.keys],
            rule,
            attempts=ATTEMPTS,
        )
        if found.value.host:
            await release_host(self._store, tenant, found.value.host)

    # --- within ------------------------------------------------------------------------

    async def _switch(self, tenant: str, *, disabled: bool, cause: Cause) -> Tenant:
        def rule(loaded: Loaded) -> Decision[Tenant]:
            found = TENANTS.maybe(loaded.documents[0])
            if found is None:
                raise _unknown(tenant)
            if found.value.disabled is disabled:
                return Decision(found.value)
            new = msgspec.structs.replace(found.value, disabled=disabled)
            action = "tenant.disabled" if disabled else "tenant.enabled"
            facts = (Fact(action, tenant, cause),)
            written = self._trail.facts(tenant, loaded.documents[1:], loaded.now, facts)
            return Decision(new, (TENANTS.put(tenant, new, found.version), *written))

        keys = [TENANTS.key(tenant), *self._trail.keys]
        return await transact(self._store, tenant, keys, rule, attempts=ATTEMPTS)

    def _births(
        self, first: FirstKeys, loaded: Loaded, cause: Cause
    ) -> Sequence[Change]:
        lacking = [
            use
            for use, document in zip(USES, loaded.documents[1:3], strict=True)
            if document is None
        ]
        changes, records = first.changes(loaded.now, cause, uses=lacking)
        trail = self._trail
        facts = (Fact("tenant.created", first.tenant, cause), *trail.told(records))
        written = trail.facts(first.tenant, loaded.documents[3:], loaded.now, facts)
        return (*changes, *written)

    async def _refuse_taken(self, tenant: str, host: str | None) -> None:
        # Before keys are made, which takes a while; the name is judged again in the commit.
        if await TENANTS.get(self._store, tenant, tenant) is not None:
            raise _taken(tenant)
        if host and await TENANTS.find(self._store, None, ("host", host), limit=1):
            raise RefusedError(f"Another tenant answers on the host {host}.")

    async def _refuse_alive(self, tenant: str, *, force: bool) -> None:
        if force:
            return
        signing = KeyUse.SIGNING.value
        loaded = await self._store.load_many(
            tenant, [RINGS.key(signing), LEDGERS.key(signing)]
        )
        ring, ledger = loaded.documents
        _refuse_tokens(tenant, ring, ledger, loaded.now)

    async def _empty(self, tenant: str, kind: str) -> None:
        while page := await self._store.find(tenant, kind, limit=PAGE):
            for document in page:
                change = Delete(kind, document.id, document.version, announce=False)
                try:
                    await self._store.commit(tenant, (change,))
                except ConflictError:
                    # Somebody wrote it just now; the next page holds it again.
                    continue


def _refuse_tokens(
    tenant: str, ring: Document | None, ledger: Document | None, now: datetime
) -> None:
    stored, counted = RINGS.maybe(ring), LEDGERS.maybe(ledger)
    if stored is None:
        return
    count, until = _alive(stored.value, counted.value if counted else None, now)
    if until is not None:
        raise RefusedError(
            f"{count} tokens of the tenant {tenant} may be alive until "
            f"{rfc3339(until)}.",
            hint="Disable the tenant and wait until then, or say --force.",
            tenant=tenant,
            live=str(count),
            safe=rfc3339(until),
        )


def _alive(
    ring: RingDocument, ledger: LedgerDocument | None, now: datetime
) -> tuple[int, datetime | None]:
    live = [live_tokens(ledger, key, now) for key in ring.keys]
    ends = [one.until for one in live if one.until is not None and one.until > now]
    return sum(one.count or 0 for one in live), max(ends, default=None)


def _may_have_committed(error: KagimoriError) -> bool:
    if not isinstance(error, StoreError) or isinstance(error, ContentionError):
        return False
    return error.transient


def _ring_keys() -> list[DocumentKey]:
    return [RINGS.key(use.value) for use in USES]


def check_name(tenant: str) -> None:
    """
    Refuse a name that cannot stand in a path, a file name or a host (attack K11).

    Raises:
        ConfigError: the sentence says what may stand in one.
    """
    if _NAME.fullmatch(tenant) is None:
        raise ConfigError(
            "A tenant's name has 1 to 63 small letters, digits and inner hyphens."
        )


def check_host(host: str | None) -> None:
    """
    Refuse what is no host name, with a port or without.

    Raises:
        ConfigError: the sentence says how one looks.
    """
    if host is not None and _HOST.fullmatch(host) is None:
        raise ConfigError(
            "A tenant's host is a name in small letters such as auth.example.com, with a "
            "port where it is not the usual one."
        )


def _taken(tenant: str) -> RefusedError:
    return RefusedError(f"There is a tenant {tenant} already.", tenant=tenant)


def _unknown(tenant: str) -> NotFoundError:
    return NotFoundError(
        f"There is no tenant {tenant}.",
        hint="`kagimori tenants list` shows the tenants.",
        tenant=tenant,
    )
