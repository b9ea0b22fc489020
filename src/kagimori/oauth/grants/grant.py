"""
What all grants have in common.

Rules of this module:

1. A grant gets an authenticated client that has the grant, and answers with an `Issue`: decided,
   and durably committed where something had to be.
2. An `Issue` holds an `Access`, which only `kagimori.oauth.admission` makes.
3. Signing comes after, and may fail: whoever repeats the request must then get the same.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from kagimori.errors import OAuthError
from kagimori.oauth.admission import Access, Asked
from kagimori.oauth.client import GrantType
from kagimori.oauth.directory import ClientRecord, Resources
from kagimori.oauth.requests import EndpointRequest
from kagimori.oauth.tenant import Tenant
from kagimori.tokens.family import RefreshTokenFamily


class GrantCall(msgspec.Struct, frozen=True):
    """
    A request to the token endpoint, its client proven.
    """

    request: EndpointRequest
    record: ClientRecord
    tenant: Tenant | None
    resources: Resources

    @property
    def asked(self) -> Asked:
        """
        What the request asks for.
        """
        form = self.request.form
        return Asked(form.get("scope"), form.get("resource"))

    def parameter(self, name: str) -> str:
        """
        Return a parameter that the grant cannot do without.

        Raises:
            OAuthError: ``invalid_request``, where it is absent.
        """
        value = self.request.form.get(name)
        if value is None:
            raise OAuthError("invalid_request", f"The parameter {name} is missing.")
        return value


class Issue(msgspec.Struct, frozen=True):
    """
    What the token service has to sign and to say.

    Attributes:
        subject: the ``sub``.
        access: what the access token is for.
        username: of the user, where there is one.
        family: what the access token descends from, where there is one.
        refresh_token: where one is granted.
        auth_time: when the user was proven; `amr`: how. A family's own go before them.
    """

    subject: str
    access: Access
    username: str | None = None
    family: RefreshTokenFamily | None = None
    refresh_token: str | None = None
    auth_time: datetime | None = None
    amr: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Issue(subject={self.subject!r})"


class Grant(Protocol):
    """
    One grant type.
    """

    @property
    def type(self) -> GrantType:
        """
        Which one.
        """
        ...

    async def run(self, call: GrantCall) -> Issue:
        """
        Decide and commit.

        Raises:
            OAuthError: refused.
            KagimoriError: something failed; nothing was written, or a retry is safe.
        """
        ...
