"""
A client shows a user's name and password (RFC 6749 section 4.3), as it was done in 2015.

Rules of this module:

1. Off unless the client lives by the profile ``legacy-2015`` and has the grant, and never for
   public clients (TOK-14, attacks T11); `kagimori.oauth.admission` sees to it.
2. Wrong user, wrong password and disabled user look and cost alike.
"""

from __future__ import annotations

from typing import Final

from kagimori.identity.password import PasswordSignIn
from kagimori.oauth.admission import admit
from kagimori.oauth.client import GrantType
from kagimori.oauth.faults import invalid_grant
from kagimori.oauth.grants.grant import GrantCall, Issue
from kagimori.oauth.grants.sign_in import issue_for_user
from kagimori.oauth.grants.usernames import Usernames
from kagimori.tokens.families import RefreshFamilies
from kagimori.tokens.family import Seen


class PasswordGrant:
    """
    The grant type ``password``.

    Args:
        sign_in: proves the user.
        families: opens the family.
        usernames: takes the name along, for the refreshes that follow.
    """

    type: Final = GrantType.PASSWORD

    def __init__(
        self,
        sign_in: PasswordSignIn,
        families: RefreshFamilies,
        usernames: Usernames,
    ) -> None:
        self._sign_in = sign_in
        self._families = families
        self._usernames = usernames

    async def run(self, call: GrantCall) -> Issue:
        """
        Sign the user in; see `kagimori.oauth.grants.grant.Grant`.
        """
        request, record = call.request, call.record
        username, password = call.parameter("username"), call.parameter("password")
        found = await self._sign_in.authenticate(
            request.tenant.id, username, password, request.address, request.now
        )
        if found is None:
            raise invalid_grant("wrong user or password")
        user = found.value
        self._usernames.remember(request.tenant.id, user.id, user.username)
        access = admit(
            call.tenant, record, self.type, call.resources, call.asked, user=user
        )
        return await issue_for_user(
            self._families,
            request.tenant.id,
            record,
            user,
            access,
            now=request.now,
            seen=Seen.of(request.address, request.user_agent),
            amr=("pwd",),
        )
