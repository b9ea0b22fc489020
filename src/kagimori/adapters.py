"""
From an address to the store or wrapper that it names: the one table of kinds.

Every kind, with all its options, stands in ``docs/rings.md``.

Rules of this module:

1. An adapter is imported when it is named, and no other: a cloud's client takes up to a second
   to import.
2. Errors name kinds, variables and paths, never what may be secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kagimori.addresses import Address, absolute_path
from kagimori.errors import ConfigError
from kagimori.events import Event, EventSink, Severity
from kagimori.keys.store import KeyStore
from kagimori.keys.wrapping import KeyWrapper
from kagimori.secret_sources import from_environment, from_file

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_STORES: Mapping[str, str] = {
    "file": "kagimori.ring_stores.files",
    "azblob": "kagimori.ring_stores.azure_blob",
    "https": "kagimori.ring_stores.azure_blob",
    "s3": "kagimori.ring_stores.s3",
    "sqlite": "kagimori.ring_stores.sql",
    "postgresql": "kagimori.ring_stores.sql",
    "mysql": "kagimori.ring_stores.sql",
    "mariadb": "kagimori.ring_stores.sql",
    "redis": "kagimori.ring_stores.redis",
    "rediss": "kagimori.ring_stores.redis",
}
_WRAPPERS: Mapping[str, str] = {
    "passphrase": "kagimori.wrappers.passphrase",
    "certificate": "kagimori.wrappers.certificate_files",
    "azurekeyvault": "kagimori.wrappers.azure_key_vault",
    "awskms": "kagimori.wrappers.aws_kms",
    "gcpkms": "kagimori.wrappers.gcp_kms",
    "vault": "kagimori.wrappers.vault_transit",
    "pkcs11": "kagimori.wrappers.pkcs11",
    "plaintext": "kagimori.wrappers.plaintext",
}
_SECRET_OPTIONS = frozenset({"password", "token", "pin", "sig", "sas", "account-key"})


class LoggedEvents:
    """
    An `EventSink` that writes to the logger ``kagimori``, for those who name no other.
    """

    _LEVELS: Mapping[Severity, str] = {
        Severity.INFO: "debug",
        Severity.WARNING: "warning",
        Severity.ALARM: "error",
    }

    def emit(self, event: Event) -> None:
        """
        Log the event.
        """
        # Imported with the first event: a program that hears of none does not wait for it.
        import logging

        fields = " ".join(f"{name}={value}" for name, value in event.fields.items())
        log = getattr(logging.getLogger("kagimori"), self._LEVELS[event.severity])
        log("%s %s", event.name, fields)


def open_store(location: str, *, read_only: bool = False) -> KeyStore:
    """
    Return the store of an address.

    Raises:
        ConfigError: the address is malformed or of no kind that is known.
    """
    if ":" not in location:
        raise ConfigError(
            "A ring's location begins with its kind and a colon, not with a path.",
            hint="Write file:///folder, or file:///ring.xml?layout=document.",
        )
    address = Address.parse(location)
    module = _STORES.get(address.scheme)
    if module is None:
        raise ConfigError(
            f"No store of rings is called {address.scheme!r}.",
            hint=f"There are {', '.join(f'{scheme}:' for scheme in _STORES)}.",
        )
    opened: KeyStore = import_module(module).open_store(address, read_only=read_only)
    return opened


def open_wrapper(
    address: str,
    events: EventSink | None = None,
    *,
    credential: TokenCredential | None = None,
) -> KeyWrapper:
    """
    Return the wrapper of an address.

    Args:
        credential: what signs in to Azure; other wrappers do without.

    Raises:
        ConfigError: the address is malformed, or what it names is missing.
        KeyWrapError: the wrapping key cannot be read.
    """
    named = Address.parse(address)
    module = _WRAPPERS.get(named.scheme)
    if module is None:
        raise ConfigError(
            f"No wrapper is called {named.scheme!r}.",
            hint=f"There are {', '.join(f'{scheme}:' for scheme in _WRAPPERS)}.",
        )
    if credential is not None and named.scheme == "azurekeyvault":
        from kagimori.wrappers.azure_key_vault import wrapper_of

        return wrapper_of(named, credential)
    sink = events or LoggedEvents()
    opened: KeyWrapper = import_module(module).open_wrapper(named, sink)
    return opened


def has_literal_secret(address: str) -> bool:
    """
    Whether an address holds a secret itself; servers refuse such ones (K10).
    """
    named = Address.parse(address)
    return named.password is not None or bool(_SECRET_OPTIONS & set(named.options))


def passphrase_of(address: str) -> str | None:
    """
    Return the passphrase that a wrapper's address names, to have its strength judged.

    ``None`` for other wrappers.

    Raises:
        ConfigError: the address is malformed, or the passphrase is not there.
    """
    named = Address.parse(address)
    if named.scheme != "passphrase":
        return None
    kind, _, where = named.path.partition(":")
    found = from_environment(where) if kind == "env" else from_file(Path(where))
    return found.decode("utf-8", "surrogateescape")


def secret_files(address: str) -> tuple[Path, ...]:
    """
    Return the files with secrets that an address names, to have their modes checked.

    Raises:
        ConfigError: the address is malformed.
    """
    named = Address.parse(address)
    if named.scheme == "certificate":
        from kagimori.wrappers.certificate_files import named_files

        return named_files(named)
    kind, _, path = named.path.partition(":")
    if named.scheme == "passphrase" and kind == "file":
        return (absolute_path(path, "A passphrase's file"),)
    return tuple(
        absolute_path(value, "A secret's file")
        for name in named.options
        if name.endswith("-file")
        for value in named.options[name]
    )
