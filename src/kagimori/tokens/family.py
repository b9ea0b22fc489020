"""
One sign-in on one device for one client, and everything that descends from it.

Rules of this module:

1. A family is an immutable value; what changes it returns a new one. Nothing here does I/O,
   reads a clock or draws randomness.
2. A family that was revoked never becomes usable again, and its reason and time stay.
3. Its absolute deadline never moves. Its idle deadline moves by use only, never beyond it.
   Both are instants written at that use, so "expired" needs no mark: it follows from now.
4. It holds hashes of tokens, never a token; its size is bounded whatever happens to it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection as AnyOf
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from kagimori.crypto.digests import equal
from kagimori.tokens.policy import RefreshPolicy
from kagimori.tokens.refresh_token import RefreshToken, TagKey

HISTORY_LENGTH = 32
"""Generations that are remembered beyond the current one (B2)."""

_HASH_PREFIX = 16
_MILLISECONDS = 6
_ENTRY = _HASH_PREFIX + _MILLISECONDS

LONGEST_ADDRESS = 64
LONGEST_AGENT = 200
LONGEST_DEVICE = 100


class EndReason(enum.StrEnum):
    """
    Why a family is over.
    """

    EXPIRED_IDLE = "expired_idle"
    EXPIRED_ABSOLUTE = "expired_absolute"
    REUSE = "reuse"
    TOKEN_REVOKED = "token_revoked"
    USER_DISABLED = "user_disabled"
    USER_GONE = "user_gone"
    USER_SIGNED_OUT = "user_signed_out"
    CLIENT_REVOKED = "client_revoked"
    OPERATOR = "operator"
    EVICTED = "evicted"


class FamilyEnd(msgspec.Struct, frozen=True):
    """
    Why and when a family ended.
    """

    reason: EndReason
    at: datetime


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Where a family was used from; empty where the operator keeps no addresses.
    """

    address: str = ""
    agent: str = ""

    @classmethod
    def of(cls, address: str, agent: str) -> Seen:
        """
        Take in what a request says of itself, cut to a bounded length.
        """
        return cls(address[:LONGEST_ADDRESS], agent[:LONGEST_AGENT])


NOWHERE = Seen()
"""Where the operator keeps no addresses."""


class SealedTagKey(msgspec.Struct, frozen=True):
    """
    A tag key as it is stored: protected by the ring.

    Attributes:
        text: the protected payload.
        protection_key: the id of the ring key that protects it.
    """

    text: str
    protection_key: str

    def __repr__(self) -> str:
        return f"SealedTagKey(protection_key={self.protection_key!r})"


