"""
Rings for tests: real folders and wrappers, with trouble on demand.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kagimori.events import Event, Severity
from kagimori.keys.manager import RefreshPolicy
from kagimori.keys.protection.contents import ProtectionPolicy
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.store import Element, KeyStore, Snapshot
from kagimori.keys.wrapping import KeyWrapper, WrappedSecret
from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore
from kagimori.testing.clock import FixedClock
from kagimori.wrappers.plaintext import PlaintextWrapper

VECTORS = Path(__file__).parents[2] / "vectors" / "aspnet"
VECTOR_NOW = datetime(2026, 11, 22, tzinfo=UTC)


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


class Heard:
    """
    Keeps the events that it is told.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def alarms(self) -> list[str]:
        return [e.name for e in self.events if e.severity is Severity.ALARM]


class TroubledStore:
    """
    A real store that fails, waits, or is watched when a test says so.
    """

    def __init__(self, store: KeyStore) -> None:
        self.real = store
        self.fault: Exception | None = None
        self.gate: threading.Event | None = None
        self.loads = self.probes = self.commits = 0

    @property
    def name(self) -> str:
        return self.real.name

    def load(self) -> Snapshot:
        self.loads += 1
        self._trouble()
        return self.real.load()

    def probe(self) -> str | None:
        self.probes += 1
        self._trouble()
        return self.real.probe()

    def commit(
        self, add: Sequence[Element], remove: Sequence[str], expect: str | None
    ) -> Snapshot:
        self.commits += 1
        self._trouble()
        return self.real.commit(add, remove, expect)

    def _trouble(self) -> None:
        if self.gate is not None:
            self.gate.wait(30)
        if self.fault is not None:
            raise self.fault


class TroubledWrapper:
    """
    A real wrapper that fails or is watched when a test says so.
    """

    is_plaintext = False

    def __init__(self, wrapper: KeyWrapper | None = None) -> None:
        self.real = wrapper or PlaintextWrapper()
        self.fault: Exception | None = None
        self.spoils = False
        self.wraps = self.unwraps = 0

    @property
    def name(self) -> str:
        return "troubled"

    def wrap(self, plaintext: str, context: str) -> WrappedSecret:
        self.wraps += 1
        if self.fault is not None:
            raise self.fault
        if self.spoils:
            plaintext = plaintext.replace("<value>", "<value>AAAA")
        wrapped = self.real.wrap(plaintext, context)
        # A kind of its own, so that rings do not open it by themselves.
        return WrappedSecret("Test.TroubledXmlDecryptor, Test", wrapped.child)

    def can_unwrap(self, wrapped: WrappedSecret) -> bool:
        return wrapped.decryptor_type.startswith("Test.Troubled")

    def unwrap(self, wrapped: WrappedSecret, context: str) -> str:
        self.unwraps += 1
        if self.fault is not None:
            raise self.fault
        return self.real.unwrap(wrapped, context)


class World:
    """
    One ring's folder, a clock and an ear; rings are opened on it like instances of an app.
    """

    def __init__(self, place: Path, clock: FixedClock | None = None) -> None:
        self.place = place / "ring"
        self.clock = clock or FixedClock()
        self.heard = Heard()
        self.store = TroubledStore(FolderStore(self.place))
        self.wrapper = TroubledWrapper()

    def ring(self, **changes: Any) -> ProtectionRing:
        """
        Open a ring; `store`, `wrapper` and all options can be changed.
        """
        options: dict[str, Any] = {
            "application": "shop",
            "clock": self.clock,
            "events": self.heard,
            "policy": ProtectionPolicy(),
            "refresh": RefreshPolicy(),
        } | changes
        store = options.pop("store", self.store)
        wrapper = options.pop("wrapper", self.wrapper)
        ring = ProtectionRing(store, wrapper, **options)
        ring.start()
        return ring


def vector_ring(
    name: str,
    application: str | None,
    *,
    wrapper: KeyWrapper | None = None,
    now: datetime = VECTOR_NOW,
) -> ProtectionRing:
    """
    Open one of the rings that .NET made, as it lies in the vectors.
    """
    path = VECTORS / "rings" / name
    store: KeyStore = (
        DocumentStore(path, read_only=True)
        if path.suffix == ".xml"
        else FolderStore(path, read_only=True)
    )
    ring = ProtectionRing(
        store, wrapper, application=application, read_only=True, clock=FixedClock(now)
    )
    ring.start()
    return ring
