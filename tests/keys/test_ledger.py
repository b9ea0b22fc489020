"""
The ledger: high-waters, counts, and how two processes' parts merge.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kagimori.clock import from_seconds
from kagimori.keys.ledger import (
    MAX_MINUTES,
    LedgerBook,
    LedgerDocument,
    last_expiries,
    live_tokens,
    minute_end,
)
from kagimori.keys.ring import LiveTokens
from tests.keys.stories import DAY, HOUR, MINUTE, T0, TICK, key

TOLERANCE = timedelta(seconds=30)
EMPTY = LedgerDocument(since=T0)


def test_a_reservation_goes_to_the_end_of_the_minute():
    """
    Steps of a minute: at most one write a minute and key.
    """
    ledger = EMPTY.reserved("a", T0 + TICK, TOLERANCE)

    assert T0 + MINUTE + TOLERANCE == ledger.entries["a"].until
    assert T0 + MINUTE == from_seconds(minute_end(T0 + MINUTE))


@given(st.permutations([10, 70, 20, 600]))
def test_reservations_merge_by_the_greatest(ends):
    """
    In whatever order instances write, nothing is lowered.
    """
    ledger = EMPTY
    for end in ends:
        ledger = ledger.reserved("a", T0 + end * TICK, TOLERANCE)

    assert T0 + 600 * TICK + TOLERANCE == ledger.entries["a"].until


def test_a_shorter_tolerance_set_later_takes_nothing_back():
    """
    Row 6: a changed setting moves no end earlier.
    """
    ledger = EMPTY.reserved("a", T0, TOLERANCE).reserved("a", T0, timedelta())

    assert T0 + TOLERANCE == ledger.entries["a"].until


def test_counts_of_two_instances_add_up():
    """
    Each instance writes what it counted itself.
    """
    minute = minute_end(T0 + HOUR)
    ledger = EMPTY.reserved("a", T0 + HOUR, TOLERANCE)
    ledger = ledger.counted({"a": {minute: 2}}, T0)
    ledger = ledger.counted({"a": {minute: 3}}, T0)

    assert LiveTokens(5, T0 + HOUR + TOLERANCE) == live_tokens(ledger, key(id_="a"), T0)


def test_tokens_that_are_over_are_no_longer_counted():
    """
    Over means everywhere: past the verifiers' tolerance.
    """
    ledger = EMPTY.reserved("a", T0 + HOUR, TOLERANCE)
    first, last = minute_end(T0 + MINUTE), minute_end(T0 + HOUR)
    ledger = ledger.counted({"a": {first: 7, last: 1}}, T0)
    one = key(id_="a")

    assert 8 == live_tokens(ledger, one, T0 + MINUTE + TOLERANCE - TICK).count
    assert 1 == live_tokens(ledger, one, T0 + MINUTE + TOLERANCE).count
    assert LiveTokens(0) == live_tokens(ledger, one, T0 + HOUR + TOLERANCE)


def test_a_key_that_signed_nothing_has_no_living_tokens():
    """
    An absent entry of a whole ledger is an empty one.
    """
    assert LiveTokens(0) == live_tokens(EMPTY, key(), T0)
    assert {} == last_expiries(EMPTY, [key()])


def test_a_ledger_younger_than_a_key_knows_nothing_of_it():
    """
    K7: after a restore or an import, unknown is not zero.
    """
    old = key(id_="a", at=T0 - DAY)
    ledger = EMPTY.reserved("a", T0 + HOUR, TOLERANCE)

    assert LiveTokens() == live_tokens(ledger, old, T0)
    assert {"a": None} == last_expiries(ledger, [old])
    assert {"a": None} == last_expiries(None, [old])


def test_a_ledger_stays_bounded():
    """
    However long tokens live, a key keeps a bounded number of counts, and loses no token.
    """
    minutes = {minute_end(T0 + n * MINUTE): 1 for n in range(1, 5000)}
    ledger = EMPTY.reserved("a", T0 + 5000 * MINUTE, TOLERANCE)
    ledger = ledger.counted({"a": minutes}, T0)

    counts = ledger.entries["a"].counts
    assert len(counts) <= MAX_MINUTES
    assert 4999 == sum(counts.values())


def test_counts_of_a_forgotten_key_are_dropped():
    """
    A deleted key leaves the ledger, and a late flush does not bring it back.
    """
    ledger = EMPTY.reserved("a", T0 + HOUR, TOLERANCE).without(["a"])

    assert {} == ledger.counted({"a": {minute_end(T0): 1}}, T0).entries


def test_a_ledger_survives_json():
    """
    What is stored is what was counted.
    """
    ledger = EMPTY.reserved("a", T0 + HOUR, TOLERANCE)
    ledger = ledger.counted({"a": {minute_end(T0 + HOUR): 2}}, T0)
    stored = msgspec.json.encode(ledger)

    assert ledger == msgspec.json.decode(stored, type=LedgerDocument)


# --- the process's own part ----------------------------------------------------------------


def test_no_token_is_taken_beyond_the_reservation():
    """
    The high-water is committed before the first token beyond it leaves.
    """
    book = LedgerBook()

    assert not book.take("a", T0 + TICK)
    book.reserved("a", T0 + TICK)
    assert book.take("a", T0 + MINUTE)
    assert not book.take("a", T0 + MINUTE + TICK)
    assert {"a": {minute_end(T0 + MINUTE): 1}} == book.drain()


def test_what_could_not_be_written_is_kept():
    """
    A failed flush loses no count.
    """
    book = LedgerBook()
    book.reserved("a", T0 + HOUR)
    book.take("a", T0 + HOUR)
    lost = book.drain()
    book.take("a", T0 + HOUR)
    book.refill(lost)

    assert {"a": {minute_end(T0 + HOUR): 2}} == book.drain()
    assert {} == book.drain()


def test_a_busy_key_is_reserved_for_ahead():
    """
    So that requests seldom wait; an idle key asks for nothing.
    """
    book = LedgerBook()
    book.reserved("a", T0 + MINUTE)
    book.take("a", T0 + MINUTE - 11 * TICK)
    assert () == book.running_short()

    book.take("a", T0 + MINUTE - 5 * TICK)
    assert (("a", T0 + MINUTE + 5 * TICK),) == book.running_short()
    assert () == book.running_short()
