"""
What an OAuth endpoint is asked, and what the token endpoint answers.

Rules of this module:

1. A request is what the HTTP layer has parsed strictly (TOK-1 to TOK-3): no repeated parameter,
   no empty one, nothing from the query string.
2. Neither a request nor an answer has a readable repr: both hold secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec


class TenantContext(msgspec.Struct, frozen=True):
    """
    The issuer that a request is for, from configuration and never from the request.

    Attributes:
        id: the tenant's id.
        issuer: its issuer, byte for byte as ``iss`` holds it.
        earlier_issuers: issuers whose still living tokens are accepted as well.
    """

    id: str
    issuer: str
    earlier_issuers: tuple[str, ...] = ()


class EndpointRequest(msgspec.Struct, frozen=True):
    """
    A request to an OAuth endpoint.

    Attributes:
        tenant: whose endpoint it is.
        form: the parameters of the body.
        authorization: the ``Authorization`` header as it came, or ``None``.
        now: the instant of the request.
        address: where it came from, for the limits on failures.
        request_id: what the answer and the log name it by.
        user_agent: what the client says it is.
    """

    tenant: TenantContext
    form: Mapping[str, str]
    authorization: str | None
    now: datetime
    address: str = ""
    request_id: str = ""
    user_agent: str = ""

    def __repr__(self) -> str:
        return f"EndpointRequest(request_id={self.request_id!r})"


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A success of the token endpoint (RFC 6749 section 5.1), members in the order of the wire.

    Attributes:
        token_type: ``Bearer``; ``bearer`` in strict legacy.
        access_token: the JWT.
        expires_in: its remaining life in seconds.
        refresh_token: where one was granted.
        scope: what was granted; absent in strict legacy.
        refresh_token_timeout: seconds for which the refresh token may lie unused.
        authorization_expires_in: seconds until the sign-in ends, used or not.
    """

    token_type: str
    access_token: str
    expires_in: int
    refresh_token: str | None = None
    scope: str | None = None
    refresh_token_timeout: int | None = None
    authorization_expires_in: int | None = None

    def __repr__(self) -> str:
        return "TokenAnswer()"


class IntrospectionAnswer(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True
):
    """
    What introspection says of a token (RFC 7662 section 2.2).

    An inactive one is exactly ``{"active": false}`` (INT-2).
    """

    active: bool
    iss: str | None = None
    sub: str | None = None
    client_id: str | None = None
    username: str | None = None
    aud: str | tuple[str, ...] | None = None
    scope: str | None = None
    token_type: str | None = None
    exp: int | None = None
    iat: int | None = None
    jti: str | None = None
    refresh_token_timeout: int | None = None
    authorization_expires_in: int | None = None


INACTIVE = IntrospectionAnswer(active=False)
"""The one answer for every token that the caller learns nothing of."""
