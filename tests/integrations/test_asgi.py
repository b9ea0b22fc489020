"""
Sessions over ASGI, on a real server where it matters.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from kagimori.errors import ConfigError, KeyRingError
from kagimori.integrations.asgi import CsrfMiddleware, SessionMiddleware, csrf_token
from kagimori.integrations.cookies import Cookie
from tests.integrations.browser import Browser, on_uvicorn, through_asgi
from tests.integrations.sites import as_form, fastapi_app, starlette_app

APPS = [
    pytest.param(starlette_app, id="starlette"),
    pytest.param(fastapi_app, id="fastapi"),
]


@pytest.mark.parametrize("make", APPS)
def test_slots_on_real_servers_swap_and_nobody_notices(world, make, browser):
    """
    Sign in on blue, draw a form, swap, rotate, post to green, swap back: all over sockets.
    """
    blue_ring, green_ring = world.ring(), world.ring()
    with on_uvicorn(make(blue_ring)) as blue, on_uvicorn(make(green_ring)) as green:
        browser.ask(blue, "/sign-in")
        body = as_form(csrf_token=browser.ask(blue, "/form").body.decode())
        swapped = browser.ask(green, "/").json
        green_ring.rotate(immediate=True)
        posted = browser.post(green, "/form", body)
        back = browser.ask(blue, "/").json
        large = browser.ask(blue, "/fill?n=7000")
        again = browser.ask(green, "/").json

    assert {"user": "alice"} == swapped == back == again
    assert posted.status == 200
    assert large.status == 200
    assert len(browser.cookies) == 4


def test_concurrent_requests_do_not_mix_sessions(world):
    """
    Many browsers at once on one server: each finds its own session, across a rotation.
    """
    ring = world.ring()
    with on_uvicorn(starlette_app(ring)) as shop:

        def visit(number: int) -> tuple[int, int]:
            browser = Browser()
            for _ in range(number):
                browser.ask(shop, "/deep")
            if number == 5:
                ring.rotate(immediate=True)
            return number, len(browser.ask(shop, "/deep").json) - 1

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(visit, range(1, 11)))

    assert [(number, number) for number in range(1, 11)] == found


def test_one_browser_at_once_loses_no_session(world, browser):
    """
    Answers to one browser that overlap all carry a whole session: whichever comes last is good.
    """
    ring = world.ring()
    with on_uvicorn(starlette_app(ring)) as shop:
        browser.ask(shop, "/sign-in")
        ring.rotate(immediate=True)
        tabs = [Browser(dict(browser.cookies)) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(lambda tab: tab.ask(shop, "/").json["user"], tabs))
        last = [tab.ask(shop, "/").json["user"] for tab in tabs]

    assert ["alice"] * 8 == seen == last


def test_websocket_reads_the_session(world, browser):
    """
    A websocket finds the session of its handshake, and an outage closes it with 1013.
    """
    ring = world.ring()
    browser.ask(through_asgi(starlette_app(ring)), "/sign-in")
    said: list[dict] = []

    async def app(scope, receive, send):
        await send({"type": "websocket.accept", "headers": []})
        await send(
            {"type": "websocket.send", "text": str(scope["session"].get("user"))}
        )

    def visit(cookie: str) -> None:
        headers = [(b"cookie", cookie.encode())]
        scope = {"type": "websocket", "path": "/", "headers": headers}

        async def send(message):
            said.append(message)

        asyncio.run(SessionMiddleware(app, ring)(scope, None, send))

    visit(f"__Host-session={browser.cookies['__Host-session']}")
    ring.close()
    visit(f"__Host-session={browser.cookies['__Host-session']}")

    assert said[1]["text"] == "alice"
    assert said[-1] == {"type": "websocket.close", "code": 1013}


def test_change_that_cannot_be_kept_is_an_error_and_not_lost(world, browser):
    """
    Where no key can protect, a request that changes the session answers 503; others go on.
    """
    ring = world.ring()

    async def app(scope, receive, send):
        if scope["path"] == "/change":
            scope["session"]["user"] = "bob"
            ring.close()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    shop = through_asgi(SessionMiddleware(app, ring))

    assert browser.ask(shop, "/look").status == 200
    answer = browser.ask(shop, "/change")
    assert answer.status == 503
    assert b"done" not in answer.body
    assert browser.ask(shop, "/look").status == 200


def test_renewal_that_cannot_be_done_waits(world, browser):
    """
    A session that only wants renewal is not worth an error: it is renewed another time.
    """
    ring = world.ring()
    browser.ask(through_asgi(starlette_app(ring)), "/sign-in")
    world.clock.advance(timedelta(days=5))

    async def app(scope, receive, send):
        user = scope["session"].get("user", "nobody")
        ring.close()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": user.encode()})

    answer = browser.ask(through_asgi(SessionMiddleware(app, ring)), "/")

    assert answer.body == b"alice"
    assert [] == answer.all("Set-Cookie")


def test_key_is_looked_for_beside_the_event_loop(world, browser):
    """
    While one request waits for the store, the event loop serves others.
    """
    blue, green = world.ring(), world.ring()
    blue.rotate(immediate=True)
    browser.ask(through_asgi(starlette_app(blue)), "/sign-in")
    cookie = f"__Host-session={browser.cookies['__Host-session']}"
    world.store.gate = threading.Event()
    app = starlette_app(green)

    async def ask(headers):
        said = []
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": headers,
            "query_string": b"",
            "root_path": "",
        }

        async def receive():
            return {"type": "http.request", "body": b""}

        async def send(message):
            said.append(message)

        await app(scope, receive, send)
        return said[1]["body"]

    async def both():
        waiting = asyncio.create_task(ask([(b"cookie", cookie.encode())]))
        other = await ask([])
        done = waiting.done()
        world.store.gate.set()
        return other, done, await waiting

    other, was_done, found = asyncio.run(both())

    assert other == b'{"user":null}'
    assert not was_done
    assert found == b'{"user":"alice"}'


def test_plain_http_works_when_it_is_asked_for(world, browser):
    """
    Development over http has a cookie that browsers send back there.
    """
    app = starlette_app(world.ring(), cookie=Cookie.for_plain_http())
    with on_uvicorn(app) as shop:
        (line,) = browser.ask(shop, "/sign-in").all("Set-Cookie")
        found = browser.ask(shop, "/").json

    assert "Secure" not in line
    assert line.startswith("session=")
    assert {"user": "alice"} == found


def test_session_that_holds_what_it_must_not_is_the_applications_fault(world):
    """
    What has no place in JSON is told to the application; no broken session is set.
    """

    async def app(scope, receive, send):
        scope["session"]["thing"] = object()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    with pytest.raises(TypeError, match="object"):
        Browser().ask(through_asgi(SessionMiddleware(app, world.ring())), "/")


def test_large_form_brings_its_token_in_the_header(world, browser):
    """
    A form over 1 MB is not looked into: with the header it passes, without it it does not.
    """
    shop = through_asgi(starlette_app(world.ring()))
    token = browser.ask(shop, "/form").body.decode()
    body = as_form(csrf_token=token, text="x" * 1_100_000)
    header = [("X-CSRF-Token", token)]

    assert browser.post(shop, "/form", body).status == 403
    answer = browser.ask(shop, "/form", method="POST", headers=header, body=body)
    assert answer.status == 200
    assert len(answer.body) == len(body)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"a&" * 500_000),
        ("application/x-www-form-urlencoded", b"csrf_token=" * 90_000),
        ("multipart/form-data; boundary=b", b"--b\r\n" * 200_000),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" * 20_000,
        ),
        ("multipart/form-data; boundary=b", b"content-disposition:;" * 45_000),
        ("multipart/form-data", b"x"),
    ],
    ids=["pairs", "one pair", "parts", "nested", "head", "no boundary"],
)
def test_hostile_forms_cost_no_more_than_their_size(world, kind, body):
    """
    Forms made to be slow to parse are searched in a moment, and refused (attack: work for free).
    """
    shop = through_asgi(starlette_app(world.ring()))
    began = time.process_time()

    answer = Browser().ask(
        shop, "/form", method="POST", body=body, headers=[("Content-Type", kind)]
    )

    assert answer.status == 403
    assert time.process_time() - began < 2


def test_body_in_many_pieces_is_put_together(world, browser):
    """
    A form that comes in small pieces is the same form.
    """
    app = starlette_app(world.ring())
    token = browser.ask(through_asgi(app), "/form").body.decode()
    pieces = [bytes([octet]) for octet in as_form(csrf_token=token)]
    kept = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    said = []

    async def receive():
        body = pieces.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(pieces)}

    async def send(message):
        said.append(message)

    headers = [
        (b"cookie", kept.encode()),
        (b"content-type", b"Application/X-WWW-Form-Urlencoded; charset=utf-8"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/form", "headers": headers}
    asyncio.run(app(scope | {"query_string": b"", "root_path": ""}, receive, send))

    assert said[0]["status"] == 200


@pytest.mark.parametrize(
    ("path", "whole"), [("/form", 200), ("/.kagimori/peer", 401)], ids=["form", "peer"]
)
def test_body_that_ends_too_soon_is_no_body(world, browser, path, whole):
    """
    A client that leaves in the middle of a form has not sent the half of it; the whole passes.
    """
    app = starlette_app(world.ring())
    token = browser.ask(through_asgi(app), "/form").body.decode()
    kept = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    headers = [
        (b"cookie", kept.encode()),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}

    def ask(end: dict) -> list[dict]:
        half = as_form(csrf_token=token) + b"&amount=10"
        asked = [{"type": "http.request", "body": half, "more_body": True}, end]
        said: list[dict] = []

        async def receive():
            return asked.pop(0)

        async def send(message):
            said.append(message)

        asyncio.run(app(scope | {"query_string": b"", "root_path": ""}, receive, send))
        return said

    assert [] == ask({"type": "http.disconnect"})
    assert whole == ask({"type": "http.request", "body": b"0"})[0]["status"]


def test_middleware_that_is_missing_is_told(world):
    """
    A token cannot be drawn without both middlewares, and the error says which is missing.
    """
    ring = world.ring()
    found = []

    async def app(scope, receive, send):
        request = type("Request", (), {"scope": scope})()
        try:
            csrf_token(request)
        except ConfigError as error:
            found.append(str(error))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    Browser().ask(through_asgi(SessionMiddleware(app, ring)), "/")
    Browser().ask(through_asgi(CsrfMiddleware(app, ring)), "/")
    Browser().ask(through_asgi(SessionMiddleware(CsrfMiddleware(app, ring), ring)), "/")

    assert len(found) == 2
    assert "CsrfMiddleware" in found[0]
    assert "SessionMiddleware" in found[1]


def test_closed_ring_is_a_fault_of_the_server(world, browser):
    """
    A ring that was closed answers 503 to whoever has a session, and signs nobody out.
    """
    ring = world.ring()
    shop = through_asgi(starlette_app(ring))
    browser.ask(shop, "/sign-in")
    kept = dict(browser.cookies)
    ring.close()

    assert browser.ask(shop, "/").status == 503
    assert kept == browser.cookies
    with pytest.raises(KeyRingError):
        _ = ring.current_key_id


@pytest.mark.parametrize(
    ("token", "lifetime"), [("short", 1), ("", 0)], ids=["token", "lifetime"]
)
def test_wrong_settings_show_before_the_first_request(
    world, monkeypatch, token, lifetime
):
    """
    What is wrong with the settings is an error of the start, and not of each request.
    """
    monkeypatch.setenv("KAGIMORI_PEER_TOKEN", "")
    fastapi_app(world.ring(), lifetime=timedelta(days=1))
    monkeypatch.setenv("KAGIMORI_PEER_TOKEN", token)

    with pytest.raises(ConfigError):
        fastapi_app(world.ring(), lifetime=timedelta(days=lifetime))
