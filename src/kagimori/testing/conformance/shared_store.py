"""
What a store must do besides that can be opened more than once: by processes, and after a crash.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

from kagimori.storage.store import ABSENT, DocumentKey, Put, Store
from kagimori.testing.clock import FixedClock
from kagimori.testing.conformance.counting import TENANT, increment, number
from kagimori.testing.conformance.store import StoreConformance
from kagimori.testing.conformance.store_stage import HOUR, ids, load, make
from kagimori.testing.conformance.store_worker import PAIRS, opened, pair_keys


class SharedStoreConformance(StoreConformance):
    """
    Several stores on the same data, in one process and in several.

    Attributes:
        opener: ``module:function``; the function takes the folder and opens the store in it,
            with the system's clock. Worker processes call it.
        kills: how many processes the crash test kills.
    """

    opener: ClassVar[str]
    kills: ClassVar[int] = 30

    def test_what_was_committed_outlives_the_store(self, tmp_path: Path) -> None:
        """
        Opened again, a store holds the same documents, versions, counter and time floor.
        """

        async def first(store: Store, clock: FixedClock) -> None:
            put = Put("note", "1", b"x", ABSENT, {"a": "b"}, clock.now() + HOUR)
            await make(store, put, Put("note", "2", b"y", ABSENT, announce=True))
            kept.append((await load(store, "1"), await store.change_counter()))

        async def second(store: Store, clock: FixedClock) -> None:
            clock.advance(-HOUR)
            kept.append((await load(store, "1"), await store.change_counter()))
            kept.append(await ids(store, ("a", "b")))
            kept.append((await store.load_many(TENANT, [])).now - clock.now())

        kept: list[object] = []
        self.play(tmp_path, first)
        self.play(tmp_path, second)

        assert kept[0] == kept[1]
        assert ["1"] == kept[2]
        assert HOUR.total_seconds() - 5 == kept[3].total_seconds()  # type: ignore[attr-defined]

    def test_two_stores_see_each_others_commits(self, tmp_path: Path) -> None:
        """
        What one commits the other loads at once, conflicts with, and is told of.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            other = self.make_store(tmp_path, clock)
            try:
                before = await other.change_counter()
                (made,) = await make(store, Put("note", "1", b"x", ABSENT))
                assert made == await load(other, "1")
                assert before == await other.change_counter()

                put = Put("note", "1", b"y", made.version, announce=True)
                await other.commit(TENANT, [put])
                seen = await load(store, "1")
                assert seen is not None
                assert b"y" == seen.body
                assert seen.version != made.version
                assert before != await store.change_counter()
                assert before != await other.change_counter()
            finally:
                await other.close()

        self.play(tmp_path, story)

    def test_processes_lose_no_increment(self, tmp_path: Path) -> None:
        """
        Four processes and this one count in one document: every one of them counts.
        """

        async def story() -> int:
            store = opened(self.opener, tmp_path)
            try:
                workers = [self._worker(tmp_path, "increment", "60") for _ in range(4)]
                for _ in range(60):
                    await increment(store)
                for worker in workers:
                    _, errors = await asyncio.to_thread(worker.communicate)
                    assert (0, b"") == (worker.returncode, errors)
                return await number(store)
            finally:
                await store.close()

        assert 5 * 60 == asyncio.run(story())

    def test_processes_open_an_empty_place_at_once(self, tmp_path: Path) -> None:
        """
        Eight processes that find nothing there make one store, and all work in it.
        """
        workers = [self._worker(tmp_path, "increment", "5") for _ in range(8)]
        for worker in workers:
            _, errors = worker.communicate()
            assert (0, b"") == (worker.returncode, errors)

        async def story() -> int:
            store = opened(self.opener, tmp_path)
            try:
                return await number(store)
            finally:
                await store.close()

        assert 8 * 5 == asyncio.run(story())

    def test_a_kill_loses_nothing_and_leaves_nothing_half(self, tmp_path: Path) -> None:
        """
        All that was acknowledged survives ``kill -9``, and no commit is there by half (K8).

        Two processes at a time die in the middle of commits of two documents each.
        """
        acknowledged: dict[str, int] = {}
        killed = 0
        while killed < self.kills:
            names = [f"{killed % 4}", f"{killed % 4 + 4}"]
            workers = [self._worker(tmp_path, "pairs", name) for name in names]
            for worker in workers:
                assert worker.stdout is not None
                # Its first word comes when it is at work; the kill at any instant after.
                first = worker.stdout.readline()
                assert first, worker.communicate()
                _take(acknowledged, first)
            for worker in workers:
                time.sleep(random.uniform(0, 0.03))  # noqa: S311
                worker.kill()
            for worker in workers:
                said, errors = worker.communicate()
                assert b"" == errors
                _take(acknowledged, said)
                killed += 1
            asyncio.run(self._is_whole(tmp_path, names, acknowledged))

        assert len(acknowledged) >= PAIRS
        assert max(acknowledged.values()) > 1

    async def _is_whole(
        self, place: Path, names: list[str], acknowledged: dict[str, int]
    ) -> None:
        store = opened(self.opener, place)
        try:
            for pair in (f"{name}.{n}" for name in names for n in range(PAIRS)):
                keys: list[DocumentKey] = list(pair_keys(pair))
                left, right = (await store.load_many(TENANT, keys)).documents
                assert (left and left.body) == (right and right.body), pair
                kept = 0 if left is None else int(left.body.split()[0])
                assert kept >= acknowledged.get(pair, 0), pair
                index = ("number", str(kept))
                found = await store.find(TENANT, "pair", index, limit=1000)
                both = {key.id for key in keys} if kept else set()
                assert both <= {document.id for document in found}, pair
        finally:
            await store.close()

    def _worker(self, place: Path, verb: str, argument: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - ourselves
            [
                *(sys.executable, "-m", "kagimori.testing.conformance.store_worker"),
                *(verb, self.opener, str(place), argument),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )


def _take(acknowledged: dict[str, int], said: bytes) -> None:
    # The last line may have been cut short by the kill.
    for line in said[: said.rfind(b"\n") + 1].splitlines():
        pair, _, number_ = line.decode().partition(" ")
        if not number_.isdecimal():
            # Tasks of one worker write at once: a line that ran together acknowledges nothing.
            continue
        acknowledged[pair] = max(acknowledged.get(pair, 0), int(number_))
