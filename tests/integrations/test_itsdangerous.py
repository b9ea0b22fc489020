"""
Moving from itsdangerous: old tokens and cookies are read, new ones are written.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import flask
import itsdangerous
import pytest
from itsdangerous import BadSignature, SignatureExpired

from kagimori.errors import ProtectionError, StoreError
from kagimori.integrations.cookies import Cookie
from kagimori.integrations.flask import RingSessionInterface
from kagimori.integrations.itsdangerous import (
    FlaskCookies,
    StarletteCookies,
    URLSafeTimedSerializer,
)
from kagimori.testing.clock import FixedClock
from tests.integrations.browser import Browser, through_asgi, through_wsgi
from tests.integrations.sites import flask_app, starlette_app
from tests.keys.protection.world import World

OLD_KEY = "the one SECRET_KEY"
VALUE = {"user": 42, "tags": ["a", None]}


@pytest.fixture
def ring(world):
    return world.ring()


@pytest.fixture
def serializer(ring):
    return URLSafeTimedSerializer(OLD_KEY, salt="confirm", ring=ring)


def test_old_tokens_are_read_and_new_ones_are_the_rings(serializer, ring):
    """
    What itsdangerous signed still loads; what is dumped now turns with the ring.
    """
    old = itsdangerous.URLSafeTimedSerializer(OLD_KEY, salt="confirm")
    new = serializer.dumps(VALUE)
    ring.rotate(immediate=True)

    assert serializer.loads(old.dumps(VALUE)) == VALUE
    assert serializer.loads(new) == serializer.loads(new.encode()) == VALUE
    assert new.startswith("CfDJ8")
    with pytest.raises(BadSignature):
        old.loads(new)


def test_keys_may_be_several_and_salts_may_be_named(ring):
    """
    A list of keys and a salt with each call work as in the class that it replaces.
    """
    moved = URLSafeTimedSerializer(["older", OLD_KEY], ring=ring)
    old = itsdangerous.URLSafeTimedSerializer("older")

    assert moved.loads(old.dumps(VALUE)) == VALUE
    assert moved.loads(old.dumps(VALUE, salt="x"), salt="x") == VALUE
    assert moved.loads(moved.dumps(VALUE, salt=b"x"), salt="x") == VALUE
    with pytest.raises(BadSignature):
        moved.loads(moved.dumps(VALUE, salt="x"), salt="y")


def test_options_of_the_old_class_are_for_its_tokens(ring):
    """
    Whoever chose another digest reads the tokens that it made.
    """
    import hashlib

    options = {"signer_kwargs": {"digest_method": hashlib.sha512}}
    old = itsdangerous.URLSafeTimedSerializer(OLD_KEY, **options)
    moved = URLSafeTimedSerializer(OLD_KEY, ring=ring, **options)

    assert moved.loads(old.dumps(VALUE)) == VALUE
    with pytest.raises(BadSignature):
        URLSafeTimedSerializer(OLD_KEY, ring=ring).loads(old.dumps(VALUE))


@pytest.mark.parametrize("spoil", [lambda t: t + "A", lambda t: "", lambda t: "a.b.c"])
def test_bad_tokens_raise_what_they_always_raised(serializer, spoil):
    """
    A token that was changed is a BadSignature, new or old.
    """
    new = serializer.dumps(VALUE)

    assert serializer.loads(new) == VALUE
    with pytest.raises(BadSignature):
        serializer.loads(spoil(new))


def test_old_tokens_end_when_no_old_key_is_given(ring):
    """
    Without an old key, old tokens are refused and new ones are not.
    """
    moved = URLSafeTimedSerializer(None, ring=ring)
    old = itsdangerous.URLSafeTimedSerializer(OLD_KEY)

    assert moved.loads(moved.dumps(VALUE)) == VALUE
    with pytest.raises(BadSignature):
        moved.loads(old.dumps(VALUE))


def test_age_is_checked_and_told(world, serializer):
    """
    A token older than max_age is a SignatureExpired with its time; younger, it loads.
    """
    signed_at = world.clock.now()
    token = serializer.dumps(VALUE)
    world.clock.advance(timedelta(seconds=60))

    assert serializer.loads(token, max_age=60, return_timestamp=True) == (
        VALUE,
        signed_at,
    )
    world.clock.advance(timedelta(seconds=1))
    with pytest.raises(SignatureExpired) as caught:
        serializer.loads(token, max_age=60)
    assert caught.value.date_signed == signed_at


def test_age_of_old_tokens_is_checked(serializer):
    """
    The old tokens' age is checked as before.
    """
    old = itsdangerous.URLSafeTimedSerializer(OLD_KEY, salt="confirm").dumps(VALUE)

    assert serializer.loads(old, max_age=600) == VALUE
    with pytest.raises(SignatureExpired):
        serializer.loads(old, max_age=-1)


def test_outage_is_not_a_bad_link(world):
    """
    While the ring cannot be asked, a sound token is an outage and not a BadSignature.
    """
    blue, green = world.ring(), world.ring()
    blue.rotate(immediate=True)
    token = URLSafeTimedSerializer(None, ring=blue).dumps(VALUE)
    world.store.fault = StoreError("down", transient=True)

    with pytest.raises(ProtectionError) as caught:
        URLSafeTimedSerializer(None, ring=green).loads(token)

    assert caught.value.transient


# --- session cookies -----------------------------------------------------------------------


@pytest.fixture
def today(tmp_path) -> World:
    """
    Return a world of the present: the old cookies are stamped by the machine's clock.
    """
    return World(tmp_path / "today", FixedClock(datetime.now(UTC)))


def old_flask_cookie(value: dict) -> str:
    app = flask.Flask("old")
    app.secret_key = OLD_KEY
    signing = app.session_interface.get_signing_serializer(app)
    return signing.dumps(value)


def old_starlette_cookie(value: dict) -> str:
    data = b64encode(json.dumps(value).encode())
    return itsdangerous.TimestampSigner(OLD_KEY).sign(data).decode()


def moved_flask(ring, key=OLD_KEY):
    return through_wsgi(flask_app(ring, old=[FlaskCookies(key)]))


def moved_starlette(ring, key=OLD_KEY):
    return through_asgi(starlette_app(ring, old=[StarletteCookies(key)]))


KINDS = [
    pytest.param(old_flask_cookie, moved_flask, id="flask"),
    pytest.param(old_starlette_cookie, moved_starlette, id="starlette"),
]


@pytest.mark.parametrize(("old", "site"), KINDS)
def test_nobody_is_signed_out_by_the_move(today, old, site):
    """
    The old cookie is read once, the session goes on in the new one, and the old one is gone.
    """
    shop = site(today.ring())
    browser = Browser({"session": old({"user": "alice"})})

    first = browser.ask(shop, "/").json

    assert {"user": "alice"} == first == browser.ask(shop, "/").json
    assert {"__Host-session"} == set(browser.cookies)


@pytest.mark.parametrize(("old", "site"), KINDS)
def test_old_cookie_of_another_key_moves_nothing(today, old, site):
    """
    A forged old cookie is an empty session, as it was before.
    """
    shop = site(today.ring(), key="another")

    assert {"user": None} == Browser({"session": old({"user": "eve"})}).ask(
        shop, "/"
    ).json
    assert {"user": None} == Browser({"session": "a.b.c"}).ask(shop, "/").json


@pytest.mark.parametrize(("old", "site"), KINDS)
def test_sign_out_after_the_move_is_one(today, old, site):
    """
    A sign-out with the old cookie forgets both, so that the old one signs nobody in again.
    """
    shop = site(today.ring())
    browser = Browser({"session": old({"user": "alice"})})

    browser.ask(shop, "/out")

    assert {} == browser.cookies
    assert {"user": None} == browser.ask(shop, "/").json


def test_new_session_outranks_the_old_cookie(today):
    """
    Where both are there, the new one counts, and the old one goes: else a sign-out would be none.
    """
    shop = moved_flask(today.ring())
    browser = Browser()
    browser.ask(shop, "/sign-in")
    browser.cookies["session"] = old_flask_cookie({"user": "eve"})
    both = Browser(dict(browser.cookies))

    assert {"user": "alice"} == browser.ask(shop, "/").json
    assert "session" not in browser.cookies
    both.ask(shop, "/out")
    assert {} == both.cookies
    assert {"user": None} == both.ask(shop, "/").json


def test_old_and_new_cookie_may_have_one_name(today):
    """
    An application that keeps the cookie's name moves as well: the old text is replaced.
    """
    app = flask.Flask("shop")
    cookie = Cookie.for_plain_http("session")
    app.session_interface = RingSessionInterface(
        today.ring(), cookie=cookie, old=[FlaskCookies(OLD_KEY)]
    )

    @app.get("/")
    def home():
        return {"user": flask.session.get("user")}

    shop = through_wsgi(app)
    browser = Browser({"session": old_flask_cookie({"user": "alice"})})

    assert {"user": "alice"} == browser.ask(shop, "/").json
    assert browser.cookies["session"].startswith("CfDJ8")
    assert {"user": "alice"} == browser.ask(shop, "/").json


def test_types_of_old_flask_sessions_move_too(today):
    """
    Dates, UUIDs, bytes and tuples of a Flask session are kept, tuples as lists.
    """
    from uuid import UUID

    value = {
        "at": datetime(2030, 1, 1, tzinfo=UTC),
        "id": UUID(int=7),
        "raw": b"\x00\xff",
        "pair": (1, 2),
    }
    app = flask.Flask("shop")
    app.session_interface = RingSessionInterface(
        today.ring(), old=[FlaskCookies(OLD_KEY)]
    )
    seen = []

    @app.get("/")
    def home():
        seen.append(dict(flask.session))
        return ""

    shop = through_wsgi(app)
    browser = Browser({"session": old_flask_cookie(value)})
    browser.ask(shop, "/")
    browser.ask(shop, "/")

    assert seen == [value, value | {"pair": [1, 2]}]
