"""
The signing and cookie rings of all tenants, live in a server process.

Rules of this module:

1. Requests are served from memory. The store is asked for a change, for room in the ledger
   (about once a minute and busy key), and for nothing else.
2. An id that nobody knows costs at most one look a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from kagimori.clock import Clock
from kagimori.crypto.jwk import JwkSet
from kagimori.errors import KagimoriError, RingMissingError, StoreError
from kagimori.events import EventSink, NullSink
from kagimori.keys import reservations
from kagimori.keys.birth import NewRings, ensure_rings
from kagimori.keys.changing import no_ring
from kagimori.keys.holdings import REFRESH, HeldTenant, Holdings
from kagimori.keys.journal import Journal, NoJournal
from kagimori.keys.key import CookieKey, SigningKey
from kagimori.keys.live import JwksDocument, SigningView
from kagimori.keys.manager import KeyManager
from kagimori.keys.material import ProtectorRoot
from kagimori.keys.timeline import KeyUse
from kagimori.keys.upkeep import SCHEDULE, Upkeep
from kagimori.storage.store import Store


class TenantRings:
    """
    Serves every tenant's keys. All methods belong to one event loop.

    Args:
        store: where the rings lie.
        root: the protection ring under which their private halves lie.
        clock: this node's time.
        events: who is told of transitions and alarms.
        journal: keeps the audit trail of what is done here without an operator.
        plan: what the rings of a tenant without any begin with.
    """

    def __init__(
        self,
        store: Store,
        root: ProtectorRoot,
        clock: Clock,
        events: EventSink | None = None,
        *,
        journal: Journal | None = None,
        plan: NewRings | None = None,
    ) -> None:
        self._journal: Journal = journal or NoJournal()
        self._plan = plan or NewRings()
        self._holdings = Holdings(store, root, clock, events or NullSink())
        self._upkeep = Upkeep(self._holdings, self._journal)
        self._strangers: KeyManager[None] = KeyManager(REFRESH)

    # --- coming to be, and staying fresh -----------------------------------------------

    async def start(self, tenants: Iterable[str] = ()) -> None:
        """
        Load all rings; give each of `tenants` the rings that it lacks. May be called again.

        A ring that is there and cannot be read raises nothing: see `problem`.

        Raises:
            StoreError: the store does not answer.
            KeyRingError: a tenant lacks a ring, and the protection ring cannot protect one.
        """
        holdings = self._holdings
        for tenant in tenants:
            await ensure_rings(
                holdings.store,
                holdings.root,
                tenant,
                plan=self._plan,
                cause=SCHEDULE,
                journal=self._journal,
            )
        holdings.forget_counter()
        await holdings.look()
        if holdings.store_error is not None:
            raise holdings.store_error

    async def refresh(self, tenant: str | None = None) -> None:
        """
        Take in what others changed. Cheap while nothing has: the server calls it often.

        Args:
            tenant: look at this one, whatever the store's change counter says.
        """
        if tenant is None:
            await self._holdings.look()
        else:
            await self._holdings.load(tenant)

    async def tick(self, now: datetime) -> None:
        """
        Do what is due: successors, ends, re-protection, room in the ledger. Each second.

        Failures are alarms, never exceptions: the next tick tries again.
        """
        for held in tuple(self._holdings.tenants.values()):
            try:
                await reservations.reserve_ahead(self._holdings, held)
            except KagimoriError as exc:
                self._holdings.alarms.alarm(
                    held.tenant, "ledger.unwritten", reason=exc.detail or exc.code
                )
            else:
                self._holdings.alarms.calm(held.tenant, "ledger.unwritten")
        await self._upkeep.tick(now)

    # --- serving -----------------------------------------------------------------------

    async def signing_key(
        self, tenant: str, algorithm: str | None, now: datetime, until: datetime
    ) -> SigningKey:
        """
        Return the key that signs, after making sure that the ledger has room.

        Args:
            algorithm: ``None`` means the tenant's default.
            until: when the token to be signed expires.

        Raises:
            NotFoundError: there is no such tenant.
            UnsupportedAlgorithmError: the tenant has no current key of the algorithm.
            SigningUnavailableError: the key cannot be read, or the ledger not be written.
        """
        held = self._holdings.tenants.get(tenant) or await self._stranger(tenant, now)
        keys = held.manager.ring
        # Cut off from the store, the process cannot know that a key was revoked. So room in
        # the ledger is not enough: the ring was confirmed a moment ago, or is read now.
        if keys is not None and not held.manager.is_stale(now):
            key = keys.view(now).signers.get(algorithm)
            if key is not None and key.can_sign and held.book.take(key.id, until):
                return key
        return await reservations.reserved_key(self._holdings, held, algorithm, until)

    def verification_keys(self, tenant: str, now: datetime) -> JwkSet:
        """
        Return the published keys: current, next and previous ones.

        Raises:
            NotFoundError: there is no such tenant.
            SigningUnavailableError: its keys could not be read yet.
        """
        return self._view(tenant, now).verifying

    def known_keys(self, tenant: str, now: datetime) -> JwkSet:
        """
        Return the published keys and the retired ones, for hints and the audit only.

        Raises:
            NotFoundError, SigningUnavailableError: as `verification_keys`.
        """
        return self._view(tenant, now).known

    def knows(self, tenant: str, kid: str, now: datetime) -> bool:
        """
        Say whether a key is published, by what is in memory.
        """
        held = self._holdings.tenants.get(tenant)
        keys = held.manager.ring if held else None
        return keys is not None and keys.view(now).verifying.get(kid) is not None

    async def learns(self, tenant: str, kid: str, now: datetime) -> bool:
        """
        Say whether a key is published, after a look at the store where it is not known.

        Kids come from attackers: there is one look a second at most.
        """
        if self.knows(tenant, kid, now):
            return True
        held = self._holdings.tenants.get(tenant)
        if held is None or not held.manager.unknown_id(now):
            return False
        await self._holdings.load(tenant)
        return self.knows(tenant, kid, now)

    def jwks(self, tenant: str, now: datetime) -> JwksDocument:
        """
        Return the JWKS as it is served at `now`.

        Raises:
            NotFoundError, SigningUnavailableError: as `verification_keys`.
        """
        return self._tenant(tenant).keys.jwks(now)

    def algorithms(self, tenant: str, now: datetime) -> tuple[str, ...]:
        """
        Return the algorithms that have a current key, the default first.

        Raises:
            NotFoundError, SigningUnavailableError: as `verification_keys`.
        """
        return self._view(tenant, now).algorithms

    def cookie_key(
        self, tenant: str, now: datetime, kid: str | None = None
    ) -> CookieKey | None:
        """
        Return the current cookie key, or the one that a cookie names while it verifies.

        Raises:
            NotFoundError, SigningUnavailableError: as `verification_keys`.
        """
        cookie = self._tenant(tenant).keys.cookie
        if cookie is None:
            return None
        if kid is None:
            return cookie.ring.current(now)
        key = cookie.ring.get(kid)
        if key is None or not cookie.ring.state(key, now).verifies:
            return None
        return key

    # --- the ledger --------------------------------------------------------------------

    async def flush_ledger(self) -> None:
        """
        Write what has been counted. Called each second and at drain.

        Raises:
            StoreError: the store does not answer; the counts are kept for the next time.
        """
        failed: StoreError | None = None
        for held in tuple(self._holdings.tenants.values()):
            try:
                await reservations.flush(self._holdings, held)
            except StoreError as exc:
                failed = exc
        if failed is not None:
            raise failed

    # --- telling -----------------------------------------------------------------------

    @property
    def tenants(self) -> tuple[str, ...]:
        """
        Return the tenants whose rings are held.
        """
        return tuple(self._holdings.tenants)

    @property
    def reprotected(self) -> int:
        """
        Return how many private halves this process has moved to a newer protection key.
        """
        return self._upkeep.reprotected

    def generation(self, tenant: str, use: KeyUse = KeyUse.SIGNING) -> int:
        """
        Return the generation of a ring that this process serves, 0 if none.
        """
        held = self._holdings.tenants.get(tenant)
        keys = held.manager.ring if held else None
        if keys is None:
            return 0
        if use is KeyUse.SIGNING:
            return keys.signing.ring.generation
        return keys.cookie.ring.generation if keys.cookie else 0

    def problems(self) -> Mapping[str, KagimoriError]:
        """
        Return, for each tenant that cannot sign everything it should, why.
        """
        now = self._holdings.clock.now()
        found: dict[str, KagimoriError] = {}
        for tenant, held in self._holdings.tenants.items():
            keys = held.manager.ring
            error = held.manager.error if keys is None else keys.problem(now)
            if isinstance(error, KagimoriError):
                found[tenant] = error
        return found

    @property
    def problem(self) -> KagimoriError | None:
        """
        Why this process is not ready: no tenant at all is in order. ``None`` if one is.
        """
        tenants = self._holdings.tenants
        if not tenants:
            return self._holdings.store_error or RingMissingError(
                "No tenant has keys.", hint="`kagimori init` makes the first one."
            )
        found = self.problems()
        return next(iter(found.values())) if len(found) == len(tenants) else None

    @property
    def is_stale(self) -> bool:
        """
        Whether rings serve of which for a while none could be confirmed.
        """
        now = self._holdings.clock.now()
        held = self._holdings.tenants.values()
        # One tenant's damaged ring keeps no other tenant from being served.
        return bool(held) and all(one.manager.is_stale(now) for one in held)

    # --- within ------------------------------------------------------------------------

    def _view(self, tenant: str, now: datetime) -> SigningView:
        return self._tenant(tenant).keys.view(now)

    def _tenant(self, tenant: str) -> HeldTenant:
        held = self._holdings.tenants.get(tenant)
        if held is None:
            raise no_ring(tenant)
        return held

    async def _stranger(self, tenant: str, now: datetime) -> HeldTenant:
        if self._strangers.unknown_id(now):
            await self._holdings.load(tenant)
        return self._tenant(tenant)
