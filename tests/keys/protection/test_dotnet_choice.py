"""
Foretelling which key .NET protects with: its recorded answers, and live ones.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kagimori.keys.protection import descriptor, elements, ticks, xml
from kagimori.keys.protection.algorithms import ALGORITHMS
from kagimori.keys.protection.dotnet_choice import (
    DotnetChoice,
    DotnetKey,
    DotnetKeyToCome,
    default_key,
    described,
    forecast,
    key_to_come,
)
from kagimori.keys.protection.ticks import Ticks
from kagimori.wrappers.passphrase import PassphraseWrapper
from kagimori.wrappers.plaintext import PlaintextWrapper
from tests.dotnet import Peer, Questions
from tests.keys.protection.world import VECTORS, World

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
DAY, MINUTE, TICK = ticks.DAY, 60 * ticks.SECOND, 1
LINES = (VECTORS / "default-key.jsonl").read_text("utf-8").splitlines()


def described_key(described: dict) -> DotnetKey:
    dates = (ticks.parse(described[n]) for n in ("created", "activates", "expires"))
    return DotnetKey(described["id"], *dates, described["revoked"])


def foretold(question: dict) -> DotnetChoice:
    keys = [described_key(key) for key in question["keys"]]
    readable = {key["id"]: key["readable"] for key in question["keys"]}
    now = ticks.to_datetime(ticks.parse(question["now"]))
    return default_key(keys, now, readable.__getitem__)


def answered(answer: dict) -> DotnetChoice:
    return DotnetChoice(answer["default"], answer["fallback"], answer["generate"])


def test_every_recorded_choice_of_dotnets_is_foretold():
    """
    600 rings: default, fallback, and whether it would make a key.
    """
    cases = [json.loads(line) for line in LINES]
    choices = [answered(case["answer"]) for case in cases]

    assert choices == [foretold(case) for case in cases]
    assert 600 == len(cases)
    assert {True, False} == {choice.generates for choice in choices}
    assert any(choice.fallback for choice in choices)


# --- rules, one by one ---------------------------------------------------------------------


def key(name: str, created: int, activates: int, expires: int, **changes) -> DotnetKey:
    """
    Return a key whose dates lie so many ticks from now.
    """
    at = ticks.from_datetime(NOW)
    dates = (Ticks(at + date) for date in (created, activates, expires))
    return DotnetKey(name * 8 + "-0000-4000-8000-000000000000", *dates, **changes)


def sound(name: str, activates: int = -10 * DAY, expires: int = 80 * DAY) -> DotnetKey:
    return key(name, activates, activates, expires, is_revoked=False)


def choose(*keys: DotnetKey, unreadable: str = "") -> tuple[str, str, bool]:
    choice = default_key(keys, NOW, lambda key_id: key_id[0] not in unreadable)
    return (
        (choice.default or "-")[0],
        (choice.fallback or "-")[0],
        choice.generates,
    )


def test_the_latest_activation_wins_even_unseen():
    """
    A key made this second, active at once: .NET takes it, though no other node can have it.
    """
    old, new = sound("a"), sound("b", activates=0)

    assert ("b", "-", False) == choose(old, new)
    assert ("a", "-", False) == choose(old)


def test_a_key_is_taken_five_minutes_ahead_to_the_tick():
    """
    And not one tick earlier.
    """
    old = sound("a")

    assert ("b", "-", False) == choose(old, sound("b", activates=5 * MINUTE))
    assert ("a", "-", False) == choose(old, sound("b", activates=5 * MINUTE + TICK))


def test_of_equal_activations_the_smaller_id_wins():
    """
    Whatever the order in which the store hands them out.
    """
    assert ("a", "-", False) == choose(sound("b"), sound("a"))
    assert ("a", "-", False) == choose(sound("a"), sound("b"))


def test_no_older_key_steps_in_for_a_newest_that_cannot_be_used():
    """
    Revoked, unreadable, expired at this very instant: .NET makes a new key at once.
    """
    old = sound("a", activates=-20 * DAY)
    revoked = key("b", -10 * DAY, -10 * DAY, DAY, is_revoked=True)

    assert ("-", "a", True) == choose(old, revoked)
    assert ("-", "a", True) == choose(old, sound("b"), unreadable="b")
    assert ("-", "a", True) == choose(old, sound("b", expires=0))
    assert ("b", "-", False) == choose(old, sound("b", expires=TICK))
    assert ("-", "-", True) == choose()
    assert ("-", "-", True) == choose(revoked)


def test_the_fallback_is_the_newest_that_everybody_has():
    """
    Two days after its making; then the oldest of those that not everybody has.
    """
    expired = sound("e", activates=-TICK, expires=0)
    spread = key("a", -2 * DAY, 6 * DAY, 90 * DAY, is_revoked=False)
    older = key("d", -3 * DAY, 6 * DAY, 90 * DAY, is_revoked=False)
    day_old = key("b", -DAY, 6 * DAY, 90 * DAY, is_revoked=False)
    fresh = key("c", -MINUTE, 6 * DAY, 90 * DAY, is_revoked=False)

    assert ("-", "a", True) == choose(expired, fresh, day_old, spread, older)
    everything = (expired, fresh, day_old, spread, older)
    assert ("-", "d", True) == choose(*everything, unreadable="a")
    assert ("-", "b", True) == choose(*everything, unreadable="ad")
    assert ("-", "c", True) == choose(*everything, unreadable="adb")


def test_only_what_is_needed_is_unwrapped():
    """
    A sound default costs one look at one key.
    """
    looked: list[str] = []

    def read(key_id: str) -> bool:
        looked.append(key_id[0])
        return True

    default_key([sound("a", activates=-20 * DAY), sound("b")], NOW, read)
    assert ["b"] == looked


def test_the_key_that_a_node_adds_is_foretold():
    """
    None while the default lasts three days or has a successor that does; else which.
    """
    lasts, ends = sound("a", expires=3 * DAY), sound("a", expires=3 * DAY - TICK * 10)
    heir = sound("b", activates=3 * DAY, expires=90 * DAY)
    gap = sound("b", activates=4 * DAY, expires=90 * DAY)
    now = timedelta(0)

    def to_come(*keys: DotnetKey) -> tuple[timedelta, timedelta] | None:
        come = key_to_come(keys, NOW, lambda _: True)
        return come and (come.activates - NOW, come.expires - NOW)

    life = timedelta(days=90)
    assert to_come(lasts) is None
    assert (timedelta(days=3) - timedelta(microseconds=1), life) == to_come(ends)
    assert to_come(ends, heir) is None
    assert (timedelta(days=3) - timedelta(microseconds=1), life) == to_come(ends, gap)
    assert (now, life) == to_come()
    week = key_to_come((), NOW, lambda _: True, timedelta(days=7))
    assert DotnetKeyToCome(NOW, NOW + timedelta(days=7)) == week


def test_what_dotnet_nodes_will_do_on_a_ring_is_told(tmp_path):
    """
    Our choice and theirs agree; nothing is added while the successor is there.
    """
    world = World(tmp_path)
    ring = world.ring()
    contents = ring._live.contents
    (only,) = described(contents)
    told = forecast(ring)

    assert DotnetChoice(ring.current_key_id, None, generates=False) == told.choice
    assert told.to_come is None
    stored = contents.keys[0].stored
    assert (only.created, only.expires) == (stored.created, stored.expires)
    newest = ring.rotate(immediate=True).id
    assert newest == forecast(ring).choice.default
    (due,) = [key.timeline.due for key in tuple(ring.keys()) if key.id == newest]
    late = forecast(ring, due - timedelta(days=1)).to_come
    assert DotnetKeyToCome(due, due + timedelta(days=89)) == late


def test_a_key_that_only_we_can_open_counts_as_unreadable(tmp_path):
    """
    .NET makes a key of its own beside a ring under a passphrase; under what it knows, not.
    """
    secret = PassphraseWrapper(b"correct horse battery staple")
    for wrapper, is_ours in ((secret, True), (PlaintextWrapper(), False)):
        world = World(tmp_path / str(is_ours))
        told = forecast(world.ring(wrapper=wrapper))

        assert is_ours == told.choice.generates
        assert is_ours == (told.choice.default is None)
        assert is_ours == (told.to_come is not None)


def test_a_key_that_does_not_open_here_counts_as_unreadable(tmp_path):
    """
    The newest cannot be unwrapped now: .NET would go without it, and so without a default.
    """
    world = World(tmp_path)
    ring = world.ring()
    old = ring.current_key_id
    world.clock.advance(timedelta(days=3))
    World(tmp_path, world.clock).ring().rotate(immediate=True)
    world.wrapper.fault = RuntimeError("down")
    ring.refresh()

    assert DotnetChoice(None, old, generates=True) == forecast(ring).choice
    assert old == ring.current_key_id


# --- live ----------------------------------------------------------------------------------

# Coarse times, so that ties and bounds come up; around the bounds, to the tick.
moments = st.one_of(
    st.integers(-6, 6).map(lambda days: days * DAY),
    st.sampled_from([0, 5 * MINUTE, -2 * DAY, DAY]).flatmap(
        lambda bound: st.integers(-2, 2).map(lambda off: bound + off)
    ),
)
keys = st.builds(
    lambda created, activates, life, revoked, readable: {
        "created": created,
        "activates": activates,
        "expires": activates + life,
        "revoked": revoked,
        "readable": readable,
    },
    moments,
    moments,
    st.sampled_from([0, 1, DAY, 5 * DAY, 90 * DAY]),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([True, True, True, False]),
)
rings = st.lists(
    st.tuples(st.uuids(), keys), max_size=6, unique_by=lambda ring: ring[0]
)


@pytest.fixture(scope="module")
def resolve(dp_peer):
    """
    .NET's own resolver, one process for all questions.
    """
    questions = Questions(dp_peer, "resolve")
    yield questions
    questions.close()


def assert_foretold(resolve: Questions, ring: list[tuple[UUID, dict]]) -> None:
    at = ticks.from_datetime(NOW)
    dates = ("created", "activates", "expires")
    question = {
        "now": ticks.write(at),
        "keys": [
            {"id": str(name)}
            | {
                n: ticks.write(Ticks(at + v)) if n in dates else v
                for n, v in one.items()
            }
            for name, one in ring
        ],
    }

    assert answered(resolve.ask(json.dumps(question))) == foretold(question)


@pytest.mark.dp_peer
@settings(max_examples=200)
@given(ring=rings)
def test_dotnet_answers_as_foretold(resolve: Questions, ring):
    """
    Random rings, put to .NET's own resolver: every answer is the one foretold.
    """
    assert_foretold(resolve, ring)


@pytest.mark.dp_peer
@pytest.mark.soak
@given(ring=rings)
def test_dotnet_answers_as_foretold_in_bulk(resolve: Questions, ring):
    """
    The same with as many rings as the soak has time for.
    """
    assert_foretold(resolve, ring)


def write_key(peer: Peer, activates: datetime, expires: datetime) -> None:
    """
    Put a clear key into the folder, as .NET would.
    """
    name, dates = str(uuid4()), [ticks.from_datetime(at) for at in (activates, expires)]
    secret = descriptor.null_wrap(descriptor.secret_text(bytes(64)))
    root = elements.key_element(
        name, (dates[0], *dates), ALGORITHMS["AES_256_CBC_HMACSHA256"], secret
    )
    peer.folder.mkdir(exist_ok=True)
    (peer.folder / f"key-{name}.xml").write_text(xml.write(root), "utf-8")


@pytest.mark.dp_peer
@pytest.mark.parametrize(
    "lives",
    [
        [],
        [(-87, 3.1)],
        [(-87, 2.9)],
        [(-87, 2.9), (2.8, 90)],
        [(-87, 2.9), (2.95, 90)],
        [(-80, -1)],
        [(10, 90)],
    ],
    ids=str,
)
def test_the_keys_that_dotnet_makes_are_foretold(dp_peer, tmp_path, lives):
    """
    Rings from empty to ending: .NET protects with and adds just what was said of it.
    """
    peer, now = Peer(dp_peer, tmp_path), datetime.now(UTC)
    for days in lives:
        write_key(peer, *(now + timedelta(days=number) for number in days))
    before: tuple[DotnetKey, ...] = ()
    if lives:
        before = described(peer.ring(read_only=True)._live.contents)
    come = key_to_come(before, now, lambda _: True)
    (payload,) = peer.protect([b"x"])

    ring = peer.ring(read_only=True)
    after = described(ring._live.contents)
    added = [one for one in after if one not in before]
    assert (0 if come is None else 1) == len(added)
    for made in added:
        assert come is not None
        for date, expected in (
            (made.activates, come.activates),
            (made.expires, come.expires),
        ):
            assert abs(ticks.to_datetime(date) - expected) < timedelta(minutes=1)
    choice = default_key(after, now + timedelta(minutes=1), lambda _: True)
    opened = ring.protector(*peer.purposes).unprotect(payload)
    assert (b"x", choice.default) == (opened.payload, opened.key_id)
