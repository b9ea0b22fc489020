"""
Rings in files named by an address.

    file:///folder                        one file an element, as .NET has it
    file:///ring.xml?layout=document      one document
"""

from __future__ import annotations

from kagimori.addresses import Address, absolute_path
from kagimori.errors import ConfigError
from kagimori.keys.store import KeyStore
from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore


def open_store(address: Address, *, read_only: bool) -> KeyStore:
    """
    Return the store of a ``file:`` address.

    Raises:
        ConfigError: the address is malformed.
    """
    address.allow("layout")
    if address.authority not in {"", "localhost"}:
        raise ConfigError(
            "A file: location has three slashes and an absolute path.",
            hint="Write file:///folder.",
        )
    path = absolute_path(address.path, "A ring's location")
    layout = address.option("layout", "folder")
    if layout == "folder":
        return FolderStore(path, read_only=read_only)
    if layout == "document":
        return DocumentStore(path, read_only=read_only)
    raise ConfigError("The layout of a file: location is folder or document.")
