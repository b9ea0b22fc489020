"""
The server's storage seam: versioned documents, and the only loop that retries.

Rules of this module:

1. A document is bytes under (tenant, kind, id) with an opaque version, declared index fields
   and an optional expiry. The store never knows what the bytes mean.
2. `Store.commit` writes several documents of one tenant at once, each on condition of its
   version, or nothing. Adapters compare and raise `ConflictError`; they never retry on it.
3. `transact` is the only retry loop. The function passed to it may run several times, so it
   is pure: keys and secrets are made before, reasons are checked again inside.
4. An expired document is an absent one, judged by the store's own time.
5. A version never comes back for the same id, not even after a delete.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from kagimori.errors import ConflictError, ContentionError, StoreError

T = TypeVar("T")
R = TypeVar("R")

ABSENT = 0
"""The version that a document which does not exist has."""


class DocumentKey(NamedTuple):
    """
    Names a document by its id.
    """

    kind: str
    id: str


class Reference(NamedTuple):
    """
    Names a document by an index field of another document of the same call.

    Its id is what the index field `field` of the document at position `of` holds. Where that
    document or the field is absent, so is this one.
    """

    kind: str
    of: int
    field: str


class Document(msgspec.Struct, frozen=True):
    """
    A document as the store holds it.
    """

    kind: str
    id: str
    version: int
    body: bytes
    expires: datetime | None = None


class Loaded(msgspec.Struct, frozen=True):
    """
    What one read brought: a document or ``None`` for each key asked for, and the store's time.
    """

    documents: tuple[Document | None, ...]
    now: datetime


class Put(msgspec.Struct, frozen=True):
    """
    Write a document if it is still at version `expect` (`ABSENT`: if there is none).

    `indexes` replaces all index fields of the document. A field maps to one value; fields are
    few and short, and never secret.
    `announce` moves the store's change counter, which other instances watch.
    """

    kind: str
    id: str
    body: bytes
    expect: int
    indexes: Mapping[str, str] = {}
    expires: datetime | None = None
    announce: bool = False


class Delete(msgspec.Struct, frozen=True):
    """
    Delete a document if it is still at version `expect`.
    """

    kind: str
    id: str
    expect: int
    announce: bool = False


class Check(msgspec.Struct, frozen=True):
    """
    Write nothing, but let the commit fail unless the document is still at version `expect`.
    """

    kind: str
    id: str
    expect: int


Change = Put | Delete | Check


class Store(Protocol):
    """
    Versioned documents of many tenants.
    """

    @property
    def name(self) -> str:
        """
        Say where the data lies, for people: never a secret.
        """
        ...

    async def load_many(
        self, tenant: str, keys: Sequence[DocumentKey | Reference]
    ) -> Loaded:
        """
        Read several documents of a tenant, and the store's time, in one round trip.

        Raises:
            StoreError: the store did not answer (then `transient`) or is damaged.
        """
        ...

    async def commit(self, tenant: str, changes: Sequence[Change]) -> datetime:
        """
        Write several documents of a tenant at once, durably, or nothing.

        Returns:
            The store's time of the commit.

        Raises:
            ConflictError: a version was not the expected one; nothing was written.
            StoreError: the store refuses or does not answer; nothing was written, unless
                `transient`, when the outcome may be unknown.
        """
        ...

    async def find(
        self,
        tenant: str | None,
        kind: str,
        index: tuple[str, str] | None = None,
        *,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[Document, ...]:
        """
        List documents of a kind in the order of their ids, a page at a time.

        Args:
            tenant: whose; ``None`` looks through all tenants.
            index: (field, value) that must match; ``None`` lists all of the kind.
            limit: how many at most, 1 to 1000.
            after: the id after which the page begins.
        """
        ...

    async def count(
        self, tenant: str, kind: str, index: tuple[str, str] | None = None
    ) -> int:
        """
        Count documents of a kind, all or those whose index field has the value.
        """
        ...

    async def change_counter(self) -> int:
        """
        Return a number that moves with every commit that announces a change. Cheap: polled.
        """
        ...

    async def purge(self, limit: int = 1000) -> int:
        """
        Delete documents that have expired, `limit` at most; return how many.
        """
        ...

    async def close(self) -> None:
        """
        Finish what is queued and let go of the database.
        """
        ...


class Decision(msgspec.Struct, Generic[R], frozen=True):
    """
    What a rule decided: the changes to commit, and the answer once they are committed.
    """

    result: R
    changes: tuple[Change, ...] = ()


ATTEMPTS = 5
"""How often `transact` decides before it gives up (requirements B5, case 10)."""

LONGEST_PAUSE = 0.1  # seconds


async def transact(
    store: Store,
    tenant: str,
    keys: Sequence[DocumentKey | Reference],
    decide: Callable[[Loaded], Decision[R]],
    *,
    attempts: int = ATTEMPTS,
) -> R:
    """
    Read, decide, commit; on conflict read and decide again.

    Args:
        decide: a pure function of what was read. It may run `attempts` times.

    Raises:
        ContentionError: every attempt lost; the caller may be asked to retry later.
        StoreError: as the store raises.
    """
    for attempt in range(attempts):
        decision = decide(await store.load_many(tenant, keys))
        if not decision.changes:
            return decision.result
        try:
            await store.commit(tenant, decision.changes)
        except ConflictError:
            # A loser waits a random moment, so that a herd does not collide in step for ever.
            # The moment is bounded: patient callers lose dozens of times in a storm.
            if attempt:
                longest = min(0.002 * (1 << min(attempt, 6)), LONGEST_PAUSE)
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - jitter
            continue
        return decision.result
    raise ContentionError(
        "Too many writers changed the same thing at once.",
        hint="Try again in a moment.",
        transient=True,
    )


class Versioned(msgspec.Struct, Generic[T], frozen=True):
    """
    A value together with the version it was read at.
    """

    id: str
    version: int
    value: T


class Collection(Generic[T]):
    """
    The documents of one kind, as values of one msgspec type.

    Args:
        kind: the documents' kind.
        type_: the msgspec Struct that a document's body is the JSON of.
        indexes: the declared index fields of a value.
        expires: when a value's document may go.
        announce: whether a change of this kind moves the change counter.
    """

    def __init__(
        self,
        kind: str,
        type_: type[T],
        *,
        indexes: Callable[[T], Mapping[str, str]] | None = None,
        expires: Callable[[T], datetime | None] | None = None,
        announce: bool = False,
    ) -> None:
        self.kind = kind
        self._decoder = msgspec.json.Decoder(type_)
        self._encoder = msgspec.json.Encoder()
        self._indexes = indexes
        self._expires = expires
        self._announce = announce

    def key(self, id_: str) -> DocumentKey:
        """
        Name a document of this collection.
        """
        return DocumentKey(self.kind, id_)

    def decode(self, document: Document) -> Versioned[T]:
        """
        Return the value of a document of this collection.

        Raises:
            StoreError: the stored body does not fit the type.
        """
        try:
            value = self._decoder.decode(document.body)
        except msgspec.DecodeError as exc:
            # The parser's message may quote what it parsed, so only its class is kept.
            raise StoreError(
                f"A stored document of kind {self.kind} cannot be read.",
                hint="Run `kagimori doctor`; restore the database from a backup.",
                detail=type(exc).__name__,
            ) from None
        return Versioned(document.id, document.version, value)

    def maybe(self, document: Document | None) -> Versioned[T] | None:
        """
        Return the value of a document, or ``None`` where there is none.
        """
        return None if document is None else self.decode(document)

    def put(self, id_: str, value: T, expect: int) -> Put:
        """
        Return the change that writes `value` if the document is at version `expect`.
        """
        return Put(
            self.kind,
            id_,
            self._encoder.encode(value),
            expect,
            self._indexes(value) if self._indexes else {},
            self._expires(value) if self._expires else None,
            self._announce,
        )

    def delete(self, id_: str, expect: int) -> Delete:
        """
        Return the change that deletes the document if it is at version `expect`.
        """
        return Delete(self.kind, id_, expect, self._announce)

    async def get(self, store: Store, tenant: str, id_: str) -> Versioned[T] | None:
        """
        Read one value.
        """
        loaded = await store.load_many(tenant, [self.key(id_)])
        return self.maybe(loaded.documents[0])

    async def find(
        self,
        store: Store,
        tenant: str | None,
        index: tuple[str, str] | None = None,
        *,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[Versioned[T], ...]:
        """
        List values in the order of their ids, a page at a time.
        """
        found = await store.find(tenant, self.kind, index, limit=limit, after=after)
        return tuple(self.decode(document) for document in found)

    async def update(
        self,
        store: Store,
        tenant: str,
        id_: str,
        decide: Callable[[T | None, datetime], tuple[T | None, R]],
    ) -> R:
        """
        Change one value by a pure rule, in the commit loop of `transact`.

        Args:
            decide: takes the value (or ``None``) and the store's time; returns the new value
                and the answer. Returning the value it was given, or ``None``, writes nothing.
        """

        def rule(loaded: Loaded) -> Decision[R]:
            found = self.maybe(loaded.documents[0])
            old = found.value if found else None
            new, result = decide(old, loaded.now)
            if new is None or new is old:
                return Decision(result)
            expect = found.version if found else ABSENT
            return Decision(result, (self.put(id_, new, expect),))

        return await transact(store, tenant, [self.key(id_)], rule)
