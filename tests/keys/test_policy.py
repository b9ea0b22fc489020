"""
Rotation policies: what is refused, with the sentence why.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from kagimori.errors import ConfigError
from kagimori.keys.policy import RotationPolicy
from kagimori.tokens import denied, verifier
from tests.keys.stories import COOKIE, DAY, HOUR, MINUTE, POLICY, T0, TICK


def changed(**fields):
    """
    Return the signing policy with other times.
    """
    return msgspec.structs.replace(POLICY, **fields)


@pytest.mark.parametrize(
    "policy", [POLICY, COOKIE, RotationPolicy.demo(), changed(scheduled=False)]
)
def test_the_defaults_are_possible(policy):
    """
    What we ship fits together.
    """
    assert policy is policy.validate()


def test_the_defaults_are_those_of_the_design():
    """
    DESIGN section 9.
    """
    assert (90 * DAY, 24 * HOUR, 5 * MINUTE) == (
        POLICY.period,
        POLICY.propagation,
        POLICY.max_age,
    )
    assert (30 * DAY, 5 * MINUTE) == (COOKIE.period, COOKIE.propagation)
    demo = RotationPolicy.demo()
    assert (10 * TICK, 5 * TICK) == (demo.propagation, demo.max_age)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"propagation": HOUR}, "shorter than the 66 min that verifiers need"),
        ({"propagation": timedelta()}, "before anybody can have seen it"),
        ({"period": 24 * HOUR}, "not longer than the propagation"),
        ({"max_age": -TICK}, "max-age"),
        ({"max_age": 2 * DAY}, "max-age"),
        ({"tolerance": 61 * TICK}, "tolerance of 61 s"),
        ({"tolerance": -TICK}, "tolerance"),
        ({"verifier_refresh": -TICK}, "cannot be negative"),
        ({"keep_retired": -TICK}, "cannot be negative"),
        ({"longest_life": timedelta()}, "longest life"),
    ],
)
def test_an_impossible_policy_is_refused_with_the_sentence_why(fields, said):
    """
    K6: times that would break tokens are refused before they are used.
    """
    with pytest.raises(ConfigError) as refused:
        changed(**fields).validate()

    assert said in refused.value.text
    assert refused.value.hint


def test_the_floor_of_the_propagation_is_met_exactly():
    """
    K6: max-age + the verifiers' refresh + tolerance is enough, a second less is not.
    """
    floor = 5 * MINUTE + HOUR + MINUTE

    assert changed(propagation=floor).validate()
    with pytest.raises(ConfigError):
        changed(propagation=floor - TICK).validate()


def test_only_the_demo_policy_goes_below_the_floor_and_says_so():
    """
    K6: the exemption has a name that nobody sets by accident.
    """
    demo = RotationPolicy.demo()

    assert demo.unsafe_for_demos
    assert not POLICY.unsafe_for_demos
    with pytest.raises(ConfigError):
        msgspec.structs.replace(demo, unsafe_for_demos=False).validate()


def test_off_the_schedule_no_key_is_due():
    """
    With the schedule off a key signs until somebody rotates.
    """
    assert T0 + 90 * DAY == POLICY.due(T0)
    assert changed(scheduled=False).due(T0) is None


def test_a_policy_survives_json():
    """
    A ring's document carries its policy.
    """
    stored = msgspec.json.encode(COOKIE)

    assert COOKIE == msgspec.json.decode(stored, type=RotationPolicy)


def test_JAT5_a_key_is_published_as_long_as_any_verifier_may_accept_its_tokens():
    """
    JAT-5: the ring's tolerance, the verifier's bound and the deny set's are one figure.
    """
    assert POLICY.tolerance == verifier.GREATEST_LEEWAY == denied.GREATEST_LEEWAY
    # Its figures are short, and it is unsafe elsewhere.
    assert POLICY.tolerance > RotationPolicy.demo().tolerance
