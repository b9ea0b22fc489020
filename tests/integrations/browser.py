"""
A browser that keeps cookies as RFC 6265bis asks, and talks to an application of any framework.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from werkzeug.test import Client


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str:
        return ", ".join(self.all(name))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Send = Callable[[str, str, list[tuple[str, str]], bytes], Answer]


def accepted(line: str) -> tuple[str, str, bool]:
    """
    Return name, value and whether it stays, of a Set-Cookie that browsers accept.
    """
    pair, *attributes = line.strip().split("; ")
    name, _, value = pair.partition("=")
    rest = {
        key.lower(): text for key, _, text in (a.partition("=") for a in attributes)
    }
    assert len(pair) <= 4096
    assert len(line) <= 4096
    if name.startswith("__Host-"):
        assert "secure" in rest
        assert rest["path"] == "/"
        assert "domain" not in rest
    return name, value.strip('"'), rest.get("max-age") != "0"


@dataclass
class Browser:
    """
    Sends its cookies to whatever application stands behind the address now.
    """

    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        send: Send,
        path: str,
        *,
        method: str = "GET",
        headers: list[tuple[str, str]] | None = None,
        body: bytes = b"",
    ) -> Answer:
        lines = list(headers or ())
        if self.cookies:
            jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            lines.append(("Cookie", jar))
        answer = send(method, path, lines, body)
        for line in answer.all("Set-Cookie"):
            name, value, stays = accepted(line)
            if stays:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return answer

    def post(self, send: Send, path: str, body: bytes, **options: Any) -> Answer:
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        return self.ask(send, path, method="POST", body=body, headers=[kind], **options)


def through_asgi(app: Any) -> Send:
    """
    Return a way to an ASGI application, without a socket.
    """

    def send(method: str, path: str, headers: Any, body: bytes) -> Answer:
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers],
            "server": ("shop.example", 443),
            "client": ("127.0.0.1", 1),
        }
        said: list[Any] = []
        asked = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return asked.pop() if asked else {"type": "http.disconnect"}

        async def reply(message: Any) -> None:
            said.append(message)

        asyncio.run(app(scope, receive, reply))
        start = said[0]
        lines = [(k.decode(), v.decode("latin-1")) for k, v in start["headers"]]
        return Answer(
            start["status"], lines, b"".join(m.get("body", b"") for m in said[1:])
        )

    return send


def through_wsgi(app: Any) -> Send:
    """
    Return a way to a WSGI application.
    """

    def send(method: str, path: str, headers: Any, body: bytes) -> Answer:
        client = Client(app, use_cookies=False)
        found = client.open(
            path,
            method=method,
            headers=headers,
            data=body,
            base_url="https://shop.example",
        )
        lines = [(name, value.strip()) for name, value in found.headers]
        return Answer(found.status_code, lines, found.data)

    return send


@contextmanager
def on_uvicorn(app: Any) -> Iterator[Send]:
    """
    Serve an ASGI application on a real socket; yield the way to it.
    """
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]

        def send(method: str, path: str, headers: Any, body: bytes) -> Answer:
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                link.request(method, path, body, dict(headers))
                found = link.getresponse()
                return Answer(found.status, found.getheaders(), found.read())
            finally:
                link.close()

        yield send
    finally:
        server.should_exit = True
        thread.join(20)
