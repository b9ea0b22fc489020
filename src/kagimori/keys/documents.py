"""
Rings as documents of the server's store: (tenant, ``ring``, use).

Rules of this module:

1. A document holds the public half of each key, and the private half only as the protection
   ring has protected it. Private halves are dropped as soon as a key cannot sign again.
2. The id of the protection key under which each private half lies is a declared index field,
   so that a protection key that is still needed is found by one look.
3. Ring and ledger come to be in one commit. A ledger that came later did not see everything,
   and says so by `LedgerDocument.since`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from kagimori.errors import StoreError
from kagimori.keys.ledger import LedgerDocument
from kagimori.keys.policy import RotationPolicy
from kagimori.keys.ring import KeyRing
from kagimori.keys.timeline import KeyTimeline, KeyUse
from kagimori.storage.store import Collection, Store, Versioned


class KeyDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One key as stored.

    Attributes:
        id: the kid.
        algorithm: its one algorithm.
        timeline: its times.
        jwk: the public half of a signing key.
        private: the private half or secret, protected; ``None`` once it was destroyed.
        under: the id of the protection key under which `private` lies.
    """

    id: str
    algorithm: str
    timeline: KeyTimeline
    jwk: dict[str, str] | None = None
    private: str | None = None
    under: str | None = None

    def with_timeline(self, timeline: KeyTimeline) -> KeyDocument:
        """
        Return the same key with other times.
        """
        return msgspec.structs.replace(self, timeline=timeline)

    def without_private(self) -> KeyDocument:
        """
        Return the key with its private half destroyed.
        """
        return msgspec.structs.replace(self, private=None, under=None)

    def __repr__(self) -> str:
        return f"<KeyDocument {self.id!r} {self.algorithm}>"


class RingDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One ring as stored; the fields are those of `KeyRing`.

    Attributes:
        tenant: whose ring it is.
        policy: how its keys turn.
    """

    tenant: str
    use: KeyUse
    generation: int
    default_algorithm: str
    keys: tuple[KeyDocument, ...]
    policy: RotationPolicy
    pending_default: str | None = None
    changed: datetime | None = None

    def ring(self) -> KeyRing[KeyDocument]:
        """
        Return the ring that the document describes.
        """
        return KeyRing(
            self.use,
            self.keys,
            self.generation,
            self.default_algorithm,
            self.pending_default,
            self.changed,
        )

    def with_ring(
        self, ring: KeyRing[KeyDocument], destroyed: Iterable[str] = ()
    ) -> RingDocument:
        """
        Return the document of a ring after a verb.

        Args:
            ring: the ring after the verb.
            destroyed: ids of keys whose private half goes.
        """
        gone = frozenset(destroyed)
        return msgspec.structs.replace(
            self,
            generation=ring.generation,
            default_algorithm=ring.default_algorithm,
            pending_default=ring.pending_default,
            changed=ring.changed,
            keys=tuple(
                key.without_private() if key.id in gone else key for key in ring.keys
            ),
        )

    @classmethod
    def of(
        cls, tenant: str, ring: KeyRing[KeyDocument], policy: RotationPolicy
    ) -> RingDocument:
        """
        Return the document of a new ring.
        """
        return cls(
            tenant=tenant,
            use=ring.use,
            generation=ring.generation,
            default_algorithm=ring.default_algorithm,
            keys=ring.keys,
            policy=policy,
            pending_default=ring.pending_default,
            changed=ring.changed,
        )


def protection_index(key_id: str) -> tuple[str, str]:
    """
    Return the (field, value) by which values under a protection key are found.

    A ring names several at once while it is being re-protected, and a field has one value:
    so the id is part of the field's name.
    """
    return f"protection:{key_id}", "1"


def _indexes(document: RingDocument) -> Mapping[str, str]:
    return dict(protection_index(key.under) for key in document.keys if key.under)


RINGS: Collection[RingDocument] = Collection(
    "ring", RingDocument, indexes=_indexes, announce=True
)

LEDGERS: Collection[LedgerDocument] = Collection("ledger", LedgerDocument)

PAGE = 500


async def all_rings(
    store: Store, index: tuple[str, str] | None = None
) -> tuple[tuple[Versioned[RingDocument], ...], int]:
    """
    Read the rings of all tenants.

    Args:
        index: only those whose index field has this value.

    Returns:
        The rings, and how many could not be read: one damaged ring hides no other.

    Raises:
        StoreError: the store does not answer.
    """
    found: list[Versioned[RingDocument]] = []
    damaged = 0
    after: str | None = None
    while True:
        page = await store.find(None, RINGS.kind, index, limit=PAGE, after=after)
        for document in page:
            try:
                found.append(RINGS.decode(document))
            except StoreError:
                damaged += 1
        if len(page) < PAGE:
            return tuple(found), damaged
        after = page[-1].id
