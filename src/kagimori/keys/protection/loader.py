"""
Loading a protection ring and writing to it, over a store and wrappers.

Rules of this module:

1. A writer decides on what was just read and commits by compare-and-swap; who loses reads again
   and adopts what the winner wrote: N processes on an empty store make one key.
2. Nothing is minted while anything is unreadable, while a ring that served has vanished, or
   while the clock runs before the ring's newest key.
3. An adapter's surprise leaves here as a declared error.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kagimori.errors import (
    ConflictError,
    ContentionError,
    KagimoriError,
    KeyRingError,
    KeyWrapError,
    NextKeyWaitsError,
    RingMissingError,
    RingUnreadableError,
    StoreError,
)
from kagimori.events import Severity
from kagimori.keys.protection import descriptor, minting
from kagimori.keys.protection.algorithms import ProtectionAlgorithm
from kagimori.keys.protection.contents import (
    Contents,
    ProtectionPolicy,
    read,
    successor_due,
)
from kagimori.keys.store import KeyStore, Snapshot
from kagimori.keys.wrapping import KeyWrapper, WrappedSecret

ATTEMPTS = 20
"""How often a writer decides anew after losing to another one."""

_DOTNET_SIGHT = timedelta(days=3)
"""After how long a .NET node has seen a new key, at the latest, with a day to spare."""

_REMEDIES = {
    "DpapiXmlDecryptor": "It is wrapped by Windows DPAPI, which only that machine or user "
    "opens: export the ring there.",
    "DpapiNGXmlDecryptor": "It is wrapped by Windows DPAPI-NG, which only members of its "
    "domain open: export the ring there.",
}


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


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    What a load brought.

    Attributes:
        worry: why a successor that is due could not be made.
        added: the id of the key that this load added.
    """

    contents: Contents
    worry: KagimoriError | None = None
    added: str | None = None


