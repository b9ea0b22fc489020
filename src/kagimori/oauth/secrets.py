"""
The secrets of clients: made, chosen, stored.

Rules of this module:

1. A generated secret has 256 bits and is stored as plain SHA-256; a chosen one as Argon2id.
2. The text of a secret is returned once, to whoever asked for it, and kept nowhere.
3. Known and weak secrets are refused; the demo world alone says otherwise (K10).
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from kagimori.crypto.digests import random_id
from kagimori.identity.credentials import digest_of_generated
from kagimori.identity.hashing import HashPool
from kagimori.identity.strength import check_client_secret
from kagimori.oauth.client import ClientSecret

SECRET_PREFIX = "kgm_cs_"
"""Begins every generated client secret, so that scanners find leaked ones."""

_LAST = 4


class NewSecret(NamedTuple):
    """
    A secret just made: what to store, and what to show once.
    """

    stored: ClientSecret
    text: str

    def __repr__(self) -> str:
        return f"NewSecret(id={self.stored.id!r})"


def generate_secret(now: datetime, *, expires: datetime | None = None) -> NewSecret:
    """
    Make a secret of 256 bits.

    Args:
        expires: from when on it is refused.
    """
    text = SECRET_PREFIX + random_id(32)
    stored = ClientSecret(
        id=random_id(6),
        digest=digest_of_generated(text),
        created=now,
        expires=expires,
        last=text[-_LAST:],
    )
    return NewSecret(stored, text)


async def choose_secret(
    pool: HashPool,
    text: str,
    now: datetime,
    *,
    client_id: str = "",
    expires: datetime | None = None,
    allow_known_secrets: bool = False,
) -> ClientSecret:
    """
    Return the stored form of a secret that somebody chose.

    Args:
        client_id: what the secret must not be made of.
        expires: from when on it is refused.
        allow_known_secrets: takes known and weak ones: the demo world only.

    Raises:
        InsecureConfigError: the secret is weak.
        BusyError: too many secrets are being hashed.
    """
    check_client_secret(text, client_id=client_id, known=allow_known_secrets)
    return ClientSecret(
        id=random_id(6),
        digest=await pool.hash(text),
        created=now,
        expires=expires,
    )
