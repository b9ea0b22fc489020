"""
What operators do to the keys of a protection ring, decided from what the ring holds.

Rules of this module:

1. Everything here is a function of contents and ``now`` and returns a `Plan`; nothing is read,
   written or drawn. A verb that lost to another writer is decided anew on what that one wrote.
2. A key takes over only once every node can have it, so that none meets payloads that it cannot
   open: three days where .NET nodes may share the ring, else two probe intervals. An emergency
   lifts that, and the refusal says what it would break.
3. The key that protects is never taken away without one that takes its place in the same
   commit. No key is ever revived.
4. A revocation outlives its key: no reader meets the key un-revoked, and neither a copy nor a
   backup nor an import brings a stolen key back. .NET passes over revocations of absent keys.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kagimori.errors import KeyStateError, NextKeyWaitsError
from kagimori.events import Severity
from kagimori.keys.protection import elements, refusing, rewriting, ticks, xml
from kagimori.keys.protection.contents import Contents, revoked_before
from kagimori.keys.protection.elements import Revocation
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.plan import NOTHING_TO_DO, Birth, Cut, Plan, Tale
from kagimori.keys.protection.terms import (
    DOTNET_SIGHT,
    Terms,
    came_in,
    propagation,
)
from kagimori.keys.store import Element
from kagimori.keys.timeline import KeyState, rfc3339

ALL = "*"
"""Stands for every key in reasons of a revocation by date."""


# --- making and moving ---------------------------------------------------------------------


def rotate(
    contents: Contents,
    now: datetime,
    terms: Terms,
    *,
    activates: datetime | None = None,
    immediate: bool = False,
    replace: bool = False,
    reason: str = "",
) -> Plan:
    """
    Add a key: a successor for later, or one that protects from now on.

    Raises:
        NextKeyWaitsError: a key waits, and this one is neither immediate nor to replace it.
        NotPropagatedError: the date lies before every node can have the key.
        KeyStateError: it is too late to take the waiting key back, or the date lies after the
            protecting key's expiration.
        ClockBehindError: as `cancel`, where it is to replace.
    """
    waiting = contents.waiting(now)
    withdrawn = Plan()
    if waiting and replace:
        refusing.behind(contents, now, terms.policy.skew)
        withdrawn = _withdrawn(contents, waiting, now, terms, reason)
    elif waiting and not immediate:
        date = rfc3339(waiting[0].timeline.activates)
        raise NextKeyWaitsError(
            f"A key waits already; it takes over at {date}.",
            hint="Let it take over, cancel it, or replace it.",
            activates=date,
            key=waiting[0].id,
        )
    at = now
    if not immediate:
        at = now + DOTNET_SIGHT if activates is None else max(activates, now)
        safe = now + propagation(contents, terms)
        if at < safe:
            raise refusing.too_early("a key made now", safe, contents)
        current = contents.current(now)
        due = current.timeline.due if current else None
        if due is not None and at > max(due, now + DOTNET_SIGHT):
            raise KeyStateError(
                f"The protecting key expires before {rfc3339(at)}; nothing would follow it.",
                hint=f"Name a date until {rfc3339(max(due, now + DOTNET_SIGHT))}.",
                due=rfc3339(due),
            )
    birth = Birth(at, at + terms.policy.lifetime, reason)
    return _joined(withdrawn, Plan(birth=birth))


def activate(
    contents: Contents,
    now: datetime,
    terms: Terms,
    *,
    key_id: str | None = None,
    emergency: bool = False,
    reason: str = "",
) -> Plan:
    """
    Let a waiting key take over now; its term stays as long.

    Args:
        key_id: which one; left out, the first to take over.
        emergency: although nodes may not have it yet.

    Raises:
        NotFoundError: there is no such key.
        KeyStateError: it does not wait, or none does.
        NotPropagatedError: not every node can have it yet.
        ClockBehindError: the clock shows a time before the ring's newest key was made.
    """
    refusing.behind(contents, now, terms.policy.skew)
    key = refusing.waiting(contents, now, key_id, "activated")
    refusing.protected(contents, (key,))
    safe = came_in(contents, key) + propagation(contents, terms)
    if now < safe and not emergency:
        raise refusing.too_early(f"the key {key.id}", safe, contents)
    return _taking_over(key, now, reason)


def cancel(
    contents: Contents,
    now: datetime,
    terms: Terms,
    *,
    key_id: str | None = None,
    reason: str = "",
) -> Plan:
    """
    Take a waiting key back before it has protected anything.

    Raises:
        NotFoundError: there is no such key.
        KeyStateError: it does not wait, none does, or it is too late.
        ClockBehindError: the clock shows a time before the ring's newest key was made.
    """
    # By such a clock every key seems to wait, the one that protects too.
    refusing.behind(contents, now, terms.policy.skew)
    key = refusing.waiting(contents, now, key_id, "cancelled")
    return _withdrawn(contents, (key,), now, terms, reason)


# --- ending --------------------------------------------------------------------------------


def revoke(
    contents: Contents,
    now: datetime,
    terms: Terms,
    key_id: str | None,
    *,
    reason: str = "",
    fresh: bool = False,
) -> Plan:
    """
    Revoke a key, whatever its state; where it is the current one, another takes over at once.

    Args:
        key_id: ``None`` for every key that there is.
        fresh: replace it by a key made now, not by the waiting one: whoever stole the one may
            have had the other too.

    Raises:
        NotFoundError: there is no such key.
    """
    named = contents.keys if key_id is None else (refusing.require(contents, key_id),)
    gone = tuple(key for key in named if not key.is_revoked)
    at = ticks.from_datetime(now)
    revoking = Plan(
        add=tuple(_revocation(Revocation(key.id, at), reason) for key in gone),
        reasons={key.id: reason for key in gone if reason},
    )
    return _ending(revoking, contents, gone, now, terms, reason, fresh=fresh)


def revoke_before(
    contents: Contents,
    now: datetime,
    terms: Terms,
    date: datetime,
    *,
    reason: str = "",
    fresh: bool = False,
) -> Plan:
    """
    Revoke every key made strictly before a date; replace the current one if it is among them.

    Raises:
        KeyStateError: the date lies ahead: keys made until then would be born revoked, and
            .NET nodes would fail to load the ring.
    """
    if date > now:
        raise KeyStateError(
            f"{rfc3339(date)} lies ahead: every key made until then would be born revoked.",
            hint="Name an instant that is past.",
        )
    limit = ticks.from_datetime(date)
    before = revoked_before(contents.revocations)
    if before is not None and before >= limit:
        return NOTHING_TO_DO
    gone = tuple(
        key
        for key in contents.keys
        if not key.is_revoked and key.stored.created < limit
    )
    revoking = Plan(
        add=(_revocation(Revocation(None, limit), reason),),
        reasons={ALL: reason} if reason else {},
    )
    return _ending(revoking, contents, gone, now, terms, reason, fresh=fresh)


def delete(
    contents: Contents,
    now: datetime,
    key_id: str,
    *,
    force: bool = False,
    reason: str = "",
) -> Plan:
    """
    Take a key out of the ring for good; its revocation stays (rule 4).

    Args:
        force: although it is PREVIOUS and payloads under it become unreadable, or although its
            element cannot be read.

    Raises:
        NotFoundError: there is no such key.
        KeyStateError: it protects, waits, or is needed by what it protected.
    """
    name = f"key-{key_id}"
    cuts: tuple[Cut, ...] = ()
    if contents.get(key_id) is None and name in contents.skipped:
        if not force:
            raise KeyStateError(
                f"The element of the key {key_id} cannot be read, so nobody knows what it is.",
                hint="Restore it from a backup, or delete it by force.",
            )
        removed = [name]
    else:
        key = refusing.require(contents, key_id)
        cuts = _deletable(contents, key, now, force=force)
        removed = [key.stored.name]
    second = contents.recoveries.get(key_id)
    removed += [second.name] if second else []
    return Plan(
        remove=tuple(removed),
        reasons={key_id: reason or "deleted"},
        cuts=cuts,
        tales=(_tale("key.deleted", Severity.WARNING, key_id),),
    )


def _deletable(
    contents: Contents, key: ProtectionKey, now: datetime, *, force: bool
) -> tuple[Cut, ...]:
    state = contents.state_of(key, now)
    if key is contents.current(now) or state is KeyState.CURRENT:
        raise refusing.wrong_state(key, state, "deleted", "Rotate first: it protects.")
    if state is KeyState.NEXT:
        raise refusing.wrong_state(key, state, "deleted", "Cancel it instead.")
    if state is KeyState.REVOKED:
        return ()
    if not force:
        raise refusing.wrong_state(
            key,
            state,
            "deleted",
            "What it protected could never be read again. Wait until that is over, or delete "
            "it by force.",
        )
    return (_cut(contents, key, now),)


# --- steps ---------------------------------------------------------------------------------


def _joined(one: Plan, two: Plan) -> Plan:
    return replace(
        one,
        birth=two.birth or one.birth,
        add=one.add + two.add,
        remove=one.remove + two.remove,
        reasons={**one.reasons, **two.reasons},
        cuts=one.cuts + two.cuts,
        heir=two.heir or one.heir,
        tales=one.tales + two.tales,
    )


def _ending(
    revoking: Plan,
    contents: Contents,
    gone: tuple[ProtectionKey, ...],
    now: datetime,
    terms: Terms,
    reason: str,
    *,
    fresh: bool,
) -> Plan:
    """
    Say what a revocation cuts, and what takes over where the current key is among it.
    """
    plan = replace(
        revoking,
        cuts=tuple(_cut(contents, key, now) for key in gone),
        tales=tuple(_tale("key.revoked", Severity.WARNING, key.id) for key in gone),
    )
    if contents.current(now) not in gone:
        return plan
    propagated = now - propagation(contents, terms)
    for key in contents.waiting(now):
        # One that all nodes have cuts nobody off; one made now is unknown to .NET for a day.
        if (
            not fresh
            and key not in gone
            and key.material.is_open
            and came_in(contents, key) <= propagated
        ):
            return _joined(plan, _taking_over(key, now, reason))
    birth = Birth(now, now + terms.policy.lifetime, reason)
    return _joined(plan, Plan(birth=birth))


def _taking_over(key: ProtectionKey, now: datetime, reason: str) -> Plan:
    stored, at = key.stored, ticks.from_datetime(now)
    expires = ticks.Ticks(stored.expires - (stored.activates - at))
    return Plan(
        add=(rewriting.with_dates(stored, at, expires),),
        reasons={key.id: reason} if reason else {},
        heir=key.id,
    )


def _withdrawn(
    contents: Contents,
    keys: tuple[ProtectionKey, ...],
    now: datetime,
    terms: Terms,
    reason: str,
) -> Plan:
    refusing.protected(contents, keys)
    removed: list[str] = []
    for key in keys:
        if key.timeline.activates - now <= terms.policy.skew:
            date = rfc3339(key.timeline.activates)
            raise KeyStateError(
                f"The key {key.id} takes over at {date}: a node whose clock is ahead may use "
                "it already.",
                hint="Rotate again instead.",
                activates=date,
            )
        removed.append(key.stored.name)
        second = contents.recoveries.get(key.id)
        removed += [second.name] if second else []
    return Plan(
        remove=tuple(removed),
        reasons={key.id: reason or "cancelled" for key in keys},
        tales=tuple(_tale("key.cancelled", Severity.INFO, key.id) for key in keys),
    )


def _cut(contents: Contents, key: ProtectionKey, now: datetime) -> Cut:
    state, times = contents.state_of(key, now), key.timeline
    if times.activates > now:
        return Cut(key.id, state, None, None)
    return Cut(key.id, state, times.activates, min(times.retires or now, now))


def _revocation(revocation: Revocation, reason: str) -> Element:
    root = elements.revocation_element(revocation, reason)
    return Element(elements.friendly_name(root), xml.write(root))


def _tale(name: str, severity: Severity, key_id: str) -> Tale:
    return name, severity, {"key": key_id, "use": "protection"}
