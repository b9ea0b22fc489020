"""
A small HTTP server over TLS on loopback, whose owner answers in Python.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Request(NamedTuple):
    """
    A request, its body read.
    """

    method: str
    path: str
    authorization: str | None
    body: bytes


class Response(NamedTuple):
    """
    An answer; its length is added.
    """

    status: int
    body: bytes
    headers: dict[str, str]


class TlsServer:
    """
    A server that can be stopped, with all its connections, and started on the same port again.

    Args:
        folder: where its ``cert.pem`` and ``key.pem`` lie.
        respond: answers, in a thread for each connection.
    """

    def __init__(self, folder: Path, respond: Callable[[Request], Response]) -> None:
        self.port = 0
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._respond = respond
        self._server: ThreadingHTTPServer | None = None
        self._connections: set[socket.socket] = set()

    def start(self) -> None:
        """
        Start it.
        """
        handler = _handler(self._respond, self._connections)
        server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        server.daemon_threads = True
        server.socket = self._tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = server.server_port
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """
        End it, with all connections.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        while self._connections:
            with suppress(OSError):
                self._connections.pop().shutdown(socket.SHUT_RDWR)
        self._thread.join()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """
        Stop it for a while.
        """
        self.stop()
        try:
            yield
        finally:
            self.start()


def _handler(
    respond: Callable[[Request], Response], connections: set[socket.socket]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.add(self.request)
            self.request.settimeout(60)
            super().setup()

        def handle(self) -> None:
            # A client that goes away, or takes no part in TLS, is its own business.
            with suppress(OSError):
                super().handle()

        def finish(self) -> None:
            connections.discard(self.request)
            with suppress(OSError):
                super().finish()

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            authorization = self.headers.get("Authorization")
            request = Request(self.command, self.path, authorization, body)
            status, data, headers = respond(request)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    return Handler
