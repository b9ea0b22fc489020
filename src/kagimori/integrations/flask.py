"""
Sessions, CSRF tokens and the peer endpoint for Flask.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NoReturn

from flask import Flask, Request, Response, abort, request
from flask import session as current_session
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.exceptions import ServiceUnavailable

from kagimori.clock import Clock
from kagimori.errors import ConfigError, KagimoriError
from kagimori.integrations import peer
from kagimori.integrations.answering import caching, retry_after
from kagimori.integrations.cookies import Cookie, parse
from kagimori.integrations.csrf import FIELD, HEADER, SAFE_METHODS, Csrf, CsrfError
from kagimori.integrations.forms import FORMS, MOST_FORM, TOO_LARGE
from kagimori.integrations.sessions import (
    ABSOLUTE,
    OldSessions,
    Session,
    Sessions,
)
from kagimori.keys.protection.ring import ProtectionRing


class RingSession(Session, SessionMixin):
    """
    A `Session` as Flask knows it.
    """


class _WaitingSession(RingSession):
    """
    A session whose ring cannot be asked at the moment: whoever looks into it answers 503.
    """

    wait = 1

    def __getitem__(self, key: str) -> NoReturn:
        self._refuse()

    def __setitem__(self, key: str, value: object) -> NoReturn:
        self._refuse()

    def __delitem__(self, key: str) -> NoReturn:
        self._refuse()

    def __iter__(self) -> NoReturn:
        self._refuse()

    def __len__(self) -> NoReturn:  # noqa: PLE0303  it answers nothing
        self._refuse()

    def mark_accessed(self) -> NoReturn:
        """
        Refuse: whatever notes this is about to go by the session.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ServiceUnavailable(retry_after=self.wait)


class RingSessionInterface(SessionInterface):
    """
    Flask's sessions in a protected cookie: ``app.session_interface = RingSessionInterface(ring)``.

    A session that is not `permanent` ends with the browser, as in Flask; either kind ends after
    its lifetime. A view that looks into a session which cannot be read at the moment answers
    503 and ``Retry-After``: to go on would be to sign its user out.

    Args:
        cookie: its name and attributes; for plain http `Cookie.for_plain_http`.
        lifetime: how long a session lasts without a request; left out: what Flask's setting
            ``PERMANENT_SESSION_LIFETIME`` says.
        absolute: how long it lasts at most after the sign-in; ``None`` for as long as it is used.
        old: readers of the cookies that sessions are moved from.
    """

    def __init__(
        self,
        ring: ProtectionRing,
        *,
        cookie: Cookie | None = None,
        lifetime: timedelta | None = None,
        absolute: timedelta | None = ABSOLUTE,
        old: Sequence[OldSessions] = (),
    ) -> None:
        self._ring = ring
        self._cookie = cookie or Cookie()
        self._lifetime = lifetime
        self._absolute = absolute
        self._old = old
        self._made: dict[timedelta, Sessions] = {}

    def open_session(self, app: Flask, request: Request) -> RingSession:
        """
        Return the session of a request.
        """
        # As the browser sent them: see `parse`.
        line = request.headers.get("Cookie", "")
        cookies = parse([line], self._cookie.most_bytes)
        try:
            return self._sessions(app).read(cookies, RingSession)
        except ConfigError:
            raise
        except KagimoriError as error:
            waiting = _WaitingSession()
            waiting.wait = retry_after(error)
            return waiting

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """
        Set the session's cookies on a response; it becomes a 503 where no key can protect now.

        Raises:
            TypeError: the session holds something that has no place in JSON.
            CookieTooLargeError: it holds too much.
        """
        if not isinstance(session, RingSession) or isinstance(session, _WaitingSession):
            return
        # Flask's own entry; asking for it is not the application's looking into its session.
        accessed = session.accessed
        persistent = session.permanent
        session.accessed = accessed
        try:
            answer = self._sessions(app).answer(session, persistent=persistent)
        except ConfigError:
            raise
        except KagimoriError as error:
            # What changed in the session cannot be kept: say so, rather than lose it.
            replaced = ServiceUnavailable(retry_after=retry_after(error)).get_response()
            response.status = replaced.status
            response.set_data(replaced.get_data())
            response.headers.clear()
            response.headers.extend(replaced.headers)
            response.headers["Cache-Control"] = "no-store"
            return
        if not answer.depends:
            return
        for each in answer.set_cookies:
            response.headers.add("Set-Cookie", each.header)
        response.vary.add("Cookie")
        before = response.headers.get("Cache-Control", "")
        sets = bool(answer.set_cookies)
        response.headers["Cache-Control"] = caching(before, sets=sets)

    def _sessions(self, app: Flask) -> Sessions:
        lifetime = self._lifetime or app.permanent_session_lifetime
        made = self._made.get(lifetime)
        if made is None:
            made = Sessions(
                self._ring,
                self._cookie,
                lifetime=lifetime,
                absolute=self._absolute,
                old=self._old,
            )
            self._made[lifetime] = made
        return made


