"""
A protection ring as applications hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NoReturn, Protocol, runtime_checkable

from kagimori.clock import Clock, SystemClock
from kagimori.errors import ConfigError, KagimoriError, KeyRingError
from kagimori.events import Event, EventSink, NullSink, Severity
from kagimori.keys.manager import RefreshPolicy
from kagimori.keys.protection import frame
from kagimori.keys.protection.algorithms import ALGORITHMS, DEFAULT
from kagimori.keys.protection.contents import Contents, ProtectionPolicy
from kagimori.keys.protection.envelopes import Envelopes
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.live import LiveRing
from kagimori.keys.protection.loader import RingLoader, RingOptions
from kagimori.keys.protection.operating import RingVerbs
from kagimori.keys.protection.outcomes import ProtectionKeyView
from kagimori.keys.protection.protector import Protector
from kagimori.keys.store import KeyStore
from kagimori.keys.wrapping import KeyWrapper


@runtime_checkable
class KnowsHowLong(Protocol):
    """
    A store that knows whether what it holds lasts; others need not say.
    """

    def lost_at_restart(self) -> str:
        """
        Say why it does not last; empty where it does.
        """
        ...


class ProtectionRing(RingVerbs):
    """
    A ring of symmetric keys, in the format of ASP.NET Core Data Protection. Thread-safe.

    Made by `kagimori.open_ring`; made by hand, call `start` before anything else.

    Args:
        store: where the ring lies.
        wrapper: wraps new keys and unwraps; ``None`` reads clear rings only.
        application: the application name, ``None`` for no discriminator.
        also_unwrap: further wrappers, for reading only.
        recovery: opens keys whose first envelope is lost, and gives new ones a second envelope.
        read_only: never write; a ring that is not there is an error.
        create: make the first key where there is none.
        require_lasting: refuse a store that says that it does not outlive its container.
        algorithm: of new keys, one of `kagimori.keys.protection.algorithms.ALGORITHMS`.
    """

    def __init__(
        self,
        store: KeyStore,
        wrapper: KeyWrapper | None,
        *,
        application: str | None,
        also_unwrap: Sequence[KeyWrapper] = (),
        recovery: KeyWrapper | None = None,
        read_only: bool = False,
        create: bool = True,
        require_lasting: bool = False,
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
        self._require_lasting = require_lasting
        refresh = refresh or RefreshPolicy()
        options = RingOptions(
            application=application,
            read_only=read_only,
            create=create,
            algorithm=ALGORITHMS[algorithm],
            policy=policy or ProtectionPolicy(),
            nodes_see=2 * refresh.probe_every,
        )
        envelopes = Envelopes(wrapper, also_unwrap, recovery)
        self._loader = RingLoader(store, envelopes, options, self._emit)
        self._live = LiveRing(self._loader, refresh, self._clock, self._emit)

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
        wrapper = self._loader.envelopes.wrapper
        return wrapper.name if wrapper else "none"

    @property
    def application(self) -> str | None:
        """
        The application's name; ``None`` for no name.
        """
        return self._root[0].decode() if self._root else None

    def now(self) -> datetime:
        """
        Return the time by the ring's clock.
        """
        return self._clock.now()

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

    @property
    def lost_at_restart(self) -> str:
        """
        Why the ring does not outlive this container or machine.

        Empty where it does, and where its store cannot tell.
        """
        store = self._loader.store
        return store.lost_at_restart() if isinstance(store, KnowsHowLong) else ""

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
        return tuple(self._shown(contents, key, at) for key in contents.keys)

    def _view(self, contents: Contents, key_id: str) -> ProtectionKeyView:
        key = contents.get(key_id)
        if key is None:
            raise KeyRingError(f"The ring holds no key {key_id} any more.")
        return self._shown(contents, key, self._clock.now())

    def _shown(
        self, contents: Contents, key: ProtectionKey, now: datetime
    ) -> ProtectionKeyView:
        return ProtectionKeyView(
            key.id,
            key.algorithm,
            key.timeline,
            contents.state_of(key, now),
            key.stored.decryptors,
            contents.state.reasons.get(key.id, ""),
            self._live.last_named.get(key.id),
            key.id in contents.recoveries,
        )

    def close(self) -> None:
        """
        Let go of all keys, and of the store's connections. Uses from then on are refused.
        """
        self._live.close()
        close = getattr(self._loader.store, "close", None)
        if close is not None:
            close()

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
            ConfigError: the place does not last, and that was required.
        """
        lost = self.lost_at_restart
        if lost and self._require_lasting:
            raise ConfigError(
                f"{lost}: everybody would be signed out then.",
                hint="Mount a volume there, or name a ring in a database or a blob.",
            )
        self._live.load()
        if lost:
            self._emit("ring.not_lasting", Severity.WARNING, text=lost)
        self._compare_application()

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

    def _compare_application(self) -> None:
        """
        Tell where the ring was made for an application whose name looks almost like ours.
        """
        made_for, ours = self._live.contents.state.application, self.application
        if made_for in (None, ours) or ours is None:
            return
        # What hosts gained and lost from version to version: separators, blanks, case.
        if _bare(made_for) == _bare(ours):
            self._emit(
                "ring.application_differs",
                Severity.WARNING,
                made_for=made_for,
                opened_as=ours,
            )

    def _emit(
        self, name: str, severity: Severity = Severity.INFO, **fields: str
    ) -> None:
        fields["ring"] = self.location_name
        self._events.emit(Event(name, fields, severity))

    def __repr__(self) -> str:
        return f"<ProtectionRing {self.location_name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ring is not pickled")


def _bare(application: str | None) -> str:
    return (application or "").strip().rstrip("/\\").casefold()
