"""
Loading a protection ring and writing to it, over a store and wrappers.

Rules of this module:

1. A writer decides on what was just read and commits by compare-and-swap; who loses reads again
   and decides anew on what the winner wrote: N processes on an empty store make one key. This
   is the only retry loop.
2. Nothing is minted while anything is unreadable, while a ring that served has vanished, or
   while the clock runs before the ring's newest key, unless a key is revoked by it.
3. Each commit leaves a mark in our state. Who is told of a conflict and finds his mark was
   successful: only the answer was lost, and acting again would be acting twice.
4. An adapter's surprise leaves here as a declared error.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from kagimori.errors import (
    ConflictError,
    ContentionError,
    KagimoriError,
    KeyRingError,
    KeyWrapError,
    RingMissingError,
    RingReadOnlyError,
    RingUnreadableError,
    StoreError,
)
from kagimori.events import Severity
from kagimori.keys.protection import minting
from kagimori.keys.protection.algorithms import ProtectionAlgorithm
from kagimori.keys.protection.contents import (
    Contents,
    ProtectionPolicy,
    clock_hint,
    read,
    successor_due,
)
from kagimori.keys.protection.envelopes import Envelopes
from kagimori.keys.protection.minting import Minted
from kagimori.keys.protection.parallel import in_parallel
from kagimori.keys.protection.plan import NOTHING_TO_DO, Birth, Plan
from kagimori.keys.protection.terms import Terms
from kagimori.keys.store import Element, KeyStore, Snapshot

ATTEMPTS = 20
"""How often a writer decides anew after losing to another one."""

Decide = Callable[[Contents, datetime], Plan]
"""What a verb is to the loop: it may be asked several times, each time on a newer ring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RingOptions:
    """
    How a ring is opened; see `ProtectionRing`.
    """

    application: str | None
    read_only: bool
    create: bool
    algorithm: ProtectionAlgorithm
    policy: ProtectionPolicy
    nodes_see: timedelta = timedelta(seconds=10)

    @property
    def terms(self) -> Terms:
        """
        What verbs go by.
        """
        return Terms(self.policy, self.nodes_see)


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    What a load or a change brought.

    Attributes:
        worry: why a successor that is due could not be made.
        added: the id of the key that this added.
        plan: what was decided, and committed unless it was empty.
    """

    contents: Contents
    worry: KagimoriError | None = None
    added: str | None = None
    plan: Plan = NOTHING_TO_DO


class RingLoader:
    """
    The half of a `ProtectionRing` that does I/O. Not thread-safe: its owner takes turns.

    Args:
        emit: tells of an event: name, severity, fields.
    """

    def __init__(
        self,
        store: KeyStore,
        envelopes: Envelopes,
        options: RingOptions,
        emit: Callable[..., None],
    ) -> None:
        self.store = store
        self.envelopes = envelopes
        self.options = options
        self._emit = emit

    def probe(self) -> str | None:
        """
        Return the store's cheap token.

        Raises:
            KagimoriError: the store does not answer.
        """
        try:
            return self.store.probe()
        except KagimoriError:
            raise
        except Exception as error:
            raise store_surprise(self.store.name, error) from error

    def load(self, serving: Contents | None, now: datetime) -> Loaded:
        """
        Read the ring; make its first key, or a successor that is due.

        Args:
            serving: what an earlier load brought; unwrapped secrets are carried over.

        Raises:
            KagimoriError: see `ProtectionRing.start`.
        """
        contents = self._read(serving, now)
        try:
            return self._settled(contents, serving, now, self._scheduled)
        except KagimoriError as error:
            if not contents.keys and serving is None:
                raise
            if (
                contents.keys
                and successor_due(contents, now, self.options.policy) is None
            ):
                # Only a note could not be written; the next load tries again.
                return Loaded(contents)
            # What is there goes on serving; only the successor is missing.
            return Loaded(contents, worry=error)

    def change(self, serving: Contents | None, now: datetime, decide: Decide) -> Loaded:
        """
        Read the ring, let a verb decide on it, and commit what it decided.

        Raises:
            RingReadOnlyError: the ring was opened read-only.
            KagimoriError: as the verb, the store or a wrapper raises.
        """
        if self.options.read_only:
            raise RingReadOnlyError(
                f"The ring at {self.store.name} was opened read-only.",
                hint="Open it for writing elsewhere.",
            )
        return self._settled(self._read(serving, now), serving, now, decide)

    # --- the loop --------------------------------------------------------------------------

    def _settled(
        self,
        contents: Contents,
        serving: Contents | None,
        now: datetime,
        decide: Decide,
    ) -> Loaded:
        made: Minted | None = None
        mark = secrets.token_hex(8)
        for attempt in range(ATTEMPTS):
            plan = decide(contents, now)
            if plan.is_empty:
                return Loaded(contents, plan=plan)
            born: Minted | None = None
            if plan.birth is not None:
                born = made = self._born(plan.birth, plan, contents, now, made)
            snapshot = self._committed(contents, plan, born, now, mark)
            if snapshot is not None:
                self._tell(plan, born)
                after = self._understood(snapshot, serving, now)
            else:
                pause = 0.002 * min(attempt, 8)
                time.sleep(secrets.SystemRandom().uniform(0, pause))
                after = self._read(serving, now)
                if not minting.is_done(after, mark, born):
                    contents = after
                    continue
                # Rule 3.
                self._tell(plan, born)
            return Loaded(after, added=born.key_id if born else None, plan=plan)
        raise ContentionError(
            "Too many writers changed the ring at once.",
            hint="Try again in a moment.",
            transient=True,
        )

    def _scheduled(self, contents: Contents, now: datetime) -> Plan:
        if contents.is_blank:
            self._require_creation()
        due = successor_due(contents, now, self.options.policy)
        if self.options.read_only:
            return NOTHING_TO_DO
        if due is None:
            return Plan(is_note=minting.turned_unnoted(contents, now))
        return Plan(birth=Birth(*due))

    def _tell(self, plan: Plan, born: Minted | None) -> None:
        if born is not None:
            self._emit("key.published", key=born.key_id, use="protection")
        for name, severity, fields in plan.tales:
            self._emit(name, severity, **fields)

    def _born(
        self,
        birth: Birth,
        plan: Plan,
        contents: Contents,
        now: datetime,
        made: Minted | None,
    ) -> Minted:
        """
        Make a key that was decided on, unless an earlier attempt made it already.
        """
        self._require_whole(contents, now, {cut.key_id for cut in plan.cuts})
        wrapper = minting.require_writer(
            self.store, self.envelopes.wrapper, read_only=self.options.read_only
        )
        minting.refuse_born_revoked(contents, now)
        if made is not None and made.birth == birth:
            return made
        at = birth.activates
        return minting.mint(
            wrapper,
            self.options.algorithm,
            now,
            birth,
            self.envelopes.recovery,
            [key.id for key in contents.keys if key.timeline.activates == at],
        )

    def _committed(
        self,
        contents: Contents,
        plan: Plan,
        made: Minted | None,
        now: datetime,
        mark: str,
    ) -> Snapshot | None:
        """
        Commit; ``None`` when another writer was faster.
        """
        reasons = dict(plan.reasons)
        born: tuple[Element, ...] = ()
        if made is not None:
            born = made.elements
            if made.birth.reason:
                reasons[made.key_id] = made.birth.reason
        state = minting.state_after(
            contents, self.options.application, reasons, plan, made, now, mark
        )
        try:
            return self.store.commit(
                (*plan.add, *born, state), plan.remove, contents.version
            )
        except ConflictError:
            return None
        except KagimoriError:
            raise
        except Exception as error:
            raise store_surprise(self.store.name, error) from error

    def _read(self, serving: Contents | None, now: datetime) -> Contents:
        try:
            snapshot = self.store.load()
        except KagimoriError:
            raise
        except Exception as error:
            raise store_surprise(self.store.name, error) from error
        return self._understood(snapshot, serving, now)

    def _understood(
        self, snapshot: Snapshot, serving: Contents | None, now: datetime
    ) -> Contents:
        known = {key.id: key.material for key in serving.keys} if serving else {}
        for material in known.values():
            material.forget_failure()
        contents = read(snapshot, self.envelopes.unwrap, known, now, self._skipped)
        # A ring that served and is gone (an unmounted share, an emptied bucket) is not a
        # ring that never was: minting another would cut everybody off.
        if serving is not None and contents.is_blank:
            raise RingMissingError(
                f"The ring at {self.store.name} has vanished; the keys in memory go on serving.",
                hint="Bring it back from a backup, or stop all instances to begin anew.",
            )
        return contents

    def _require_creation(self) -> None:
        if self.options.read_only or not self.options.create:
            raise RingMissingError(
                f"There is no ring at {self.store.name}, and none is to be made.",
                hint="Check the location; a ring that was there must be brought back.",
            )

    def _require_whole(
        self, contents: Contents, now: datetime, gone: Collection[str]
    ) -> None:
        """
        Refuse to make a key beside one that cannot be read, unless the change revokes that one.
        """
        if contents.skipped:
            raise RingUnreadableError(
                f"The key element {contents.skipped[0]} of the ring cannot be read, so no key "
                "is made beside it.",
                hint="Restore or remove that element.",
            )
        ahead = contents.ahead(now, self.options.policy.skew)
        # What ends a key is not put off: a thief has it, whatever any clock shows.
        if ahead is not None and not gone:
            raise KeyRingError(
                "The ring holds a key made later than now by this machine's clock, so no key is "
                "made.",
                hint=clock_hint(ahead),
            )
        needed = [
            key.material
            for key in contents.keys
            if not key.is_revoked and key.id not in gone
        ]
        try:
            in_parallel([one.open for one in needed if not one.is_open])
            for one in needed:
                # What this process opened before it was wrapped anew proves nothing of now.
                if one.is_inherited and one.trouble is not None:
                    raise one.trouble
        except KagimoriError as error:
            raise unreadable(self.store.name, error) from error

    def _skipped(self, name: str, why: str) -> None:
        self._emit("ring.key_skipped", Severity.WARNING, element=name, why=why)


def unreadable(where: str, error: KagimoriError | None) -> KagimoriError:
    """
    Return the error of a ring that is there and whose keys cannot be read.

    Args:
        error: why the first of them cannot; ``None`` if all are revoked.
    """
    if error is None:
        return RingUnreadableError(
            f"Every key of the ring at {where} is revoked.",
            hint="Open the ring for writing, so that a new key can be made.",
        )
    text = f"The ring at {where} is there but cannot be read: {error.text}"
    if isinstance(error, KeyWrapError):
        return KeyWrapError(
            text,
            hint=error.hint,
            detail=error.detail,
            transient=error.transient,
            retry_after=error.retry_after,
        )
    return RingUnreadableError(text, hint=error.hint, detail=error.detail)


def store_surprise(where: str, error: Exception) -> StoreError:
    """
    Return the declared error of a store that failed in an unforeseen way (rule 4).
    """
    kind = type(error).__name__
    text = f"The ring's store {where} failed in an unforeseen way."
    return StoreError(text, detail=f"{kind}: {error}", transient=True)
