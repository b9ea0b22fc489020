"""
The clock that tests move by hand.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from kagimori.testing.clock import START, FixedClock


def test_a_fixed_clock_moves_only_when_it_is_told_to():
    """
    It stands still, advances, goes back, and is set.
    """
    clock = FixedClock()
    assert START == clock.now() == clock.now()

    assert START + timedelta(seconds=1) == clock.advance(timedelta(seconds=1))
    assert START == clock.advance(timedelta(seconds=-1)) == clock.now()
    clock.set(datetime(2020, 1, 1, tzinfo=UTC))
    assert datetime(2020, 1, 1, tzinfo=UTC) == clock.now()


def test_a_fixed_clock_shows_utc():
    """
    An instant of another zone is shown in UTC; one of none is refused.
    """
    tokyo = timezone(timedelta(hours=9))
    clock = FixedClock(datetime(2030, 1, 1, 9, tzinfo=tokyo))

    assert (START, UTC) == (clock.now(), clock.now().tzinfo)
    naive = START.replace(tzinfo=None)
    with pytest.raises(ValueError, match="aware"):
        clock.set(naive)
    with pytest.raises(ValueError, match="aware"):
        FixedClock(naive)
