"""
Live: both slots are ASP.NET Core, on a ring that was made here and is rotated here.

A .NET process looks for new keys in its first two minutes only, and then up to a day later. So
after an emergency both slots are started again, before they are given anything of the new key;
a key that was published ahead needs no restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from demos.swap.operator import rotate
from kagimori.keys.protection.inspecting import inspect
from kagimori.keys.protection.ticket_cookies import TicketCookies
from kagimori.keys.protection.tickets import Ticket
from kagimori.testing.clock import FixedClock
from tests.dotnet import Browser, Peer, Server

pytestmark = pytest.mark.dp_peer


@dataclass
class Form:
    """
    ASP.NET Core's own antiforgery form, drawn for a browser.
    """

    field: str
    token: str

    @classmethod
    def drawn(cls, browser: Browser) -> Form:
        said = browser.get("/antiforgery").json()
        return cls(said["field"], said["token"])

    def sent(self, browser: Browser, to: Server) -> tuple[int, bool]:
        """
        Send it to a slot: its status, and whether the slot knows who sends it.
        """
        browser.server = to
        status = browser.post("/form", {self.field: self.token}).status
        return status, browser.get("/me").status == 200


@pytest.fixture
def peer(dp_peer, tmp_path) -> Peer:
    """
    .NET on a folder, under a certificate.
    """
    return Peer(dp_peer, tmp_path, "folder", "certificate")


@contextmanager
def two_slots(peer: Peer) -> Iterator[tuple[Server, Server]]:
    """
    Run the application twice; neither makes keys.
    """
    with peer.serve("--no-generate") as blue, peer.serve("--no-generate") as green:
        yield blue, green


def signed_in(server: Server, name: str) -> Browser:
    browser = server.browser()
    assert 200 == browser.get("/login", name=name).status
    return browser


def test_a_form_of_one_slot_is_accepted_by_the_other(peer: Peer, dp_peer, tmp_path):
    """
    Drawn on either, sent to the other; a slot with a ring of its own refuses it and knows nobody.
    """
    ring = peer.ring()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with two_slots(peer) as (blue, green):
        browser = signed_in(blue, "alice")
        form = Form.drawn(browser)
        assert (200, True) == form.sent(browser, green)
        back = Form.drawn(browser)
        assert (200, True) == back.sent(browser, blue)

        with Peer(dp_peer, elsewhere).serve() as stranger:
            assert (400, False) == back.sent(browser, stranger)
        assert (200, True) == back.sent(browser, green)
    # What they wrote, they wrote with our key.
    ticket = browser.cookies[TicketCookies(ring).name]
    assert ring.current_key_id == inspect(ring, ticket).key_id


def test_an_emergency_rotation_between_slots_signs_nobody_out(peer: Peer):
    """
    Started again, both slots know the sign-ins and accept the forms of before, and write with
    the new key, each for the other.
    """
    ring = peer.ring()
    first = ring.current_key_id
    with peer.serve("--no-generate") as blue:
        browser = signed_in(blue, "alice")
        form = Form.drawn(browser)

    second = rotate(
        {"KAGIMORI_RING": peer.location, "KAGIMORI_RING_WRAPPER": peer.wrapper}
    )
    ring.refresh()
    with two_slots(peer) as (blue, green):
        assert (200, True) == form.sent(browser, blue)
        assert (200, True) == form.sent(browser, green)
        newcomer = signed_in(green, "bob")
        theirs = Form.drawn(newcomer)
        assert (200, True) == theirs.sent(newcomer, blue)
    name = TicketCookies(ring).name
    assert first == inspect(ring, browser.cookies[name]).key_id
    assert second == inspect(ring, newcomer.cookies[name]).key_id
    assert second == inspect(ring, theirs.token).key_id


def test_dotnet_runs_on_over_a_key_that_is_published_ahead(peer: Peer):
    """
    With a key that waits, a running slot goes on as before, beside one that started after; that
    one opens what the key protects once its time has come, without another look at the ring.
    """
    ring = peer.ring()
    first, name = ring.current_key_id, TicketCookies(ring).name
    with peer.serve("--no-generate") as blue:
        browser = signed_in(blue, "alice")
        form = Form.drawn(browser)
        waiting = ring.rotate()
        assert waiting.timeline.activates > datetime.now(UTC) + timedelta(days=2)
        with peer.serve("--no-generate") as green:
            assert (200, True) == form.sent(browser, green)
            again = Form.drawn(browser)
            assert (200, True) == again.sent(browser, blue)
            newcomer = signed_in(green, "bob")
            assert first == inspect(ring, again.token).key_id
            assert first == inspect(ring, newcomer.cookies[name]).key_id

            # A slot of ours, four days from now.
            now = datetime.now(UTC)
            clock = FixedClock(now + timedelta(days=4))
            later = peer.ring(read_only=True, clock=clock)
            assert waiting.id == later.current_key_id
            ticket = Ticket.of("carol").with_times(now, now + timedelta(hours=1))
            jar = dict(TicketCookies(later).issue(ticket))
            peer.folder.rename(peer.folder.with_name("aside"))
            assert "carol" == green.browser(jar).get("/me").json()["name"]
            # Who never saw the key would have to look, and cannot now.
            assert 200 != blue.browser(jar).get("/me").status
            peer.folder.with_name("aside").rename(peer.folder)
    assert {first, waiting.id} == {key["id"] for key in peer.keys()["keys"]}
