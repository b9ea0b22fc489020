"""
The audit trail: complete, in order, and bound together.
"""

from __future__ import annotations

import msgspec
import pytest

from kagimori.admin.audit import (
    HEAD,
    HEADS,
    RECORDS,
    Fact,
    Trail,
    read_trail,
    verify_trail,
)
from kagimori.errors import StoreError
from kagimori.keys.journal import Cause
from kagimori.storage.store import Decision, Delete, transact
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore
from tests.keys.worlds import CAUSE, TENANT, run

TRAIL = Trail()


async def write(store, *actions, tenant=TENANT, cause=CAUSE, details=None):
    """
    Write facts in one commit.
    """
    facts = [Fact(action, "subject", cause, details or {}) for action in actions]

    def rule(loaded):
        return Decision(None, TRAIL.facts(tenant, loaded.documents, loaded.now, facts))

    await transact(store, tenant, list(TRAIL.keys), rule, attempts=50)


@pytest.fixture
def store():
    return MemoryStore(FixedClock())


def test_records_are_numbered_without_gaps_and_chained(store):
    """
    Each carries the hash of the one before, across commits.
    """

    async def story():
        await write(store, "one", "two")
        await write(store, "three")
        records = await read_trail(store, TENANT)
        assert ["one", "two", "three"] == [record.action for record in records]
        assert [1, 2, 3] == [record.seq for record in records]
        assert ["", records[0].hash(), records[1].hash()] == [
            record.previous for record in records
        ]
        assert 3 == await verify_trail(store, TENANT)
        assert records[1:] == await read_trail(store, TENANT, after=1)

    run(story())


def test_each_tenant_has_a_chain_of_its_own(store):
    """
    And an empty one is whole.
    """

    async def story():
        await write(store, "one")
        await write(store, "one", "two", tenant="acme")
        assert (1, 2, 0) == (
            await verify_trail(store, TENANT),
            await verify_trail(store, "acme"),
            await verify_trail(store, "nobody"),
        )

    run(story())


def test_nothing_to_tell_writes_nothing(store):
    """
    No empty records.
    """

    async def story():
        await write(store)
        assert () == await read_trail(store, TENANT)

    run(story())


@pytest.mark.parametrize("harm", ["changed", "removed", "cut", "inserted"])
def test_K14_whoever_touches_a_record_is_seen(store, harm):
    """
    K14: a changed, removed, cut off or inserted record breaks the chain.
    """

    async def story():
        await write(store, "one", "two", "three")
        key = f"{2 if harm != 'cut' else 3:015d}"
        found = await RECORDS.get(store, TENANT, key)
        match harm:
            case "changed":
                value = msgspec.structs.replace(found.value, actor="somebody else")
                change = RECORDS.put(key, value, found.version)
            case "removed" | "cut":
                change = Delete("audit", key, found.version)
            case _:
                value = msgspec.structs.replace(found.value, seq=4)
                change = RECORDS.put(f"{4:015d}", value, 0)
        assert 3 == await verify_trail(store, TENANT)
        await store.commit(TENANT, [change])
        with pytest.raises(StoreError, match="not whole"):
            await verify_trail(store, TENANT)

    run(story())


def test_K14_a_chain_longer_than_a_page_is_checked_to_its_end(store, monkeypatch):
    """
    K14: page by page.
    """
    monkeypatch.setattr("kagimori.admin.audit.PAGE", 2)

    async def story():
        await write(store, *"abcde")
        assert 5 == await verify_trail(store, TENANT)

    run(story())


def test_long_texts_are_cut(store):
    """
    A reason is an operator's own words, and bounded.
    """

    async def story():
        await write(store, "one", cause=Cause("a" * 900, "b" * 900, "c" * 900))
        (record,) = await read_trail(store, TENANT)
        assert [500] * 3 == [
            len(text) for text in (record.actor, record.reason, record.request_id)
        ]
        assert 1 == await verify_trail(store, TENANT)

    run(story())


def test_a_broken_end_of_the_chain_refuses_new_records(store):
    """
    Nothing is written beside a chain that cannot be continued.
    """

    async def story():
        await write(store, "one")
        head = await HEADS.get(store, TENANT, HEAD)
        put = HEADS.put(HEAD, head.value, head.version)
        await store.commit(TENANT, [msgspec.structs.replace(put, body=b"{}")])
        with pytest.raises(StoreError):
            await write(store, "two")
        assert 1 == len(await read_trail(store, TENANT))

    run(story())
