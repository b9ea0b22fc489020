"""
What a verified access token says, and the strict reading of it.

A member named twice, a float or a text where a time belongs, an unbounded list: all are refused
(attack J8), and within the few microseconds that a signature check leaves to spare.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from kagimori.clock import from_seconds
from kagimori.crypto.strict_json import parse_object

MAX_AUDIENCES = 64

_LATEST = 253_402_300_799
"""The last second of the year 9999: beyond it no `datetime` exists."""

_Time = Annotated[int, msgspec.Meta(ge=0, le=_LATEST)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
_Audiences = Annotated[
    tuple[_Name, ...], msgspec.Meta(min_length=1, max_length=MAX_AUDIENCES)
]


class CheckedClaims(msgspec.Struct, frozen=True):
    """
    The claims that a decision rests on, typed strictly.
    """

    iss: _Name
    sub: _Name
    aud: _Name | _Audiences
    client_id: _Name
    exp: _Time
    iat: _Time
    jti: _Name
    nbf: _Time = 0
    scope: str = ""
    fid: _Name | None = None
    sid: _Name | None = None


class VerifiedToken:
    """
    What a sound access token says.

    Attributes:
        checked: the claims that a decision rests on.
    """

    __slots__ = ("_claims", "checked")

    def __init__(self, checked: CheckedClaims, claims: dict[str, Any]) -> None:
        self.checked = checked
        self._claims = claims

    @property
    def claims(self) -> Mapping[str, Any]:
        """
        All its claims, as they were signed; read-only.
        """
        return MappingProxyType(self._claims)

    @property
    def issuer(self) -> str:
        """
        Who issued it (``iss``).
        """
        return self.checked.iss

    @property
    def subject(self) -> str:
        """
        Whom it speaks of (``sub``): a user, or with client credentials the client.
        """
        return self.checked.sub

    @property
    def audience(self) -> tuple[str, ...]:
        """
        What it is for (``aud``).
        """
        aud = self.checked.aud
        return (aud,) if isinstance(aud, str) else aud

    @property
    def client_id(self) -> str:
        """
        The client that it was issued to.
        """
        return self.checked.client_id

    @property
    def scope(self) -> frozenset[str]:
        """
        The scope values that it carries.
        """
        return frozenset(self.checked.scope.split())

    @property
    def token_id(self) -> str:
        """
        Its own id (``jti``).
        """
        return self.checked.jti

    @property
    def family_id(self) -> str | None:
        """
        The refresh-token family that it belongs to (``fid``).
        """
        return self.checked.fid

    @property
    def session_id(self) -> str | None:
        """
        The session that it belongs to (``sid``).
        """
        return self.checked.sid

    @property
    def issued_at(self) -> datetime:
        """
        When it was issued.
        """
        return from_seconds(self.checked.iat)

    @property
    def expires_at(self) -> datetime:
        """
        From when on it is over.
        """
        return from_seconds(self.checked.exp)

    def __repr__(self) -> str:
        return f"VerifiedToken(subject={self.subject!r}, token_id={self.token_id!r})"


_decode_typed = msgspec.json.Decoder(CheckedClaims).decode
_decode_plain = msgspec.json.Decoder(dict[str, Any]).decode


def read_claims(payload: bytes) -> VerifiedToken:
    """
    Read the claims of an access token whose signature has verified.

    Raises:
        ValueError: they are not what RFC 9068 section 2.2 asks, or ambiguous. The message
            never quotes the token.
    """
    try:
        checked = _decode_typed(payload)
        plain = _decode_plain(payload)
        # Decoding drops all but the last of two members with one name. Without escapes every
        # text has exactly two quotes, so a name that was dropped shows in their number.
        if payload.count(b'"') != 2 * _count_texts(plain) or b"\\" in payload:
            plain = parse_object(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The parser's message may quote the token.
        raise ValueError("the claims are not those of an access token") from None
    return VerifiedToken(checked, plain)


def _count_texts(value: dict[str, Any]) -> int:
    count = len(value)
    for each in value.values():
        kind = type(each)
        if kind is str:
            count += 1
        elif kind is list or kind is dict:
            count += _count_nested(each)
    return count


def _count_nested(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return 1
    if kind is list:
        return sum(map(_count_nested, value))
    return _count_texts(value) if kind is dict else 0
