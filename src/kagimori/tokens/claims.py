"""
What an access token says (RFC 9068 section 2.2).

Rules of this module:

1. Only what the wire holds stands in `AccessTokenPayload`; times there are whole seconds.
2. ``aud`` is a resource, never the client: so no access token passes as an ID token (JAT-3).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from kagimori.clock import seconds

TYP = "at+jwt"
"""The header's ``typ`` (RFC 9068 section 2.1)."""


class AccessTokenPayload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The claims as they are encoded, in the order of the wire.

    Attributes:
        fid: the refresh-token family; the deny set names it.
        sid: the browser session, likewise.
        user: the user's name, in the profile ``legacy-2015`` only.
    """

    iss: str
    sub: str
    aud: str
    client_id: str
    exp: int
    iat: int
    jti: str
    scope: str = ""
    fid: str | None = None
    sid: str | None = None
    auth_time: int | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()
    user: str | None = None


class AccessTokenClaims(msgspec.Struct, frozen=True, kw_only=True):
    """
    What an access token shall say, before it has times and an id of its own.

    Attributes:
        issuer: the tenant's issuer, byte for byte.
        subject: the user's id; with client credentials the client's.
        audience: the identifier of the resource.
        client: the ``client_id``.
        lifetime: how long it lives; whole seconds count.
        scope: what was granted, blank-separated; empty: no scope claim.
        family: the id of its refresh-token family, if there is one.
        session: the id of its session, if there is one.
        auth_time: when the user proved to be one; the same after every refresh (JAT-2).
        acr: how well; also `amr`: by what.
        username: for the profile ``legacy-2015`` only.
    """

    issuer: str
    subject: str
    audience: str
    client: str
    lifetime: timedelta
    scope: str = ""
    family: str | None = None
    session: str | None = None
    auth_time: datetime | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()
    username: str | None = None

    def payload(self, jti: str, issued_at: int, expires_at: int) -> AccessTokenPayload:
        """
        Return the claims with times, in POSIX seconds, and an id.
        """
        auth_time = self.auth_time
        return AccessTokenPayload(
            iss=self.issuer,
            sub=self.subject,
            aud=self.audience,
            client_id=self.client,
            exp=expires_at,
            iat=issued_at,
            jti=jti,
            scope=self.scope,
            fid=self.family,
            sid=self.session,
            auth_time=None if auth_time is None else seconds(auth_time),
            acr=self.acr,
            amr=self.amr,
            user=self.username,
        )
