"""
What may be shown of keys: the shapes behind ``keys list --json`` and the verbs' answers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from kagimori.keys.changing import StoredRing
from kagimori.keys.ledger import last_expiries
from kagimori.keys.lineup import RingKey
from kagimori.keys.policy import RotationPolicy
from kagimori.keys.timeline import KeyState, KeyTimeline, KeyUse


class ProtectionKeyView(Protocol):
    """
    What a protection ring shows of a key.
    """

    @property
    def id(self) -> str:
        """
        Return its id.
        """
        ...

    @property
    def algorithm(self) -> str:
        """
        Return its algorithm.
        """
        ...

    @property
    def timeline(self) -> KeyTimeline:
        """
        Return its times.
        """
        ...

    @property
    def state(self) -> KeyState:
        """
        Return its state.
        """
        ...


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """
    One key, as ``keys list --json`` gives it.

    Attributes:
        use: ``signing``, ``cookie`` or ``protection``.
        state: ``next``, ``current``, ``previous``, ``retired`` or ``revoked``.
        expires: when nothing that it made is alive; before it is final, the best present
            knowledge, which only moves later.
    """

    use: str
    kid: str
    algorithm: str
    state: str
    created: datetime | None
    published: datetime | None
    activates: datetime | None
    due: datetime | None
    retires: datetime | None
    expires: datetime | None


class KeyOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a verb did.

    Attributes:
        verb: its name.
        tenant: whose ring.
        key: the key that it was about, as it is now.
        generation: of the ring after it; a server that reports it has taken it in.
        ended: keys whose end it wrote, moved or took back.
        dropped: kids that left the ring.
        live_tokens: how many living tokens it cut, where that is counted.
        default_algorithm: the default that holds when the change has taken effect.
    """

    verb: str
    tenant: str
    key: KeyView
    generation: int
    ended: tuple[KeyView, ...] = ()
    dropped: tuple[str, ...] = ()
    live_tokens: int | None = None
    default_algorithm: str = ""


class KeyPreview(msgspec.Struct, frozen=True, kw_only=True):
    """
    What ending a key now would cut.

    Attributes:
        key: the key.
        live_tokens: how many tokens would fail; ``None`` where nobody counts.
        safe: from when on nothing would be cut; ``None`` if nobody can tell.
    """

    key: KeyView
    live_tokens: int | None
    safe: datetime | None


def view_of(
    use: KeyUse, key: RingKey, state: KeyState, expires: datetime | None = None
) -> KeyView:
    """
    Return the view of a key.

    Args:
        expires: what to show while none is written.
    """
    return _view(use, key.id, key.algorithm, state, times=key.timeline, expires=expires)


def protection_view(key: ProtectionKeyView) -> KeyView:
    """
    Return the view of a protection key.
    """
    return _view(
        KeyUse.PROTECTION, key.id, key.algorithm, key.state, times=key.timeline
    )


def views_of(stored: StoredRing, now: datetime) -> tuple[KeyView, ...]:
    """
    Return the views of a ring's keys: by state, the default algorithm first.
    """
    ring = stored.ring
    last = last_expiries(stored.ledger, ring) if ring.use is KeyUse.SIGNING else None
    views = []
    for key in ring.ordered(now):
        end = None
        retires = key.timeline.retires
        if retires is not None:
            known = None if last is None else last.get(key.id, retires)
            end = max(retires, known or _longest(retires, stored.document.policy))
        views.append(view_of(ring.use, key, ring.state(key, now), end))
    return tuple(views)


def _longest(retires: datetime, policy: RotationPolicy) -> datetime:
    return retires + policy.longest_life + policy.tolerance


def _view(
    use: KeyUse,
    kid: str,
    algorithm: str,
    state: KeyState,
    *,
    times: KeyTimeline,
    expires: datetime | None = None,
) -> KeyView:
    return KeyView(
        use=use.value,
        kid=kid,
        algorithm=algorithm,
        state=state.value,
        created=times.created,
        published=times.published,
        activates=times.activates,
        due=times.due,
        retires=times.retires,
        expires=times.expires or expires,
    )
