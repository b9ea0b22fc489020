"""
Opening a protection ring by the addresses of its store and its wrapper.

The library's own small composition root: adapters are imported here, and only the one that is
named.

    location   file:///folder                        one file an element, as .NET has it
               file:///ring.xml?layout=document      one document
    wrapper    passphrase:env:NAME                   from an environment variable
               passphrase:file:/path                 from a file, without its last line break
               certificate:/path                     .pfx, .p12 or PEM; options, joined by &:
                  ?password=… password-env=NAME password-file=/path
                  key=/key.pem                       the private key, where it lies apart
                  also=/old.pfx                      another certificate, for reading; repeatable
               plaintext:                            none; whoever reads the store has the keys

Rules of this module:

1. What is left out of a call comes from the environment; what is named nowhere is an error
   where a default would be a trap: the application decides who reads what.
2. Special characters in paths and passwords are percent-encoded; a plus is a plus.
3. Errors name variables, paths and options, never their secret values.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Final, Literal

from kagimori.addresses import Address, absolute_path
from kagimori.clock import Clock
from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.events import Event, EventSink, Severity
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.store import KeyStore
from kagimori.keys.wrapping import KeyWrapper
from kagimori.secret_sources import loose_secret_mode, warn_once

__all__ = [
    "has_literal_secret",
    "loose_secret_mode",
    "open_ring",
    "open_store",
    "open_wrapper",
    "secret_files",
]

LOCATION = "KAGIMORI_RING"
APPLICATION = "KAGIMORI_RING_APPLICATION"
WRAPPER = "KAGIMORI_RING_WRAPPER"

# Imported when named, and no other: a cloud's client takes up to a second to import.
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
_SECRET_OPTIONS = frozenset({"password", "token", "pin", "sig"})


class _LeftOut(enum.Enum):
    LEFT_OUT = enum.auto()


LEFT_OUT: Final = _LeftOut.LEFT_OUT
"""Stands for an argument that was not given, where ``None`` means something."""


class LoggedEvents:
    """
    An `EventSink` that writes to the logger ``kagimori``, for those who name no other.
    """

    _LEVELS: Mapping[Severity, int] = {
        Severity.INFO: logging.DEBUG,
        Severity.WARNING: logging.WARNING,
        Severity.ALARM: logging.ERROR,
    }

    def emit(self, event: Event) -> None:
        """
        Log the event.
        """
        fields = " ".join(f"{name}={value}" for name, value in event.fields.items())
        level = self._LEVELS[event.severity]
        logging.getLogger("kagimori").log(level, "%s %s", event.name, fields)


def open_ring(
    location: str | KeyStore | None = None,
    *,
    application: str | Literal[_LeftOut.LEFT_OUT] | None = LEFT_OUT,
    wrapper: str | KeyWrapper | None = None,
    read_only: bool = False,
    create: bool = True,
    algorithm: str | None = None,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> ProtectionRing:
    """
    Open a key ring; make it, with its first key, where there is none yet.

    Args:
        location: where the ring lies, or a `KeyStore`; left out: ``KAGIMORI_RING``.
        application: the application's name, which separates what several applications protect
            with one ring; ``None`` for none (then any other without a name reads it). Left
            out: ``KAGIMORI_RING_APPLICATION``, where ``none`` means ``None``.
        wrapper: what wraps the keys, or a `KeyWrapper`; left out: ``KAGIMORI_RING_WRAPPER``.
            Without one only a ring of clear keys opens, and no key is added to it.
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
    store = _store(location, read_only=read_only)
    keys = _wrapper(wrapper, sink)
    ring = ProtectionRing(
        store,
        keys,
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


def open_wrapper(address: str, events: EventSink | None = None) -> KeyWrapper:
    """
    Return the wrapper of an address.

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
    sink = events or LoggedEvents()
    opened: KeyWrapper = import_module(module).open_wrapper(named, sink)
    return opened


def has_literal_secret(address: str) -> bool:
    """
    Whether an address holds a secret itself; servers refuse such ones (K10).
    """
    named = Address.parse(address)
    return named.password is not None or bool(_SECRET_OPTIONS & set(named.options))


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


def _store(location: str | KeyStore | None, *, read_only: bool) -> KeyStore:
    named = location or os.environ.get(LOCATION)
    if not named:
        raise ConfigError(
            "No ring is named.", hint=f"Give a location, or set {LOCATION}."
        )
    if isinstance(named, str):
        return open_store(named, read_only=read_only)
    return named


def _wrapper(wrapper: str | KeyWrapper | None, sink: EventSink) -> KeyWrapper | None:
    named = os.environ.get(WRAPPER) or None if wrapper is None else wrapper
    if isinstance(named, str):
        return open_wrapper(named, sink)
    return named


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
