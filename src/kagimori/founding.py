"""
Making an installation: for real (`found`), or as a demo world (`open_demo`).

Rules of this module:

1. The settings file is written last. A folder without it is no installation, so a founding that
   died halfway can be run again, and goes on with the keys that are there already.
2. A real folder never becomes a demo, nor a demo a real one.
3. The demo's passphrase is random, lies in its folder with mode 0600, and is made once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from kagimori.admin.bootstrap import make_owner
from kagimori.admin.demo import make_demo_world
from kagimori.clock import Clock
from kagimori.compose import Installation, make_installation, open_installation
from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.errors import ConfigError, InsecureConfigError, RefusedError
from kagimori.events import EventSink
from kagimori.keys.birth import NewRings
from kagimori.keys.journal import Cause
from kagimori.oauth.tenant import DEFAULT_TENANT
from kagimori.settings import (
    FILE_NAME,
    Settings,
    parse_listen,
    read_settings,
    with_environment,
    write_settings,
)

PASSPHRASE_FILE = "passphrase"
DEMO_WRAPPER = f"passphrase:file:{{data}}/{PASSPHRASE_FILE}"
DEMO_HOST = "localhost"
DEMO_PORT = 3000
EARLIER_ADDRESSES = 20
"""How many earlier addresses of a demo folder are remembered."""


@dataclass(frozen=True, slots=True)
class Founded:
    """
    What was made, and the one-time link by which the owner sets a password.
    """

    settings: Settings
    owner_link: str = field(repr=False)


async def found(
    settings: Settings,
    *,
    signing_algorithm: str,
    owner: str,
    cause: Cause,
    insecure_plaintext_keys: bool = False,
    clock: Clock | None = None,
) -> Founded:
    """
    Make an installation: ring, database, the tenant `default` with its keys, the owner.

    Args:
        settings: with the folder; its wrapper may be left out only with
            `insecure_plaintext_keys`.
        signing_algorithm: the default; ES256 and RS256 stand beside it.
        owner: the owner's username.
        insecure_plaintext_keys: keep the ring's keys readable by whoever reads the ring.

    Raises:
        RefusedError: the folder holds an installation already.
        ConfigError: a setting cannot be right.
        InsecureConfigError: the ring would lie unwrapped.
        KagimoriError: as ring and store raise.
    """
    settings = _with_wrapper(settings, insecure=insecure_plaintext_keys).validate()
    _check_algorithm(signing_algorithm)
    if settings.file.exists():
        raise RefusedError(
            f"{settings.data} holds an installation already.",
            hint="Name another folder with --data, or start this one: kagimori serve",
            folder=str(settings.data),
        )
    make_folder(settings.data)
    plan = NewRings.with_default(signing_algorithm)
    installation = make_installation(settings, plan, clock=clock)
    try:
        await ensure_default_tenant(installation, plan, cause)
        link = await make_owner(
            installation.store,
            installation.trail,
            installation.clock.now,
            issuer=settings.issuer,
            username=owner,
            cause=cause,
        )
    finally:
        await installation.close()
    write_settings(settings)
    return Founded(settings, link)


def _with_wrapper(settings: Settings, *, insecure: bool) -> Settings:
    plaintext = settings.wrapper in (None, "plaintext:")
    if plaintext and not insecure:
        raise InsecureConfigError(
            "The key ring would lie unwrapped: whoever reads it could sign in as anybody.",
            hint="Give --wrapper passphrase:file:/path, certificate:/path.pfx?… or, knowing "
            "what it means, --insecure-plaintext-keys.",
        )
    if insecure and not plaintext:
        raise ConfigError(
            "--insecure-plaintext-keys contradicts --wrapper.", hint="Leave one out."
        )
    return (
        msgspec.structs.replace(settings, wrapper="plaintext:")
        if plaintext
        else settings
    )


def _check_algorithm(name: str) -> None:
    if name not in ALGORITHMS:
        raise ConfigError(
            f"Tokens cannot be signed with {name!r}.",
            hint=f"Choose one of {', '.join(ALGORITHMS)}.",
        )


def make_folder(folder: Path) -> None:
    """
    Make a data folder, readable by its owner only.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"{folder} cannot be made: {exc.strerror}.",
            hint="Choose a folder that you may write to: --data FOLDER",
            folder=str(folder),
        ) from None


async def ensure_default_tenant(
    installation: Installation, plan: NewRings, cause: Cause
) -> None:
    """
    Make the tenant `default` with its keys, unless it is there.

    Raises:
        KagimoriError: as ring and store raise.
    """
    if any(each.id == DEFAULT_TENANT for each in await installation.tenants.list()):
        return
    try:
        await installation.tenants.create(
            DEFAULT_TENANT, name="Default", plan=plan, cause=cause
        )
    except RefusedError:
        # Another process that founds the same folder was faster.
        return


# --- the demo world ------------------------------------------------------------------------


