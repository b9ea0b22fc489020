"""
A ring in an object of S3 passes the suite of every key store, on the moto server.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kagimori.keys.store import KeyStore
from kagimori.testing.conformance.key_store import KeyStoreConformance
from tests.ring_stores.s3_places import store
from tests.servers.moto import Moto


class TestS3Store(KeyStoreConformance):
    opener = "tests.ring_stores.s3_places:store"

    @pytest.fixture(autouse=True)
    def server(self, moto: Moto, tmp_path: Path):
        (tmp_path / "endpoint").write_text(moto.endpoint)

    def make_store(self, place: Path, *, read_only: bool = False) -> KeyStore:
        return store(place, read_only=read_only)


@pytest.mark.soak
class TestS3StoreSoak(TestS3Store):
    kills = 200
