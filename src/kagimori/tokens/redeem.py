"""
What presenting a refresh token leads to: the state machine of requirements B5.

Rules of this module:

1. `redeem` is a pure function: the same family, request and now give the same answer. The
   commit loop may therefore ask it again after a lost race (case 10).
2. The verdicts come in this order: 1 to 4 first, whatever else is wrong; then, for a retired
   token, 11 to 14, so that odd scopes cannot hide a reuse; then 6, 7, and what is left.
3. Only a rotation, a recorded use and a revocation change the family. A replay changes
   nothing, so it moves no deadline and cannot lengthen its own window.
4. Rejections differ in `outcome` and `reason`, for the log. Towards the caller they are one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from kagimori.errors import InvalidTokenError, ProtectionError
from kagimori.tokens.family import EndReason, RefreshTokenFamily, Seen
from kagimori.tokens.policy import (
    NEAR_EXPIRY,
    USED_UNTIL,
    OnReuse,
    RefreshPolicy,
    Rotation,
)
from kagimori.tokens.redemption import Redeemed, RedeemRequest, Redemption
from kagimori.tokens.refresh_token import RefreshToken
from kagimori.tokens.successor import open_successor, seal_successor

NOTHING = timedelta()


def redeem(
    family: RefreshTokenFamily, request: RedeemRequest, now: datetime
) -> Redeemed:
    """
    Judge a presented token (requirements B5, cases 1 to 4 and 6 to 14).

    Args:
        family: the family that the token names.
        now: the store's time, so that all instances share one deadline.
    """
    token = request.token
    refusal = _refuse_outright(family, request, now)
    if refusal is not None:
        return refusal
    if token.generation < family.generation:
        return _judge_retired(family, request, now)
    refusal = _refuse_grant(family, request, now)
    if refusal is not None:
        return refusal
    # Case 14. A sound tag has passed already; so the store, not the token, is what is old.
    if token.generation > family.generation or not family.knows(token):
        return _reject(Redemption.AHEAD, family, request, "issued after this state")
    if _is_kept(family, request.policy, now):
        return _keep(family, request, now)
    return _rotate(family, request, now)


def _reject(
    outcome: Redemption, family: RefreshTokenFamily, request: RedeemRequest, why: str
) -> Redeemed:
    return Redeemed(
        outcome=outcome,
        family=family,
        reason=why,
        lost_tag_key=request.tag_keys.current is None,
    )


def _refuse_outright(
    family: RefreshTokenFamily, request: RedeemRequest, now: datetime
) -> Redeemed | None:
    """
    Cases 1 to 4.
    """
    token, tag_key = request.token, request.tag_keys.current
    # The hash first: it is at hand, and what it knows needs no tag.
    is_ours = family.knows(token) or (
        tag_key is not None and token.is_tagged_by(tag_key)
    )
    if not is_ours:
        return _reject(Redemption.FORGED, family, request, "tag")
    end = family.end(now)
    if family.revoked_at is not None:
        why = "" if end is None else end.reason.value
        return _reject(Redemption.REVOKED, family, request, why)
    if request.client != family.client:
        return _reject(Redemption.FOREIGN, family, request, "another client's token")
    if end is None:
        return None
    if end.reason is EndReason.EXPIRED_IDLE:
        return _reject(Redemption.EXPIRED_IDLE, family, request, "not used in time")
    return _reject(Redemption.EXPIRED_ABSOLUTE, family, request, "absolute deadline")


def _refuse_grant(
    family: RefreshTokenFamily, request: RedeemRequest, now: datetime
) -> Redeemed | None:
    """
    Cases 6 and 7.
    """
    if request.scope is not None:
        granted = _granted_scope(family, request)
        if not set(request.scope).issubset(granted):
            return _reject(Redemption.SCOPE_WIDENED, family, request, "scope")
    if family.resources:
        usable = _granted_resources(family, request)
        if not usable or (request.resource and request.resource not in usable):
            return _reject(Redemption.TARGET_WIDENED, family, request, "resource")
    elif request.resource:
        return _reject(Redemption.TARGET_WIDENED, family, request, "resource")
    ended = _ended_by_user_or_client(family, request)
    if ended is None:
        return None
    return Redeemed(
        outcome=Redemption.REVOKED,
        family=family.revoke(ended, now),
        is_changed=True,
        reason=ended.value,
    )


def _ended_by_user_or_client(
    family: RefreshTokenFamily, request: RedeemRequest
) -> EndReason | None:
    user = request.user
    if user is None:
        return EndReason.USER_GONE
    if user.disabled:
        return EndReason.USER_DISABLED
    # A family made while its user was being signed out carries the epoch of before.
    if user.epoch != family.epoch:
        return EndReason.USER_SIGNED_OUT
    if request.client_epoch != family.client_epoch:
        return EndReason.CLIENT_REVOKED
    return None


def _granted_scope(
    family: RefreshTokenFamily, request: RedeemRequest
) -> tuple[str, ...]:
    permitted = request.permitted_scope
    if permitted is None or permitted.issuperset(family.scope):
        return family.scope
    return tuple(value for value in family.scope if value in permitted)


def _granted_resources(
    family: RefreshTokenFamily, request: RedeemRequest
) -> tuple[str, ...]:
    permitted = request.permitted_resources
    if permitted is None or permitted.issuperset(family.resources):
        return family.resources
    return tuple(value for value in family.resources if value in permitted)


def _judge_retired(
    family: RefreshTokenFamily, request: RedeemRequest, now: datetime
) -> Redeemed:
    """
    Cases 11 to 14 of a token whose generation is over.
    """
    token, policy = request.token, request.policy
    is_predecessor = token.generation == family.generation - 1
    if is_predecessor and not family.knows(token):
        return _reject(Redemption.AHEAD, family, request, "another predecessor")
    retired_at = family.retired_at(token.generation)
    # A clock that stepped back makes no negative age: that would open a window of zero length.
    age = None if retired_at is None else max(NOTHING, now - retired_at)
    if is_predecessor and age is not None and _is_replay(family, policy, age):
        return _replay(family, request, now)
    if age is not None and age < policy.replay_window:
        return _reject(Redemption.STALE, family, request, "a generation was skipped")
    return _reuse(family, request, now)


def _is_replay(
    family: RefreshTokenFamily, policy: RefreshPolicy, age: timedelta
) -> bool:
    if family.successor_used_at is not None or family.sealed_successor is None:
        return False
    return age < policy.replay_window or (policy.replay_until_used and age < USED_UNTIL)


def _replay(
    family: RefreshTokenFamily, request: RedeemRequest, now: datetime
) -> Redeemed:
    refusal = _refuse_grant(family, request, now)
    if refusal is not None:
        return refusal
    if request.replays >= request.policy.replay_limit:
        return Redeemed(
            outcome=Redemption.THROTTLED,
            family=family,
            reason="replay limit",
            retry_after=max(1, int(request.policy.replay_window.total_seconds())),
        )
    try:
        successor = open_successor(request.token, family.sealed_successor or b"")
    except (ProtectionError, InvalidTokenError):
        # The hash says that this token made the seal, so the stored bytes are damaged.
        return _reject(Redemption.STALE, family, request, "the seal does not open")
    return _grant(
        Redemption.REPLAYED,
        family,
        request,
        successor,
        is_divergent=_is_divergent(family.last_seen, request.seen),
    )


def _is_divergent(before: Seen, after: Seen) -> bool:
    return bool(before.address and after.address) and (
        before.address != after.address and before.agent != after.agent
    )


def _reuse(
    family: RefreshTokenFamily, request: RedeemRequest, now: datetime
) -> Redeemed:
    if request.policy.on_reuse is OnReuse.REJECT_ONLY:
        return _reject(Redemption.REUSE, family, request, "reuse, rejected only")
    return Redeemed(
        outcome=Redemption.REUSE,
        family=family.revoke(EndReason.REUSE, now),
        is_changed=True,
        reason="reuse",
    )


def _is_kept(family: RefreshTokenFamily, policy: RefreshPolicy, now: datetime) -> bool:
    if policy.rotation is Rotation.NEAR_EXPIRY:
        return now - family.touched < policy.idle_lifetime * NEAR_EXPIRY
    return policy.rotation is Rotation.NEVER


def _keep(
    family: RefreshTokenFamily, request: RedeemRequest, now: datetime
) -> Redeemed:
    """
    Case 8.
    """
    is_due = now - family.touched >= request.policy.touch_granularity
    is_first_use = family.sealed_successor is not None
    after = family
    if is_due or is_first_use:
        after = family.touch(request.tag_keys.sealed, request.policy, request.seen, now)
    return _grant(
        Redemption.KEPT,
        after,
        request,
        request.token,
        is_changed=after is not family,
    )


def _rotate(
    family: RefreshTokenFamily, request: RedeemRequest, now: datetime
) -> Redeemed:
    """
    Case 9.
    """
    keys, random = request.tag_keys, request.randomness
    successor = request.token.successor(random.secret, keys.successors)
    after = family.rotate(
        successor,
        seal_successor(request.token, successor, random.nonce),
        now,
        tag_key=keys.sealed,
        policy=request.policy,
        longest_access=request.longest_access,
        seen=request.seen,
    )
    return _grant(Redemption.ROTATED, after, request, successor, is_changed=True)


def _grant(
    outcome: Redemption,
    family: RefreshTokenFamily,
    request: RedeemRequest,
    token: RefreshToken,
    *,
    is_changed: bool = False,
    is_divergent: bool = False,
) -> Redeemed:
    scope = _granted_scope(family, request)
    if request.scope is not None:
        asked = set(request.scope)
        scope = tuple(value for value in scope if value in asked)
    resource = request.resource
    if resource is None and family.resources:
        resource = _granted_resources(family, request)[0]
    return Redeemed(
        outcome=outcome,
        family=family,
        is_changed=is_changed,
        token=token,
        scope=scope,
        resource=resource,
        is_divergent=is_divergent,
        lost_tag_key=request.tag_keys.current is None,
    )
