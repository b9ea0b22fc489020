"""
The cookies in which ASP.NET Core's cookie authentication keeps its tickets.

Rules of this module (`aspnet-data-protection.md` section 5):

1. A value longer than a browser takes lies in chunks: ``NAME`` holds ``chunks-N``, the text
   lies in ``NAMEC1`` to ``NAMECN``. How many are said to be there allocates nothing.
2. What a browser sends is refused by one class; `read` makes that "nobody is signed in". A key
   that cannot be asked for at the moment is an error there too: an outage signs nobody out.
3. A ticket past its expiry is refused; the very instant is still valid. An application that
   keeps its tickets on the server, or asks its database whether a user is still one (ASP.NET
   Core Identity's security stamp), knows more than a cookie can tell.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from kagimori.crypto.aead import REFUSED
from kagimori.errors import ConfigError, PayloadExpiredError, ProtectionError
from kagimori.keys.protection.protector import Protector
from kagimori.keys.protection.ticket_values import Ticket
from kagimori.keys.protection.tickets import MOST_BYTES, read_ticket, write_ticket

MIDDLEWARE = (
    "Microsoft.AspNetCore.Authentication.Cookies.CookieAuthenticationMiddleware"
)
LIFETIME = timedelta(days=14)
"""How long a ticket lives that says nothing, as in .NET."""

MOST_CHUNKS = 256
MOST_CHARACTERS = MOST_BYTES * 4 // 3
"""No longer value is looked at: that much text holds the largest ticket."""

_CHUNK = 4050
"""The most of name, value and attributes that .NET puts into one cookie."""

_ATTRIBUTES = 200
"""Of these, what is left for the attributes; more than .NET's own take."""

_COUNT = "chunks-"
_UNRESERVED = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)
# RFC 6265 has cookie names be tokens of RFC 9110.
_TOKEN = _UNRESERVED | frozenset("!#$%&'*+^`|")


class TicketRing(Protocol):
    """
    What is needed of a `ProtectionRing`.
    """

    def protector(self, *purposes: str) -> Protector:
        """
        Return a protector for a chain of purposes under the ring's application.
        """
        ...

    def now(self) -> datetime:
        """
        Return the time by the ring's clock.
        """
        ...


@dataclass(frozen=True, slots=True)
class OpenedTicket:
    """
    A ticket that came in a cookie and is valid.

    Attributes:
        needs_renewal: whether to issue `renewed` on the way out: its key is no longer the
            current one, or more than half of its time is over and it may slide.
        renewed: the same ticket with the same span of time from now on, where it may slide;
            else as it came.
    """

    ticket: Ticket
    needs_renewal: bool
    renewed: Ticket = field(repr=False)


