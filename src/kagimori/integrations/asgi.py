"""
Sessions, CSRF tokens and the peer endpoint for ASGI: Starlette, FastAPI and whatever speaks it.

Plain ASGI: no framework is imported, and ``request.session`` of Starlette and FastAPI works.
What may wait (a key to be looked for or unwrapped) waits in a thread, not in the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    MutableMapping,
    Sequence,
)
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

from kagimori.clock import Clock
from kagimori.errors import ConfigError, KagimoriError
from kagimori.integrations import peer
from kagimori.integrations.answering import caching, retry_after, varying
from kagimori.integrations.cookies import Cookie, parse
from kagimori.integrations.csrf import HEADER, SAFE_METHODS, Csrf, CsrfError
from kagimori.integrations.forms import FORMS, MOST_FORM, TOO_LARGE, find_token
from kagimori.integrations.sessions import (
    ABSOLUTE,
    LIFETIME,
    OldSessions,
    Session,
    Sessions,
)
from kagimori.keys.protection.ring import ProtectionRing

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

_log = logging.getLogger("kagimori")
_CSRF = "kagimori.csrf"


class _GoneError(Exception):
    """
    The client left in the middle of its request: there is nobody to answer.
    """


class HasScope(Protocol):
    """
    A request of Starlette or FastAPI.
    """

    @property
    def scope(self) -> MutableMapping[str, Any]:
        """
        The scope of ASGI.
        """
        ...


class SessionMiddleware:
    """
    Puts a `Session` into ``scope["session"]``, and its cookie on the response.

    A request with a session that cannot be read at the moment is answered with 503 and
    ``Retry-After``: to go on would be to sign its user out.

    Args:
        ring: see `kagimori.open_ring`.
        cookie: its name and attributes; for plain http `Cookie.for_plain_http`.
        lifetime: how long a session lasts without a request.
        absolute: how long it lasts at most after the sign-in; ``None`` for as long as it is used.
        old: readers of the cookies that sessions are moved from.

    Raises:
        ConfigError: a time is not positive.
    """

    def __init__(
        self,
        app: App,
        ring: ProtectionRing,
        *,
        cookie: Cookie | None = None,
        lifetime: timedelta = LIFETIME,
        absolute: timedelta | None = ABSOLUTE,
        old: Sequence[OldSessions] = (),
    ) -> None:
        self._app = app
        self._sessions = Sessions(
            ring, cookie, lifetime=lifetime, absolute=absolute, old=old
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one request.
        """
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        try:
            session = await self._read(scope)
        except KagimoriError as error:
            await _unavailable(scope, send, error)
            return
        scope["session"] = session
        await self._app(scope, receive, _Outgoing(self._sessions, session, scope, send))

    async def _read(self, scope: Scope) -> Session:
        lines = (value for name, value in scope["headers"] if name == b"cookie")
        cookies = parse(lines, self._sessions.cookie.most_bytes)
        session = self._sessions.read_at_hand(cookies, Session)
        if session is not None:
            return session
        return await asyncio.to_thread(self._sessions.read, cookies, Session)


class _Outgoing:
    """
    Passes a response on, with the session's cookies.
    """

    def __init__(
        self, sessions: Sessions, session: Session, scope: Scope, send: Send
    ) -> None:
        self._sessions = sessions
        self._session = session
        self._scope = scope
        self._send = send
        self._is_replaced = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.accept"}:
            try:
                self._dress(message)
            except ConfigError:
                raise
            except KagimoriError as error:
                # What changed in the session cannot be kept: say so, rather than lose it.
                self._is_replaced = True
                await _unavailable(self._scope, self._send, error)
                return
        if not self._is_replaced:
            await self._send(message)

    def _dress(self, message: Message) -> None:
        answer = self._sessions.answer(self._session)
        if not answer.depends:
            return
        headers: Headers = list(message.get("headers", ()))
        if message["type"] == "http.response.start":
            _change(headers, b"vary", varying)
            sets = bool(answer.set_cookies)
            _change(headers, b"cache-control", lambda old: caching(old, sets=sets))
        headers += (
            (b"set-cookie", each.header.encode("latin-1"))
            for each in answer.set_cookies
        )
        message["headers"] = headers