class CsrfProtect:
    """
    Refuses requests that change something without a token of their session: status 403.

    The token comes in the header ``X-CSRF-Token`` or in the form's field ``csrf_token``, of
    forms up to 1 MB; templates draw it by ``csrf_token()``.

    Args:
        exempt: paths that need none, with all that lies below them: those of an API that goes
            by ``Authorization`` and by no cookie.
        lifetime: how long a form may lie open; ``None`` for as long as its session.
    """

    def __init__(
        self,
        app: Flask,
        ring: ProtectionRing,
        *,
        exempt: Iterable[str] = (),
        lifetime: timedelta | None = None,
    ) -> None:
        self._csrf = Csrf(ring, lifetime=lifetime)
        self._exempt = tuple(path.rstrip("/") for path in exempt)
        app.before_request(self._check)
        app.jinja_env.globals["csrf_token"] = self.token

    def token(self) -> str:
        """
        Return a token for a form that is drawn for the present request.

        Raises:
            ConfigError: the application has no `RingSessionInterface`.
            KeyRingError: no key can protect now.
        """
        return self._csrf.token(_session())

    def _check(self) -> None:
        path = request.path
        if request.method in SAFE_METHODS or any(
            path == each or path.startswith(f"{each}/") for each in self._exempt
        ):
            return
        try:
            self._csrf.check(_session(), _token())
        except CsrfError as error:
            abort(403, error.text)
        except ConfigError:
            raise
        except KagimoriError as error:
            raise ServiceUnavailable(retry_after=retry_after(error)) from None


def add_peer(
    app: Flask,
    ring: ProtectionRing,
    *,
    token: str | None = None,
    clock: Clock | None = None,
) -> None:
    """
    Answer ``POST /.kagimori/peer``; see `kagimori.integrations.peer`. Off without a token.

    Args:
        token: left out: ``KAGIMORI_PEER_TOKEN``.
        clock: the machine's.

    Raises:
        ConfigError: the token is too short.
    """
    answering = peer.Peer(ring, token=token, clock=clock)

    def answer() -> Response | None:
        # Before the routes, and before whatever asks for a session or a token.
        if request.path != peer.PATH:
            return None
        body = request.stream.read(peer.MOST_BODY + 1) if answering.is_on else b""
        found = answering.answer(
            request.method, request.headers.get("Authorization"), body
        )
        return Response(found.body, found.status, dict(found.headers))

    app.before_request_funcs.setdefault(None, []).insert(0, answer)


def _token() -> str | None:
    """
    Return the request's token; a form is read for it, up to the limit, and left as it was.

    Raises:
        CsrfError: the form is too large to look into.
    """
    token = request.headers.get(HEADER)
    if token or request.mimetype not in FORMS:
        return token
    body = bytearray()
    # A stream may give less than was asked for.
    while part := request.stream.read(MOST_FORM + 1 - len(body)):
        body += part
        if len(body) > MOST_FORM:
            raise CsrfError(TOO_LARGE)
    request.stream = io.BytesIO(body)
    return request.form.get(FIELD)


def _session() -> RingSession:
    session = current_session._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    if isinstance(session, RingSession):
        return session
    raise ConfigError("The application has no RingSessionInterface.")
