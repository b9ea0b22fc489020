"""
Copying a whole ring from any store to any other, without making another ring of it.

Rules of this module:

1. Ids, dates, algorithms and revocations stay as they are, so that whatever was protected
   before opens after; only what wraps the secrets changes.
2. Everything is written in one commit, revocations before keys; each secret is unwrapped again
   and compared before. A copy that died wrote nothing and is simply done again.
3. A copy adds, and replaces nothing: into a ring that holds a key of its own it is refused. So
   it can be repeated while the old ring is still in use, to fetch what came meanwhile; but a
   key that the target revoked and deleted is not brought back.
4. No secret lies in the target as clear as it lay in the source, unless the target's wrapper
   says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from kagimori.clock import Clock, SystemClock
from kagimori.errors import (
    KagimoriError,
    RefusedError,
    RingMissingError,
    RingUnreadableError,
)
from kagimori.events import Event, EventSink, NullSink, Severity
from kagimori.keys.protection import contents as ring_contents
from kagimori.keys.protection import elements, minting, rewriting, xml
from kagimori.keys.protection.algorithms import ALGORITHMS, DEFAULT
from kagimori.keys.protection.contents import Contents, ProtectionPolicy
from kagimori.keys.protection.envelopes import Envelopes, wrap_checked
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.loader import RingLoader, RingOptions, store_surprise
from kagimori.keys.protection.outcomes import Copied
from kagimori.keys.protection.parallel import in_parallel
from kagimori.keys.protection.plan import NOTHING_TO_DO, Plan
from kagimori.keys.protection.rewrapping import opened_somehow
from kagimori.keys.store import Element, KeyStore, Snapshot
from kagimori.keys.wrapping import KeyWrapper


def copy_ring(
    source: KeyStore,
    target: KeyStore,
    *,
    unwrap_by: Sequence[KeyWrapper] = (),
    wrapper: KeyWrapper,
    recovery: KeyWrapper | None = None,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> Copied:
    """
    Copy a ring; its application's name and its reasons go with it.

    Args:
        source: is only read, if it was opened read-only.
        unwrap_by: what the source's keys are wrapped by; none for clear keys.
        wrapper: wraps them in the target.
        recovery: gives them a second envelope there; left out, second envelopes go along.

    Raises:
        RefusedError: the target holds keys that the source does not.
        RingMissingError: the source holds no key.
        RingUnreadableError: an element of the source cannot be read.
        KeyWrapError: a key cannot be opened, or not be wrapped.
        InsecureConfigError: clear keys would lie where others may write.
        StoreError: a store does not answer (then `transient`) or refuses.
    """
    now = (clock or SystemClock()).now()
    reader = Envelopes(None, unwrap_by)
    try:
        snapshot = source.load()
    except KagimoriError:
        raise
    except Exception as error:
        raise store_surprise(source.name, error) from error
    found = ring_contents.read(snapshot, reader.unwrap, {}, now)
    _require_copyable(source, found)
    minting.require_writer(target, wrapper, read_only=False)
    copy = _Copy(snapshot, found, reader, wrapper, recovery)
    options = RingOptions(
        application=found.state.application,
        read_only=False,
        create=True,
        algorithm=ALGORITHMS[DEFAULT],
        policy=ProtectionPolicy(),
    )
    loader = RingLoader(
        target,
        Envelopes(wrapper, unwrap_by, recovery),
        options,
        _emitter(target, events or NullSink()),
    )
    loader.change(None, now, copy.decide)
    return copy.outcome


class _Copy:
    def __init__(
        self,
        snapshot: Snapshot,
        found: Contents,
        reader: Envelopes,
        wrapper: KeyWrapper,
        recovery: KeyWrapper | None,
    ) -> None:
        self._snapshot = snapshot
        self._found = found
        self._reader = reader
        self._wrapper = wrapper
        self._recovery = recovery
        self._made: dict[str, tuple[Element, ...]] = {}
        self.outcome = Copied((), (), 0)

    def decide(self, target: Contents, _now: datetime) -> Plan:
        """
        Add what the target lacks (rule 3).
        """
        ours = {key.id for key in self._found.keys}
        foreign = [key.id for key in target.keys if key.id not in ours]
        if foreign or target.skipped:
            raise RefusedError(
                f"The target holds another ring: the source has no key {foreign[0]}."
                if foreign
                else "The target holds an element that cannot be read.",
                hint="Name a place that is empty or holds an earlier copy.",
            )
        held = {key.id for key in target.keys}
        # What the target revoked and deleted stays away: a thief may have it.
        ended = {one.key_id for one in target.revocations}
        wanted = [
            key
            for key in self._found.keys
            if key.id not in held and key.id not in ended
        ]
        missing = [key for key in wanted if key.id not in self._made]
        in_parallel([partial(self._make, key) for key in missing])
        revocations = self._others(target)
        self.outcome = Copied(
            tuple(key.id for key in wanted), tuple(sorted(held)), len(revocations)
        )
        copied = [element for key in wanted for element in self._made[key.id]]
        if not copied and not revocations:
            return NOTHING_TO_DO
        return Plan(
            add=(*revocations, *copied),
            reasons=self._found.state.reasons,
            # Where nobody had the ring before, nobody has to learn of a key.
            entered=tuple(key.id for key in wanted) if held else (),
            tales=(
                (
                    "ring.copied",
                    Severity.WARNING,
                    {"keys": str(len(wanted)), "wrapper": self._wrapper.name},
                ),
            ),
        )

    def _others(self, target: Contents) -> list[Element]:
        """
        Return the source's revocations that the target lacks.
        """
        held = {(one.key_id, one.date) for one in target.revocations}
        wanted = []
        for element in self._snapshot.elements:
            root = xml.parse(element.xml, what=f"The element {element.name}")
            if root.tag == "revocation":
                one = elements.read_revocation(root)
                if (one.key_id, one.date) not in held:
                    wanted.append(
                        Element(elements.friendly_name(root), xml.write(root))
                    )
        return wanted

    def _make(self, key: ProtectionKey) -> None:
        second = self._found.recoveries.get(key.id)
        wrapped = second.wrapped if second else None
        try:
            root = opened_somehow(key.stored, self._reader, wrapped)
        except KagimoriError as error:
            if not key.is_revoked or getattr(error, "transient", False):
                raise
            # It opens nothing any more; its record goes along, wrapped as it is.
            self._made[key.id] = (Element(f"key-{key.id}", key.stored.text),)
            return
        secret = rewriting.secret_in(root, key.id)
        first = wrap_checked(self._wrapper, secret, key.id)
        text = rewriting.with_envelope(root, key.id, first)
        made = [Element(f"key-{key.id}", text)]
        if self._recovery is not None:
            wrapped = wrap_checked(self._recovery, secret, key.id)
        if wrapped is not None:
            made.append(rewriting.recovery_element(key.id, wrapped))
        self._made[key.id] = tuple(made)


def _require_copyable(source: KeyStore, found: Contents) -> None:
    if found.skipped:
        # It may hold a secret in the clear, and nobody can tell.
        raise RingUnreadableError(
            f"The key element {found.skipped[0]} of {source.name} cannot be read, so the ring "
            "is not copied.",
            hint="Restore or remove that element.",
        )
    if not found.keys:
        raise RingMissingError(
            f"There is no key at {source.name}.", hint="Check the location."
        )


def _emitter(target: KeyStore, events: EventSink) -> Callable[..., None]:
    def emit(name: str, severity: Severity = Severity.INFO, **fields: str) -> None:
        fields["ring"] = target.name
        events.emit(Event(name, fields, severity))

    return emit
