"""
What a server says when it has started, as a value: the command line puts it into words.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from kagimori.admin.key_views import KeyView
from kagimori.compose import Installation
from kagimori.errors import KagimoriError
from kagimori.keys.timeline import KeyState
from kagimori.oauth.client import CLIENTS, Profile
from kagimori.oauth.tenant import DEFAULT_TENANT
from kagimori.settings import Settings

BASIC = "Authorization: Basic dGVzdGNsaWVudDpzZWNyZXQ="
"""The demo client's credentials; published, and good in the demo world only."""


class Unfit(msgspec.Struct, frozen=True):
    """
    Something that is not fit for production.

    Attributes:
        code: stable; the command line has a text for it.
        text: the same in English.
        command: what makes it fit.
        params: what the text names.
    """

    code: str
    text: str
    command: str
    params: dict[str, str] = {}


class StartReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a server says when it has started.

    Attributes:
        data: the data folder.
        issuer: the issuer of the tenant ``default``.
        addresses: what it listens on, ``HOST:PORT``.
        admin: where metrics and probes are.
        workers: how many processes serve.
        demo: whether this is a demo world.
        earlier_issuers: whose living tokens are accepted as well.
        keys: the current keys.
        unfit: what is not fit for production.
        transcript: lines to paste; the demo world has some.
        problem: why it is not ready yet, if it is not.
    """

    data: str
    issuer: str
    addresses: tuple[str, ...]
    admin: str
    workers: int = 1
    demo: bool = False
    earlier_issuers: tuple[str, ...] = ()
    keys: tuple[KeyView, ...] = ()
    unfit: tuple[Unfit, ...] = ()
    transcript: tuple[str, ...] = ()
    problem: str = ""


async def make_report(
    settings: Settings,
    installation: Installation | None,
    addresses: Sequence[str],
    admin: str,
    problem: KagimoriError | None = None,
) -> StartReport:
    """
    Return the report of a server that has just started.

    Args:
        installation: ``None`` where it could not be opened yet.
        problem: why.
    """
    keys: tuple[KeyView, ...] = ()
    unfit: tuple[Unfit, ...] = ()
    if installation is not None:
        views = await installation.keys.list(DEFAULT_TENANT)
        keys = tuple(view for view in views if view.state == KeyState.CURRENT.value)
        unfit = await _unfit(installation)
        restored = installation.problems(installation.clock.now())
        problem = problem or next(iter(restored), None)
    return StartReport(
        data=str(settings.data),
        issuer=settings.issuer,
        addresses=tuple(addresses),
        admin=admin,
        workers=settings.server.workers,
        demo=settings.demo,
        earlier_issuers=settings.earlier_issuers,
        keys=keys,
        unfit=unfit,
        transcript=transcript(settings) if settings.demo else (),
        problem=str(problem) if problem is not None else "",
    )


async def _unfit(installation: Installation) -> tuple[Unfit, ...]:
    settings = installation.settings
    found: list[Unfit] = []
    if settings.demo:
        found.append(
            Unfit(
                "demo",
                "The demo world's users and secrets are published.",
                f"{_program()} init --issuer URL --wrapper URL",
            )
        )
    elif urlsplit(settings.issuer).scheme == "http":
        found.append(
            Unfit(
                "http",
                "The issuer is plain http, for this machine only.",
                f"{_program()} init --issuer https://HOST --wrapper URL",
            )
        )
    if installation.ring.is_clear:
        found.append(
            Unfit(
                "plaintext",
                "Keys of the ring lie unwrapped in their store.",
                f"{_program()} init --wrapper passphrase:file:PATH",
            )
        )
    legacy = await CLIENTS.find(
        installation.store, None, ("profile", Profile.LEGACY_2015.value)
    )
    if legacy:
        names = ", ".join(each.id for each in legacy[:5])
        found.append(
            Unfit(
                "legacy_clients",
                f"Clients of the profile legacy-2015 may send passwords: {names}.",
                f"{_program()} clients delete {legacy[0].id}",
                {"clients": names},
            )
        )
    found += [
        Unfit(
            "bearer_in_query",
            f"The API {api.id} takes tokens from addresses, which end up in logs and "
            "histories.",
            f"{_program()} apis delete {api.id}",
            {"api": api.id},
        )
        for api in installation.services.resources(DEFAULT_TENANT)
        if api.bearer_in_query
    ]
    if settings.demo:
        # Its legacy switches are part of it: one command makes all of it fit.
        command = found[0].command
        return tuple(msgspec.structs.replace(each, command=command) for each in found)
    return tuple(found)


def transcript(settings: Settings) -> tuple[str, ...]:
    """
    Return the demo's lines, ready to paste into a shell.
    """
    host = settings.issuer.removeprefix("http://")
    data = shlex.quote(str(settings.data))
    post = f"curl -s -X POST -H '{BASIC}'"
    secret = f'curl "{host}/secret?access_token=$AT"'
    first = "'grant_type=password&username=test&password=test'"
    pick = """$(echo "$A" | sed 's/.*"%s":"\\([^"]*\\)".*/\\1/')"""
    return (
        f'A=$({post} -d {first} {host}/oauth/token); echo "$A"',
        f"AT={pick % 'access_token'}; RT={pick % 'refresh_token'}",
        secret,
        f"{_program()} keys rotate signing --now --emergency --yes --data {data}",
        secret,
        f'{post} -d "refresh_token=$RT&grant_type=refresh_token" {host}/oauth/token',
    )


def _program() -> str:
    """
    Return how this program is called from a shell that stands anywhere.
    """
    called = Path(sys.argv[0])
    if called.name != "kagimori" or not called.exists():
        return "kagimori"
    found = shutil.which("kagimori")
    if found is not None and Path(found).samefile(called):
        return "kagimori"
    # From a virtual environment that is not active, the bare name would not be found.
    return shlex.quote(str(called.absolute()))
