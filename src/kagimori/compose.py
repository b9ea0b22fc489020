"""
The composition root: turns settings into an installation that can be worked on.

Rules of this module:

1. It alone imports adapters, and each only where a URL asks for it.
2. The server and every command stand on the same `Installation`; the server alone calls `start`
   and what keeps it alive.
3. Opening never makes what must be there: a ring or a database that is missing is an error
   (attack K5). `make` alone makes, and never beside something that exists.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kagimori import high_water
from kagimori.clock import Clock, OffsetClock, SystemClock
from kagimori.errors import (
    ConfigError,
    InsecureConfigError,
    KagimoriError,
    KeyWrapError,
    RestoredError,
    RingMissingError,
    RingUnreadableError,
    StoreError,
)
from kagimori.events import Event, EventSink, NullSink, Severity
from kagimori.high_water import HighWater, Part
from kagimori.keys.birth import NewRings
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.tenant_rings import TenantRings
from kagimori.oauth.assembly import OAuthServices, assemble
from kagimori.oauth.directory import Resources
from kagimori.oauth.requests import TenantContext
from kagimori.oauth.resource import Resource
from kagimori.oauth.tenant import DEFAULT_TENANT, TENANTS
from kagimori.settings import Settings
from kagimori.storage.store import Store
from kagimori.tokens.verifier import TokenVerifier

if TYPE_CHECKING:
    from kagimori.admin.apis import ApiAdmin
    from kagimori.admin.clients import ClientAdmin
    from kagimori.admin.keys import KeyAdmin
    from kagimori.admin.tenants import TenantAdmin
    from kagimori.admin.tokens import TokenAdmin
    from kagimori.admin.users import UserAdmin

_CONTEXTS = 10_000


class Issuers:
    """
    The issuer of every tenant, from configuration alone.

    Args:
        settings: issuer, earlier issuers, tenants' hosts.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hosts: dict[str, str] = dict(settings.tenants)
        self._contexts: dict[str, TenantContext] = {}

    def set_hosts(self, hosts: Mapping[str, str]) -> Mapping[str, str]:
        """
        Take note of the tenants' own hosts; what the settings say of a tenant wins.

        Args:
            hosts: host names by tenant id, as the tenants' documents say.

        Returns:
            Tenant ids by host name.
        """
        self._hosts = {**hosts, **self._settings.tenants}
        self._contexts.clear()
        return {
            urlsplit(f"//{_netloc(host)}").hostname or host: tenant
            for tenant, host in self._hosts.items()
        }

    def context(self, tenant: str) -> TenantContext:
        """
        Return a tenant's issuer, and those of before. Says nothing of whether it exists.
        """
        context = self._contexts.get(tenant)
        if context is None:
            issuers = [
                self._issuer(base, tenant)
                for base in (self._settings.issuer, *self._settings.earlier_issuers)
            ]
            context = TenantContext(tenant, issuers[0], tuple(issuers[1:]))
            if len(self._contexts) >= _CONTEXTS:
                # Names in paths are anybody's, so what is remembered is bounded.
                self._contexts.clear()
            self._contexts[tenant] = context
        return context

    def _issuer(self, base: str, tenant: str) -> str:
        if tenant == DEFAULT_TENANT:
            return base
        host = self._hosts.get(tenant)
        if host is None:
            return f"{base}/t/{tenant}"
        parts = urlsplit(base)
        netloc = _netloc(host)
        if parts.port and urlsplit(f"//{netloc}").port is None:
            # All tenants share the listener, and so the port, unless a host names its own.
            netloc += f":{parts.port}"
        return f"{parts.scheme}://{netloc}"


def _netloc(host: str) -> str:
    # An address of IPv6 has several colons, a host with a port has one.
    return f"[{host}]" if host.count(":") > 1 else host


class Services:
    """
    What the endpoints stand on.

    Attributes:
        oauth: the endpoints' rules.
        rings: the tenants' keys.
    """

    def __init__(self, oauth: OAuthServices, rings: TenantRings, clock: Clock) -> None:
        self.oauth = oauth
        self.rings = rings
        self._clock = clock
        self._resources: Mapping[str, Resources] = {}
        self._verifiers: dict[tuple[TenantContext, str], TokenVerifier] = {}

    def resource(self, tenant: str, id_: str) -> Resource | None:
        """
        Return a resource from memory: what `warm` last read.
        """
        resources = self._resources.get(tenant)
        return None if resources is None else resources.by_id.get(id_)

    def resources(self, tenant: str) -> tuple[Resource, ...]:
        """
        Return all resources of a tenant from memory.
        """
        resources = self._resources.get(tenant)
        return () if resources is None else tuple(resources.by_id.values())

    async def warm(self) -> None:
        """
        Read what protected resources need to know, so that no request has to (ACC-3).

        Raises:
            StoreError: as the store raises.
        """
        resources = await self.oauth.directory.get_resources(DEFAULT_TENANT)
        self._resources = {DEFAULT_TENANT: resources}

    def verifier(self, tenant: TenantContext, audience: str) -> TokenVerifier:
        """
        Return the verifier of one API's tokens, with the live keys of the tenant.

        Issuer and verifier are one installation, so ``exp`` has no leeway (JAT-5).
        """
        key = (tenant, audience)
        verifier = self._verifiers.get(key)
        if verifier is None:
            verifier = self._verifiers[key] = TokenVerifier.from_keys(
                lambda: self.rings.verification_keys(tenant.id, self._clock.now()),
                issuer=(tenant.issuer, *tenant.earlier_issuers),
                audience=audience,
                clock=self._clock,
            )
        return verifier


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
        count, now = await high_water.read_count(self.store)
        self.clock.observe(now)
        before = {error.params["part"] for error in self._restored}
        found: list[RestoredError] = []
        for part, value in (
            (Part.RING, self.ring.generation),
            (Part.DATABASE, count),
        ):
            try:
                self.high_water.check(part, value)
            except RestoredError as error:
                found.append(error)
                if part.value not in before:
                    fields = {"part": part.value, "text": error.text}
                    self.events.emit(Event("restored", fields, Severity.ALARM))
        self._restored = tuple(found)

    async def beat(self) -> None:
        """
        Raise the count of the database, and the marks after it. Called each minute.

        Raises:
            StoreError, ConfigError: something cannot be written.
        """
        await self.check_marks()
        if not self._restored:
            count = await high_water.raise_count(self.store)
            self.high_water.raise_to(Part.DATABASE, count)
            self.high_water.raise_to(Part.RING, self.ring.generation)

    async def accept_restored(self, part: Part) -> None:
        """
        Take a restored ring or database as it is: the operator said so by name.

        Raises:
            StoreError, ConfigError: something cannot be read or written.
        """
        count, _ = await high_water.read_count(self.store)
        value = self.ring.generation if part is Part.RING else count
        self.high_water.accept(part, value)
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
            changed = await self.oauth.directory.poll()
            await self.rings.refresh()
            if changed:
                await self._learn()
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


