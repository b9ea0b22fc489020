"""
The two applications of a server: what the world reaches, and what operators reach.
"""

from __future__ import annotations

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from kagimori.clock import Clock
from kagimori.http.edge import Edge, not_found
from kagimori.http.endpoint import FormEndpoint
from kagimori.http.live import Live
from kagimori.http.metrics import Metrics
from kagimori.http.operation import HealthEndpoint, MetricsEndpoint, ReadyEndpoint
from kagimori.http.places import OAUTH_METADATA, Places
from kagimori.http.resources import BearerEndpoint
from kagimori.http.wellknown import JwksEndpoint, MetadataEndpoint
from kagimori.oauth.endpoints import (
    INTROSPECTION_PATH,
    JWKS_PATH,
    REVOCATION_PATH,
    TOKEN_PATH,
)
from kagimori.settings import Settings

OPENID_METADATA = "/.well-known/openid-configuration"
SECRET = b"Secret area"


def make_app(
    live: Live, settings: Settings, clock: Clock, metrics: Metrics, places: Places
) -> Edge:
    """
    Return the application of the public listener.
    """
    limits = settings.limits
    routes = [
        # In the order of how often they are asked for: the router tries one after the other.
        Route(
            TOKEN_PATH,
            FormEndpoint("token", live, limits, lambda s: s.oauth.token.token),
        ),
        Route(
            INTROSPECTION_PATH,
            FormEndpoint(
                "introspect", live, limits, lambda s: s.oauth.introspection.introspect
            ),
        ),
        Route(
            REVOCATION_PATH,
            FormEndpoint("revoke", live, limits, lambda s: s.oauth.revocation.revoke),
        ),
        Route(JWKS_PATH, JwksEndpoint(live)),
        Route(OPENID_METADATA, metadata := MetadataEndpoint(live)),
        Route(OAUTH_METADATA, metadata),
        Route("/healthz", HealthEndpoint()),
        Route("/readyz", ReadyEndpoint(live, metrics, tells_all=False)),
    ]
    if settings.demo:
        routes += [
            Route("/secret", BearerEndpoint("secret", "demo", SECRET, live, metrics)),
            Route(
                "/api/secret",
                BearerEndpoint(
                    "api_secret", "api", SECRET, live, metrics, scope=("api",)
                ),
            ),
        ]
    return Edge(
        Router(routes, redirect_slashes=False, default=_nowhere),
        clock=clock,
        metrics=metrics,
        places=places,
        trusted_proxies=settings.server.trusted_proxies,
        access_log=settings.server.access_log,
    )


def make_admin_app(live: Live, clock: Clock, metrics: Metrics) -> Edge:
    """
    Return the application of the admin listener.
    """
    routes = [
        Route("/metrics", MetricsEndpoint(live, metrics)),
        Route("/readyz", ReadyEndpoint(live, metrics, tells_all=True)),
        Route("/healthz", HealthEndpoint()),
    ]
    return Edge(
        Router(routes, redirect_slashes=False, default=_nowhere),
        clock=clock,
        metrics=metrics,
    )


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise not_found()
