"""
The app and its checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from kagimori.errors import ConfigError
from kagimori.integrations.django.ring import session_cookie

_ENGINE = "kagimori.integrations.django.sessions"
_STOCK = "django.contrib.sessions.middleware.SessionMiddleware"


class KagimoriConfig(AppConfig):
    """
    The app as Django lists it.
    """

    name = "kagimori.integrations.django"
    label = "kagimori"
    verbose_name = "Kagimori"

    def ready(self) -> None:
        """
        Register the checks.
        """
        checks.register(check_sessions, checks.Tags.security)


def check_sessions(app_configs: object, **_: object) -> Sequence[checks.CheckMessage]:
    """
    Say what in the settings would lose sessions, or lay them open.
    """
    if settings.SESSION_ENGINE != _ENGINE:
        return []
    found = []
    if _STOCK in settings.MIDDLEWARE:
        found.append(
            checks.Error(
                "Django's own SessionMiddleware cannot lay a session in several cookies.",
                hint="Put kagimori.integrations.django.middleware.SessionMiddleware in its "
                "place.",
                id="kagimori.E001",
            )
        )
    try:
        cookie = session_cookie()
    except ConfigError as error:
        found.append(checks.Error(error.text, hint=error.hint, id="kagimori.E002"))
        return found
    if not cookie.name.startswith("__Host-") and not settings.DEBUG:
        found.append(
            checks.Error(
                "Other hosts of the domain, and plain http, can replace the session's cookie.",
                hint='Set SESSION_COOKIE_NAME = "__Host-session" and '
                "SESSION_COOKIE_SECURE = True; without them only where DEBUG is on.",
                id="kagimori.E003",
            )
        )
    return found
