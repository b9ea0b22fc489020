"""
The ring that serves, kept fresh: `KeyManager`'s synchronous driver.

Rules of this module:

1. From the first load on there is always a ring to use: a failed load leaves the last good one
   serving and raises an alarm.
2. Uses take no lock. What they need is one immutable `Serving`, valid for a short window of
   time; whoever leaves the window sees to the next one, and I/O is done aside, in a thread that
   ends with it.
3. One load at a time in a process (the *flight*), however many threads ask.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NoReturn

from kagimori.clock import Clock
from kagimori.crypto.aead import REFUSED
from kagimori.errors import (
    KagimoriError,
    KeyRingError,
    UnknownKeyIdError,
)
from kagimori.events import Severity
from kagimori.keys.manager import KeyManager, RefreshPolicy
from kagimori.keys.protection import frame
from kagimori.keys.protection.contents import (
    Contents,
    ProtectionPolicy,
    overdue,
)
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.loader import Loaded, RingLoader, unreadable
from kagimori.keys.protection.serving import NOTHING, Serving

_BACK = timedelta(seconds=5)
_BUSY = timedelta(seconds=1)
_WAIT_FOR_FLIGHT = 2.0


class LiveRing:
    """
    Holds the ring that serves, and loads another when it is time. Thread-safe.

    Args:
        loader: does the I/O.
        emit: tells of an event: name, severity, fields.
    """

    def __init__(
        self,
        loader: RingLoader,
        policy: ProtectionPolicy,
        refresh: RefreshPolicy | None,
        clock: Clock,
        emit: Callable[..., None],
    ) -> None:
        self._loader = loader
        self._policy = policy
        self._clock = clock
        self._emit = emit
        self._manager: KeyManager[Contents] = KeyManager(refresh)
        self._flight = threading.Lock()
        self._loads = 0
        self._token: str | None = None
        self._worry: KagimoriError | None = None
        self._alarmed = ""
        self._is_closed = False
        self._serving = NOTHING
        _rings.add(self)

    @property
    def is_ready(self) -> bool:
        """
        Whether there is a key to protect with.
        """
        return self._serving.current is not None

    @property
    def problem(self) -> KagimoriError | None:
        """
        What is wrong at present; ``None`` if nothing is.
        """
        error = self._manager.error
        return error if isinstance(error, KagimoriError) else self._worry

    @property
    def contents(self) -> Contents:
        """
        The ring that serves.

        Raises:
            KeyRingError: it was closed, or never loaded.
        """
        contents = self._manager.ring
        if contents is None:
            raise KeyRingError(
                "The ring is closed." if self._is_closed else "The ring is not loaded."
            )
        return contents

    def is_stale(self, now: datetime) -> bool:
        """
        Whether nobody could confirm for a while that the ring is still as it serves.
        """
        return self._manager.is_stale(now)

    def close(self) -> None:
        """
        Let go of all keys.
        """
        self._is_closed = True
        self._manager.ring = None
        self._serving = NOTHING

    # --- loading ---------------------------------------------------------------------------

    def load(self) -> None:
        """
        Load now, whatever is due, and wait for it.

        Raises:
            KagimoriError: see `ProtectionRing.start`.
        """
        with self._flight:
            if self._is_closed:
                raise KeyRingError("The ring is closed.")
            self._load(self.now())

    def change(self, verb: Callable[[Contents, datetime], Loaded]) -> Loaded:
        """
        Let a verb change the stored ring, and serve the result at once.

        Raises:
            KagimoriError: as the verb raises.
        """
        with self._flight:
            now = self.now()
            loaded = verb(self.contents, now)
            self._loaded(loaded, now)
        return loaded

    def tick(self) -> None:
        """
        Look at the store if it is time, in this thread; at once done if another one does.
        """
        now = self.now()
        if self._wants_look(now) and self._flight.acquire(blocking=False):
            self._look()

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
            raise unreadable(self._loader.store.name, first)
        for key in contents.keys:
            # So that the switch to a waiting key needs no vault at that instant.
            if not key.is_revoked and key.timeline.activates > now:
                try:
                    key.material.open()
                except KagimoriError as error:
                    first = first or error
        self._worry = (
            loaded.worry or first or overdue(contents, opened, now, self._policy)
        )
        self._manager.loaded(contents, now)
        self._loads += 1
        self._settle(contents, now)
        self._tell()

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

    def key_at_hand(self, raw_id: bytes) -> tuple[ProtectionKey, bool] | None:
        """
        Return what `opening_key` would, if it takes no I/O; ``None`` if it may take some.

        Raises:
            KeyRingError: the ring was closed.
        """
        serving = self._serving
        now = self._clock.now()
        if not serving.begins <= now < serving.ends:
            serving = self._turn(now)
        key = serving.by_id.get(raw_id)
        if key is None or not (key.is_revoked or key.material.is_open):
            return None
        return key, key is serving.current

    def _turn(self, now: datetime) -> Serving:
        """
        See to the next window: another key, or a look at the store in a thread of its own.
        """
        contents = self.contents
        if self._wants_look(now):
            self._look_aside()
        return self._settle(contents, now)

    def _wants_look(self, now: datetime) -> bool:
        return self._manager.wants_load(now) or self._manager.wants_probe(now)

    def _settle(self, contents: Contents, now: datetime) -> Serving:
        # No I/O here: keys that were not unwrapped at the load do not protect.
        current = next(
            (key for key in contents.candidates(now) if key.material.is_open), None
        )
        ends = max(self._manager.next_look(now), now + _BUSY)
        turn = contents.next_turn(now)
        if turn is not None:
            ends = min(ends, turn)
        before = self._serving.current
        serving = Serving(
            now - _BACK, ends, current, {key.raw_id: key for key in contents.keys}
        )
        self._serving = serving
        # Another thread may have loaded, or closed, between our reading and our writing; then
        # what we put there is too old, and its revoked keys would serve on.
        newest = self._manager.ring
        if newest is None or self._is_closed:
            self.close()
        elif newest is not contents:
            return self._settle(newest, now)
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
                self._manager.probed(now, changed=self._loader.probe() != self._token)
            if self._manager.wants_load(now):
                self._load(now)
            elif (contents := self._manager.ring) is not None:
                self._settle(contents, now)
        except KagimoriError as error:
            if self._manager.error is not error:
                self._failed(error, self.now())
        finally:
            self._flight.release()

    def _seek(self, raw_id: bytes, now: datetime) -> Serving:
        """
        Look for an id that the ring does not hold: wait for a load that runs, or cause one.
        """
        loads = self._loads
        has_looked = self._flight.acquire(timeout=_WAIT_FOR_FLIGHT)
        if has_looked:
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
        # Nobody knows that there is no such key where the store could not be asked.
        error = self._manager.error
        raise UnknownKeyIdError(
            REFUSED,
            transient=not has_looked or bool(getattr(error, "transient", False)),
            detail=f"the ring at {self._loader.store.name} holds no key {frame.id_text(raw_id)}; "
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

    def _after_fork(self) -> None:
        # A thread of the parent may have held these, and it does not exist here.
        self._flight = threading.Lock()
        contents = self._manager.ring
        for key in contents.keys if contents else ():
            key.material.renew_lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ring is not pickled")


_rings: weakref.WeakSet[LiveRing] = weakref.WeakSet()


def _after_fork() -> None:
    for ring in list(_rings):
        ring._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
