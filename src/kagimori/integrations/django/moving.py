"""
From another of Django's session engines to the ring's.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from kagimori.integrations.cookies import Cookie, SetCookie


class OldEngine:
    """
    Reads the sessions of the engine that a project had before.

    What that engine stores is left there, for ``manage.py clearsessions``: requests of one
    browser that come together all have to find it.

    Args:
        engine: what ``SESSION_ENGINE`` was.
        cookie: as Django set it.
    """

    def __init__(self, engine: str, cookie: Cookie) -> None:
        self._store = import_module(engine).SessionStore
        self._cookie = cookie

    def read(self, cookies: Mapping[str, str]) -> dict[str, Any] | None:
        """
        Return what the old session holds; ``None`` for nothing, or nothing good.
        """
        key = cookies.get(self._cookie.name)
        return dict(self._store(key).load()) or None if key else None

    def expire(self, cookies: Mapping[str, str]) -> tuple[SetCookie, ...]:
        """
        Return what makes the browser forget the old cookie, where it is there.
        """
        return self._cookie.expire({self._cookie.name} & set(cookies))
