"""
Where the tests of the Redis store, and their worker processes, find the ring of a folder.
"""

from __future__ import annotations

from pathlib import Path

from kagimori.addresses import Address
from kagimori.keys.store import KeyStore
from kagimori.ring_stores import redis
from tests.ring_stores.sql_places import table_of


def to_place(place: Path, port: int) -> None:
    """
    Write down in a folder in which list of which server its ring lies.
    """
    (place / "address").write_text(f"redis://127.0.0.1:{port}/0?key={table_of(place)}")


def opened(place: Path, *, read_only: bool = False) -> KeyStore:
    address = Address.parse((place / "address").read_text())
    return redis.open_store(address, read_only=read_only)