def demo_settings(folder: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """
    Return the settings of a demo folder, made new or moved to the port it is to listen on.

    Raises:
        RefusedError: the folder is a real installation's, or holds something else.
        ConfigError: the folder cannot be used, or the address is not on this machine.
    """
    env = os.environ if environ is None else environ
    listen = env.get("KAGIMORI_LISTEN")
    port = parse_listen(listen)[1] if listen else None
    return with_environment(_kept_settings(folder, port), env)


def _kept_settings(folder: Path, port: int | None) -> Settings:
    """
    Return what the demo's file is to hold: addresses, and nothing that the environment says.
    """
    if not (folder / FILE_NAME).exists() and _is_fresh(folder):
        return Settings(
            data=folder,
            issuer=_address(port or DEMO_PORT),
            wrapper=DEMO_WRAPPER,
            demo=True,
        ).validate()
    settings = read_settings(folder, {})
    if not settings.demo:
        raise RefusedError(
            f"{folder} is a real installation; the demo does not touch it.",
            hint="Start it without --demo, or give the demo another folder: --data FOLDER",
            folder=str(folder),
        )
    if port is None or settings.issuer == _address(port):
        return settings
    issuer = _address(port)
    earlier = dict.fromkeys((settings.issuer, *settings.earlier_issuers))
    earlier.pop(issuer, None)
    return msgspec.structs.replace(
        settings, issuer=issuer, earlier_issuers=tuple(earlier)[:EARLIER_ADDRESSES]
    ).validate()


def _address(port: int) -> str:
    return f"http://{DEMO_HOST}" + ("" if port == 80 else f":{port}")


_OURS = frozenset(
    {
        PASSPHRASE_FILE,
        "ring",
        "kagimori.db",
        "kagimori.db-journal",
        "kagimori.db-shm",
        "kagimori.db-wal",
    }
)


def _is_fresh(folder: Path) -> bool:
    """
    Whether a demo may be made here; not, where another process has just made one.

    Raises:
        RefusedError: the folder holds something else.
        ConfigError: it cannot be looked into.
    """
    try:
        names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    except OSError as exc:
        raise ConfigError(
            f"{folder} cannot be used: {exc.strerror}.",
            hint="Choose a folder that you may write to: --data FOLDER",
            folder=str(folder),
        ) from None
    if FILE_NAME in names:
        return False
    # A demo that died while it was made left some of our own names, the passphrase first.
    made = {name for name in names if not _is_half(name)}
    if made and not (made <= _OURS and PASSPHRASE_FILE in made):
        raise RefusedError(
            f"{folder} is not empty, and no demo world.",
            hint="Give the demo an empty or new folder: --data FOLDER",
            folder=str(folder),
        )
    return True


def _is_half(name: str) -> bool:
    # What is written before it gets its name.
    return name.startswith((f"{PASSPHRASE_FILE}.", f".{FILE_NAME}."))


def make_demo_folder(settings: Settings) -> None:
    """
    Make the folder and passphrase of a demo, where they are not there, and check them.

    Raises:
        InsecureConfigError: something in the folder is a link or no regular file.
        ConfigError: the folder cannot be written.
    """
    make_folder(settings.data)
    path = settings.data / PASSPHRASE_FILE
    try:
        if not path.exists():
            _make_passphrase(path)
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be written: {exc.strerror}.",
            hint="Choose a folder that you may write to: --data FOLDER",
            path=str(path),
        ) from None
    check_regular(settings.data.rglob("*"))


def _make_passphrase(path: Path) -> None:
    # Whole or not at all: a file that a crash left empty would stop every later start. The
    # link refuses to replace, so of two processes one passphrase stands.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_regular(paths: Iterable[Path]) -> None:
    """
    Refuse links, sockets and devices in a data folder (attack K11).

    Raises:
        InsecureConfigError: there is one.
    """
    for path in paths:
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InsecureConfigError(
                f"{path} is no regular file.",
                hint="Only regular files may lie in a data folder; put the file itself there.",
                path=str(path),
            )


def _keep(settings: Settings) -> None:
    kept = _kept_settings(settings.data, urlsplit(settings.issuer).port)
    if not settings.file.exists() or read_settings(settings.data, {}) != kept:
        write_settings(kept)


async def open_demo(
    settings: Settings, *, clock: Clock | None = None, events: EventSink | None = None
) -> Installation:
    """
    Open a demo world, making it where it was not made to its end; its settings come last.

    Raises:
        KagimoriError: as ring and store raise.
    """
    if settings.file.exists():
        return await _open_made_demo(settings, clock, events)
    make_demo_folder(settings)
    plan = NewRings.demo()
    installation = make_installation(settings, plan, clock=clock, events=events)
    try:
        await ensure_default_tenant(installation, plan, Cause("demo", "the demo world"))
        await make_demo_world(
            installation.apis, installation.clients, installation.users
        )
        _keep(settings)
    except BaseException:
        await installation.close()
        raise
    return installation


async def _open_made_demo(
    settings: Settings, clock: Clock | None, events: EventSink | None
) -> Installation:
    # Once it was made, whatever is missing was lost: nothing takes its place (attack K5).
    check_regular(settings.data.rglob("*"))
    installation = open_installation(settings, clock=clock, events=events)
    try:
        _keep(settings)
    except BaseException:
        await installation.close()
        raise
    return installation
