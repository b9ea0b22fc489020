"""
Opening an installation, and making one.

Rules of this module:

1. Adapters are imported here only, and each only where a URL asks for it.
2. Opening never makes what must be there: a ring or a database that is missing is an error
   (attack K5). `make_installation` alone makes, and never a ring beside a database.
3. What opens a ring, and the folder itself, must be kept from other users (attack K11).
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kagimori.clock import Clock, OffsetClock, SystemClock
from kagimori.compose.installation import Installation
from kagimori.errors import (
    ConfigError,
    InsecureConfigError,
    KagimoriError,
    StoreError,
)
from kagimori.events import EventSink, NullSink
from kagimori.identity.strength import check_passphrase
from kagimori.keys.birth import NewRings
from kagimori.settings import Settings
from kagimori.storage.store import Store


def is_transient(error: KagimoriError) -> bool:
    """
    Whether a fault may pass by itself, so that a server waits for it instead of ending.
    """
    return bool(getattr(error, "transient", False))


def open_installation(
    settings: Settings,
    *,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> Installation:
    """
    Open what is there. Blocks while ring and database are opened.

    Raises:
        KagimoriError: something is missing, refused or does not answer.
    """
    return _open(settings, clock, events, create=False, plan=None)


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> AsyncIterator[Installation]:
    """
    Open an installation for the time of a block.
    """
    installation = open_installation(settings, clock=clock, events=events)
    try:
        yield installation
    finally:
        await installation.close()


def make_installation(
    settings: Settings,
    plan: NewRings,
    *,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> Installation:
    """
    Open an installation, making the ring and the database where neither is there yet.

    Raises:
        RingMissingError: the database is there and the ring is not (attack K5).
        KagimoriError: something is refused or does not answer.
    """
    return _open(settings, clock, events, create=True, plan=plan)


def _open(
    settings: Settings,
    clock: Clock | None,
    events: EventSink | None,
    *,
    create: bool,
    plan: NewRings | None,
) -> Installation:
    from kagimori.opening import open_ring, open_store

    base = clock or SystemClock()
    sink = events or NullSink()
    path = _sqlite_path(settings.store_url)
    wrapper = _checked_wrapper(settings)
    _check_folder(settings.data)
    if create and not settings.demo:
        # Before anything is made under it.
        _refuse_weak(wrapper)
    location = open_store(settings.ring_url)
    # Where a database is, keys lie under a ring already: then nothing may take its place.
    ring = open_ring(
        location,
        application=settings.application,
        wrapper=wrapper,
        create=create and not path.exists(),
        clock=base,
        events=sink,
    )
    try:
        if not create and not settings.demo:
            # Only now: a wrong one is told of as a wrong one.
            _refuse_weak(wrapper)
        if ring.is_clear:
            _refuse_loose(getattr(location, "loose_modes", tuple)())
        store = _open_sqlite(path, base, create=create)
    except BaseException:
        ring.close()
        raise
    return Installation(
        settings, OffsetClock(base), sink, ring=ring, store=store, plan=plan
    )


def _checked_wrapper(settings: Settings) -> str:
    """
    Return the wrapper's address, if what it names is kept from others (attack K11).
    """
    from kagimori.opening import loose_secret_mode, secret_files

    wrapper = settings.wrapper_url
    if wrapper is None:
        # Said here, since a variable of the environment must not say it instead.
        raise ConfigError(
            f"{settings.file} names no wrapper for the ring's keys.",
            hint='Write wrapper = "passphrase:file:/path", as `kagimori init` does.',
        )
    _refuse_loose([loose_secret_mode(path) for path in secret_files(wrapper)])
    return wrapper


def _refuse_weak(wrapper: str) -> None:
    """
    Refuse a passphrase that is known, short or easy to guess (attack K10).
    """
    from kagimori.adapters import passphrase_of

    passphrase = passphrase_of(wrapper)
    if passphrase is not None:
        check_passphrase(passphrase)


def _refuse_loose(found: Iterable[str | None]) -> None:
    for loose in found:
        if loose is not None:
            raise InsecureConfigError(
                f"{loose}.",
                hint="Take that right away: chmod 600 (a folder: chmod 700).",
            )


def _check_folder(folder: Path) -> None:
    try:
        mode = folder.stat().st_mode
    except OSError as exc:
        raise ConfigError(
            f"{folder} cannot be looked into: {exc.strerror}.",
            hint="Run as the user who owns the data folder.",
        ) from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        # Whoever can write here can put another database in place of ours.
        raise InsecureConfigError(
            f"{folder} can be changed by other users.", hint=f"chmod 700 {folder}"
        )


def _sqlite_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "postgresql":
        raise ConfigError(
            "PostgreSQL is not supported by this version.",
            hint="Use sqlite:///folder/kagimori.db.",
        )
    if parts.scheme != "sqlite" or parts.netloc or not parts.path.startswith("/"):
        raise ConfigError(
            f"The store {url!r} is no database that can be opened.",
            hint="Write sqlite:/// and the absolute path of a file.",
        )
    return Path(unquote(parts.path))


def _open_sqlite(path: Path, clock: Clock, *, create: bool) -> Store:
    from kagimori.storage.sqlite import SqliteStore

    if not create and not os.path.lexists(path):
        raise StoreError(
            f"There is no database at {path}.",
            hint="Restore it from a backup, or correct `store` in kagimori.toml.",
            path=str(path),
        )
    if not create and not path.lstat().st_size:
        # SQLite would take it for a new one, and all that was in it for never written.
        raise StoreError(
            f"The database {path} is empty.",
            hint="Restore it from a backup, together with its -wal.",
            path=str(path),
        )
    return SqliteStore.open(path, clock=clock, create=create)
