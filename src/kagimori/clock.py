"""
Where "now" comes from.

Rules of this module:

1. The clock is read once per request or command, at the edge; rules take ``now`` as an argument.
2. Every instant inside Kagimori is an aware UTC `datetime`; seconds exist only on the wire.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """
    Tells the present instant.
    """

    def now(self) -> datetime:
        """
        Return the present instant as an aware UTC `datetime`.
        """
        ...


class SystemClock:
    """
    The machine's own clock.
    """

    def now(self) -> datetime:
        """
        Return the machine's time in UTC.
        """
        return datetime.now(UTC)


class OffsetClock:
    """
    A clock corrected by what the store said of its time (DESIGN decision 11).

    The offset follows the store smoothly and is bounded; a difference greater than `limit`
    makes `in_step` false, and a node that is not in step is not ready.

    Args:
        base: the clock that is corrected.
        limit: how far the two may lie apart.
        weight: the share of a new observation in the smoothed offset, 0 to 1.
    """

    def __init__(
        self,
        base: Clock,
        *,
        limit: timedelta = timedelta(seconds=5),
        weight: float = 0.2,
    ) -> None:
        self._base = base
        self._limit = limit
        self._weight = weight
        self._offset = timedelta()
        self._observed = timedelta()

    def now(self) -> datetime:
        """
        Return the base clock's time plus the smoothed offset.
        """
        return self._base.now() + self._offset

    def observe(self, store_now: datetime) -> None:
        """
        Take in what the store said its time was, just now.
        """
        self._observed = store_now - self._base.now()
        bounded = max(-self._limit, min(self._limit, self._observed))
        self._offset += (bounded - self._offset) * self._weight

    @property
    def in_step(self) -> bool:
        """
        Whether the last observation lay within the limit.
        """
        return abs(self._observed) <= self._limit

    @property
    def observed_offset(self) -> timedelta:
        """
        The last observed difference: the store's time minus ours.
        """
        return self._observed


def seconds(instant: datetime) -> int:
    """
    Return a `datetime` as whole POSIX seconds, rounded down (JWT NumericDate, RFC 7519 section 2).
    """
    return int(instant.timestamp())


def from_seconds(value: int) -> datetime:
    """
    Return POSIX seconds as an aware UTC `datetime`.
    """
    return datetime.fromtimestamp(value, UTC)
