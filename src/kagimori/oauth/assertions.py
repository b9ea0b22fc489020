"""
Client assertions: a client proves itself by a signed JWT (RFC 7523, ``private_key_jwt``).

Rules of this module:

1. The assertion says which client it claims to be; that client's registered keys alone decide.
2. Its audience is one string, by the client's policy (TOK-17). A list is refused: it lets one
   assertion serve at two servers (attacks T7).
3. It is used once across all nodes: its ``jti`` is written on condition that nobody wrote it,
   and stays until the assertion has expired.
4. It is no other kind of token (attacks J6): a ``typ`` that names another kind is refused, and
   so is one that lacks a claim which assertions have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from kagimori.clock import from_seconds
from kagimori.crypto import jws
from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.digests import b64url_decode, b64url_encode, sha256
from kagimori.crypto.strict_json import parse_object
from kagimori.errors import ConflictError, InvalidJwsError, JoseError
from kagimori.oauth.client import AssertionAudience
from kagimori.oauth.directory import ClientRecord
from kagimori.oauth.endpoints import TOKEN_PATH, endpoint_url
from kagimori.oauth.requests import TenantContext
from kagimori.storage.store import ABSENT, Put, Store

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""The only ``client_assertion_type`` (RFC 7523 section 2.2)."""

USED: Final = "assertion"
"""The kind of the documents that remember used assertions."""

ASSERTION_ALGORITHMS: Final = tuple(ALGORITHMS)
"""What an assertion may be signed with; the client's key narrows it to its own."""

MAX_LENGTH: Final = 16 * 1024
LONGEST: Final = timedelta(hours=1)
"""How far ahead ``exp`` may lie."""

EARLY: Final = timedelta(seconds=10)
"""How far ahead ``iat`` and ``nbf`` may lie (requirements FAP-4)."""

# The store's clock may be a little ahead of the one that judged ``exp``.
_MARGIN = timedelta(minutes=1)

_TYPES = (None, "JWT", "jwt", "client-authentication+jwt")


def claimed_client(assertion: str) -> str | None:
    """
    Return the client that an unverified assertion names, or ``None`` where it is malformed.

    Only for finding the keys to verify it with.
    """
    if len(assertion) > MAX_LENGTH:
        return None
    try:
        _, payload, _ = assertion.split(".")
        claims = parse_object(b64url_decode(payload))
    except ValueError:
        return None
    subject = claims.get("sub")
    return subject if isinstance(subject, str) else None


def verify_assertion(
    assertion: str, record: ClientRecord, context: TenantContext, now: datetime
) -> Mapping[str, Any]:
    """
    Return the claims of a client's assertion; `consume` must follow.

    Raises:
        InvalidJwsError: it is not this client's, not for this server, or not for now.
    """
    try:
        verified = jws.verify(
            assertion,
            record.keys,
            algorithms=ASSERTION_ALGORITHMS,
            max_length=MAX_LENGTH,
        )
    except JoseError as error:
        raise InvalidJwsError(error.text) from None
    if verified.header.get("typ") not in _TYPES:
        raise InvalidJwsError("The assertion is another kind of token.")
    try:
        claims = parse_object(verified.payload)
    except ValueError:
        raise InvalidJwsError("The assertion holds no JSON object.") from None
    client = record.client
    if claims.get("iss") != client.id or claims.get("sub") != client.id:
        raise InvalidJwsError("The assertion speaks of another client.")
    accepted = [context.issuer]
    if client.assertion_audience is AssertionAudience.ISSUER_OR_TOKEN_ENDPOINT:
        accepted.append(endpoint_url(context.issuer, TOKEN_PATH))
    audience = claims.get("aud")
    if not isinstance(audience, str) or audience not in accepted:
        raise InvalidJwsError("The assertion is for another audience.")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= 255:
        raise InvalidJwsError("The assertion has no usable jti.")
    _check_times(claims, now)
    return claims


async def consume(
    store: Store, tenant: str, client_id: str, claims: Mapping[str, Any]
) -> None:
    """
    Use an assertion up, across all nodes.

    Raises:
        InvalidJwsError: it was used before.
        StoreError: as the store raises.
    """
    # One document per (client, jti). The pair is hashed as JSON, which no two pairs share.
    pair = json.dumps([client_id, claims["jti"]]).encode()
    used = Put(
        USED,
        b64url_encode(sha256(pair)),
        b"{}",
        ABSENT,
        expires=from_seconds(int(claims["exp"])) + _MARGIN,
    )
    try:
        await store.commit(tenant, (used,))
    except ConflictError:
        raise InvalidJwsError("The assertion was used before.") from None


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    expires = _instant(claims, "exp")
    if expires is None or not now < expires <= now + LONGEST:
        raise InvalidJwsError("The assertion has expired, or is valid for too long.")
    for name in ("iat", "nbf"):
        instant = _instant(claims, name)
        if instant is not None and instant > now + EARLY:
            raise InvalidJwsError("The assertion is not valid yet.")


def _instant(claims: Mapping[str, Any], name: str) -> datetime | None:
    value = claims.get(name)
    if value is None:
        return None
    # A bool is an int to Python; a huge number is no date.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidJwsError("A time of the assertion is not a number.")
    try:
        return from_seconds(int(value))
    except (OverflowError, OSError, ValueError):
        raise InvalidJwsError("A time of the assertion is out of range.") from None
