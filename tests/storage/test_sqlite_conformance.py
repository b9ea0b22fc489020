"""
SQLite passes the suite for stores that several processes share.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kagimori.clock import Clock
from kagimori.storage.sqlite import SqliteStore
from kagimori.storage.store import Store
from kagimori.testing.conformance.shared_store import SharedStoreConformance


class TestSqliteStore(SharedStoreConformance):
    opener = "tests.storage.opening:sqlite"

    def make_store(self, place: Path, clock: Clock) -> Store:
        return SqliteStore.open(place / "kagimori.db", clock=clock)


@pytest.mark.soak
class TestSqliteStoreSoak(TestSqliteStore):
    kills = 1000
