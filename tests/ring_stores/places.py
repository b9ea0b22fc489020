"""
Where the tests' worker processes find the ring of a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kagimori.keys.store import KeyStore
from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore


def folder(place: Path) -> FolderStore:
    return FolderStore(place / "ring")


def document(place: Path) -> DocumentStore:
    return DocumentStore(place / "ring" / "ring.xml")


def reading(opener: Callable[[Path], KeyStore]) -> Callable[[Path], KeyStore]:
    """
    Return what opens the same ring read-only.
    """

    def read_only(place: Path) -> KeyStore:
        if opener is folder:
            return FolderStore(place / "ring", read_only=True)
        return DocumentStore(place / "ring" / "ring.xml", read_only=True)

    return read_only
