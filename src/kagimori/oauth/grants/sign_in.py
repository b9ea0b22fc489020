"""
What follows a user's sign-in, whichever way it was proven.

Rules of this module:

1. A family is opened only where the client may refresh and its policy has it refresh
   (``after_expiry``, B7).
2. It is opened on condition that the user is as it was when proven; see
   `kagimori.tokens.families`.
"""

from __future__ import annotations

from datetime import datetime

from kagimori.identity.user import User
from kagimori.oauth.admission import Access
from kagimori.oauth.client import AfterExpiry, GrantType
from kagimori.oauth.directory import ClientRecord
from kagimori.oauth.grants.grant import Issue
from kagimori.tokens.families import RefreshFamilies
from kagimori.tokens.family import Seen


async def issue_for_user(
    families: RefreshFamilies,
    tenant: str,
    record: ClientRecord,
    user: User,
    access: Access,
    *,
    now: datetime,
    seen: Seen | None = None,
    device: str = "",
    amr: tuple[str, ...] = (),
) -> Issue:
    """
    Return what a user's sign-in gives a client, with a new family where there is to be one.

    Args:
        now: when the user was proven.
        amr: how (RFC 8176).

    Raises:
        InvalidTokenError: the user was disabled or signed out meanwhile.
        ContentionError: too many races were lost.
        StoreError: as the store raises.
    """
    client = record.client
    if (
        client.after_expiry is AfterExpiry.SIGN_IN
        or GrantType.REFRESH_TOKEN not in record.grants
    ):
        return Issue(user.id, access, user.username, auth_time=now, amr=amr)
    opened = await families.open_family(
        tenant,
        client=client.id,
        user=user.id,
        epoch=user.epoch,
        policy=client.refresh_policy,
        longest_access=access.longest,
        now=now,
        scope=access.granted.scope,
        resources=access.granted.resources,
        auth_time=now,
        amr=amr,
        device=device,
        seen=seen,
    )
    return Issue(user.id, access, user.username, opened.family, opened.token.text)
