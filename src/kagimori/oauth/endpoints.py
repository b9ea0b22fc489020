"""
Issuers, and where their endpoints and documents are.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from kagimori.errors import ConfigError

TOKEN_PATH: Final = "/oauth/token"
REVOCATION_PATH: Final = "/oauth/revoke"
INTROSPECTION_PATH: Final = "/oauth/introspect"
JWKS_PATH: Final = "/oidc/jwks"

OPENID_DOCUMENT: Final = "/.well-known/openid-configuration"
OAUTH_DOCUMENT: Final = "/.well-known/oauth-authorization-server"


def endpoint_url(issuer: str, path: str) -> str:
    """
    Return the URL of an endpoint of an issuer.
    """
    return issuer.rstrip("/") + path


def document_paths(issuer: str) -> tuple[str, str]:
    """
    Return the paths of an issuer's two metadata documents (MET-1).

    OpenID Connect Discovery section 4 appends to the issuer's path, RFC 8414 section 3 inserts
    before it.
    """
    path = urlsplit(issuer).path.rstrip("/")
    return path + OPENID_DOCUMENT, OAUTH_DOCUMENT + path


def check_issuer(issuer: str) -> None:
    """
    Refuse an issuer that clients would not accept (MET-1, MET-2).

    Raises:
        ConfigError: not https (http is for loopback only), or with a query, a fragment or
            user information.
    """
    try:
        parts = urlsplit(issuer)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("The issuer is not a URL.") from None
    if not host or not issuer.isascii() or not issuer.isprintable() or " " in issuer:
        raise ConfigError("The issuer is not a URL.")
    if "?" in issuer or "#" in issuer or "@" in parts.netloc:
        raise ConfigError("The issuer has no query, fragment or user information.")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return
    raise ConfigError(
        "The issuer must be an https URL.",
        hint="Only on localhost and loopback addresses may it be http.",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