def is_transient(error: KagimoriError) -> bool:
    """
    Whether a fault may pass by itself, so that a server waits for it instead of ending.
    """
    return bool(getattr(error, "transient", False))


# --- opening and making --------------------------------------------------------------------


def open_installation(
    settings: Settings,
    *,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> Installation:
    """
    Open what is there. Blocks while ring and database are opened.

    Raises:
        KagimoriError: something is missing, refused or does not answer.
    """
    return _open(settings, clock, events, create=False, plan=None)


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> AsyncIterator[Installation]:
    """
    Open an installation for the time of a block.
    """
    installation = open_installation(settings, clock=clock, events=events)
    try:
        yield installation
    finally:
        await installation.close()


def make_installation(
    settings: Settings,
    plan: NewRings,
    *,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> Installation:
    """
    Open an installation, making the ring and the database where neither is there yet.

    Raises:
        RingMissingError: the database is there and the ring is not (attack K5).
        KagimoriError: something is refused or does not answer.
    """
    return _open(settings, clock, events, create=True, plan=plan)


def _open(
    settings: Settings,
    clock: Clock | None,
    events: EventSink | None,
    *,
    create: bool,
    plan: NewRings | None,
) -> Installation:
    from kagimori.opening import open_ring, open_store

    base = clock or SystemClock()
    sink = events or NullSink()
    path = _sqlite_path(settings.store_url)
    wrapper = _checked_wrapper(settings)
    _check_folder(settings.data)
    location = open_store(settings.ring_url)
    # Where a database is, keys lie under a ring already: then nothing may take its place.
    ring = open_ring(
        location,
        application=settings.application,
        wrapper=wrapper,
        create=create and not path.exists(),
        clock=base,
        events=sink,
    )
    try:
        if ring.is_clear:
            _refuse_loose(getattr(location, "loose_modes", tuple)())
        store = _open_sqlite(path, base, create=create)
    except BaseException:
        ring.close()
        raise
    return Installation(
        settings, OffsetClock(base), sink, ring=ring, store=store, plan=plan
    )


def _checked_wrapper(settings: Settings) -> str:
    """
    Return the wrapper's address, if what it names is kept from others (attack K11).
    """
    from kagimori.opening import loose_secret_mode, secret_files

    wrapper = settings.wrapper_url
    if wrapper is None:
        # Said here, since a variable of the environment must not say it instead.
        raise ConfigError(
            f"{settings.file} names no wrapper for the ring's keys.",
            hint='Write wrapper = "passphrase:file:/path", as `kagimori init` does.',
        )
    _refuse_loose([loose_secret_mode(path) for path in secret_files(wrapper)])
    return wrapper


def _refuse_loose(found: Iterable[str | None]) -> None:
    for loose in found:
        if loose is not None:
            raise InsecureConfigError(
                f"{loose}.",
                hint="Take that right away: chmod 600 (a folder: chmod 700).",
            )


def _check_folder(folder: Path) -> None:
    try:
        mode = folder.stat().st_mode
    except OSError as exc:
        raise ConfigError(
            f"{folder} cannot be looked into: {exc.strerror}.",
            hint="Run as the user who owns the data folder.",
        ) from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        # Whoever can write here can put another database in place of ours.
        raise InsecureConfigError(
            f"{folder} can be changed by other users.", hint=f"chmod 700 {folder}"
        )


def _sqlite_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "postgresql":
        raise ConfigError(
            "PostgreSQL is not supported by this version.",
            hint="Use sqlite:///folder/kagimori.db.",
        )
    if parts.scheme != "sqlite" or parts.netloc or not parts.path.startswith("/"):
        raise ConfigError(
            f"The store {url!r} is no database that can be opened.",
            hint="Write sqlite:/// and the absolute path of a file.",
        )
    return Path(unquote(parts.path))


def _open_sqlite(path: Path, clock: Clock, *, create: bool) -> Store:
    from kagimori.storage.sqlite import SqliteStore

    if not create and not os.path.lexists(path):
        raise StoreError(
            f"There is no database at {path}.",
            hint="Restore it from a backup, or correct `store` in kagimori.toml.",
            path=str(path),
        )
    return SqliteStore.open(path, clock=clock, create=create)
