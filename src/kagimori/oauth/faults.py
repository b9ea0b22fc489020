"""
Which error of the wire a domain error becomes.

Rules of this module:

1. A storage or signing failure is never blamed on the request (REV-5).
2. What may pass by itself is 503 or 429 with ``Retry-After``; what an operator must mend is
   ``server_error``. The reason stays in `detail`.
"""

from __future__ import annotations

from typing import Final

from kagimori.errors import (
    BusyError,
    ContentionError,
    InvalidTokenError,
    KagimoriError,
    KeyRingError,
    NotFoundError,
    OAuthError,
    SigningUnavailableError,
    StoreError,
    ThrottledError,
)

CHALLENGE: Final = 'Basic realm="kagimori", charset="UTF-8"'
"""The challenge that goes with ``invalid_client`` (RFC 7617, RFC 6749 section 5.2)."""


def invalid_client(detail: str) -> OAuthError:
    """
    Return the one refusal of a client, whatever the reason.

    It is always 401 with a challenge, since RFC 9110 wants one with every 401.
    """
    return OAuthError(
        "invalid_client",
        "Client authentication failed.",
        status=401,
        challenge=CHALLENGE,
        detail=detail,
    )


def invalid_grant(detail: str) -> OAuthError:
    """
    Return the one refusal of a user, a password or a token, whatever the reason.
    """
    return OAuthError(
        "invalid_grant",
        "The grant is invalid, expired, revoked or not the client's.",
        detail=detail,
    )


def too_many(retry_after: int, detail: str) -> OAuthError:
    """
    Return the answer to whoever tries too often (TOK-16).
    """
    return OAuthError(
        "temporarily_unavailable",
        "Too many attempts; try again later.",
        status=429,
        retry_after=max(1, retry_after),
        detail=detail,
    )


def translate(error: KagimoriError) -> OAuthError:
    """
    Return the error of the wire for a domain error.
    """
    match error:
        case OAuthError():
            return error
        case ThrottledError():
            return too_many(error.retry_after, "throttled")
        case BusyError() | ContentionError() | SigningUnavailableError():
            return _unavailable(error)
        case KeyRingError():
            return _unavailable(error)
        case NotFoundError():
            # What a request names is answered for by its rules. So this is a ring that the
            # process has not loaded yet: the tenant was made a moment ago.
            return _unavailable(error)
        case InvalidTokenError():
            return invalid_grant(_detail(error))
        case StoreError() if error.transient:
            return _unavailable(error)
    return OAuthError(
        "server_error",
        "The server could not answer.",
        status=500,
        detail=_detail(error),
    )


def _unavailable(error: KagimoriError) -> OAuthError:
    return OAuthError(
        "temporarily_unavailable",
        "The server cannot answer at the moment; try again.",
        status=503,
        retry_after=1,
        detail=_detail(error),
    )


def _detail(error: KagimoriError) -> str:
    return f"{error.code}: {error.text} {error.detail}".strip()
