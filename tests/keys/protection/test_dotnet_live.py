"""
Live, beside real ASP.NET Core: sign-in cookies, rotations, custom algorithms.

`test_dotnet.py` has rings and payloads. A .NET process looks for new keys in its first two
minutes only, and then up to a day later: after a rotation it is started again.
"""

from __future__ import annotations

import shutil
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kagimori.keys.protection.dotnet_choice import forecast
from kagimori.keys.protection.inspecting import Verdict, guess_application, inspect
from kagimori.keys.protection.ticket_cookies import MIDDLEWARE, TicketCookies
from kagimori.keys.protection.ticket_values import NAME, ROLE
from kagimori.keys.protection.tickets import (
    Claim,
    Identity,
    Ticket,
    TicketProperties,
    write_ticket,
)
from tests.dotnet import Browser, Peer

pytestmark = pytest.mark.dp_peer


def who(browser: Browser) -> str | None:
    """
    Return whom the application recognises by a browser's cookies.
    """
    reply = browser.get("/me")
    return reply.json()["name"] if reply.status == 200 else None


# --- cookies -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def application(dp_peer, tmp_path_factory):
    """
    A web application of .NET's on a ring that was made here.
    """
    peer = Peer(dp_peer, tmp_path_factory.mktemp("application"))
    ring = peer.ring()
    with peer.serve() as server:
        yield server, ring


@pytest.mark.parametrize("big", [0, 1, 60], ids=["plain", "one claim", "chunks"])
def test_who_signed_in_there_is_known_here(application, big: int):
    """
    The cookie of a real sign-in is read: claims, token and times; chunks are joined.
    """
    server, ring = application
    browser, cookies = server.browser(), TicketCookies(ring)
    browser.get("/login", name="鍵守", role="管理者", big=big, persist=1, minutes=60)
    opened = cookies.open(browser.cookies)

    assert opened is not None
    ticket, seen = opened.ticket, browser.get("/me").json()
    assert ("鍵守", ("管理者",)) == (ticket.name, ticket.identities[0].roles)
    assert seen["claims"] == [[claim.type, claim.value] for claim in ticket.claims]
    assert 2 + big == len(ticket.claims)
    assert {"access_token": "at-鍵守"} == ticket.properties.tokens
    assert ticket.properties.is_persistent
    issued, expires = ticket.properties.issued, ticket.properties.expires
    assert issued is not None
    assert expires is not None
    assert timedelta(minutes=59) < expires - issued <= timedelta(minutes=60)
    assert abs(datetime.now(UTC) - issued) < timedelta(minutes=1)
    assert not opened.needs_renewal
    assert (big == 60) == (len(browser.cookies) > 1)
    data = cookies._protector.unprotect(
        "".join(list(browser.cookies.values())[big == 60 :])
    )
    assert data.payload == write_ticket(ticket)


@pytest.mark.parametrize("size", [10, 9_000], ids=["plain", "chunks"])
def test_who_signed_in_here_is_known_there(application, size: int):
    """
    A cookie that was issued here is a sign-in there: several identities, actor, properties.
    """
    server, ring = application
    ticket = Ticket.of("alice", roles=["admin", "鍵"], claims=[Claim("x", "y" * size)])
    agent = Identity((Claim(NAME, "agent"),), "Delegation")
    other = Identity(
        (
            Claim("n", "second", properties={"a": "b"}),
            Claim("s", "1", "urn:t", "https://issuer", "https://first"),
        ),
        "Federation",
        name_type="n",
        role_type="r",
        bootstrap="token",
        actor=agent,
    )
    properties = TicketProperties().with_persistence().with_tokens({"a": "b"})
    ticket = replace(
        ticket, identities=(*ticket.identities, other), properties=properties
    )
    issued = TicketCookies(ring).issue(ticket)
    browser = server.browser(dict(issued))

    assert (size > 4_000) == (len(issued) > 1)
    assert {
        "name": "alice",
        "claims": [[claim.type, claim.value] for claim in ticket.claims],
    } == browser.get("/me").json()
    # Signing out there clears away what was issued here, chunks and all.
    assert 200 == browser.get("/logout").status
    assert {} == browser.cookies


