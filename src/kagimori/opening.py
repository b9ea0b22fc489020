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
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from kagimori.clock import Clock
from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.events import Event, EventSink, Severity
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.store import KeyStore
from kagimori.keys.wrapping import KeyWrapper
from kagimori.wrappers.secret_sources import (
    from_environment,
    from_file,
    loose_secret_mode,
    read_file,
)

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

_MOST_CERTIFICATE = 1024 * 1024


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
    parts = urlsplit(location)
    if parts.scheme != "file":
        raise ConfigError(
            f"A ring's location begins with file:, not with {parts.scheme or 'a path'}.",
            hint="Write file:///folder, or file:///ring.xml?layout=document.",
        )
    if parts.netloc not in {"", "localhost"} or parts.fragment:
        raise ConfigError(
            "A file: location has three slashes and an absolute path.",
            hint="Write file:///folder.",
        )
    path = _path(parts.path, "A ring's location")
    options = _options(parts.query, {"layout"}, "a file: location")
    layout = options.get("layout", ["folder"])[-1]
    if layout == "folder":
        from kagimori.ring_stores.file import FolderStore

        return FolderStore(path, read_only=read_only)
    if layout == "document":
        from kagimori.ring_stores.document import DocumentStore

        return DocumentStore(path, read_only=read_only)
    raise ConfigError("The layout of a file: location is folder or document.")


def open_wrapper(address: str, events: EventSink | None = None) -> KeyWrapper:
    """
    Return the wrapper of an address.

    Raises:
        ConfigError: the address is malformed, or what it names is missing.
        KeyWrapError: the certificate cannot be read.
    """
    sink = events or LoggedEvents()
    kind, _, rest = address.partition(":")
    if address == "plaintext:":
        from kagimori.wrappers.plaintext import PlaintextWrapper

        return PlaintextWrapper()
    if kind == "passphrase":
        from kagimori.wrappers.passphrase import PassphraseWrapper

        return PassphraseWrapper(_passphrase(rest, sink), source=rest)
    if kind == "certificate":
        return _certificate(rest, sink)
    raise ConfigError(
        f"No wrapper is called {kind!r}." if kind != address else "This is no wrapper.",
        hint="There are passphrase:env:NAME, passphrase:file:/path, certificate:/path and "
        "plaintext:.",
    )


def has_literal_secret(address: str) -> bool:
    """
    Whether a wrapper's address holds a password itself; servers refuse such ones (K10).
    """
    kind, _, rest = address.partition(":")
    names = {pair.partition("=")[0] for pair in rest.partition("?")[2].split("&")}
    return kind == "certificate" and "password" in names


def secret_files(address: str) -> tuple[Path, ...]:
    """
    Return the files with secrets that a wrapper's address names, to have their modes checked.

    Raises:
        ConfigError: the address is malformed.
    """
    kind, _, rest = address.partition(":")
    if kind == "passphrase" and rest.startswith("file:"):
        return (_path(rest[5:], "A passphrase's file"),)
    if kind != "certificate":
        return ()
    path, options = _certificate_parts(rest)
    named = [
        value
        for name in ("key", "also", "password-file")
        for value in options.get(name, ())
    ]
    return (path, *(_path(value, "A certificate's file") for value in named))


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


def _passphrase(rest: str, sink: EventSink) -> bytes:
    kind, _, named = rest.partition(":")
    if kind == "env" and named:
        return from_environment(named)
    if kind == "file" and named:
        return _secret_file(_path(named, "A passphrase's file"), sink)
    raise ConfigError(
        "A passphrase is named by passphrase:env:NAME or passphrase:file:/path."
    )


def _certificate_parts(rest: str) -> tuple[Path, dict[str, list[str]]]:
    path, _, query = rest.partition("?")
    names = {"password", "password-env", "password-file", "key", "also"}
    options = _options(query, names, "a certificate: address")
    return _path(path, "A certificate's file"), options


def _certificate(rest: str, sink: EventSink) -> KeyWrapper:
    from kagimori.crypto.pkcs12 import load_identity
    from kagimori.wrappers.certificate import CertificateWrapper

    path, options = _certificate_parts(rest)
    ways = [name for name in options if name.startswith("password")]
    if len(ways) > 1 or any(len(options[way]) > 1 for way in ways):
        raise ConfigError("A certificate's password is named in one way only.")
    password = None
    if "password" in options:
        password = options["password"][0].encode()
    elif "password-env" in options:
        password = from_environment(options["password-env"][0])
    elif "password-file" in options:
        named = _path(options["password-file"][0], "A password's file")
        password = _secret_file(named, sink)
    data = read_file(path, _MOST_CERTIFICATE)
    _warn_of_mode(path, sink)
    for other in options.get("key", ()):
        key_path = _path(other, "A private key's file")
        data = data + b"\n" + read_file(key_path, _MOST_CERTIFICATE)
        _warn_of_mode(key_path, sink)
    also = [
        load_identity(
            read_file(_path(name, "A certificate's file"), _MOST_CERTIFICATE), password
        )
        for name in options.get("also", ())
    ]
    return CertificateWrapper(load_identity(data, password), also)


def _options(query: str, known: set[str], where: str) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in known:
            raise ConfigError(
                f"An option of {where} is not known.",
                hint=f"There are: {', '.join(sorted(known))}.",
            )
        options.setdefault(name, []).append(unquote(value))
    return options


def _path(text: str, what: str) -> Path:
    path = Path(unquote(text))
    if not path.is_absolute() or "\x00" in str(path):
        raise ConfigError(f"{what} has to be an absolute path.")
    return path


def _secret_file(path: Path, sink: EventSink) -> bytes:
    secret = from_file(path)
    _warn_of_mode(path, sink)
    return secret


# --- warnings ------------------------------------------------------------------------------

_warned: set[str] = set()


def _warn_of_mode(path: Path, sink: EventSink) -> None:
    loose = loose_secret_mode(path)
    if loose is not None:
        _warn(sink, f"{loose}. Take that right away (chmod 600).")


def _warn_of_place(ring: ProtectionRing, store: KeyStore, sink: EventSink) -> None:
    if not ring.is_clear:
        return
    _warn(
        sink,
        f"The ring at {store.name} holds keys in the clear: whoever reads it can forge and "
        "read whatever they protect. Wrap them.",
    )
    for loose in getattr(store, "loose_modes", tuple)():
        _warn(sink, f"{loose}, and the ring there holds keys in the clear.")


def _warn(sink: EventSink, text: str) -> None:
    # Once for each process and thing: an application may open its ring in many places.
    if text not in _warned:
        _warned.add(text)
        sink.emit(Event("ring.warning", {"text": text}, Severity.WARNING))
