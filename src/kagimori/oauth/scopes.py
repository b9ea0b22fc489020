"""
Scope values and resource indicators, as text from the network.

Rules of this module:

1. A scope is a list of distinct values in the order they came (RFC 6749 section 3.3).
2. Both are bounded before they are split (A12).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from kagimori.errors import OAuthError

MAX_SCOPE_LENGTH: Final = 2048
"""The most characters of a ``scope`` parameter."""

MAX_RESOURCE_LENGTH: Final = 255
"""The most characters of a resource's identifier."""

_VALUE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def parse_scope(text: str | None) -> tuple[str, ...]:
    """
    Return the distinct values of a ``scope`` parameter, none where it is absent.

    Raises:
        OAuthError: ``invalid_scope``, where it is malformed.
    """
    if not text:
        return ()
    values = text.split(" ")
    if len(text) > MAX_SCOPE_LENGTH or not all(map(is_scope_value, values)):
        raise OAuthError("invalid_scope", "The scope is malformed.")
    return tuple(dict.fromkeys(values))


def is_scope_value(text: str) -> bool:
    """
    Return whether a text is one scope value (RFC 6749 section 3.3, ``scope-token``).
    """
    return _VALUE.fullmatch(text) is not None


def is_resource_identifier(text: str) -> bool:
    """
    Return whether a text is an absolute URI without a fragment (RFC 8707 section 2).
    """
    if not 0 < len(text) <= MAX_RESOURCE_LENGTH or not text.isascii():
        return False
    if not text.isprintable() or " " in text or "#" in text:
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and (parts.netloc or parts.path))


def is_slug(text: str) -> bool:
    """
    Return whether a text may be the short name of a tenant or a resource.
    """
    return _SLUG.fullmatch(text) is not None
