"""
Tickets as bytes: .NET's own, round trips, and hostile ones.
"""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.errors import ConfigError, ProtectionError
from kagimori.keys.protection.ticket_values import NAME, ROLE, SESSION_ID
from kagimori.keys.protection.tickets import (
    MOST_ACTORS,
    MOST_BYTES,
    Claim,
    Identity,
    Ticket,
    TicketProperties,
    read_ticket,
    write_ticket,
)

# Built by hand after TicketSerializer.cs (`aspnet-data-protection.md` section 5).
BY_HAND = bytes.fromhex(
    "0500000007436f6f6b6965730100000007436f6f6b6965730100010002000000010005616c696365010001000100"
    "00000000037375620234320100010001000000000000000100000002000000072e6973737565641d5361742c2030"
    "31204a616e20323030302030303a30303a303020474d54082e657870697265731d5361742c203135204a616e2032"
    "3030302030303a30303a303020474d54"
)
ISSUED, EXPIRES = datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 1, 15, tzinfo=UTC)


def test_the_ticket_built_by_hand_is_read_and_written():
    """
    Its claims and times come out, and the same values become the same bytes.
    """
    ticket = read_ticket(BY_HAND)
    made = Ticket.of("alice", claims=[Claim("sub", "42")]).with_times(ISSUED, EXPIRES)

    assert made == ticket
    assert BY_HAND == write_ticket(made)
    assert ("Cookies", "alice", 1) == (
        ticket.scheme,
        ticket.name,
        len(ticket.identities),
    )
    assert [(NAME, "alice"), ("sub", "42")] == [
        (c.type, c.value) for c in ticket.claims
    ]
    properties = ticket.properties
    assert (ISSUED, EXPIRES) == (properties.issued, properties.expires)
    assert not properties.is_persistent
    assert properties.may_refresh


def test_a_ticket_with_everything_in_it_comes_back():
    """
    Several identities, actors, other name and role types, issuers, bootstrap, properties.
    """
    agent = Identity((Claim(NAME, "agent"),), "Delegation")
    first = Identity(
        (
            Claim("n", "鍵守"),
            Claim("r", "admin", "urn:type", "https://issuer", "https://first"),
            Claim("r", "", properties={"a": "b", "": ""}),
        ),
        "Federation",
        name_type="n",
        role_type="r",
        bootstrap="a token",
        actor=replace(agent, actor=agent),
    )
    properties = TicketProperties({".redirect": "/home", ".refresh": "False", "x": "y"})
    properties = properties.with_persistence().with_tokens({"id": "1", "access": "2"})
    ticket = Ticket("Other", (first, agent), properties)
    back = read_ticket(write_ticket(ticket))

    assert ticket == back
    assert ("鍵守", ("admin", "")) == (
        back.identities[0].name,
        back.identities[0].roles,
    )
    assert (True, False) == (
        back.properties.is_persistent,
        back.properties.may_refresh,
    )
    assert {"id": "1", "access": "2"} == back.properties.tokens
    assert "/home" == back.properties.redirect
    assert 4 == len(back.claims)
    assert {"new": "3"} == back.properties.with_tokens({"new": "3"}).tokens


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
values = texts.filter(lambda text: text != "\0")
pairs = st.dictionaries(texts, texts, max_size=3)
claims = st.builds(Claim, values, texts, values, values, st.none(), pairs)
identities = st.recursive(
    st.builds(
        Identity, st.lists(claims, max_size=4).map(tuple), texts, values, values, texts
    ),
    lambda inner: st.builds(Identity, st.just(()), texts, values, values, texts, inner),
    max_leaves=5,
)
tickets = st.builds(
    Ticket,
    texts,
    st.lists(identities, max_size=3).map(tuple),
    st.builds(TicketProperties, pairs),
)


@given(tickets)
def test_every_ticket_comes_back(ticket: Ticket):
    """
    Whatever can be written reads the same, and is written the same again.
    """
    data = write_ticket(ticket)

    assert ticket == read_ticket(data)
    assert data == write_ticket(read_ticket(data))


# --- dates ---------------------------------------------------------------------------------


