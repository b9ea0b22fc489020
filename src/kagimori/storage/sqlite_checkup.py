"""
Looks at a SQLite database file for the doctor, without changing it.
"""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from kagimori.errors import StoreError


@dataclass(frozen=True, slots=True)
class Checkup:
    """
    How a database file is.

    Attributes:
        journal_mode: must be ``wal``: readers and the writer do not stop each other.
        damage: what SQLite's own check complains of, its first sentence; empty if nothing.
        free_bytes: room left on its disk.
        size_bytes: of the file itself.
    """

    journal_mode: str
    damage: str
    free_bytes: int
    size_bytes: int


def check_up(path: Path) -> Checkup:
    """
    Examine a database file.

    Raises:
        StoreError: it cannot be opened or read at all.
    """
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    except sqlite3.Error as exc:
        raise _unreadable(path, exc) from None
    try:
        mode = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
        found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as exc:
        raise _unreadable(path, exc) from None
    finally:
        connection.close()
    return Checkup(
        journal_mode=mode,
        damage="" if found == "ok" else found.splitlines()[0],
        free_bytes=shutil.disk_usage(path.parent).free,
        size_bytes=path.stat().st_size,
    )


def _unreadable(path: Path, exc: sqlite3.Error) -> StoreError:
    return StoreError(
        f"The database {path} cannot be read: {exc}.",
        hint="Restore it from a backup.",
        path=str(path),
    )
