"""
Where the tests' worker processes find the ring of a folder.
"""

from __future__ import annotations

from pathlib import Path

from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore


def folder(place: Path) -> FolderStore:
    return FolderStore(place / "ring")


def document(place: Path) -> DocumentStore:
    return DocumentStore(place / "ring" / "ring.xml")
