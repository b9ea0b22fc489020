"""
The ring and the session's cookie, as Django's settings name them.

==================================  =====================================================
``KAGIMORI_RING``                   its address, or a `ProtectionRing` that is open already
``KAGIMORI_RING_WRAPPER``           its wrapper
``KAGIMORI_RING_APPLICATION``       the application's name
``KAGIMORI_SESSION_ABSOLUTE``       seconds that a session lasts at most; ``None``: no end
``KAGIMORI_OLD_SESSION_ENGINE``     the engine that sessions are moved from
``KAGIMORI_OLD_SESSION_COOKIE``     the name of its cookie; left out: ``sessionid``
==================================  =====================================================

The first three, left out, come from the environment variables of the same names.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

from kagimori.integrations.cookies import Cookie
from kagimori.integrations.django.moving import OldEngine
from kagimori.integrations.sessions import ABSOLUTE, Sessions
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.opening import LEFT_OUT, open_ring

_lock = threading.Lock()
_ring: ProtectionRing | None = None
_sessions: Sessions | None = None


def ring() -> ProtectionRing:
    """
    Return the ring of this process; the first call opens it.

    Raises:
        KagimoriError: see `kagimori.open_ring`; the next call tries again.
    """
    global _ring  # noqa: PLW0603  one for each process, as Django's connections are
    if _ring is None:
        with _lock:
            if _ring is None:
                _ring = _open()
    return _ring


def sessions() -> Sessions:
    """
    Return what reads and writes the sessions of this process.

    Raises:
        KagimoriError: the ring does not open, or a setting of the cookie contradicts another.
    """
    global _sessions  # noqa: PLW0603  likewise
    if _sessions is None:
        absolute = getattr(
            settings, "KAGIMORI_SESSION_ABSOLUTE", ABSOLUTE.total_seconds()
        )
        _sessions = Sessions(
            ring(),
            session_cookie(),
            lifetime=timedelta(seconds=settings.SESSION_COOKIE_AGE),
            absolute=None if absolute is None else timedelta(seconds=absolute),
            old=_old(),
        )
    return _sessions


def session_cookie() -> Cookie:
    """
    Return the session's cookie as Django's own settings describe it.

    Raises:
        ConfigError: its name's prefix demands other attributes.
    """
    # Django's False leaves the attribute out, which browsers read as Lax.
    same_site: Any = settings.SESSION_COOKIE_SAMESITE or "Lax"
    return Cookie(
        name=settings.SESSION_COOKIE_NAME,
        path=settings.SESSION_COOKIE_PATH,
        domain=settings.SESSION_COOKIE_DOMAIN,
        secure=bool(settings.SESSION_COOKIE_SECURE),
        http_only=bool(settings.SESSION_COOKIE_HTTPONLY),
        same_site=same_site.title(),
    )


def forget(**_: object) -> None:
    """
    Let go of the ring; the next use opens what the settings name then.
    """
    global _ring, _sessions  # noqa: PLW0603  likewise
    _ring = _sessions = None


def _old() -> tuple[OldEngine, ...]:
    engine = getattr(settings, "KAGIMORI_OLD_SESSION_ENGINE", None)
    name = getattr(settings, "KAGIMORI_OLD_SESSION_COOKIE", "sessionid")
    if engine is None:
        return ()
    path, domain = settings.SESSION_COOKIE_PATH, settings.SESSION_COOKIE_DOMAIN
    return (OldEngine(engine, Cookie(name=name, path=path, domain=domain)),)


def _open() -> ProtectionRing:
    named = getattr(settings, "KAGIMORI_RING", None)
    if isinstance(named, ProtectionRing):
        return named
    return open_ring(
        named,
        application=getattr(settings, "KAGIMORI_RING_APPLICATION", LEFT_OUT),
        wrapper=getattr(settings, "KAGIMORI_RING_WRAPPER", None),
    )


# Settings change in tests only (`override_settings`).
setting_changed.connect(forget, dispatch_uid="kagimori.forget")
