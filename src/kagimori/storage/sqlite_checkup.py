"""
Looks at a SQLite database file for the doctor, without changing it.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from kagimori.storage import sqlite_faults


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
    Examine a database file. Reads all of it: a second or more for each gigabyte.

    Raises:
        StoreError: it cannot be opened or read at all.
    """
    url = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        with closing(sqlite3.connect(url, uri=True, timeout=5)) as connection:
            mode = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        size = path.stat().st_size
        free = shutil.disk_usage(path.parent).free
    except sqlite_faults.FAULTS as exc:
        raise sqlite_faults.fault(exc, str(path)) from None
    except OSError as exc:
        raise sqlite_faults.os_fault(exc, str(path)) from None
    return Checkup(
        journal_mode=mode,
        damage="" if found == "ok" else found.splitlines()[0],
        free_bytes=free,
        size_bytes=size,
    )
