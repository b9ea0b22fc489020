"""
The deny set: access tokens that are over before their time (requirements B9).

Rules of this module:

1. An entry names one access token (``jti``) or all of one family (``fid``), and goes when the
   last token that it is about has expired everywhere, so the set stays small.
2. Revoking a family and denying its access tokens is one commit.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from kagimori.storage.store import (
    ABSENT,
    Collection,
    Decision,
    DocumentKey,
    Loaded,
    Put,
    Store,
    transact,
)
from kagimori.tokens.family import RefreshTokenFamily

GREATEST_LEEWAY = timedelta(seconds=60)
"""How long after ``exp`` a verifier elsewhere may still accept a token (JAT-5)."""


class Denied(msgspec.Struct, frozen=True):
    """
    One entry of the deny set.

    Attributes:
        since: when it was made.
        until: when no verifier accepts what it is about any more.
    """

    since: datetime
    until: datetime


DENIED: Collection[Denied] = Collection(
    "denied", Denied, expires=lambda entry: entry.until
)


def family_denial(family: RefreshTokenFamily, now: datetime) -> Put:
    """
    Return the change that denies all access tokens of a family that is being revoked.

    A family is revoked once, so there is no entry yet.
    """
    until = now + family.longest_access + GREATEST_LEEWAY
    return DENIED.put(_family_id(family.id), Denied(now, until), ABSENT)


async def deny_token(store: Store, tenant: str, jti: str, expires: datetime) -> None:
    """
    Deny one access token.

    Args:
        jti: of a token whose signature has been verified.
        expires: its ``exp``.

    Raises:
        StoreError: as the store raises.
    """

    def decide(loaded: Loaded) -> Decision[None]:
        until = expires + GREATEST_LEEWAY
        if loaded.documents[0] is not None or until <= loaded.now:
            return Decision(None)
        entry = Denied(loaded.now, until)
        return Decision(None, (DENIED.put(_token_id(jti), entry, ABSENT),))

    await transact(store, tenant, [DENIED.key(_token_id(jti))], decide)


def denial_keys(*, jti: str, family_id: str | None = None) -> list[DocumentKey]:
    """
    Name the entries that would deny an access token: any that is there does.
    """
    keys = [DENIED.key(_token_id(jti))]
    if family_id is not None:
        keys.append(DENIED.key(_family_id(family_id)))
    return keys


async def is_denied(
    store: Store, tenant: str, *, jti: str, family_id: str | None = None
) -> bool:
    """
    Whether an access token was revoked, by itself or with its family.

    Raises:
        StoreError: as the store raises.
    """
    keys = denial_keys(jti=jti, family_id=family_id)
    loaded = await store.load_many(tenant, keys)
    return any(document is not None for document in loaded.documents)


def _token_id(jti: str) -> str:
    return f"jti:{jti}"


def _family_id(family_id: str) -> str:
    return f"fid:{family_id}"
