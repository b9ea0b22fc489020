"""
What every store must do with time: expiry, its own clock, and telling of changes.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from kagimori.storage.store import (
    ABSENT,
    Check,
    Delete,
    DocumentKey,
    Put,
    Reference,
    Store,
)
from kagimori.testing.clock import FixedClock
from kagimori.testing.conformance.counting import TENANT
from kagimori.testing.conformance.store_stage import (
    HOUR,
    TICK,
    Key,
    StoreStage,
    ids,
    load,
    make,
    refuses,
)


class StoreTime(StoreStage):
    """
    An expired document is an absent one.
    """

    def test_a_document_is_there_until_the_instant_it_expires(
        self, tmp_path: Path
    ) -> None:
        """
        To the microsecond: there just before its expiry, absent at it, everywhere.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            expires = clock.now() + HOUR
            brief = Put("note", "1", b"1", ABSENT, {"tag": "t", "next": "2"}, expires)
            lasting = Put("note", "2", b"2", ABSENT, {"tag": "t"})
            await make(store, brief, lasting)
            keys: list[Key] = [
                DocumentKey("note", "1"),
                Reference("note", 0, "next"),
            ]

            async def seen() -> tuple[object, ...]:
                loaded = await store.load_many(TENANT, keys)
                return (
                    [document is not None for document in loaded.documents],
                    await ids(store),
                    await ids(store, ("tag", "t")),
                    await ids(store, tenant=None),
                    await store.count(TENANT, "note"),
                    await store.count(TENANT, "note", ("tag", "t")),
                )

            clock.set(expires - TICK)
            both = ["1", "2"]
            assert ([True, True], both, both, both, 2, 2) == await seen()

            clock.set(expires)
            rest = ["2"]
            assert ([False, False], rest, rest, rest, 1, 1) == await seen()

        self.play(tmp_path, story)

    def test_an_expired_document_may_be_made_again(self, tmp_path: Path) -> None:
        """
        Over an expired document a write must expect none; its index fields are gone.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            expires = clock.now() + HOUR
            brief = Put("note", "1", b"1", ABSENT, {"tag": "old"}, expires)
            (made,) = await make(store, brief)
            clock.set(expires)
            await refuses(store, Put("note", "1", b"2", made.version))
            await refuses(store, Delete("note", "1", made.version))
            await refuses(store, Check("note", "1", made.version))
            await store.commit(TENANT, [Check("note", "1", ABSENT)])
            await store.commit(TENANT, [Delete("note", "1", ABSENT)])
            (again,) = await make(store, Put("note", "1", b"2", ABSENT, {"tag": "new"}))

            assert b"2" == again.body
            assert again.expires is None
            assert again.version != made.version
            assert [] == await ids(store, ("tag", "old"))
            assert ["1"] == await ids(store, ("tag", "new"))

        self.play(tmp_path, story)

    def test_a_write_moves_the_expiry(self, tmp_path: Path) -> None:
        """
        Each write sets the expiry anew: later, sooner, or never.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            start, expect, seen = clock.now(), ABSENT, []
            for expires in (start + HOUR, start + 9 * HOUR, start + TICK, None):
                put = Put("note", "1", b"", expect, {"tag": "t"}, expires)
                (made,) = await make(store, put)
                expect = made.version
                seen.append(made.expires)
            clock.advance(100 * HOUR)
            await store.purge()

            assert [start + HOUR, start + 9 * HOUR, start + TICK, None] == seen
            assert await load(store, "1") is not None

        self.play(tmp_path, story)

    def test_a_document_may_expire_before_it_is_written(self, tmp_path: Path) -> None:
        """
        A document whose expiry is past is written and absent; the next one expects none.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            past = clock.now() - HOUR
            for _ in range(2):
                await store.commit(
                    TENANT, [Put("note", "1", b"", ABSENT, {"a": "b"}, past)]
                )

            assert await load(store, "1") is None
            assert 1 == await store.purge()
            assert 0 == await store.purge()

        self.play(tmp_path, story)

    def test_a_purge_takes_what_has_expired_in_bounded_steps(
        self, tmp_path: Path
    ) -> None:
        """
        A purge deletes as many as it is told at most, says how many, and spares the living.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            start = clock.now()
            for n in range(25):
                await make(
                    store,
                    Put("note", f"dead {n}", b"", ABSENT, {"t": "x"}, start + HOUR),
                    Put("note", f"live {n}", b"", ABSENT, {"t": "x"}, start + 9 * HOUR),
                    Put("note", f"ever {n}", b"", ABSENT, {"t": "x"}),
                )
            assert 0 == await store.purge()
            clock.advance(3 * HOUR)
            purged = [await store.purge(10) for _ in range(4)]

            assert [10, 10, 5, 0] == purged
            assert 50 == await store.count(TENANT, "note")
            assert 50 == await store.count(TENANT, "note", ("t", "x"))
            clock.set(start)
            assert 50 == len(await store.find(TENANT, "note"))

        self.play(tmp_path, story)

    def test_the_stores_time_hardly_goes_back(self, tmp_path: Path) -> None:
        """
        Clock set back: the time is never earlier than the last commit minus 5 s (decision 11).

        So in reads, in commits and for expiry; then it goes on with the clock.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            start = clock.now()
            expires = start - timedelta(seconds=5)
            past = [Put("note", "past", b"", ABSENT, {}, expires)]
            soon = [Put("note", "soon", b"", ABSENT, {}, expires + TICK)]
            committed = await store.commit(TENANT, [Put("note", "1", b"", ABSENT)])
            clock.set(start - HOUR)
            floor = (await store.load_many(TENANT, [])).now
            await store.commit(TENANT, past)
            later = await store.commit(TENANT, soon)

            assert start == committed
            assert start - timedelta(seconds=5) == floor == later
            assert await load(store, "past") is None
            assert await load(store, "soon") is not None
            assert ["1", "soon"] == await ids(store)

            clock.set(start - timedelta(seconds=4))
            assert clock.now() == (await store.load_many(TENANT, [])).now
            clock.set(start + HOUR)
            assert clock.now() == (await store.load_many(TENANT, [])).now

        self.play(tmp_path, story)

    def test_the_counter_moves_with_announced_changes_only(
        self, tmp_path: Path
    ) -> None:
        """
        A commit that announces moves the counter; quiet ones, conflicts and purges do not.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            seen = [await store.change_counter()]

            async def moved(*changes: Put | Delete | Check) -> bool:
                await store.commit(TENANT, changes)
                seen.append(await store.change_counter())
                return seen[-1] != seen[-2]

            expires = clock.now() + HOUR
            assert not await moved(Put("note", "1", b"", ABSENT))
            assert await moved(Put("note", "2", b"", ABSENT, announce=True))
            assert await moved(
                Put("note", "3", b"", ABSENT, {}, expires, announce=True),
                Put("note", "4", b"", ABSENT),
            )
            two = await load(store, "2")
            assert two is not None
            assert not await moved(Check("note", "2", two.version))
            await refuses(store, Put("note", "2", b"", ABSENT, announce=True))
            clock.advance(HOUR * 100)
            await store.purge()
            assert not await moved()
            assert await moved(Delete("note", "2", two.version, announce=True))
            assert len(set(seen)) == 4

        self.play(tmp_path, story)

    def test_a_time_without_a_zone_is_refused(self, tmp_path: Path) -> None:
        """
        An expiry is aware: a naive one means another instant on each machine.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            naive = clock.now().replace(tzinfo=None)
            with pytest.raises(ValueError, match="aware"):
                await store.commit(TENANT, [Put("note", "1", b"", ABSENT, {}, naive)])

            await make(store, Put("note", "1", b"", ABSENT, {}, clock.now() + HOUR))
            assert ["1"] == await ids(store)

        self.play(tmp_path, story)