def test_what_has_expired_is_refused_on_both_sides(application):
    """
    And so are altered cookies and those of another scheme; the twin that lives is not.
    """
    server, ring = application
    cookies = TicketCookies(ring)
    now = datetime.now(UTC)
    start = now - timedelta(hours=1)
    lives = cookies.issue(
        Ticket.of("alice").with_times(start, now + timedelta(hours=9))
    )
    ended = cookies.issue(
        Ticket.of("alice").with_times(start, now - timedelta(seconds=2))
    )
    name, text = lives[0]
    # The last character of a whole payload also holds bits that count for nothing.
    altered = text[:-2] + ("A" if text[-2] != "A" else "B") + text[-1]
    elsewhere = TicketCookies(ring, "Other", name).issue(
        Ticket.of("alice", scheme="Other")
    )

    assert "alice" == who(server.browser(dict(lives)))
    assert cookies.read(dict(lives)) is not None
    for bad in (ended, [(name, altered)], elsewhere):
        assert who(server.browser(dict(bad))) is None
        assert cookies.read(dict(bad)) is None


def test_dotnet_slides_what_was_issued_here(application):
    """
    Past half of its time a cookie of ours is issued anew by .NET, and that one is read here.
    """
    server, ring = application
    cookies = TicketCookies(ring)
    now = datetime.now(UTC)
    start, end = now - timedelta(minutes=40), now + timedelta(minutes=20)
    jar = dict(cookies.issue(Ticket.of("alice").with_times(start, end)))
    browser = server.browser(dict(jar))
    here = cookies.open(jar, now)

    assert "alice" == who(browser)
    assert jar != browser.cookies
    there = cookies.open(browser.cookies)
    assert here is not None
    assert there is not None
    assert here.needs_renewal
    assert not there.needs_renewal
    for one, other in (
        (here.renewed.properties.issued, there.ticket.properties.issued),
        (here.renewed.properties.expires, there.ticket.properties.expires),
    ):
        assert one is not None
        assert other is not None
        assert abs(one - other) < timedelta(minutes=1)


def test_cookies_of_identity_and_of_a_content_root(dp_peer, tmp_path):
    """
    ASP.NET Core Identity's scheme, in an application without a name: its path is guessed.
    """
    peer = Peer(dp_peer, tmp_path, application=None)
    scheme, root = "Identity.Application", tmp_path / "application"
    root.mkdir()
    ring = peer.ring()
    with peer.serve("--scheme", scheme, "--content-root", str(root)) as server:
        browser = server.browser()
        browser.get("/login", name="carol")
        (text,) = browser.cookies.values()
        purposes = (MIDDLEWARE, scheme, "v2")
        name = guess_application(ring, text, str(root), purposes)

        assert name is not None
        assert name.rstrip("/") == str(root)
        assert Verdict.NOT_OURS is inspect(ring, text, purposes=purposes).verdict
        peer.application = name
        named = peer.ring(read_only=True)
        assert Verdict.OPENS is inspect(named, text, purposes=purposes).verdict
        cookies = TicketCookies(named, scheme)
        assert [".AspNetCore.Identity.Application"] == list(browser.cookies)
        ticket = cookies.read(browser.cookies)
        assert ticket is not None
        assert ("carol", scheme) == (ticket.name, ticket.scheme)
        jar = dict(cookies.issue(Ticket.of("dave", roles=["r"], scheme=scheme)))
        seen = server.browser(jar).get("/me").json()
        assert [[NAME, "dave"], [ROLE, "r"]] == seen["claims"]


# --- rotations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "wrapped"),
    [
        ("folder", "certificate"),
        pytest.param("document", "plain", marks=pytest.mark.soak),
    ],
)
def test_rotations_of_either_side_sign_nobody_out(dp_peer, tmp_path, layout, wrapped):
    """
    Cookies of both sides live on over a rotation made here and over one made by .NET.
    """
    peer = Peer(dp_peer, tmp_path, layout, wrapped)
    ring = peer.ring()
    cookies = TicketCookies(ring)
    jars: dict[str, dict[str, str]] = {}

    def sign_in_everywhere(server, when: str) -> None:
        browser = server.browser()
        browser.get("/login", name=f"there {when}")
        jars[f"there {when}"] = dict(browser.cookies)
        jars[f"here {when}"] = dict(cookies.issue(Ticket.of(f"here {when}")))

    def everybody_is_known(server) -> set[str]:
        keys = set()
        for name, jar in jars.items():
            opened = cookies.open(jar)
            assert opened is not None
            assert name == opened.ticket.name
            assert name == who(server.browser(jar))
            keys.add(cookies._protector.unprotect(jar[cookies.name]).key_id)
        return keys

    with peer.serve() as server:
        sign_in_everywhere(server, "first")
        first = ring.current_key_id
        assert {first} == everybody_is_known(server)

        # A key that waits changes nothing, neither here nor there.
        waiting = ring.rotate(activates=datetime.now(UTC) + timedelta(days=4))
        assert {first} == everybody_is_known(server)

    second = ring.rotate(immediate=True).id
    with peer.serve() as server:
        sign_in_everywhere(server, "after ours")
        assert {first, second} == everybody_is_known(server)
        assert second == forecast(ring).choice.default

    third = peer.run("newkey", "--alg", "AES_256_CBC")[0]["id"]
    ring.refresh()
    with peer.serve() as server:
        sign_in_everywhere(server, "after theirs")
        assert {first, second, third} == everybody_is_known(server)
        assert third == ring.current_key_id
    assert waiting.id in {key.id for key in tuple(ring.keys())}


