"""
Where the tests' worker processes find the ring in a blob: noted in the folder of a test.
"""

from __future__ import annotations

import json
from pathlib import Path

from kagimori.addresses import Address
from kagimori.ring_stores.azure_blob import AzureBlobStore, open_store
from tests.servers.azurite import KEY, Azurite, new_name

_NOTE = "azurite.json"


def noted(place: Path, server: Azurite) -> None:
    """
    Choose a container for the ring of a folder, unless it has one.
    """
    note = place / _NOTE
    if not note.exists():
        (place / "key").write_text(KEY)
        note.write_text(json.dumps([server.endpoint, new_name()]))


def address(place: Path, options: str = "") -> str:
    """
    Return the address of a folder's ring, with the account's key.
    """
    endpoint, container = json.loads((place / _NOTE).read_text())
    where = f"azblob://devstoreaccount1/{container}/keys.xml?endpoint={endpoint}"
    return f"{where}&account-key-file={place / 'key'}{options}"


def opened(place: Path, *, read_only: bool = False) -> AzureBlobStore:
    """
    Open the store of a folder's ring.
    """
    return open_store(Address.parse(address(place)), read_only=read_only)
