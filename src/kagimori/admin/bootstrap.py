"""
The owner: the first user of an installation, invited by a one-time link.

Rules of this module:

1. The link's secret has 256 bits and is shown once; its SHA-256 alone is stored.
2. An invitation is used up by whoever sets the owner's password with it, or ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from kagimori.admin.audit import Trail
from kagimori.admin.verb import Done, commit_verb
from kagimori.crypto.digests import b64url_encode, random_id, sha256
from kagimori.errors import RefusedError
from kagimori.identity.user import USERNAMES, USERS, creation, new_user, username_key
from kagimori.keys.journal import Cause
from kagimori.oauth.tenant import DEFAULT_TENANT
from kagimori.storage.store import ABSENT, Collection, Document, Reference, Store

INVITATION_LIFETIME = timedelta(days=7)
LINK_PREFIX = "kgm_inv_"
"""Begins every invitation's secret, so that scanners find leaks."""


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """
    Lets whoever holds its secret set the password of a user, once.
    """

    user: str
    is_owner: bool
    expires: datetime


INVITATIONS: Collection[Invitation] = Collection(
    "invitation", Invitation, expires=lambda invitation: invitation.expires
)


def invitation_id(secret: str) -> str:
    """
    Return the id under which the invitation of a secret is stored.
    """
    return b64url_encode(sha256(secret.encode()))


async def make_owner(
    store: Store,
    trail: Trail,
    now: Callable[[], datetime],
    *,
    issuer: str,
    username: str,
    cause: Cause,
) -> str:
    """
    Make the owner without a password, and return the one-time link to set one.

    Raises:
        ConfigError: the username cannot be one.
        RefusedError: there is such a user already.
    """
    owner = new_user(username, now=now(), name="Owner")
    secret = LINK_PREFIX + random_id(32)

    def decide(documents: tuple[Document | None, ...], now: datetime) -> Done[None]:
        known = USERS.maybe(documents[1])
        if known is not None and known.value.password_hash is not None:
            raise RefusedError(f"There is a user {username!r} already.")
        # A founding that died after this commit is run again: the same owner, another link.
        user = owner if known is None else known.value
        invitation = Invitation(
            user=user.id, is_owner=True, expires=now + INVITATION_LIFETIME
        )
        put = INVITATIONS.put(invitation_id(secret), invitation, ABSENT)
        made = creation(owner) if known is None else ()
        return Done(None, (*made, put), {"owner": "yes"})

    await commit_verb(
        store,
        trail,
        DEFAULT_TENANT,
        "user.created",
        owner.id,
        cause,
        [USERNAMES.key(username_key(username)), Reference(USERS.kind, 0, "user")],
        decide,
    )
    return f"{issuer}/console/welcome?invitation={secret}"
