"""
A clock that stands still until a test moves it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2030, 1, 1, tzinfo=UTC)
"""Where a `FixedClock` stands unless told otherwise."""


class FixedClock:
    """
    A `kagimori.clock.Clock` for tests: it moves when it is told to, either way.

    Args:
        start: the aware instant that it shows first.

    Raises:
        ValueError: an instant is not aware.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = _utc(start)

    def now(self) -> datetime:
        """
        Return the instant at which the clock stands.
        """
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """
        Move the clock by `by`, backwards where that is negative, and return its new time.
        """
        self._now += by
        return self._now

    def set(self, instant: datetime) -> None:
        """
        Move the clock to an instant, earlier ones included.
        """
        self._now = _utc(instant)


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("A clock needs an aware datetime.")
    return instant.astimezone(UTC)
