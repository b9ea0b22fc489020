"""
Both layouts of a ring in files pass the suite of every key store.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kagimori.keys.store import KeyStore
from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore
from kagimori.testing.conformance.key_store import KeyStoreConformance


class TestFolderStore(KeyStoreConformance):
    opener = "tests.ring_stores.places:folder"

    def make_store(self, place: Path, *, read_only: bool = False) -> KeyStore:
        return FolderStore(place / "ring", read_only=read_only)


class TestDocumentStore(KeyStoreConformance):
    opener = "tests.ring_stores.places:document"

    def make_store(self, place: Path, *, read_only: bool = False) -> KeyStore:
        return DocumentStore(place / "ring" / "ring.xml", read_only=read_only)


@pytest.mark.soak
class TestFolderStoreSoak(TestFolderStore):
    kills = 500


@pytest.mark.soak
class TestDocumentStoreSoak(TestDocumentStore):
    kills = 500
