"""
What the verbs of a ring say when they refuse: the reason, the times, and the next step.
"""

from __future__ import annotations

from datetime import datetime

from kagimori.errors import (
    ClockBehindError,
    KeyStateError,
    NextKeyWaitsError,
    NotFoundError,
    NotPropagatedError,
)
from kagimori.keys.lineup import RingKey
from kagimori.keys.timeline import KeyState, KeyUse, rfc3339

_NEXT_STEP = {
    ("activate", KeyState.CURRENT): "It signs already.",
    ("activate", KeyState.PREVIOUS): "Rotate to get a new key; none is ever revived.",
    ("activate", KeyState.RETIRED): "Rotate to get a new key; none is ever revived.",
    ("activate", KeyState.REVOKED): "Rotate to get a new key; none is ever revived.",
    ("cancel", KeyState.CURRENT): "Rotate to replace it, or revoke it.",
    ("cancel", KeyState.PREVIOUS): "Delete it once its tokens are over, or revoke it.",
    ("delete", KeyState.CURRENT): "Rotate first: the key that signs cannot be deleted.",
    ("delete", KeyState.NEXT): "Cancel it instead.",
    (
        "delete",
        KeyState.REVOKED,
    ): "Nothing is left of it; it leaves the list by itself.",
    ("revoke", KeyState.REVOKED): "Nothing is left to do.",
}

_DONE = {
    "activate": "activated",
    "cancel": "cancelled",
    "delete": "deleted",
    "revoke": "revoked",
}


def no_such_key(id_: str, use: KeyUse) -> NotFoundError:
    """
    Refuse a key that the ring does not hold.
    """
    return NotFoundError(
        f"There is no {use.value} key {id_}.",
        hint="`kagimori keys list` shows the keys.",
        kid=id_,
        use=use.value,
    )


def wrong_state(key: RingKey, state: KeyState, verb: str) -> KeyStateError:
    """
    Refuse a verb that does not apply to a key in its present state.
    """
    return KeyStateError(
        f"The key {key.id} is {state.name} and cannot be {_DONE.get(verb, verb)}.",
        hint=_NEXT_STEP.get((verb, state), "`kagimori keys list` shows the states."),
        kid=key.id,
        state=state.value,
        verb=verb,
    )


def known_already(key: RingKey) -> KeyStateError:
    """
    Refuse a key that is in the ring.
    """
    return KeyStateError(
        f"The key {key.id} is in the ring already.",
        hint="Make a new key.",
        kid=key.id,
    )


def next_waits(waiting: RingKey) -> NextKeyWaitsError:
    """
    Refuse to make another key while one waits (row 2 of what peers break).
    """
    times = waiting.timeline
    return NextKeyWaitsError(
        f"The key {waiting.id} ({waiting.algorithm}) waits already: published "
        f"{rfc3339(times.published)}, takes over {rfc3339(times.activates)}.",
        hint="Let it take over, cancel it, or say --replace to make another.",
        kid=waiting.id,
        algorithm=waiting.algorithm,
        published=rfc3339(times.published),
        activates=rfc3339(times.activates),
    )


def too_early(id_: str, safe: datetime) -> NotPropagatedError:
    """
    Refuse to let a key sign before verifiers can have seen it (row 3, attack K6).
    """
    return NotPropagatedError(
        f"The key {id_} cannot sign before {rfc3339(safe)}: verifiers that hold an older "
        "JWKS would refuse its tokens until they fetch it again.",
        hint="Wait until then, or say --now --emergency and accept refused tokens.",
        kid=id_,
        safe=rfc3339(safe),
    )


def nothing_propagated(algorithm: str, safe: datetime) -> NotPropagatedError:
    """
    Refuse to switch at once when no key waits.
    """
    return NotPropagatedError(
        f"No {algorithm} key waits that verifiers can have seen; one made now could sign "
        f"from {rfc3339(safe)} on.",
        hint="Rotate without --now, or say --now --emergency and accept refused tokens.",
        algorithm=algorithm,
        safe=rfc3339(safe),
    )


def too_late_to_cancel(key: RingKey) -> KeyStateError:
    """
    Refuse to take back a key that a node whose clock is ahead may use already.
    """
    activates = rfc3339(key.timeline.activates)
    return KeyStateError(
        f"The key {key.id} takes over at {activates}: too late to cancel it.",
        hint="Rotate again instead.",
        kid=key.id,
        activates=activates,
    )


def needs_replacement(key: RingKey) -> KeyStateError:
    """
    Refuse to revoke the key that signs when nothing can take its place.
    """
    return KeyStateError(
        f"The key {key.id} is CURRENT and nothing is ready to replace it.",
        hint="Make a replacement first.",
        kid=key.id,
    )


def still_needed(
    key: RingKey, count: int | None, safe: datetime | None
) -> KeyStateError:
    """
    Refuse to delete a key under which tokens live: their number and the safe moment (K12).
    """
    live = {
        None: "What it made may be alive (nobody counts it)",
        0: "Tokens that it signed in the last moments may be alive",
        1: "1 token that it signed may be alive",
    }.get(count, f"{count} tokens that it signed may be alive")
    when = f" It is safe from {rfc3339(safe)} on." if safe else ""
    return KeyStateError(
        f"The key {key.id} is still needed. {live}.{when}",
        hint="Wait until then, or say --force to cut them off.",
        kid=key.id,
        live="" if count is None else str(count),
        safe=rfc3339(safe) if safe else "",
    )


def line_ends(key: RingKey) -> KeyStateError:
    """
    Refuse to continue a line that another change is about to end.
    """
    retires = rfc3339(key.timeline.retires) if key.timeline.retires else ""
    successor = key.timeline.successor or ""
    return KeyStateError(
        f"The {key.algorithm} keys end at {retires}: the default changes to the algorithm "
        f"of {successor} then.",
        hint=f"Cancel {successor} first.",
        kid=key.id,
        retires=retires,
        successor=successor,
    )


def default_waits(kid: str) -> KeyStateError:
    """
    Refuse a second change of the default algorithm while one waits.
    """
    return KeyStateError(
        f"The default algorithm is about to change to that of the key {kid}.",
        hint=f"Let it take over, or cancel {kid} first.",
        kid=kid,
    )


def cannot_be_default(algorithm: str, *, is_default: bool) -> KeyStateError:
    """
    Refuse to make an algorithm the default that is it, or that has no key.
    """
    if is_default:
        return KeyStateError(
            f"{algorithm} is the default algorithm already.", algorithm=algorithm
        )
    return KeyStateError(
        f"{algorithm} has no current key, so it cannot be the default.",
        hint="Rotate with --algorithm and --default.",
        algorithm=algorithm,
    )


def clock_behind(changed: datetime, now: datetime) -> ClockBehindError:
    """
    Refuse to write dates with a clock that stands before the last change (attack K7).
    """
    return ClockBehindError(
        f"The clock says {rfc3339(now)}, but the ring was changed at {rfc3339(changed)}.",
        hint="Set the clock right; `kagimori doctor` compares it.",
        now=rfc3339(now),
        changed=rfc3339(changed),
    )
