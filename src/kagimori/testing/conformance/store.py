"""
What every `kagimori.storage.store.Store` must do.

Derive from `StoreConformance` in a test file; where a store can be opened more than once, by
several processes, derive from `kagimori.testing.conformance.shared_store.SharedStoreConformance`,
which asks for more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kagimori.storage.store import (
    ABSENT,
    Change,
    Check,
    Delete,
    Document,
    DocumentKey,
    Put,
    Reference,
    Store,
)
from kagimori.testing.clock import FixedClock
from kagimori.testing.conformance.counting import TENANT
from kagimori.testing.conformance.store_lists import StoreLists
from kagimori.testing.conformance.store_races import StoreRaces
from kagimori.testing.conformance.store_stage import (
    HOUR,
    OTHER,
    Key,
    ids,
    load,
    make,
    refuses,
)
from kagimori.testing.conformance.store_time import StoreTime


class StoreConformance(StoreLists, StoreTime, StoreRaces):
    """
    The whole suite; what is here is about single documents, commits and references.
    """

    def test_what_was_put_is_loaded(self, tmp_path: Path) -> None:
        """
        A document comes back with its bytes, a version and its expiry; others are absent.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            expires = clock.now() + HOUR
            body = bytes(range(256))
            await store.commit(TENANT, [Put("note", "1", body, ABSENT, {}, expires)])
            loaded = await store.load_many(
                TENANT, [DocumentKey("note", "2"), DocumentKey("note", "1")]
            )

            missing, found = loaded.documents
            assert missing is None
            assert found is not None
            assert found == Document("note", "1", found.version, body, expires)
            assert found.version > ABSENT
            assert clock.now() == loaded.now

        self.play(tmp_path, story)

    def test_no_keys_are_a_way_to_ask_for_the_time(self, tmp_path: Path) -> None:
        """
        Loading nothing gives nothing, and the store's time.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            loaded = await store.load_many(TENANT, [])

            assert ((), clock.now()) == (loaded.documents, loaded.now)

        self.play(tmp_path, story)

    @pytest.mark.parametrize(
        "id_",
        ["", "'; DROP TABLE document; --", "a\x00b", "a b%_*", "鍵守", "🗝", "x" * 3000],
    )
    def test_an_id_is_any_text(self, tmp_path: Path, id_: str) -> None:
        """
        Ids, tenants and index values are taken as they are, whatever stands in them.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            await store.commit(id_, [Put("note", id_, b"x", ABSENT, {"tag": id_})])
            loaded = await store.load_many(
                id_, [DocumentKey("note", id_), DocumentKey("note", id_ + "\x00")]
            )

            assert [id_, None] == [d and d.id for d in loaded.documents]
            assert [id_] == await ids(store, ("tag", id_), tenant=id_)
            assert [] == await ids(store, ("tag", id_ + "\x00"), tenant=id_)

        self.play(tmp_path, story)

    def test_text_that_is_not_unicode_is_refused(self, tmp_path: Path) -> None:
        """
        A lone surrogate is refused before it reaches the database, which goes on.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            with pytest.raises(ValueError, match="Unicode"):
                await store.load_many(TENANT, [DocumentKey("note", "\ud800")])
            with pytest.raises(ValueError, match="Unicode"):
                await store.commit(TENANT, [Put("note", "\ud800", b"x", ABSENT)])

            assert 1 == len(await make(store, Put("note", "1", b"x", ABSENT)))

        self.play(tmp_path, story)

    def test_a_put_replaces_what_it_expects(self, tmp_path: Path) -> None:
        """
        A write at the version that was read succeeds once; the second one conflicts.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            (first,) = await make(store, Put("note", "1", b"1", ABSENT))
            await store.commit(TENANT, [Put("note", "1", b"2", first.version)])
            await refuses(store, Put("note", "1", b"3", first.version))

            second = await load(store, "1")
            assert second is not None
            assert b"2" == second.body
            assert second.version != first.version

        self.play(tmp_path, story)

    def test_a_put_that_expects_none_makes_only_the_first(self, tmp_path: Path) -> None:
        """
        Expecting none where one is, or a version where none is, conflicts.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            await store.commit(TENANT, [Put("note", "1", b"first", ABSENT)])
            await refuses(store, Put("note", "1", b"second", ABSENT))
            await refuses(store, Put("note", "2", b"second", 1))

            found = await load(store, "1")
            assert found is not None
            assert b"first" == found.body
            assert await load(store, "2") is None

        self.play(tmp_path, story)

    def test_a_delete_takes_what_it_expects(self, tmp_path: Path) -> None:
        """
        A stale delete conflicts; one at the right version leaves nothing behind.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            (found,) = await make(store, Put("note", "1", b"1", ABSENT, {"a": "b"}))
            await refuses(store, Delete("note", "1", found.version + 1))
            await refuses(store, Delete("note", "1", ABSENT))
            await store.commit(TENANT, [Delete("note", "1", found.version)])

            assert await load(store, "1") is None
            assert [] == await ids(store)
            assert [] == await ids(store, ("a", "b"))
            await refuses(store, Delete("note", "1", found.version))
            await store.commit(TENANT, [Delete("note", "1", ABSENT)])

        self.play(tmp_path, story)

    def test_a_check_guards_a_commit(self, tmp_path: Path) -> None:
        """
        A commit goes through while what it checks is unchanged, and not after.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            (ring,) = await make(store, Put("note", "ring", b"1", ABSENT))
            held = Check("note", "ring", ring.version)
            none = Check("note", "nobody", ABSENT)
            await store.commit(TENANT, [held, none, Put("note", "1", b"x", ABSENT)])
            await store.commit(TENANT, [held])
            assert ring == await load(store, "ring")

            await store.commit(TENANT, [Put("note", "ring", b"2", ring.version)])
            await refuses(store, held, Put("note", "2", b"x", ABSENT))
            await refuses(store, Put("note", "2", b"x", ABSENT), held)
            await refuses(store, Check("note", "1", ABSENT))
            assert ["1", "ring"] == await ids(store)

        self.play(tmp_path, story)

    def test_a_commit_is_all_or_nothing(self, tmp_path: Path) -> None:
        """
        Where one of several changes conflicts, no document, index or counter moves.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            old, other = await make(
                store,
                Put("note", "1", b"old", ABSENT, {"tag": "old"}),
                Put("note", "2", b"old", ABSENT),
            )
            counter = await store.change_counter()
            await refuses(
                store,
                Put("note", "1", b"new", old.version, {"tag": "new"}, announce=True),
                Put("note", "3", b"new", ABSENT, {"tag": "new"}, announce=True),
                Delete("note", "2", other.version + 1000),
            )

            assert old == await load(store, "1")
            assert other == await load(store, "2")
            assert ["1"] == await ids(store, ("tag", "old"))
            assert [] == await ids(store, ("tag", "new"))
            assert counter == await store.change_counter()

        self.play(tmp_path, story)

    def test_a_commit_names_each_document_once(self, tmp_path: Path) -> None:
        """
        Two changes of one document in a commit contradict each other and are refused.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            twice: list[Change] = [
                Check("note", "1", ABSENT),
                Put("note", "1", b"x", ABSENT),
            ]
            with pytest.raises(ValueError, match="once"):
                await store.commit(TENANT, twice)

            await store.commit(TENANT, twice[1:])
            assert ["1"] == await ids(store)

        self.play(tmp_path, story)

    def test_a_version_never_comes_back(self, tmp_path: Path) -> None:
        """
        Made, changed and deleted any number of times, an id never has a version again.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            seen = []
            for _ in range(20):
                (made,) = await make(store, Put("note", "1", b"1", ABSENT))
                (changed,) = await make(store, Put("note", "1", b"2", made.version))
                seen += [made.version, changed.version]
                await store.commit(TENANT, [Delete("note", "1", changed.version)])

            assert len(seen) == len(set(seen))
            assert ABSENT not in seen

        self.play(tmp_path, story)

    def test_tenants_do_not_see_each_other(self, tmp_path: Path) -> None:
        """
        Loading, references, listing, counting and changing stay within one tenant.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            mine = Put("note", "1", b"mine", ABSENT, {"friend": "2"})
            await store.commit(TENANT, [mine])
            theirs = Put("note", "2", b"theirs", ABSENT, {"friend": "2"})
            await store.commit(OTHER, [theirs])
            loaded = await store.load_many(
                TENANT,
                [
                    DocumentKey("note", "1"),
                    Reference("note", 0, "friend"),
                    DocumentKey("note", "2"),
                ],
            )
            found = await load(store, "2", tenant=OTHER)

            assert [True, False, False] == [d is not None for d in loaded.documents]
            assert found is not None
            await refuses(store, Delete("note", "2", found.version))
            await store.commit(TENANT, [Put("note", "2", b"mine", ABSENT)])
            assert found == await load(store, "2", tenant=OTHER)
            assert ["1"] == await ids(store, ("friend", "2"))
            assert 2 == await store.count(TENANT, "note")
            assert 1 == await store.count(OTHER, "note", ("friend", "2"))
            assert 0 == await store.count("nobody", "note")

        self.play(tmp_path, story)

    # --- references --------------------------------------------------------------------------

    def test_references_are_followed_in_one_read(self, tmp_path: Path) -> None:
        """
        A family brings its user and, through it, a client; a loose end brings nothing.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            await store.commit(
                TENANT,
                [
                    Put("family", "f", b"f", ABSENT, {"user": "u", "session": "gone"}),
                    Put("user", "u", b"u", ABSENT, {"r:1": "c"}),
                    Put("client", "c", b"c", ABSENT),
                ],
            )
            loaded = await store.load_many(
                TENANT,
                [
                    DocumentKey("family", "f"),
                    Reference("user", 0, "user"),
                    Reference("session", 0, "session"),
                    Reference("consent", 0, "consent"),
                    Reference("client", 1, "r:1"),
                    Reference("client", 2, "client"),
                    DocumentKey("family", "none"),
                    Reference("user", 6, "user"),
                ],
            )

            bodies = [d and d.body for d in loaded.documents]
            assert [b"f", b"u", None, None, b"c", None, None, None] == bodies

        self.play(tmp_path, story)

    def test_a_reference_follows_the_index_field_as_it_is_now(
        self, tmp_path: Path
    ) -> None:
        """
        A changed field leads to the new document, a removed one nowhere.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            keys: list[Key] = [
                DocumentKey("family", "f"),
                Reference("user", 0, "user"),
            ]
            users = [Put("user", name, name.encode(), ABSENT) for name in ("u", "v")]
            await store.commit(TENANT, users)
            seen, expect = [], ABSENT
            for indexes in ({"user": "u"}, {"user": "v"}, {"other": "v"}, {}):
                await store.commit(TENANT, [Put("family", "f", b"", expect, indexes)])
                family, user = (await store.load_many(TENANT, keys)).documents
                assert family is not None
                expect = family.version
                seen.append(user and user.id)

            assert ["u", "v", None, None] == seen

        self.play(tmp_path, story)

    def test_a_reference_names_an_earlier_key(self, tmp_path: Path) -> None:
        """
        Forward references, self-references and positions that are none are refused.
        """

        async def story(store: Store, clock: FixedClock) -> None:
            def keys(of: int) -> list[Key]:
                return [DocumentKey("a", "1"), Reference("b", of, "x")]

            for of in (1, 2, -1):
                with pytest.raises(ValueError, match="earlier"):
                    await store.load_many(TENANT, keys(of))

            assert (None, None) == (await store.load_many(TENANT, keys(0))).documents

        self.play(tmp_path, story)
