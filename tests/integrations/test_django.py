"""
What is Django's own: its accounts, its signing, its settings and its commands.
"""

from __future__ import annotations

import asyncio
import http.cookies
from datetime import timedelta

import django.core.signing
import pytest
from django.core.management import CommandError, call_command
from django.core.signing import BadSignature, SignatureExpired, TimestampSigner

from kagimori.errors import ConfigError, StoreError
from kagimori.integrations.django import signing
from kagimori.integrations.django.ring import forget, ring
from tests.integrations.browser import Browser, on_uvicorn
from tests.integrations.sites import as_form, configure_django, django_site

HOST = "__Host-session"

configure_django()

from django.contrib.auth.models import User  # noqa: E402  after the settings
from django.core import checks  # noqa: E402
from django.core.signals import request_started  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client, override_settings  # noqa: E402


@pytest.fixture(scope="module")
def bob():
    call_command("migrate", verbosity=0)
    yield User.objects.create_user("bob", password="a word")
    connection.close()


@pytest.fixture
def mine(world):
    """
    Let the settings name the world's ring.
    """
    opened = world.ring()
    with override_settings(KAGIMORI_RING=opened):
        yield opened


# --- accounts ------------------------------------------------------------------------------


def test_accounts_of_django_work_across_slots_and_a_rotation(world, browser, bob):
    """
    ``login`` on blue, a rotation, ``logout`` on green: Django's own accounts notice nothing.
    """
    rings = [world.ring(), world.ring()]
    blue, green = (django_site(each) for each in rings)

    assert browser.ask(blue, "/log-in?password=wrong").body == b"None"
    assert browser.ask(blue, "/who").body == b"nobody"
    browser.ask(blue, "/log-in?password=a+word")
    rings[1].rotate(immediate=True)
    seen = [browser.ask(slot, "/who").body for slot in (green, blue, green)]
    browser.ask(green, "/log-out")

    assert [b"bob"] * 3 == seen
    assert browser.ask(blue, "/who").body == b"nobody"
    assert HOST not in browser.cookies


def test_login_renews_the_id(mine, browser, bob):
    """
    What an attacker put into a browser before the sign-in is not its session (fixation).
    """
    shop = django_site(mine)
    browser.ask(shop, "/fill?n=1")
    planted = dict(browser.cookies)

    browser.ask(shop, "/log-in?password=a+word")

    assert browser.ask(shop, "/who").body == b"bob"
    assert Browser(planted).ask(shop, "/who").body == b"nobody"


def test_test_client_of_django_works(mine, bob):
    """
    ``force_login`` and ``client.session`` of Django's test client work as before.
    """
    client = Client()
    client.force_login(bob)
    session = client.session
    session["cart"] = [1, 2]
    session.save()
    client.cookies[HOST] = session.session_key

    assert client.get("/who").content == b"bob"
    assert client.session["cart"] == [1, 2]
    client.logout()
    assert client.get("/who").content == b"nobody"


def test_asynchronous_views_on_a_real_server(mine, browser, bob):
    """
    Over ASGI on a socket, asynchronous views read and write the same sessions.
    """
    from django.core.asgi import get_asgi_application

    browser.ask(django_site(mine), "/log-in?password=a+word")
    with (
        override_settings(KAGIMORI_RING=mine),
        on_uvicorn(get_asgi_application()) as shop,
    ):
        seen = browser.ask(shop, "/sign-in").status
        mine.rotate(immediate=True)
        found = browser.ask(shop, "/asynchronous").json
        again = browser.ask(shop, "/asynchronous").json

    assert seen == 200
    assert [{"user": "alice", "visits": 1}, {"user": "alice", "visits": 2}] == [
        found,
        again,
    ]


# --- sessions ------------------------------------------------------------------------------


def test_expiry_of_a_session_of_its_own_holds(world, mine, browser):
    """
    ``set_expiry`` is kept by the server too, and not by the browser alone.
    """
    shop = django_site(mine)
    (line,) = browser.ask(shop, "/short").all("Set-Cookie")
    other = Browser(dict(browser.cookies))

    world.clock.advance(timedelta(seconds=59))
    assert {"user": "alice"} == browser.ask(shop, "/").json
    world.clock.advance(timedelta(seconds=1))

    assert "Max-Age=60" in line
    assert {"user": None} == other.ask(shop, "/").json


def test_fault_of_the_server_saves_nothing(mine, browser):
    """
    As in Django, what a request put into its session is not saved when it ends in a 500.
    """
    shop = django_site(mine)
    browser.ask(shop, "/sign-in")

    assert browser.ask(shop, "/fault").status == 500
    assert {"user": "alice"} == browser.ask(shop, "/").json


def test_setting_to_save_every_request_is_kept(mine, browser):
    """
    SESSION_SAVE_EVERY_REQUEST writes the cookie each time, and without it looking does not.
    """
    eager = django_site(mine, SESSION_SAVE_EVERY_REQUEST=True)
    browser.ask(eager, "/sign-in")

    assert len(browser.ask(eager, "/").all("Set-Cookie")) == 1
    assert [] == browser.ask(django_site(mine), "/").all("Set-Cookie")


