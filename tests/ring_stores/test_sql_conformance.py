"""
The SQL store on the real servers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kagimori.addresses import Address
from kagimori.keys.store import KeyStore
from kagimori.ring_stores import sql
from kagimori.testing.conformance.key_store import KeyStoreConformance
from tests.ring_stores.sql_places import opened, to_place


class TestSqlite(KeyStoreConformance):
    opener = "tests.ring_stores.sql_places:sqlite"

    def make_store(self, place: Path, *, read_only: bool = False) -> KeyStore:
        address = Address.parse(f"sqlite://{place}/rings/ring.db")
        return sql.open_store(address, read_only=read_only)


class TestPostgres(KeyStoreConformance):
    opener = "tests.ring_stores.sql_places:opened"

    @pytest.fixture(autouse=True)
    def _database(self, postgres, tmp_path):
        to_place(tmp_path, postgres, "postgresql", "postgres", "postgres")

    def make_store(self, place: Path, *, read_only: bool = False) -> KeyStore:
        return opened(place, read_only=read_only)


class TestMariaDb(KeyStoreConformance):
    opener = "tests.ring_stores.sql_places:opened"

    @pytest.fixture(autouse=True)
    def _database(self, mariadb, tmp_path):
        to_place(tmp_path, mariadb, "mariadb", "root", "rings")

    def make_store(self, place: Path, *, read_only: bool = False) -> KeyStore:
        return opened(place, read_only=read_only)


@pytest.mark.soak
class TestSqliteSoak(TestSqlite):
    kills = 200


@pytest.mark.soak
class TestPostgresSoak(TestPostgres):
    kills = 200


@pytest.mark.soak
class TestMariaDbSoak(TestMariaDb):
    kills = 200
