"""
Who signed in to an ASP.NET Core application, as values: tickets, identities, claims.

Rules of this module (`aspnet-data-protection.md` section 5):

1. Nothing of a ticket but types and counts shows in a ``repr``: values are personal, and
   properties hold access tokens.
2. A date that cannot be read is refused. .NET takes such an expiry for "never".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from kagimori.crypto.aead import REFUSED
from kagimori.errors import ConfigError, ProtectionError

NAME = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name"
ROLE = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"
STRING = "http://www.w3.org/2001/XMLSchema#string"
LOCAL_AUTHORITY = "LOCAL AUTHORITY"
SESSION_ID = "Microsoft.AspNetCore.Authentication.Cookies-SessionId"
"""The type of the only claim in a cookie whose ticket .NET keeps on the server."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Claim:
    """
    One statement about whom an identity stands for.

    Attributes:
        type: mostly a URI, such as `NAME` or `ROLE`.
        value_type: the URI of an XML Schema type.
        issuer: who says so.
        original_issuer: who said so first; ``None`` where that is `issuer`.
        properties: what else its issuer noted.
    """

    type: str
    value: str = field(repr=False)
    value_type: str = field(default=STRING, repr=False)
    issuer: str = field(default=LOCAL_AUTHORITY, repr=False)
    original_issuer: str | None = field(default=None, repr=False)
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """
    Claims that one way of signing in brought.

    Attributes:
        claims: in their order; a type may come several times.
        authentication_type: how somebody signed in; for .NET an empty one is nobody.
        name_type: the claim type that holds the name.
        role_type: the claim type that holds roles.
        bootstrap: the token that the identity was made from; empty where none was kept.
        actor: who acts for this identity.
    """

    claims: tuple[Claim, ...]
    authentication_type: str = "Cookies"
    name_type: str = NAME
    role_type: str = ROLE
    bootstrap: str = field(default="", repr=False)
    actor: Identity | None = None

    @property
    def name(self) -> str | None:
        """
        The value of the first claim of `name_type`.
        """
        return next((c.value for c in self.claims if c.type == self.name_type), None)

    @property
    def roles(self) -> tuple[str, ...]:
        """
        The values of all claims of `role_type`.
        """
        return tuple(c.value for c in self.claims if c.type == self.role_type)

    def __repr__(self) -> str:
        return f"<Identity {self.authentication_type!r}, {len(self.claims)} claims>"


@dataclass(frozen=True, slots=True)
class TicketProperties:
    """
    What a sign-in noted beside the identities: times, choices, tokens.

    Attributes:
        items: everything, as it lies in the ticket; the well-known ones are also read out by
            the properties below.
    """

    items: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def issued(self) -> datetime | None:
        """
        When the ticket was made, in UTC.

        Raises:
            ProtectionError: it is there and is no date.
        """
        return self._date(".issued")

    @property
    def expires(self) -> datetime | None:
        """
        When the ticket ends, in UTC; the very instant is still valid.

        Raises:
            ProtectionError: it is there and is no date. .NET would take that for "never".
        """
        return self._date(".expires")

    @property
    def is_persistent(self) -> bool:
        """
        Whether the cookie outlives the browser's session.
        """
        return ".persistent" in self.items

    @property
    def may_refresh(self) -> bool:
        """
        Whether the ticket's end may slide on with its use; so unless it says otherwise.
        """
        return self.items.get(".refresh", "").strip().lower() != "false"

    @property
    def redirect(self) -> str | None:
        """
        Where the browser was to go after the sign-in.
        """
        return self.items.get(".redirect")

    @property
    def tokens(self) -> Mapping[str, str]:
        """
        The tokens that the sign-in kept, such as ``access_token``, by name.
        """
        names = self.items.get(".TokenNames", "").split(";")
        found = ((name, self.items.get(f".Token.{name}")) for name in names if name)
        return {name: value for name, value in found if value is not None}

    def with_times(self, issued: datetime, expires: datetime) -> TicketProperties:
        """
        Return the same with other times, which are kept to the second.

        Raises:
            ConfigError: a time without a time zone.
        """
        times = {".issued": _http_date(issued), ".expires": _http_date(expires)}
        return TicketProperties({**self.items, **times})

    def with_persistence(self) -> TicketProperties:
        """
        Return the same for a cookie that outlives the browser's session.
        """
        return TicketProperties({**self.items, ".persistent": ""})

    def with_tokens(self, tokens: Mapping[str, str]) -> TicketProperties:
        """
        Return the same with these tokens in place of those that were kept.

        Raises:
            ConfigError: a name is empty or holds a semicolon.
        """
        if any(not name or ";" in name for name in tokens):
            raise ConfigError("A token's name is not empty and holds no semicolon.")
        kept = {
            name: value
            for name, value in self.items.items()
            if not name.startswith(".Token.") and name != ".TokenNames"
        }
        kept |= {f".Token.{name}": value for name, value in tokens.items()}
        return TicketProperties(kept | {".TokenNames": ";".join(tokens)})

    def _date(self, name: str) -> datetime | None:
        text = self.items.get(name)
        return None if text is None else _parse_http_date(text)

    def __repr__(self) -> str:
        return f"<TicketProperties, {len(self.items)} of them>"


