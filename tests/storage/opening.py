"""
Opens stores in worker processes of the conformance suite.
"""

from __future__ import annotations

from pathlib import Path

from kagimori.clock import SystemClock
from kagimori.storage.sqlite import SqliteStore


def sqlite(place: Path) -> SqliteStore:
    """
    Open the SQLite store in a folder.
    """
    return SqliteStore.open(place / "kagimori.db", clock=SystemClock())
