"""
What is counted, in the format of Prometheus.

Rules of this module:

1. Labels come from closed sets: routes, statuses, grants, outcomes, event names. Nothing that a
   peer chooses becomes a label, so memory stays flat (attack S2).
2. Counting is an addition in a dictionary: each request counts four times, and the client
   library's own counters, which lock, took a tenth of a token's time. The library writes the
   text when somebody asks for it.
3. Several workers each leave their figures in a file of a shared folder, and whoever is asked
   adds them up. A worker that died keeps its counts: a counter never goes back.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from kagimori.events import Event, Severity
from kagimori.tokens.family_events import NAMES

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

SHARED_FOLDER = "KAGIMORI_METRICS_FOLDER"
"""The variable by which a parent names the folder to its workers."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the latency histogram, in seconds."""

COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "kagimori_http_requests": ("Requests answered.", ("route", "status")),
    "kagimori_tokens_issued": ("Access tokens issued.", ("grant",)),
    "kagimori_refresh": ("Refresh tokens presented.", ("outcome",)),
    "kagimori_alarms": ("Events that an operator must see.", ("event",)),
    "kagimori_events": ("Everything else that happened.", ("event",)),
    "kagimori_bearer_in_query": (
        "Access tokens taken from a query string (legacy).",
        ("resource",),
    ),
    "kagimori_connections_refused": (
        "Requests that the connection itself refused.",
        ("status",),
    ),
}
"""Every counter with its help and its labels."""

_OUTCOMES = {name: outcome.value for outcome, name in NAMES.items()}
"""What presenting a refresh token led to, by the event that tells it (B10)."""

_SEPARATOR = "\x1f"


class Figures(msgspec.Struct):
    """
    The figures of one process, as they lie in the shared folder.

    Attributes:
        counts: per counter, counts by label values joined into one text.
        seconds: per route, the counts of the buckets, then the sum of seconds.
        ready: whether the process is ready.
        alive: whether it still runs.
    """

    counts: dict[str, dict[str, float]]
    seconds: dict[str, list[float]]
    ready: bool = True
    alive: bool = True


