"""
What a server process holds of all tenants' rings, and how it stays fresh.

Rules of this module:

1. Unreadable is not absent: on any failure the last good ring goes on serving, it is told as
   an alarm, and nothing is minted.
2. One tenant's trouble is its own: others load and serve.
3. A ring leaves only when a whole look at the store has found that it is gone.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple

from kagimori.clock import Clock
from kagimori.errors import KagimoriError, SigningUnavailableError, StoreError
from kagimori.events import Event, EventSink, Severity
from kagimori.keys.documents import RINGS, RingDocument, all_rings
from kagimori.keys.ledger import LedgerBook
from kagimori.keys.live import TenantKeys
from kagimori.keys.loading import live_keys
from kagimori.keys.manager import KeyManager, RefreshPolicy
from kagimori.keys.material import ProtectorRoot
from kagimori.keys.timeline import KeyUse
from kagimori.storage.store import Document, Store, Versioned

REFRESH = RefreshPolicy(unknown_id_every=timedelta(seconds=1))

RETRY_UNREADABLE = timedelta(seconds=5)
"""How often a private half that could not be read is tried again."""


class StoredRings(NamedTuple):
    """
    A tenant's rings as one read brought them.
    """

    signing: Versioned[RingDocument] | None
    cookie: Versioned[RingDocument] | None


RING_KEYS = (RINGS.key(KeyUse.SIGNING.value), RINGS.key(KeyUse.COOKIE.value))


class Alarms:
    """
    Tells of a trouble once when it begins and once when it is over.
    """

    def __init__(self, events: EventSink) -> None:
        self.events = events
        self._raised: set[tuple[str, str]] = set()

    def tell(self, name: str, **fields: str | int) -> None:
        """
        Tell of something that happened.
        """
        self.events.emit(Event(name, fields))

    def alarm(self, subject: str, name: str, **fields: str | int) -> None:
        """
        Tell of a trouble, unless it has been told.
        """
        if (subject, name) not in self._raised:
            self._raised.add((subject, name))
            self.events.emit(Event(name, fields, Severity.ALARM))

    def calm(self, subject: str, name: str, **fields: str | int) -> None:
        """
        Tell that a trouble is over, if it had been told.
        """
        if (subject, name) in self._raised:
            self._raised.discard((subject, name))
            if name == "ring.unreadable":
                self.events.emit(Event("ring.recovered", fields))


class HeldTenant:
    """
    One tenant in this process: its live rings and its part of the ledger.
    """

    __slots__ = (
        "book",
        "loading",
        "manager",
        "reserving",
        "retry_at",
        "tenant",
        "unwritten",
    )

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.manager: KeyManager[TenantKeys] = KeyManager(REFRESH)
        self.book = LedgerBook()
        self.loading = asyncio.Lock()
        self.reserving = asyncio.Lock()
        self.retry_at: datetime | None = None
        self.unwritten = 0

    @property
    def keys(self) -> TenantKeys:
        """
        Return the rings that serve.

        Raises:
            SigningUnavailableError: none could be read yet.
        """
        keys = self.manager.ring
        if keys is None:
            error = self.manager.error
            raise SigningUnavailableError(
                f"The keys of the tenant {self.tenant} cannot be read.",
                hint="`kagimori doctor` says why.",
                detail=str(error) if isinstance(error, KagimoriError) else "",
                tenant=self.tenant,
            )
        return keys


class Holdings:
    """
    All tenants that a process holds.

    Args:
        store: where the rings lie.
        root: what opens their private halves.
        clock: this node's time.
        events: who is told of alarms.
    """

    def __init__(
        self, store: Store, root: ProtectorRoot, clock: Clock, events: EventSink
    ) -> None:
        self.store = store
        self.root = root
        self.clock = clock
        self.alarms = Alarms(events)
        self.tenants: dict[str, HeldTenant] = {}
        self.store_error: StoreError | None = None
        self._counter: int | None = None

    async def look(self) -> None:
        """
        Take in what others changed; cheap while nothing has.
        """
        now = self.clock.now()
        try:
            counter = await self.store.change_counter()
            if counter != self._counter:
                await self._look_at_all()
                self._counter = counter
        except StoreError as exc:
            self.store_error = exc
            for held in self.tenants.values():
                held.manager.failed(exc, now)
            self.alarms.alarm("store", "ring.unreadable", reason=exc.code)
            return
        self.store_error = None
        self.alarms.calm("store", "ring.unreadable")
        for held in tuple(self.tenants.values()):
            if held.manager.wants_load(now) or _due(held.retry_at, now):
                await self.load(held.tenant)
            else:
                held.manager.probed(changed=False, now=now)

    def forget_counter(self) -> None:
        """
        Let the next look read everything.
        """
        self._counter = None

    async def load(self, tenant: str) -> None:
        """
        Read one tenant's rings, whatever the change counter says.
        """
        known = self.tenants.get(tenant)
        serving = known.manager.ring if known else None
        try:
            loaded = await self.store.load_many(tenant, RING_KEYS)
        except StoreError as exc:
            self._failed(known, exc)
            return
        if loaded.documents[0] is None:
            self.tenants.pop(tenant, None)
            return
        held = self.tenants.setdefault(tenant, HeldTenant(tenant))
        await self.take(held, loaded.documents, serving)

    async def take(
        self,
        held: HeldTenant,
        documents: tuple[Document | None, ...],
        serving: TenantKeys | None,
    ) -> None:
        """
        Let stored rings serve, where they differ from those that do.

        Args:
            documents: the signing ring, the cookie ring.
            serving: what served when they were asked for.
        """
        try:
            stored = _decoded(documents)
        except StoreError as exc:
            self._failed(held, exc)
            return
        await self._take(held, stored, serving)

    async def _take(
        self,
        held: HeldTenant,
        stored: StoredRings,
        serving: TenantKeys | None,
    ) -> None:
        async with held.loading:
            before = held.manager.ring
            try:
                if before is not serving:
                    # Somebody else read meanwhile, and may have read later: what was read
                    # here would look like an older database that was put in place.
                    again = await self.store.load_many(held.tenant, RING_KEYS)
                    stored = _decoded(again.documents)
                signing, cookie = stored
                if signing is None:
                    return
                now = self.clock.now()
                same = before is not None and _is_same(before, signing, cookie)
                if before is not None and same and not _due(held.retry_at, now):
                    held.manager.loaded(before, now)
                    return
                keys = await live_keys(self.root, signing, cookie, before, now)
            except KagimoriError as exc:
                self._failed(held, exc)
                return
            held.manager.loaded(keys, now)
        self._judge(held, keys, now)

    def _judge(self, held: HeldTenant, keys: TenantKeys, now: datetime) -> None:
        cookie = keys.cookie.unreadable if keys.cookie else {}
        unreadable = {**keys.signing.unreadable, **cookie}
        held.retry_at = now + RETRY_UNREADABLE if unreadable else None
        for kid, problem in unreadable.items():
            self.alarms.alarm(
                f"{held.tenant} {kid}",
                "ring.unreadable",
                tenant=held.tenant,
                kid=kid,
                reason=problem.detail or problem.code,
            )
        kids = [key.id for key in keys.signing.ring]
        kids += [key.id for key in keys.cookie.ring] if keys.cookie else []
        for kid in kids:
            if kid not in unreadable:
                subject = f"{held.tenant} {kid}"
                self.alarms.calm(
                    subject, "ring.unreadable", tenant=held.tenant, kid=kid
                )
        self.alarms.calm(held.tenant, "ring.unreadable", tenant=held.tenant)

    def _failed(self, held: HeldTenant | None, exc: KagimoriError) -> None:
        if held is None:
            return
        held.manager.failed(exc, self.clock.now())
        self.alarms.alarm(
            held.tenant,
            "ring.unreadable",
            tenant=held.tenant,
            reason=exc.detail or exc.code,
        )

    async def _look_at_all(self) -> None:
        serving = {name: held.manager.ring for name, held in self.tenants.items()}
        rings, damaged = await all_rings(self.store)
        by_tenant: dict[str, dict[KeyUse, Versioned[RingDocument]]] = {}
        for ring in rings:
            by_tenant.setdefault(ring.value.tenant, {})[ring.value.use] = ring
        for tenant, found in by_tenant.items():
            signing = found.get(KeyUse.SIGNING)
            if signing is not None:
                held = self.tenants.setdefault(tenant, HeldTenant(tenant))
                stored = StoredRings(signing, found.get(KeyUse.COOKIE))
                await self._take(held, stored, serving.get(tenant))
        if damaged:
            # Nobody can say whose they are, so nothing that serves is let go.
            self.alarms.alarm("damaged", "ring.unreadable", damaged=damaged)
            return
        self.alarms.calm("damaged", "ring.unreadable")
        for tenant in tuple(self.tenants):
            if KeyUse.SIGNING not in by_tenant.get(tenant, {}):
                del self.tenants[tenant]


def _decoded(documents: tuple[Document | None, ...]) -> StoredRings:
    signing, cookie = map(RINGS.maybe, documents)
    return StoredRings(signing, cookie)


def _is_same(
    before: TenantKeys,
    signing: Versioned[RingDocument],
    cookie: Versioned[RingDocument] | None,
) -> bool:
    mine = before.cookie.version if before.cookie else None
    theirs = cookie.version if cookie else None
    return before.signing.version == signing.version and mine == theirs


def _due(at: datetime | None, now: datetime) -> bool:
    # One that lies further ahead than a pause was set before the clock was set back.
    return at is not None and (at <= now or at > now + RETRY_UNREADABLE)
