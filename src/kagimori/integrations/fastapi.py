"""
Sessions, CSRF tokens and the peer endpoint for FastAPI, by one call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from kagimori.integrations.asgi import (
    CsrfMiddleware,
    PeerMiddleware,
    SessionMiddleware,
    csrf_token,
)
from kagimori.integrations.cookies import Cookie
from kagimori.integrations.peer import Peer
from kagimori.integrations.sessions import (
    ABSOLUTE,
    LIFETIME,
    OldSessions,
    Session,
    Sessions,
)
from kagimori.keys.protection.ring import ProtectionRing

__all__ = ["CsrfToken", "CurrentSession", "protect"]


def protect(
    app: FastAPI,
    ring: ProtectionRing,
    *,
    cookie: Cookie | None = None,
    lifetime: timedelta = LIFETIME,
    absolute: timedelta | None = ABSOLUTE,
    old: Sequence[OldSessions] = (),
    csrf: bool = True,
    csrf_exempt: Iterable[str] = (),
) -> None:
    """
    Give an application sessions, refuse forged requests, and answer other slots.

    Args:
        cookie: its name and attributes; for plain http `Cookie.for_plain_http`.
        lifetime: how long a session lasts without a request.
        absolute: how long it lasts at most after the sign-in; ``None`` for as long as it is used.
        old: readers of the cookies that sessions are moved from.
        csrf: whether requests that change something need a token.
        csrf_exempt: paths that need none, with all that lies below them.

    Raises:
        ConfigError: a time is not positive, or ``KAGIMORI_PEER_TOKEN`` is too short.
        RuntimeError: the application serves already.
    """
    # Middlewares are made with the first request, and what is wrong should show before.
    Sessions(ring, cookie, lifetime=lifetime, absolute=absolute)
    Peer(ring)
    if csrf:
        app.add_middleware(CsrfMiddleware, ring=ring, exempt=tuple(csrf_exempt))
    # What is added last is outermost.
    app.add_middleware(
        SessionMiddleware,
        ring=ring,
        cookie=cookie,
        lifetime=lifetime,
        absolute=absolute,
        old=old,
    )
    app.add_middleware(PeerMiddleware, ring=ring)


def _session(request: Request) -> Session:
    session: Session = request.scope["session"]
    return session


def _token(request: Request) -> str:
    return csrf_token(request)


CurrentSession = Annotated[Session, Depends(_session)]
"""A parameter of a path operation: the session of the request."""

CsrfToken = Annotated[str, Depends(_token)]
"""A parameter of a path operation: a token for a form that it draws."""
