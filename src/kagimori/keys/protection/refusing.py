"""
What the verbs of a protection ring say when they refuse: the reason, and the next step.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from kagimori.crypto.aead import REFUSED
from kagimori.errors import (
    ClockBehindError,
    KeyStateError,
    NotFoundError,
    NotPropagatedError,
    UnknownKeyIdError,
)
from kagimori.keys.protection import frame, ticks
from kagimori.keys.protection.contents import Contents, clock_hint
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.timeline import KeyState, rfc3339


def require(contents: Contents, key_id: str) -> ProtectionKey:
    """
    Return the key of an id.

    Raises:
        NotFoundError: the ring holds none.
    """
    key = contents.get(key_id)
    if key is None:
        raise NotFoundError(
            f"The ring holds no key {key_id}.",
            hint="`kagimori ring list` shows the keys.",
            key=key_id,
        )
    return key


def waiting(
    contents: Contents, now: datetime, key_id: str | None, done: str
) -> ProtectionKey:
    """
    Return the waiting key of an id, or the first to take over.

    Args:
        done: what was to be done to it, such as ``cancelled``.

    Raises:
        NotFoundError: there is no such key.
        KeyStateError: it does not wait, or none does.
    """
    found = contents.waiting(now)
    if key_id is None:
        if not found:
            raise KeyStateError(
                "No key waits to take over.", hint="Rotate to make a successor."
            )
        return found[0]
    key = require(contents, key_id)
    if key not in found:
        way = "No key is ever revived: rotate to get a new one."
        raise wrong_state(key, contents.state_of(key, now), done, way)
    return key


def wrong_state(
    key: ProtectionKey, state: KeyState, done: str, way: str
) -> KeyStateError:
    """
    Refuse a verb that does not apply to a key in its present state.
    """
    return KeyStateError(
        f"The key {key.id} is {state.name} and cannot be {done}.",
        hint=way,
        key=key.id,
        state=state.value,
    )


def too_early(what: str, safe: datetime, contents: Contents) -> NotPropagatedError:
    """
    Refuse to let a key protect before every node can have it.
    """
    shared = any(key.stored.opens_in_dotnet for key in contents.keys)
    who = ".NET nodes, which look once a day," if shared else "other nodes"
    return NotPropagatedError(
        f"Before {rfc3339(safe)} {who} may not have {what}, and would refuse what it protects.",
        hint="Wait until then, or declare an emergency and accept refused payloads.",
        safe=rfc3339(safe),
    )


def behind(contents: Contents, now: datetime, skew: timedelta) -> None:
    """
    Refuse to write dates by a clock that stands before the ring.

    Raises:
        ClockBehindError: it does.
    """
    ahead = contents.ahead(now, skew)
    if ahead is not None:
        raise ClockBehindError(
            "This machine's clock shows a time before the ring's newest key was made.",
            hint=clock_hint(ahead),
            key=ahead.id,
        )


def protected(contents: Contents, keys: Iterable[ProtectionKey]) -> None:
    """
    Refuse to treat a key as waiting that is known to have protected.

    Raises:
        ClockBehindError: one did; it waits by this machine's clock only.
    """
    for key in keys:
        since = contents.state.protected.get(key.id)
        if since is not None:
            raise ClockBehindError(
                f"The key {key.id} has protected since {ticks.write(since)}, though by this "
                "machine's clock it waits.",
                hint=clock_hint(key),
                key=key.id,
            )


def unknown_key(
    where: str,
    contents: Contents | None,
    raw_id: bytes,
    loaded_at: datetime | None,
    *,
    transient: bool,
) -> UnknownKeyIdError:
    """
    Refuse a payload whose key the ring does not hold; the log learns where and since when.

    Args:
        transient: whether the store could not be asked.
    """
    key_id = frame.id_text(raw_id)
    reason = contents.state.reasons.get(key_id) if contents else None
    seen = (
        "which it never recorded" if reason is None else f"of which it says: {reason}"
    )
    return UnknownKeyIdError(
        REFUSED,
        transient=transient,
        detail=f"the ring at {where} holds no key {key_id}, {seen}; last loaded {loaded_at}",
    )
