"""
A ring in a blob passes the suite of every key store, on a real Azurite.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kagimori.keys.store import KeyStore
from kagimori.testing.conformance.key_store import KeyStoreConformance
from tests.ring_stores.azure_places import noted, opened
from tests.servers.azurite import Azurite


class TestAzureBlobStore(KeyStoreConformance):
    opener = "tests.ring_stores.azure_places:opened"
    # Each is a process that imports Azure's client first.
    kills = 4

    @pytest.fixture(autouse=True)
    def _place(self, azurite: Azurite, tmp_path: Path) -> None:
        noted(tmp_path, azurite)

    def make_store(self, place: Path, *, read_only: bool = False) -> KeyStore:
        return opened(place, read_only=read_only)


@pytest.mark.soak
class TestAzureBlobStoreSoak(TestAzureBlobStore):
    kills = 100
