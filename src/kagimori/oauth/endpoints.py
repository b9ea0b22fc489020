"""
Where the endpoints of an issuer are.
"""

from __future__ import annotations

from typing import Final

TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 - a path
REVOCATION_PATH: Final = "/oauth/revoke"
INTROSPECTION_PATH: Final = "/oauth/introspect"
JWKS_PATH: Final = "/oidc/jwks"


def endpoint_url(issuer: str, path: str) -> str:
    """
    Return the URL of an endpoint of an issuer.
    """
    return issuer.rstrip("/") + path
