"""
Changing a stored ring: read, decide by a verb, commit together with its audit record.

Rules of this module:

1. Keys are made and protected before; inside, the verb is decided again for each attempt.
2. Ring, ledger and audit record are one commit. `now` is the store's time, one for all nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from kagimori.errors import NotFoundError
from kagimori.keys.documents import LEDGERS, RINGS, KeyDocument, RingDocument
from kagimori.keys.journal import Cause, Journal, RingRecord
from kagimori.keys.ledger import LedgerDocument
from kagimori.keys.ring import KeyRing, RingChange
from kagimori.keys.timeline import KeyUse, rfc3339
from kagimori.storage.store import (
    ABSENT,
    Change,
    Check,
    Decision,
    Loaded,
    Store,
    Versioned,
    transact,
)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class StoredRing:
    """
    A ring and its ledger as one read brought them.

    Attributes:
        document: the ring.
        ledger: its ledger, ``None`` where there is none.
        now: the store's time.
    """

    document: RingDocument
    ledger: LedgerDocument | None
    now: datetime

    @property
    def ring(self) -> KeyRing[KeyDocument]:
        """
        Return the ring itself.
        """
        return self.document.ring()


@dataclass(frozen=True, slots=True)
class Step(Generic[R]):
    """
    What a decision wants committed.

    Attributes:
        result: the answer once it is committed.
        document: the ring's new document; ``None`` writes nothing at all.
        records: what the audit trail keeps.
        forget: kids that leave the ledger.
        rests_on_ledger: the decision holds only for the ledger that it saw.
    """

    result: R
    document: RingDocument | None = None
    records: tuple[RingRecord, ...] = ()
    forget: tuple[str, ...] = ()
    rests_on_ledger: bool = False


async def change_ring(
    store: Store,
    journal: Journal,
    tenant: str,
    use: KeyUse,
    decide: Callable[[StoredRing], Step[R]],
    *,
    attempts: int = 20,
) -> R:
    """
    Change one ring by a pure decision, in the commit loop of `transact`.

    Raises:
        NotFoundError: the tenant has no such ring.
        ContentionError: others were faster each time.
        StoreError: the store refuses or does not answer.
    """

    def rule(loaded: Loaded) -> Decision[R]:
        ring = RINGS.maybe(loaded.documents[0])
        ledger = LEDGERS.maybe(loaded.documents[1])
        if ring is None:
            raise no_ring(tenant)
        stored = StoredRing(
            ring.value, None if ledger is None else ledger.value, loaded.now
        )
        step = decide(stored)
        if step.document is None:
            return Decision(step.result)
        written = journal.entries(
            tenant, loaded.documents[2:], loaded.now, step.records
        )
        put = RINGS.put(use.value, step.document, ring.version)
        return Decision(
            step.result, (put, *_ledger_changes(use, ledger, step), *written)
        )

    keys = [RINGS.key(use.value), LEDGERS.key(use.value), *journal.keys]
    return await transact(store, tenant, keys, rule, attempts=attempts)


def _ledger_changes(
    use: KeyUse, ledger: Versioned[LedgerDocument] | None, step: Step[R]
) -> Sequence[Change]:
    version = ABSENT if ledger is None else ledger.version
    if ledger is not None and any(kid in ledger.value.entries for kid in step.forget):
        return (LEDGERS.put(use.value, ledger.value.without(step.forget), version),)
    if step.rests_on_ledger:
        return (Check(LEDGERS.kind, use.value, version),)
    return ()


def no_ring(tenant: str) -> NotFoundError:
    """
    Refuse a tenant that has no ring.
    """
    return NotFoundError(
        f"There is no tenant {tenant} with keys.",
        hint="`kagimori tenants list` shows the tenants.",
        tenant=tenant,
    )


_ACTIONS: Mapping[str, str] = {
    "rotate": "key.published",
    "activate": "key.activation_moved",
    "cancel": "key.cancelled",
    "revoke": "key.revoked",
    "delete": "key.deleted",
    "make_default": "key.default_changed",
}


def records_of(
    change: RingChange[KeyDocument], before: int, cause: Cause
) -> tuple[RingRecord, ...]:
    """
    Return what the audit trail keeps of a verb: its key, and whom it ended or took back.
    """
    ring = change.ring

    def record(action: str, kid: str, told: Mapping[str, str]) -> RingRecord:
        return RingRecord(action, ring.use, kid, before, ring.generation, cause, told)

    key = change.key
    return (
        record(_ACTIONS[change.verb], key.id, details(key)),
        *(record("key.linked", old.id, details(old)) for old in change.predecessors),
        *(
            record("key.dropped", kid, {})
            for kid in change.destroyed
            if kid != key.id and ring.get(kid) is None
        ),
    )


def details(key: KeyDocument) -> dict[str, str]:
    """
    Return the algorithm and the times of a key as text.
    """
    times = key.timeline
    named = {
        "published": times.published,
        "activates": times.activates,
        "due": times.due,
        "retires": times.retires,
        "expires": times.expires,
        "revoked": times.revoked,
    }
    return {
        "algorithm": key.algorithm,
        **{name: rfc3339(time) for name, time in named.items() if time is not None},
    }
