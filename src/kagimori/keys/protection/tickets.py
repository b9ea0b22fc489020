"""
Tickets of ASP.NET Core's cookie authentication as bytes, read and written.

Rules of this module (`aspnet-data-protection.md` section 5; TicketSerializer.cs and
PropertiesSerializer.cs of dotnet/aspnetcore):

1. Every count and length is held against the bytes that are left before anything is made of
   it, so that a hostile one allocates nothing.
2. Whatever is no ticket is one `ProtectionError`. A ticket's bytes prove nothing by themselves:
   they come out of a protector.
3. What is written is what .NET would write for the same ticket, to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping

from kagimori.crypto.aead import REFUSED
from kagimori.errors import ConfigError, ProtectionError
from kagimori.keys.protection.frame import seven_bit
from kagimori.keys.protection.ticket_values import (
    LOCAL_AUTHORITY,
    NAME,
    ROLE,
    STRING,
    Claim,
    Identity,
    Ticket,
    TicketProperties,
)

__all__ = [
    "Claim",
    "Identity",
    "Ticket",
    "TicketProperties",
    "read_ticket",
    "write_ticket",
]

MOST_BYTES = 1024 * 1024
MOST_ACTORS = 16
"""How many identities may act for one another in a chain."""

_FORMAT = 5
_PROPERTIES_FORMAT = 1
_DEFAULT = "\0"
"""Stands in a ticket for the value that is usual in its place."""

# What one of them takes at least: the bound of rule 1.
_LEAST_IDENTITY = 9
_LEAST_CLAIM = 9
_LEAST_PAIR = 2


# --- reading -------------------------------------------------------------------------------


class _Reader:
    """
    Takes a ticket's bytes apart (rule 1).
    """

    __slots__ = ("_data", "_place")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def take(self, length: int) -> bytes:
        end = self._place + length
        if end > len(self._data):
            raise _malformed("the ticket is cut short")
        taken = self._data[self._place : end]
        self._place = end
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "little", signed=True)

    def count(self, least: int) -> int:
        """
        Read how many there are of something that takes `least` bytes each, or more.
        """
        count = self.number()
        if not 0 <= count <= (len(self._data) - self._place) // least:
            raise _malformed("a count in the ticket is impossible")
        return count

    def flag(self) -> bool:
        return self.take(1) != b"\x00"

    def text(self) -> str:
        length = shift = 0
        while True:
            (group,) = self.take(1)
            length |= (group & 0x7F) << shift
            if group <= 0x7F:
                break
            shift += 7
            if shift > 28:
                raise _malformed("a length in the ticket is impossible")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise _malformed("a text in the ticket is no UTF-8") from None

    def text_or(self, default: str) -> str:
        text = self.text()
        return default if text == _DEFAULT else text

    def pairs(self) -> Mapping[str, str]:
        count = self.count(_LEAST_PAIR)
        pairs: dict[str, str] = {}
        for _ in range(count):
            key = self.text()
            if key in pairs:
                raise _malformed("a name in the ticket comes twice")
            pairs[key] = self.text()
        return pairs


def _malformed(detail: str) -> ProtectionError:
    return ProtectionError(REFUSED, detail=detail)


def read_ticket(data: bytes) -> Ticket:
    """
    Read the bytes of a ticket, which a protector has opened.

    Bytes after the ticket are left alone, as .NET leaves them.

    Raises:
        ProtectionError: this is no ticket of version 5, or it is larger than `MOST_BYTES`.
    """
    if len(data) > MOST_BYTES:
        raise _malformed("the ticket is too large")
    reader = _Reader(data)
    if reader.number() != _FORMAT:
        raise _malformed("the ticket is of another version")
    scheme = reader.text()
    count = reader.count(_LEAST_IDENTITY)
    identities = tuple(_read_identity(reader, MOST_ACTORS) for _ in range(count))
    if reader.number() != _PROPERTIES_FORMAT:
        raise _malformed("the ticket's properties are of another version")
    return Ticket(scheme, identities, TicketProperties(reader.pairs()))


def _read_identity(reader: _Reader, actors: int) -> Identity:
    authentication_type = reader.text()
    name_type, role_type = reader.text_or(NAME), reader.text_or(ROLE)
    count = reader.count(_LEAST_CLAIM)
    claims = tuple(_read_claim(reader, name_type) for _ in range(count))
    bootstrap = reader.text() if reader.flag() else ""
    actor = None
    if reader.flag():
        if not actors:
            raise _malformed("too many identities act for one another")
        actor = _read_identity(reader, actors - 1)
    return Identity(claims, authentication_type, name_type, role_type, bootstrap, actor)


def _read_claim(reader: _Reader, name_type: str) -> Claim:
    kind, value = reader.text_or(name_type), reader.text()
    value_type, issuer = reader.text_or(STRING), reader.text_or(LOCAL_AUTHORITY)
    original = reader.text_or(issuer)
    return Claim(
        kind,
        value,
        value_type,
        issuer,
        None if original == issuer else original,
        reader.pairs(),
    )


# --- writing -------------------------------------------------------------------------------


def write_ticket(ticket: Ticket) -> bytes:
    """
    Return a ticket as bytes, for a protector.

    Raises:
        ConfigError: it cannot be written so that it reads the same: half of a surrogate pair,
            a lone NUL where .NET has that stand for a default, more than `MOST_ACTORS` actors
            in a chain, or more than `MOST_BYTES`.
    """
    parts = [_number(_FORMAT), _text(ticket.scheme), _number(len(ticket.identities))]
    for identity in ticket.identities:
        _write_identity(identity, parts, MOST_ACTORS)
    parts.append(_number(_PROPERTIES_FORMAT))
    _write_pairs(ticket.properties.items, parts)
    data = b"".join(parts)
    if len(data) > MOST_BYTES:
        raise ConfigError(f"A ticket holds {MOST_BYTES} bytes at most.")
    return data


def _write_identity(identity: Identity, parts: list[bytes], actors: int) -> None:
    parts += (
        _text(identity.authentication_type),
        _text_or(identity.name_type, NAME),
        _text_or(identity.role_type, ROLE),
        _number(len(identity.claims)),
    )
    for claim in identity.claims:
        parts += (
            _text_or(claim.type, identity.name_type),
            _text(claim.value),
            _text_or(claim.value_type, STRING),
            _text_or(claim.issuer, LOCAL_AUTHORITY),
            _text_or(
                claim.issuer
                if claim.original_issuer is None
                else claim.original_issuer,
                claim.issuer,
            ),
        )
        _write_pairs(claim.properties, parts)
    parts.append(_flag(bool(identity.bootstrap)))
    if identity.bootstrap:
        parts.append(_text(identity.bootstrap))
    parts.append(_flag(identity.actor is not None))
    if identity.actor is not None:
        if not actors:
            raise ConfigError(f"At most {MOST_ACTORS} identities act for one another.")
        _write_identity(identity.actor, parts, actors - 1)


def _write_pairs(pairs: Mapping[str, str], parts: list[bytes]) -> None:
    parts.append(_number(len(pairs)))
    for key, value in pairs.items():
        parts += _text(key), _text(value)


def _number(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _flag(flag: bool) -> bytes:  # noqa: FBT001 - the byte that is written
    return b"\x01" if flag else b"\x00"


def _text(text: str) -> bytes:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("A ticket's text holds half of a surrogate pair.") from None
    return seven_bit(len(data)) + data


def _text_or(text: str, default: str) -> bytes:
    if text == default:
        return _text(_DEFAULT)
    if text == _DEFAULT:
        raise ConfigError("A ticket's text is a lone NUL, which stands for a default.")
    return _text(text)
