"""
A ring as one load found it: its keys, which of them protects, and when a successor is due.

Rules of this module:

1. Everything is a function of what was loaded and of ``now``; nothing is read or written here.
2. The protecting key is the one with the latest activation that has come, among keys that are
   not revoked; equal dates go by id, as .NET has it. Past its expiration it goes on protecting:
   late is an alarm, never a gap.
3. Nothing is minted while any element could not be understood (unreadable is not absent), nor
   while the clock shows a time before the newest key was made (K7), unless a key ends by it.
4. A successor activates when its predecessor expires, and is in the ring days before, so that
   .NET nodes, which look once a day, have it when it protects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kagimori.errors import ConfigError, KeyRingError, RingMalformedError
from kagimori.keys.protection import elements, ticks, xml
from kagimori.keys.protection.descriptor import Unwrap
from kagimori.keys.protection.elements import Recovery, Revocation, RingState, StoredKey
from kagimori.keys.protection.key import Material, ProtectionKey
from kagimori.keys.protection.ticks import Ticks
from kagimori.keys.store import Snapshot
from kagimori.keys.timeline import KeyState, KeyTimeline, KeyUse, rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectionPolicy:
    """
    How keys of a protection ring follow each other.

    Attributes:
        lifetime: how long a key protects.
        announce: how long before an expiration the successor is in the ring, at least; .NET
            nodes need three days.
        first_backdated: how far in the past the first key of a ring activates, so that a node
            whose clock is behind can use it.
        skew: how far two clocks may lie apart before nothing is minted any more.
        is_automatic: whether successors are made without being asked for.

    Raises:
        ConfigError: the times contradict each other.
    """

    lifetime: timedelta = timedelta(days=90)
    announce: timedelta = timedelta(days=4)
    first_backdated: timedelta = timedelta(minutes=1)
    skew: timedelta = timedelta(minutes=5)
    is_automatic: bool = True

    def __post_init__(self) -> None:
        if self.lifetime < timedelta(days=7):
            raise ConfigError(
                "A protection key lives at least 7 days, as .NET nodes demand."
            )
        if not timedelta(days=3) <= self.announce <= self.lifetime / 2:
            raise ConfigError(
                "A successor has to be announced at least 3 days ahead, since .NET nodes look "
                "once a day, and at most half a lifetime ahead."
            )


@dataclass(frozen=True, slots=True)
class Contents:
    """
    What a ring holds.

    Attributes:
        version: the store's version of this load.
        keys: all keys, by activation.
        revocations: all revocations.
        state: what is ours.
        skipped: names of ``<key>`` elements whose id or dates could not be read.
        recoveries: second envelopes, by key id.
        by_raw_id: the keys by their ids as they lie in a frame.
    """

    version: str | None
    keys: tuple[ProtectionKey, ...]
    revocations: tuple[Revocation, ...]
    state: RingState
    skipped: tuple[str, ...]
    recoveries: Mapping[str, Recovery] = field(default_factory=dict)
    by_raw_id: Mapping[bytes, ProtectionKey] = field(default_factory=dict, repr=False)

    @property
    def is_blank(self) -> bool:
        """
        Whether there is no key, not even one that cannot be read.
        """
        return not self.keys and not self.skipped

    @property
    def is_clear(self) -> bool:
        """
        Whether a key lies readable in the store.
        """
        return any(key.stored.is_clear for key in self.keys)

    def get(self, key_id: str) -> ProtectionKey | None:
        """
        Return the key of an id.
        """
        return next((key for key in self.keys if key.id == key_id), None)

    def state_of(self, key: ProtectionKey, now: datetime) -> KeyState:
        """
        Return a key's state at `now`.
        """
        return key.timeline.state(now, KeyUse.PROTECTION)

    def candidates(self, now: datetime) -> Iterator[ProtectionKey]:
        """
        Yield the keys that may protect, the best first.

        Where none has activated yet, the next to activate comes first: that is so when a clock
        was set back, and then refusing to protect would help nobody.
        """
        usable = [key for key in self.keys if not key.is_revoked]
        active = [key for key in usable if key.timeline.activates <= now]
        yield from reversed(active)
        if not active:
            yield from usable

    def waiting(self, now: datetime) -> tuple[ProtectionKey, ...]:
        """
        Return the NEXT keys, the first to take over first.
        """
        return tuple(
            key
            for key in self.keys
            if not key.is_revoked and key.timeline.activates > now
        )

    def current(self, now: datetime) -> ProtectionKey | None:
        """
        Return the key that protects by its times, whether or not it can be read.
        """
        return next(self.candidates(now), None)

    def next_turn(self, now: datetime) -> datetime | None:
        """
        Return when another key begins to protect, ``None`` if none waits.
        """
        waiting = self.waiting(now)
        return waiting[0].timeline.activates if waiting else None

    def ahead(self, now: datetime, skew: timedelta) -> ProtectionKey | None:
        """
        Return a key that was made later than `now`, so that one of two clocks is wrong.

        Revoked keys do not count: else one node whose clock was ahead for a moment would keep
        all others from changing the ring until then.
        """
        return next(
            (
                key
                for key in self.keys
                if not key.is_revoked and key.timeline.created > now + skew
            ),
            None,
        )


def read(
    snapshot: Snapshot,
    unwrap: Unwrap,
    known: Mapping[str, Material],
    now: datetime,
    skipped: Callable[[str, str], None] = lambda _name, _why: None,
) -> Contents:
    """
    Understand the elements of a ring (`aspnet-data-protection.md` 2.1).

    Args:
        unwrap: opens envelopes, later, when a secret is needed.
        known: materials of an earlier load, by key id; those of unchanged elements are kept.
        skipped: told the name of a key that is skipped, and why.

    Raises:
        RingMalformedError: an element is not well-formed, a revocation cannot be read, or two
            keys have one id.
    """
    stored: dict[str, StoredKey] = {}
    revocations: list[Revocation] = []
    left_out: list[str] = []
    recoveries: dict[str, Recovery] = {}
    state = RingState()
    for element in snapshot.elements:
        earlier = known.get(element.name.removeprefix("key-"))
        if earlier is not None and earlier.stored.text == element.xml:
            key = earlier.stored
        else:
            root = xml.parse(element.xml, what=f"The element {element.name}")
            if root.tag == "revocation":
                revocations.append(elements.read_revocation(root, element.name))
            if elements.is_state(root):
                state = elements.read_state(root)
            if elements.is_recovery(root):
                recovery = elements.read_recovery(root, element.name)
                recoveries[recovery.key_id] = recovery
            if root.tag != "key":
                continue
            try:
                key = elements.read_key(root, element.name, element.xml)
            except RingMalformedError as error:
                left_out.append(element.name)
                skipped(element.name, error.text)
                continue
        if key.id in stored:
            raise RingMalformedError(
                f"Two elements of the ring are keys with the id {key.id}.",
                hint=f"Remove one of {stored[key.id].name} and {key.name}.",
            )
        stored[key.id] = key
    keys = _lined_up(
        list(stored.values()),
        revocations,
        _Materials(unwrap, known, recoveries).of,
        now,
    )
    return Contents(
        snapshot.version,
        keys,
        tuple(revocations),
        state,
        tuple(left_out),
        recoveries,
        {key.raw_id: key for key in keys},
    )


@dataclass(frozen=True, slots=True)
class _Materials:
    """
    The secrets of an earlier load, carried over, and those of keys that are new.
    """

    unwrap: Unwrap
    known: Mapping[str, Material]
    recoveries: Mapping[str, Recovery]

    def of(self, stored: StoredKey) -> Material:
        second = self.recoveries.get(stored.id)
        recovery = None if second is None else second.wrapped
        material = self.known.get(stored.id)
        if material is None or material.stored is not stored:
            return Material(stored, self.unwrap, recovery, material)
        material.recovery = recovery
        return material


def _lined_up(
    stored: list[StoredKey],
    revocations: list[Revocation],
    material_of: Callable[[StoredKey], Material],
    now: datetime,
) -> tuple[ProtectionKey, ...]:
    revoked = _revoked(stored, revocations)
    # Of equal activations .NET takes the smallest id, so that one comes last here.
    stored.sort(key=lambda key: (key.activates, _reversed_order(key.id)))
    heirs = [key for key in stored if key.id not in revoked]
    successors = dict(zip((key.id for key in heirs), heirs[1:], strict=False))
    keys = []
    for one in stored:
        heir = successors.get(one.id)
        date = revoked.get(one.id)
        timeline = KeyTimeline(
            created=ticks.to_datetime(one.created),
            published=ticks.to_datetime(one.created),
            activates=ticks.to_datetime(one.activates),
            due=ticks.to_datetime(one.expires),
            retires=ticks.to_datetime(heir.activates) if heir else None,
            # The date of a revocation by id informs only: the key is revoked from any date.
            revoked=None if date is None else min(ticks.to_datetime(date), now),
            successor=heir.id if heir else None,
        )
        keys.append(
            ProtectionKey(material_of(one), timeline, is_revoked=date is not None)
        )
    return tuple(keys)


def _revoked(
    stored: list[StoredKey], revocations: list[Revocation]
) -> dict[str, Ticks]:
    revoked = {one.key_id: one.date for one in revocations if one.key_id is not None}
    before = revoked_before(revocations)
    for key in stored:
        # Strictly before, to the tick (2.5).
        if before is not None and key.created < before:
            revoked.setdefault(key.id, before)
    return revoked


def revoked_before(
    revocations: list[Revocation] | tuple[Revocation, ...],
) -> Ticks | None:
    """
    Return the date before which every key is revoked, the latest of several.
    """
    dates = (one.date for one in revocations if one.key_id is None)
    return max(dates, default=None)


def with_missing(found: Contents, served: Contents, now: datetime) -> Contents:
    """
    Return a ring in which nothing can protect, with those keys that served and are missing.

    Their elements were garbled, or another ring lies in the place: unreadable is not absent.
    But a revocation of such a key holds.
    """
    missing = [key for key in served.keys if found.get(key.id) is None]
    if not missing:
        return found
    known = {key.id: key.material for key in (*missing, *found.keys)}
    stored = [material.stored for material in known.values()]
    revocations = list(found.revocations)
    keys = _lined_up(stored, revocations, lambda one: known[one.id], now)
    by_raw_id = {key.raw_id: key for key in keys}
    return replace(found, keys=keys, by_raw_id=by_raw_id)


def _reversed_order(key_id: str) -> int:
    return -int(key_id.replace("-", ""), 16)


def successor_due(
    contents: Contents, now: datetime, policy: ProtectionPolicy
) -> tuple[datetime, datetime] | None:
    """
    Say when a key that should be made now activates and expires; ``None`` if none should.

    The caller makes sure first that every key of the ring can be read.
    """
    usable = [key for key in contents.keys if not key.is_revoked]
    if not usable:
        return now - policy.first_backdated, now + policy.lifetime
    last = usable[-1].timeline
    end = last.due or last.activates
    if end - now > policy.announce or not policy.is_automatic:
        return None
    if now - end > policy.lifetime:
        # Nobody tended the ring for that long, or this clock is far ahead; then a key made by
        # it would stand in everybody's way. A person knows which.
        return None
    activates = max(end, now)
    return activates, activates + policy.lifetime


def clock_hint(key: ProtectionKey) -> str:
    """
    Say what to do about a key that was made later than now.
    """
    return (
        f"Set the clock right. If it is right, the key {key.id} was made by a clock that ran "
        "ahead: revoke that key."
    )


def overdue(
    contents: Contents, key: ProtectionKey, now: datetime, policy: ProtectionPolicy
) -> KeyRingError | None:
    """
    Say what is wrong with the times of a ring whose `key` protects; ``None`` if nothing is.
    """
    ahead = contents.ahead(now, policy.skew)
    if ahead is not None:
        return KeyRingError(
            "This machine's clock shows a time before the ring's newest key was made.",
            hint=clock_hint(ahead),
        )
    due = key.timeline.due
    if due is not None and due < now:
        turn = contents.next_turn(now)
        then = "no successor" if turn is None else f"none before {rfc3339(turn)}"
        return KeyRingError(
            f"The protecting key {key.id} is past its expiration and has {then}.",
            hint="Open the ring for writing somewhere, or rotate. If that is not so, the clock "
            "is wrong.",
        )
    return None
