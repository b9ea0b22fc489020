"""
How a verb for keys runs: read, make a key, commit, answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from kagimori.admin.audit import Trail
from kagimori.admin.key_views import KeyOutcome, ProtectionKeyView, view_of
from kagimori.clock import Clock
from kagimori.errors import KagimoriError
from kagimori.keys.changing import Step, StoredRing, change_ring, no_ring, records_of
from kagimori.keys.documents import LEDGERS, RINGS, KeyDocument
from kagimori.keys.journal import Cause
from kagimori.keys.key import COOKIE_ALGORITHM
from kagimori.keys.ledger import live_tokens
from kagimori.keys.material import ProtectorRoot, make_key, rsa_bits
from kagimori.keys.ring import LiveTokens, RingChange
from kagimori.keys.timeline import KeyUse
from kagimori.keys.upkeep import tidied
from kagimori.oauth.resource import RESOURCES
from kagimori.storage.store import Store

KEPT_ALGORITHM = "RS256"
"""Stays current beside any default: every OpenID Connect client verifies it (OID-9)."""

PAGE = 500

ATTEMPTS = 50
"""How often a verb decides again: operators' verbs may meet on one audit trail."""

R = TypeVar("R")


class ProtectionKeys(ProtectorRoot, Protocol):
    """
    What the verbs need of the protection ring.
    """

    def keys(self, now: datetime | None = None, /) -> Sequence[ProtectionKeyView]:
        """
        Return what may be shown of its keys.
        """
        ...


@dataclass(frozen=True, slots=True)
class Turned:
    """
    What a verb did, and what of its tokens was known.
    """

    change: RingChange[KeyDocument]
    live: int | None = None


class KeyVerbs:
    """
    What all verbs for keys share; see `kagimori.admin.keys.KeyAdmin`.

    Args:
        store: where the rings lie.
        protection: the protection ring: protects new keys, and shows its own.
        clock: this process's time, for waiting until a switch.
        trail: the audit trail.
        wait: waits until an instant; tests move their clock instead.
    """

    def __init__(
        self,
        store: Store,
        protection: ProtectionKeys,
        clock: Clock,
        trail: Trail | None = None,
        *,
        wait: Callable[[datetime], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._protection = protection
        self._clock = clock
        self._wait = wait or self._sleep_until
        self._trail = trail or Trail()

    async def _read(self, tenant: str, use: KeyUse) -> StoredRing:
        loaded = await self._store.load_many(
            tenant, [RINGS.key(use.value), LEDGERS.key(use.value)]
        )
        ring = RINGS.maybe(loaded.documents[0])
        ledger = LEDGERS.maybe(loaded.documents[1])
        if ring is None:
            raise no_ring(tenant)
        return StoredRing(ring.value, ledger.value if ledger else None, loaded.now)

    async def _change(
        self, tenant: str, use: KeyUse, decide: Callable[[StoredRing], Step[R]]
    ) -> R:
        return await change_ring(
            self._store, self._trail, tenant, use, decide, attempts=ATTEMPTS
        )

    async def _make(
        self, tenant: str, use: KeyUse, algorithm: str, like: KeyDocument | None
    ) -> KeyDocument:
        return await asyncio.to_thread(
            make_key,
            self._protection,
            tenant,
            use,
            COOKIE_ALGORITHM if use is KeyUse.COOKIE else algorithm,
            now=self._clock.now(),
            bits=rsa_bits(like),
        )

    async def _may_end(self, tenant: str, stored: StoredRing, new: str) -> bool:
        """
        Say whether the old default's keys may end: nobody names the algorithm.
        """
        old = stored.ring.default(stored.now)
        if old in (new, KEPT_ALGORITHM):
            return False
        after: str | None = None
        while True:
            page = await RESOURCES.find(self._store, tenant, limit=PAGE, after=after)
            if any(one.value.signing_algorithm == old for one in page):
                return False
            if len(page) < PAGE:
                return True
            after = page[-1].id

    async def _tidy(self, tenant: str, use: KeyUse) -> None:
        """
        Write the end of the key that was just replaced, as any server would in a moment.
        """
        # Best effort: the switch itself is committed and must not be told as a failure.
        with contextlib.suppress(KagimoriError):
            await self._change(tenant, use, tidied)

    def _outcome(self, tenant: str, turned: Turned) -> KeyOutcome:
        change = turned.change
        ring, now = change.ring, self._clock.now()
        effective = max(now, change.key.timeline.activates)
        return KeyOutcome(
            verb=change.verb,
            tenant=tenant,
            key=view_of(ring.use, change.key, ring.state(change.key, now)),
            generation=ring.generation,
            ended=tuple(
                view_of(ring.use, key, ring.state(key, now))
                for key in change.predecessors
            ),
            dropped=tuple(id_ for id_ in change.destroyed if ring.get(id_) is None),
            live_tokens=turned.live,
            default_algorithm=ring.default(effective),
        )

    async def _sleep_until(self, instant: datetime) -> None:
        left = (instant - self._clock.now()).total_seconds()
        # A hair more, so that no rounding brings us back before the instant.
        await asyncio.sleep(max(left, 0) + 0.001)


def step_of(
    stored: StoredRing,
    change: RingChange[KeyDocument],
    cause: Cause,
    *,
    live: int | None = None,
    forced: bool = False,
) -> Step[Turned]:
    """
    Return what to commit for a verb that was decided.

    Args:
        live: how many living tokens it cuts.
        forced: it was done although some are alive.
    """
    first, *others = records_of(change, stored.document.generation, cause)
    more = {} if live is None else {"live_tokens": str(live)}
    if forced:
        more["forced"] = "yes"
    first = dataclasses.replace(first, details={**first.details, **more})
    gone = tuple(id_ for id_ in change.destroyed if change.ring.get(id_) is None)
    return Step(
        Turned(change, live),
        stored.document.with_ring(change.ring, change.destroyed),
        (first, *others),
        forget=gone,
        # A NEXT may turn between the read and the commit. Whoever signs with it then has
        # written the ledger first, so that the verb is decided again, by a later time.
        rests_on_ledger=bool(gone) and not forced,
    )


def live_under(stored: StoredRing, kid: str) -> LiveTokens:
    """
    Return what is known of the living tokens of a key.
    """
    key = stored.ring.get(kid)
    if key is None or stored.ring.use is not KeyUse.SIGNING:
        return LiveTokens()
    return live_tokens(stored.ledger, key, stored.now)
