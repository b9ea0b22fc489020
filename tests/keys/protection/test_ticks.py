"""
Instants as .NET counts them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.errors import RingMalformedError
from kagimori.keys.protection import ticks
from kagimori.keys.protection.ticks import Ticks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0001-01-01T00:00:00Z", 0),
        ("2000-01-01T00:00:00Z", 630_822_816_000_000_000),
        ("9999-12-31T23:59:59.9999999Z", ticks.MOST),
        ("2000-01-01T00:00:00.0000001Z", 630_822_816_000_000_001),
        ("2000-01-01T00:00:00.1Z", 630_822_816_001_000_000),
        ("1999-12-31T17:00:00-07:00", 630_822_816_000_000_000),
        ("2000-01-01T05:45:00+05:45", 630_822_816_000_000_000),
        (" 2000-01-01T00:00:00 ", 630_822_816_000_000_000),
        ("2000-01-01T00:00:00.12345678Z", 630_822_816_001_234_567),
    ],
)
def test_dates_are_read_to_the_tick(text: str, expected: int):
    """
    Seven digits, offsets on both sides, and no offset for UTC.
    """
    assert expected == ticks.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2000",
        "2000-13-01T00:00:00Z",
        "2000-02-30T00:00:00Z",
        "2000-01-01T24:00:00Z",
        "2000-01-01 00:00:00Z",
        "2000-01-01T00:00:00.Z",
        "０000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "x" * 1000,
    ],
)
def test_what_is_no_date_is_refused(text: str):
    """
    Malformed dates, those that do not exist, and those outside of the calendar.
    """
    with pytest.raises(RingMalformedError):
        ticks.parse(text)


@given(st.integers(0, ticks.MOST))
def test_what_is_written_is_read(number: int):
    """
    Every tick survives being written, without trailing zeros and without a bare dot.
    """
    text = ticks.write(Ticks(number))

    assert number == ticks.parse(text)
    assert not text.removesuffix("Z").endswith(".")
    assert "." not in text or not text.endswith("0Z")


def test_datetimes_lose_the_last_digit_only():
    """
    Conversion outward rounds down to the microsecond; inward it is exact.
    """
    now = datetime(2026, 11, 21, 1, 2, 3, 456789, tzinfo=UTC)

    assert now == ticks.to_datetime(ticks.from_datetime(now))
    assert now == ticks.to_datetime(Ticks(ticks.from_datetime(now) + 9))
    assert 90 * ticks.DAY == ticks.from_timedelta(timedelta(days=90))


def test_a_revocations_name_is_dotnets():
    """
    The published example of a file name comes out.
    """
    date = ticks.parse("2015-03-01T19:13:19.7573854-08:00")

    assert "20150302T0313197573854Z" == ticks.write_compact(date)
