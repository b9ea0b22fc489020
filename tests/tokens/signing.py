"""
A key, and tokens that are right but for what a test changes.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from kagimori.clock import seconds
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.crypto.jws import Signer
from kagimori.tokens.verifier import TokenVerifier

ISSUER = "https://id.example.com"
AUDIENCE = "urn:example:api"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEY = Jwk.generate("ES256")
KEYS = JwkSet.of([KEY.public()])
REMOVED = object()


def claims(**changes):
    """
    Return the claims of a sound access token, changed.
    """
    found = {
        "iss": ISSUER,
        "sub": "u_1",
        "aud": AUDIENCE,
        "client_id": "app",
        "exp": seconds(NOW) + 600,
        "iat": seconds(NOW),
        "jti": "t_1",
        "scope": "read write",
    } | changes
    return {name: value for name, value in found.items() if value is not REMOVED}


def sign(payload, key=KEY, typ="at+jwt", **header):
    """
    Return a token over claims, or over bytes as they are.
    """
    if isinstance(payload, dict):
        payload = json.dumps(payload, ensure_ascii=False).encode()
    return Signer(key, typ=typ, extra=header).sign(payload)


def verifier(keys=KEYS, **fields):
    """
    Return a verifier of this installation.
    """
    return TokenVerifier.from_keys(
        keys, **{"issuer": ISSUER, "audience": AUDIENCE} | fields
    )