@dataclass(frozen=True, slots=True)
class Ticket:
    """
    Who signed in, and how.

    Attributes:
        scheme: the authentication scheme that signed them in.
        identities: the first is the one that counts where one is asked for.
    """

    scheme: str
    identities: tuple[Identity, ...]
    properties: TicketProperties = field(default_factory=TicketProperties)

    @classmethod
    def of(
        cls,
        name: str,
        *,
        roles: Iterable[str] = (),
        claims: Iterable[Claim] = (),
        scheme: str = "Cookies",
        properties: TicketProperties | None = None,
    ) -> Ticket:
        """
        Return the ticket of somebody of one identity.
        """
        said = (Claim(NAME, name), *(Claim(ROLE, role) for role in roles), *claims)
        identity = Identity(said, authentication_type=scheme)
        return cls(scheme, (identity,), properties or TicketProperties())

    @property
    def name(self) -> str | None:
        """
        The name of the first identity.
        """
        return self.identities[0].name if self.identities else None

    @property
    def claims(self) -> tuple[Claim, ...]:
        """
        The claims of all identities.
        """
        return tuple(claim for one in self.identities for claim in one.claims)

    @property
    def session_id(self) -> str | None:
        """
        The key of a ticket that .NET keeps on the server; ``None`` where this is the ticket.

        Then the cookie holds nothing else: the claims cannot be learnt from it.
        """
        claims = self.claims
        if len(claims) == 1 and claims[0].type == SESSION_ID:
            return claims[0].value
        return None

    def has_expired(self, now: datetime) -> bool:
        """
        Whether the ticket's time is over at `now`.

        Raises:
            ProtectionError: the ticket names an expiry that is no date.
        """
        expires = self.properties.expires
        return expires is not None and expires < now

    def with_times(self, issued: datetime, expires: datetime) -> Ticket:
        """
        Return the same with other times, which are kept to the second.

        Raises:
            ConfigError: a time without a time zone.
        """
        return replace(self, properties=self.properties.with_times(issued, expires))

    def __repr__(self) -> str:
        return f"<Ticket of {self.scheme!r}, {len(self.identities)} identities>"


# --- dates ---------------------------------------------------------------------------------


def _http_date(instant: datetime) -> str:
    if instant.tzinfo is None:
        raise ConfigError("A ticket's time needs a time zone.")
    at = instant.astimezone(UTC)
    # By hand: strftime's names follow the process's language.
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"{day}, {at.day:02} {month} {at.year:04} {at:%H:%M:%S} GMT"


def _parse_http_date(text: str) -> datetime:
    found = _HTTP_DATE.fullmatch(text)
    try:
        if found is not None:
            day, month, year, *clock = found.groups()
            month_number = _MONTHS.index(month) + 1
            hour, minute, second = (int(number) for number in clock)
            at = datetime(
                int(year), month_number, int(day), hour, minute, second, tzinfo=UTC
            )
            if _http_date(at) == text:
                return at
    except ValueError:
        pass
    raise ProtectionError(REFUSED, detail="a date in the ticket is malformed")
