"""
An open installation: what the server serves from and what every command works on.

Rules of this module:

1. The server and every command stand on the same `Installation`; the server alone calls `start`
   and what keeps it alive.
2. A reason not to be ready is an error of the domain, with a sentence and a hint.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from kagimori import high_water
from kagimori.clock import OffsetClock
from kagimori.compose.issuers import Issuers
from kagimori.compose.services import Services
from kagimori.errors import (
    KagimoriError,
    KeyWrapError,
    RestoredError,
    RingMissingError,
    RingUnreadableError,
    StoreError,
)
from kagimori.events import Event, EventSink, Severity
from kagimori.high_water import HighWater, Part
from kagimori.keys.birth import NewRings
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.tenant_rings import TenantRings
from kagimori.oauth.assembly import assemble
from kagimori.oauth.tenant import TENANTS
from kagimori.settings import Settings
from kagimori.storage.store import Store

if TYPE_CHECKING:
    from kagimori.admin.apis import ApiAdmin
    from kagimori.admin.clients import ClientAdmin
    from kagimori.admin.keys import KeyAdmin
    from kagimori.admin.tenants import TenantAdmin
    from kagimori.admin.tokens import TokenAdmin
    from kagimori.admin.users import UserAdmin


class Installation:
    """
    An open installation.

    Attributes:
        settings: what it was opened by.
        clock: this node's time, corrected by the store's.
        ring: the protection ring.
        store: the database.
        rings: the tenants' signing and cookie keys.
        issuers: the tenants' issuers.
        oauth: the endpoints' rules.
        services: what the endpoints stand on.
        high_water: the marks of the data folder.
        hosts: tenant ids by host name.
    """

    def __init__(
        self,
        settings: Settings,
        clock: OffsetClock,
        events: EventSink,
        *,
        ring: ProtectionRing,
        store: Store,
        plan: NewRings | None = None,
    ) -> None:
        from kagimori.admin.audit import Trail

        self.settings = settings
        self.clock = clock
        self.events = events
        self.ring = ring
        self.store = store
        self.trail = Trail()
        # Tenants made later in a demo world turn as fast as its first one.
        self._plan = plan or (NewRings.demo() if settings.demo else NewRings())
        self.rings = TenantRings(
            store, ring, clock, events, journal=self.trail, plan=self._plan
        )
        self.issuers = Issuers(settings)
        self.oauth = assemble(
            store, self.rings, ring, events=events, limits=settings.throttle
        )
        self.services = Services(self.oauth, self.rings, clock)
        self.high_water = HighWater(settings.data)
        self.hosts: Mapping[str, str] = {}
        self._restored: tuple[RestoredError, ...] = ()
        self._store_problem: StoreError | None = None
        self._is_unlearned = False
        self._knew_ring = False

    # --- serving ---------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Load everything that requests are served from.

        Raises:
            KagimoriError: something cannot be read; `is_transient` says whether to try again.
        """
        await self.check_marks()
        await self.rings.start()
        problem = self.rings.problem
        if problem is not None:
            raise problem
        await self._learn()

    async def check_marks(self) -> None:
        """
        Compare ring and database with the marks of the folder (attack K7).

        Raises:
            StoreError, ConfigError: one of them cannot be read.
        """
        # The marks are read first: others raise a count before they mark it.
        marks = self.high_water.read()
        count, now = await high_water.read_count(self.store)
        self.clock.observe(now)
        is_ring_known = await self._catch_up(marks.ring)
        before = {error.params["part"] for error in self._restored}
        found: list[RestoredError] = []
        for part, value in (
            (Part.RING, self.ring.generation),
            (Part.DATABASE, count),
        ):
            if part is Part.RING and not is_ring_known:
                continue
            try:
                marks.check(part, value)
            except RestoredError as error:
                found.append(error)
                if part.value not in before:
                    fields = {"part": part.value, "text": error.text}
                    self.events.emit(Event("restored", fields, Severity.ALARM))
        self._restored = tuple(found)

    async def _catch_up(self, mark: int) -> bool:
        """
        Look at a ring that is behind its mark; say whether it can be judged by that.
        """
        if self.ring.generation < mark:
            # Another process has turned the ring, and this one has not looked yet.
            try:
                await asyncio.to_thread(self.ring.refresh)
            except KagimoriError:
                # Unreadable is not older: what was in order serves on. What is restored stays so.
                was_restored = any(
                    error.params["part"] == Part.RING.value for error in self._restored
                )
                return was_restored or not self._knew_ring
        self._knew_ring = self.ring.generation >= mark
        return True

    async def beat(self) -> None:
        """
        Raise the count of the database, and the marks after it. Called each minute.

        Raises:
            StoreError, ConfigError: something cannot be written.
        """
        await self.check_marks()
        if not self._restored:
            count = await high_water.raise_count(self.store)
            await asyncio.to_thread(self._mark, count, self.ring.generation)

    def _mark(self, database: int, ring: int) -> None:
        # In a thread: the lock waits for other processes, and the disk for itself.
        self.high_water.raise_to(Part.DATABASE, database)
        self.high_water.raise_to(Part.RING, ring)

    async def accept_restored(self, part: Part) -> None:
        """
        Take a restored ring or database as it is: the operator said so by name.

        Raises:
            StoreError, ConfigError: something cannot be read or written.
        """
        count, _ = await high_water.read_count(self.store)
        value = self.ring.generation if part is Part.RING else count
        await asyncio.to_thread(self.high_water.accept, part, value)
        self.events.emit(
            Event("restored.accepted", {"part": part.value}, Severity.WARNING)
        )
        await self.check_marks()

    async def poll(self) -> bool:
        """
        Take in what others changed; say whether they had. Called every 250 ms.

        Raises:
            StoreError: the store does not answer.
        """
        try:
            # Said once only, so it is kept until it was learned.
            self._is_unlearned |= await self.oauth.directory.poll()
            await self.rings.refresh()
            changed = self._is_unlearned
            if changed:
                await self._learn()
                self._is_unlearned = False
        except StoreError as error:
            self._store_problem = error
            raise
        self._store_problem = None
        return changed

    async def _learn(self) -> None:
        await self.services.warm()
        hosts: dict[str, str] = {}
        after: str | None = None
        while True:
            page = await TENANTS.find(self.store, None, limit=1000, after=after)
            hosts.update(
                (each.value.id, each.value.host) for each in page if each.value.host
            )
            if len(page) < 1000:
                break
            after = page[-1].id
        self.hosts = self.issuers.set_hosts(hosts)

    @property
    def may_serve(self) -> bool:
        """
        Whether tokens may be made and told of.
        """
        return not self._restored

    def problems(self, now: datetime) -> tuple[KagimoriError, ...]:
        """
        Return every reason not to be ready.
        """
        found: list[KagimoriError] = [*self._restored]
        if self._store_problem is not None:
            found.append(self._store_problem)
        ring = self.ring.problem
        if isinstance(
            ring, RingUnreadableError | RingMissingError | KeyWrapError | StoreError
        ):
            found.append(ring)
        elif not self.ring.is_ready:
            found.append(RingUnreadableError("No key of the ring can protect now."))
        if self.rings.problem is not None:
            found.append(self.rings.problem)
        elif self.rings.is_stale:
            found.append(
                RingUnreadableError(
                    "Nobody could confirm the tenants' keys for a while.",
                    hint="Check that the database answers.",
                )
            )
        if not self.clock.in_step:
            found.append(
                _ClockError(
                    "This machine's clock and the store's time are "
                    f"{abs(self.clock.observed_offset.total_seconds()):.0f} s apart.",
                    hint="Set the clock right; 5 s are allowed.",
                )
            )
        return tuple(found)

    async def close(self) -> None:
        """
        Write what is counted and let go of everything.
        """
        try:
            await self.rings.flush_ledger()
        except StoreError as error:
            fields = {"text": error.text, "detail": error.detail}
            self.events.emit(Event("ledger.unwritten", fields, Severity.WARNING))
        await self.store.close()
        self.oauth.close()
        self.ring.close()

    # --- operators' verbs ------------------------------------------------------------------

    @functools.cached_property
    def keys(self) -> KeyAdmin:
        """
        The verbs for keys.
        """
        from kagimori.admin.keys import KeyAdmin

        return KeyAdmin(self.store, self.ring, self.clock, trail=self.trail)

    @functools.cached_property
    def tenants(self) -> TenantAdmin:
        """
        The verbs for tenants.
        """
        from kagimori.admin.tenants import TenantAdmin

        return TenantAdmin(
            self.store, self.ring, self.clock, trail=self.trail, plan=self._plan
        )

    @functools.cached_property
    def clients(self) -> ClientAdmin:
        """
        The verbs for clients.
        """
        from kagimori.admin.clients import ClientAdmin

        return ClientAdmin(
            self.store,
            self.trail,
            self.oauth.pool,
            self.oauth.families.revocation,
            self.clock.now,
            known_secrets=self.settings.demo,
        )

    @functools.cached_property
    def users(self) -> UserAdmin:
        """
        The verbs for users.
        """
        from kagimori.admin.users import UserAdmin

        return UserAdmin(
            self.store,
            self.trail,
            self.oauth.pool,
            self.oauth.families.revocation,
            self.clock.now,
            known_passwords=self.settings.demo,
        )

    @functools.cached_property
    def apis(self) -> ApiAdmin:
        """
        The verbs for APIs.
        """
        from kagimori.admin.apis import ApiAdmin

        return ApiAdmin(self.store, self.trail, self.keys, self.clock.now)

    @functools.cached_property
    def tokens(self) -> TokenAdmin:
        """
        The verbs for tokens.
        """
        from kagimori.admin.tokens import TokenAdmin

        return TokenAdmin(
            self.store,
            self.trail,
            self.oauth.families,
            self.oauth.access_tokens,
            self.oauth.operator,
            self.users,
            self.clock.now,
        )


class _ClockError(KagimoriError):
    """
    This node's clock is out of step.
    """

    code = "clock"
