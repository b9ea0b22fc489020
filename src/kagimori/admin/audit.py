"""
The audit trail: one chain of records per tenant, each bound to the one before.

Rules of this module:

1. A record is written in the commit of what it tells of, or neither is written.
2. Each record carries the hash of the one before it, so that a record changed, taken out or
   put in later shows (attack K14). Records are never changed or deleted.
3. Nothing secret stands in a record: ids, times, numbers, and the operator's own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from kagimori.crypto.digests import b64url_encode, equal, sha256
from kagimori.errors import StoreError
from kagimori.keys.journal import Cause, RingRecord
from kagimori.storage.store import (
    ABSENT,
    Change,
    Collection,
    Document,
    DocumentKey,
    Store,
)

MAX_TEXT = 500
"""How many characters of a reason or a detail are kept."""

HEAD = "head"

PAGE = 500


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    One thing that was done.

    Attributes:
        seq: 1 for the first of the tenant, without gaps.
        at: the store's time.
        actor: who did it: an operator, or ``schedule``.
        action: such as ``key.revoked``.
        subject: the id of what it was done to.
        reason: the operator's own words.
        request_id: of the request or command.
        details: times and numbers as text.
        previous: the hash of the record before; empty in the first.
    """

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    request_id: str
    details: dict[str, str]
    previous: str

    def hash(self) -> str:
        """
        Return the SHA-256 over the record's canonical JSON as base64url.
        """
        return b64url_encode(sha256(msgspec.json.encode(self, order="deterministic")))


class AuditHead(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where a tenant's chain ends.

    Attributes:
        seq: the number of the last record.
        hash: its hash.
    """

    seq: int
    hash: str


RECORDS: Collection[AuditRecord] = Collection(
    "audit", AuditRecord, indexes=lambda record: {"subject": record.subject[:200]}
)

HEADS: Collection[AuditHead] = Collection("audit_head", AuditHead)


@dataclass(frozen=True, slots=True)
class Fact:
    """
    What a record is to tell.

    Attributes:
        action: such as ``client.created``.
        subject: the id of what it was done to.
        cause: who did it, and why.
        details: times and numbers as text; nothing secret.
    """

    action: str
    subject: str
    cause: Cause
    details: Mapping[str, str] = field(default_factory=dict)


class Trail:
    """
    Writes audit records. It is the `kagimori.keys.journal.Journal` of the rings, too.
    """

    keys: tuple[DocumentKey, ...] = (HEADS.key(HEAD),)
    """The documents to read before `facts` or `entries`."""

    def facts(
        self,
        tenant: str,
        documents: Sequence[Document | None],
        now: datetime,
        facts: Sequence[Fact],
    ) -> tuple[Change, ...]:
        """
        Return what to commit so that the trail holds the facts.

        Args:
            tenant: whose trail.
            documents: what `keys` named, as read for this commit.
            now: the store's time.
            facts: in the order in which they happened.

        Raises:
            StoreError: the end of the chain cannot be read.
        """
        if not facts:
            return ()
        head = HEADS.maybe(documents[0])
        seq, previous = (head.value.seq, head.value.hash) if head else (0, "")
        changes: list[Change] = []
        for fact in facts:
            seq += 1
            record = AuditRecord(
                seq=seq,
                at=now,
                actor=_bounded(fact.cause.actor),
                action=fact.action,
                subject=fact.subject,
                reason=_bounded(fact.cause.reason),
                request_id=_bounded(fact.cause.request_id),
                details={k: _bounded(v) for k, v in fact.details.items()},
                previous=previous,
            )
            previous = record.hash()
            changes.append(RECORDS.put(_id(seq), record, ABSENT))
        version = head.version if head else ABSENT
        changes.append(HEADS.put(HEAD, AuditHead(seq=seq, hash=previous), version))
        return tuple(changes)

    def entries(
        self,
        tenant: str,
        documents: Sequence[Document | None],
        now: datetime,
        records: Sequence[RingRecord],
    ) -> tuple[Change, ...]:
        """
        Return what to commit so that the trail holds transitions of keys.

        Raises:
            StoreError: the end of the chain cannot be read.
        """
        return self.facts(tenant, documents, now, self.told(records))

    def told(self, records: Sequence[RingRecord]) -> tuple[Fact, ...]:
        """
        Return transitions of keys as facts.
        """
        return tuple(
            Fact(
                record.action,
                record.kid,
                record.cause,
                {
                    "use": record.use.value,
                    "generation_before": str(record.before),
                    "generation": str(record.after),
                    **record.details,
                },
            )
            for record in records
        )


async def read_trail(
    store: Store, tenant: str, *, after: int = 0, limit: int = 100
) -> tuple[AuditRecord, ...]:
    """
    Return records of a tenant in the order in which they were written.

    Args:
        after: the number of the record after which to begin.
        limit: how many at most, 1 to 1000.

    Raises:
        StoreError: the store does not answer, or a record cannot be read.
    """
    page = await RECORDS.find(
        store, tenant, limit=limit, after=_id(after) if after else None
    )
    return tuple(record.value for record in page)


async def verify_trail(store: Store, tenant: str) -> int:
    """
    Check a tenant's whole chain; return how many records it holds.

    Raises:
        StoreError: a record was changed, taken out or put in; the text says which.
    """
    head = await HEADS.get(store, tenant, HEAD)
    seq, previous = 0, ""
    while True:
        page = await read_trail(store, tenant, after=seq, limit=PAGE)
        for record in page:
            if record.seq != seq + 1 or not equal(record.previous, previous):
                raise _broken(tenant, seq + 1)
            seq, previous = record.seq, record.hash()
        if len(page) < PAGE:
            break
    expected = (head.value.seq, head.value.hash) if head else (0, "")
    if seq != expected[0] or not equal(previous, expected[1]):
        raise _broken(tenant, seq)
    return seq


def _broken(tenant: str, seq: int) -> StoreError:
    return StoreError(
        f"The audit trail of the tenant {tenant} is not whole: record {seq} does not fit.",
        hint="Compare it with a backup: a record was changed, taken out or put in.",
        tenant=tenant,
        seq=str(seq),
    )


def _id(seq: int) -> str:
    # Ids are listed as text, so they are as long as each other.
    return f"{seq:015d}"


def _bounded(text: str) -> str:
    return text[:MAX_TEXT]
