"""
`transact`, the only loop that retries, and `Collection`, which stands on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
import pytest

from kagimori.errors import ConflictError, ContentionError, StoreError
from kagimori.storage.store import (
    ABSENT,
    ATTEMPTS,
    Collection,
    Decision,
    DocumentKey,
    Loaded,
    Put,
    Store,
    transact,
)
from kagimori.testing.clock import START, FixedClock
from kagimori.testing.memory_store import MemoryStore
from kagimori.testing.spy_store import SpyStore

TENANT = "acme"
KEY = DocumentKey("note", "1")


class Note(msgspec.Struct, frozen=True):
    """
    A value to keep.
    """

    text: str
    author: str = ""
    expires: datetime | None = None


def _indexes(note: Note) -> Mapping[str, str]:
    return {"author": note.author} if note.author else {}


NOTES = Collection(
    "note", Note, indexes=_indexes, expires=lambda note: note.expires, announce=True
)


def spied() -> SpyStore:
    """
    Return a store that remembers what was asked of it.
    """
    return SpyStore(MemoryStore(FixedClock()))


async def meddle(store: Store) -> None:
    """
    Change the note behind somebody's back.
    """
    found = (await store.load_many(TENANT, [KEY])).documents[0]
    version = found.version if found else ABSENT
    await store.commit(TENANT, [Put(*KEY, b"meddled", version)])


class MeddledStore(MemoryStore):
    """
    A store in which somebody else is faster, a number of times.
    """

    def __init__(self, times: int) -> None:
        super().__init__(FixedClock())
        self.times = times

    async def load_many(self, tenant, keys):
        loaded = await super().load_many(tenant, keys)
        if self.times > 0:
            self.times -= 1
            found = loaded.documents[0]
            version = found.version if found else ABSENT
            await super().commit(tenant, [Put(*KEY, b"meddled", version)])
        return loaded


# --- transact ------------------------------------------------------------------------------


def test_a_decision_without_changes_commits_nothing():
    """
    Where the rule decides to change nothing, there is one read and no write.
    """
    store = spied()
    answer = asyncio.run(
        transact(store, TENANT, [KEY], lambda _: Decision("nothing to do"))
    )

    assert "nothing to do" == answer
    assert ["load_many(note)"] == [str(call) for call in store.calls]


def test_a_decision_is_one_read_and_one_write():
    """
    Nobody in the way: one `load_many`, one `commit`.
    """
    store = spied()
    changes = (Put(*KEY, b"x", ABSENT),)
    answer = asyncio.run(
        transact(store, TENANT, [KEY], lambda loaded: Decision(loaded.now, changes))
    )

    assert START == answer
    assert ["load_many(note)", "commit(note)"] == [str(call) for call in store.calls]


@pytest.mark.parametrize("times", range(ATTEMPTS))
def test_the_loser_of_a_race_decides_again_on_what_it_reads_then(times: int):
    """
    Beaten up to four times, the rule runs again on the new document (B5, case 10).
    """
    store = MeddledStore(times)
    seen: list[bytes | None] = []

    def decide(loaded: Loaded) -> Decision[int]:
        found = loaded.documents[0]
        seen.append(found and found.body)
        version = found.version if found else ABSENT
        return Decision(len(seen), (Put(*KEY, b"mine", version),))

    assert times + 1 == asyncio.run(transact(store, TENANT, [KEY], decide))
    assert [None, *[b"meddled"] * times] == seen


def test_a_rule_that_always_loses_gives_up_after_five_times():
    """
    Five lost attempts end in an error that may pass, and nothing of it was written.
    """
    store = MeddledStore(1000)
    runs = []

    def decide(loaded: Loaded) -> Decision[None]:
        runs.append(loaded)
        found = loaded.documents[0]
        version = found.version if found else ABSENT
        return Decision(None, (Put(*KEY, b"mine", version),))

    with pytest.raises(ContentionError) as caught:
        asyncio.run(transact(store, TENANT, [KEY], decide))

    assert 5 == ATTEMPTS == len(runs)
    assert caught.value.transient
    assert caught.value.hint


def test_what_a_rule_raises_is_raised_and_writes_nothing():
    """
    A rule refuses by raising; only conflicts are tried again.
    """
    store = spied()

    def decide(loaded: Loaded) -> Decision[None]:
        raise StoreError("refused")

    with pytest.raises(StoreError, match="refused"):
        asyncio.run(transact(store, TENANT, [KEY], decide))
    assert 1 == len(store.calls)


def test_a_closed_store_is_not_tried_again():
    """
    A fault of the store goes to the caller at once.
    """

    async def story() -> SpyStore:
        store = spied()
        await store.close()
        with pytest.raises(StoreError, match="closed"):
            await transact(store, TENANT, [KEY], lambda _: Decision(None))
        return store

    assert 1 == asyncio.run(story()).times("load_many")


# --- Collection ----------------------------------------------------------------------------


def test_a_value_comes_back_from_a_collection():
    """
    A value is stored with its indexes, its expiry and its announcement, and found by them.
    """

    async def story() -> None:
        clock = FixedClock()
        store = MemoryStore(clock)
        expires = clock.now() + timedelta(hours=1)
        note = Note("hello", "anna", expires)
        before = await store.change_counter()
        await store.commit(TENANT, [NOTES.put("1", note, ABSENT)])
        found = await NOTES.get(store, TENANT, "1")

        assert found is not None
        assert ("1", note) == (found.id, found.value)
        assert found.version > ABSENT
        assert (found,) == await NOTES.find(store, TENANT, ("author", "anna"))
        assert () == await NOTES.find(store, TENANT, ("author", "bert"))
        assert (found,) == await NOTES.find(store, None, limit=1)
        assert () == await NOTES.find(store, TENANT, after="1")
        assert before != await store.change_counter()

        await store.commit(TENANT, [NOTES.delete("1", found.version)])
        assert await NOTES.get(store, TENANT, "1") is None

    asyncio.run(story())


def test_a_value_goes_when_its_expiry_comes():
    """
    The expiry that a collection declares is the document's.
    """

    async def story() -> None:
        clock = FixedClock()
        store = MemoryStore(clock)
        note = Note("hello", expires=clock.now() + timedelta(hours=1))
        await store.commit(TENANT, [NOTES.put("1", note, ABSENT)])
        assert await NOTES.get(store, TENANT, "1") is not None

        clock.advance(timedelta(hours=1))
        assert await NOTES.get(store, TENANT, "1") is None

    asyncio.run(story())


def test_a_body_that_does_not_fit_is_an_error_without_its_content():
    """
    A stored value that cannot be read names its kind and never what is in it.
    """
    store = MemoryStore(FixedClock())

    async def story() -> None:
        for n, body in enumerate((b'{"text": "hunter2"', b'{"text": ["hunter2"]}')):
            await store.commit(TENANT, [Put("note", f"{n}", body, ABSENT)])
            with pytest.raises(StoreError, match="kind note") as caught:
                await NOTES.get(store, TENANT, f"{n}")
            assert "hunter2" not in f"{caught.value} {caught.value.detail}"
            assert caught.value.__cause__ is None
            assert not caught.value.transient

    asyncio.run(story())


def test_an_update_makes_changes_and_leaves_alone():
    """
    A rule makes a value or changes one; returning ``None`` or the old one writes nothing.
    """
    store = spied()

    async def story() -> None:
        async def update(new: str | None, *, same: bool = False) -> str:
            def decide(note: Note | None, now: datetime) -> tuple[Note | None, str]:
                assert START == now
                after = Note(new) if new else None
                return note if same else after, note.text if note else "none"

            return await NOTES.update(store, TENANT, "1", decide)

        assert "none" == await update(None)
        assert 0 == store.times("commit")
        assert "none" == await update("first")
        assert "first" == await update("second")
        assert 2 == store.times("commit")
        assert "second" == await update(None)
        assert "second" == await update(None, same=True)
        assert 2 == store.times("commit")

    asyncio.run(story())


def test_updates_that_race_lose_nothing():
    """
    Each of many updates at once sees what the one before it wrote.
    """

    async def story() -> Note:
        store = MemoryStore(FixedClock())

        def decide(note: Note | None, now: datetime) -> tuple[Note, None]:
            return Note((note.text if note else "") + "x"), None

        async def task() -> None:
            for _ in range(20):
                while True:
                    try:
                        await NOTES.update(store, TENANT, "1", decide)
                        break
                    except ContentionError:
                        continue

        await asyncio.gather(*(task() for _ in range(10)))
        found = await NOTES.get(store, TENANT, "1")
        assert found is not None
        return found.value

    assert "x" * 200 == asyncio.run(story()).text


def test_a_conflict_is_told_from_other_errors():
    """
    Outside of the loop a conflict is what it is: another writer's success.
    """

    async def story() -> None:
        store = MemoryStore(FixedClock())
        await store.commit(TENANT, [NOTES.put("1", Note("a"), ABSENT)])
        await meddle(store)
        with pytest.raises(ConflictError):
            await store.commit(TENANT, [NOTES.put("1", Note("b"), ABSENT)])

    asyncio.run(story())


def test_a_patient_rule_that_always_loses_pauses_for_seconds_at_most(monkeypatch):
    """
    However often a rule loses, each pause is bounded, so giving up comes soon.
    """
    pauses = []

    async def note(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)

    async def story():
        store = MemoryStore(FixedClock())

        def decide(loaded):
            return Decision(None, (Put("kind", "id", b"{}", expect=12345),))

        with pytest.raises(ContentionError):
            await transact(
                store, "t", [DocumentKey("kind", "id")], decide, attempts=200
            )

    asyncio.run(story())

    assert 198 <= sum(pause > 0 for pause in pauses)
    assert max(pauses) <= 0.1
