"""
The live protection ring: a store, a wrapper and the state machine of `KeyManager` together.

Rules of this module:

1. A ring is loaded before it is handed out. From then on there is always a ring to use: a
   failed load leaves the last good one serving, raises an alarm, and mints nothing.
2. Uses take no lock. What they need is one immutable `_Serving`, valid for a short window of
   time; whoever leaves the window sees to the next one, in a thread of its own where I/O is due.
3. One load at a time in a process (the *flight*), however many threads ask.
4. Who writes decides on what was just read, commits by compare-and-swap, and on conflict
   adopts what the winner wrote: N processes on an empty store make one key.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from kagimori.clock import Clock, SystemClock
from kagimori.crypto.aead import REFUSED
from kagimori.errors import (
    KagimoriError,
    KeyRingError,
    StoreError,
    UnknownKeyIdError,
)
from kagimori.events import Event, EventSink, NullSink, Severity
from kagimori.keys.manager import KeyManager, RefreshPolicy
from kagimori.keys.protection import frame
from kagimori.keys.protection.algorithms import ALGORITHMS, DEFAULT
from kagimori.keys.protection.contents import Contents, ProtectionPolicy
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.loader import Loaded, RingLoader, RingOptions, unreadable
from kagimori.keys.protection.protector import Protector
from kagimori.keys.store import KeyStore
from kagimori.keys.timeline import KeyState, KeyTimeline
from kagimori.keys.wrapping import KeyWrapper

_BACK = timedelta(seconds=5)
_BUSY = timedelta(seconds=1)
_WAIT_FOR_FLIGHT = 5.0


@dataclass(frozen=True, slots=True)
class ProtectionKeyView:
    """
    What may be shown of a key.
    """

    id: str
    algorithm: str
    timeline: KeyTimeline
    state: KeyState
    wrapped_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Serving:
    """
    What uses need, good from `begins` until `ends`.
    """

    begins: datetime
    ends: datetime
    current: ProtectionKey | None
    by_id: Mapping[bytes, ProtectionKey] = field(repr=False)


_NEVER = datetime.max.replace(tzinfo=UTC)
_NOTHING = _Serving(_NEVER, _NEVER, None, {})


class ProtectionRing:
    """
    A ring of symmetric keys, in the format of ASP.NET Core Data Protection. Thread-safe.

    Made by `kagimori.open_ring`; made by hand, call `start` before anything else.

    Args:
        store: where the ring lies.
        wrapper: wraps new keys and unwraps; ``None`` reads clear rings only.
        application: the application name, ``None`` for no discriminator.
        also_unwrap: further wrappers, for reading only.
        read_only: never write; a ring that is not there is an error.
        create: make the first key where there is none.
        algorithm: of new keys, one of `kagimori.keys.protection.algorithms.ALGORITHMS`.
    """

    def __init__(
        self,
        store: KeyStore,
        wrapper: KeyWrapper | None,
        *,
        application: str | None,
        also_unwrap: Sequence[KeyWrapper] = (),
        read_only: bool = False,
        create: bool = True,
        algorithm: str = DEFAULT,
        policy: ProtectionPolicy | None = None,
        refresh: RefreshPolicy | None = None,
        clock: Clock | None = None,
        events: EventSink | None = None,
    ) -> None:
        self._root = (frame.purpose_bytes(application),) if application else ()
        self._clock = clock or SystemClock()
        self._events = events or NullSink()
        self._read_only = read_only
        self._policy = policy or ProtectionPolicy()
        options = RingOptions(
            application=application,
            read_only=read_only,
            create=create,
            algorithm=ALGORITHMS[algorithm],
            policy=self._policy,
        )
        self._loader = RingLoader(store, wrapper, also_unwrap, options, self._emit)
        self._manager: KeyManager[Contents] = KeyManager(refresh)
        self._flight = threading.Lock()
        self._loads = 0
        self._token: str | None = None
        self._worry: KagimoriError | None = None
        self._alarmed = ""
        self._is_closed = False
        self._serving = _NOTHING
        _rings.add(self)

    # --- for applications ------------------------------------------------------------------

    def protector(self, *purposes: str) -> Protector:
        """
        Return a protector for a chain of purposes under the ring's application.

        Raises:
            ConfigError: no purpose is given, or one is no text or no valid Unicode.
        """
        return Protector(self, self._root).protector(*purposes)

    @property
    def is_ready(self) -> bool:
        """
        Whether there is a key to protect with.
        """
        return not self._is_closed and self._serving.current is not None

    ready = is_ready

    @property
    def problem(self) -> KagimoriError | None:
        """
        What is wrong at present; ``None`` if nothing is. A ring with a problem may well serve.
        """
        error = self._manager.error
        if error is not None and not isinstance(error, KagimoriError):
            return StoreError("The ring could not be loaded.", transient=True)
        return error or self._worry

    @property
    def current_key_id(self) -> str:
        """
        The id of the key that protects now.

        Raises:
            KeyRingError: there is none.
        """
        return self.protecting_key().id

    @property
    def location_name(self) -> str:
        """
        Where the ring lies, for people; never a secret.
        """
        return self._loader.store.name

    @property
    def wrapper_name(self) -> str:
        """
        What wraps new keys, for people; never a secret.
        """
        return self._loader.wrapper.name if self._loader.wrapper else "none"

    @property
    def is_read_only(self) -> bool:
        """
        Whether this ring never writes.
        """
        return self._read_only

    @property
    def is_clear(self) -> bool:
        """
        Whether a key of the ring lies readable in its store.
        """
        contents = self._manager.ring
        return contents is not None and contents.is_clear

    @property
    def generation(self) -> int:
        """
        The generation of the ring that serves; writers other than Kagimori do not raise it.
        """
        contents = self._manager.ring
        return contents.state.generation if contents else 0

    def is_stale(self, now: datetime | None = None) -> bool:
        """
        Whether nobody could confirm for a while that the ring is still as it serves.
        """
        return self._manager.is_stale(now or self.now())

    def keys(self, now: datetime | None = None) -> tuple[ProtectionKeyView, ...]:
        """
        Return what may be shown of all keys, by activation.
        """
        contents = self._contents()
        at = now or self.now()
        return tuple(
            ProtectionKeyView(
                key.id,
                key.algorithm,
                key.timeline,
                contents.state_of(key, at),
                key.stored.decryptors,
            )
            for key in contents.keys
        )

    def close(self) -> None:
        """
        Let go of all keys. Whatever uses the ring afterwards is refused.
        """
        self._is_closed = True
        self._serving = _NOTHING
        self._manager.ring = None

    # --- loading ---------------------------------------------------------------------------

    def start(self) -> None:
        """
        Load the ring, or make its first key where there is none.

        Raises:
            RingMissingError: there is no ring and none is to be made.
            RingUnreadableError: there is one and it cannot be read.
            KeyWrapError: its keys cannot be unwrapped.
            StoreError: the store does not answer (then `transient`) or refuses.
            InsecureConfigError: a new ring was asked for without a wrapper.
        """
        with self._flight:
            self._load(self.now())

    def refresh(self) -> None:
        """
        Load the ring again now, make a successor where one is due, and wait for both.

        Raises:
            KagimoriError: as `start`; the ring that serves goes on serving.
        """
        self._contents()
        with self._flight:
            self._load(self.now())

    def rotate(
        self,
        *,
        activates: datetime | None = None,
        immediate: bool = False,
        reason: str = "",
    ) -> ProtectionKeyView:
        """
        Add a key: a successor for later, or, where `immediate`, one that protects from now on.

        .NET nodes that share the ring see a new key up to a day later, so without a date the
        successor activates in three days. An immediate key is an emergency for them.

        Args:
            activates: when it takes over; an instant that is past counts as now.
            reason: kept in the ring's state.

        Raises:
            NextKeyWaitsError: a key waits already, and this one is not to be immediate.
            RingReadOnlyError: the ring was opened read-only.
            KagimoriError: as `start`.
        """
        contents = self._contents()
        with self._flight:
            now = self.now()
            loaded = self._loader.rotate(
                contents, now, activates=activates, immediate=immediate, reason=reason
            )
            self._loaded(loaded, now)
        return next(view for view in self.keys(now) if view.id == loaded.added)

    def _load(self, now: datetime) -> None:
        """
        Load, tend and serve; the caller holds the flight.
        """
        try:
            # The token is older than what is read, so that no change falls between the two.
            token = self._loader.probe()
            self._loaded(self._loader.load(self._manager.ring, now), now)
        except KagimoriError as error:
            self._failed(error, now)
            raise
        self._token = token

    def _loaded(self, loaded: Loaded, now: datetime) -> None:
        """
        Let what was loaded serve, if a key of it can protect.
        """
        contents = loaded.contents
        first: KagimoriError | None = None
        opened: ProtectionKey | None = None
        for key in contents.candidates(now):
            try:
                key.material.open()
            except KagimoriError as error:
                first = first or error
                continue
            opened = key
            break
        if opened is None:
            raise unreadable(self.location_name, first)
        for key in contents.keys:
            # So that the switch to a waiting key needs no vault at that instant.
            if not key.is_revoked and key.timeline.activates > now:
                try:
                    key.material.open()
                except KagimoriError as error:
                    first = first or error
        self._worry = loaded.worry or first or self._overdue(opened, contents, now)
        self._manager.loaded(contents, now)
        self._loads += 1
        self._settle(contents, now)
        self._tell()

    def _overdue(
        self, key: ProtectionKey, contents: Contents, now: datetime
    ) -> KagimoriError | None:
        if contents.is_behind(now, self._policy.skew):
            return KeyRingError(
                "This machine's clock shows a time before the ring's newest key was made.",
                hint="Set the clock right.",
            )
        due = key.timeline.due
        if due is not None and due < now and contents.next_turn(now) is None:
            return KeyRingError(
                f"The protecting key {key.id} is past its expiration and has no successor.",
                hint="Open the ring for writing somewhere, or rotate.",
            )
        return None

    def _failed(self, error: KagimoriError, now: datetime) -> None:
        self._manager.failed(error, now)
        contents = self._manager.ring
        if contents is not None:
            self._settle(contents, now)
        self._tell()

    # --- serving ---------------------------------------------------------------------------

    def now(self) -> datetime:
        """
        Return the time by the ring's clock.
        """
        return self._clock.now()

    def protecting_key(self) -> ProtectionKey:
        """
        Return the key that protects now.

        Raises:
            KeyRingError: there is none, or the ring was closed.
        """
        serving = self._serving
        now = self._clock.now()
        if not serving.begins <= now < serving.ends:
            serving = self._turn(now)
        if serving.current is None:
            raise KeyRingError("No key of the ring can protect now.")
        return serving.current

    def opening_key(self, raw_id: bytes) -> tuple[ProtectionKey, bool]:
        """
        Return the key of an id in a frame, and whether it is the current one.

        Raises:
            UnknownKeyIdError: the ring holds no such key, not even after a reload.
            KeyRingError: the ring was closed.
        """
        serving = self._serving
        now = self._clock.now()
        if not serving.begins <= now < serving.ends:
            serving = self._turn(now)
        key = serving.by_id.get(raw_id)
        if key is None:
            serving = self._seek(raw_id, now)
            key = serving.by_id[raw_id]
        return key, key is serving.current

    def _contents(self) -> Contents:
        contents = self._manager.ring
        if contents is None:
            raise KeyRingError(
                "The ring is closed." if self._is_closed else "The ring is not loaded."
            )
        return contents

    def _turn(self, now: datetime) -> _Serving:
        """
        See to the next window: another key, or a look at the store in a thread of its own.
        """
        contents = self._contents()
        manager = self._manager
        if manager.wants_load(now) or manager.wants_probe(now):
            self._look_aside()
        return self._settle(contents, now)

    def _settle(self, contents: Contents, now: datetime) -> _Serving:
        # No I/O here: keys that were not unwrapped at the load do not protect.
        current = next(
            (key for key in contents.candidates(now) if key.material.is_open), None
        )
        ends = max(self._manager.next_look(now), now + _BUSY)
        turn = contents.next_turn(now)
        if turn is not None:
            ends = min(ends, turn)
        before = self._serving.current
        serving = _Serving(
            now - _BACK, ends, current, {key.raw_id: key for key in contents.keys}
        )
        if not self._is_closed:
            self._serving = serving
        if before is not None and current is not None and before.id != current.id:
            self._emit("key.activated", key=current.id, use="protection")
        return serving

    def _look_aside(self) -> None:
        if not self._flight.acquire(blocking=False):
            return
        try:
            threading.Thread(
                target=self._look, name="kagimori-ring", daemon=True
            ).start()
        except RuntimeError:
            # No thread can be had (the interpreter ends, or a limit): serve what there is.
            self._flight.release()

    def _look(self) -> None:
        try:
            now = self.now()
            if not self._manager.wants_load(now):
                self._manager.probed(self._loader.probe() != self._token, now)
            if self._manager.wants_load(now):
                self._load(now)
            elif (contents := self._manager.ring) is not None:
                self._settle(contents, now)
        except KagimoriError as error:
            if self._manager.error is not error:
                self._failed(error, self.now())
        finally:
            self._flight.release()

    def _seek(self, raw_id: bytes, now: datetime) -> _Serving:
        """
        Look for an id that the ring does not hold: wait for a load that runs, or cause one.
        """
        loads = self._loads
        if self._flight.acquire(timeout=_WAIT_FOR_FLIGHT):
            try:
                if (
                    raw_id not in self._serving.by_id
                    and loads == self._loads
                    and self._manager.unknown_id(now)
                ):
                    self._load(now)
            except KagimoriError:
                pass
            finally:
                self._flight.release()
        if raw_id in self._serving.by_id:
            return self._serving
        raise UnknownKeyIdError(
            REFUSED,
            detail=f"the ring at {self.location_name} holds no key {frame.id_text(raw_id)}; "
            f"last loaded {self._manager.loaded_at}",
        )

    # --- telling, forking ------------------------------------------------------------------

    def _tell(self) -> None:
        problem = self.problem
        code = problem.text if problem else ""
        if code == self._alarmed:
            return
        self._alarmed = code
        if problem is None:
            self._emit("ring.recovered")
            return
        self._emit(
            "ring.unreadable" if self._manager.error else "ring.troubled",
            Severity.ALARM,
            code=problem.code,
            text=problem.text,
            hint=problem.hint,
            detail=problem.detail,
        )

    def _emit(
        self, name: str, severity: Severity = Severity.INFO, **fields: str
    ) -> None:
        fields["ring"] = self.location_name
        self._events.emit(Event(name, fields, severity))

    def _after_fork(self) -> None:
        # A thread of the parent may have held these, and it does not exist here.
        self._flight = threading.Lock()
        contents = self._manager.ring
        for key in contents.keys if contents else ():
            key.material.renew_lock()

    def __repr__(self) -> str:
        return f"<ProtectionRing {self.location_name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ring is not pickled")


_rings: weakref.WeakSet[ProtectionRing] = weakref.WeakSet()


def _after_fork() -> None:
    for ring in list(_rings):
        ring._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
