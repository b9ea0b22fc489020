from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from kagimori.tokens.family import (
    HISTORY_LENGTH,
    EndReason,
    RefreshTokenFamily,
    Seen,
    choose_evicted,
)
from kagimori.tokens.records import FAMILIES
from tests.tokens.world import ACCESS, PUBLIC, SECOND, TICK, Story, changed

DAY = timedelta(days=1)


def test_B8_idle_deadline_slides_and_stops_at_the_absolute_one():
    """
    Each use moves the idle deadline, never past the absolute one, which stays.
    """
    story = Story()
    absolute = story.family.absolute_deadline
    for _ in range(13):
        story.after(6 * DAY).present()
        expected = min(story.now + PUBLIC.idle_lifetime, absolute)

        assert expected == story.family.idle_deadline
        assert absolute == story.family.absolute_deadline
    assert absolute == story.family.idle_deadline


def test_B8_no_use_ends_by_idle_and_use_by_the_absolute_deadline():
    """
    ACC-5, "slides": the reason of the end is the deadline that came first.
    """
    idle = Story()
    used = Story()
    for _ in range(9):
        used.after(9 * DAY).present()

    end_of_idle = idle.family.end(idle.now + PUBLIC.idle_lifetime)
    end_of_used = used.family.end(used.family.absolute_deadline)

    assert EndReason.EXPIRED_IDLE is end_of_idle.reason
    assert idle.family.idle_deadline == end_of_idle.at
    assert EndReason.EXPIRED_ABSOLUTE is end_of_used.reason
    assert used.family.end(used.family.absolute_deadline - TICK) is None


def test_why_was_this_user_signed_out_names_what_came_first():
    """
    A family that had expired before somebody revoked it ended by expiry.
    """
    story = Story()
    early = story.family.revoke(EndReason.OPERATOR, story.now)
    story.after(PUBLIC.idle_lifetime)
    late = story.family.revoke(EndReason.OPERATOR, story.now)

    assert EndReason.OPERATOR is early.end(story.now).reason
    assert EndReason.EXPIRED_IDLE is late.end(story.now).reason


def test_revoking_twice_keeps_the_first_reason():
    """
    Rule 2: reason and time of a revocation stay.
    """
    story = Story()
    once = story.family.revoke(EndReason.REUSE, story.now)
    twice = once.revoke(EndReason.OPERATOR, story.now + SECOND)

    assert once is twice


def test_R13_a_clock_that_steps_back_revives_an_expired_family_only():
    """
    Expiry follows from now and is no mark; a revocation stays whatever the clock does.
    """
    story = Story().after(PUBLIC.idle_lifetime)
    revoked = story.family.revoke(EndReason.OPERATOR, story.now - SECOND)
    back = story.now - 5 * timedelta(minutes=1)

    assert story.family.is_live(back)
    assert not revoked.is_live(back)


def test_B2_size_is_bounded_however_often_it_rotates():
    """
    State grows with sign-ins, not with traffic: 32 generations are remembered.
    """
    story = Story()
    sizes = []
    for _ in range(40):
        story.rotate(10)
        sizes.append(len(FAMILIES.put("x", story.family, 0).body))

    assert 22 * HISTORY_LENGTH == len(story.family.history)
    assert max(sizes[4:]) - min(sizes[4:]) <= 16
    assert max(sizes) < 2300


def test_B2_what_a_request_says_of_itself_is_cut():
    """
    A giant agent or address does not make a giant family.
    """
    seen = Seen.of("a" * 10_000, "b" * 10_000)

    assert len(seen.address) + len(seen.agent) < 300


def test_B2_history_tells_when_each_generation_was_replaced():
    """
    The last 32 retired generations have their times; older ones are forgotten.
    """
    story = Story()
    times = {}
    for generation in range(1, 50):
        times[generation] = story.now
        story.rotate(every=timedelta(seconds=90))

    for generation in range(1, 50):
        known = story.family.retired_at(generation)
        assert (
            times[generation] if generation > 49 - HISTORY_LENGTH else None
        ) == known
    assert story.family.retired_at(50) is None
    assert story.family.retired_at(51) is None


def test_B2_a_family_knows_the_tokens_it_remembers_and_no_others():
    """
    Hashes prove the current token and the last 32; the same generation with another secret not.
    """
    story = Story().rotate(40)

    for generation in range(1, 42):
        remembered = generation >= 41 - HISTORY_LENGTH
        assert remembered == story.family.knows(story.tokens[generation])
        assert not story.family.knows(story.token(generation))
    assert not story.family.knows(story.token(42))


def test_a_family_survives_being_stored():
    """
    Encoding and decoding gives the same value, and a later release's fields do no harm.
    """
    story = Story(session="s", grant="g", acr="1", amr=("pwd",), device="d").rotate(3)
    body = FAMILIES.put("x", story.family, 0).body
    extended = body[:-1] + b',"of_a_later_release":{"a":1}}'

    for stored in (body, extended):
        assert story.family == msgspec.json.decode(stored, type=RefreshTokenFamily)


LIFETIMES = [
    ("as wanted", timedelta(minutes=5), True, 30 * DAY, timedelta(minutes=5)),
    ("no longer than recorded", DAY, True, 30 * DAY, ACCESS),
    ("capped by the family's end", ACCESS, True, 89 * DAY + 23.9 * DAY / 24, None),
    ("not capped", ACCESS, False, 89 * DAY + 23.9 * DAY / 24, ACCESS),
]


@pytest.mark.parametrize(
    ("name", "wanted", "cap", "age", "expected"),
    LIFETIMES,
    ids=[row[0] for row in LIFETIMES],
)
def test_B7_access_tokens_end_with_the_family(name, wanted, cap, age, expected):
    """
    cap_access_to_family: no access token outlives the absolute end; none the deny set either.
    """
    story = Story().after(age)
    policy = changed(PUBLIC, cap_access_to_family=cap)

    lifetime = story.family.access_lifetime(wanted, policy, story.now)

    if expected is None:
        expected = story.family.absolute_deadline - story.now
    assert expected == lifetime


def test_an_access_token_lives_for_a_second_at_least():
    """
    In the last moment of a family an access token is short, but not dead at birth.
    """
    story = Story()
    last = story.family.absolute_deadline - TICK

    assert SECOND == story.family.access_lifetime(ACCESS, PUBLIC, last)


def test_B7_a_longer_access_lifetime_takes_effect_with_the_next_rotation():
    """
    The bound that the deny set relies on is raised by a write, never by a replay.
    """
    story = Story()
    first = story.current
    story.present(longest_access=timedelta(minutes=1))
    kept = story.family.longest_access
    story.present(first, longest_access=DAY)
    replayed = story.family.longest_access
    story.present(longest_access=DAY)

    assert (ACCESS, ACCESS, DAY) == (kept, replayed, story.family.longest_access)


def test_B7_the_oldest_used_make_way():
    """
    max_families: those used least lately are evicted; those over are left alone.
    """
    start = Story().now
    stories = {name: Story(now=start) for name in "abcd"}
    for name in "ca":
        stories[name].after(DAY if name == "c" else 2 * DAY).present()
    over = stories["d"].family.revoke(EndReason.OPERATOR, start)
    families = [stories[name].family for name in "abc"] + [over]

    def evicted(room):
        chosen = choose_evicted(families, room, start + 3 * DAY)
        return [
            name
            for family in chosen
            for name in "abc"
            if stories[name].family is family
        ]

    assert [] == evicted(3)
    assert ["b"] == evicted(2)
    assert ["b", "c"] == evicted(1)
    assert ["b", "c", "a"] == evicted(0)
