"""
Writers that die at any statement of a commit, or are overtaken there.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from kagimori.errors import ConflictError, StoreError
from kagimori.ring_stores import sql
from kagimori.testing.conformance.key_store import ONE, STATE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import change, named, revocation
from tests.ring_stores.sql_watching import Died, watched
from tests.ring_stores.sql_worlds import World, world

KINDS = ("sqlite", "postgresql", "mariadb")
NEWER = revocation("11111111-1111-4111-8111-111111111111", "newer")
MOST_STATEMENTS = 60
SENT = {"postgresql": b"Q\0\0\0\x0bCOMMIT", "mariadb": b"\x03COMMIT"}


@pytest.fixture(params=KINDS)
def place(request, tmp_path) -> World:
    return world(request.param, tmp_path, request)


def test_a_writer_that_dies_at_any_statement_leaves_old_or_new(place):
    """
    K8: whatever statement of a commit is the last one, the ring is old or new, and whole.
    """
    first = place.store()
    for at in range(MOST_STATEMENTS):
        before = first.load()
        change(first, (ONE, TWO), tuple(e.name for e in before.elements))

        def die(connection: Any) -> None:
            connection.close()
            raise Died

        store, watch = watched(place, at, die)
        try:
            change(store, (NEWER, named("three")), (TWO.name,))
        except Died:
            assert of(ONE, TWO) == meaning(first.load())
        else:
            assert of(NEWER, named("three")) == meaning(first.load())
            assert watch.is_over
            break
        finally:
            store.close()
    else:
        pytest.fail("a commit has fewer statements")


def test_ef_core_may_insert_at_any_statement(place):
    """
    EF Core's insert between any two statements of ours succeeds, and loses nothing of ours.
    """
    first = place.store()
    first.commit([ONE], (), None)
    refused = []
    for at in range(MOST_STATEMENTS):
        theirs = named(f"theirs-{at}")

        def insert(_: Any, theirs: Any = theirs) -> None:
            try:
                place.insert(theirs.name, theirs.xml)
            except sqlite3.OperationalError:
                # SQLite has one writer at a time: EF Core would wait for its turn.
                assert place.kind == "sqlite"
                refused.append(theirs.name)

        store, watch = watched(place, at, insert)
        mine = named(f"mine-{at}")
        change(store, (mine,), ())
        names = set(meaning(first.load()))
        if watch.is_over:
            store.close()
            break
        assert mine.name in names
        assert (theirs.name in names) is (theirs.name not in refused)
        store.close()
    else:
        pytest.fail("a commit has fewer statements")


def test_another_writer_at_any_statement_is_not_overwritten(place, monkeypatch):
    """
    Another commit of ours between any two statements: one of the two conflicts, none is lost.
    """
    monkeypatch.setattr(sql, "_READ_SECONDS", 0.2)
    monkeypatch.setattr("kagimori.ring_stores.sql_dialects.STATEMENT_SECONDS", 1)
    first = place.store()
    first.commit([ONE, STATE], (), None)
    for at in range(MOST_STATEMENTS):
        theirs, mine = named(f"theirs-{at}"), named(f"mine-{at}")
        won: list[str] = []

        def commit(_: Any, theirs: Any = theirs, won: list[str] = won) -> None:
            other = place.store()
            try:
                other.commit([theirs], (), other.load().version)
                won.append(theirs.name)
                # One more, so that the id that was free next is taken and free again.
                other.commit([named("again")], (), other.load().version)
            except StoreError:
                # It came too late, or it has to wait for the writer before it.
                pass
            finally:
                other.close()

        store, watch = watched(place, at, commit)
        version = first.load().version
        try:
            store.commit([mine], (), version)
            won.append(mine.name)
        except ConflictError:
            pass
        finally:
            store.close()
        names = set(meaning(first.load()))
        assert set(won) == {theirs.name, mine.name} & names
        states = [t for _, _, t in place.rows() if "urn:kagimori" in t]
        assert 1 == len(states)
        if watch.is_over:
            assert [mine.name] == won
            break
        assert 1 == len(won)
    else:
        pytest.fail("a commit has fewer statements")
