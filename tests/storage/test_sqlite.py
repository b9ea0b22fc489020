"""
What only the SQLite store promises: durability, shared commits, few pages, a bounded log.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.errors import ConflictError, KagimoriError, StoreError
from kagimori.storage import sqlite_reads
from kagimori.storage.sqlite import SqliteStore
from kagimori.storage.sqlite_reads import from_micros, micros
from kagimori.storage.sqlite_writer import MOST_IN_ONE
from kagimori.storage.sqlite_writes import Transaction, _refresh_many, sweep_after
from kagimori.storage.store import (
    ABSENT,
    Check,
    DocumentKey,
    Put,
    Reference,
)
from kagimori.testing.clock import FixedClock

NAME = "kagimori.db"
TENANT = "acme"
MONTH = timedelta(days=30)

Story = Callable[[SqliteStore, FixedClock], Awaitable[None]]


def play(place: Path, story: Story) -> None:
    """
    Open a store, tell a story with it, and close it.
    """

    async def told() -> None:
        clock = FixedClock()
        store = SqliteStore.open(place / NAME, clock=clock)
        try:
            await story(store, clock)
        finally:
            await store.close()

    asyncio.run(told())


def writer(store: SqliteStore) -> sqlite3.Connection:
    """
    Return the connection that writes.
    """
    connection = store._writer._connection
    assert connection is not None
    return connection


def reader_of(store: SqliteStore) -> sqlite3.Connection:
    """
    Return the connection by which this thread reads.
    """
    reader = getattr(store._local, "reader", None) or store._connect_reader()
    connection = reader._connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


def traced(store: SqliteStore) -> list[str]:
    """
    Return the list in which the first two words of each statement written from now on appear.
    """
    verbs: list[str] = []
    writer(store).set_trace_callback(
        lambda sql: verbs.append(" ".join(sql.split()[:2]))
    )
    return verbs


class Lock:
    """
    Another program that keeps the write lock, while commits queue up.
    """

    def __init__(self, place: Path) -> None:
        self._connection = sqlite3.connect(place / NAME, isolation_level=None)

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *exc: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


async def start(*calls: Awaitable[object]) -> list[asyncio.Future[object]]:
    """
    Let calls begin, and return what waits for them.
    """
    begun = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return begun


# --- durability ------------------------------------------------------------------------------


def test_a_commit_is_durable_before_it_is_acknowledged(tmp_path: Path):
    """
    Every connection that writes is at ``synchronous=FULL`` on a write-ahead log.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        pragmas = [
            writer(store).execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "busy_timeout", "mmap_size")
        ]
        assert [2, "wal", 0, 0] == pragmas

    play(tmp_path, story)


def test_a_store_says_where_it_is(tmp_path: Path):
    """
    The name is the URL of the file.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        assert f"sqlite://{tmp_path / NAME}" == store.name

    play(tmp_path, story)


# --- group commit ------------------------------------------------------------------------------


def test_commits_that_wait_together_are_made_durable_together(tmp_path: Path):
    """
    A hundred commits behind a lock share one transaction; those that conflict fail alone.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        await store.commit(TENANT, [Put("note", "taken", b"", ABSENT)])
        verbs = traced(store)
        with Lock(tmp_path):
            begun = await start(
                *(
                    store.commit(TENANT, [Put("note", f"{n:03}", b"", ABSENT)])
                    for n in range(100)
                ),
                store.commit(TENANT, [Put("note", "taken", b"", ABSENT)]),
                store.commit(
                    TENANT,
                    [Put("note", "half", b"", ABSENT), Check("note", "taken", ABSENT)],
                ),
                store.commit(TENANT, [Put("note", "007", b"", ABSENT)]),
            )
        answers = await asyncio.gather(*begun, return_exceptions=True)

        assert 1 == verbs.count("COMMIT")
        assert [ConflictError] * 3 == [type(answer) for answer in answers[100:]]
        assert 101 == await store.count(TENANT, "note")

    play(tmp_path, story)


def test_a_transaction_is_bounded(tmp_path: Path):
    """
    However many commits wait, a transaction takes so many that other processes get a turn.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        verbs = traced(store)
        with Lock(tmp_path):
            begun = await start(
                *(
                    store.commit(TENANT, [Put("note", f"{n}", b"", ABSENT)])
                    for n in range(MOST_IN_ONE + 1)
                )
            )
        await asyncio.gather(*begun)

        assert 2 == verbs.count("COMMIT")

    play(tmp_path, story)


def test_a_close_in_the_middle_answers_everybody(tmp_path: Path):
    """
    The end of the queue, met while commits are gathered, ends the store after them.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        with Lock(tmp_path):
            begun = await start(
                *(
                    store.commit(TENANT, [Put("note", f"{n}", b"", ABSENT)])
                    for n in range(3)
                ),
                store.close(),
            )
        await asyncio.gather(*begun)

        assert all(answer.exception() is None for answer in begun)

    play(tmp_path, story)
    connection = sqlite3.connect(tmp_path / NAME)
    assert (3,) == connection.execute("SELECT count(*) FROM document").fetchone()
    connection.close()