class RingLoader:
    """
    The half of a `ProtectionRing` that does I/O. Not thread-safe: its owner takes turns.

    Args:
        emit: tells of an event: name, severity, fields.
    """

    def __init__(
        self,
        store: KeyStore,
        wrapper: KeyWrapper | None,
        also_unwrap: Sequence[KeyWrapper],
        options: RingOptions,
        emit: Callable[..., None],
    ) -> None:
        self.store = store
        self.wrapper = wrapper
        self._unwrappers = (*([wrapper] if wrapper else []), *also_unwrap)
        self._options = options
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
            raise _surprise(self.store.name, error) from error

    def load(self, serving: Contents | None, now: datetime) -> Loaded:
        """
        Read the ring; make its first key, or a successor that is due.

        Args:
            serving: what an earlier load brought; unwrapped secrets are carried over.

        Raises:
            KagimoriError: see `ProtectionRing.start`.
        """
        contents = self._read(serving, now)
        for attempt in range(ATTEMPTS):
            if contents.is_blank:
                self._require_creation()
            due = successor_due(contents, now, self._options.policy)
            if due is None or self._options.read_only:
                return Loaded(contents)
            try:
                self._require_whole(contents, now)
                added = self._add(contents, serving, now, due)
            except KagimoriError as error:
                if not contents.keys:
                    raise
                # What is there goes on serving; only the successor is missing.
                return Loaded(contents, worry=error)
            if added is not None:
                return added
            time.sleep(secrets.SystemRandom().uniform(0, 0.002 * min(attempt, 8)))
            contents = self._read(serving, now)
        raise _contention()

    def rotate(
        self,
        serving: Contents,
        now: datetime,
        *,
        activates: datetime | None,
        immediate: bool,
        reason: str,
    ) -> Loaded:
        """
        Add a key; see `ProtectionRing.rotate`.
        """
        for _ in range(ATTEMPTS):
            contents = self._read(serving, now)
            self._require_whole(contents, now)
            waiting = contents.next_turn(now)
            if waiting is not None and not immediate:
                date = f"{waiting:%Y-%m-%dT%H:%M:%SZ}"
                raise NextKeyWaitsError(
                    f"A key waits already; it takes over at {date}.", activates=date
                )
            at = now if immediate else max(activates or now + _DOTNET_SIGHT, now)
            expires = at + self._options.policy.lifetime
            added = self._add(contents, serving, now, (at, expires), reason)
            if added is not None:
                return added
        raise _contention()

    def _read(self, serving: Contents | None, now: datetime) -> Contents:
        try:
            snapshot = self.store.load()
        except KagimoriError:
            raise
        except Exception as error:
            raise _surprise(self.store.name, error) from error
        return self._understood(snapshot, serving, now)

    def _understood(
        self, snapshot: Snapshot, serving: Contents | None, now: datetime
    ) -> Contents:
        known = {key.id: key.material for key in serving.keys} if serving else {}
        for material in known.values():
            material.forget_failure()
        contents = read(snapshot, self._unwrap, known, now, self._skipped)
        # A ring that served and is gone (an unmounted share, an emptied bucket) is not a
        # ring that never was: minting another would cut everybody off.
        if serving is not None and contents.is_blank:
            raise RingMissingError(
                f"The ring at {self.store.name} has vanished; the keys in memory go on serving.",
                hint="Bring it back from a backup, or stop all instances to begin anew.",
            )
        return contents

    def _require_creation(self) -> None:
        if self._options.read_only or not self._options.create:
            raise RingMissingError(
                f"There is no ring at {self.store.name}, and none is to be made.",
                hint="Check the location; a ring that was there must be brought back.",
            )

    def _require_whole(self, contents: Contents, now: datetime) -> None:
        if contents.skipped:
            raise RingUnreadableError(
                f"The key element {contents.skipped[0]} of the ring cannot be read, so no key "
                "is made beside it.",
                hint="Restore or remove that element.",
            )
        if contents.is_behind(now, self._options.policy.skew):
            raise KeyRingError(
                "The ring holds a key made later than now by this machine's clock, so no key is "
                "made.",
                hint="Set the clock right.",
            )
        for key in contents.keys:
            if not key.is_revoked:
                try:
                    key.material.open()
                except KagimoriError as error:
                    raise unreadable(self.store.name, error) from error

    def _add(
        self,
        contents: Contents,
        serving: Contents | None,
        now: datetime,
        dates: tuple[datetime, datetime],
        reason: str = "",
    ) -> Loaded | None:
        """
        Make a key and commit it; ``None`` when another writer was faster.
        """
        options = self._options
        wrapper = minting.require_writer(
            self.store, self.wrapper, read_only=options.read_only
        )
        minting.refuse_born_revoked(contents, now)
        try:
            made = minting.mint(wrapper, options.algorithm, now, *dates)
        except KagimoriError:
            raise
        except Exception as error:  # noqa: BLE001 - rule 3
            raise _wrap_surprise(wrapper.name, error) from None
        reasons = {made.key_id: reason} if reason else {}
        state = minting.state_after(contents, options.application, reasons)
        try:
            snapshot = self.store.commit((made.element, state), (), contents.version)
        except ConflictError:
            return None
        except KagimoriError:
            raise
        except Exception as error:
            raise _surprise(self.store.name, error) from error
        self._emit("key.published", key=made.key_id, use="protection")
        return Loaded(self._understood(snapshot, serving, now), added=made.key_id)

    def _unwrap(self, wrapped: WrappedSecret, key_id: str) -> str:
        if descriptor.is_null(wrapped):
            return descriptor.null_unwrap(wrapped)
        failure: KagimoriError | None = None
        for wrapper in self._unwrappers:
            if not wrapper.can_unwrap(wrapped):
                continue
            try:
                return wrapper.unwrap(wrapped, key_id)
            except KagimoriError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - rule 3
                failure = _wrap_surprise(wrapper.name, error)
        if failure is not None:
            raise failure
        kind = descriptor.class_name(wrapped.decryptor_type)
        raise KeyWrapError(
            f"The key {key_id} is wrapped for {kind}, which nothing named here opens.",
            hint=_REMEDIES.get(kind, "Name the wrapper that this ring was made with."),
        )

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
            text, hint=error.hint, detail=error.detail, transient=error.transient
        )
    return RingUnreadableError(text, hint=error.hint, detail=error.detail)


def _surprise(where: str, error: Exception) -> StoreError:
    kind = type(error).__name__
    text = f"The ring's store {where} failed in an unforeseen way."
    return StoreError(text, detail=f"{kind}: {error}", transient=True)


def _wrap_surprise(name: str, error: Exception) -> KeyWrapError:
    # Only the class is kept: the message of a foreign error may quote what was unwrapped.
    text = f"The wrapper {name} failed in an unforeseen way."
    return KeyWrapError(text, detail=type(error).__name__, transient=True)


def _contention() -> ContentionError:
    return ContentionError(
        "Too many writers changed the ring at once.",
        hint="Try again in a moment.",
        transient=True,
    )
