"""
What every store must do when documents are listed and counted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kagimori.storage.store import ABSENT, Document, Put, Store
from kagimori.testing.clock import FixedClock
from kagimori.testing.conformance.counting import TENANT
from kagimori.testing.conformance.store_stage import (
    OTHER,
    StoreStage,
    ids,
    make,
)


async def _pages(
    store: Store, tenant: str | None, index: tuple[str, str] | None, limit: int
) -> list[list[Document]]:
    pages: list[list[Document]] = []
    after = None
    while page := await store.find(tenant, "note", index, limit=limit, after=after):
        pages.append(list(page))
        after = page[-1].id
    return pages


class StoreLists(StoreStage):
    """
    Order, pages, index fields, all tenants.
    """

    def test_a_list_is_in_the_order_of_ids(self, tmp_path: Path) -> None:
        """
        Documents of a kind are listed whole and by their ids' code points, other kinds not.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            names = ["b", "a", "Z", "é", "aa", "鍵", "", "1", "🗝"]
            await make(store, *(Put("note", name, b"", ABSENT) for name in names))
            await make(store, Put("other", "x", b"", ABSENT))
            found = await store.find(TENANT, "note")

            assert sorted(names) == [document.id for document in found]
            assert {"note"} == {document.kind for document in found}
            assert () == await store.find(TENANT, "nothing")

        self.play(tmp_path, story)

    @pytest.mark.parametrize("index", [None, ("tag", "yes")])
    def test_pages_bring_everything_once(
        self, tmp_path: Path, index: tuple[str, str] | None
    ) -> None:
        """
        Page after page brings each document once and in order, with an index and without.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            names = [f"{n:03}" for n in range(25)]
            for name in reversed(names):
                await make(store, Put("note", name, b"", ABSENT, {"tag": "yes"}))
            await make(store, Put("note2", "x", b"", ABSENT, {"tag": "yes"}))
            pages = await _pages(store, TENANT, index, 10)

            assert [10, 10, 5] == [len(page) for page in pages]
            assert names == [found.id for page in pages for found in page]

        self.play(tmp_path, story)

    def test_a_page_has_bounds(self, tmp_path: Path) -> None:
        """
        A page holds 1 to 1000 documents; anything else is refused.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            await make(store, *(Put("note", f"{n}", b"", ABSENT) for n in range(3)))
            for limit in (0, -1, 1001):
                with pytest.raises(ValueError, match="1000"):
                    await store.find(TENANT, "note", limit=limit)

            assert 1 == len(await store.find(TENANT, "note", limit=1))
            assert 3 == len(await store.find(TENANT, "note", limit=1000))

        self.play(tmp_path, story)

    def test_an_index_finds_by_field_and_value(self, tmp_path: Path) -> None:
        """
        Only documents whose field has the value are found, and each has several fields.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            await make(
                store,
                Put("note", "1", b"", ABSENT, {"user": "u", "client": "c"}),
                Put("note", "2", b"", ABSENT, {"user": "u", "client": "d"}),
                Put("note", "3", b"", ABSENT, {"user": "c"}),
                Put("note", "4", b"", ABSENT),
            )

            assert ["1", "2"] == await ids(store, ("user", "u"))
            assert ["1"] == await ids(store, ("client", "c"))
            assert [] == await ids(store, ("client", "u"))
            assert [] == await ids(store, ("nothing", "u"))
            assert 2 == await store.count(TENANT, "note", ("user", "u"))
            assert 4 == await store.count(TENANT, "note")
            assert 0 == await store.count(TENANT, "note", ("user", ""))

        self.play(tmp_path, story)

    def test_a_put_replaces_all_index_fields(self, tmp_path: Path) -> None:
        """
        A new value is found there only, a field left out nowhere, one that stays still.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            before = {"user": "u", "tag": "old", "kept": "k"}
            after = {"kept": "k", "user": "v", "new": "n"}
            (made,) = await make(store, Put("note", "1", b"", ABSENT, before))
            (same,) = await make(store, Put("note", "1", b"2", made.version, before))
            assert ["1"] == await ids(store, ("tag", "old"))
            await make(store, Put("note", "1", b"3", same.version, after))

            for field, value in before.items():
                expected = ["1"] if after.get(field) == value else []
                assert expected == await ids(store, (field, value))
            for field, value in after.items():
                assert ["1"] == await ids(store, (field, value))

        self.play(tmp_path, story)

    def test_no_tenant_means_all_of_them(self, tmp_path: Path) -> None:
        """
        A list through all tenants brings everybody's documents in the order of ids.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            assert () == await store.find(None, "note")
            for n in range(9):
                tag = {"tag": "odd"} if n % 2 else {}
                put = Put("note", f"{n}", b"", ABSENT, tag)
                await make(store, put, tenant=f"tenant {n % 4}")
            await make(store, Put("other", "x", b"", ABSENT), tenant="zzz")

            assert [f"{n}" for n in range(9)] == await ids(store, tenant=None)
            assert ["1", "3", "5", "7"] == await ids(store, ("tag", "odd"), tenant=None)
            pages = await _pages(store, None, None, 4)
            assert [4, 4, 1] == [len(page) for page in pages]

        self.play(tmp_path, story)

    @pytest.mark.parametrize("index", [None, ("tag", "yes")])
    def test_ids_that_tenants_share_come_together(
        self, tmp_path: Path, index: tuple[str, str] | None
    ) -> None:
        """
        Nothing is lost between two pages, though several tenants have the id they part at.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            for tenant in (TENANT, OTHER, "initech"):
                for id_ in ("cookie", "signing", "tag"):
                    put = Put("note", id_, tenant.encode(), ABSENT, {"tag": "yes"})
                    await make(store, put, tenant=tenant)
            pages = await _pages(store, None, index, 2)

            assert [3, 3, 3] == [len(page) for page in pages]
            everybody = {b"acme", b"globex", b"initech"}
            for page in pages:
                assert everybody == {found.body for found in page}

        self.play(tmp_path, story)