class RefreshTokenFamily(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The record of one family (requirements B2).

    Attributes:
        id: 16 random bytes in base64url, as its tokens name it.
        tenant: whose it is.
        client: the ``client_id`` that alone may use it.
        user: the ``sub`` of its access tokens.
        created: when it was opened.
        absolute_deadline: when it ends at the latest.
        idle_deadline: when it ends unless used before.
        touched: the use that set the idle deadline.
        current_hash: SHA-256 of the current token.
        tag_key: by which it knows old tokens again.
        longest_access: no access token of it lives longer than this.
        generation: the position of the current token.
        epoch: the user's epoch at the sign-in.
        client_epoch: the client's epoch at the sign-in.
        scope: all that was granted; narrowing one access token does not change it.
        resources: the audiences that were granted, the default first.
        session: the browser session; ``None``: offline.
        grant: the consent or grant that it came from.
        auth_time: when the user proved to be one; also `acr`, `amr`: how.
        previous_hash: SHA-256 of the token before the current one.
        rotated_at: when the current token was made, if it is not the first.
        successor_used_at: when a kept current token was first used.
        sealed_successor: the current token, sealed under the one before it.
        history: packed hashes and times of retired generations, the oldest first.
        revoked_at: when it was revoked.
        revoke_reason: why.
        device: what the user may know it by.
        first_seen: where it was opened from.
        last_seen: where its last recorded use came from.
    """

    id: str
    tenant: str
    client: str
    user: str
    created: datetime
    absolute_deadline: datetime
    idle_deadline: datetime
    touched: datetime
    current_hash: bytes
    tag_key: SealedTagKey
    longest_access: timedelta
    generation: int = 1
    epoch: int = 0
    client_epoch: int = 0
    scope: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    session: str | None = None
    grant: str | None = None
    auth_time: datetime | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()
    previous_hash: bytes | None = None
    rotated_at: datetime | None = None
    successor_used_at: datetime | None = None
    sealed_successor: bytes | None = None
    history: bytes = b""
    revoked_at: datetime | None = None
    revoke_reason: EndReason | None = None
    device: str = ""
    first_seen: Seen = NOWHERE
    last_seen: Seen = NOWHERE

    def __repr__(self) -> str:
        return (
            f"RefreshTokenFamily(id={self.id!r}, generation={self.generation}, "
            f"client={self.client!r}, user={self.user!r})"
        )

    def end(self, now: datetime) -> FamilyEnd | None:
        """
        Return why and when the family ended first, or ``None`` while it lives.

        Bounds: it is over from a deadline on.
        """
        revoked_at = self.revoked_at
        if revoked_at is not None and revoked_at < self.idle_deadline:
            return FamilyEnd(self.revoke_reason or EndReason.OPERATOR, revoked_at)
        if revoked_at is None and now < self.idle_deadline:
            return None
        # The idle deadline is never later than the absolute one, so it says which came first.
        if self.idle_deadline < self.absolute_deadline:
            return FamilyEnd(EndReason.EXPIRED_IDLE, self.idle_deadline)
        return FamilyEnd(EndReason.EXPIRED_ABSOLUTE, self.absolute_deadline)

    def is_live(self, now: datetime) -> bool:
        """
        Whether the family may be used, as far as it knows itself.
        """
        return self.end(now) is None

    def knows(self, token: RefreshToken) -> bool:
        """
        Whether a hash that is still kept proves that the token was issued.
        """
        generation, digest = token.generation, token.digest
        if generation == self.generation:
            return equal(digest, self.current_hash)
        if generation == self.generation - 1 and self.previous_hash is not None:
            return equal(digest, self.previous_hash)
        entry = self._entry(generation)
        return entry is not None and equal(digest[:_HASH_PREFIX], entry[:_HASH_PREFIX])

    def retired_at(self, generation: int) -> datetime | None:
        """
        Return when a generation was replaced, or ``None`` where that is no longer known.
        """
        if generation == self.generation - 1:
            return self.rotated_at
        entry = self._entry(generation)
        if entry is None:
            return None
        milliseconds = int.from_bytes(entry[_HASH_PREFIX:], "big")
        return datetime.fromtimestamp(milliseconds / 1000, UTC)

    def _entry(self, generation: int) -> bytes | None:
        behind = self.generation - generation
        if not 1 <= behind <= len(self.history) // _ENTRY:
            return None
        start = len(self.history) - behind * _ENTRY
        return self.history[start : start + _ENTRY]

    def access_lifetime(
        self, wanted: timedelta, policy: RefreshPolicy, now: datetime
    ) -> timedelta:
        """
        Return how long an access token of this family may live, one second at least.

        The family's own bound is what its entry in the deny set is kept for, so no token
        may outlive it; a longer setting takes effect with the next rotation.
        """
        lifetime = min(wanted, self.longest_access)
        if policy.cap_access_to_family:
            lifetime = min(lifetime, self.absolute_deadline - now)
        return max(lifetime, timedelta(seconds=1))

    def touch(
        self,
        tag_key: SealedTagKey,
        policy: RefreshPolicy,
        seen: Seen,
        now: datetime,
    ) -> RefreshTokenFamily:
        """
        Return the family after a use of its current token, which stays.

        The sealed successor, if there was one, has reached its client: it is erased.
        """
        used = self.successor_used_at
        if used is None and self.sealed_successor is not None:
            used = now
        return msgspec.structs.replace(
            self,
            touched=now,
            idle_deadline=min(now + policy.idle_lifetime, self.absolute_deadline),
            sealed_successor=None,
            successor_used_at=used,
            tag_key=tag_key,
            last_seen=seen,
        )

    def rotate(
        self,
        successor: RefreshToken,
        sealed: bytes,
        now: datetime,
        *,
        tag_key: SealedTagKey,
        policy: RefreshPolicy,
        longest_access: timedelta,
        seen: Seen,
    ) -> RefreshTokenFamily:
        """
        Return the family with a successor of its current token.
        """
        milliseconds = max(0, int(now.timestamp() * 1000))
        entry = self.current_hash[:_HASH_PREFIX] + milliseconds.to_bytes(
            _MILLISECONDS, "big"
        )
        kept = self.history[-(HISTORY_LENGTH - 1) * _ENTRY :]
        return msgspec.structs.replace(
            self,
            generation=successor.generation,
            previous_hash=self.current_hash,
            current_hash=successor.digest,
            sealed_successor=sealed,
            successor_used_at=None,
            rotated_at=now,
            touched=now,
            idle_deadline=min(now + policy.idle_lifetime, self.absolute_deadline),
            history=kept + entry,
            tag_key=tag_key,
            longest_access=max(self.longest_access, longest_access),
            last_seen=seen,
        )

    def revoke(self, reason: EndReason, now: datetime) -> RefreshTokenFamily:
        """
        Return the family revoked; itself where it is revoked already.
        """
        if self.revoked_at is not None:
            return self
        return msgspec.structs.replace(
            self, revoked_at=now, revoke_reason=reason, sealed_successor=None
        )


class Opened(msgspec.Struct, frozen=True):
    """
    A family just opened, and its first token.
    """

    family: RefreshTokenFamily
    token: RefreshToken


def open_family(
    *,
    id_: str,
    tenant: str,
    client: str,
    user: str,
    policy: RefreshPolicy,
    longest_access: timedelta,
    secret: bytes,
    tag_key: TagKey,
    sealed_tag_key: SealedTagKey,
    now: datetime,
    epoch: int = 0,
    client_epoch: int = 0,
    scope: AnyOf[str] = (),
    resources: AnyOf[str] = (),
    session: str | None = None,
    grant: str | None = None,
    auth_time: datetime | None = None,
    acr: str | None = None,
    amr: AnyOf[str] = (),
    device: str = "",
    seen: Seen | None = None,
) -> Opened:
    """
    Open a family: the value to store and the token to hand out.

    Args:
        id_: 16 random bytes in base64url.
        secret: 32 random bytes.
        epoch: the user's epoch as it was when the user signed in. A sign-out everywhere that
            comes between makes the family dead at birth.
        longest_access: the longest life that any access token of this family may have.
    """
    token = RefreshToken.make(id_, 1, secret, tag_key)
    absolute = now + policy.absolute_lifetime
    seen = seen or NOWHERE
    family = RefreshTokenFamily(
        id=id_,
        tenant=tenant,
        client=client,
        user=user,
        created=now,
        absolute_deadline=absolute,
        idle_deadline=min(now + policy.idle_lifetime, absolute),
        touched=now,
        current_hash=token.digest,
        tag_key=sealed_tag_key,
        longest_access=longest_access,
        epoch=epoch,
        client_epoch=client_epoch,
        scope=tuple(scope),
        resources=tuple(resources),
        session=session,
        grant=grant,
        auth_time=auth_time,
        acr=acr,
        amr=tuple(amr),
        device=device[:LONGEST_DEVICE],
        first_seen=seen,
        last_seen=seen,
    )
    return Opened(family, token)


def choose_evicted(
    families: Iterable[RefreshTokenFamily], room_for: int, now: datetime
) -> tuple[RefreshTokenFamily, ...]:
    """
    Choose the families that make way, so that `room_for` live ones are left at most.

    Those used least lately go first; those already over are not counted and not chosen.
    """
    live = sorted(
        (family for family in families if family.is_live(now)),
        key=lambda family: (family.touched, family.id),
    )
    return tuple(live[: max(0, len(live) - room_for)])
