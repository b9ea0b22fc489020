"""
Looks at everything an installation stands on, and says what to do.

Rules of this module:

1. It reads and changes nothing, so it may run beside a server at any time.
2. One check that fails never hides the others.
3. A finding has a stable code; what it says is translated by it, like an error.
"""

from __future__ import annotations

import enum
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from kagimori.admin.audit import verify_trail
from kagimori.admin.key_views import KeyView
from kagimori.errors import KagimoriError
from kagimori.keys.timeline import KeyState, KeyUse
from kagimori.oauth.tenant import TENANTS
from kagimori.storage.store import Store

SKEW = timedelta(seconds=5)
LIMIT = 1000


class Verdict(enum.Enum):
    """
    How a check ended.
    """

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one check found.

    Attributes:
        check: what was looked at, such as ``clock``.
        verdict: how it is.
        code: stable; names the translation.
        text: what was found.
        hint: what to do, where something is to be done.
        params: what the translated text names.
    """

    check: str
    verdict: Verdict
    code: str
    text: str
    hint: str = ""
    params: Mapping[str, str] = {}


def good(check: str, code: str, text: str, **params: str) -> Finding:
    """
    Return a finding that needs nothing.
    """
    return Finding(
        check=check, verdict=Verdict.GOOD, code=code, text=text, params=params
    )


def warning(check: str, code: str, text: str, hint: str, **params: str) -> Finding:
    """
    Return a finding that should be looked after.
    """
    return Finding(
        check=check,
        verdict=Verdict.WARNING,
        code=code,
        text=text,
        hint=hint,
        params=params,
    )


def bad(check: str, code: str, text: str, hint: str, **params: str) -> Finding:
    """
    Return a finding that stops the installation from doing its work safely.
    """
    return Finding(
        check=check,
        verdict=Verdict.BAD,
        code=code,
        text=text,
        hint=hint,
        params=params,
    )


def of_error(check: str, error: KagimoriError) -> Finding:
    """
    Return the finding that an error makes.
    """
    return Finding(
        check=check,
        verdict=Verdict.BAD,
        code=f"error.{error.code}",
        text=error.text,
        hint=error.hint,
        params=error.params,
    )


async def guarded(
    check: str, work: Awaitable[Iterable[Finding]]
) -> tuple[Finding, ...]:
    """
    Run one check; an error becomes its finding.
    """
    try:
        return tuple(await work)
    except KagimoriError as error:
        return (of_error(check, error),)


# --- files ---------------------------------------------------------------------------------


def check_files(paths: Iterable[Path]) -> tuple[Finding, ...]:
    """
    Refuse files that others may read or write (attack K11).
    """
    found = []
    for path in paths:
        try:
            mode = path.lstat().st_mode
        except OSError:
            continue
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            found.append(
                bad(
                    "files",
                    "files.irregular",
                    f"{path} is no regular file.",
                    "Put the file itself there, not a link.",
                    path=str(path),
                )
            )
        elif stat.S_IMODE(mode) & 0o077:
            found.append(
                bad(
                    "files",
                    "files.loose",
                    f"Others may read or change {path}.",
                    f"chmod go-rwx {path}",
                    path=str(path),
                )
            )
    if found:
        return tuple(found)
    return (good("files", "files.good", "Nobody else can read the data folder."),)


# --- the store -----------------------------------------------------------------------------


async def check_clock(store: Store, now: Callable[[], datetime]) -> tuple[Finding, ...]:
    """
    Compare this machine's time with the store's.
    """
    loaded = await store.load_many("default", [TENANTS.key("default")])
    apart = abs(loaded.now - now())
    seconds = f"{apart.total_seconds():.1f}"
    if apart > SKEW:
        return (
            bad(
                "clock",
                "clock.apart",
                f"This machine's clock and the store's lie {seconds} s apart.",
                "Set the clock right (NTP); 5 s are allowed.",
                seconds=seconds,
            ),
        )
    return (
        good(
            "clock",
            "clock.good",
            f"This machine and the store agree ({seconds} s apart).",
            seconds=seconds,
        ),
    )


async def check_trails(store: Store) -> tuple[Finding, ...]:
    """
    Verify the audit chain of every tenant.
    """
    total = 0
    for tenant in await TENANTS.find(store, None, limit=LIMIT):
        total += await verify_trail(store, tenant.id)
    return (
        good(
            "audit",
            "audit.good",
            f"The audit trail is whole ({total} records).",
            count=str(total),
        ),
    )


# --- keys ----------------------------------------------------------------------------------


def check_keys(
    tenant: str, views: Iterable[KeyView], now: datetime
) -> tuple[Finding, ...]:
    """
    Judge the keys of a tenant: each use has a current key, and none is overdue.
    """
    keys = tuple(views)
    found = []
    for use in KeyUse:
        current = [
            key
            for key in keys
            if key.use == use.value and key.state == KeyState.CURRENT.value
        ]
        if not current:
            found.append(
                bad(
                    "keys",
                    "keys.none",
                    f"The tenant {tenant} has no current {use.value} key.",
                    "Look with `kagimori keys list`; is the ring readable?",
                    tenant=tenant,
                    use=use.value,
                )
            )
        found += [
            _overdue(tenant, key) for key in current if key.due and key.due <= now
        ]
    if found:
        return tuple(found)
    waiting = sum(key.state == KeyState.NEXT.value for key in keys)
    return (
        good(
            "keys",
            "keys.good",
            f"The keys of {tenant} are current; {waiting} wait for their turn.",
            tenant=tenant,
            count=str(waiting),
        ),
    )


def _overdue(tenant: str, key: KeyView) -> Finding:
    return warning(
        "keys",
        "keys.overdue",
        f"The {key.use} key {key.kid} of {tenant} is due for a successor. It goes on.",
        "Is a server running? It rotates by schedule; or: kagimori keys rotate.",
        tenant=tenant,
        use=key.use,
        kid=key.kid,
    )
