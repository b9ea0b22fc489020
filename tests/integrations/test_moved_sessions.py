"""
Sessions that are moved from what an application had before, and how the old ones end.
"""

from __future__ import annotations

from importlib import import_module

import pytest

from kagimori.errors import KeyRingError
from kagimori.integrations.sessions import Session, Sessions
from tests.integrations.browser import Browser
from tests.integrations.sites import configure_django, django_site

HOST = "__Host-session"

configure_django()

from django.test import override_settings  # noqa: E402  after the settings


@pytest.fixture
def mine(world):
    """
    Let the settings name the world's ring.
    """
    opened = world.ring()
    with override_settings(KAGIMORI_RING=opened):
        yield opened


class Shelf:
    """
    Old sessions on a server: the cookie ``old`` names one.
    """

    def __init__(self) -> None:
        self.kept = {"id-of-alice": {"user": "alice"}, "id-of-bob": {"user": "bob"}}

    def read(self, cookies):
        return self.kept.get(cookies.get("old"))

    def expire(self, cookies):
        return ()

    def id_of(self, cookies):
        return cookies.get("old")

    def end(self, session_id):
        del self.kept[session_id]


@pytest.mark.parametrize("verb", ["sign_in", "sign_out", "renew_id"])
def test_what_the_server_kept_of_a_moved_session_ends_with_its_id(world, verb):
    """
    Not while it is only read or renewed, nor where the new session cannot be kept; then once.
    """
    ring, shelf = world.ring(), Shelf()
    sessions = Sessions(ring, old=[shelf])
    moved = sessions.read({"old": "id-of-alice"}, Session)
    jar = {each.name: each.value for each in sessions.answer(moved).set_cookies}
    later = sessions.read(jar, Session)
    assert "alice" == later["user"]
    sessions.answer(later)
    assert {"id-of-alice", "id-of-bob"} == set(shelf.kept)

    getattr(later, verb)()
    later["seen"] = True
    closing = world.ring()
    lost = Sessions(closing, old=[shelf])
    closing.close()
    with pytest.raises(KeyRingError):
        lost.answer(later)
    assert {"id-of-alice", "id-of-bob"} == set(shelf.kept)
    jar = {each.name: each.value for each in sessions.answer(later).set_cookies}
    assert {"id-of-bob"} == set(shelf.kept)

    again = sessions.read(jar, Session)
    again.renew_id()
    sessions.answer(again)
    assert {"id-of-bob"} == set(shelf.kept)


@pytest.mark.parametrize("engine", ["signed_cookies", "cache"])
def test_sessions_of_another_engine_are_moved(mine, browser, engine):
    """
    A browser with the session of the engine before keeps it, in the new cookie alone.
    """
    name = f"django.contrib.sessions.backends.{engine}"
    old = import_module(name).SessionStore()
    old["user"] = "alice"
    old.save()
    moving = django_site(mine, KAGIMORI_OLD_SESSION_ENGINE=name)
    stranger, late = (
        Browser({"sessionid": key}) for key in ("x" * 32, old.session_key)
    )
    browser.cookies["sessionid"] = old.session_key

    seen = [browser.ask(moving, "/").json for _ in range(2)]

    assert [{"user": "alice"}] * 2 == seen
    assert {HOST} == set(browser.cookies)
    assert {"user": None} == stranger.ask(moving, "/").json
    assert {"user": None} == late.ask(django_site(mine), "/").json


@pytest.mark.parametrize("at", ["/out", "/sign-in"])
@pytest.mark.parametrize("is_moved_before", [True, False], ids=["later", "at once"])
def test_end_of_a_moved_session_ends_the_old_one(mine, browser, at, is_moved_before):
    """
    Attack: the old cookie is kept, and sent again after the sign-out. As in Django, a sign-out
    and a sign-in delete what the server has of the session; another's stays.
    """
    name = "django.contrib.sessions.backends.cache"
    kept, others = (import_module(name).SessionStore() for _ in range(2))
    for each in (kept, others):
        each["user"] = "alice"
        each.save()
    moving = django_site(mine, KAGIMORI_OLD_SESSION_ENGINE=name)
    again, other = (Browser({"sessionid": each.session_key}) for each in (kept, others))
    browser.cookies["sessionid"] = kept.session_key
    if is_moved_before:
        assert {"user": "alice"} == browser.ask(moving, "/").json
        assert {"user": "alice"} == Browser(dict(again.cookies)).ask(moving, "/").json
        mine.rotate(immediate=True)
        browser.ask(moving, "/")

    assert browser.ask(moving, at).status == 200

    assert {"user": None} == again.ask(moving, "/").json
    assert {"user": "alice"} == other.ask(moving, "/").json
    signed_in = "alice" if at == "/sign-in" else None
    assert {"user": signed_in} == browser.ask(moving, "/").json
