"""
An issuer's JWKS address on loopback that does what a test wants, and counts its visitors.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Publisher:
    """
    Answers each request as `answer` does; the default is `document` as JSON.
    """

    def __init__(self, *keys, tls=None):
        self.document = {"keys": [key.public().to_dict() for key in keys]}
        self.answer = self.publish
        self.requests = []
        self.gate = threading.Event()
        self.gate.set()
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                publisher.requests.append(self.path)
                publisher.gate.wait(10)
                try:
                    publisher.answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, *args):
                """
                Say nothing.
                """

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.scheme = "http"
        if tls is not None:
            self.scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        # A failed handshake is the client's affair.
        self._server.handle_error = lambda *args: None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self._server.server_port}/keys?a=b"

    def publish(self, request, body=None, status=200, **headers):
        body = json.dumps(self.document).encode() if body is None else body
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
