"""
A client asks for itself (RFC 6749 section 4.4).

Rules of this module:

1. For confidential clients only, and never with a refresh token (TOK-13).
2. The ``sub`` is the client's id (RFC 9068 section 2.2), which no user's id can be: those begin
   with `kagimori.identity.user.USER_ID_PREFIX`, which no client's may.
3. Nothing is read from or written to the store.
"""

from __future__ import annotations

from typing import Final

from kagimori.oauth.admission import admit
from kagimori.oauth.client import GrantType
from kagimori.oauth.grants.grant import GrantCall, Issue


class ClientCredentialsGrant:
    """
    The grant type ``client_credentials``.
    """

    type: Final = GrantType.CLIENT_CREDENTIALS

    async def run(self, call: GrantCall) -> Issue:
        """
        Return the client's access; see `kagimori.oauth.grants.grant.Grant`.
        """
        access = admit(call.tenant, call.record, self.type, call.resources, call.asked)
        return Issue(call.record.client.id, access)
