"""
What every store must do while many use it at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from itertools import chain
from pathlib import Path

import pytest

from kagimori.errors import ConflictError, StoreError
from kagimori.storage.store import ABSENT, DocumentKey, Put, Store
from kagimori.testing.clock import FixedClock
from kagimori.testing.conformance.counting import TENANT, increment, number
from kagimori.testing.conformance.store_stage import StoreStage


class StoreRaces(StoreStage):
    """
    Many tasks and threads on one store.
    """

    def test_64_tasks_lose_no_increment(self, tmp_path: Path) -> None:
        """
        Many tasks that read, decide and commit the same document all count.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            async def task() -> list[int]:
                return [await increment(store) for _ in range(8)]

            answers = await asyncio.gather(*(task() for _ in range(64)))

            assert 64 * 8 == await number(store)
            assert list(range(1, 64 * 8 + 1)) == sorted(chain.from_iterable(answers))

        self.play(tmp_path, story)

    def test_of_64_creators_one_wins(self, tmp_path: Path) -> None:
        """
        Where many make the same document at once, exactly one does, and it is the one kept.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            async def create(who: int) -> int | None:
                try:
                    await store.commit(TENANT, [Put("note", "1", b"%d" % who, ABSENT)])
                except ConflictError:
                    return None
                return who

            answers = await asyncio.gather(*(create(who) for who in range(64)))
            loaded = await store.load_many(TENANT, [DocumentKey("note", "1")])

            winners = [who for who in answers if who is not None]
            assert loaded.documents[0] is not None
            assert [int(loaded.documents[0].body)] == winners

        self.play(tmp_path, story)

    def test_a_conflict_fails_alone(self, tmp_path: Path) -> None:
        """
        Of many commits at once, those that conflict fail and all the others are written.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            await store.commit(TENANT, [Put("note", "taken", b"", ABSENT)])

            async def commit(which: int) -> bool:
                changes = [Put("note", f"a{which:02}", b"", ABSENT)]
                if which % 3 == 0:
                    changes.append(Put("note", "taken", b"", ABSENT))
                try:
                    await store.commit(TENANT, changes)
                except ConflictError:
                    return False
                return True

            answers = await asyncio.gather(*(commit(which) for which in range(48)))
            found = [document.id for document in await store.find(TENANT, "note")]

            expected = [which % 3 != 0 for which in range(48)]
            assert expected == answers
            written = [f"a{which:02}" for which in range(48) if which % 3]
            assert [*written, "taken"] == found

        self.play(tmp_path, story)

    def test_threads_with_loops_of_their_own_share_a_store(
        self, tmp_path: Path
    ) -> None:
        """
        Event loops in several threads read and write one store, and lose nothing.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            failures: list[BaseException] = []

            async def tasks() -> None:
                async def task() -> None:
                    for _ in range(5):
                        await increment(store)
                        await store.find(TENANT, "number", ("parity", "1"))
                        await store.count(TENANT, "number")

                await asyncio.gather(*(task() for _ in range(4)))

            def thread() -> None:
                try:
                    asyncio.run(tasks())
                except BaseException as exc:  # noqa: BLE001 - told in the other thread
                    failures.append(exc)

            threads = [threading.Thread(target=thread) for _ in range(6)]
            for each in threads:
                each.start()
            for each in threads:
                await asyncio.to_thread(each.join)

            assert [] == failures
            assert 6 * 4 * 5 == await number(store)

        self.play(tmp_path, story)

    def test_a_cancelled_commit_disturbs_nobody(self, tmp_path: Path) -> None:
        """
        Tasks that give up while they wait leave a store that works for all others.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            given_up = [
                asyncio.ensure_future(
                    store.commit(TENANT, [Put("note", f"x{n}", b"", ABSENT)])
                )
                for n in range(20)
            ]
            kept = [
                asyncio.ensure_future(
                    store.commit(TENANT, [Put("note", f"y{n}", b"", ABSENT)])
                )
                for n in range(20)
            ]
            await asyncio.sleep(0)
            for task in given_up:
                task.cancel()
            await asyncio.gather(*kept)
            await asyncio.gather(*given_up, return_exceptions=True)

            found = [d.id for d in await store.find(TENANT, "note", after="x~")]
            assert sorted(f"y{n}" for n in range(20)) == found

        self.play(tmp_path, story)

    def test_closing_finishes_what_was_begun(self, tmp_path: Path) -> None:
        """
        Commits taken before the close are answered; after it everything is refused.
        """

        async def story() -> tuple[list[object], Store]:
            store = self.make_store(tmp_path, FixedClock())
            begun = [
                asyncio.ensure_future(
                    store.commit(TENANT, [Put("note", f"{n}", b"", ABSENT)])
                )
                for n in range(50)
            ]
            # Two turns: the tasks begin, and a store that hands over has taken them.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await store.close()
            answers: list[object] = list(await asyncio.gather(*begun))
            await store.close()
            return answers, store

        answers, store = asyncio.run(story())

        assert 50 == len(answers)
        for refused in (
            lambda: store.load_many(TENANT, [DocumentKey("note", "1")]),
            lambda: store.commit(TENANT, [Put("note", "z", b"", ABSENT)]),
            lambda: store.find(TENANT, "note"),
            lambda: store.count(TENANT, "note"),
            store.change_counter,
            store.purge,
        ):
            with pytest.raises(StoreError, match="closed"):
                asyncio.run(_await(refused()))


async def _await(awaitable: Awaitable[object]) -> None:
    await awaitable
