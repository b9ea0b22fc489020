"""
What a redemption is asked and what it answers: the words of `kagimori.tokens.redeem`.

Nothing here has a readable form of a token, a key or a random number.
"""

from __future__ import annotations

import enum
from datetime import timedelta

import msgspec

from kagimori.tokens.family import NOWHERE, RefreshTokenFamily, SealedTagKey, Seen
from kagimori.tokens.policy import OnReuse, RefreshPolicy
from kagimori.tokens.refresh_token import RefreshToken, TagKey


class Redemption(enum.Enum):
    """
    What presenting a refresh token led to; the values are those of the metric (B10).
    """

    ROTATED = "rotated"
    KEPT = "kept"
    REPLAYED = "replayed"
    THROTTLED = "throttled"
    STALE = "stale"
    REUSE = "reuse"
    EXPIRED_IDLE = "expired_idle"
    EXPIRED_ABSOLUTE = "expired_absolute"
    REVOKED = "revoked"
    FOREIGN = "foreign"
    FORGED = "forged"
    AHEAD = "ahead"
    SCOPE_WIDENED = "scope_widened"
    TARGET_WIDENED = "target_widened"

    @property
    def is_success(self) -> bool:
        """
        Whether the client gets an access token.
        """
        return self in _SUCCESSES


_SUCCESSES = frozenset({Redemption.ROTATED, Redemption.KEPT, Redemption.REPLAYED})


class Randomness:
    """
    What one request may use up: made before the rule runs, and never used by two.

    Args:
        secret: 32 random bytes for a successor.
        nonce: 12 random bytes for its seal.
    """

    __slots__ = ("nonce", "secret")

    def __init__(self, secret: bytes, nonce: bytes) -> None:
        self.secret = secret
        self.nonce = nonce

    def __repr__(self) -> str:
        return "Randomness()"

    def __deepcopy__(self, memo: object) -> Randomness:
        return self


class UserStanding(msgspec.Struct, frozen=True):
    """
    What a family needs to know of its user.
    """

    epoch: int = 0
    disabled: bool = False


class TagKeys(msgspec.Struct, frozen=True):
    """
    The tag key of a family as far as it could be had.

    Attributes:
        current: the key, or ``None`` where the ring cannot unprotect it any more.
        successors: the key that a successor is tagged with: the same, or a new one.
        sealed: that key as it is to be stored.
    """

    current: TagKey | None
    successors: TagKey
    sealed: SealedTagKey


class RedeemRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    One request to redeem, with all that a decision needs.

    Attributes:
        token: what was presented.
        client: the authenticated client that presents it.
        policy: that client's policy, now.
        user: the family's user, now; ``None``: there is no such user any more.
        tag_keys: the family's tag key.
        randomness: for a successor.
        longest_access: the longest life of an access token that this client may get, now.
        client_epoch: the epoch of the family's client, now.
        scope: the scope asked for; ``None``: all that was granted.
        resource: the audience asked for; ``None``: the first one granted.
        permitted_scope: what the client may have at all, now; ``None``: no such limit.
        permitted_resources: the audiences it may ask for at all, now; ``None``: no limit.
        replays: replays of this generation that this instance has answered.
        seen: where the request comes from.
    """

    token: RefreshToken
    client: str
    policy: RefreshPolicy
    user: UserStanding | None
    tag_keys: TagKeys
    randomness: Randomness
    longest_access: timedelta
    client_epoch: int = 0
    scope: tuple[str, ...] | None = None
    resource: str | None = None
    permitted_scope: frozenset[str] | None = None
    permitted_resources: frozenset[str] | None = None
    replays: int = 0
    seen: Seen = NOWHERE


class Redeemed(msgspec.Struct, frozen=True, kw_only=True):
    """
    A verdict.

    Attributes:
        outcome: what it is.
        family: the family after it; ``None`` where there is none.
        is_changed: whether the family has to be written before the answer counts.
        token: the refresh token that the client has from now on.
        scope: what an access token gets.
        resource: its audience; ``None``: the family names none.
        reason: the true reason of a rejection, for the log.
        retry_after: seconds, where trying again later makes sense.
        is_divergent: whether a replay came from elsewhere than the rotation (race R5).
        lost_tag_key: whether the family's tag key could not be had: old tokens of it can no
            longer be told from forged ones.
    """

    outcome: Redemption
    family: RefreshTokenFamily | None = None
    is_changed: bool = False
    token: RefreshToken | None = None
    scope: tuple[str, ...] = ()
    resource: str | None = None
    reason: str = ""
    retry_after: int | None = None
    is_divergent: bool = False
    lost_tag_key: bool = False


class Inspection(msgspec.Struct, frozen=True):
    """
    A refresh token of ours, and whether it would be honoured now.
    """

    family: RefreshTokenFamily
    generation: int
    is_active: bool


def ends_user(verdict: Redeemed, policy: RefreshPolicy) -> bool:
    """
    Whether a verdict signs the whole user out (requirements B7, ``on_reuse``).
    """
    return (
        verdict.outcome is Redemption.REUSE
        and verdict.is_changed
        and policy.on_reuse is OnReuse.REVOKE_USER
    )
