"""
What time asks of the rings, done by whichever process comes first.

Rules of this module:

1. There is no leader. Every process looks, one commit wins, the others find it done.
2. The reason is judged again inside the commit, by the store's time.
3. A key that cannot be read is neither succeeded nor replaced: that is an operator's choice.
4. A failure here is told and tried again; it never reaches a request.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from kagimori.errors import KagimoriError, NotFoundError
from kagimori.keys.changing import Step, StoredRing, change_ring, details, records_of
from kagimori.keys.documents import KeyDocument
from kagimori.keys.holdings import HeldTenant, Holdings
from kagimori.keys.journal import Cause, Journal, RingRecord
from kagimori.keys.ledger import last_expiries
from kagimori.keys.lineup import K, Lineup, RingKey
from kagimori.keys.live import LiveRing
from kagimori.keys.material import (
    ProtectorRoot,
    make_key,
    open_secret,
    rsa_bits,
    seal,
)
from kagimori.keys.policy import RotationPolicy
from kagimori.keys.schedule import overdue, successor_activates, wanting_successor
from kagimori.keys.timeline import KeyState, KeyUse

SCHEDULE = Cause("schedule")
"""Who the audit trail names where no operator acted."""

RETRY_REPROTECT = timedelta(seconds=30)
"""How long to wait before values that could not be re-protected are tried again."""

_EVENTS = {
    KeyState.NEXT: "key.published",
    KeyState.CURRENT: "key.activated",
    KeyState.PREVIOUS: "key.retired",
    KeyState.RETIRED: "key.expired",
    KeyState.REVOKED: "key.revoked",
}


class _Resealed(NamedTuple):
    old: str
    text: str
    under: str


class Upkeep:
    """
    Keeps the rings of all held tenants up to date.

    Args:
        holdings: the tenants.
        journal: keeps the audit trail.
    """

    def __init__(self, holdings: Holdings, journal: Journal) -> None:
        self._holdings = holdings
        self._journal = journal
        self._told: dict[tuple[str, KeyUse], dict[str, KeyState]] = {}
        self._reprotect_at: dict[tuple[str, KeyUse], datetime] = {}
        self.reprotected = 0

    async def tick(self, now: datetime) -> None:
        """
        Do what is due for every tenant.
        """
        try:
            current = self._holdings.root.current_key_id
        except KagimoriError:
            # Nothing can be protected: nothing to move either. The ring tells of it itself.
            current = None
        for held in tuple(self._holdings.tenants.values()):
            keys = held.manager.ring
            if keys is None:
                continue
            await self._tend(held, keys.signing, current, now)
            if keys.cookie is not None:
                await self._tend(held, keys.cookie, current, now)

    async def _tend(
        self, held: HeldTenant, live: LiveRing[K], current: str | None, now: datetime
    ) -> None:
        tenant, use = held.tenant, live.ring.use
        self._tell(tenant, live, now)
        subject = f"{tenant} {use.value}"
        try:
            await self._keep(held, live, now)
            await self._reprotect(held, live, current, now)
        except NotFoundError:
            await self._holdings.load(tenant)
        except KagimoriError as exc:
            self._holdings.alarms.alarm(
                subject,
                "ring.upkeep_failed",
                tenant=tenant,
                use=use.value,
                reason=exc.detail or exc.code,
            )
        else:
            self._holdings.alarms.calm(subject, "ring.upkeep_failed")

    # --- the schedule and the ends -----------------------------------------------------

    async def _keep(self, held: HeldTenant, live: LiveRing[K], now: datetime) -> None:
        for key in wanting_successor(live.ring, live.policy, now):
            if key.id not in live.unreadable:
                await self._succeed(held, live.ring.use, key.id, now)
        late = overdue(live.ring, now) if live.policy.scheduled else ()
        for key in late:
            self._holdings.alarms.alarm(
                f"{held.tenant} {key.id}",
                "key.overdue",
                tenant=held.tenant,
                kid=key.id,
            )
        if wants_tidying(live, now):
            await change_ring(
                self._holdings.store, self._journal, held.tenant, live.ring.use, tidied
            )
            await self._holdings.load(held.tenant)

    async def _succeed(
        self, held: HeldTenant, use: KeyUse, kid: str, now: datetime
    ) -> None:
        tenant, root = held.tenant, self._holdings.root
        seen = await change_ring(self._holdings.store, self._journal, tenant, use, Step)
        old = seen.ring.get(kid)
        if old is None or not _still_wants(seen, kid):
            # Somebody was faster; the next look brings it.
            return
        new = await asyncio.to_thread(
            make_key, root, tenant, use, old.algorithm, now=now, bits=rsa_bits(old)
        )

        def decide(stored: StoredRing) -> Step[None]:
            key = stored.ring.get(kid)
            if key is None or not _still_wants(stored, kid):
                return Step(None)
            policy = stored.document.policy
            change = stored.ring.rotate(
                new,
                now=stored.now,
                policy=policy,
                activates=successor_activates(key, policy, stored.now),
            )
            return Step(
                None,
                stored.document.with_ring(change.ring, change.destroyed),
                records_of(change, stored.document.generation, SCHEDULE),
            )

        await change_ring(self._holdings.store, self._journal, tenant, use, decide)
        await self._holdings.load(tenant)

    # --- re-protection -----------------------------------------------------------------

    async def _reprotect(
        self,
        held: HeldTenant,
        live: LiveRing[K],
        current: str | None,
        now: datetime,
    ) -> None:
        if current is None or all(id_ == current for id_ in live.under.values()):
            return
        tenant, use = held.tenant, live.ring.use
        again = self._reprotect_at.get((tenant, use))
        # One that lies further ahead than a pause was set before the clock was set back.
        if again is not None and now < again <= now + RETRY_REPROTECT:
            return
        store, root = self._holdings.store, self._holdings.root
        seen = await change_ring(store, self._journal, tenant, use, Step)
        fresh, failed = await asyncio.to_thread(_sealed_anew, root, seen, current)
        if failed:
            self._reprotect_at[tenant, use] = now + RETRY_REPROTECT

        def decide(stored: StoredRing) -> Step[int]:
            keys = tuple(_swapped(key, fresh) for key in stored.document.keys)
            moved = [
                key
                for key, old in zip(keys, stored.document.keys, strict=True)
                if key != old
            ]
            if not moved:
                return Step(0)
            generation = stored.document.generation
            records = tuple(
                RingRecord(
                    "key.reprotected",
                    use,
                    key.id,
                    generation,
                    generation,
                    SCHEDULE,
                    {"under": key.under or ""},
                )
                for key in moved
            )
            document = msgspec.structs.replace(stored.document, keys=keys)
            return Step(len(moved), document, records)

        count = await change_ring(store, self._journal, tenant, use, decide)
        if count:
            self.reprotected += count
            self._holdings.alarms.tell(
                "ring.reprotected", tenant=tenant, use=use.value, count=count
            )
            await self._holdings.load(tenant)

    # --- telling -----------------------------------------------------------------------

    def _tell(self, tenant: str, live: LiveRing[K], now: datetime) -> None:
        ring = live.ring
        states = {key.id: ring.state(key, now) for key in ring}
        told = self._told.get((tenant, ring.use))
        self._told[tenant, ring.use] = states
        if told is None or told == states:
            return
        for kid in told.keys() | states.keys():
            state = states.get(kid)
            if state is told.get(kid):
                continue
            self._holdings.alarms.tell(
                _EVENTS[state] if state else "key.deleted",
                tenant=tenant,
                use=ring.use.value,
                kid=kid,
                generation=ring.generation,
            )


def wants_tidying(live: LiveRing[K], now: datetime) -> bool:
    """
    Say whether `tidied` would find something to do.
    """
    ring = live.ring
    return (
        any(_awaits_end(key, now) for key in ring)
        or any(_is_spent(ring, key, now) for key in ring if key.id in live.under)
        or ring.prune(now=now, policy=live.policy) is not None
    )


def tidied(stored: StoredRing) -> Step[None]:
    """
    Decide what time alone asks: ends are written, spent private halves and old keys go.
    """
    document, ring, now = stored.document, stored.ring, stored.now
    policy: RotationPolicy = document.policy
    counted = ring.use is KeyUse.SIGNING
    last = last_expiries(stored.ledger, ring) if counted else None
    ended = [key.id for key in ring if _awaits_end(key, now)]
    after = ring.settle(now=now, policy=policy, last_expiry=last) or ring
    pruned = after.prune(now=now, policy=policy)
    gone: tuple[KeyDocument, ...] = ()
    if pruned is not None:
        after, gone = pruned
    spent = [key.id for key in after if key.private and _is_spent(after, key, now)]
    if after is ring and not spent:
        return Step(None)
    before = document.generation

    def record(action: str, key: KeyDocument) -> RingRecord:
        return RingRecord(
            action,
            ring.use,
            key.id,
            before,
            after.generation,
            SCHEDULE,
            details(key),
        )

    return Step(
        None,
        document.with_ring(after, spent),
        (
            *(record("key.retired", key) for key in after if key.id in ended),
            *(record("key.destroyed", key) for key in after if key.id in spent),
            *(record("key.pruned", key) for key in gone),
        ),
        forget=tuple(key.id for key in gone),
        rests_on_ledger=bool(ended),
    )


def _awaits_end(key: RingKey, now: datetime) -> bool:
    times = key.timeline
    return times.expires is None and times.retires is not None and times.retires <= now


def _is_spent(ring: Lineup[K], key: K, now: datetime) -> bool:
    return ring.state(key, now) in (KeyState.RETIRED, KeyState.REVOKED)


def _still_wants(stored: StoredRing, kid: str) -> bool:
    wanting = wanting_successor(stored.ring, stored.document.policy, stored.now)
    return any(key.id == kid for key in wanting)


def _sealed_anew(
    root: ProtectorRoot, seen: StoredRing, current: str
) -> tuple[dict[str, _Resealed], bool]:
    """
    Protect again what lies under another protection key than the current one.

    Returns:
        What was protected anew, by kid; and whether some could not be.
    """
    fresh: dict[str, _Resealed] = {}
    failed = False
    document = seen.document
    for key in document.keys:
        if key.private is None or key.under == current:
            continue
        try:
            secret = open_secret(root, document.tenant, document.use, key)
            text, under = seal(root, document.tenant, document.use, key.id, secret)
            fresh[key.id] = _Resealed(key.private, text, under)
        except KagimoriError:
            # It has been told of as unreadable already, and stays as it is.
            failed = True
    return fresh, failed


def _swapped(key: KeyDocument, fresh: dict[str, _Resealed]) -> KeyDocument:
    new = fresh.get(key.id)
    # Whoever changed it meanwhile has protected it anew, or destroyed it.
    if new is None or key.private != new.old:
        return key
    return msgspec.structs.replace(key, private=new.text, under=new.under)
