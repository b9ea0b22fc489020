"""
Brings a database to the schema that this program writes.

Rules of this module:

1. Migrations are numbered files. Each only expands; what it leaves behind is removed by a
   migration of a later release, so that two versions can run during a deploy.
2. The database carries `schema`, the newest migration applied, and `oldest_reader`, the oldest
   schema whose programs may still use it. A program refuses a database only if the latter
   is above its own (DESIGN decision 12).
3. All migrations that are missing are applied in one transaction: any number of processes
   may open an empty file at once.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from kagimori.errors import SchemaError
from kagimori.storage import sqlite_faults

APPLICATION_ID = 0x4B616769
"""What marks a file as ours in its header ("Kagi")."""

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_OLDEST_READER = re.compile(r"-- oldest-reader: (\d+)")


@dataclass(frozen=True, slots=True)
class Migration:
    """
    One step of the schema.

    Attributes:
        number: counts from 1 without gaps.
        oldest_reader: the oldest schema whose programs can use the database after it.
        statements: its SQL.
    """

    number: int
    oldest_reader: int
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Level:
    """
    What a database says of its schema; 0 and 0 for an empty one.
    """

    schema: int
    oldest_reader: int


@cache
def shipped() -> tuple[Migration, ...]:
    """
    Return the migrations that this program ships, in order.
    """
    folder = resources.files("kagimori.storage") / "migrations"
    found = (
        parse(int(match[1]), file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if (match := _FILE.fullmatch(file.name))
    )
    return tuple(sorted(found, key=lambda migration: migration.number))


def parse(number: int, text: str) -> Migration:
    """
    Read a migration file: its first line is ``-- oldest-reader: N``.

    Raises:
        SchemaError: the line is missing.
    """
    if (match := _OLDEST_READER.match(text)) is None:
        raise SchemaError(f"Migration {number} does not say its oldest reader.")
    return Migration(number, int(match[1]), tuple(_statements(text)))


def read_level(cursor: sqlite3.Cursor, path: str) -> Level:
    """
    Return the level of the database.

    Raises:
        StoreError: the database belongs to another program.
        sqlite3.Error: it could not be read.
    """
    (tables,) = cursor.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        return Level(0, 0)
    (application,) = cursor.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise sqlite_faults.foreign(path)
    row = cursor.execute("SELECT schema, oldest_reader FROM schema_level").fetchone()
    if row is None:
        raise sqlite_faults.damaged(path, "no schema level")
    return Level(*row)


def is_current(level: Level, migrations: tuple[Migration, ...], path: str) -> bool:
    """
    Say whether nothing is to be applied.

    Raises:
        SchemaError: the database is too new for this program.
    """
    ours = migrations[-1].number
    if level.oldest_reader > ours:
        raise SchemaError(
            f"The database {path} needs a newer version of this program.",
            hint=(
                f"It has schema {level.schema}, which programs from schema "
                f"{level.oldest_reader} on can use; this one has {ours}. Upgrade."
            ),
        )
    return level.schema >= ours


def migrate(
    cursor: sqlite3.Cursor, migrations: tuple[Migration, ...], path: str
) -> None:
    """
    Apply the migrations that are missing; the caller holds the write transaction.

    Raises:
        StoreError: the database is too new, or belongs to another program.
        sqlite3.Error: a statement failed.
    """
    # Read again inside the transaction: another process may have been faster.
    level = read_level(cursor, path)
    if is_current(level, migrations, path):
        return
    if level.schema == 0:
        cursor.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for migration in migrations:
        if migration.number > level.schema:
            for statement in migration.statements:
                cursor.execute(statement)
            cursor.execute(
                "INSERT OR REPLACE INTO schema_level VALUES (1, ?, ?)",
                (migration.number, migration.oldest_reader),
            )


def _statements(text: str) -> Iterator[str]:
    # sqlite3's own executescript would commit the transaction first.
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    if pending.strip():
        raise SchemaError("A migration ends in the middle of a statement.")
