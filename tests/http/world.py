"""
A demo world behind the real application, asked without a network and by a clock of our own.
"""

from __future__ import annotations

import atexit
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from kagimori.clock import OffsetClock, SystemClock
from kagimori.compose import Installation, open_installation
from kagimori.events import FanOut
from kagimori.founding import demo_settings, open_demo
from kagimori.http.app import make_admin_app, make_app
from kagimori.http.live import Live
from kagimori.http.metrics import Metrics
from kagimori.http.places import Places
from kagimori.oauth.throttle import ThrottleLimits
from kagimori.settings import read_settings
from kagimori.testing.clock import FixedClock
from kagimori.testing.spy_store import SpyStore

ISSUER = "http://localhost:3000"
TESTCLIENT = "Basic " + base64.b64encode(b"testclient:secret").decode()
MACHINE = "Basic " + base64.b64encode(b"machine:secret").decode()
PASSWORD = {"grant_type": "password", "username": "test", "password": "test"}


_templates: dict[bool, Path] = {}


async def template(*, today=False) -> Path:
    """
    Return a demo folder that is made once in a run and copied by every test.

    Args:
        today: made by this machine's clock, for real servers.
    """
    if today not in _templates:
        parent = tempfile.mkdtemp(prefix="kagimori-world-")
        atexit.register(shutil.rmtree, parent, ignore_errors=True)
        folder = Path(parent) / "data"
        settings = demo_settings(folder, {})
        clock = SystemClock() if today else FixedClock()
        installation = await open_demo(settings, clock=clock)
        await installation.start()
        await installation.beat()
        await installation.close()
        _templates[today] = folder
    return _templates[today]


class Recorder:
    """
    Remembers events.
    """

    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)

    def named(self, name):
        return [event for event in self.events if event.name == name]


class Answer:
    """
    What the application answered.
    """

    def __init__(self, status, headers, body):
        self.status = status
        self.pairs = [(n.decode(), v.decode()) for n, v in headers]
        self.headers = dict(self.pairs)
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"Answer({self.status}, {self.body[:200]!r})"


class World:
    """
    The application, its installation, and what stands around them.
    """

    def __init__(self, installation, clock, spy, recorder, metrics):
        self.installation = installation
        self.clock = clock
        self.spy = spy
        self.recorder = recorder
        self.metrics = metrics
        self.live = Live()
        self.live.serve(installation)
        settings = installation.settings
        self.places = Places(settings, installation.issuers)
        self.places.set_hosts(installation.hosts)
        clock_ = installation.clock
        self.app = make_app(self.live, settings, clock_, self.metrics, self.places)
        self.admin = make_admin_app(self.live, clock_, self.metrics)

    async def send(self, method, path, *, app=None, body=b"", headers=(), host=None):
        """
        Send one request; `headers` are pairs, `host` replaces the usual one.
        """
        path, _, query = path.partition("?")
        raw = [(b"host", (host or "localhost:3000").encode())]
        raw += [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 3000),
            "client": ("127.0.0.1", 50000),
            "scheme": "http",
            "method": method,
            "root_path": "",
            "path": path,
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": raw,
        }
        parts = [body] if isinstance(body, bytes) else list(body)
        messages = [
            {"type": "http.request", "body": part, "more_body": n + 1 < len(parts)}
            for n, part in enumerate(parts)
        ]
        sent = []

        async def receive():
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await (app or self.app)(scope, receive, send)
        if not sent:
            return None
        content = b"".join(m["body"] for m in sent[1:])
        return Answer(sent[0]["status"], sent[0]["headers"], content)

    async def get(self, path, **more):
        return await self.send("GET", path, **more)

    async def post(self, path, form=None, *, authorization=None, headers=(), **more):
        """
        Post a form: a mapping, pairs, or bytes as they are.
        """
        body = form if isinstance(form, bytes) else urlencode(form or {}).encode()
        fields = [("content-type", "application/x-www-form-urlencoded"), *headers]
        if authorization:
            fields.append(("authorization", authorization))
        return await self.send("POST", path, body=body, headers=fields, **more)

    async def sign_in(self):
        answer = await self.post("/oauth/token", PASSWORD, authorization=TESTCLIENT)
        assert 200 == answer.status, answer
        return answer.json

    async def refresh(self, token, authorization=TESTCLIENT, **more):
        form = {"refresh_token": token, "grant_type": "refresh_token", **more}
        return await self.post("/oauth/token", form, authorization=authorization)

    async def machine(self, **more):
        form = {"grant_type": "client_credentials", **more}
        answer = await self.post("/oauth/token", form, authorization=MACHINE)
        assert 200 == answer.status, answer
        return answer.json


@asynccontextmanager
async def world(folder: Path, change=None, **settings) -> AsyncIterator[World]:
    """
    Open a copy of the template in `folder`.

    Args:
        change: takes the settings and returns others.
    """
    data = folder / "data"
    if not data.exists():
        shutil.copytree(await template(), data)
    limits = ThrottleLimits(
        subject_per_minute=10**6, address_per_minute=10**6, account_per_hour=10**6
    )
    found = msgspec.structs.replace(
        read_settings(data, {}), throttle=limits, **settings
    )
    if change is not None:
        found = change(found)
    clock = FixedClock()
    recorder = Recorder()
    opened = open_installation(found, clock=clock, events=recorder)
    spy = SpyStore(opened.store)
    metrics = Metrics()
    events = FanOut(recorder, metrics)
    installation = Installation(
        found, OffsetClock(clock), events, ring=opened.ring, store=spy
    )
    opened.oauth.close()
    try:
        await installation.start()
        yield World(installation, clock, spy, recorder, metrics)
    finally:
        await installation.close()


def claims(token):
    """
    Return what a JWT says, unverified.
    """
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def header(token):
    """
    Return the header of a JWT, unverified.
    """
    part = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
