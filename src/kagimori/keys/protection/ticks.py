"""
Instants as .NET counts them.

Rules of this module:

1. A `Ticks` is a number of 100 ns steps since 0001-01-01T00:00:00Z. Python's `datetime` would
   lose the seventh digit of .NET's dates, and with it the strict comparison of a revocation.
2. Ticks stay inside `kagimori.keys.protection`; outward there are aware UTC `datetime` values.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NewType

from kagimori.errors import RingMalformedError

Ticks = NewType("Ticks", int)

SECOND = 10_000_000
DAY = 86_400 * SECOND
MOST = Ticks(3_155_378_975_999_999_999)
"""DateTimeOffset.MaxValue: the last tick of the year 9999, in payloads "no expiry"."""

_EPOCH = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# xs:dateTime; a ring holds `Z` or another offset, and seven digits after the dot count.
_XS_DATE_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,7})\d*)?"
    r"(?:Z|([+-])(\d\d):(\d\d))?",
    re.ASCII,
)


def from_datetime(instant: datetime) -> Ticks:
    """
    Return an aware `datetime` as ticks.
    """
    return Ticks((instant - _EPOCH) // _MICROSECOND * 10)


def from_timedelta(duration: timedelta) -> int:
    """
    Return a `timedelta` as a number of ticks.
    """
    return duration // _MICROSECOND * 10


def to_datetime(ticks: Ticks) -> datetime:
    """
    Return ticks as an aware UTC `datetime`, rounded down to the microsecond.
    """
    return _EPOCH + timedelta(microseconds=ticks // 10)


def parse(text: str) -> Ticks:
    """
    Read an xs:dateTime; one without an offset counts as UTC.

    Raises:
        RingMalformedError: this is no such date, or it lies outside the years 1 to 9999.
    """
    found = _XS_DATE_TIME.fullmatch(text.strip())
    if found is None:
        raise RingMalformedError("A date in the ring is malformed.")
    *numbers, fraction, sign, hours, minutes = found.groups()
    try:
        whole = datetime(*(int(number) for number in numbers), tzinfo=UTC)  # type: ignore[arg-type,misc] # six ints
    except ValueError:
        raise RingMalformedError("A date in the ring does not exist.") from None
    ticks = from_datetime(whole) + int((fraction or "").ljust(7, "0"))
    if sign:
        offset = (int(hours) * 60 + int(minutes)) * 60 * SECOND
        ticks -= offset if sign == "+" else -offset
    if not 0 <= ticks <= MOST:
        raise RingMalformedError("A date in the ring lies outside of all calendars.")
    return Ticks(ticks)


def write(ticks: Ticks) -> str:
    """
    Return ticks as .NET writes them: UTC, trailing zeros of the fraction dropped.
    """
    seconds, fraction = divmod(ticks, SECOND)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%m-%dT%H:%M:%S")
    year = (_EPOCH + timedelta(seconds=seconds)).year
    digits = f".{fraction:07d}".rstrip("0") if fraction else ""
    return f"{year:04d}-{text}{digits}Z"


def write_compact(ticks: Ticks) -> str:
    """
    Return ticks as in the file name of a revocation by date: ``20150302T0313197573854Z``.
    """
    return write(ticks).replace("-", "").replace(":", "").replace(".", "")
