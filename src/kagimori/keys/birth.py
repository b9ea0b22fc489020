"""
The first rings of a tenant: signing and cookie, in one commit, or nothing.

Rules of this module:

1. A ring is made only where the store says that there is none (attacks K4, K5). Whoever loses
   the race adopts the winner's; unreadable is not absent.
2. Keys are made before the commit and thrown away if somebody else was faster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kagimori.keys.changing import details
from kagimori.keys.documents import LEDGERS, RINGS, KeyDocument, RingDocument
from kagimori.keys.journal import Cause, Journal, RingRecord
from kagimori.keys.key import COOKIE_ALGORITHM
from kagimori.keys.ledger import LedgerDocument
from kagimori.keys.material import ProtectorRoot, make_key
from kagimori.keys.policy import RotationPolicy
from kagimori.keys.ring import KeyRing
from kagimori.keys.timeline import KeyUse
from kagimori.storage.store import (
    ABSENT,
    Change,
    Decision,
    Loaded,
    Store,
    transact,
)


@dataclass(frozen=True, slots=True)
class NewRings:
    """
    What the rings of a new tenant begin with.

    Attributes:
        algorithms: of its signing keys, all current side by side; the first is the default.
        signing: how its signing keys turn.
        cookie: how its cookie keys turn.
    """

    algorithms: tuple[str, ...] = ("ES256", "RS256")
    signing: RotationPolicy = field(default_factory=RotationPolicy.signing)
    cookie: RotationPolicy = field(default_factory=RotationPolicy.cookie)

    @classmethod
    def with_default(cls, algorithm: str) -> NewRings:
        """
        Return the usual beginning with another default algorithm.
        """
        return cls(algorithms=tuple(dict.fromkeys((algorithm, "ES256", "RS256"))))

    @classmethod
    def demo(cls) -> NewRings:
        """
        Return what the demo world begins with. Unsafe elsewhere.
        """
        return cls(signing=RotationPolicy.demo())


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """
    Keys made for the rings of one tenant, not stored yet.
    """

    tenant: str
    plan: NewRings
    signing: tuple[KeyDocument, ...]
    cookie: tuple[KeyDocument, ...]

    def changes(
        self, now: datetime, cause: Cause, *, uses: Sequence[KeyUse]
    ) -> tuple[tuple[Change, ...], tuple[RingRecord, ...]]:
        """
        Return what to commit for the rings of these uses, and what the trail keeps of it.
        """
        changes: list[Change] = []
        records: list[RingRecord] = []
        for use in uses:
            signing = use is KeyUse.SIGNING
            policy = self.plan.signing if signing else self.plan.cookie
            keys = self.signing if signing else self.cookie
            ring = KeyRing.first(use, keys, now=now, policy=policy)
            document = RingDocument.of(self.tenant, ring, policy)
            changes.append(RINGS.put(use.value, document, ABSENT))
            if signing:
                ledger = LedgerDocument(since=now)
                changes.append(LEDGERS.put(use.value, ledger, ABSENT))
            records += [
                RingRecord("key.created", use, k.id, 0, 1, cause, details(k))
                for k in ring
            ]
        return tuple(changes), tuple(records)


async def make_first_keys(
    root: ProtectorRoot, tenant: str, plan: NewRings, *, now: datetime
) -> FirstKeys:
    """
    Make the first keys of a tenant, off the event loop.

    Raises:
        ConfigError: a policy is impossible.
        UnsupportedAlgorithmError: an algorithm is not offered.
        KeyRingError: the protection ring cannot protect at the moment.
    """
    plan.signing.validate()
    plan.cookie.validate()

    def make() -> FirstKeys:
        return FirstKeys(
            tenant,
            plan,
            tuple(
                make_key(root, tenant, KeyUse.SIGNING, algorithm, now=now)
                for algorithm in plan.algorithms
            ),
            (make_key(root, tenant, KeyUse.COOKIE, COOKIE_ALGORITHM, now=now),),
        )

    return await asyncio.to_thread(make)


async def ensure_rings(
    store: Store,
    root: ProtectorRoot,
    tenant: str,
    *,
    plan: NewRings,
    cause: Cause,
    journal: Journal,
) -> bool:
    """
    Give a tenant the rings that it lacks; say whether this call made one.

    Raises:
        StoreError: the store refuses or does not answer.
        KeyRingError: the protection ring cannot protect at the moment; nothing was made.
    """
    uses = (KeyUse.SIGNING, KeyUse.COOKIE)
    keys = [RINGS.key(use.value) for use in uses]
    seen = await store.load_many(tenant, keys)
    if None not in seen.documents:
        return False
    first = await make_first_keys(root, tenant, plan, now=seen.now)

    def rule(loaded: Loaded) -> Decision[bool]:
        lacking = [
            use
            for use, document in zip(uses, loaded.documents[:2], strict=True)
            if document is None
        ]
        if not lacking:
            return Decision(result=False)
        changes, records = first.changes(loaded.now, cause, uses=lacking)
        written = journal.entries(tenant, loaded.documents[2:], loaded.now, records)
        return Decision(result=True, changes=(*changes, *written))

    return await transact(store, tenant, [*keys, *journal.keys], rule)
