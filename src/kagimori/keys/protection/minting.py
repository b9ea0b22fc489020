"""
Making a key of a protection ring and the change that adds it.

Rules of this module:

1. What was wrapped is unwrapped and compared before it is written: a ring that cannot be read
   back is never stored.
2. A key is not made where it would be born revoked, or where clear keys would lie in a place
   that others may write (K11).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from secrets import randbelow, token_bytes
from typing import Protocol, runtime_checkable

from kagimori.crypto.digests import equal
from kagimori.errors import (
    InsecureConfigError,
    KeyRingError,
    KeyStateError,
    RingReadOnlyError,
)
from kagimori.keys.protection import descriptor, elements, rewriting, ticks, xml
from kagimori.keys.protection.algorithms import ProtectionAlgorithm
from kagimori.keys.protection.contents import Contents, revoked_before
from kagimori.keys.protection.elements import RingState
from kagimori.keys.protection.envelopes import wrap_checked
from kagimori.keys.protection.plan import Birth, Plan
from kagimori.keys.protection.ticks import Ticks
from kagimori.keys.store import Element, KeyStore
from kagimori.keys.wrapping import KeyWrapper

MASTER_BYTES = 64
_MOST_REASONS = 200
_MOST_COMMITS = 16


@runtime_checkable
class SharedPlace(Protocol):
    """
    A store that knows who else may write where it lies; others need not say.
    """

    def others_may_write(self) -> bool:
        """
        Whether group or world may write there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Minted:
    """
    A key that was made but not stored.

    Attributes:
        elements: the key and, where there is one, its second envelope.
    """

    key_id: str
    birth: Birth
    elements: tuple[Element, ...]


def require_writer(
    store: KeyStore, wrapper: KeyWrapper | None, *, read_only: bool
) -> KeyWrapper:
    """
    Return the wrapper, if a key may be written to this store with it.

    Raises:
        RingReadOnlyError: the ring was opened read-only.
        InsecureConfigError: no wrapper is named, or clear keys would lie where others write.
    """
    if read_only:
        raise RingReadOnlyError(
            "The ring was opened read-only, so no key can be added to it.",
            hint="Open it for writing elsewhere.",
        )
    if wrapper is None:
        raise InsecureConfigError(
            "A key can only be added to a ring with a wrapper named.",
            hint="Name one, such as wrapper='passphrase:file:/path'; 'plaintext:' leaves the "
            "keys readable to whoever reads the store.",
        )
    # Whoever may write there could plant a key of his own, and whoever reads has them all.
    if (
        wrapper.is_plaintext
        and isinstance(store, SharedPlace)
        and store.others_may_write()
    ):
        raise InsecureConfigError(
            f"Clear keys are not written to {store.name}: group or world may write there.",
            hint="Take those rights away (chmod go-w), or name a wrapper.",
        )
    return wrapper


def mint(
    wrapper: KeyWrapper,
    algorithm: ProtectionAlgorithm,
    created: datetime,
    birth: Birth,
    recovery: KeyWrapper | None = None,
    rivals: Collection[str] = (),
) -> Minted:
    """
    Make a key, wrap it and prove that it can be read back.

    Args:
        recovery: wraps it a second time, for disaster recovery.
        rivals: ids of keys that activate at the same instant; the new one comes before them.

    Raises:
        KeyWrapError: a wrapper refuses, or gives back something else.
    """
    key_id = _fresh_id(rivals)
    master = token_bytes(MASTER_BYTES)
    secret = descriptor.secret_text(master)
    dates = tuple(
        ticks.from_datetime(date) for date in (created, birth.activates, birth.expires)
    )
    wrapped = wrap_checked(wrapper, secret, key_id)
    root = elements.key_element(
        key_id, (dates[0], dates[1], dates[2]), algorithm, wrapped
    )
    made = [Element(elements.friendly_name(root), xml.write(root))]
    row, back = descriptor.read_secret(key_id, made[0].xml, lambda *_: secret)
    if row != algorithm or not equal(back, master):
        raise KeyRingError(
            "A key that was made does not read back; nothing was stored."
        )
    if recovery is not None:
        second = wrap_checked(recovery, secret, key_id)
        made.append(rewriting.recovery_element(key_id, second))
    return Minted(key_id, birth, tuple(made))


