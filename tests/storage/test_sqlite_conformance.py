"""
SQLite passes the suite for stores.
"""

from __future__ import annotations

from pathlib import Path

from kagimori.clock import Clock
from kagimori.storage.sqlite import SqliteStore
from kagimori.storage.store import Store
from kagimori.testing.conformance.store import StoreConformance


class TestSqliteStore(StoreConformance):
    def make_store(self, place: Path, clock: Clock) -> Store:
        return SqliteStore.open(place / "kagimori.db", clock=clock)
