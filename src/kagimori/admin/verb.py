"""
How an operator's verb is committed: the change and its audit record at once, or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from kagimori.admin.audit import Fact, Trail
from kagimori.keys.journal import Cause
from kagimori.storage.store import (
    Change,
    Decision,
    Document,
    DocumentKey,
    Loaded,
    Reference,
    Store,
    transact,
)

R = TypeVar("R")

ATTEMPTS = 50
"""How often a verb decides again: operators' verbs may meet on one audit trail."""


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """
    What a verb decided.

    Attributes:
        result: the answer.
        changes: what to write; none writes no audit record either.
        details: for the audit record; nothing secret.
    """

    result: R
    changes: tuple[Change, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


async def commit_verb(
    store: Store,
    trail: Trail,
    tenant: str,
    action: str,
    subject: str,
    cause: Cause,
    keys: Sequence[DocumentKey | Reference],
    decide: Callable[[tuple[Document | None, ...], datetime], Done[R]],
) -> R:
    """
    Run one verb in the commit loop, with its audit record in the same commit.

    Args:
        action: what the record calls it, such as ``client.created``.
        subject: the id of what it is about.
        keys: the documents that `decide` needs.
        decide: a pure rule of those documents and the store's time.

    Raises:
        KagimoriError: as `decide` or the store raise.
    """
    own = len(keys)

    def rule(loaded: Loaded) -> Decision[R]:
        done = decide(loaded.documents[:own], loaded.now)
        if not done.changes:
            return Decision(done.result)
        facts = (Fact(action, subject, cause, done.details),)
        entries = trail.facts(tenant, loaded.documents[own:], loaded.now, facts)
        return Decision(done.result, (*done.changes, *entries))

    return await transact(store, tenant, [*keys, *trail.keys], rule, attempts=ATTEMPTS)
