"""
The seam to the audit trail: what a change of a ring leaves behind, in the same commit.

The trail itself belongs to `kagimori.admin`, above; a ring only knows that it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from kagimori.keys.timeline import KeyUse
from kagimori.storage.store import Change, Document, DocumentKey


@dataclass(frozen=True, slots=True)
class Cause:
    """
    Who changes a ring, and why.

    Attributes:
        actor: an operator, or ``schedule`` for the server itself.
        reason: the operator's own words.
        request_id: of the request or command.
    """

    actor: str
    reason: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class RingRecord:
    """
    One transition of a key, as the audit trail keeps it. Nothing in it is secret.

    Attributes:
        action: such as ``key.published``.
        before: the ring's generation before the change.
        after: the ring's generation after it.
        details: times and numbers, as text.
    """

    action: str
    use: KeyUse
    kid: str
    before: int
    after: int
    cause: Cause
    details: Mapping[str, str] = field(default_factory=dict)


class Journal(Protocol):
    """
    Writes the audit trail of a tenant.
    """

    @property
    def keys(self) -> tuple[DocumentKey, ...]:
        """
        Return the documents that have to be read before something can be written.
        """
        ...

    def entries(
        self,
        tenant: str,
        documents: Sequence[Document | None],
        now: datetime,
        records: Sequence[RingRecord],
    ) -> tuple[Change, ...]:
        """
        Return what to commit so that the trail holds the records.

        Args:
            documents: what `keys` named, as read for this commit.
        """
        ...


class NoJournal:
    """
    A journal for callers who keep none.
    """

    keys: tuple[DocumentKey, ...] = ()

    def entries(
        self,
        tenant: str,
        documents: Sequence[Document | None],
        now: datetime,
        records: Sequence[RingRecord],
    ) -> tuple[Change, ...]:
        """
        Write nothing.
        """
        return ()
