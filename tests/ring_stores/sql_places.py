"""
Where the tests of the SQL store, and their worker processes, find the ring of a folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from kagimori.addresses import Address
from kagimori.keys.store import KeyStore
from kagimori.ring_stores import sql


def table_of(place: Path) -> str:
    """
    Return a table's name that no other folder has.
    """
    return f"ring_{hashlib.sha256(str(place).encode()).hexdigest()[:24]}"


def to_place(place: Path, server, scheme: str, user: str, name: str) -> None:
    """
    Write down in a folder in which table of which server its ring lies.
    """
    (place / "password").write_text(server.password)
    (place / "address").write_text(
        f"{scheme}://{user}@127.0.0.1:{server.port}/{name}"
        f"?table={table_of(place)}&password-file={place}/password"
    )


def opened(place: Path, *, read_only: bool = False) -> KeyStore:
    address = Address.parse((place / "address").read_text())
    return sql.open_store(address, read_only=read_only)


def sqlite(place: Path) -> KeyStore:
    address = Address.parse(f"sqlite://{place}/rings/ring.db")
    return sql.open_store(address, read_only=False)
