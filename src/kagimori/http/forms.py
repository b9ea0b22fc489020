"""
Forms of OAuth endpoints, parsed strictly (TOK-1 to TOK-3).

Rules of this module:

1. One meaning only: a repeated parameter is an error, an empty one is absent, bytes that are not
   UTF-8 and broken percent signs are errors. Lenient parsers disagree with each other, and what
   two of them read differently is an attack.
2. Size and number are bounded before anything is decoded.
3. What was sent is never quoted in an error: it may be a secret.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from kagimori.errors import OAuthError

FORM = b"application/x-www-form-urlencoded"

_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_FORM_TYPE = re.compile(
    rb"application/x-www-form-urlencoded[ \t]*(;[ \t]*charset=\"?utf-8\"?[ \t]*)?;?",
    re.IGNORECASE,
)

CREDENTIALS = frozenset(
    {
        "access_token",
        "actor_token",
        "assertion",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code",
        "code_verifier",
        "device_code",
        "password",
        "refresh_token",
        "subject_token",
        "token",
        "username",
    }
)
"""Parameters that must never stand in the query string of an endpoint (TOK-3)."""


def is_form(content_type: bytes | None) -> bool:
    """
    Whether a ``Content-Type`` is the one of forms, in UTF-8.
    """
    if content_type == FORM:
        return True
    return content_type is not None and bool(_FORM_TYPE.fullmatch(content_type.strip()))


def parse_form(body: bytes, max_fields: int) -> dict[str, str]:
    """
    Return the parameters of a form; empty ones are left out.

    Raises:
        OAuthError: ``invalid_request``: too many fields, a repeated one, bytes that are not
            UTF-8, a broken percent sign, or NUL.
    """
    if not body:
        return {}
    if body.count(b"&") >= max_fields:
        raise OAuthError("invalid_request", "The request has too many parameters.")
    if b"\x00" in body or b"%00" in body:
        raise OAuthError("invalid_request", "A parameter holds NUL.")
    coded = b"%" in body or b"+" in body
    if coded and _BAD_PERCENT.search(body):
        raise OAuthError("invalid_request", "The body is not form-encoded.")
    form: dict[str, str] = {}
    try:
        # Nothing that is coded is decoded before the form is taken apart.
        for pair in body.decode("utf-8").split("&"):
            name, _, value = pair.partition("=")
            if coded:
                name, value = _decoded(name), _decoded(value)
            if name in form:
                raise OAuthError("invalid_request", "A parameter is repeated.")
            if pair:
                form[name] = value
    except UnicodeDecodeError:
        raise OAuthError("invalid_request", "The body is not UTF-8.") from None
    if "" in form.values():
        return {name: value for name, value in form.items() if value}
    return form


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")


def check_query(query: bytes, max_fields: int) -> None:
    """
    Refuse a query string that holds what belongs into the body (TOK-3).

    Raises:
        OAuthError: ``invalid_request``.
    """
    try:
        names = _names(query, max_fields)
    except (UnicodeDecodeError, ValueError):
        raise OAuthError(
            "invalid_request", "The query string cannot be read."
        ) from None
    if names & CREDENTIALS:
        raise OAuthError(
            "invalid_request",
            "Credentials and tokens belong into the body, never into the address.",
        )


def _names(query: bytes, max_fields: int) -> set[str]:
    pairs = query.split(b"&")
    if len(pairs) > max_fields:
        raise ValueError("too many")
    return {
        unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" ")).decode("utf-8")
        for pair in pairs
    }
