"""
What tasks of one loop ask of an SQLite store in one turn is answered and written together.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from kagimori.errors import ConflictError, StoreError
from kagimori.storage.sqlite import SqliteStore
from kagimori.storage.store import ABSENT, DocumentKey, Put, Reference
from tests.storage.test_sqlite import play, reader_of, traced

ONE, TWO = "one", "two"


def put(id_: str, expect: int, body: bytes = b"x", **fields: str) -> Put:
    return Put("thing", id_, body, expect, fields)


async def version(store: SqliteStore, tenant: str, id_: str) -> int:
    found = await store.load_many(tenant, [DocumentKey("thing", id_)])
    return 0 if found.documents[0] is None else found.documents[0].version


def test_reads_of_one_turn_are_one_statement(tmp_path: Path) -> None:
    """
    Questions of one shape share a statement; each gets its own documents, absent ones too.
    """

    async def story(store, clock):
        for number in range(5):
            owner = f"u{number}"
            await store.commit(
                ONE,
                [
                    put(f"t{number}", ABSENT, str(number).encode(), owner=owner),
                    Put("user", owner, f"user {number}".encode(), ABSENT),
                ],
            )
        await store.commit(TWO, [put("t0", ABSENT, b"other")])
        read = reader_of(store)
        seen: list[str] = []
        read.set_trace_callback(seen.append)

        def question(id_):
            return [DocumentKey("thing", id_), Reference("user", 0, "owner")]

        answers = await asyncio.gather(
            *(store.load_many(ONE, question(f"t{n}")) for n in (0, 3, 9, 3)),
            store.load_many(
                ONE, [DocumentKey("thing", "t1"), DocumentKey("user", "u2")]
            ),
            store.load_many(TWO, question("t0")),
            store.load_many(ONE, []),
        )

        bodies = [
            [None if each is None else each.body for each in answer.documents]
            for answer in answers
        ]
        assert [
            [b"0", b"user 0"],
            [b"3", b"user 3"],
            [None, None],
            [b"3", b"user 3"],
            [b"1", b"user 2"],
            [b"other", None],
            [],
        ] == bodies
        assert 4 == len(seen)

    play(tmp_path, story)


def test_an_id_means_the_same_among_others(tmp_path: Path) -> None:
    """
    Ids with odd characters are told apart however many are read: no NUL cuts one short.
    """
    odd = ["a", "a\0b", "a\0", '"', "\\", "鍵\U0001f511", "a'b", "", "1"]

    async def story(store, clock):
        for id_ in odd:
            await store.commit(ONE, [put(id_, ABSENT, id_.encode())])
        asked = [*odd, "a\0c", "absent"]
        answers = await asyncio.gather(
            *(store.load_many(ONE, [DocumentKey("thing", id_)]) for id_ in asked)
        )

        found = [answer.documents[0] for answer in answers]
        assert [id_.encode() for id_ in odd] == [each.body for each in found[:-2]]
        assert [None, None] == found[-2:]

    play(tmp_path, story)


def test_an_expired_document_is_absent_among_others(tmp_path: Path) -> None:
    """
    What counts as expired is judged for all that are read together as for one.
    """

    async def story(store, clock):
        soon = clock.now() + timedelta(seconds=10)
        await store.commit(
            ONE, [Put("thing", "a", b"a", ABSENT, {}, soon), put("b", ABSENT)]
        )
        clock.advance(timedelta(seconds=10))

        answers = await asyncio.gather(
            *(store.load_many(ONE, [DocumentKey("thing", id_)]) for id_ in "ab")
        )

        assert [True, False] == [answer.documents == (None,) for answer in answers]
        assert {clock.now()} == {answer.now for answer in answers}

    play(tmp_path, story)


def test_refreshes_of_one_turn_are_one_statement(tmp_path: Path) -> None:
    """
    Documents that are there already, of any tenant, are written together.
    """

    async def story(store, clock):
        for tenant in (ONE, TWO):
            await store.commit(tenant, [put("a", ABSENT), put("b", ABSENT)])
        changes = [
            (tenant, put(id_, await version(store, tenant, id_), b"new"))
            for tenant in (ONE, TWO)
            for id_ in "ab"
        ]
        verbs = traced(store)

        await asyncio.gather(*(store.commit(t, [change]) for t, change in changes))

        assert 1 == verbs.count("WITH new(tenant,")
        for tenant, change in changes:
            found = await store.load_many(tenant, [DocumentKey("thing", change.id)])
            assert b"new" == found.documents[0].body
            assert change.expect < found.documents[0].version

    play(tmp_path, story)


def test_a_conflict_among_refreshes_fails_alone(tmp_path: Path) -> None:
    """
    One stale version, one document asked for twice, one with other indexes: each is judged as
    if it had come alone, and what shared the commit with it is written.
    """

    async def story(store, clock):
        for id_ in "abcd":
            await store.commit(ONE, [put(id_, ABSENT, owner="u")])
        at = {id_: await version(store, ONE, id_) for id_ in "abcd"}

        outcomes = await asyncio.gather(
            store.commit(ONE, [put("a", at["a"], b"good", owner="u")]),
            store.commit(ONE, [put("b", at["b"] - 1, b"stale", owner="u")]),
            store.commit(ONE, [put("c", at["c"], b"first", owner="u")]),
            store.commit(ONE, [put("c", at["c"], b"second", owner="u")]),
            store.commit(ONE, [put("d", at["d"], b"moved", owner="v")]),
            return_exceptions=True,
        )

        lost = [isinstance(outcome, ConflictError) for outcome in outcomes]
        assert [False, True, False, True, False] == lost
        keys = [DocumentKey("thing", id_) for id_ in "abcd"]
        found = (await store.load_many(ONE, keys)).documents
        assert [b"good", b"x", b"first", b"moved"] == [each.body for each in found]
        moved = await store.find(ONE, "thing", ("owner", "v"))
        assert ["d"] == [each.id for each in moved]
        assert len({each.version for each in found if each.body != b"x"}) >= 2

    play(tmp_path, story)


def test_questions_of_a_closed_store_all_fail(tmp_path: Path) -> None:
    """
    Whoever asks together fails together, each with an error of its own.
    """

    async def story(store, clock):
        await store.close()
        late = await asyncio.gather(
            *(store.load_many(ONE, [DocumentKey("thing", id_)]) for id_ in "ab"),
            return_exceptions=True,
        )

        assert all(isinstance(each, StoreError) for each in late)
        assert late[0] is not late[1]

    play(tmp_path, story)


def test_a_cancelled_question_takes_nothing_from_others(tmp_path: Path) -> None:
    """
    A task that goes away while its question waits leaves the others theirs.
    """

    async def story(store, clock):
        await store.commit(ONE, [put("a", ABSENT)])
        one, other = (
            asyncio.ensure_future(store.load_many(ONE, [DocumentKey("thing", "a")]))
            for _ in range(2)
        )
        await asyncio.sleep(0)
        one.cancel()

        assert b"x" == (await other).documents[0].body
        with pytest.raises(asyncio.CancelledError):
            await one

    play(tmp_path, story)
