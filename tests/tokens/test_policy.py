from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.tokens.policy import OnReuse, RefreshPolicy, Rotation
from tests.tokens.world import CONFIDENTIAL, PUBLIC, changed

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


def test_B7_defaults_of_a_public_client():
    """
    The defaults of an unbound public client are those of the table.
    """
    PUBLIC.validate(public=True)

    assert Rotation.ALWAYS is PUBLIC.rotation
    assert 30 * SECOND == PUBLIC.replay_window
    assert not PUBLIC.replay_until_used
    assert 200 == PUBLIC.replay_limit
    assert OnReuse.REVOKE_FAMILY is PUBLIC.on_reuse
    assert (14 * DAY, 90 * DAY) == (PUBLIC.idle_lifetime, PUBLIC.absolute_lifetime)
    assert 100 == PUBLIC.max_families
    assert PUBLIC.cap_access_to_family
    assert 60 * SECOND == PUBLIC.touch_granularity


def test_B7_defaults_of_a_confidential_client():
    """
    A confidential client may retry until the successor is used, and lives for a year.
    """
    CONFIDENTIAL.validate(public=False)

    assert CONFIDENTIAL.replay_until_used
    assert 365 * DAY == CONFIDENTIAL.absolute_lifetime
    assert CONFIDENTIAL == RefreshPolicy.default(public=False)
    assert PUBLIC == RefreshPolicy.default(public=True)


ONLY_CONFIDENTIAL = [
    {"rotation": Rotation.NEVER},
    {"rotation": Rotation.NEAR_EXPIRY},
    {"replay_until_used": True},
    {"on_reuse": OnReuse.REJECT_ONLY},
]


@pytest.mark.parametrize("knobs", ONLY_CONFIDENTIAL, ids=str)
def test_B7_what_a_public_client_may_not_have(knobs):
    """
    BCP-1: an unbound public client rotates always and cannot hide a theft.
    """
    with pytest.raises(InsecureConfigError) as caught:
        changed(PUBLIC, **knobs).validate(public=True)

    assert caught.value.text
    assert caught.value.hint
    changed(CONFIDENTIAL, **knobs).validate(public=False)


RANGES = [
    ("replay_window", -SECOND, 0 * SECOND),
    ("replay_window", 121 * SECOND, 120 * SECOND),
    ("replay_limit", 0, 1),
    ("max_families", 0, 1),
    ("max_families", 901, 900),
    ("absolute_lifetime", 0 * SECOND, 20 * DAY),
    ("absolute_lifetime", 3651 * DAY, 3650 * DAY),
    ("absolute_lifetime", 13 * DAY, 14 * DAY),
    ("idle_lifetime", 0 * SECOND, 61 * SECOND),
    ("idle_lifetime", 60 * SECOND, 61 * SECOND),
    ("touch_granularity", -SECOND, 0 * SECOND),
    ("touch_granularity", timedelta(hours=2), timedelta(hours=1)),
]


@pytest.mark.parametrize(
    ("knob", "bad", "good"), RANGES, ids=[f"{r[0]}={r[1]}" for r in RANGES]
)
def test_B7_ranges(knob, bad, good):
    """
    A value out of range, or against another one, is refused with a sentence; its neighbour not.
    """
    with pytest.raises(ConfigError) as caught:
        changed(PUBLIC, **{knob: bad}).validate(public=True)

    assert caught.value.text.endswith(".")
    changed(PUBLIC, **{knob: good}).validate(public=True)


def test_B7_strict_one_time_use_contradicts_replay_until_used():
    """
    W = 0 and replay_until_used say opposite things.
    """
    strict = changed(CONFIDENTIAL, replay_window=timedelta())

    with pytest.raises(ConfigError, match="contradicts"):
        strict.validate(public=False)

    changed(strict, replay_until_used=False).validate(public=False)


def test_a_stored_policy_is_complete():
    """
    A default that changes in a later release does not bend a policy stored by this one.
    """
    stored = msgspec.json.decode(msgspec.json.encode(PUBLIC))

    assert set(RefreshPolicy.__struct_fields__) == set(stored)
    assert PUBLIC == msgspec.json.decode(
        msgspec.json.encode(PUBLIC), type=RefreshPolicy
    )
