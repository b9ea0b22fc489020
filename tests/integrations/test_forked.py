"""
Worker processes that were forked after the ring was opened.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

from kagimori.integrations.cookies import Cookie
from kagimori.integrations.sessions import Session, Sessions
from kagimori.opening import open_ring
from tests.integrations.browser import Answer, Browser

APP = """
import os

import flask

import kagimori
from kagimori.integrations.cookies import Cookie
from kagimori.integrations.flask import RingSessionInterface

app = flask.Flask("shop")
ring = kagimori.open_ring()
app.session_interface = RingSessionInterface(ring, cookie=Cookie.for_plain_http())

@app.get("/sign-in")
def sign_in():
    flask.session.sign_in(user="alice")
    return str(os.getpid())

@app.get("/")
def home():
    return {"user": flask.session.get("user"), "worker": os.getpid()}
"""


@pytest.fixture
def variables(tmp_path):
    import os

    return {
        **os.environ,
        "KAGIMORI_RING": f"file://{tmp_path}/ring",
        "KAGIMORI_RING_WRAPPER": "plaintext:",
        "KAGIMORI_RING_APPLICATION": "shop",
    }


@pytest.fixture
def send(tmp_path, variables):
    (tmp_path / "shop.py").write_text(APP, "utf-8")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    def ask(method, path, headers, body):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as link:
            link.request(method, path, body, dict(headers))
            found = link.getresponse()
            return Answer(found.status, found.getheaders(), found.read())

    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--preload", "--workers", "2"),
                *("--bind", f"127.0.0.1:{port}", "shop:app"),
            ],
            cwd=tmp_path,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask("GET", "/", [], b"")
                break
            except OSError:
                assert server.poll() is None, log.read_text("utf-8")
                assert time.monotonic() < deadline, log.read_text("utf-8")
                time.sleep(0.05)
        yield ask
    finally:
        server.terminate()
        server.wait(20)


def test_forked_workers_know_each_others_sessions(tmp_path, send):
    """
    Two gunicorn workers, forked with the ring open, know one session, and a key made elsewhere.
    """
    browser = Browser()
    browser.ask(send, "/sign-in")
    seen = [browser.ask(send, "/").json["user"] for _ in range(20)]
    cookie = Cookie.for_plain_http()
    with closing(
        open_ring(f"file://{tmp_path}/ring", application="shop", wrapper="plaintext:")
    ) as elsewhere:
        elsewhere.rotate(immediate=True)
        session = Session()
        session.sign_in(user="carol")
        (written,) = Sessions(elsewhere, cookie).answer(session).set_cookies

    deadline = time.monotonic() + 30
    workers: set[int] = set()
    while len(workers) < 2:
        assert time.monotonic() < deadline
        # A key that neither worker has seen yet: each looks for it once.
        found = Browser({cookie.name: written.value}).ask(send, "/").json
        assert found["user"] == "carol"
        workers.add(found["worker"])

    assert ["alice"] * 20 == seen
    assert {"user": "alice"}.items() <= browser.ask(send, "/").json.items()
