"""
What operators and probes ask: alive, ready, figures.

Rules of this module:

1. `/healthz` says that the process answers, and nothing else: restarting heals no ring.
2. `/readyz` names every reason by its code. Sentences and hints, which may name folders and
   addresses, stand on the admin listener only.
"""

from __future__ import annotations

import msgspec
from starlette.types import Receive, Scope, Send

from kagimori.http.edge import EXCHANGE
from kagimori.http.exchange import (
    JSON_NO_STORE,
    NO_STORE,
    Exchange,
    Header,
    HeaderSet,
)
from kagimori.http.live import Live
from kagimori.http.metrics import CONTENT_TYPE, Metrics

_ALLOW: Header = (b"allow", b"GET, HEAD")


class HealthEndpoint:
    """
    Says that the process answers.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request (ASGI).
        """
        exchange: Exchange = scope[EXCHANGE]
        exchange.route = "healthz"
        if await _reads(exchange):
            await exchange.answer(200, JSON_NO_STORE, b'{"status":"ok"}')


class ReadyEndpoint:
    """
    Says whether the process may get requests, and why not.

    Args:
        live: what serves.
        metrics: where readiness is shown too.
        tells_all: whether sentences and hints are given beside the codes.
    """

    def __init__(self, live: Live, metrics: Metrics, *, tells_all: bool) -> None:
        self._live = live
        self._metrics = metrics
        self._tells_all = tells_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request (ASGI).
        """
        exchange: Exchange = scope[EXCHANGE]
        exchange.route = "readyz"
        if not await _reads(exchange):
            return
        problems = self._live.problems(exchange.now)
        self._metrics.ready = not problems
        shown: list[object] = [
            problem if self._tells_all else {"code": problem.code}
            for problem in problems
        ]
        body = msgspec.json.encode({"ready": not problems, "problems": shown})
        await exchange.answer(503 if problems else 200, JSON_NO_STORE, body)


class MetricsEndpoint:
    """
    Gives the figures; on the admin listener only.
    """

    def __init__(self, live: Live, metrics: Metrics) -> None:
        self._live = live
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request (ASGI).
        """
        exchange: Exchange = scope[EXCHANGE]
        exchange.route = "metrics"
        if not await _reads(exchange):
            return
        self._metrics.ready = not self._live.problems(exchange.now)
        await exchange.answer(
            200,
            HeaderSet((b"content-type", CONTENT_TYPE), *NO_STORE),
            self._metrics.text(),
        )


async def _reads(exchange: Exchange) -> bool:
    if exchange.scope["method"] in ("GET", "HEAD"):
        return True
    await exchange.fail(405, "invalid_request", "The method must be GET.", (_ALLOW,))
    return False
