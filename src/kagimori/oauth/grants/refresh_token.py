"""
A client shows a refresh token (RFC 6749 section 6, requirements B5).

Rules of this module:

1. One read and at most one commit, both in `kagimori.tokens.families`.
2. All rejections look alike; the reason goes to the log. Only asking for too much is told
   apart, and does not use the token up (B5, case 6).
3. A token that is none of ours counts against the address (B5, case 1).
"""

from __future__ import annotations

from typing import Final

from kagimori.errors import OAuthError
from kagimori.oauth.admission import access_of_refresh, admit_refresh
from kagimori.oauth.client import GrantType
from kagimori.oauth.faults import invalid_grant, too_many
from kagimori.oauth.grants.grant import GrantCall, Issue
from kagimori.oauth.grants.usernames import Usernames
from kagimori.oauth.requests import EndpointRequest
from kagimori.oauth.throttle import Throttle
from kagimori.tokens.families import RefreshFamilies
from kagimori.tokens.family import Seen
from kagimori.tokens.redemption import Redeemed, Redemption


class RefreshTokenGrant:
    """
    The grant type ``refresh_token``.

    Args:
        families: redeems.
        throttle: counts forged tokens.
        usernames: for strict legacy, whose tokens name the user.
    """

    type: Final = GrantType.REFRESH_TOKEN

    def __init__(
        self, families: RefreshFamilies, throttle: Throttle, usernames: Usernames
    ) -> None:
        self._families = families
        self._throttle = throttle
        self._usernames = usernames

    async def run(self, call: GrantCall) -> Issue:
        """
        Redeem the token; see `kagimori.oauth.grants.grant.Grant`.
        """
        request, record, asked = call.request, call.record, call.asked
        client = record.client
        text = call.parameter("refresh_token")
        bounds = admit_refresh(call.tenant, record, call.resources, asked)
        redeemed = await self._families.redeem_token(
            request.tenant.id,
            text,
            client=client.id,
            policy=record.policy,
            longest_access=bounds.longest,
            scope=bounds.scope,
            resource=asked.resource,
            permitted_scope=bounds.permitted_scope,
            permitted_resources=bounds.permitted_resources,
            seen=Seen.of(request.address, request.user_agent),
        )
        family, token = redeemed.family, redeemed.token
        if not redeemed.outcome.is_success or family is None or token is None:
            raise self._refusal(redeemed, request)
        access = access_of_refresh(
            record, call.resources, bounds, redeemed.resource, redeemed.scope
        )
        username = None
        if record.is_legacy:
            username = await self._usernames.find(request.tenant.id, family.user)
        return Issue(family.user, access, username, family, token.text)

    def _refusal(self, redeemed: Redeemed, request: EndpointRequest) -> OAuthError:
        match redeemed.outcome:
            case Redemption.SCOPE_WIDENED:
                return OAuthError("invalid_scope", "The scope was not granted.")
            case Redemption.TARGET_WIDENED:
                return OAuthError("invalid_target", "The resource was not granted.")
            case Redemption.THROTTLED:
                return too_many(redeemed.retry_after or 1, redeemed.reason)
            case Redemption.FORGED:
                self._throttle.suspicious(request.address, request.now)
        return invalid_grant(f"{redeemed.outcome.value}: {redeemed.reason}")
