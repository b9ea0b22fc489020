"""
The ring that serves, kept fresh: `KeyManager`'s synchronous driver.

Rules of this module:

1. From the first load on there is always a ring to use: a failed load leaves the last good one
   serving and raises an alarm. What was read whole replaces it all the same, even where none of
   its keys can protect: a revocation holds whatever else is wrong.
2. Uses take no lock. What they need is one immutable `Serving`, valid for a short window of
   time; whoever leaves the window sees to the next one, and I/O is done aside, in a thread that
   ends with it.
3. One load at a time in a process (the *flight*), however many threads ask.
4. A payload is opened by a ring that was confirmed within two probe intervals, or that could not
   be: who comes after a pause waits for one look, and not for long. So a revocation holds
   everywhere after two intervals.
5. Ids come from attackers: one that is not known causes a load once in a while, and between
   loads it costs no lock and no wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NoReturn

from kagimori.clock import Clock
from kagimori.errors import KagimoriError, KeyRingError
from kagimori.keys.manager import KeyManager, RefreshPolicy
from kagimori.keys.protection import refusing
from kagimori.keys.protection.alarm import Alarm
from kagimori.keys.protection.contents import Contents, overdue, with_missing
from kagimori.keys.protection.flight import Flight
from kagimori.keys.protection.forking import tell_of_forks
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.loader import Decide, Loaded, RingLoader, unreadable
from kagimori.keys.protection.planted import tell_of_clear
from kagimori.keys.protection.readiness import open_needed
from kagimori.keys.protection.serving import NOTHING, Serving, window

_WAIT_FOR_FLIGHT = 2.0
_WAIT_AFTER_PAUSE = 1.0


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
        refresh: RefreshPolicy | None,
        clock: Clock,
        emit: Callable[..., None],
    ) -> None:
        self._loader = loader
        self._policy = loader.options.policy
        self._clock = clock
        self._emit = emit
        self._manager: KeyManager[Contents] = KeyManager(refresh)
        self._alarm = Alarm(emit)
        self._flight = Flight()
        self._loads = 0
        self._token: str | None = None
        self._late: KagimoriError | None = None
        self._worry: KagimoriError | None = None
        self._named: dict[str, datetime] = {}
        self._is_closed = False
        self._serving = NOTHING
        tell_of_forks(self)

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

    @property
    def last_named(self) -> Mapping[str, datetime]:
        """
        When a payload last named a key other than the protecting one, here, by key id.
        """
        return self._named

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

    def change(self, decide: Decide) -> Loaded:
        """
        Let a verb change the stored ring, and serve the result at once.

        Raises:
            KagimoriError: as `RingLoader.change`.
        """
        with self._flight:
            now = self.now()
            loaded = self._loader.change(self.contents, now, decide)
            # It is stored: what is wrong with the ring shows as its problem, not as a failure.
            self._loaded(loaded, now)
        return loaded

    def tick(self) -> None:
        """
        Look at the store if it is time, in this thread, unless another one does.
        """
        now = self.now()
        if self._wants_look(now) and self._flight.take():
            self._look()

    def _load(self, now: datetime) -> None:
        """
        Load, tend and serve; the caller holds the flight.
        """
        try:
            # The token is older than what is read, so that no change falls between the two.
            token = self._loader.probe()
            trouble = self._loaded(self._loader.load(self._manager.ring, now), now)
        except KagimoriError as error:
            self._failed(error, now)
            raise
        if trouble is not None:
            raise trouble
        self._token = token

    def _loaded(self, loaded: Loaded, now: datetime) -> KagimoriError | None:
        """
        Let what was loaded serve; return why no key of it can protect, if so.

        Raises:
            KagimoriError: that is so, and nothing served before.
        """
        contents = loaded.contents
        self._late = loaded.worry
        protects = self._judge(contents, now)
        served = self._manager.ring
        tell_of_clear(contents, served, self._loader.envelopes.wrapper, self._emit)
        self._loads += 1
        if protects:
            self._manager.loaded(contents, now)
            self._settle(contents, now)
            self._tell()
            return None
        trouble = self._late
        if self._worry is not None or trouble is None:
            trouble = unreadable(self._loader.store.name, self._worry)
        if served is None:
            raise trouble
        # Else a revoked key would serve on, for its thief too, until another can protect.
        self._manager.adopted(with_missing(contents, served, now), now)
        self._failed(trouble, now)
        return trouble

    def _judge(self, contents: Contents, now: datetime) -> bool:
        """
        Open what is needed first, and note what is wrong; return whether anything protects.
        """
        ready = open_needed(contents, now)
        if ready.protecting is None:
            self._worry = ready.worry
            return False
        late = overdue(contents, ready.protecting, now, self._policy)
        self._worry = self._late or ready.worry or late
        return True

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
            serving = self._turn(now, wait=self._manager.is_after_pause(now))
        key = serving.by_id.get(raw_id)
        if key is None:
            serving = self._seek(raw_id, now)
            key = serving.by_id[raw_id]
        if key is serving.current:
            return key, True
        self._named[key.id] = now
        return key, False

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

    def _turn(self, now: datetime, *, wait: bool = False) -> Serving:
        """
        See to the next window: another key, or a look at the store in a thread of its own.
        """
        contents = self.contents
        if self._wants_look(now):
            self._flight.aside(self._look)
            if wait:
                # Rule 4.
                self._flight.landed(_WAIT_AFTER_PAUSE)
                contents = self.contents
        return self._settle(contents, now)

    def _wants_look(self, now: datetime) -> bool:
        return self._manager.wants_load(now) or self._manager.wants_probe(now)

    def _settle(self, contents: Contents, now: datetime) -> Serving:
        before = self._serving.current
        serving = window(contents, self._manager, now)
        current = serving.current
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

    def _look(self, *, peek: bool = False) -> None:
        try:
            now = self.now()
            if peek and not self._manager.may_peek(now):
                return
            if not self._manager.wants_load(now):
                self._manager.probed(now, changed=self._loader.probe() != self._token)
            if self._manager.wants_load(now):
                self._load(now)
            elif (contents := self._manager.ring) is not None:
                if getattr(self._worry, "transient", False):
                    # What a vault did not open a while ago it may open now.
                    self._judge(contents, now)
                    self._tell()
                self._settle(contents, now)
        except KagimoriError as error:
            if self._manager.error is not error:
                self._failed(error, self.now())
        finally:
            self._flight.land()

    def _seek(self, raw_id: bytes, now: datetime) -> Serving:
        """
        Look for an id that the ring does not hold: wait for a load that runs, or cause one.
        """
        # Rule 5: in a flood this takes no lock, since the next load is not granted yet.
        has_looked = self._flight.landed(_WAIT_FOR_FLIGHT)
        if raw_id not in self._serving.by_id and has_looked:
            if self._manager.may_seek(now):
                has_looked = self._sought(raw_id, now)
            elif self._manager.may_peek(now) and self._flight.take():
                # Lands the flight itself; whoever else comes meanwhile waits for it above.
                self._look(peek=True)
        if raw_id in self._serving.by_id:
            return self._serving
        # Nobody knows that there is no such key where the store could not be asked.
        error = self._manager.error
        raise refusing.unknown_key(
            self._loader.store.name,
            self._manager.ring,
            raw_id,
            self._manager.loaded_at,
            transient=not has_looked or bool(getattr(error, "transient", False)),
        )

    def _sought(self, raw_id: bytes, now: datetime) -> bool:
        """
        Load because of an unknown id; return whether the store was asked by anybody.
        """
        loads = self._loads
        if not self._flight.take(within=_WAIT_FOR_FLIGHT):
            return False
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
            self._flight.land()
        return True

    def _tell(self) -> None:
        self._alarm.tell(self.problem, is_unreadable=self._manager.error is not None)

    def after_fork(self) -> None:
        """
        Renew the locks that a thread of the parent process may have held.
        """
        self._flight.renew()
        contents = self._manager.ring
        for key in contents.keys if contents else ():
            key.material.renew_lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ring is not pickled")
