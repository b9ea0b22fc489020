"""
What is counted, in the format of Prometheus.

Rules of this module:

1. Labels come from closed sets: routes, statuses, grants, outcomes, event names. Nothing that a
   peer chooses becomes a label, so memory stays flat (attack S2).
2. Children of labels are bound once and kept.
3. With several workers the figures of all are added up: they share files in the folder that
   `PROMETHEUS_MULTIPROC_DIR` names, which the parent sets before any worker imports this.
"""

from __future__ import annotations

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from kagimori.events import Event, Severity

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """
    All figures of one process.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._http = Counter(
            "kagimori_http_requests",
            "Requests answered.",
            ["route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "kagimori_http_seconds",
            "Seconds from the first byte of a request handed on to its answer.",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._issued = Counter(
            "kagimori_tokens_issued",
            "Access tokens issued.",
            ["grant"],
            registry=self._registry,
        )
        self._refresh = Counter(
            "kagimori_refresh",
            "Refresh tokens presented.",
            ["outcome"],
            registry=self._registry,
        )
        self._alarms = Counter(
            "kagimori_alarms",
            "Events that an operator must see.",
            ["event"],
            registry=self._registry,
        )
        self._events = Counter(
            "kagimori_events",
            "Everything else that happened.",
            ["event"],
            registry=self._registry,
        )
        self._query = Counter(
            "kagimori_bearer_in_query",
            "Access tokens taken from a query string (legacy).",
            ["resource"],
            registry=self._registry,
        )
        self._refused = Counter(
            "kagimori_connections_refused",
            "Requests that the connection itself refused.",
            ["status"],
            registry=self._registry,
        )
        self.ready = Gauge(
            "kagimori_ready",
            "1 while this process is ready.",
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self._answered_children: dict[tuple[str, int], Counter] = {}
        self._seconds_children: dict[str, Histogram] = {}
        self._event_children: dict[str, Counter] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """
        Count a request that was answered.
        """
        key = (route, status)
        counter = self._answered_children.get(key)
        if counter is None:
            counter = self._http.labels(route, str(status))
            self._answered_children[key] = counter
        counter.inc()
        histogram = self._seconds_children.get(route)
        if histogram is None:
            histogram = self._seconds.labels(route)
            self._seconds_children[route] = histogram
        histogram.observe(seconds)

    def refused(self, status: int) -> None:
        """
        Count a refusal of the connection itself.
        """
        self._refused.labels(str(status)).inc()

    def token_in_query(self, resource: str) -> None:
        """
        Count an access token that was taken from a query string.
        """
        self._query.labels(resource).inc()

    def emit(self, event: Event) -> None:
        """
        Count a domain event (see `kagimori.events.EventSink`).
        """
        name = event.name
        if name == "token.issued":
            name = f"token.issued {event.fields.get('grant')}"
        counter = self._event_children.get(name)
        if counter is None:
            if event.name == "token.issued":
                counter = self._issued.labels(str(event.fields.get("grant")))
            elif name.startswith("refresh."):
                counter = self._refresh.labels(name.removeprefix("refresh."))
            elif event.severity is Severity.ALARM:
                counter = self._alarms.labels(name)
            else:
                counter = self._events.labels(name)
            self._event_children[name] = counter
        counter.inc()

    def text(self) -> bytes:
        """
        Return all figures as Prometheus reads them.
        """
        if os.environ.get(SHARED_FOLDER):
            from prometheus_client.multiprocess import (  # noqa: PLC0415 - rarely
                MultiProcessCollector,
            )

            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # as it is
            return generate_latest(registry)
        return generate_latest(self._registry)
