"""
What is Flask's own of sessions.
"""

from __future__ import annotations

import io
import threading
from datetime import timedelta
from wsgiref.simple_server import WSGIRequestHandler, make_server

import flask
import pytest

from kagimori.errors import ConfigError, StoreError
from kagimori.integrations.cookies import Cookie, ProtectedCookie
from kagimori.integrations.flask import CsrfProtect, RingSessionInterface
from tests.integrations.browser import Browser, through_wsgi
from tests.integrations.sites import as_form, flask_app


@pytest.fixture
def app(world):
    app = flask.Flask("shop")
    app.session_interface = RingSessionInterface(world.ring())

    @app.get("/in")
    def sign_in():
        flask.session["user"] = "alice"
        flask.session.permanent = "keep" in flask.request.args
        return ""

    @app.get("/")
    def home():
        return {"user": flask.session.get("user")}

    return app


def test_permanent_decides_whether_the_browser_keeps_it(app, browser):
    """
    As in Flask, a session that is not permanent ends with the browser.
    """
    shop = through_wsgi(app)

    (brief,) = browser.ask(shop, "/in").all("Set-Cookie")
    (kept,) = browser.ask(shop, "/in?keep").all("Set-Cookie")

    assert "Max-Age" not in brief
    assert f"Max-Age={31 * 86400}" in kept
    assert {"user": "alice"} == browser.ask(shop, "/").json


def test_setting_of_flask_is_the_lifetime(world, app, browser):
    """
    PERMANENT_SESSION_LIFETIME ends a session on the server too.
    """
    app.permanent_session_lifetime = timedelta(minutes=30)
    shop = through_wsgi(app)
    browser.ask(shop, "/in?keep")
    other = Browser(dict(browser.cookies))

    world.clock.advance(timedelta(minutes=29))
    assert {"user": "alice"} == browser.ask(shop, "/").json
    world.clock.advance(timedelta(minutes=1))

    assert {"user": None} == other.ask(shop, "/").json


def test_flash_and_test_client_work(app):
    """
    Flask's flashes, its test client and session_transaction work as before.
    """

    @app.get("/flash")
    def flash():
        flask.flash("saved", "good")
        return ""

    @app.get("/show")
    def show():
        return flask.get_flashed_messages(with_categories=True)

    client = app.test_client()
    with client.session_transaction() as session:
        session["user"] = "bob"
    client.get("/flash")

    assert {"user": "bob"} == client.get("/").json
    assert [["good", "saved"]] == client.get("/show").json
    assert [] == client.get("/show").json


def test_view_that_does_not_look_is_served_in_an_outage(world, app, browser):
    """
    While the ring cannot be asked, only views that look into the session answer 503.
    """

    @app.get("/static-page")
    def page():
        return "page"

    blue = world.ring()
    blue.rotate(immediate=True)
    browser.ask(through_wsgi(flask_app(blue)), "/sign-in")
    kept = dict(browser.cookies)
    world.store.fault = StoreError("down", transient=True)
    shop = through_wsgi(app)

    assert browser.ask(shop, "/static-page").status == 200
    assert browser.ask(shop, "/").status == 503
    assert browser.ask(shop, "/in").status == 503
    assert kept == browser.cookies


def test_change_that_cannot_be_kept_is_an_error_and_not_lost(app, world, browser):
    """
    Where no key can protect, a view that changed the session answers 503, and sets nothing.
    """
    ring = world.ring()
    app.session_interface = RingSessionInterface(ring)

    @app.get("/change")
    def change():
        flask.session["user"] = "bob"
        ring.close()
        return "done", {"Set-Cookie": "other=1"}

    shop = through_wsgi(app)
    assert browser.ask(shop, "/in").status == 200
    kept = dict(browser.cookies)

    answer = browser.ask(shop, "/change")

    assert answer.status == 503
    assert b"done" not in answer.body
    assert int(answer.get("Retry-After")) >= 1
    assert kept == browser.cookies


def test_template_draws_the_token(world, app, browser):
    """
    ``csrf_token()`` stands ready in templates, and the form that it is in is accepted.
    """
    app.session_interface = RingSessionInterface(ring := world.ring())
    CsrfProtect(app, ring)

    @app.route("/form", methods=["GET", "POST"])
    def form():
        return flask.render_template_string("{{ csrf_token() }}")

    shop = through_wsgi(app)
    token = browser.ask(shop, "/form").body.decode()

    assert browser.post(shop, "/form", as_form(csrf_token=token)).status == 200
    assert browser.post(shop, "/form", as_form(csrf_token="")).status == 403


