"""
The outermost layer: what every request passes, whatever it asks for.

Rules of this module:

1. The clock is read here, once. The request's id is made here.
2. The issuer comes from configuration. ``Host`` chooses among the known hosts or is refused;
   forwarded headers are believed from the named proxies only (attack A17).
3. Nothing gets past here unanswered: an error of the domain becomes its answer, anything else a
   500 that says nothing but the request's id, while its place in the code goes to the log
   (attack S6).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable
from time import perf_counter
from urllib.parse import parse_qsl, quote

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from kagimori.clock import Clock
from kagimori.errors import KagimoriError, NotFoundError, OAuthError
from kagimori.http import logs
from kagimori.http.exchange import Disconnected, Exchange, request_ids
from kagimori.http.metrics import Metrics
from kagimori.http.places import Places

EXCHANGE = "kagimori.exchange"
"""The key under which a scope holds its `Exchange`."""

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that answer on any host: probes call by address."""

ONCE = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"if-none-match",
        b"origin",
        b"transfer-encoding",
        b"user-agent",
    }
)
"""Header fields that may stand once only."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Edge:
    """
    The ASGI application that the server runs.

    Args:
        app: what answers, by route.
        clock: the clock of the installation.
        metrics: where requests are counted.
        places: which tenant a host and a path mean; ``None`` on the admin listener.
        trusted_proxies: whose ``X-Forwarded-For`` is believed (CIDR).
        access_log: whether each request is logged.
    """

    def __init__(
        self,
        app: Router,
        *,
        clock: Clock,
        metrics: Metrics,
        places: Places | None = None,
        trusted_proxies: tuple[str, ...] = (),
        access_log: bool = False,
    ) -> None:
        self._app = app
        self._exact = {
            route.path: route.app
            for route in app.routes
            if isinstance(route, Route) and "{" not in route.path
        }
        self._clock = clock
        self._metrics = metrics
        self._places = places
        self._proxies = tuple(ipaddress.ip_network(each) for each in trusted_proxies)
        self._access_log = access_log
        self._new_id = request_ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request (ASGI).
        """
        if scope["type"] != "http":
            # No lifespan, no WebSocket: `kagimori.http.server` starts and stops things.
            return
        started = perf_counter()
        request_id = self._new_id()
        logs.REQUEST_ID.set(request_id)
        exchange = Exchange(scope, receive, send, request_id, self._clock.now())
        scope[EXCHANGE] = exchange
        try:
            self._read_headers(exchange)
            await self._endpoint(exchange, scope)(scope, receive, send)
        except KagimoriError as error:
            await self._refuse(exchange, error)
        except Disconnected:
            pass
        except Exception as error:  # noqa: BLE001 - attack S6: never a bare 500
            await self._broken(exchange, error)
        self._metrics.answered(
            exchange.route, exchange.status, perf_counter() - started
        )
        if self._access_log:
            self._log(exchange, perf_counter() - started)

    def _endpoint(self, exchange: Exchange, scope: Scope) -> ASGIApp:
        path: str = scope["path"]
        if self._places is not None and path not in PROBES:
            if b"%" in scope.get("raw_path", b""):
                # No path of ours needs it, and a proxy's rules might not see through it.
                raise not_found()
            place = self._places.locate(exchange.headers.get(b"host"), path)
            exchange.tenant, path, root_path = place
            if root_path:
                scope["path"], scope["root_path"] = path, root_path
                path = path[len(root_path) :]
        # What the router would find by trying one route after the other.
        return self._exact.get(path, self._app)

    def _read_headers(self, exchange: Exchange) -> None:
        raw = exchange.scope["headers"]
        headers = dict(raw)
        if len(headers) != len(raw):
            seen: set[bytes] = set()
            for name, _ in raw:
                if name in seen and name in ONCE:
                    raise OAuthError("invalid_request", "A header field is repeated.")
                seen.add(name)
        exchange.headers = headers
        client = exchange.scope.get("client")
        exchange.address = client[0] if client else ""
        if self._proxies and b"x-forwarded-for" in headers:
            exchange.address = self._forwarded(
                exchange.address,
                b",".join(value for name, value in raw if name == b"x-forwarded-for"),
            )

    def _forwarded(self, peer: str, header: bytes) -> str:
        # From the right: each proxy appends whom it saw, so the first one that is not ours is
        # the last that somebody trustworthy vouches for.
        address = peer
        for hop in reversed(header.decode("latin-1").split(",")):
            if not self._trusts(address):
                break
            address = hop.strip()
        return address[:64]

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)

    async def _refuse(self, exchange: Exchange, error: KagimoriError) -> None:
        if not isinstance(error, OAuthError):
            logs.logger().error(
                "request.failed",
                route=exchange.route,
                error=error.code,
                text=error.text,
                detail=error.detail,
            )
        elif error.status >= 500:
            logs.logger().error(
                "request.failed",
                route=exchange.route,
                error=error.error,
                detail=error.detail,
            )
        else:
            logs.logger().debug(
                "request.refused",
                route=exchange.route,
                status=error.status,
                error=error.error,
                detail=error.detail,
            )
        if isinstance(error, NotFoundError):
            error = not_found()
        await self._finish(exchange, exchange.refuse(error))

    async def _broken(self, exchange: Exchange, error: Exception) -> None:
        logs.logger().error(
            "request.broken", route=exchange.route, **logs.describe(error)
        )
        await self._finish(
            exchange,
            exchange.fail(
                500, "server_error", f"Something is wrong here: {exchange.request_id}"
            ),
        )

    async def _finish(self, exchange: Exchange, answer: Awaitable[None]) -> None:
        try:
            await answer
        except Exception as error:  # noqa: BLE001 - the head was out already
            logs.logger().error(
                "answer.broken", route=exchange.route, **logs.describe(error)
            )

    def _log(self, exchange: Exchange, seconds: float) -> None:
        scope = exchange.scope
        logs.logger().info(
            "request",
            method=scope["method"],
            path=scope["root_path"] + scope["path"],
            query=masked_query(scope["query_string"]),
            status=exchange.status,
            milliseconds=round(seconds * 1000, 2),
            address=exchange.address,
        )


def not_found() -> OAuthError:
    """
    Return the answer to a path that is not there.
    """
    return OAuthError("not_found", "There is nothing here.", status=404)


def masked_query(query: bytes) -> str:
    """
    Return a query string with every value taken out (C3).
    """
    if not query:
        return ""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return "&".join(f"{quote(name[:64])}=***" for name, _ in pairs)
