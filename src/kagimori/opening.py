"""
Opening a protection ring by the addresses of its store and its wrapper.

The library's own small composition root; `kagimori.adapters` has the table of kinds.

Rules of this module:

1. What is left out of a call comes from the environment; what is named nowhere is an error
   where a default would be a trap: the application decides who reads what.
2. Special characters in paths and passwords are percent-encoded; a plus is a plus.
3. Errors name variables, paths and options, never their secret values.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from kagimori.adapters import (
    LoggedEvents,
    has_literal_secret,
    open_store,
    open_wrapper,
    secret_files,
)
from kagimori.addresses import Address
from kagimori.clock import Clock
from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.events import EventSink
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.store import KeyStore
from kagimori.keys.wrapping import KeyWrapper
from kagimori.secret_sources import loose_secret_mode, warn_once

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.keyvault.keys.crypto import CryptographyClient
    from azure.storage.blob import BlobClient

__all__ = [
    "has_literal_secret",
    "location_from_environment",
    "loose_secret_mode",
    "open_ring",
    "open_store",
    "open_wrapper",
    "secret_files",
    "wrapper_from_environment",
]

LOCATION = "KAGIMORI_RING"
APPLICATION = "KAGIMORI_RING_APPLICATION"
WRAPPER = "KAGIMORI_RING_WRAPPER"
RECOVERY = "KAGIMORI_RING_RECOVERY"
CONTAINER = "DataProtectionBlobContainerUri"
VAULT_KEY = "DataProtectionKeyIdentifier"
"""The last two are the names that ASP.NET applications on App Service use."""

_AZURE_STORES = frozenset({"azblob", "https"})


class _LeftOut(enum.Enum):
    LEFT_OUT = enum.auto()


LEFT_OUT: Final = _LeftOut.LEFT_OUT
"""Stands for an argument that was not given, where ``None`` means something."""


def open_ring(
    location: str | KeyStore | BlobClient | Callable[[], Any] | None = None,
    *,
    application: str | Literal[_LeftOut.LEFT_OUT] | None = LEFT_OUT,
    wrapper: str | KeyWrapper | CryptographyClient | None = None,
    credential: TokenCredential | None = None,
    also_unwrap: Sequence[str | KeyWrapper] = (),
    recovery: str | KeyWrapper | None = None,
    read_only: bool = False,
    create: bool = True,
    algorithm: str | None = None,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> ProtectionRing:
    """
    Open a key ring; make it, with its first key, where there is none yet.

    Args:
        location: where the ring lies, or a `KeyStore`, or a client of an Azure blob, or a
            function that connects to Redis or (DB-API) to a database; left out:
            ``KAGIMORI_RING``, or what App Service calls ``DataProtectionBlobContainerUri``.
        application: the application's name, which separates what several applications protect
            with one ring; ``None`` for none (then any other without a name reads it). Left
            out: ``KAGIMORI_RING_APPLICATION``, where ``none`` means ``None``.
        wrapper: what wraps the keys, or a `KeyWrapper`, or a client of an Azure vault's key;
            left out: ``KAGIMORI_RING_WRAPPER``, or App Service's ``DataProtectionKeyIdentifier``.
            Without one only a ring of clear keys opens, and no key is added to it.
        credential: what signs in to Azure; left out: ``DefaultAzureCredential``.
        also_unwrap: further wrappers, for reading: what keys were wrapped by before.
        recovery: wraps every new key a second time, for the day on which the first is lost;
            left out: ``KAGIMORI_RING_RECOVERY``.
        read_only: never write, not even a successor; protecting still works.
        create: whether a missing ring is made.
        algorithm: of keys made from now on, such as ``AES_256_CBC_HMACSHA256``; left out:
            ``AES_256_GCM``.
        clock: tells the time; left out: the machine's.
        events: is told what happens; left out: the logger ``kagimori``.

    Raises:
        ConfigError: an address is malformed, or something is named nowhere.
        InsecureConfigError: a new ring was asked for without a wrapper, or clear keys would be
            written where group or world may write.
        RingMissingError: there is no ring, and none is to be made.
        RingUnreadableError: there is one and it cannot be read.
        KeyWrapError: its keys cannot be unwrapped.
        StoreError: the store does not answer (then `transient`) or refuses.
    """
    from kagimori.keys.protection.algorithms import ALGORITHMS, DEFAULT

    sink = events or LoggedEvents()
    chosen = algorithm or DEFAULT
    if chosen not in ALGORITHMS:
        raise ConfigError(
            f"No protection algorithm is called {chosen!r}.",
            hint=f"There are {', '.join(ALGORITHMS)}.",
        )
    store = _store(location, credential, read_only=read_only)
    keys = _wrapper(wrapper, credential, sink)
    ring = ProtectionRing(
        store,
        keys,
        also_unwrap=[_opened(each, credential, sink) for each in also_unwrap],
        recovery=_recovery(recovery, credential, sink),
        application=_application(application),
        read_only=read_only,
        create=create,
        algorithm=chosen,
        clock=clock,
        events=sink,
    )
    try:
        ring.start()
    except InsecureConfigError as error:
        if keys is not None:
            raise
        raise InsecureConfigError(
            f"A new ring at {store.name} needs a wrapper for its keys.",
            hint=f"Name one by wrapper= or {WRAPPER}, such as passphrase:file:/path; "
            "plaintext: leaves the keys readable to whoever reads the store.",
        ) from error
    _warn_of_place(ring, store, sink)
    return ring


def location_from_environment() -> str | None:
    """
    Return the address of the ring that the environment names, or ``None``.

    Raises:
        ConfigError: it names two that differ.
    """
    container = os.environ.get(CONTAINER)
    named = os.environ.get(LOCATION)
    if not container:
        return named or None
    if named and open_store(named).name != open_store(container).name:
        raise _two_ways(LOCATION, CONTAINER)
    # What both name alike has its options in ours alone.
    return named or container


def wrapper_from_environment() -> str | None:
    """
    Return the address of the wrapper that the environment names, or ``None``.

    Raises:
        ConfigError: it names two that differ.
    """
    key = os.environ.get(VAULT_KEY)
    named = os.environ.get(WRAPPER)
    if not key:
        return named or None
    address = f"azurekeyvault:{key}"
    if named and open_wrapper(named).name != open_wrapper(address).name:
        raise _two_ways(WRAPPER, VAULT_KEY)
    return named or address


def _two_ways(ours: str, theirs: str) -> ConfigError:
    return ConfigError(
        f"{ours} and {theirs} name different things.",
        hint="Unset one of them.",
    )


def _store(
    location: str | KeyStore | BlobClient | Callable[[], Any] | None,
    credential: TokenCredential | None,
    *,
    read_only: bool,
) -> KeyStore:
    named = location or location_from_environment()
    if not named:
        raise ConfigError(
            "No ring is named.", hint=f"Give a location, or set {LOCATION}."
        )
    if isinstance(named, str):
        if credential is not None and named.partition(":")[0] in _AZURE_STORES:
            from kagimori.ring_stores.azure_blob import store_of

            address = Address.parse(named)
            return store_of(address, credential, read_only=read_only)
        return open_store(named, read_only=read_only)
    if _is_of(named, "azure.storage.blob"):
        from kagimori.ring_stores.azure_blob import AzureBlobStore

        client = cast("BlobClient", named)
        return AzureBlobStore.from_blob_client(client, read_only=read_only)
    if callable(named):
        from kagimori.ring_stores import factories

        return factories.store_of(named, read_only=read_only)
    return cast("KeyStore", named)


def _wrapper(
    wrapper: str | KeyWrapper | CryptographyClient | None,
    credential: TokenCredential | None,
    sink: EventSink,
) -> KeyWrapper | None:
    named = wrapper_from_environment() if wrapper is None else wrapper
    if isinstance(named, str):
        return open_wrapper(named, sink, credential=credential)
    if named is not None and _is_of(named, "azure.keyvault.keys"):
        from kagimori.wrappers.azure_key_vault import AzureKeyVaultWrapper

        client = cast("CryptographyClient", named)
        return AzureKeyVaultWrapper.from_cryptography_client(client)
    return cast("KeyWrapper | None", named)


def _recovery(
    recovery: str | KeyWrapper | None,
    credential: TokenCredential | None,
    sink: EventSink,
) -> KeyWrapper | None:
    named = recovery or os.environ.get(RECOVERY)
    return _opened(named, credential, sink) if named else None


def _opened(
    wrapper: str | KeyWrapper, credential: TokenCredential | None, sink: EventSink
) -> KeyWrapper:
    if isinstance(wrapper, str):
        return open_wrapper(wrapper, sink, credential=credential)
    return wrapper


def _is_of(thing: object, package: str) -> bool:
    # By name: whoever has no such client must not need its package.
    return any(base.__module__.startswith(package) for base in type(thing).__mro__)


def _application(
    application: str | Literal[_LeftOut.LEFT_OUT] | None,
) -> str | None:
    if application is LEFT_OUT:
        named = os.environ.get(APPLICATION)
        if not named:
            raise ConfigError(
                "No application is named.",
                hint=f"Give application=, or set {APPLICATION}. None (in the variable: none) "
                "means no name: then the ring's applications can read each other's payloads.",
            )
        return None if named == "none" else named
    if application == "":
        raise ConfigError("An application's name is not empty; None means no name.")
    return application


def _warn_of_place(ring: ProtectionRing, store: KeyStore, sink: EventSink) -> None:
    if not ring.is_clear:
        return
    warn_once(
        sink,
        f"The ring at {store.name} holds keys in the clear: whoever reads it can forge and "
        "read whatever they protect. Wrap them.",
    )
    for loose in getattr(store, "loose_modes", tuple)():
        warn_once(sink, f"{loose}, and the ring there holds keys in the clear.")
