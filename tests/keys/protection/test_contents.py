"""
Which key protects, and when a successor is due: stories over the times of keys.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from kagimori.errors import ConfigError, RingMalformedError
from kagimori.keys.protection import descriptor, elements, ticks, xml
from kagimori.keys.protection.algorithms import ALGORITHMS
from kagimori.keys.protection.contents import (
    ProtectionPolicy,
    overdue,
    read,
    successor_due,
)
from kagimori.keys.protection.elements import Revocation
from kagimori.keys.store import Element, Snapshot
from tests.keys.protection.world import VECTORS

A, B, C, D = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abcd")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def key(
    key_id: str, activates: str, expires: str, created: str | None = None
) -> Element:
    wrapped = descriptor.null_wrap(descriptor.secret_text(bytes(64)))
    dates = tuple(
        ticks.parse(text if "T" in text else f"{text}T00:00:00Z")
        for text in (created or activates, activates, expires)
    )
    root = elements.key_element(key_id, dates, ALGORITHMS["AES_256_GCM"], wrapped)
    return Element(elements.friendly_name(root), xml.write(root))


def revoked(key_id: str | None, date: str = "2000-01-01") -> Element:
    text = date if "T" in date else f"{date}T00:00:00Z"
    root = elements.revocation_element(Revocation(key_id, ticks.parse(text)))
    return Element(elements.friendly_name(root), xml.write(root))


def contents_of(*given: Element, now: datetime = NOW, skipped=lambda *_: None):
    def unwrap(wrapped, _key_id):
        return descriptor.null_unwrap(wrapped)

    return read(Snapshot(given, "1"), unwrap, {}, now, skipped)


def protecting(*given: Element, now: datetime) -> str | None:
    return next((key.id for key in contents_of(*given).candidates(now)), None)


ROW = [key(A, "2015-03-01", "2016-03-01"), key(B, "2016-03-01", "2017-03-01")]


@pytest.mark.parametrize(
    ("given", "now", "expected"),
    [
        (ROW, "2016-02-29T23:59:59", A),
        (ROW, "2016-03-01T00:00:00", B),
        # Late is an alarm, never a gap.
        (ROW, "2020-01-01T00:00:00", B),
        # A clock that was set back far: the first to come, rather than none.
        (ROW, "2014-01-01T00:00:00", A),
        ([*ROW, revoked(B)], "2016-06-01T00:00:00", A),
        ([*ROW, revoked(A)], "2015-06-01T00:00:00", B),
        ([*ROW, revoked(A), revoked(B)], "2015-06-01T00:00:00", None),
        # Of equal activations .NET takes the smallest id, and so do we.
        ([key(B, "2015-03-01", "2016-03-01"), ROW[0]], "2015-06-01T00:00:00", A),
        ([], "2015-06-01T00:00:00", None),
    ],
)
def test_the_latest_activation_that_has_come_protects(given, now, expected):
    """
    Among keys that are not revoked; equal dates go by id.
    """
    assert expected == protecting(*given, now=at(now))


def test_the_choice_agrees_with_dotnets_where_dotnet_has_one():
    """
    On 600 rings: whenever .NET 10 has a default and its clock skew plays no part, it is ours.
    """
    agreed = 0
    for case in default_key_cases():
        now = datetime.fromisoformat(case["now"])
        keys = [k for k in case["keys"] if k["readable"]]
        near = [
            k
            for k in case["keys"]
            if now
            < datetime.fromisoformat(k["activates"])
            <= now + timedelta(minutes=5)
        ]
        if case["answer"]["default"] is None or near:
            continue
        given = [key(k["id"], k["activates"], k["expires"], k["created"]) for k in keys]
        given += [revoked(k["id"]) for k in keys if k["revoked"]]
        assert case["answer"]["default"] == protecting(*given, now=now)
        agreed += 1

    assert agreed > 50


def default_key_cases():
    text = (VECTORS / "default-key.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_revocation_by_date_is_strict_to_the_tick():
    """
    Keys created before the date are revoked, the one created in that very tick is not.
    """
    given = [
        key(A, "2020-01-01", "2021-01-01", created="2020-01-01T00:00:00.1234566Z"),
        key(B, "2020-01-02", "2021-01-01", created="2020-01-01T00:00:00.1234567Z"),
        revoked(None, "2020-01-01T00:00:00.1234567Z"),
        revoked(None, "2019-01-01"),
    ]

    assert [True, False] == [key.is_revoked for key in contents_of(*given).keys]


def test_published_revocations_hold():
    """
    XmlKeyManagerTests.GetAllKeys_UnderstandsRevocations: revoked are 1, 2 and 4, not 3.
    """
    given = [
        key(A, "2015-01-01", "2030-01-01"),
        key(B, "2016-01-01", "2030-01-01"),
        key(C, "2017-01-01", "2030-01-01"),
        key(D, "2018-01-01", "2030-01-01"),
        revoked(None, "2014-01-01"),
        revoked(None, "2017-01-01"),
        revoked(D, "2018-01-01"),
    ]
    states = {key.id: key.is_revoked for key in contents_of(*given).keys}

    assert {A: True, B: True, C: False, D: True} == states


def test_a_revocation_by_id_holds_whatever_its_date():
    """
    A date that has not come informs only; an id that is not in the ring is no error.
    """
    contents = contents_of(*ROW, revoked(A, "2999-01-01"), revoked(C))

    assert contents.get(A).is_revoked
    assert "revoked" == contents.state_of(contents.get(A), NOW).value


def test_states_follow_from_activations():
    """
    Before its activation a key is next, then current, then previous for ever.
    """
    contents = contents_of(*ROW)
    a, b = contents.keys

    def states(now: str) -> list[str]:
        return [contents.state_of(key, at(now)).value for key in (a, b)]

    assert ["next", "next"] == states("2015-02-28")
    assert ["current", "next"] == states("2015-03-01")
    assert ["previous", "current"] == states("2016-03-01")
    assert ["previous", "current"] == states("2099-03-01")
    assert (B, b.timeline.activates) == (a.timeline.successor, a.timeline.retires)
    assert at("2016-03-01") == a.timeline.due == contents.next_turn(at("2015-06-01"))
    assert contents.next_turn(at("2016-03-01")) is None


def test_a_bad_key_is_skipped_and_said():
    """
    A key without a date does not hide the others, is told of, and is not "no key".
    """
    bad = Element("key-bad", ROW[0].xml.replace("2015-03-01T00:00:00Z", "soon"))
    heard = []
    contents = contents_of(
        bad, ROW[1], skipped=lambda name, why: heard.append((name, why))
    )

    assert [B] == [key.id for key in contents.keys]
    assert ("key-bad",) == contents.skipped
    assert ["key-bad"] == [name for name, _ in heard]
    assert not contents_of(bad).is_blank
    assert contents_of(revoked(A)).is_blank


@pytest.mark.parametrize(
    "element",
    [
        Element("key-twice", ROW[0].xml),
        Element("broken", "<key"),
        Element("revocation-x", "<revocation/>"),
        Element("state", '<state xmlns="urn:kagimori:ring:1" generation="x"/>'),
    ],
    ids=lambda element: element.name,
)
def test_what_is_fatal_is_fatal(element):
    """
    Two keys of one id, broken XML, a revocation or state of ours that cannot be read.
    """
    with pytest.raises(RingMalformedError):
        contents_of(*ROW, element)


def test_unknown_elements_are_skipped():
    """
    What other programs keep in a ring does not disturb.
    """
    strange = Element("strange", '<x:y xmlns:x="urn:z"><key id="*"/></x:y>')

    assert 2 == len(contents_of(*ROW, strange).keys)


POLICY = ProtectionPolicy()
UNTIL_91 = key(A, "2030-01-01", "2030-04-01")


@pytest.mark.parametrize(
    ("given", "now", "expected"),
    [
        ([], "2030-01-01", ("2029-12-31T23:59", "2030-04-01")),
        ([UNTIL_91, revoked(A)], "2030-01-01", ("2029-12-31T23:59", "2030-04-01")),
        ([UNTIL_91], "2030-03-27T23:59", None),
        ([UNTIL_91], "2030-03-28", ("2030-04-01", "2030-06-30")),
        ([UNTIL_91], "2030-05-01", ("2030-05-01", "2030-07-30")),
        ([UNTIL_91, key(B, "2030-04-01", "2030-06-30")], "2030-03-28", None),
        (
            [UNTIL_91, key(B, "2030-04-01", "2030-06-30"), revoked(B)],
            "2030-03-28",
            ("2030-04-01", "2030-06-30"),
        ),
    ],
    ids=["none", "all revoked", "early", "four days ahead", "late", "there", "revoked"],
)
def test_a_successor_is_due_four_days_ahead(given, now, expected):
    """
    It activates when its predecessor expires; the first key of a ring slightly in the past.
    """
    due = successor_due(contents_of(*given), at(now), POLICY)

    assert (None if expected is None else tuple(map(at, expected))) == due


def test_without_a_schedule_nothing_is_due():
    """
    Nothing but the very first key is made where automatic successors are off.
    """
    policy = ProtectionPolicy(is_automatic=False)

    assert successor_due(contents_of(UNTIL_91), at("2035-01-01"), policy) is None
    assert successor_due(contents_of(), at("2035-01-01"), policy) is not None


@pytest.mark.parametrize(
    "times",
    [
        {"lifetime": 6 * DAY},
        {"announce": 2 * DAY},
        {"announce": 46 * DAY},
        {"lifetime": 7 * DAY},
    ],
)
def test_impossible_policies_are_refused(times):
    """
    Times that .NET nodes could not follow are refused with the reason; the twins are allowed.
    """
    with pytest.raises(ConfigError):
        ProtectionPolicy(**times)
    ProtectionPolicy(lifetime=7 * DAY, announce=3 * DAY)


def test_what_is_wrong_with_times_is_said():
    """
    A key past its expiration without a successor, and a clock before the newest key.
    """
    late = contents_of(UNTIL_91)
    (only,) = late.keys

    assert overdue(late, only, at("2030-03-31"), POLICY) is None
    assert "expiration" in overdue(late, only, at("2030-04-02"), POLICY).text
    assert "clock" in overdue(late, only, at("2029-12-31"), POLICY).text
    assert overdue(late, only, at("2029-12-31T23:56"), POLICY) is None


def test_unchanged_keys_keep_their_secrets():
    """
    A second load carries unwrapped keys over; an element that changed is looked at anew.
    """
    first = contents_of(*ROW)
    known = {key.id: key.material for key in first.keys}
    again = read(Snapshot(tuple(ROW), "2"), None, known, NOW)
    newer = key(B, "2016-03-01", "2018-03-01")
    changed = read(Snapshot((ROW[0], newer), "3"), None, known, NOW)

    assert [key.material for key in first.keys] == [key.material for key in again.keys]
    assert first.keys[0].material is changed.keys[0].material
    assert first.keys[1].material is not changed.keys[1].material
