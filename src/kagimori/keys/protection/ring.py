"""
A protection ring as applications hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from kagimori.clock import Clock, SystemClock
from kagimori.errors import ConfigError, KagimoriError
from kagimori.events import Event, EventSink, NullSink, Severity
from kagimori.keys.manager import RefreshPolicy
from kagimori.keys.protection import frame
from kagimori.keys.protection.algorithms import ALGORITHMS, DEFAULT
from kagimori.keys.protection.contents import Contents, ProtectionPolicy
from kagimori.keys.protection.live import LiveRing
from kagimori.keys.protection.loader import Loaded, RingLoader, RingOptions
from kagimori.keys.protection.protector import Protector
from kagimori.keys.store import KeyStore
from kagimori.keys.timeline import KeyState, KeyTimeline
from kagimori.keys.wrapping import KeyWrapper


@dataclass(frozen=True, slots=True)
class ProtectionKeyView:
    """
    What may be shown of a key.

    Attributes:
        wrapped_by: the classes of the envelopes around its secret; empty for a clear key.
    """

    id: str
    algorithm: str
    timeline: KeyTimeline
    state: KeyState
    wrapped_by: tuple[str, ...]


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
        policy = policy or ProtectionPolicy()
        options = RingOptions(
            application=application,
            read_only=read_only,
            create=create,
            algorithm=ALGORITHMS[algorithm],
            policy=policy,
        )
        self._loader = RingLoader(store, wrapper, also_unwrap, options, self._emit)
        self._live = LiveRing(self._loader, policy, refresh, self._clock, self._emit)

    # --- for applications ------------------------------------------------------------------

    def protector(self, *purposes: str) -> Protector:
        """
        Return a protector for a chain of purposes under the ring's application.

        Raises:
            ConfigError: no purpose is given, or one is no text or no valid Unicode.
        """
        if not purposes:
            # It would open what anybody protected without a purpose.
            raise ConfigError("A protector has at least one purpose.")
        return Protector(self._live, self._root).protector(*purposes)

    @property
    def is_ready(self) -> bool:
        """
        Whether there is a key to protect with.
        """
        return self._live.is_ready

    ready = is_ready

    @property
    def problem(self) -> KagimoriError | None:
        """
        What is wrong at present; ``None`` if nothing is. A ring with a problem may well serve.
        """
        return self._live.problem

    @property
    def current_key_id(self) -> str:
        """
        The id of the key that protects now.

        Raises:
            KeyRingError: there is none.
        """
        return self._live.protecting_key().id

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
        return self._live.contents.is_clear

    @property
    def generation(self) -> int:
        """
        The generation of the ring that serves; writers other than Kagimori do not raise it.
        """
        return self._live.contents.state.generation

    def is_stale(self, now: datetime | None = None) -> bool:
        """
        Whether nobody could confirm for a while that the ring is still as it serves.
        """
        return self._live.is_stale(now or self._clock.now())

    def keys(self, now: datetime | None = None) -> tuple[ProtectionKeyView, ...]:
        """
        Return what may be shown of all keys, by activation.
        """
        contents = self._live.contents
        at = now or self._clock.now()
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
        self._live.close()

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
        self._live.load()

    def refresh(self) -> None:
        """
        Load the ring again now, make a successor where one is due, and wait for both.

        Raises:
            KagimoriError: as `start`; the ring that serves goes on serving.
        """
        self._live.load()

    def tick(self) -> None:
        """
        Look at the store if it is time, in this thread; for those who see to that on a beat.

        Without it, uses of the ring see to it, in a thread aside. What goes wrong shows in
        `problem` and as an event.
        """
        self._live.tick()

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

        def verb(contents: Contents, now: datetime) -> Loaded:
            return self._loader.rotate(
                contents, now, activates=activates, immediate=immediate, reason=reason
            )

        added = self._live.change(verb).added
        return next(view for view in self.keys() if view.id == added)

    def _emit(
        self, name: str, severity: Severity = Severity.INFO, **fields: str
    ) -> None:
        fields["ring"] = self.location_name
        self._events.emit(Event(name, fields, severity))

    def __repr__(self) -> str:
        return f"<ProtectionRing {self.location_name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ring is not pickled")