@pytest.fixture
def order(world, app, browser):
    """
    Return a shop whose /order tells how much of a form came, its token, and the way to post.
    """
    app.session_interface = RingSessionInterface(ring := world.ring())
    CsrfProtect(app, ring)

    @app.route("/order", methods=["GET", "POST"])
    def order():
        if flask.request.method == "GET":
            return flask.render_template_string("{{ csrf_token() }}")
        return str(len(flask.request.form["text"]))

    @app.post("/upload")
    def upload():
        return flask.request.files["file"].read()

    return through_wsgi(app), browser.ask(through_wsgi(app), "/order").body.decode()


def test_large_form_brings_its_token_in_the_header(world, browser):
    """
    A form over 1 MB is not looked into: with the header it passes, without it it does not.
    """
    shop = through_wsgi(flask_app(world.ring()))
    token = browser.ask(shop, "/form").body.decode()
    small, large = (
        as_form(csrf_token=token, text="x" * size) for size in (400_000, 1_100_000)
    )
    header = [("X-CSRF-Token", token)]

    assert browser.post(shop, "/form", small).status == 200
    assert browser.post(shop, "/form", large).status == 403
    answer = browser.ask(shop, "/form", method="POST", headers=header, body=large)
    assert answer.status == 200
    assert len(answer.body) == len(large)


class Endless(io.RawIOBase):
    """
    A body that says nothing of its length, as a chunked one; it counts what was read.
    """

    def __init__(self, begin: bytes, size: int) -> None:
        super().__init__()
        self._left = begin + b"x" * (size - len(begin))
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = self._left[self.taken : self.taken + min(len(buffer), 1000)]
        buffer[: len(part)] = part
        self.taken += len(part)
        return len(part)


@pytest.mark.parametrize(("size", "status"), [(90_000, 200), (9_000_000, 403)])
def test_form_is_not_read_without_end_before_its_token(
    order, app, browser, size, status
):
    """
    Attack: whoever has no session sends a form without end. 1 MB of it is read, and no more.
    """
    _, token = order
    body = Endless(as_form(csrf_token=token, text=""), size)
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    answer = app.test_client(use_cookies=False).post(
        "/order",
        base_url="https://shop.example",
        content_type="application/x-www-form-urlencoded",
        headers={"Cookie": cookies, "Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input": body, "wsgi.input_terminated": True},
    )

    assert status == answer.status_code
    assert body.taken <= 1024 * 1024 + 1


def test_uploads_reach_the_view_whole(order, app, browser):
    """
    A form of parts brings its token as a field; what else it brings is still there.
    """
    _, token = order
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())

    def post(word: str, size: int):
        name = b'--b\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n'
        file = b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="f"'
        body = name + word.encode() + file + b"\r\n\r\n" + b"x" * size + b"\r\n--b--"
        return app.test_client(use_cookies=False).post(
            "/upload",
            base_url="https://shop.example",
            data=body,
            content_type="multipart/form-data; boundary=b",
            headers={"Cookie": cookies},
        )

    assert post(token, 400_000).data == b"x" * 400_000
    assert post("wrong", 400_000).status_code == 403
    assert post(token, 1_100_000).status_code == 403


def test_token_needs_the_session_interface(world):
    """
    CSRF tokens on Flask's own sessions are refused with the reason.
    """
    app = flask.Flask("shop")
    csrf = CsrfProtect(app, world.ring())

    with app.test_request_context("/"), pytest.raises(ConfigError, match="Interface"):
        csrf.token()


def test_protected_cookie_is_set_on_responses(world, browser):
    """
    A cookie beside the session is protected by one line each way.
    """
    app = flask.Flask("shop")
    prefs = ProtectedCookie(world.ring(), Cookie(name="__Host-prefs"), purpose="prefs")

    @app.get("/")
    def home():
        held = prefs.get(flask.request.cookies) or b"none"
        response = flask.make_response(held)
        prefs.set_on(response, b"dark", flask.request.cookies)
        return response

    shop = through_wsgi(app)

    assert browser.ask(shop, "/").body == b"none"
    assert browser.ask(shop, "/").body == b"dark"


def test_flow_over_a_real_socket(world, browser):
    """
    The whole flow through a real WSGI server: sign in, grow, shrink, rotate, sign out.
    """

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    import http.client

    from tests.integrations.browser import Answer

    ring = world.ring()
    with make_server("127.0.0.1", 0, flask_app(ring), handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def send(method, path, headers, body):
            link = http.client.HTTPConnection("127.0.0.1", server.server_port)
            link.request(method, path, body, dict(headers))
            found = link.getresponse()
            answer = Answer(found.status, found.getheaders(), found.read())
            link.close()
            return answer

        try:
            browser.ask(send, "/sign-in")
            browser.ask(send, "/fill?n=7000")
            ring.rotate(immediate=True)
            seen = browser.ask(send, "/").json
            count = len(browser.cookies)
            browser.ask(send, "/out")
        finally:
            server.shutdown()
            thread.join()

    assert {"user": "alice"} == seen
    assert count == 4
    assert {} == browser.cookies