def test_times_are_utc_to_the_second_whatever_the_language():
    """
    A time of any zone is written as .NET writes it; the ticket is valid at its very end.
    """
    japan = timezone(timedelta(hours=9))
    ends = datetime(2024, 2, 29, 23, 59, 58, 999_999, tzinfo=japan)
    ticket = Ticket.of("alice").with_times(ISSUED, ends)

    assert "Thu, 29 Feb 2024 14:59:58 GMT" == ticket.properties.items[".expires"]
    at = ticket.properties.expires
    assert at is not None
    assert not ticket.has_expired(at)
    assert ticket.has_expired(at + timedelta(microseconds=1))
    assert not Ticket.of("alice").has_expired(at)
    with pytest.raises(ConfigError, match="time zone"):
        ticket.with_times(ISSUED, datetime(2024, 1, 1))  # noqa: DTZ001 - that is it


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2000-01-15T00:00:00Z",
        "Sat, 15 Jan 2000 00:00:00",
        "Sun, 15 Jan 2000 00:00:00 GMT",
        "Sat, 15 Foo 2000 00:00:00 GMT",
        "Sat, 32 Jan 2000 00:00:00 GMT",
        "Sat, 15 Jan 2000 25:00:00 GMT",
        "Sat, 15 Jan 0000 00:00:00 GMT",
        "Sat, ١٥ Jan 2000 00:00:00 GMT",
    ],
)
def test_an_expiry_that_is_no_date_is_refused(text: str):
    """
    .NET takes such a ticket for one without end; here it has expired.
    """
    bad = TicketProperties({".expires": text})
    good = TicketProperties({".expires": "Sat, 15 Jan 2000 00:00:00 GMT"})

    assert EXPIRES == good.expires
    with pytest.raises(ProtectionError):
        assert bad.expires
    with pytest.raises(ProtectionError):
        Ticket("Cookies", (), bad).has_expired(ISSUED)


def test_a_session_kept_on_the_server_is_recognised():
    """
    Then the cookie holds the session's key, and no claims that one could go by.
    """
    kept = Ticket("Cookies", (Identity((Claim(SESSION_ID, "key-1"),)),))

    assert "key-1" == kept.session_id
    assert Ticket.of("alice").session_id is None
    assert (None, None) == (kept.name, Ticket("Cookies", ()).name)


# --- what cannot be written ----------------------------------------------------------------


def chain(length: int) -> Identity:
    identity = Identity(())
    for _ in range(length):
        identity = Identity((), actor=identity)
    return identity


def test_what_would_read_differently_is_not_written():
    """
    A lone NUL where it stands for a default, half a surrogate pair, too many actors, too much.
    """
    good = Ticket("Cookies", (chain(MOST_ACTORS),))
    assert good == read_ticket(write_ticket(good))

    for bad in (
        Ticket("Cookies", (chain(MOST_ACTORS + 1),)),
        Ticket.of("\ud800"),
        Ticket.of("alice", claims=[Claim("\0", "x")]),
        Ticket.of("alice", claims=[Claim("x", "x", issuer="\0")]),
        Ticket.of("x" * MOST_BYTES),
    ):
        with pytest.raises(ConfigError):
            write_ticket(bad)
    for names in ({"a;b": "x"}, {"": "x"}):
        with pytest.raises(ConfigError):
            TicketProperties().with_tokens(names)


def test_K9_nothing_personal_shows_in_a_repr():
    """
    K9: no repr of a ticket tells a value, a name or a token.
    """
    properties = TicketProperties().with_tokens({"access": "secret-token"})
    ticket = Ticket.of("alice-secret", roles=["secret-role"], properties=properties)

    for thing in (ticket, ticket.identities, ticket.claims, ticket.properties):
        assert "secret" not in repr(thing)


# --- hostile bytes -------------------------------------------------------------------------

