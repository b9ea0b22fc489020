"""
The limits of TOK-16: their numbers, their windows, their bounds.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from kagimori.identity.credentials import Subject
from kagimori.oauth.throttle import Throttle, ThrottleLimits
from kagimori.testing.clock import FixedClock

APP = Subject("client", "default", "app")
ALICE = Subject("account", "default", "alice")
HERE, THERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def clock():
    return FixedClock()


def fail(throttle, subject, address, clock, times):
    for _ in range(times):
        assert 0 == throttle.wait(subject, address, clock.now())
        throttle.failed(subject, address, clock.now())


@pytest.mark.parametrize("subject", [APP, ALICE])
def test_TOK16_ten_a_minute_for_one_name_at_one_address(clock, subject):
    """
    The default: ten failures pass, the eleventh attempt waits, another address does not.
    """
    throttle = Throttle()

    fail(throttle, subject, HERE, clock, 10)

    assert 60 == throttle.wait(subject, HERE, clock.now())
    assert 0 == throttle.wait(subject, THERE, clock.now())
    assert 0 == throttle.wait(subject._replace(id="other"), HERE, clock.now())


def test_TOK16_a_hundred_a_minute_for_one_address(clock):
    """
    The default: a hundred failures of many names, then everybody at that address waits.
    """
    throttle = Throttle()
    for n in range(10):
        fail(throttle, APP._replace(id=f"app {n}"), HERE, clock, 10)

    assert 60 == throttle.wait(APP._replace(id="unseen"), HERE, clock.now())
    assert 0 == throttle.wait(APP._replace(id="unseen"), THERE, clock.now())


def test_TOK16_three_hundred_an_hour_for_one_account(clock):
    """
    The default: spraying one account from many addresses ends after 300 within an hour.
    """
    throttle = Throttle()
    for n in range(30):
        fail(throttle, ALICE, f"10.0.0.{n}", clock, 10)

    assert 3600 == throttle.wait(ALICE, "203.0.113.9", clock.now())
    assert 0 == throttle.wait(ALICE._replace(id="bob"), "203.0.113.9", clock.now())
    # A client is no account: nobody can lock a client out from elsewhere.
    for n in range(30):
        fail(throttle, APP, f"10.0.1.{n}", clock, 10)
    assert 0 == throttle.wait(APP, "203.0.113.9", clock.now())


def test_TOK16_the_window_slides_exactly(clock):
    """
    Each failure leaves the window a minute after it, not at the turn of a minute.
    """
    throttle = Throttle()
    for _ in range(10):
        fail(throttle, APP, HERE, clock, 1)
        clock.advance(timedelta(seconds=5))

    assert 10 == throttle.wait(APP, HERE, clock.now())
    clock.advance(timedelta(seconds=9))
    assert 1 == throttle.wait(APP, HERE, clock.now())
    clock.advance(timedelta(seconds=1))
    fail(throttle, APP, HERE, clock, 1)
    assert 5 == throttle.wait(APP, HERE, clock.now())


def test_TOK16_the_numbers_are_settings(clock):
    """
    Limits can be raised and lowered.
    """
    throttle = Throttle(
        ThrottleLimits(subject_per_minute=2, address_per_minute=3, account_per_hour=4)
    )

    fail(throttle, APP, HERE, clock, 2)
    assert throttle.wait(APP, HERE, clock.now())
    fail(throttle, ALICE, HERE, clock, 1)
    assert throttle.wait(Subject("client", "default", "third"), HERE, clock.now())
    for address in ("a", "b", "c"):
        fail(throttle, ALICE, address, clock, 1)
    assert throttle.wait(ALICE, "d", clock.now())


def test_open_attempts_count_until_they_end(clock):
    """
    Attempts whose outcome is open fill the window, and leave no trace when they end.
    """
    throttle = Throttle()
    for _ in range(10):
        throttle.begin(APP, HERE)

    assert 1 == throttle.wait(APP, HERE, clock.now())
    for _ in range(10):
        throttle.end(APP, HERE)
    assert 0 == throttle.wait(APP, HERE, clock.now())
    assert throttle._subjects.is_idle
    assert throttle._addresses.is_idle


def test_after_the_failures_are_over_nothing_is_left(clock):
    """
    A quiet minute brings the throttle back to rest, so that good requests cost nothing.
    """
    throttle = Throttle()
    for n in range(5):
        fail(throttle, APP._replace(id=f"app {n}"), HERE, clock, 1)
    clock.advance(timedelta(minutes=1))
    for n in range(5):
        throttle.wait(APP._replace(id=f"app {n}"), HERE, clock.now())

    assert throttle._addresses.is_idle
    assert 0 == throttle.wait(APP, HERE, clock.now())


def test_S2_names_and_addresses_are_bounded(clock):
    """
    A flood of names and addresses takes bounded room; the oldest are forgotten first.
    """
    throttle = Throttle(capacity=50)
    for n in range(500):
        throttle.failed(APP._replace(id=f"{n}" * 5000), f"10.1.{n}.1", clock.now())

    assert 50 == len(throttle._addresses._failures)
    assert 50 == len(throttle._subjects._failures)
    assert max(map(len, throttle._subjects._failures)) < 200


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("not:an:address", "not:an:address", True),
    ],
)
def test_an_ipv6_network_counts_as_one_address(clock, first, second, same):
    """
    Whoever has one IPv6 address has a /64 of them.
    """
    throttle = Throttle()
    fail(throttle, APP, first, clock, 10)

    assert same == bool(throttle.wait(APP, second, clock.now()))


def test_B5_case_1_forged_tokens_count_against_the_address(clock):
    """
    A hundred forged refresh tokens stop guessing of secrets from there.
    """
    throttle = Throttle()
    for _ in range(100):
        throttle.suspicious(HERE, clock.now())

    assert 60 == throttle.wait(APP, HERE, clock.now())
    assert 0 == throttle.wait(APP, THERE, clock.now())


def test_K7_a_clock_that_was_ahead_locks_nobody_out_for_as_long_as_it_was(clock):
    """
    Failures counted by a clock that is then set back by hours are forgotten, not waited for.
    """
    throttle = Throttle()
    fail(throttle, APP, HERE, clock, 10)
    assert 60 == throttle.wait(APP, HERE, clock.now())

    clock.set(clock.now() - timedelta(hours=6))

    assert 0 == throttle.wait(APP, HERE, clock.now())