class TicketCookies:
    """
    Reads and issues the sign-in cookies of an ASP.NET Core application on the same ring.

    Args:
        ring: opened with the application's name, or its content root where it has none.
        scheme: its cookie scheme. ASP.NET Core Identity's is ``Identity.Application``.
        cookie_name: where the application has named its cookie by itself.
        lifetime: of tickets that name no expiry.
        sliding: whether a ticket that says nothing may slide on with its use.

    Raises:
        ConfigError: the name is none that a cookie may have, or the scheme is no text.
    """

    def __init__(
        self,
        ring: TicketRing,
        scheme: str = "Cookies",
        cookie_name: str | None = None,
        *,
        lifetime: timedelta = LIFETIME,
        sliding: bool = True,
    ) -> None:
        self._protector = ring.protector(MIDDLEWARE, scheme, "v2")
        self._now = ring.now
        self.scheme = scheme
        self.name = _default_name(scheme) if cookie_name is None else cookie_name
        if not self.name or not _TOKEN.issuperset(self.name):
            raise ConfigError("A cookie's name is made of letters, digits and dashes.")
        if len(self.name) > _CHUNK // 4:
            raise ConfigError("A cookie's name leaves no room for its value.")
        self._lifetime = lifetime
        self._slides = sliding

    def read(
        self, cookies: Mapping[str, str], now: datetime | None = None
    ) -> Ticket | None:
        """
        Return the ticket in a request's cookies; ``None`` where there is no valid one.

        Args:
            now: the request's time; the ring's where it is left out.

        Raises:
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
                Answer 503: to go on would be to sign the user out.
        """
        try:
            opened = self.open(cookies, now)
        except ProtectionError as error:
            if error.transient:
                raise
            return None
        return opened.ticket if opened else None

    def open(
        self, cookies: Mapping[str, str], now: datetime | None = None
    ) -> OpenedTicket | None:
        """
        Return the ticket in a request's cookies; ``None`` where no such cookie is there.

        Args:
            now: the request's time; the ring's where it is left out.

        Raises:
            PayloadExpiredError: sound, but its time is over (a `ProtectionError` too).
            ProtectionError: altered, of another ring, application or scheme, without one of
                its chunks, or no ticket; `transient` where its key could not be asked for.
        """
        text = self._joined(cookies)
        if not text:
            return None
        opened = self._protector.unprotect(text)
        ticket = read_ticket(opened.payload)
        at = now or self._now()
        if ticket.has_expired(at):
            raise PayloadExpiredError(REFUSED, detail="the ticket has expired")
        renewed = self._slid(ticket, at)
        return OpenedTicket(
            ticket, opened.needs_renewal or renewed is not ticket, renewed
        )

    def issue(
        self, ticket: Ticket, now: datetime | None = None
    ) -> list[tuple[str, str]]:
        """
        Return the cookies that sign somebody in, as names and values.

        Set them with ``Path=/; Secure; HttpOnly; SameSite=Lax``, and with ``Expires`` where
        the ticket is persistent. Then delete those that `expire` names with ``keep``.

        Args:
            now: when it is issued, where the ticket does not say; the ring's time where it is
                left out.

        Raises:
            ConfigError: the ticket is of another scheme, has no identity of an authentication
                type, or cannot be written.
            KeyRingError: no key can protect now.
        """
        if ticket.scheme != self.scheme:
            raise ConfigError(f"The ticket is not of the scheme {self.scheme!r}.")
        if not any(identity.authentication_type for identity in ticket.identities):
            # .NET would open the cookie and see nobody signed in.
            raise ConfigError("The ticket has no identity with an authentication type.")
        issued = ticket.properties.issued or now or self._now()
        expires = ticket.properties.expires or issued + self._lifetime
        ticket = ticket.with_times(issued, expires)
        text = self._protector.protect(write_ticket(ticket))
        room = _CHUNK - _ATTRIBUTES - len(self.name)
        if len(text) <= room:
            return [(self.name, text)]
        # A number of three digits beside the name, and the letter before it.
        room -= 4
        chunks = [text[at : at + room] for at in range(0, len(text), room)]
        if len(chunks) > MOST_CHUNKS:
            raise ConfigError(f"A ticket fits into {MOST_CHUNKS} cookies at most.")
        numbered = ((self._chunk(n), chunk) for n, chunk in enumerate(chunks, 1))
        return [(self.name, f"{_COUNT}{len(chunks)}"), *numbered]

    def expire(
        self, cookies: Mapping[str, str], *, keep: Container[str] = ()
    ) -> list[str]:
        """
        Return the names of this scheme's cookies in a request, for deleting them.

        Without `keep` that signs somebody out; with the names just issued as `keep`, it clears
        away what an earlier, longer cookie left.
        """
        names = (self.name, *(self._chunk(n) for n in range(1, MOST_CHUNKS + 1)))
        return [name for name in names if name in cookies and name not in keep]

    def _chunk(self, number: int) -> str:
        return f"{self.name}C{number}"

    def _joined(self, cookies: Mapping[str, str]) -> str:
        text = cookies.get(self.name, "")
        if not text.startswith(_COUNT):
            if len(text) > MOST_CHARACTERS:
                raise ProtectionError(REFUSED, detail="the cookie is too long")
            return text
        said = text.removeprefix(_COUNT)
        # Three digits at most, before they become a number.
        if len(said) > 3 or not (said.isascii() and said.isdigit()):
            raise ProtectionError(REFUSED, detail="the count of chunks is impossible")
        count, length, chunks = int(said), 0, []
        if not 1 <= count <= MOST_CHUNKS:
            raise ProtectionError(REFUSED, detail="the count of chunks is impossible")
        for number in range(1, count + 1):
            chunk = cookies.get(self._chunk(number))
            if not chunk:
                raise ProtectionError(REFUSED, detail=f"chunk {number} is missing")
            length += len(chunk)
            if length > MOST_CHARACTERS:
                raise ProtectionError(REFUSED, detail="the cookie is too long")
            chunks.append(chunk)
        return "".join(chunks)

    def _slid(self, ticket: Ticket, now: datetime) -> Ticket:
        issued, expires = ticket.properties.issued, ticket.properties.expires
        if not self._slides or not ticket.properties.may_refresh:
            return ticket
        if issued is None or expires is None or expires - now >= now - issued:
            return ticket
        return ticket.with_times(now, now + (expires - issued))

    def __repr__(self) -> str:
        return f"<TicketCookies {self.name}>"


def _default_name(scheme: str) -> str:
    # It is sound Unicode: it was taken as a purpose.
    letters = (
        chr(byte) if chr(byte) in _UNRESERVED else f"%{byte:02X}"
        for byte in scheme.encode("utf-8")
    )
    return ".AspNetCore." + "".join(letters)