COUNTS = [
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xff\x00\x00\x00",
]
# Where the counts of identities, claims, two claims' properties and properties lie.
PLACES = [12, 28, 46, 63, 73]
HUGE_LENGTHS = [b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x7f", b"\x80" * 9 + b"\x01"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("count", COUNTS, ids=bytes.hex)
def test_hostile_counts_allocate_nothing(place: int, count: bytes):
    """
    Negative and huge counts are refused before anything is made of them.
    """
    assert int.from_bytes(BY_HAND[place : place + 4], "little") in {0, 1, 2}
    assert_refused_cheaply(BY_HAND[:place] + count + BY_HAND[place + 4 :])


@pytest.mark.parametrize("length", HUGE_LENGTHS, ids=bytes.hex)
def test_hostile_lengths_allocate_nothing(length: bytes):
    """
    Texts that say they are gigabytes long, or whose length never ends, are refused.
    """
    assert_refused_cheaply(BY_HAND[:4] + length + BY_HAND[5:])


def assert_refused_cheaply(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtectionError):
            read_ticket(data)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_a_ticket_that_nests_for_ever_is_refused():
    """
    Actors of actors end at a bound, far from the interpreter's own.
    """
    link = b"\x00" + b"\x01\x00" * 2 + bytes(4) + b"\x00\x01"
    data = BY_HAND[:16] + link * 20_000

    with pytest.raises(ProtectionError):
        read_ticket(data)
    allowed = (
        BY_HAND[:16] + link * MOST_ACTORS + link[:-1] + b"\x00" + b"\x01" + bytes(7)
    )
    assert read_ticket(allowed).identities[0].actor is not None


def test_cut_tickets_are_refused_and_longer_ones_read():
    """
    Every shorter one is refused; what comes after a whole one is left alone, as .NET does.
    """
    for length in range(len(BY_HAND)):
        with pytest.raises(ProtectionError):
            read_ticket(BY_HAND[:length])
    with pytest.raises(ProtectionError):
        read_ticket(BY_HAND + bytes(MOST_BYTES))

    assert read_ticket(BY_HAND) == read_ticket(BY_HAND + b"later")


@pytest.mark.parametrize(
    ("place", "byte"),
    [(0, 4), (0, 6), (3, 128), (69, 2), (6, 0xFF)],
    ids=["version 4", "version 6", "version -", "properties 2", "no UTF-8"],
)
def test_other_versions_and_broken_texts_are_refused(place: int, byte: int):
    """
    Only version 5 with properties of version 1, and texts of strict UTF-8.
    """
    data = bytearray(BY_HAND)
    data[place] = byte

    with pytest.raises(ProtectionError):
        read_ticket(bytes(data))


def test_a_name_that_comes_twice_is_refused():
    """
    .NET refuses the whole ticket too: nobody can say which of the two counts.
    """
    once = b"\x01" + b"a" + b"\x01" + b"b"
    head = BY_HAND[:4] + b"\x00" + bytes(4) + b"\x01\x00\x00\x00"

    assert {"a": "b"} == read_ticket(head + b"\x01\x00\x00\x00" + once).properties.items
    with pytest.raises(ProtectionError):
        read_ticket(head + b"\x02\x00\x00\x00" + once * 2)


def test_altered_tickets_are_read_or_refused_by_one_class():
    """
    10,000 altered tickets: a ticket or a `ProtectionError`, never another exception.
    """
    chance = random.Random(5)
    whole = write_ticket(
        Ticket.of(
            "alice", roles=["admin"], claims=[Claim("x", "y", properties={"p": "q"})]
        )
    )
    refused = 0
    for _ in range(10_000):
        data = bytearray(chance.choice((BY_HAND, whole)))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 127, 128, 255))
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            ticket = read_ticket(bytes(data))
        except ProtectionError:
            refused += 1
        else:
            assert ticket.scheme is not None
    assert 1_000 < refused < 10_000


def test_roles_are_those_of_the_identitys_own_type():
    """
    A claim of the usual role type is no role where the identity names another one.
    """
    ticket = Ticket.of("alice", roles=["a", "b"])
    other = replace(ticket.identities[0], role_type="r", name_type="n")

    assert ("a", "b") == ticket.identities[0].roles
    assert ((), None) == (other.roles, other.name)
    assert ROLE == ticket.claims[1].type