def test_sessions_that_end_with_the_browser(mine, browser):
    """
    SESSION_EXPIRE_AT_BROWSER_CLOSE leaves Max-Age out.
    """
    brief = django_site(mine, SESSION_EXPIRE_AT_BROWSER_CLOSE=True)

    (line,) = browser.ask(brief, "/sign-in").all("Set-Cookie")

    assert "Max-Age" not in line
    assert "expires" not in line.lower()
    assert {"user": "alice"} == browser.ask(brief, "/").json


def test_csrf_in_the_session_is_protected_with_it(world, browser):
    """
    With CSRF_USE_SESSIONS Django's forms are bound to the session, and pass from slot to slot.
    """
    rings = [world.ring(), world.ring()]
    blue, green = (django_site(each, CSRF_USE_SESSIONS=True) for each in rings)
    token = browser.ask(blue, "/form").body.decode()
    body = as_form(csrfmiddlewaretoken=token)
    referer = [
        ("Referer", "https://shop.example/form"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ]

    def post(visitor: Browser) -> int:
        return visitor.ask(
            green, "/form", method="POST", body=body, headers=referer
        ).status

    assert post(browser) == 200
    assert post(Browser()) == 403


def test_session_store_serves_asynchronous_callers(mine):
    """
    Each asynchronous method of Django's session does what its twin does.
    """
    from kagimori.integrations.django.sessions import SessionStore

    async def story():
        store = SessionStore()
        await store.aset("user", "alice")
        await store.asave()
        first = store.session_key
        again = SessionStore(first)
        user = await again.aget("user")
        before = again.ring_session.id
        await again.acycle_key()
        renewed = again.ring_session.id
        await again.acreate()
        taken = await again.aexists(first)
        await again.aflush()
        await SessionStore.aclear_expired()
        return user, before != renewed, taken, again.session_key, dict(again.items())

    assert ("alice", True, False, None, {}) == asyncio.run(story())
    assert "nothing" == SessionStore("no session of ours").get("user", "nothing")


def test_change_that_cannot_be_kept_is_an_error_and_not_lost(world, browser):
    """
    Where no key can protect, a request that changes its session answers 503; others go on.
    """
    closing = world.ring()
    shop = django_site(closing)
    browser.ask(shop, "/sign-in")
    kept = dict(browser.cookies)

    def close(*_: object, **__: object) -> None:
        closing.close()

    request_started.connect(close)
    try:
        signed_in = browser.ask(shop, "/deep")
        stranger = Browser().ask(shop, "/deep")
        looking = Browser().ask(shop, "/static")
    finally:
        request_started.disconnect(close)

    assert [503, 503, 200] == [each.status for each in (signed_in, stranger, looking)]
    assert kept == browser.cookies


def test_ring_that_cannot_be_opened_yet_answers_503(world, browser):
    """
    A store that is down when the first request comes is an outage; the next request tries again.
    """
    world.ring()
    world.store.fault = StoreError("down", transient=True, retry_after=9)
    options = {
        "KAGIMORI_RING_APPLICATION": "shop",
        "KAGIMORI_RING_WRAPPER": world.wrapper,
    }
    shop = django_site(world.store, **options)

    during = browser.ask(shop, "/sign-in")
    world.store.fault = None
    after = browser.ask(shop, "/sign-in")

    assert (during.status, during.get("Retry-After")) == (503, "9")
    assert after.status == 200
    assert HOST in browser.cookies


# --- signing and cookies -------------------------------------------------------------------


def test_signed_cookies_of_django_turn_with_the_ring(mine, browser):
    """
    ``set_signed_cookie`` is readable, sealed by the ring, and good across a rotation.
    """
    shop = django_site(mine)
    browser.ask(shop, "/signed?set=dark")
    mine.rotate(immediate=True)

    assert browser.cookies["theme"].startswith("dark:")
    assert browser.ask(shop, "/signed").body == b"dark"
    browser.cookies["theme"] = browser.cookies["theme"].replace("dark", "lite")
    assert browser.ask(shop, "/signed").body == b"none"


def test_signatures_of_the_secret_key_are_read_while_asked_for(mine):
    """
    With the setting, old signatures are good, and what is signed is the ring's; without, not.
    """
    old = TimestampSigner(salt="s").sign("value")
    signer = signing.RingSigner(salt="s")

    with override_settings(KAGIMORI_RING=mine, KAGIMORI_READ_OLD_SIGNATURES=True):
        assert signer.unsign(old) == "value"
        assert signer.unsign(signer.sign("new")) == "new"
        with pytest.raises(BadSignature):
            signer.unsign(old + "x")
    turned = signing.RingSigner(key="new", fallback_keys=iter(["what signed before"]))
    oldest = TimestampSigner(key="what signed before", salt=turned.salt).sign("v")
    with override_settings(KAGIMORI_RING=mine, KAGIMORI_READ_OLD_SIGNATURES=True):
        assert [turned.unsign(oldest), turned.unsign(oldest)] == ["v", "v"]
    with pytest.raises(BadSignature):
        signer.unsign(old)
    with pytest.raises(BadSignature):
        TimestampSigner(salt="s").unsign(signer.sign("new"))


def test_dumps_and_loads_take_the_place_of_djangos(mine):
    """
    An object comes back; under another salt, altered, or too old, it is refused.
    """
    text = signing.dumps({"order": 7}, salt="orders", compress=True)

    assert signing.loads(text, salt="orders", max_age=60) == {"order": 7}
    for wrong, salt in [(text, "other"), (text[:-2] + "AA", "orders"), ("x", "orders")]:
        with pytest.raises(BadSignature):
            signing.loads(wrong, salt=salt)
    with pytest.raises(SignatureExpired):
        signing.loads(text, salt="orders", max_age=-1)
    with pytest.raises(BadSignature):
        django.core.signing.loads(text, salt="orders")


def test_signed_cookie_waits_for_the_ring(world, browser):
    """
    A signature whose key cannot be asked for at the moment answers 503, and is not called bad.
    """
    blue, green = world.ring(), world.ring()
    blue.rotate(immediate=True)
    browser.ask(django_site(blue), "/signed?set=dark")
    world.store.fault = StoreError("down", transient=True)

    assert browser.ask(django_site(green), "/signed").status == 503
    assert browser.ask(django_site(blue), "/signed").body == b"dark"


def test_protected_cookie_is_set_on_responses_of_django(mine, browser):
    """
    A cookie beside the session is protected by one line each way.
    """
    shop = django_site(mine)
    browser.ask(shop, "/prefs?set=" + "x" * 6000)

    assert browser.ask(shop, "/prefs").body == b"x" * 6000
    assert len([name for name in browser.cookies if "prefs" in name]) == 4
    browser.ask(shop, "/prefs?set=y")
    assert browser.ask(shop, "/prefs").body == b"y"
    assert len([name for name in browser.cookies if "prefs" in name]) == 1


# --- settings and commands -----------------------------------------------------------------


def found(**settings) -> list[str]:
    with override_settings(**settings):
        return [each.id for each in checks.run_checks(tags=["security"])]


def test_checks_tell_what_loses_sessions_or_lays_them_open():
    """
    Good settings pass; the stock middleware, and cookies that others can replace, do not.
    """
    stock = ["django.contrib.sessions.middleware.SessionMiddleware"]

    assert [] == found()
    assert ["kagimori.E001"] == found(MIDDLEWARE=stock)
    assert ["kagimori.E002"] == found(SESSION_COOKIE_SECURE=False)
    assert ["kagimori.E003"] == found(SESSION_COOKIE_NAME="sessionid")
    assert [] == found(SESSION_COOKIE_NAME="sessionid", DEBUG=True)
    assert [] == found(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")


def test_ring_is_named_by_the_settings_and_opened_once(tmp_path, monkeypatch):
    """
    Address, wrapper and application in the settings open the ring, once in a process.
    """
    for name in ("KAGIMORI_RING", "KAGIMORI_RING_APPLICATION", "KAGIMORI_RING_WRAPPER"):
        monkeypatch.delenv(name, raising=False)
    named = {
        "KAGIMORI_RING": f"file://{tmp_path}/named",
        "KAGIMORI_RING_WRAPPER": "plaintext:",
        "KAGIMORI_RING_APPLICATION": "shop",
    }

    with override_settings(**named):
        opened = ring()
        again = ring()
    with override_settings(KAGIMORI_RING=None), pytest.raises(ConfigError):
        ring()
    forget()

    assert opened is again
    assert str(tmp_path) in opened.location_name


def test_command_shows_and_rotates_the_ring(mine, capsys):
    """
    ``manage.py kagimori_ring`` lists the keys, and adds one for later or for now.
    """
    first = mine.current_key_id

    call_command("kagimori_ring", "show")
    shown = capsys.readouterr().out
    call_command("kagimori_ring", "rotate", "--reason", "spring")
    later = mine.current_key_id
    call_command("kagimori_ring", "rotate", "--now")
    listed = capsys.readouterr().out

    assert first in shown
    assert "application shop" in shown
    assert later == first != mine.current_key_id
    assert "next" in listed
    assert "previous" in listed


def test_command_says_what_the_ring_refuses(world):
    """
    What a ring refuses is a CommandError with its text, and changes nothing.
    """
    read_only = world.ring() and world.ring(read_only=True)
    with (
        override_settings(KAGIMORI_RING=read_only),
        pytest.raises(CommandError, match="read-only"),
    ):
        call_command("kagimori_ring", "rotate", "--now")

    assert len(read_only.keys()) == 1


def test_cookies_of_django_parse_by_the_standard_library(mine, browser):
    """
    What Django's response holds is one cookie for each chunk, in the standard library's eyes.
    """
    answer = browser.ask(django_site(mine), "/fill?n=7000")

    names = set()
    for line in answer.all("Set-Cookie"):
        names |= set(http.cookies.SimpleCookie(line))
    assert names == {HOST, f"{HOST}C1", f"{HOST}C2", f"{HOST}C3"}
