"""
Telling of clear keys that turn up in a ring whose keys are wrapped.

Whoever can write the store can plant a key that he knows. No reader can tell it from one that an
operator put there; but people can.
"""

from __future__ import annotations

from collections.abc import Callable

from kagimori.events import Severity
from kagimori.keys.protection.contents import Contents
from kagimori.keys.wrapping import KeyWrapper


def tell_of_clear(
    found: Contents,
    served: Contents | None,
    wrapper: KeyWrapper | None,
    emit: Callable[..., None],
) -> None:
    """
    Raise an alarm for each clear key that came since the last load.

    Args:
        served: what the last load brought; clear keys at the first one are told at opening.
        wrapper: what wraps new keys; where it hides nothing, clear keys are as they should be.
    """
    if served is None or not _hides(served, wrapper):
        return
    known = {key.id for key in served.keys if key.stored.is_clear}
    for key in found.keys:
        if key.stored.is_clear and key.id not in known:
            emit(
                "ring.clear_key",
                Severity.ALARM,
                key=key.id,
                use="protection",
                text=f"The key {key.id} turned up in the ring, and whoever reads the store "
                "reads it.",
                hint="If nobody of yours put it there, somebody else who can write there did: "
                "revoke it. Else rewrap the ring.",
            )


def _hides(served: Contents, wrapper: KeyWrapper | None) -> bool:
    if wrapper is not None:
        return not wrapper.is_plaintext
    return any(not key.stored.is_clear for key in served.keys)
