"""
How often keys turn, and how long before and after they are known.

Rules of this module:

1. A policy is consulted by verbs only. What it led to is written on the key as dates, so a
   policy changed later never bends the life of a key that is there already.
2. An impossible combination is refused with the sentence that says why.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from kagimori.errors import ConfigError

CLOCK_SKEW = timedelta(seconds=5)
"""How far the clocks of two nodes may lie apart."""

SWITCH_AHEAD = timedelta(seconds=1)
"""How far ahead an immediate switch is dated, so that every instance makes it together."""

GREATEST_TOLERANCE = timedelta(seconds=60)
"""The most that any verifier may accept a token past its ``exp`` (JAT-5)."""


class RotationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    The times by which the keys of one ring turn.

    Attributes:
        scheduled: whether successors are published without anybody asking.
        period: how long a key is CURRENT before its successor takes over.
        propagation: how long a key is published before it signs.
        max_age: the longest ``max-age`` of the JWKS; zero where nothing is published.
        verifier_refresh: how seldom a verifier may look, whatever ``max-age`` says.
        tolerance: how long past ``exp`` a verifier may still accept a token, 0 to 60 s.
        longest_life: the longest life of what a key makes; counts where no ledger does.
        keep_retired: how long a RETIRED or REVOKED key stays in the ring.
        unsafe_for_demos: lifts the floor under `propagation`. Tokens break at verifiers that
            cache the JWKS, so this is for demonstrations and tests only.
    """

    scheduled: bool = True
    period: timedelta = timedelta(days=90)
    propagation: timedelta = timedelta(hours=24)
    max_age: timedelta = timedelta(minutes=5)
    verifier_refresh: timedelta = timedelta(hours=1)
    tolerance: timedelta = GREATEST_TOLERANCE
    longest_life: timedelta = timedelta(hours=24)
    keep_retired: timedelta = timedelta(days=90)
    unsafe_for_demos: bool = False

    @classmethod
    def signing(cls) -> RotationPolicy:
        """
        Return the defaults for signing keys.
        """
        return cls()

    @classmethod
    def cookie(cls, session_life: timedelta = timedelta(days=30)) -> RotationPolicy:
        """
        Return the defaults for cookie keys.

        Args:
            session_life: the absolute life of a session; keys are kept as long.
        """
        return cls(
            period=timedelta(days=30),
            propagation=timedelta(minutes=5),
            max_age=timedelta(),
            verifier_refresh=timedelta(),
            tolerance=CLOCK_SKEW,
            longest_life=session_life,
            keep_retired=timedelta(),
        )

    @classmethod
    def demo(cls) -> RotationPolicy:
        """
        Return the policy of the demo world: a NEXT signs after 10 s. Unsafe elsewhere.
        """
        return cls(
            propagation=timedelta(seconds=10),
            max_age=timedelta(seconds=5),
            tolerance=timedelta(seconds=30),
            unsafe_for_demos=True,
        )

    @property
    def least_propagation(self) -> timedelta:
        """
        The time after which every verifier has seen a published key.
        """
        return self.max_age + self.verifier_refresh + self.tolerance

    def due(self, activates: datetime) -> datetime | None:
        """
        Return when a key that activates then should be succeeded, ``None`` off the schedule.
        """
        return activates + self.period if self.scheduled else None

    def validate(self) -> RotationPolicy:
        """
        Return the policy itself if its times fit together.

        Raises:
            ConfigError: they do not; the text says which and why.
        """
        self._validate_single()
        if self.propagation < self.least_propagation and not self.unsafe_for_demos:
            raise ConfigError(
                f"A propagation of {_span(self.propagation)} is shorter than the "
                f"{_span(self.least_propagation)} that verifiers need: JWKS max-age "
                f"{_span(self.max_age)} + their refresh {_span(self.verifier_refresh)} + "
                f"tolerance {_span(self.tolerance)}. Tokens of a new key would be refused.",
                hint="Lengthen the propagation or shorten the max-age.",
            )
        if self.period <= self.propagation:
            raise ConfigError(
                f"A period of {_span(self.period)} is not longer than the propagation of "
                f"{_span(self.propagation)}: a successor would have to be published "
                "before the key that it succeeds signs.",
                hint="Lengthen the period.",
            )
        return self

    def _validate_single(self) -> None:
        zero = timedelta()
        if not zero <= self.tolerance <= GREATEST_TOLERANCE:
            raise ConfigError(
                f"A clock tolerance of {_span(self.tolerance)} is not between 0 and 60 s: "
                "tokens would live on long after their end.",
                hint="Choose at most 60 s, which is the default for signing keys.",
            )
        if not zero <= self.max_age <= timedelta(days=1):
            raise ConfigError(
                f"A JWKS max-age of {_span(self.max_age)} is not between 0 and 1 d: "
                "verifiers would miss changes of keys.",
                hint="5 min is the default.",
            )
        if self.verifier_refresh < zero or self.keep_retired < zero:
            raise ConfigError(
                "The verifiers' refresh and the time that retired keys are kept cannot be "
                "negative.",
                hint="Give zero or more.",
            )
        if self.longest_life <= zero:
            raise ConfigError(
                "The longest life of what a key makes is not above zero: every key would be "
                "gone before its first token is used.",
                hint="Give the longest life of a token; of a session for cookie keys.",
            )
        if self.propagation <= zero:
            raise ConfigError(
                "Without propagation a key signs before anybody can have seen it.",
                hint="24 h is the default for signing keys, 5 min for cookie keys.",
            )


def _span(span: timedelta) -> str:
    """
    Write a span of time for people, in the largest unit that divides it.
    """
    seconds = span.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
