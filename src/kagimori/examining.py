"""
What ``kagimori doctor`` looks at, in an installation that may not even open.

Rules of this module:

1. It goes from the ground up: settings, files, ring, database, keys. What cannot be opened ends
   the way there and is itself the finding.
2. It changes nothing but the marks that an operator accepts by name (attack K7).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kagimori.admin import doctor
from kagimori.admin.doctor import Finding
from kagimori.compose import Installation, open_installation
from kagimori.errors import KagimoriError
from kagimori.oauth.tenant import TENANTS
from kagimori.opening import secret_files
from kagimori.settings import Settings
from kagimori.storage.sqlite_checkup import check_up

LITTLE_ROOM = 256 * 1024 * 1024
"""Bytes; with less room on the disk the doctor warns."""

GIB = 1024**3


async def examine(settings: Settings) -> tuple[Finding, ...]:
    """
    Examine an installation and return what was found, in the order it was looked at.
    """
    found: list[Finding] = list(doctor.check_files(_files(settings)))
    found += await doctor.guarded("database", _database(settings))
    try:
        installation = open_installation(settings)
    except KagimoriError as error:
        return (*found, doctor.of_error("open", error))
    try:
        found += _ring(installation)
        await installation.check_marks()
        found += [
            doctor.of_error("restored", error)
            for error in installation.problems(installation.clock.now())
            if error.code == "restored"
        ]
        now = installation.clock.now
        found += await doctor.guarded(
            "clock", doctor.check_clock(installation.store, now)
        )
        found += await doctor.guarded("keys", _keys(installation))
        found += await doctor.guarded("audit", doctor.check_trails(installation.store))
    except KagimoriError as error:
        found.append(doctor.of_error("open", error))
    finally:
        await installation.close()
    return tuple(found)


def _files(settings: Settings) -> Iterable[Path]:
    # Certificates are public; what holds a secret must not be open to others.
    yield settings.data
    yield from sorted(settings.data.rglob("*"))
    if settings.wrapper_url is not None:
        yield from secret_files(settings.wrapper_url)


async def _database(settings: Settings) -> tuple[Finding, ...]:
    path = Path(unquote(urlsplit(settings.store_url).path))
    state = check_up(path)
    if state.damage:
        return (
            doctor.bad(
                "database",
                "database.damaged",
                f"The database {path} is damaged: {state.damage}.",
                "Stop the server and restore the database from a backup.",
                path=str(path),
                damage=state.damage,
            ),
        )
    found = []
    if state.journal_mode != "wal":
        found.append(
            doctor.bad(
                "database",
                "database.journal",
                f"The database's journal mode is {state.journal_mode}, not wal.",
                "Put the database on a local disk; network shares cannot hold it.",
                mode=state.journal_mode,
            )
        )
    if state.free_bytes < LITTLE_ROOM:
        room = f"{state.free_bytes / GIB:.2f}"
        found.append(
            doctor.warning(
                "database",
                "database.room",
                f"Only {room} GiB are free on the database's disk.",
                "Make room: a full disk stops sign-ins, though it loses nothing.",
                room=room,
            )
        )
    size = f"{state.size_bytes / 1024 / 1024:.1f}"
    return (
        *found,
        doctor.good(
            "database",
            "database.good",
            f"The database is whole ({size} MiB), and every commit is synced to disk.",
            size=size,
        ),
    )


def _ring(installation: Installation) -> tuple[Finding, ...]:
    ring = installation.ring
    if ring.problem is not None:
        return (doctor.of_error("ring", ring.problem),)
    found = [
        doctor.good(
            "ring",
            "ring.good",
            f"The ring at {ring.location_name} is readable, and a key of it protects.",
            location=ring.location_name,
        )
    ]
    probe = ring.protector("kagimori", "doctor")
    if probe.unprotect(probe.protect(b"probe")).payload != b"probe":
        found = [
            doctor.bad(
                "ring",
                "ring.broken",
                "The ring does not open what it protects.",
                "Restore the ring from a backup.",
            )
        ]
    if ring.is_clear:
        found.append(
            doctor.warning(
                "wrapping",
                "wrapping.none",
                "Keys of the ring lie unwrapped: whoever reads the ring has them.",
                "Make an installation with --wrapper passphrase:file:/path.",
            )
        )
    else:
        found.append(
            doctor.good(
                "wrapping",
                "wrapping.good",
                f"The ring's keys are wrapped by {ring.wrapper_name}.",
                wrapper=str(ring.wrapper_name),
            )
        )
    return tuple(found)


async def _keys(installation: Installation) -> tuple[Finding, ...]:
    await installation.rings.start()
    found: list[Finding] = [
        doctor.of_error("keys", error)
        for error in installation.rings.problems().values()
    ]
    after: str | None = None
    while True:
        page = await TENANTS.find(installation.store, None, limit=200, after=after)
        for tenant in page:
            views = await installation.keys.list(tenant.id)
            found += doctor.check_keys(tenant.id, views, installation.clock.now())
        if len(page) < 200:
            return tuple(found)
        after = page[-1].id
