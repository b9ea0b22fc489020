"""
How the refresh tokens of a client live (requirements B7).

Rules of this module:

1. A policy is a value. It decides nothing about families made before; their deadlines are
   written on them.
2. Combinations that cannot be safe are refused where they are written, with the sentence that
   says why; nothing is silently corrected.
3. What is stored is complete: a default that changes later does not bend a stored policy.
"""

from __future__ import annotations

import enum
from datetime import timedelta

import msgspec

from kagimori.errors import ConfigError, InsecureConfigError

USED_UNTIL = timedelta(hours=24)
"""How long `replay_until_used` reaches at most (B7)."""

NEAR_EXPIRY = 0.7
"""The share of the idle lifetime after which `near_expiry` rotates (B7)."""

LONGEST_WINDOW = timedelta(seconds=120)
LONGEST_LIFETIME = timedelta(days=3650)
MOST_REPLAYS = 100_000
MOST_FAMILIES = 900


class Rotation(enum.Enum):
    """
    When a refresh is answered with a new refresh token.
    """

    ALWAYS = "always"
    NEAR_EXPIRY = "near_expiry"
    NEVER = "never"


class OnReuse(enum.Enum):
    """
    What a reused token ends.
    """

    REVOKE_FAMILY = "revoke_family"
    REVOKE_USER = "revoke_user"
    REJECT_ONLY = "reject_only"


class RefreshPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    The knobs of one client. The defaults are those of an unbound public client, the strictest.

    Attributes:
        rotation: when a successor is made.
        replay_window: W, in which a retry gets the same successor; 0 is strict one-time use.
        replay_until_used: whether a retry gets it for 24 h as long as nobody has used it.
        replay_limit: K, replays that one instance answers in one generation.
        on_reuse: what a reused token ends.
        idle_lifetime: how long a family lives unused.
        absolute_lifetime: how long a family lives at most, used or not.
        max_families: live families of one user at this client; the oldest-used makes way.
        cap_access_to_family: whether an access token ends with its family at the latest.
        touch_granularity: how often a kept token moves the idle deadline at most.
    """

    rotation: Rotation = Rotation.ALWAYS
    replay_window: timedelta = timedelta(seconds=30)
    replay_until_used: bool = False
    replay_limit: int = 200
    on_reuse: OnReuse = OnReuse.REVOKE_FAMILY
    idle_lifetime: timedelta = timedelta(days=14)
    absolute_lifetime: timedelta = timedelta(days=90)
    max_families: int = 100
    cap_access_to_family: bool = True
    touch_granularity: timedelta = timedelta(seconds=60)

    @classmethod
    def for_public(cls) -> RefreshPolicy:
        """
        Return the defaults of a client that keeps no secret and binds no key.
        """
        return cls()

    @classmethod
    def for_confidential(cls) -> RefreshPolicy:
        """
        Return the defaults of a client that proves itself at each refresh.
        """
        return cls(replay_until_used=True, absolute_lifetime=timedelta(days=365))

    @classmethod
    def default(cls, *, public: bool) -> RefreshPolicy:
        """
        Return the defaults of a kind of client.
        """
        return _PUBLIC if public else _CONFIDENTIAL

    def validate(self, *, public: bool) -> None:
        """
        Refuse a policy that must not be stored for a client of this kind.

        Args:
            public: whether the client has neither a secret nor a bound key.

        Raises:
            ConfigError: a value is out of its range, or two contradict each other.
            InsecureConfigError: it would work, and a stolen token would go unnoticed.
        """
        self._validate_ranges()
        if not self.replay_window and self.replay_until_used:
            raise ConfigError(
                "replay_window 0 means strict one-time use, which replay_until_used "
                "contradicts.",
                hint="Turn replay_until_used off, or give replay_window 1 to 120 seconds.",
            )
        if not public:
            return
        if self.rotation is not Rotation.ALWAYS:
            raise InsecureConfigError(
                "A public client without a bound key must rotate always: only rotation "
                "shows that a stolen refresh token is used (RFC 9700 section 4.14).",
                hint="Set rotation to always, or make the client confidential.",
            )
        if self.replay_until_used:
            raise InsecureConfigError(
                "A public client without a bound key cannot have replay_until_used: "
                "whoever stole its last token could use it unnoticed for 24 hours.",
                hint="Turn it off; replay_window covers lost answers.",
            )
        if self.on_reuse is OnReuse.REJECT_ONLY:
            raise InsecureConfigError(
                "on_reuse reject_only is for confidential clients: at a public one the "
                "thief may hold the newer token, and rejecting the older one keeps it alive.",
                hint="Set on_reuse to revoke_family.",
            )

    def _validate_ranges(self) -> None:
        zero = timedelta()
        _within("replay_window", self.replay_window, zero, LONGEST_WINDOW)
        _within("replay_limit", self.replay_limit, 1, MOST_REPLAYS)
        _within("max_families", self.max_families, 1, MOST_FAMILIES)
        # Zero would mean "for ever", which no family may be (B7).
        shortest = timedelta(seconds=1)
        _within("absolute_lifetime", self.absolute_lifetime, shortest, LONGEST_LIFETIME)
        _within("idle_lifetime", self.idle_lifetime, shortest, LONGEST_LIFETIME)
        if self.idle_lifetime > self.absolute_lifetime:
            raise ConfigError(
                "idle_lifetime is longer than absolute_lifetime, so it would never end "
                "anything.",
                hint="Shorten idle_lifetime or lengthen absolute_lifetime.",
            )
        _within("touch_granularity", self.touch_granularity, zero, timedelta(hours=1))
        if self.touch_granularity >= self.idle_lifetime:
            raise ConfigError(
                "touch_granularity is not shorter than idle_lifetime, so a token in use "
                "would expire.",
                hint="Shorten touch_granularity.",
            )


_PUBLIC = RefreshPolicy.for_public()
_CONFIDENTIAL = RefreshPolicy.for_confidential()


def _within(
    name: str, value: timedelta | int, least: timedelta | int, most: timedelta | int
) -> None:
    low = value < least  # type: ignore[operator]  # both are of one type, by the callers above
    if low or value > most:  # type: ignore[operator]  # as above
        raise ConfigError(f"{name} must be from {_say(least)} to {_say(most)}.")


def _say(value: timedelta | int) -> str:
    if isinstance(value, int):
        return str(value)
    if value >= timedelta(days=1):
        return f"{value.days} days"
    return f"{int(value.total_seconds())} seconds"
