"""
Which key .NET nodes on the same ring protect with, foretold.

Rules of this module:

1. Here is what .NET 10.0.12 as shipped does (`aspnet-data-protection.md` 4.2.0), not what we
   do: our own choice passes over a key that cannot be used, .NET's does not.
2. Everything is a function of the keys' times and of ``now``, compared to the tick.
3. A key that only we can open counts as unreadable: .NET will find it so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from kagimori.errors import KagimoriError
from kagimori.keys.protection import ticks
from kagimori.keys.protection.contents import Contents
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.ticks import Ticks

if TYPE_CHECKING:
    from kagimori.keys.protection.ring import ProtectionRing

SKEW = timedelta(minutes=5)
"""How far ahead of its activation a key is taken."""

PROPAGATION = timedelta(days=2)
"""After how long .NET counts on every node's having a key."""

REFRESH = timedelta(days=1)
"""How long .NET goes without looking at the ring, at most."""


@dataclass(frozen=True, slots=True)
class DotnetKey:
    """
    What .NET's choice depends on, of one key.
    """

    id: str
    created: Ticks
    activates: Ticks
    expires: Ticks
    is_revoked: bool


@dataclass(frozen=True, slots=True)
class DotnetChoice:
    """
    What a .NET node comes to.

    Attributes:
        default: the id of the key that it protects with; ``None`` where it has none.
        fallback: the id of the key that it takes without a default where it may not make one.
        generates: whether it would make a new key at once, which every other node has to see
            first.
    """

    default: str | None
    fallback: str | None
    generates: bool


@dataclass(frozen=True, slots=True)
class DotnetKeyToCome:
    """
    A key that the next .NET node to load the ring adds to it, if it may.
    """

    activates: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class DotnetForecast:
    """
    What .NET nodes on a ring will do.

    Attributes:
        choice: which key they protect with.
        to_come: the key that the next of them to load the ring adds, unless it may not;
            ``None`` if it adds none.
    """

    choice: DotnetChoice
    to_come: DotnetKeyToCome | None


def default_key(
    keys: Sequence[DotnetKey], now: datetime, read: Callable[[str], bool]
) -> DotnetChoice:
    """
    Return which key .NET nodes choose at `now`.

    Args:
        keys: in the order in which the store hands them out, which decides among equals.
        read: whether .NET can unwrap the key of an id. Asked of the fewest keys: unwrapping
            may cost a call to a vault.
    """
    at = ticks.from_datetime(now)
    latest = at + ticks.from_timedelta(SKEW)
    active = [key for key in keys if key.activates <= latest]
    preferred = min(active, key=lambda key: (-key.activates, key.id), default=None)
    if (
        preferred is not None
        and not preferred.is_revoked
        and preferred.expires > at
        and read(preferred.id)
    ):
        return DotnetChoice(preferred.id, None, generates=False)
    seen = at - ticks.from_timedelta(PROPAGATION)
    usable = [key for key in keys if not key.is_revoked]
    spread = [key for key in usable if key.created <= seen and key is not preferred]
    fresh = [key for key in usable if key.created > seen]
    spread.sort(key=lambda key: -key.created)
    fresh.sort(key=lambda key: key.created)
    fallback = next((key.id for key in (*spread, *fresh) if read(key.id)), None)
    return DotnetChoice(None, fallback, generates=True)


def key_to_come(
    keys: Sequence[DotnetKey],
    now: datetime,
    read: Callable[[str], bool],
    lifetime: timedelta = timedelta(days=90),
) -> DotnetKeyToCome | None:
    """
    Return the key that a .NET node which loads the ring at `now` adds; ``None`` if it adds none.

    Args:
        keys: as for `default_key`.
        read: as for `default_key`.
        lifetime: of the node's new keys, counted from now (4.3).
    """
    default = default_key(keys, now, read).default
    if default is None:
        return DotnetKeyToCome(now, now + lifetime)
    ends = {key.id: ticks.to_datetime(key.expires) for key in keys}
    needed = now + REFRESH + PROPAGATION
    end = ends[default]
    if end >= needed:
        return None
    heir = default_key(keys, end, read).default
    if heir is not None and ends[heir] >= needed:
        return None
    return DotnetKeyToCome(end, now + lifetime)


def described(contents: Contents) -> tuple[DotnetKey, ...]:
    """
    Return the keys of a loaded ring as .NET sees them.
    """
    return tuple(
        DotnetKey(
            key.id,
            key.stored.created,
            key.stored.activates,
            key.stored.expires,
            key.is_revoked,
        )
        for key in contents.keys
    )


def forecast(ring: ProtectionRing, now: datetime | None = None) -> DotnetForecast:
    """
    Return what .NET nodes on a ring will do.

    A key counts as readable for them where it opens here and its envelope is one that .NET
    knows: whether they hold the wrapping key nobody can tell from here.

    Args:
        now: the ring's time where it is left out.

    Raises:
        KeyRingError: the ring was closed.
    """
    contents, at = ring._live.contents, now or ring.now()
    by_id, keys = {key.id: key for key in contents.keys}, described(contents)

    def read(key_id: str) -> bool:
        return opens_there(by_id[key_id])

    return DotnetForecast(default_key(keys, at, read), key_to_come(keys, at, read))


def opens_there(key: ProtectionKey) -> bool:
    """
    Whether .NET nodes that hold the wrapping key can open a key.
    """
    if not key.stored.opens_in_dotnet:
        return False
    try:
        key.material.open()
    except KagimoriError:
        return False
    return True
