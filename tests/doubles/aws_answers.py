"""
An endpoint in front of a server that speaks HTTP, which goes wrong as it is told.

What it is not told it passes on. It proves how faults of AWS are taken, and nothing of AWS.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """
    An answer instead of the server's own; with `is_lost` the server's own is made and lost.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_lost: bool = False
    is_cut: bool = False
    is_short: bool = False


LOST = Answer(is_lost=True)
"""The server does what it was asked, and the connection breaks before it can say so."""

SHORT = Answer(is_short=True)
"""The connection breaks in the middle of the server's answer."""

CUT = Answer(is_cut=True)
"""The connection breaks before the server is asked."""


class Faulty:
    """
    The endpoint. `answers` are used up one by one; `requests` are all that came.
    """

    def __init__(self, behind: str):
        self.behind = urlsplit(behind)
        self.answers: list[Answer] = []
        self.requests: list[str] = []
        self.endpoint = ""

    @classmethod
    @contextlib.contextmanager
    def before(cls, behind: str) -> Iterator[Faulty]:
        """
        Serve before the server at the address `behind`.
        """
        faulty = cls(behind)

        class Handler(_Handler):
            owner = faulty

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        faulty.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield faulty
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    # Or boto3 waits a second for the "100 Continue" that older versions do not send.
    protocol_version = "HTTP/1.1"
    owner: Faulty

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        owner = self.owner
        owner.requests.append(f"{self.command} {self.path}")
        planned = owner.answers.pop(0) if owner.answers else None
        if planned is None or planned.is_lost or planned.is_short:
            status, headers, content = self._pass_on(body)
        else:
            status, headers, content = planned.status, planned.headers, planned.body
        if planned is not None and (planned.is_lost or planned.is_cut):
            self.close_connection = True
            return
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if self.command != "HEAD":
            is_short = planned is not None and planned.is_short
            self.wfile.write(content[: len(content) // 2] if is_short else content)

    def __getattr__(self, name: str):
        # The methods' handlers, whatever the method.
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        behind = self.owner.behind
        connection = http.client.HTTPConnection(
            behind.hostname, behind.port, timeout=10
        )
        with contextlib.closing(connection):
            headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def log_message(self, *_: object) -> None:
        """
        Say nothing.
        """
