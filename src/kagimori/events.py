"""
What happened, told to whoever listens: the log, the metrics, the audit trail.

Rules of this module:

1. An event names things by id. No token, hash, key or secret ever stands in one.
2. Telling never fails the work that is told of: a sink swallows its own troubles.
3. The domain emits, the composition root decides who listens.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

import msgspec


class Severity(enum.Enum):
    """
    How loudly an event is told.
    """

    INFO = "info"
    WARNING = "warning"
    ALARM = "alarm"


class Event(msgspec.Struct, frozen=True):
    """
    One thing that happened.

    Attributes:
        name: a dotted, stable name, such as ``refresh.reuse_detected``.
        fields: ids, counts and states; never anything secret.
        severity: `Severity.ALARM` is what an operator must see.
    """

    name: str
    fields: Mapping[str, str | int | float | bool | None] = {}
    severity: Severity = Severity.INFO


class EventSink(Protocol):
    """
    Takes events.
    """

    def emit(self, event: Event) -> None:
        """
        Take one event; must neither raise nor block.
        """
        ...


class NullSink:
    """
    A sink for callers who do not listen.
    """

    def emit(self, event: Event) -> None:
        """
        Drop the event.
        """


class FanOut:
    """
    Tells several sinks of each event.
    """

    def __init__(self, *sinks: EventSink) -> None:
        self._sinks = sinks

    def emit(self, event: Event) -> None:
        """
        Pass the event to every sink, in order.
        """
        for sink in self._sinks:
            sink.emit(event)
