"""
The sealed successor (requirements B4): the same answer to a retry, and nothing in the database.

The key is derived from the presented token, of which the server keeps only a hash. So a copy
of the database opens nothing, whoever presents the predecessor again gets the successor that
was made the first time, and no server key is involved that could rotate or be lost.
"""

from __future__ import annotations

from kagimori.crypto.aead import gcm_open, gcm_seal
from kagimori.crypto.kdf import hkdf_sha256
from kagimori.tokens.refresh_token import RefreshToken

NONCE_BYTES = 12

_INFO = b"kagimori refresh token successor 1"
_KEY_BYTES = 32


def seal_successor(
    presented: RefreshToken, successor: RefreshToken, nonce: bytes
) -> bytes:
    """
    Return the successor sealed under the token that it replaces.

    Args:
        nonce: 12 random bytes. Two racing requests seal two successors under one key.
    """
    sealed = gcm_seal(_key(presented), nonce, successor.to_bytes(), _context(presented))
    return nonce + sealed


def open_successor(presented: RefreshToken, sealed: bytes) -> RefreshToken:
    """
    Return the successor of a presented token.

    Raises:
        ProtectionError: it was sealed under another token, or altered.
        InvalidTokenError: what was sealed is no token.
    """
    opened = gcm_open(
        _key(presented), sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _context(presented)
    )
    return RefreshToken.from_bytes(opened)


def _key(presented: RefreshToken) -> bytes:
    return hkdf_sha256(presented.to_bytes(), salt=None, info=_INFO, length=_KEY_BYTES)


def _context(presented: RefreshToken) -> bytes:
    return presented.family_bytes + presented.generation.to_bytes(4, "big")
