"""
From another of Django's session engines to the ring's.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.signed_cookies import SessionStore as InCookies

from kagimori.integrations.cookies import Cookie, SetCookie

# Longer ones are of an engine that lays the session's content in them.
_MOST_KEY = 128


class OldEngine:
    """
    Reads the sessions of the engine that a project had before.

    What that engine stores is left there until a sign-in, a sign-out or ``manage.py
    clearsessions``: requests of one browser that come together all have to find it. What lies
    in a cookie alone cannot be ended.

    Args:
        engine: what ``SESSION_ENGINE`` was.
        cookie: as Django set it.
    """

    def __init__(self, engine: str, cookie: Cookie) -> None:
        self._store: type[SessionBase] = import_module(engine).SessionStore
        self._cookie = cookie

    def read(self, cookies: Mapping[str, str]) -> dict[str, Any] | None:
        """
        Return what the old session holds; ``None`` for nothing, or nothing good.
        """
        key = cookies.get(self._cookie.name)
        return dict(self._store(key).load()) or None if key else None

    def id_of(self, cookies: Mapping[str, str]) -> str | None:
        """
        Return the old session's key; ``None`` where its key is all that there is of it.
        """
        key = cookies.get(self._cookie.name)
        if not key or len(key) > _MOST_KEY or issubclass(self._store, InCookies):
            return None
        return key

    def end(self, session_id: str) -> None:
        """
        Delete what the engine stores of a session, as Django itself does at a sign-out.
        """
        self._store(session_id).delete(session_id)

    def expire(self, cookies: Mapping[str, str]) -> tuple[SetCookie, ...]:
        """
        Return what makes the browser forget the old cookie, where it is there.
        """
        return self._cookie.expire({self._cookie.name} & set(cookies))
