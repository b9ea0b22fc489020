"""
The live ring as a state machine: when to load, when to probe, when to say no.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from kagimori.keys.manager import KeyManager, RefreshPolicy
from kagimori.testing.clock import START

SECOND = timedelta(seconds=1)
TROUBLE = RuntimeError("down")


def manager(chance: float = 0.0) -> KeyManager[str]:
    return KeyManager(RefreshPolicy(), chance=lambda: chance)


def loaded(chance: float = 0.0) -> KeyManager[str]:
    made = manager(chance)
    made.loaded("ring", START)
    return made


def test_a_new_manager_wants_a_load_first():
    """
    Before the first load there is nothing to probe, nothing to serve, and all is stale.
    """
    new = manager()

    assert new.ring is None
    assert new.wants_load(START)
    assert not new.wants_probe(START)
    assert new.is_stale(START)
    assert START == new.next_look(START)


def test_after_a_load_it_probes_and_reloads_on_two_beats():
    """
    A probe is due every five seconds, a load only every five minutes.
    """
    ring = loaded()

    for seconds, probe, load in (
        (0, False, False),
        (4.9, False, False),
        (5, True, False),
    ):
        now = START + seconds * SECOND
        assert (probe, load) == (ring.wants_probe(now), ring.wants_load(now))
    assert START + 5 * SECOND == ring.next_look(START)
    ring.probed(START + 5 * SECOND, changed=False)
    assert not ring.wants_probe(START + 9 * SECOND)
    assert ring.wants_load(START + 300 * SECOND)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 300), (0.5, 270), (1.0, 240)])
def test_reloads_are_spread_by_chance(chance: float, seconds: int):
    """
    Up to a fifth earlier, so that many instances do not come at once.
    """
    ring = loaded(chance)

    assert not ring.wants_load(START + (seconds - 1) * SECOND)
    assert ring.wants_load(START + seconds * SECOND)


def test_a_probe_that_saw_a_change_wants_a_load():
    """
    At once, and until it has happened.
    """
    ring = loaded()
    now = START + 5 * SECOND
    ring.probed(now, changed=True)
    assert ring.wants_load(now)
    assert now == ring.next_look(now)

    ring.probed(now + 5 * SECOND, changed=False)
    assert ring.wants_load(now + 5 * SECOND)
    ring.loaded("newer", now + 5 * SECOND)
    assert "newer" == ring.ring
    assert not ring.wants_load(now + 5 * SECOND)


def test_a_failed_load_keeps_the_ring_and_backs_off():
    """
    Unreadable is not absent: the ring serves on, and pauses double up to a minute.
    """
    ring, now = loaded(), START
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        ring.failed(TROUBLE, now)
        assert ("ring", TROUBLE) == (ring.ring, ring.error)
        assert not ring.wants_load(now + (pause - 0.1) * SECOND)
        assert not ring.wants_probe(now + pause * SECOND)
        now += pause * SECOND
        assert now == ring.next_look(now - SECOND / 10)
        assert ring.wants_load(now)
    ring.loaded("newer", now)

    assert (None, 0) == (ring.error, ring.failures)
    ring.failed(TROUBLE, now)
    assert ring.wants_load(now + SECOND)


def test_news_of_a_change_ends_any_pause():
    """
    A notification wants a load at once, whatever failed before.
    """
    ring = loaded()
    ring.failed(TROUBLE, START)
    assert not ring.wants_load(START)
    ring.notified()

    assert ring.wants_load(START)


def test_staleness_counts_from_the_last_confirmation():
    """
    A probe that saw no change confirms the ring as a load does; a failure does not.
    """
    ring = loaded()
    assert not ring.is_stale(START + 29 * SECOND)
    assert ring.is_stale(START + 30 * SECOND)
    ring.probed(START + 20 * SECOND, changed=False)
    assert not ring.is_stale(START + 49 * SECOND)
    ring.failed(TROUBLE, START + 45 * SECOND)

    assert ring.is_stale(START + 50 * SECOND)


def test_unknown_ids_are_granted_one_load_a_minute():
    """
    Ids come from attackers: whatever their number, one in sixty seconds.
    """
    ring = loaded()

    granted = [ring.unknown_id(START + n * SECOND / 10) for n in range(1201)]
    assert 3 == sum(granted)
    assert (True, True, True) == (granted[0], granted[600], granted[1200])


def test_K7_a_clock_that_was_set_back_does_not_put_looks_off():
    """
    K7: an hour back, everything is due; a second back, nothing changes.
    """
    ring = loaded()
    back = START - timedelta(hours=1)
    assert ring.wants_probe(back)
    assert ring.wants_load(back)
    assert ring.is_stale(back)

    assert not ring.wants_probe(START - SECOND)
    assert not ring.wants_load(START - SECOND)


def test_a_clock_set_back_makes_a_ring_stale_rather_than_fresh_for_ever():
    """
    Nobody knows for how long the clock was ahead; a small step is none.
    """
    ring = loaded()

    assert not ring.is_stale(START + 29 * SECOND)
    assert ring.is_stale(START + 30 * SECOND)
    assert not ring.is_stale(START - SECOND)
    assert ring.is_stale(START - 3600 * SECOND)
    ring.probed(START - 3600 * SECOND, changed=False)
    assert not ring.is_stale(START - 3600 * SECOND)
