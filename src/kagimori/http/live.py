"""
What serves at the moment, and why it may not.

Rules of this module:

1. A server that cannot open its installation yet listens all the same: probes and operators see
   why, and nothing is signed (DESIGN section 9).
2. A reason that makes a server unready is a stable code and a sentence without secrets.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from kagimori.compose import Installation, Services
from kagimori.errors import KagimoriError, OAuthError


class Problem(msgspec.Struct, frozen=True):
    """
    A reason not to be ready.
    """

    code: str
    text: str
    hint: str = ""


class Live:
    """
    The installation that serves, once there is one.

    Attributes:
        installation: ``None`` until it could be opened.
        opening: why it could not be opened yet.
        draining: whether the server is about to end.
    """

    def __init__(self) -> None:
        self.installation: Installation | None = None
        self.opening: KagimoriError | None = None
        self.draining = False
        self._services: Services | None = None

    def serve(self, installation: Installation) -> None:
        """
        Serve from an installation from now on.
        """
        self.installation = installation
        self.opening = None
        self.judge()

    def judge(self) -> None:
        """
        Look again whether tokens may be made and told of.
        """
        installation = self.installation
        if installation is not None and installation.may_serve:
            self._services = installation.services
        else:
            self._services = None

    def services(self) -> Services:
        """
        Return what the endpoints stand on.

        Raises:
            OAuthError: 503, nothing may be signed at the moment.
        """
        if self._services is None:
            raise OAuthError(
                "temporarily_unavailable",
                "The server is not ready; the same request may succeed later.",
                status=503,
                retry_after=2,
                detail=self.opening.code if self.opening is not None else "not ready",
            )
        return self._services

    def problems(self, now: datetime) -> tuple[Problem, ...]:
        """
        Return every reason not to be ready.
        """
        found: list[KagimoriError] = []
        if self.installation is not None:
            found += self.installation.problems(now)
        elif self.opening is not None:
            found.append(self.opening)
        problems = [Problem(each.code, each.text, each.hint) for each in found]
        if self.installation is None and not problems:
            problems.append(Problem("starting", "The server is starting."))
        if self.draining:
            problems.append(Problem("draining", "The server is about to end."))
        return tuple(problems)