class CsrfMiddleware:
    """
    Refuses requests that change something without a token of their session: status 403.

    The token comes in the header ``X-CSRF-Token`` or in the form's field ``csrf_token``, of
    forms up to 1 MB. It stands inside the `SessionMiddleware`.

    Args:
        exempt: paths that need none, with all that lies below them: those of an API that goes
            by ``Authorization`` and by no cookie.
        lifetime: how long a form may lie open; ``None`` for as long as its session.
    """

    def __init__(
        self,
        app: App,
        ring: ProtectionRing,
        *,
        exempt: Iterable[str] = (),
        lifetime: timedelta | None = None,
    ) -> None:
        self._app = app
        self._csrf = Csrf(ring, lifetime=lifetime)
        self._exempt = tuple(path.rstrip("/") for path in exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one request.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[_CSRF] = self._csrf
        if scope["method"] not in SAFE_METHODS and not self._is_exempt(_path(scope)):
            try:
                token, receive = await _token(scope, receive)
                await asyncio.to_thread(self._csrf.check, _session(scope), token)
            except _GoneError:
                return
            except CsrfError as error:
                await _respond(send, 403, error.text)
                return
            except KagimoriError as error:
                await _unavailable(scope, send, error)
                return
        await self._app(scope, receive, send)

    def _is_exempt(self, path: str) -> bool:
        return any(path == each or path.startswith(f"{each}/") for each in self._exempt)


def csrf_token(request: HasScope) -> str:
    """
    Return a token for a form that is drawn for this request.

    Raises:
        ConfigError: the application has no `CsrfMiddleware` or no `SessionMiddleware`.
        KeyRingError: no key can protect now.
    """
    csrf = request.scope.get(_CSRF)
    if not isinstance(csrf, Csrf):
        raise ConfigError("The application has no CsrfMiddleware.")
    return csrf.token(_session(request.scope))


class PeerMiddleware:
    """
    Answers ``POST /.kagimori/peer``; see `kagimori.integrations.peer`. Off without a token.

    Args:
        token: left out: ``KAGIMORI_PEER_TOKEN``.
        clock: the machine's.

    Raises:
        ConfigError: the token is too short.
    """

    def __init__(
        self,
        app: App,
        ring: ProtectionRing,
        *,
        token: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._app = app
        self._peer = peer.Peer(ring, token=token, clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one request.
        """
        if scope["type"] != "http" or _path(scope) != peer.PATH:
            await self._app(scope, receive, send)
            return
        bearer = next(
            (value for name, value in scope["headers"] if name == b"authorization"), b""
        )
        body = b""
        if self._peer.is_on:
            try:
                body = await _body(receive, peer.MOST_BODY)
            except _GoneError:
                return
        answer = await asyncio.to_thread(
            self._peer.answer, scope["method"], bearer.decode("latin-1"), body
        )
        headers = [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in answer.headers.items()
        ]
        await _send(send, answer.status, headers, answer.body)


def _path(scope: Scope) -> str:
    # The path below the place where the application is mounted.
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def _body(receive: Receive, most: int) -> bytes:
    """
    Return a request's body; of a longer one than `most`, a little more than that.

    Raises:
        _GoneError: the client left before the end. What came is no body: a form cut short says
            something else than the whole one.
    """
    body = bytearray()
    while len(body) <= most:
        message = await receive()
        if message["type"] != "http.request":
            raise _GoneError
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(body)


async def _token(scope: Scope, receive: Receive) -> tuple[str | None, Receive]:
    """
    Return a request's token, and a `receive` that has not been read from.

    Raises:
        CsrfError: the form is too large to look into.
        _GoneError: the client left before its end.
    """
    fields = {name: value.decode("latin-1") for name, value in scope["headers"]}
    token = fields.get(HEADER.lower().encode())
    kind = fields.get(b"content-type", "")
    is_form = kind.lower().startswith(FORMS)
    if token is not None or not is_form:
        return token, receive
    body = await _body(receive, MOST_FORM)
    if len(body) > MOST_FORM:
        raise CsrfError(TOO_LARGE)
    is_read = False

    async def again() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    found = find_token(kind, body)
    return found.decode("latin-1") if found else None, again


def _session(scope: Scope) -> Session:
    session = scope.get("session")
    if not isinstance(session, Session):
        raise ConfigError(
            "CSRF tokens need the SessionMiddleware of kagimori around them.",
            hint="Add the SessionMiddleware after the CsrfMiddleware: the last is outermost.",
        )
    return session


def _change(headers: Headers, name: bytes, change: Callable[[str], str]) -> None:
    old = [value.decode("latin-1") for key, value in headers if key.lower() == name]
    headers[:] = [pair for pair in headers if pair[0].lower() != name]
    headers.append((name, change(", ".join(old)).encode("latin-1")))


async def _unavailable(scope: Scope, send: Send, error: KagimoriError) -> None:
    _log.warning("A session waits for its ring: %s %s", error.code, error.detail)
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013})  # try again later
        return
    wait = str(retry_after(error)).encode()
    text = "The session cannot be read at the moment. Try again in a few seconds."
    await _respond(send, 503, text, (b"retry-after", wait))


async def _respond(
    send: Send, status: int, text: str, *more: tuple[bytes, bytes]
) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"cache-control", b"no-store"),
        *more,
    ]
    await _send(send, status, headers, text.encode())


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