def test_a_loop_that_has_gone_disturbs_nobody(tmp_path: Path):
    """
    An event loop that ended while its commit was under way leaves a store that works.
    """
    store = SqliteStore.open(tmp_path / NAME, clock=FixedClock())

    async def leave() -> None:
        await start(store.commit(TENANT, [Put("note", "left", b"", ABSENT)]))

    with Lock(tmp_path):
        asyncio.run(leave())

    async def stay() -> int:
        await store.commit(TENANT, [Put("note", "stayed", b"", ABSENT)])
        count = await store.count(TENANT, "note")
        await store.close()
        return count

    assert 2 == asyncio.run(stay())


def test_a_mistake_in_the_thread_is_answered(tmp_path: Path):
    """
    Whatever is raised there, those who wait are told, and the next commit succeeds.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        def mistaken(transaction: Transaction) -> None:
            transaction.apply(TENANT, [Put("note", "half", b"", ABSENT)])
            raise ZeroDivisionError

        with pytest.raises(StoreError) as caught:
            await store._writer.run(mistaken)
        assert "ZeroDivisionError" == caught.value.detail

        await store.commit(TENANT, [Put("note", "1", b"", ABSENT)])
        assert 1 == await store.count(TENANT, "note")

    play(tmp_path, story)


def test_a_refusal_in_the_thread_undoes_its_own_work_only(tmp_path: Path):
    """
    Work that refuses half-way leaves nothing, and what shares its transaction stays.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        def refusing(transaction: Transaction) -> None:
            transaction.apply(TENANT, [Put("note", "half", b"", ABSENT, {"a": "b"})])
            raise KagimoriError("no")

        with Lock(tmp_path):
            begun = await start(
                store.commit(TENANT, [Put("note", "1", b"", ABSENT)]),
                store._writer.run(refusing),
                store.commit(TENANT, [Put("note", "2", b"", ABSENT)]),
            )
        answers = await asyncio.gather(*begun, return_exceptions=True)

        assert isinstance(answers[1], KagimoriError)
        assert 2 == await store.count(TENANT, "note")
        assert 0 == await store.count(TENANT, "note", ("a", "b"))

    play(tmp_path, story)


# --- few pages -------------------------------------------------------------------------------


def test_a_refresh_is_one_update_and_the_state(tmp_path: Path):
    """
    Where index fields stay, a write is one UPDATE of its row and one of the state.

    Its expiry may move a little; where fields change, the write costs more.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        indexes = {"user": "u", "client": "c"}

        async def put(expect: int, indexes: dict[str, str]) -> int:
            expires = clock.now() + MONTH
            change = Put("family", "f", b"x" * 700, expect, indexes, expires)
            await store.commit(TENANT, [change])
            loaded = await store.load_many(TENANT, [DocumentKey("family", "f")])
            assert loaded.documents[0] is not None
            return loaded.documents[0].version

        version = await put(ABSENT, indexes)
        verbs = traced(store)
        clock.advance(timedelta(minutes=10))
        version = await put(version, indexes)
        few = ["BEGIN IMMEDIATE", "SELECT revision,", "UPDATE document", "UPDATE state"]
        assert [*few, "COMMIT"] == verbs

        verbs.clear()
        await put(version, {**indexes, "client": "d"})
        assert "DELETE FROM" in verbs
        assert "INSERT OR" in verbs

    play(tmp_path, story)


def test_a_check_alone_writes_nothing(tmp_path: Path):
    """
    A commit that only checks, or says nothing, does not touch the file.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        verbs = traced(store)
        await store.commit(TENANT, [Check("note", "1", ABSENT)])
        await store.commit(TENANT, [])

        assert not [verb for verb in verbs if verb.startswith(("UPDATE", "INSERT"))]

    play(tmp_path, story)