# --- payloads ------------------------------------------------------------------------------

PAYLOADS = [b"", b"x", b"y" * 15, b"z" * 16, bytes(range(256)) * 20]
MANAGED = {
    "Aes:128:HMACSHA384": "AES_128_CBC_HMACSHA384",
    "Aes:192:HMACSHA512": "AES_192_CBC_HMACSHA512",
    "Aes:256:HMACSHA1": "AES_256_CBC_HMACSHA1",
}
CONFIGURED = {
    f"AES_{bits}_{mode}": ["--alg", f"AES_{bits}_{mode[:3]}", *mac]
    for bits in (128, 192, 256)
    for mode, mac in (
        ("GCM", []),
        ("CBC_HMACSHA256", ["--mac", "HMACSHA256"]),
        ("CBC_HMACSHA512", ["--mac", "HMACSHA512"]),
    )
}


def test_payloads_of_every_algorithm_go_both_ways(dp_peer, tmp_path):
    """
    Rings that .NET made, of all nine algorithms and three managed ones, and what both write.
    """
    configured = list(CONFIGURED.items())
    configured += [(name, ["--managed", given]) for given, name in MANAGED.items()]
    together, ours = Peer(dp_peer, tmp_path / "all"), []
    together.folder.mkdir(parents=True)
    for number, (name, options) in enumerate(configured):
        place = tmp_path / str(number)
        place.mkdir()
        peer = Peer(dp_peer, place)
        theirs = peer.protect(PAYLOADS, *options)
        ring = peer.ring(read_only=True)
        protector = ring.protector(*peer.purposes)
        assert [name] == [key.algorithm for key in tuple(ring.keys())]
        assert PAYLOADS == [protector.unprotect(text).payload for text in theirs]
        ours += [protector.protect(payload) for payload in PAYLOADS]
        for path in peer.folder.glob("key-*.xml"):
            shutil.copy(path, together.folder)

    assert PAYLOADS * len(configured) == together.opened(ours)
    cut = [text[:-4] for text in ours[::5]]
    assert [None] * len(configured) == together.opened(cut)


@pytest.mark.parametrize(
    ("layout", "wrapped"), [("folder", "plain"), ("document", "certificate")]
)
def test_rings_of_either_side_are_read_by_the_other(dp_peer, tmp_path, layout, wrapped):
    """
    The layouts and wrappings that `test_dotnet.py` leaves over: ours there, theirs here.
    """
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    peer = Peer(dp_peer, ours, layout, wrapped)
    protector = peer.ring().protector(*peer.purposes)
    assert PAYLOADS == peer.opened([protector.protect(p) for p in PAYLOADS])

    peer = Peer(dp_peer, theirs, layout, wrapped)
    texts = peer.protect(PAYLOADS)
    protector = peer.ring().protector(*peer.purposes)
    assert PAYLOADS == [protector.unprotect(text).payload for text in texts]


def test_dotnet_reads_under_revoked_keys_what_we_do(dp_peer, tmp_path):
    """
    Refused by both after a revocation of .NET's; a dangerous read opens it on both.
    """
    peer = Peer(dp_peer, tmp_path)
    ring = peer.ring()
    protector = ring.protector(*peer.purposes)
    sealed, first = protector.protect(b"x"), ring.current_key_id
    peer.run("revoke", "--key", first, "--reason", "a test")
    ring.refresh()

    assert [None] == peer.opened([sealed])
    assert Verdict.REVOKED is inspect(ring, sealed, purposes=peer.purposes).verdict
    (there,) = peer.unprotect([sealed], "--dangerous")
    here = protector.unprotect_dangerously(sealed)
    assert (b64decode(there["plaintext"]), there["wasRevoked"]) == (
        here.payload,
        here.was_revoked,
    )
    assert there["requiresMigration"]
    assert here.needs_renewal
