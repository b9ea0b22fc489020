"""
What the endpoints know without asking the store: tenants, clients and resources.

Rules of this module:

1. Everything here stays true until the store's change counter moves; then all of it is dropped.
   Whoever polls the counter calls `Directory.poll`, whoever wrote may call `invalidate`.
2. What was read while a change came in is answered but not kept: it may be of before.
3. What is not there is remembered too, a bounded number of names, so that a flood of unknown
   clients reaches neither the store nor the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from kagimori.crypto.jwk import JwkSet
from kagimori.identity.credentials import Stored
from kagimori.oauth.client import CLIENTS, Client, GrantType, Profile, is_client_id
from kagimori.oauth.resource import RESOURCES, Resource
from kagimori.oauth.tenant import TENANTS, Tenant
from kagimori.storage.store import Store

if TYPE_CHECKING:
    from kagimori.oauth.admission import Access, Asked, RefreshBounds

CAPACITY: Final = 10_000
"""How many clients, and how many absent names, are remembered."""

_PAGE = 1000

K = TypeVar("K")
V = TypeVar("V")


class ClientRecord:
    """
    A client made ready for serving: what each request would compute again, computed once.

    Attributes:
        client: the client.
        version: the version of its document.
        is_legacy: whether the strict legacy profile applies.
        policy: how its refresh tokens live.
        grants: its grant types.
        scopes: its scope values.
        stored: its secrets, for the credential check.
        plans: decisions on new grants that follow from this client and the directory alone.
        bounds: the same for refreshes.
    """

    __slots__ = (
        "_keys",
        "bounds",
        "client",
        "grants",
        "is_legacy",
        "plans",
        "policy",
        "scopes",
        "stored",
        "version",
    )

    def __init__(self, client: Client, version: int) -> None:
        self.client = client
        self.version = version
        self.is_legacy = client.is_legacy
        self.policy = client.refresh_policy
        self.grants = frozenset(client.grants)
        self.scopes = frozenset(client.scopes)
        self.stored = tuple(
            Stored(secret.digest, secret.expires) for secret in client.secrets
        )
        self.plans: dict[Asked, Access] = {}
        self.bounds: dict[Asked, RefreshBounds] = {}
        self._keys: JwkSet | None = None

    @property
    def keys(self) -> JwkSet:
        """
        Its public keys.

        Raises:
            InvalidKeyError: they cannot be used.
        """
        if self._keys is None:
            self._keys = JwkSet.from_dict(self.client.jwks or {"keys": []})
        return self._keys


class Resources(NamedTuple):
    """
    All resources of a tenant.
    """

    by_id: Mapping[str, Resource]
    by_identifier: Mapping[str, Resource]

    def introspected_by(self, client_id: str) -> bool:
        """
        Return whether a client acts for any resource.
        """
        return any(client_id in each.clients for each in self.by_id.values())


class Directory:
    """
    Tenants, clients and resources, cached until something changes.

    Args:
        store: where they lie.
    """

    def __init__(self, store: Store, *, capacity: int = CAPACITY) -> None:
        self._store = store
        self._counter: int | None = None
        self._clients: _Bounded[tuple[str, str], ClientRecord] = _Bounded(capacity)
        self._absent: _Bounded[tuple[str, str], None] = _Bounded(capacity)
        self._resources: _Bounded[str, Resources] = _Bounded(capacity)
        self._tenants: _Bounded[str, Tenant | None] = _Bounded(capacity)
        self._password_grant: _Bounded[str, bool] = _Bounded(capacity)
        self.epoch = 0
        """Moves with every invalidation: who caches what follows from here compares it."""

    async def get_client(self, tenant: str, client_id: str) -> ClientRecord | None:
        """
        Return a client, or ``None`` where there is none of this id.

        Raises:
            StoreError: as the store raises.
        """
        key = (tenant, client_id)
        record = self._clients.get(key)
        if record is not None:
            return record
        if key in self._absent or not is_client_id(client_id):
            return None
        epoch = self.epoch
        found = await CLIENTS.get(self._store, tenant, client_id)
        record = None if found is None else ClientRecord(found.value, found.version)
        if epoch == self.epoch:
            if record is None:
                self._absent.put(key, None)
            else:
                self._clients.put(key, record)
        return record

    async def get_resources(self, tenant: str) -> Resources:
        """
        Return all resources of a tenant.

        Raises:
            StoreError: as the store raises.
        """
        resources = self._resources.get(tenant)
        if resources is not None:
            return resources
        epoch = self.epoch
        found = await self._all_resources(tenant)
        resources = Resources(
            {each.id: each for each in found}, {each.identifier: each for each in found}
        )
        if epoch == self.epoch:
            self._resources.put(tenant, resources)
        return resources

    async def get_tenant(self, tenant: str) -> Tenant | None:
        """
        Return a tenant, or ``None`` where there is none of this id.

        Raises:
            StoreError: as the store raises.
        """
        known = self._tenants.get(tenant)
        if known is not None or tenant in self._tenants:
            return known
        epoch = self.epoch
        found = await TENANTS.get(self._store, tenant, tenant)
        value = None if found is None else found.value
        if epoch == self.epoch:
            self._tenants.put(tenant, value)
        return value

    async def offers_password_grant(self, tenant: str) -> bool:
        """
        Return whether any client of a tenant has the password grant (ACC-2).

        Raises:
            StoreError: as the store raises.
        """
        known = self._password_grant.get(tenant)
        if known is not None:
            return known
        epoch = self.epoch
        found = await CLIENTS.find(
            self._store, tenant, ("profile", Profile.LEGACY_2015.value), limit=_PAGE
        )
        offered = any(
            GrantType.PASSWORD in each.value.grants and not each.value.disabled
            for each in found
        )
        if epoch == self.epoch:
            self._password_grant.put(tenant, offered)
        return offered

    def invalidate(self) -> None:
        """
        Drop everything that is remembered.
        """
        self.epoch += 1
        for each in (
            self._clients,
            self._absent,
            self._resources,
            self._tenants,
            self._password_grant,
        ):
            each.clear()

    async def poll(self) -> bool:
        """
        Drop everything if the store has changed since the last call; return whether it had.

        Raises:
            StoreError: as the store raises.
        """
        counter = await self._store.change_counter()
        if counter == self._counter:
            return False
        self._counter = counter
        self.invalidate()
        return True

    async def _all_resources(self, tenant: str) -> list[Resource]:
        found: list[Resource] = []
        after: str | None = None
        while True:
            page = await RESOURCES.find(self._store, tenant, limit=_PAGE, after=after)
            found += [each.value for each in page]
            if len(page) < _PAGE:
                return found
            after = page[-1].id


class _Bounded(Generic[K, V]):
    """
    A dictionary that drops its oldest entry when it is full.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: dict[K, V] = {}
        self.get = self._entries.get
        self.clear = self._entries.clear

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def put(self, key: K, value: V) -> None:
        """
        Remember an entry.
        """
        self._entries[key] = value
        if len(self._entries) > self._capacity:
            del self._entries[next(iter(self._entries))]