class Metrics:
    """
    All figures of one process.

    Args:
        folder: where workers leave their figures; left out, what the parent named, if any.
    """

    def __init__(self, folder: str | None = None) -> None:
        named = folder or os.environ.get(SHARED_FOLDER)
        self._folder = Path(named) if named else None
        self._counts: dict[str, dict[str, float]] = {name: {} for name in COUNTERS}
        self._seconds: dict[str, list[float]] = {}
        self._http = self._counts["kagimori_http_requests"]
        self._keys: dict[tuple[str, int], str] = {}
        self._events: dict[tuple[str, object], tuple[dict[str, float], str]] = {}
        self.ready = False

    def answered(self, route: str, status: int, seconds: float) -> None:
        """
        Count a request that was answered.
        """
        key = self._keys.get((route, status))
        if key is None:
            key = self._keys[route, status] = f"{route}{_SEPARATOR}{status}"
            self._http[key] = 0.0
            self._seconds.setdefault(route, [0.0] * (len(BUCKETS) + 2))
        self._http[key] += 1
        figures = self._seconds[route]
        figures[bisect_left(BUCKETS, seconds)] += 1
        figures[-1] += seconds

    def refused(self, status: int) -> None:
        """
        Count a refusal of the connection itself.
        """
        self._count("kagimori_connections_refused", str(status))

    def token_in_query(self, resource: str) -> None:
        """
        Count an access token that was taken from a query string.
        """
        self._count("kagimori_bearer_in_query", resource)

    def emit(self, event: Event) -> None:
        """
        Count a domain event (see `kagimori.events.EventSink`).
        """
        known = (event.name, event.fields.get("grant"))
        place = self._events.get(known)
        if place is None:
            place = self._events[known] = self._place(event)
        counts, label = place
        counts[label] += 1

    def _place(self, event: Event) -> tuple[dict[str, float], str]:
        outcome = _OUTCOMES.get(event.name)
        if event.name == "token.issued":
            counter, label = "kagimori_tokens_issued", str(event.fields.get("grant"))
        elif outcome is not None:
            counter, label = "kagimori_refresh", outcome
        elif event.severity is Severity.ALARM:
            counter, label = "kagimori_alarms", event.name
        else:
            counter, label = "kagimori_events", event.name
        counts = self._counts[counter]
        counts.setdefault(label, 0.0)
        return counts, label

    def _count(self, counter: str, label: str) -> None:
        counts = self._counts[counter]
        counts[label] = counts.get(label, 0.0) + 1

    # --- telling ---------------------------------------------------------------------------

    def text(self) -> bytes:
        """
        Return all figures as Prometheus reads them.
        """
        # Imported when it is asked for: a start must stay short.
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415
        from prometheus_client.registry import Collector  # noqa: PLC0415

        registry = CollectorRegistry()
        registry.register(cast("Collector", self))
        return generate_latest(registry)

    def collect(self) -> Iterable[Metric]:
        """
        Give the figures of all processes (called by the client library).
        """
        from prometheus_client.core import (  # noqa: PLC0415 - as above
            CounterMetricFamily,
            GaugeMetricFamily,
        )

        everyone = [self._own(), *self._others()]
        for name, (help_, labels) in COUNTERS.items():
            family = CounterMetricFamily(name, help_, labels=labels)
            for key, value in _added(each.counts.get(name, {}) for each in everyone):
                family.add_metric(key.split(_SEPARATOR), value)
            yield family
        yield self._histogram(everyone)
        alive = [each for each in everyone if each.alive]
        yield GaugeMetricFamily(
            "kagimori_ready",
            "1 while every process is ready.",
            value=float(all(each.ready for each in alive)),
        )
        yield GaugeMetricFamily(
            "kagimori_processes", "Processes that serve.", value=float(len(alive))
        )

    def _histogram(self, everyone: list[Figures]) -> Metric:
        from prometheus_client.core import (  # noqa: PLC0415 - as above
            HistogramMetricFamily,
        )

        family = HistogramMetricFamily(
            "kagimori_http_seconds",
            "Seconds from a request's arrival to its answer.",
            labels=("route",),
        )
        routes = sorted({route for each in everyone for route in each.seconds})
        for route in routes:
            columns = [
                sum(column)
                for column in zip(
                    *(
                        each.seconds[route]
                        for each in everyone
                        if route in each.seconds
                    ),
                    strict=True,
                )
            ]
            total, buckets = 0.0, []
            for bound, count in zip((*BUCKETS, "+Inf"), columns, strict=False):
                total += count
                buckets.append((str(bound), total))
            family.add_metric([route], buckets, columns[-1])
        return family

    # --- several workers -------------------------------------------------------------------

    def share(self, *, alive: bool = True) -> None:
        """
        Leave the figures of this process for the others; nothing where it is alone.
        """
        if self._folder is None:
            return
        path = self._folder / f"{os.getpid()}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(self._own(alive=alive)))
        temporary.replace(path)

    def _own(self, *, alive: bool = True) -> Figures:
        return Figures(self._counts, self._seconds, self.ready, alive)

    def _others(self) -> list[Figures]:
        if self._folder is None:
            return []
        own = str(os.getpid())
        return [
            msgspec.json.decode(path.read_bytes(), type=Figures)
            for path in self._folder.glob("*.json")
            if path.stem != own
        ]


def mark_dead(folder: str, pid: int) -> None:
    """
    Take note that a worker ended: its counts stay, its readiness does not.
    """
    path = Path(folder) / f"{pid}.json"
    if path.exists():
        figures = msgspec.json.decode(path.read_bytes(), type=Figures)
        figures.alive = False
        path.write_bytes(msgspec.json.encode(figures))


def _added(parts: Iterable[Mapping[str, float]]) -> list[tuple[str, float]]:
    total: dict[str, float] = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return sorted(total.items())
