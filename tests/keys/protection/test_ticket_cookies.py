"""
Sign-in cookies of ASP.NET Core: .NET's own, and those that are issued here.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

import pytest

from kagimori.errors import (
    ConfigError,
    PayloadExpiredError,
    ProtectionError,
    StoreError,
    UnknownKeyIdError,
)
from kagimori.keys.protection.ticket_cookies import (
    MIDDLEWARE,
    MOST_CHARACTERS,
    MOST_CHUNKS,
    TicketCookies,
)
from kagimori.keys.protection.tickets import (
    Claim,
    Identity,
    Ticket,
    TicketProperties,
    read_ticket,
    write_ticket,
)
from tests.keys.protection.world import World, vector_ring, vectors

NAME = ".AspNetCore.Cookies"
SIGNED_IN = datetime(2026, 11, 22, tzinfo=UTC)

ring_of = functools.cache(vector_ring)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


@pytest.fixture
def ring(world: World):
    return world.ring()


# --- .NET's own ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", vectors("tickets"), ids=range(10))
def test_cookies_of_dotnet_are_read(case):
    """
    Chunks are joined; claims and properties are those that the application itself saw.
    """
    ring = ring_of(case["ring"], case["application"])
    cookies = TicketCookies(ring, case["scheme"])
    opened = cookies.open(case["cookies"], SIGNED_IN)

    assert opened is not None
    ticket = opened.ticket
    assert case["claims"] == [[claim.type, claim.value] for claim in ticket.claims]
    assert case["properties"] == dict(ticket.properties.items)
    assert list(case["properties"]) == list(ticket.properties.items)
    assert case["scheme"] == ticket.scheme
    token = ticket.properties.tokens["access_token"]
    assert f"at-{ticket.name}" == token
    assert (".persistent" in case["properties"]) == ticket.properties.is_persistent
    assert not opened.needs_renewal
    assert list(case["cookies"]) == cookies.expire(case["cookies"])


@pytest.mark.parametrize("case", vectors("tickets"), ids=range(10))
def test_tickets_of_dotnet_are_written_to_the_byte(case):
    """
    What .NET serialized comes out again as the same bytes.
    """
    ring = ring_of(case["ring"], case["application"])
    parts = list(case["cookies"].values())
    text = parts[0] if len(parts) == 1 else "".join(parts[1:])
    data = ring.protector(MIDDLEWARE, case["scheme"], "v2").unprotect(text).payload

    assert data == write_ticket(read_ticket(data))


def test_cookies_of_dotnet_end_when_they_say():
    """
    Valid at the very instant; afterwards nobody is signed in. Another scheme opens nothing.
    """
    case = vectors("tickets")[0]
    ring = ring_of(case["ring"], case["application"])
    cookies, ends = TicketCookies(ring), datetime(2026, 12, 5, 1, 46, 50, tzinfo=UTC)

    assert cookies.read(case["cookies"], ends)
    assert cookies.read(case["cookies"], ends + timedelta(microseconds=1)) is None
    with pytest.raises(PayloadExpiredError):
        cookies.open(case["cookies"], ends + timedelta(days=1))
    other = TicketCookies(ring, "Identity.Application", NAME)
    assert other.read(case["cookies"], ends) is None
    renamed = TicketCookies(ring, cookie_name="session")
    value = case["cookies"][NAME]
    assert renamed.read({"session": value}, ends) == cookies.read({NAME: value}, ends)


# --- issued here ---------------------------------------------------------------------------


def test_a_cookie_issued_here_is_read_again(world: World, ring):
    """
    Times that the ticket does not name are now and 14 days; the rest is as it was.
    """
    cookies = TicketCookies(ring)
    issued = cookies.issue(Ticket.of("alice", roles=["admin"]))
    opened = cookies.open(dict(issued))

    assert [NAME] == [name for name, _ in issued]
    assert opened is not None
    now = world.clock.now().replace(microsecond=0)
    properties = opened.ticket.properties
    assert (now, now + timedelta(days=14)) == (properties.issued, properties.expires)
    assert ("alice", ("admin",)) == (
        opened.ticket.name,
        opened.ticket.identities[0].roles,
    )
    assert not opened.needs_renewal
    assert opened.renewed is opened.ticket
    named = Ticket.of("bob").with_times(now, now + timedelta(hours=1))
    again = cookies.open(dict(cookies.issue(named)))
    assert again is not None
    assert named == again.ticket


@pytest.mark.parametrize("length", [100, 2_000, 4_000, 40_000, 400_000])
def test_long_cookies_lie_in_chunks(ring, length: int):
    """
    No cookie is longer than browsers take, and all of them together are the ticket.
    """
    cookies = TicketCookies(ring)
    issued = cookies.issue(Ticket.of("alice", claims=[Claim("x", "y" * length)]))

    assert all(len(name) + len(value) <= 4050 - 200 for name, value in issued)
    ticket = cookies.read(dict(issued))
    assert ticket is not None
    assert "y" * length == ticket.claims[1].value
    if length < 4_000:
        assert 1 == len(issued)
    else:
        count = len(issued) - 1
        assert (NAME, f"chunks-{count}") == issued[0]
        numbers = range(1, count + 1)
        assert [f"{NAME}C{n}" for n in numbers] == [name for name, _ in issued[1:]]


def test_chunks_are_used_up_to_the_last_character(ring):
    """
    At every length around the bound the cookie is read again.
    """
    cookies = TicketCookies(ring)
    counts = set()
    for length in range(2_500, 2_740, 3):
        issued = cookies.issue(Ticket.of("alice", claims=[Claim("x", "y" * length)]))
        assert cookies.read(dict(issued)) is not None
        counts.add(len(issued))
    assert {1, 3} == counts


def test_what_an_earlier_cookie_left_is_named(ring):
    """
    A shorter cookie after a longer one: the chunks of the longer one are to be deleted.
    """
    cookies = TicketCookies(ring)
    long = dict(cookies.issue(Ticket.of("alice", claims=[Claim("x", "y" * 9_000)])))
    short = dict(cookies.issue(Ticket.of("alice")))
    sent = {**long, **short, "other": "x", f"{NAME}X": "y"}

    assert cookies.expire(sent, keep=short) == [n for n in long if n != NAME]
    assert set(long) == set(cookies.expire(sent))
    assert [] == cookies.expire({"other": "x"})
    assert cookies.read(sent) is not None


def test_a_ticket_slides_once_half_of_its_time_is_over(world: World, ring):
    """
    As in .NET: only past the half, by the same span, and not where the ticket forbids it.
    """
    cookies, still = TicketCookies(ring), TicketCookies(ring, sliding=False)
    start = world.clock.now().replace(microsecond=0)
    span = timedelta(hours=2)
    ticket = Ticket.of("alice").with_times(start, start + span)
    sent = dict(cookies.issue(ticket))
    fixed = TicketProperties({".refresh": "False"}).with_times(start, start + span)
    stays = dict(cookies.issue(Ticket.of("alice", properties=fixed)))

    half = cookies.open(sent, start + span / 2)
    assert half is not None
    assert not half.needs_renewal
    later = start + span / 2 + timedelta(seconds=1)
    slid = cookies.open(sent, later)
    assert slid is not None
    assert slid.needs_renewal
    assert ticket.with_times(later, later + span) == slid.renewed
    for reader, jar in ((cookies, stays), (still, sent)):
        opened = reader.open(jar, later)
        assert opened is not None
        assert not opened.needs_renewal


def test_a_rotation_asks_for_renewal_and_signs_nobody_out(world: World, ring):
    """
    A cookie of the earlier key is read on, and says that it wants the current one.
    """
    cookies = TicketCookies(ring)
    sent = dict(cookies.issue(Ticket.of("alice")))
    ring.rotate(immediate=True)
    opened = cookies.open(sent)

    assert opened is not None
    assert opened.needs_renewal
    renewed = cookies.open(dict(cookies.issue(opened.renewed)))
    assert renewed is not None
    assert (opened.ticket, False) == (renewed.ticket, renewed.needs_renewal)


def test_an_outage_signs_nobody_out(world: World):
    """
    A ring that cannot be asked at the moment is an error, and not "nobody"; later it is read.
    """
    blue, green = world.ring(), world.ring()
    blue.rotate(immediate=True)
    sent = dict(TicketCookies(blue).issue(Ticket.of("alice")))
    cookies = TicketCookies(green)
    world.store.fault = StoreError("down", transient=True)

    with pytest.raises(ProtectionError) as waits:
        cookies.read(sent)
    assert waits.value.transient
    assert cookies.read({NAME: "junk"}) is None
    world.store.fault = None
    world.clock.advance(timedelta(minutes=1))
    read = cookies.read(sent)
    assert read is not None
    assert "alice" == read.name


# --- refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        "chunks-",
        "chunks-0",
        "chunks--1",
        "chunks-+2",
        "chunks- 2",
        "chunks-2.0",
        "chunks-²",
        "chunks-٢",
        f"chunks-{MOST_CHUNKS + 1}",
        "chunks-2147483647",
        "chunks-" + "9" * 10_000,
        "chunks-3",
        "chunks-1",
        "Chunks-2",
    ],
)
def test_hostile_heads_of_chunks_are_refused(ring, head: str):
    """
    Impossible, huge and wrong counts: one class, and nobody is signed in.
    """
    cookies = TicketCookies(ring)
    sent = dict(cookies.issue(Ticket.of("alice", claims=[Claim("x", "y" * 4_000)])))
    assert "chunks-2" == sent[NAME]
    assert cookies.read(sent) is not None

    assert cookies.read({**sent, NAME: head}) is None
    with pytest.raises(ProtectionError):
        cookies.open({**sent, NAME: head})


def test_missing_and_swapped_chunks_are_refused(ring):
    """
    A lost, an empty, an exchanged and a foreign chunk.
    """
    cookies = TicketCookies(ring)
    sent = dict(cookies.issue(Ticket.of("alice", claims=[Claim("x", "y" * 9_000)])))
    first, second = f"{NAME}C1", f"{NAME}C2"
    lost = {name: value for name, value in sent.items() if name != second}
    other = dict(cookies.issue(Ticket.of("bob", claims=[Claim("x", "y" * 9_000)])))
    assert cookies.read(sent) is not None

    for bad in (
        lost,
        {**sent, second: ""},
        {**sent, first: sent[second], second: sent[first]},
        {**sent, second: other[second]},
        {NAME: "A" * (MOST_CHARACTERS + 1)},
        {NAME: "chunks-2", first: "A" * MOST_CHARACTERS, second: "A"},
    ):
        assert cookies.read(bad) is None
        with pytest.raises(ProtectionError):
            cookies.open(bad)
    # Without the cookie nothing is wrong: nobody has signed in.
    for none in ({}, {NAME: ""}, {first: sent[first]}):
        assert cookies.open(none) is None


def test_what_is_no_ticket_signs_nobody_in(tmp_path, ring):
    """
    Junk, another ring's ticket, and a payload of the right purposes that holds no ticket.
    """
    cookies = TicketCookies(ring)
    good = cookies.issue(Ticket.of("alice"))
    foreign = World(tmp_path / "other").ring()
    stranger = dict(TicketCookies(foreign).issue(Ticket.of("alice")))
    no_ticket = ring.protector(MIDDLEWARE, "Cookies", "v2").protect(b"\x05\0\0\0")
    elsewhere = ring.protector(MIDDLEWARE, "Cookies", "v1").protect(b"")
    assert cookies.read(dict(good)) is not None

    for bad in ("x", "é", "CfDJ8", no_ticket, elsewhere, good[0][1][:-1]):
        assert cookies.read({NAME: bad}) is None
    with pytest.raises(UnknownKeyIdError):
        cookies.open(stranger)


def test_an_expiry_that_is_no_date_signs_nobody_in(ring):
    """
    A ticket with such an expiry is refused, where .NET would take it for one without end.
    """
    cookies = TicketCookies(ring)
    protector = ring.protector(MIDDLEWARE, "Cookies", "v2")
    bad = Ticket.of("alice", properties=TicketProperties({".expires": "soon"}))

    assert cookies.read({NAME: protector.protect(write_ticket(bad))}) is None
    good = Ticket.of("alice")
    assert cookies.read({NAME: protector.protect(write_ticket(good))}) == good


def test_what_dotnet_would_not_take_is_not_issued(ring):
    """
    Another scheme, nobody signed in, too long a ticket; names that no cookie may have.
    """
    cookies = TicketCookies(ring)
    nobody = Ticket("Cookies", (Identity((), authentication_type=""),))
    huge = Ticket.of("alice", claims=[Claim("x", "y" * 800_000)])
    for bad in (Ticket.of("alice", scheme="Other"), nobody, huge):
        with pytest.raises(ConfigError):
            cookies.issue(bad)
    for name in ("", "a b", "a;b", "a=b", "é", "x" * 2_000):
        with pytest.raises(ConfigError):
            TicketCookies(ring, cookie_name=name)
    with pytest.raises(ConfigError):
        TicketCookies(ring, "\ud800")


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("Cookies", ".AspNetCore.Cookies"),
        ("Identity.Application", ".AspNetCore.Identity.Application"),
        ("My Scheme/鍵", ".AspNetCore.My%20Scheme%2F%E9%8D%B5"),
    ],
)
def test_cookies_are_named_as_dotnet_names_them(ring, scheme: str, name: str):
    """
    The scheme's name, escaped as for a URL, after a fixed beginning.
    """
    cookies = TicketCookies(ring, scheme)

    assert name == cookies.name
    assert cookies.read(dict(cookies.issue(Ticket.of("alice", scheme=scheme))))
    assert f"<TicketCookies {name}>" == repr(cookies)