def _fresh_id(rivals: Collection[str]) -> str:
    made = uuid.UUID(bytes=token_bytes(16), version=4)
    first = min((uuid.UUID(rival).time_low for rival in rivals), default=0)
    if first and made.time_low >= first:
        # Of keys that activate at one instant all readers take the smallest id. A little below
        # is enough, so that there is room for many; what is left of chance is plenty.
        low = first - 1 - randbelow(max(1, first // 16))
        made = uuid.UUID(fields=(low, *made.fields[1:]))
    return str(made)


def state_after(
    contents: Contents,
    application: str | None,
    reasons: Mapping[str, str],
    plan: Plan,
    made: Minted | None,
    now: datetime,
    commit: str,
) -> Element:
    """
    Return our state element for the commit that follows `contents`.

    Args:
        commit: a mark that no other commit has.
    """
    # The newest come last, so that the oldest go first.
    merged = {k: v for k, v in contents.state.reasons.items() if k not in reasons}
    merged.update(reasons)
    kept = dict(list(merged.items())[-_MOST_REASONS:])
    before = contents.state
    named = before.application
    at = ticks.from_datetime(now)
    entered = _of_keys(before.entered, contents)
    entered.update(dict.fromkeys(plan.entered, at))
    protected = _of_keys(before.protected, contents)
    for key_id in _protecting(contents, plan, made, now):
        protected.setdefault(key_id, at)
    state = RingState(
        before.generation + 1,
        application if named is None else named,
        kept,
        entered,
        protected,
        (*before.commits, commit)[-_MOST_COMMITS:],
    )
    return Element(elements.STATE, xml.write(elements.state_element(state)))


def is_done(contents: Contents, mark: str, born: Minted | None) -> bool:
    """
    Whether a commit that was answered by a conflict is in the ring all the same.
    """
    if mark in contents.state.commits:
        return True
    # A node of an earlier version keeps no marks.
    return born is not None and contents.get(born.key_id) is not None


def turned_unnoted(contents: Contents, now: datetime) -> bool:
    """
    Whether a key took over whose protecting nothing in the ring shows yet.

    By a clock that is set back later it would seem to wait, and could be cancelled.
    """
    current = contents.current(now)
    return (
        current is not None
        and contents.state.generation > 0
        and len(contents.keys) > 1
        and current.timeline.activates <= now
        and current.id not in contents.state.protected
    )


def _of_keys(dates: Mapping[str, Ticks], contents: Contents) -> dict[str, Ticks]:
    return {k: date for k, date in dates.items() if contents.get(k) is not None}


def _protecting(
    contents: Contents, plan: Plan, made: Minted | None, now: datetime
) -> list[str]:
    """
    Return the ids of the keys that protect before a change and after it.
    """
    found = [plan.heir] if plan.heir else []
    current = contents.current(now)
    if current is not None and current.timeline.activates <= now:
        found.append(current.id)
    if made is not None and made.birth.activates <= now:
        found.append(made.key_id)
    return found


def refuse_born_revoked(contents: Contents, created: datetime) -> None:
    """
    Refuse to make a key that a revocation by date would cover.

    Raises:
        KeyStateError: a revocation in the ring is dated later than `created`.
    """
    before = revoked_before(contents.revocations)
    if before is not None and ticks.from_datetime(created) < before:
        raise KeyStateError(
            f"A revocation in the ring covers all keys made before {ticks.write(before)}, so "
            "a key made now would be revoked at once.",
            hint="Remove that revocation, or wait.",
        )
