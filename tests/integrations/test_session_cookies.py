"""
What holds for the sessions of every framework.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from kagimori.errors import KeyWrapError, StoreError
from tests.integrations.browser import Browser
from tests.integrations.revoking import revoke
from tests.integrations.sites import SITES
from tests.keys.protection.world import TroubledWrapper

HOST = "__Host-session"


class RefusingWrapper(TroubledWrapper):
    """
    A vault that does not unwrap one of the keys.
    """

    def __init__(self, key_id: str, *, is_passing: bool) -> None:
        super().__init__()
        self.key_id = key_id
        self.is_passing = is_passing

    def unwrap(self, wrapped, context):
        if self.key_id in context:
            raise KeyWrapError(
                "The vault refuses.", transient=self.is_passing, retry_after=7
            )
        return super().unwrap(wrapped, context)


def test_session_comes_back(world, site, browser):
    """
    What a request put into its session, the next one finds; its cookie is a __Host- cookie.
    """
    shop = site(world.ring())

    answer = browser.ask(shop, "/sign-in")

    (line,) = answer.all("Set-Cookie")
    assert line.startswith(f"{HOST}=CfDJ8")
    for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=Lax"):
        assert attribute in line
    assert {"user": "alice"} == browser.ask(shop, "/").json
    assert {"user": None} == Browser().ask(shop, "/").json


def test_rotation_signs_nobody_out(world, site, browser):
    """
    A key rotated in the middle opens the old cookie, and renews it on the way out.
    """
    ring = world.ring()
    shop = site(ring)
    browser.ask(shop, "/sign-in")
    before = browser.cookies[HOST]
    old_key = ring.current_key_id
    ring.rotate(immediate=True)

    first = browser.ask(shop, "/")
    second = browser.ask(shop, "/")

    assert {"user": "alice"} == first.json == second.json
    assert len(first.all("Set-Cookie")) == 1
    assert [] == second.all("Set-Cookie")
    assert before[:27] != browser.cookies[HOST][:27]
    assert old_key != ring.current_key_id


def test_two_slots_that_share_a_ring_share_their_sessions(world, site, browser):
    """
    Blue and green answer one browser in turn, 200 times, with a rotation in the middle: no
    sign-out (pain 5).
    """
    blue_ring, green_ring = world.ring(), world.ring()
    blue, green = site(blue_ring), site(green_ring)
    browser.ask(blue, "/sign-in")

    for number in range(200):
        if number == 100:
            green_ring.rotate(immediate=True)
        found = browser.ask((blue, green)[number % 2], "/").json
        assert {"user": "alice"} == found, number

    assert blue_ring.current_key_id == green_ring.current_key_id


def test_two_separate_rings_sign_out_but_delete_nothing(tmp_path, world, site, browser):
    """
    With a ring for each slot the problem shows: signed out on green; blue's cookie survives it.
    """
    other = type(world)(tmp_path / "green", world.clock)
    blue, green = site(world.ring()), site(other.ring())
    browser.ask(blue, "/sign-in")

    there = browser.ask(green, "/")
    back = browser.ask(blue, "/")

    assert {"user": None} == there.json
    assert [] == there.all("Set-Cookie")
    assert {"user": "alice"} == back.json


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "E"),
        lambda text: text[: len(text) // 2],
        lambda text: "x" * 50_000,
        lambda text: "chunks-3",
        lambda text: "chunks-99",
        lambda text: "",
        lambda text: "CfDJ8" + "é%0d%0a" * 5,
    ],
    ids=["tampered", "short", "huge", "no chunks", "many chunks", "empty", "foreign"],
)
def test_bad_cookie_is_an_empty_session(world, site, browser, spoil):
    """
    A tampered, cut or foreign cookie is no exception and no session (attack: forged cookies).
    """
    shop = site(world.ring())
    browser.ask(shop, "/sign-in")
    good = dict(browser.cookies)
    browser.cookies[HOST] = spoil(good[HOST])

    answer = browser.ask(shop, "/")

    assert answer.status == 200
    assert {"user": None} == answer.json
    assert {"user": "alice"} == Browser(good).ask(shop, "/").json


def test_cookie_of_a_revoked_key_is_an_empty_session(world, site, browser):
    """
    What a revoked key protected opens no more, and the browser is told to forget it.
    """
    ring = world.ring()
    shop = site(ring)
    browser.ask(shop, "/sign-in")
    old = ring.current_key_id
    ring.rotate(immediate=True)
    assert {"user": "alice"} == Browser(dict(browser.cookies)).ask(shop, "/").json
    revoke(world, old)
    ring.refresh()

    answer = browser.ask(shop, "/")

    assert {"user": None} == answer.json
    assert {} == browser.cookies


def test_large_session_lies_in_chunks_and_small_again_in_one(world, site, browser):
    """
    Over 4 KB a session fills several cookies; when it shrinks, the left-over ones are expired.
    """
    shop = site(world.ring())
    browser.ask(shop, "/sign-in")

    browser.ask(shop, "/fill?n=7000")
    large = dict(browser.cookies)
    found = browser.ask(shop, "/").json
    browser.ask(shop, "/fill?n=10")

    assert {HOST, f"{HOST}C1", f"{HOST}C2", f"{HOST}C3"} == set(large)
    assert large[HOST] == "chunks-3"
    assert {"user": "alice"} == found
    assert {HOST} == set(browser.cookies)
    assert {"user": "alice"} == browser.ask(shop, "/").json


def test_lost_chunk_is_an_empty_session_and_the_rest_is_expired(world, site, browser):
    """
    A session of which a chunk is missing counts for nothing, and its other chunks go.
    """
    shop = site(world.ring())
    browser.ask(shop, "/fill?n=7000")
    del browser.cookies[f"{HOST}C2"]

    answer = browser.ask(shop, "/")

    assert {"user": None} == answer.json
    assert {} == browser.cookies


def test_chunks_of_two_sessions_do_not_mix(world, site):
    """
    Chunks of another session in the place of one's own open nothing (attack: cut and paste).
    """
    shop = site(world.ring())
    one, two = Browser(), Browser()
    for browser in (one, two):
        browser.ask(shop, "/sign-in")
        browser.ask(shop, "/fill?n=7000")
    assert {"user": "alice"} == one.ask(shop, "/").json
    one.cookies[f"{HOST}C2"] = two.cookies[f"{HOST}C2"]

    assert {"user": None} == one.ask(shop, "/").json


def test_cookie_opens_under_its_own_name_only(world, site, browser):
    """
    A session in a cookie of another name is none.
    """
    shop = site(world.ring())
    browser.ask(shop, "/sign-in")

    moved = Browser({"session": browser.cookies[HOST]})

    assert {"user": None} == moved.ask(shop, "/").json
    assert {"user": "alice"} == browser.ask(shop, "/").json


def test_session_slides_and_ends(world, site, browser):
    """
    Used again and again a session lives on; unused for its lifetime it is over.
    """
    shop = site(world.ring())
    browser.ask(shop, "/sign-in")

    for _ in range(4):
        world.clock.advance(timedelta(days=10))
        assert {"user": "alice"} == browser.ask(shop, "/").json
    world.clock.advance(timedelta(days=32))

    assert {"user": None} == browser.ask(shop, "/").json


def test_session_ends_at_last_however_much_it_is_used(world, site, browser):
    """
    Ninety days after the sign-in a session is over; a new sign-in begins anew.
    """
    shop = site(world.ring())
    browser.ask(shop, "/sign-in")

    seen = []
    for _ in range(10):
        world.clock.advance(timedelta(days=10))
        seen.append(browser.ask(shop, "/").json["user"])
    browser.ask(shop, "/sign-in")

    assert ["alice"] * 8 + [None] * 2 == seen
    assert {"user": "alice"} == browser.ask(shop, "/").json


def test_looking_writes_nothing(world, site, browser):
    """
    A request that only looks sets no cookie, so a late answer undoes nothing.
    """
    shop = site(world.ring())
    browser.ask(shop, "/sign-in")

    assert [] == browser.ask(shop, "/").all("Set-Cookie")
    assert [] == browser.ask(shop, "/static").all("Set-Cookie")
    assert [] == Browser().ask(shop, "/").all("Set-Cookie")


def test_change_deep_inside_is_kept(world, site, browser):
    """
    Growing a list inside the session is a change like any other.
    """
    shop = site(world.ring())
    browser.ask(shop, "/deep")

    assert [1, 1] == browser.ask(shop, "/deep").json
    assert [1, 1, 1] == browser.ask(shop, "/deep").json


def test_caches_know_of_the_session(world, site, browser):
    """
    An answer that depends on the session varies by cookie and is not stored; others are.
    """
    shop = site(world.ring())

    setting = browser.ask(shop, "/sign-in")
    looking = browser.ask(shop, "/")
    public = browser.ask(shop, "/public")
    static = browser.ask(shop, "/static")

    for answer in (setting, looking, public):
        assert "no-store" == answer.get("Cache-Control")
        assert "Cookie" in answer.get("Vary")
    assert "Accept" in public.get("Vary")
    assert "max-age=60" == static.get("Cache-Control")
    assert "" == static.get("Vary")


def test_sign_out_forgets_all(world, site, browser):
    """
    After a sign-out the browser has no cookie of the session left, chunks included.
    """
    shop = site(world.ring())
    browser.ask(shop, "/sign-in")
    browser.ask(shop, "/fill?n=7000")

    browser.ask(shop, "/out")

    assert {} == browser.cookies
    assert {"user": None} == browser.ask(shop, "/").json


def test_outage_of_the_ring_signs_nobody_out(world, site, browser):
    """
    A session whose key cannot be asked for answers 503 with Retry-After, and is there later.
    """
    blue_ring, green_ring = world.ring(), world.ring()
    blue, green = site(blue_ring), site(green_ring)
    blue_ring.rotate(immediate=True)
    browser.ask(blue, "/sign-in")
    kept = dict(browser.cookies)
    world.store.fault = StoreError("The store does not answer.", transient=True)

    during = browser.ask(green, "/")
    stranger = Browser().ask(green, "/")
    world.store.fault = None
    world.clock.advance(timedelta(minutes=2))
    after = browser.ask(green, "/")

    assert during.status == 503
    assert int(during.get("Retry-After")) >= 1
    assert kept == browser.cookies
    assert stranger.status == 200
    assert after.status == 200
    assert {"user": "alice"} == after.json


@pytest.mark.parametrize(
    ("is_passing", "status"),
    [(True, 503), (False, 200)],
    ids=["throttled", "forbidden"],
)
def test_wrapper_that_refuses_signs_nobody_out(
    world, site, browser, is_passing, status
):
    """
    A known key that cannot be unwrapped: 503 while that may pass, else a session that is empty
    and not forgotten, so that it is there again when the right is given back (pain 3).
    """
    ring = world.ring()
    browser.ask(site(ring), "/sign-in")
    kept = dict(browser.cookies)
    old = ring.current_key_id
    ring.rotate(immediate=True)
    refusing = RefusingWrapper(old, is_passing=is_passing)

    during = browser.ask(site(world.ring(wrapper=refusing)), "/")

    assert status == during.status
    assert kept == browser.cookies
    assert {"user": "alice"} == browser.ask(site(world.ring()), "/").json


def test_every_framework_reads_the_session_of_every_other(world, browser):
    """
    One ring, one cookie: Starlette, FastAPI, Flask and Django know the same session.
    """
    ring = world.ring()
    shops = {name: make(ring) for name, make in SITES.items()}
    browser.ask(shops["flask"], "/sign-in")

    seen = {name: browser.ask(shop, "/").json["user"] for name, shop in shops.items()}

    assert dict.fromkeys(shops, "alice") == seen


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("junk", [b"\xa0", b"\x85", "\u2000".encode(), "\xa0".encode()])
def test_cookie_of_a_sibling_host_is_not_the_session(world, site, junk, is_first):
    """
    Attack: ``evil.example.com`` sets a cookie whose name becomes ``__Host-session`` once more
    than blanks is stripped; browsers do not guard that name. The session is the victim's.
    """
    shop = site(world.ring())
    browser, attacker = Browser(), Browser()
    browser.ask(shop, "/sign-in")
    attacker.ask(shop, "/sign-in")
    attacker.ask(shop, "/deep")
    name = junk.decode("latin-1") + HOST
    planted, own = {name: attacker.cookies[HOST]}, dict(browser.cookies)
    victim = Browser(planted | own if is_first else own | planted)

    assert [1] == victim.ask(shop, "/deep").json
    assert {"user": None} == Browser(dict(planted)).ask(shop, "/").json
