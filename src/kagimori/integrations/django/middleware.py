"""
The middleware in the place of Django's ``SessionMiddleware``, and the one for other slots.
"""

from __future__ import annotations

import logging

from django.conf import settings
from django.contrib.sessions import middleware
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.deprecation import MiddlewareMixin

from kagimori.errors import ConfigError, KagimoriError, ProtectionError
from kagimori.integrations import peer
from kagimori.integrations.answering import caching, retry_after
from kagimori.integrations.cookies import parse
from kagimori.integrations.django.ring import ring, sessions
from kagimori.integrations.django.sessions import SessionStore
from kagimori.integrations.sessions import Session

_log = logging.getLogger("kagimori")
_WAIT = "The session cannot be read at the moment. Try again in a few seconds."


class SessionMiddleware(middleware.SessionMiddleware):
    """
    Reads the session from its cookies, and lays it in them; for Django's admin it is Django's.

    A request with a session that cannot be read at the moment is answered with 503 and
    ``Retry-After``: to go on would be to sign its user out.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """
        Give the request its session.
        """
        try:
            found = sessions()
            # Not Django's COOKIES: a name with U+00A0 before it counts there as the name.
            line = request.META.get("HTTP_COOKIE", "")
            cookies = parse([line], found.cookie.most_bytes)
            session = found.read(cookies, Session)
        except ConfigError:
            raise
        except KagimoriError as error:
            return _unavailable(error)
        request.session = SessionStore(found.cookie.join(cookies))
        request.session.begin(session)
        return None

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponse | None:
        """
        Answer 503 where a view found the ring unable to answer at the moment.
        """
        if isinstance(exception, ProtectionError) and exception.transient:
            return _unavailable(exception)
        return None

    def process_response(
        self, request: HttpRequest, response: HttpResponse
    ) -> HttpResponse:
        """
        Set the session's cookies on the response.
        """
        store = getattr(request, "session", None)
        if not isinstance(store, SessionStore):
            return response
        accessed = store.accessed
        session = store.ring_session
        session.accessed = accessed
        if store.modified or settings.SESSION_SAVE_EVERY_REQUEST:
            # Django does not save what a request did that ended in a fault of the server.
            if response.status_code >= 500:
                return response
            session.replace({} if store.is_empty() else store.content())
            # A life of its own only where `set_expiry` gave one: the setting may change.
            own = store.get("_session_expiry")
            session.lasts = store.get_expiry_age() if own else None
        try:
            answer = sessions().answer(
                session, persistent=not store.get_expire_at_browser_close()
            )
        except ConfigError:
            raise
        except KagimoriError as error:
            return _unavailable(error)
        for each in answer.set_cookies:
            each.set_on(response)
        if answer.depends:
            patch_vary_headers(response, ("Cookie",))
            before = response.headers.get("Cache-Control", "")
            sets = bool(answer.set_cookies)
            response.headers["Cache-Control"] = caching(before, sets=sets)
        return response


class PeerMiddleware(MiddlewareMixin):
    """
    Answers ``POST /.kagimori/peer``; see `kagimori.integrations.peer`. Off without a token.
    """

    _peer: peer.Peer | None = None

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """
        Answer a request of the doctor, before sessions and CSRF tokens are asked for.
        """
        if request.path_info != peer.PATH:
            return None
        if self._peer is None:
            try:
                self._peer = peer.Peer(ring())
            except ConfigError:
                raise
            except KagimoriError as error:
                return _unavailable(error)
        body = request.read(peer.MOST_BODY + 1) if self._peer.is_on else b""
        answer = self._peer.answer(
            request.method, request.headers.get("Authorization"), body
        )
        return HttpResponse(
            answer.body, status=answer.status, headers=dict(answer.headers)
        )


def _unavailable(error: KagimoriError) -> HttpResponse:
    _log.warning("A session waits for its ring: %s %s", error.code, error.detail)
    headers = {"Retry-After": str(retry_after(error)), "Cache-Control": "no-store"}
    return HttpResponse(
        _WAIT, status=503, content_type="text/plain; charset=utf-8", headers=headers
    )
