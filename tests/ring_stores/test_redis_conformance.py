"""
The Redis store on a real server.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kagimori.keys.store import KeyStore
from kagimori.testing.conformance.key_store import KeyStoreConformance
from tests.ring_stores.redis_places import opened, to_place


class TestRedis(KeyStoreConformance):
    opener = "tests.ring_stores.redis_places:opened"

    @pytest.fixture(autouse=True)
    def _server(self, redis_server, tmp_path):
        to_place(tmp_path, redis_server.port)

    def make_store(self, place: Path, *, read_only: bool = False) -> KeyStore:
        return opened(place, read_only=read_only)


@pytest.mark.soak
class TestRedisSoak(TestRedis):
    kills = 200
