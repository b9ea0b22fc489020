"""
The store in memory keeps the rules of the real ones, so that tests on it mean something.
"""

from __future__ import annotations

from pathlib import Path

from kagimori.clock import Clock
from kagimori.storage.store import Store
from kagimori.testing.conformance.store import StoreConformance
from kagimori.testing.memory_store import MemoryStore
from kagimori.testing.spy_store import SpyStore


class TestMemoryStore(StoreConformance):
    def make_store(self, place: Path, clock: Clock) -> Store:
        return MemoryStore(clock)


class TestSpyStore(StoreConformance):
    def make_store(self, place: Path, clock: Clock) -> Store:
        return SpyStore(MemoryStore(clock))
