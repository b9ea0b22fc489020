"""
The schema moves forward only, and two versions of the program run side by side (decision 12).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from kagimori.clock import SystemClock
from kagimori.errors import SchemaError, StoreError
from kagimori.storage import sqlite_schema
from kagimori.storage.sqlite import SqliteStore
from kagimori.storage.sqlite_connection import Database
from kagimori.storage.sqlite_schema import Migration, shipped
from kagimori.storage.store import ABSENT, DocumentKey, Put, Store
from kagimori.testing.conformance.counting import increment
from tests.storage import schema_1

NAME = "kagimori.db"


def level(path: Path) -> tuple[int, int]:
    """
    Return what a database says of its schema.
    """
    connection = sqlite3.connect(path)
    query = "SELECT schema, oldest_reader FROM schema_level"
    answer: tuple[int, int] = connection.execute(query).fetchone()
    connection.close()
    return answer


def set_level(path: Path, schema: int, oldest_reader: int) -> None:
    """
    Make a database say that a later program wrote it.
    """
    connection = sqlite3.connect(path)
    connection.execute("UPDATE schema_level SET schema = ?", (schema,))
    connection.execute("UPDATE schema_level SET oldest_reader = ?", (oldest_reader,))
    connection.commit()
    connection.close()


def indexes(path: Path) -> set[str]:
    """
    Return the names of the indexes that a database has.
    """
    connection = sqlite3.connect(path)
    query = "SELECT name FROM sqlite_schema WHERE type = 'index'"
    names = {name for (name,) in connection.execute(query)}
    connection.close()
    return names


async def count_up(store: Store, id_: str, times: int) -> None:
    """
    Add to the number in a document, alone.
    """
    for _ in range(times):
        loaded = await store.load_many("acme", [DocumentKey("number", id_)])
        found = loaded.documents[0]
        body = b"%d" % (int(found.body) + 1 if found else 1)
        version = found.version if found else ABSENT
        put = Put("number", id_, body, version, {"by": "new"}, announce=True)
        await store.commit("acme", [put])


def test_migrations_are_numbered_without_gaps_and_only_expand():
    """
    Each migration is one above the last, and none shuts out the schema just before it.
    """
    numbers = [migration.number for migration in shipped()]
    oldest = [migration.oldest_reader for migration in shipped()]

    assert list(range(1, len(numbers) + 1)) == numbers
    assert sorted(oldest) == oldest
    for migration in shipped():
        assert migration.oldest_reader <= max(migration.number - 1, 1)


def test_a_new_database_has_the_newest_schema(tmp_path: Path):
    """
    All migrations are applied to an empty file, and opening it again applies none.
    """
    for _ in range(2):
        Database(tmp_path / NAME).open(create=True)

    newest = shipped()[-1]
    assert (newest.number, newest.oldest_reader) == level(tmp_path / NAME)


def test_an_old_database_is_brought_forward_with_its_documents(tmp_path: Path):
    """
    What a program of schema 1 wrote is there after the migration, and goes on.
    """
    path = tmp_path / NAME
    Database(path, migrations=shipped()[:1]).open(create=True)
    old = schema_1.connect(str(path))
    for _ in range(3):
        schema_1.increment(old, "a")
    assert "document_sweep" not in indexes(path)

    async def story() -> None:
        store = SqliteStore.open(path, clock=SystemClock())
        await count_up(store, "a", 2)
        found = await store.find("acme", "number", ("by", "new"))
        assert [b"5"] == [document.body for document in found]
        assert () == await store.find("acme", "number", ("by", "old"))
        await store.close()

    asyncio.run(story())

    assert "document_sweep" in indexes(path)
    assert 6 == schema_1.increment(old, "a")
    old.close()


def test_the_previous_schema_works_beside_the_new_one(tmp_path: Path):
    """
    A program of schema 1 is at work while a new one migrates, and neither loses anything.

    Both go on writing, to the same documents and to others.
    """
    path = tmp_path / NAME
    Database(path, migrations=shipped()[:1]).open(create=True)

    async def story() -> list[int]:
        workers = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.storage.schema_1"),
                *(str(path), name, "150"),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=subprocess.PIPE,
            )
            for name in ("shared", "own")
        ]
        # At work: it has committed with the schema it knows.
        watch = schema_1.connect(str(path))
        query = "SELECT revision FROM state"
        while not watch.execute(query).fetchone()[0]:  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.001)
        watch.close()
        store = SqliteStore.open(path, clock=SystemClock())
        await count_up(store, "new", 75)
        for _ in range(75):
            await increment(store, "shared")
        said = [await worker.communicate() for worker in workers]
        loaded = await store.load_many(
            "acme", [DocumentKey("number", name) for name in ("shared", "own", "new")]
        )
        await store.close()
        assert [0, 0] == [worker.returncode for worker in workers]
        assert 150 == int(said[1][0])
        return [int(found.body) for found in loaded.documents if found]

    assert [150 + 75, 150, 75] == asyncio.run(story())
    assert shipped()[-1].number == level(path)[0]


def test_a_newer_database_is_refused_only_if_it_says_so(tmp_path: Path):
    """
    A schema above ours is used unless its oldest reader is above ours: then it is refused.
    """
    path = tmp_path / NAME
    Database(path).open(create=True)
    ours = shipped()[-1].number

    async def story() -> None:
        store = SqliteStore.open(path, clock=SystemClock())
        await count_up(store, "a", 1)
        await store.close()

    set_level(path, ours + 5, ours)
    asyncio.run(story())
    assert (ours + 5, ours) == level(path)

    set_level(path, ours + 5, ours + 1)
    with pytest.raises(SchemaError, match="newer version") as caught:
        asyncio.run(story())
    assert "Upgrade" in caught.value.hint
    assert not caught.value.transient
    assert (ours + 5, ours + 1) == level(path)


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path):
    """
    All missing migrations are applied, or none.
    """
    path = tmp_path / NAME
    Database(path, migrations=shipped()[:1]).open(create=True)
    broken = Migration(3, 1, ("CREATE TABLE extra (a)", "CREATE TABLE extra (a)"))
    with pytest.raises(StoreError):
        Database(path, migrations=(*shipped(), broken)).open(create=True)

    assert (1, 1) == level(path)
    assert "document_sweep" not in indexes(path)
    Database(path).open(create=True)
    assert "document_sweep" in indexes(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CREATE TABLE a (b);", "oldest reader"),
        ("-- oldest-reader: 1\nCREATE TABLE a (b)", "middle of a statement"),
    ],
)
def test_a_malformed_migration_is_refused(text: str, message: str):
    """
    A migration says its oldest reader first, and ends where a statement ends.
    """
    with pytest.raises(SchemaError, match=message):
        sqlite_schema.parse(9, text)

    sound = "-- oldest-reader: 7\nCREATE TABLE a (b);\nCREATE TABLE c (d);\n"
    parsed = sqlite_schema.parse(9, sound)
    assert (9, 7, 2) == (parsed.number, parsed.oldest_reader, len(parsed.statements))


def test_a_database_without_its_level_is_refused(tmp_path: Path):
    """
    Ours by its header, but without the row that says its schema: damaged, not empty.
    """
    Database(tmp_path / NAME).open(create=True)
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("DELETE FROM schema_level")
    connection.commit()
    connection.close()

    with pytest.raises(StoreError, match="damaged"):
        Database(tmp_path / NAME).open(create=True)