@given(
    st.integers(0, 4_000_000_000_000_000), st.integers(-(10**12), 4_000_000_000_000_000)
)
def test_a_sweep_comes_soon_after_the_expiry(now: int, life: int):
    """
    Never before the expiry, and at most 1/32 of the life after it.
    """
    expires = now + life
    swept = sweep_after(expires, now)

    assert expires <= swept <= expires + max(abs(life) // 32, 1)


def test_a_sweep_moves_seldom(tmp_path: Path):
    """
    A family that is refreshed every ten minutes moves in the purge's index once or twice a day.
    """
    life, step = micros(from_micros(0) + MONTH), 600 * 1_000_000
    now = micros(datetime(2030, 1, 1, tzinfo=UTC))
    times = [now + n * step for n in range(144 * 10)]

    assert 10 <= len({sweep_after(at + life, at) for at in times}) <= 20


ASKED = [DocumentKey("a", "1"), Reference("b", 0, "f"), DocumentKey("c", "2")]


@pytest.mark.parametrize(
    "statement",
    [
        *(sqlite_reads.load(TENANT, 0, [ASKED] * count)[0] for count in (1, 2, 16)),
        _refresh_many(2),
        sqlite_reads.page(TENANT, 0, "a", None, limit=10, after="x")[0],
        sqlite_reads.page(TENANT, 0, "a", ("f", "v"), limit=10, after="x")[0],
        sqlite_reads.page(None, 0, "a", ("f", "v"), limit=10, after=None)[0],
        sqlite_reads.page(None, 0, "a", None, limit=10, after=None)[0],
        sqlite_reads.count(TENANT, 0, "a", None)[0],
        sqlite_reads.count(TENANT, 0, "a", ("f", "v"))[0],
        "SELECT rowid FROM document WHERE sweep <= ?1 AND expires <= ?1 LIMIT ?2",
    ],
    ids=lambda sql: None,
)
def test_no_statement_reads_a_whole_table(tmp_path: Path, statement: str):
    """
    SQLite finds what a statement asks for by an index, however many documents there are.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        names = ("tenant", "now", "kind", "limit", "after", "field", "value")
        by_name = ":kind" in statement
        number = max(map(int, re.findall(r"\?(\d+)", statement)), default=0)
        parameters = dict.fromkeys(names, 1) if by_name else [1] * number
        plan = writer(store).execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        steps = [row[3] for row in plan]

        # A scan of the state is one of its one row; w steps from tenant to tenant; q and new are
        # what the statement itself holds; what a subquery found is a page of each tenant.
        scans = [
            step.split()[1]
            for step in steps
            if step.startswith("SCAN") and "CONSTANT ROW" not in step
        ]
        assert {scan for scan in scans if scan[0] != "("} <= {"s", "w", "q", "new"}
        assert any("USING" in step for step in steps)

    play(tmp_path, story)


# --- the log -----------------------------------------------------------------------------------


def test_the_log_is_put_back_while_nobody_writes(tmp_path: Path):
    """
    After a burst of writes the documents move into the file, without anybody asking.
    """

    def grown(size: int) -> int:
        return (tmp_path / NAME).stat().st_size - size

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        size = grown(0)
        puts = [Put("note", f"{n}", bytes(8000), ABSENT) for n in range(200)]
        await store.commit(TENANT, puts)
        async with asyncio.timeout(20):
            while grown(size) < 200 * 8000:  # noqa: ASYNC110 - a thread tells nobody
                await asyncio.sleep(0.005)
        assert 200 == await store.count(TENANT, "note")

    play(tmp_path, story)


def test_the_log_does_not_grow_with_the_traffic(tmp_path: Path):
    """
    Under writes without a pause the log starts over, and stays smaller than what they wrote.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        expect, written, largest = ABSENT, 0, 0
        for _ in range(200):
            put = Put("note", "1", bytes(800_000), expect)
            await store.commit(TENANT, [put])
            loaded = await store.load_many(TENANT, [DocumentKey("note", "1")])
            assert loaded.documents[0] is not None
            expect = loaded.documents[0].version
            written += len(put.body)
            log = (tmp_path / f"{NAME}-wal").stat().st_size
            largest = max(largest, log)

        assert written > 2 * largest

    play(tmp_path, story)


# --- threads -----------------------------------------------------------------------------------


def test_a_threads_connection_ends_with_the_thread(tmp_path: Path):
    """
    Threads that come and go leave no connection behind.
    """

    async def story(store: SqliteStore, clock: FixedClock) -> None:
        def read() -> None:
            loaded = asyncio.run(store.load_many(TENANT, [DocumentKey("note", "1")]))
            seen.append(loaded.now)

        seen: list[datetime] = []
        for _ in range(10):
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()

        assert [clock.now()] * 10 == seen
        assert 0 == len(store._readers)

    play(tmp_path, story)


def test_closing_from_elsewhere_ends_a_threads_reads(tmp_path: Path):
    """
    A store closed in one thread refuses the reads of another that has a connection still.
    """
    store = SqliteStore.open(tmp_path / NAME, clock=FixedClock())

    async def read() -> object:
        return await store.load_many(TENANT, [DocumentKey("note", "1")])

    asyncio.run(read())
    asyncio.run(asyncio.wait_for(_close_in_thread(store), 10))

    with pytest.raises(StoreError, match="closed"):
        asyncio.run(read())


async def _close_in_thread(store: SqliteStore) -> None:
    await asyncio.to_thread(asyncio.run, store.close())


# --- time --------------------------------------------------------------------------------------


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_is_kept_to_the_microsecond(instant: datetime):
    """
    Every instant that `datetime` knows comes back the same.
    """
    assert instant == from_micros(micros(instant))
