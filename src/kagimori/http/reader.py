"""
Bytes become requests, within limits (attack S1).

Rules of this module:

1. What the parser keeps to itself counts too: a field or a target that never ends is cut off.
2. What can be framed in two ways is no request: another transfer coding than ``chunked``, a
   target that is no path. The parser itself refuses both lengths together and loose line ends.
3. A field of a trailer never becomes a header.
4. An offer to speak another protocol is declined by not hearing it.
"""

from __future__ import annotations

import enum
from urllib.parse import unquote

import httptools

from kagimori.http.cycle import Headers, Message
from kagimori.http.framing import read_target
from kagimori.settings import Limits

UPGRADES = 4
"""How often a connection may offer another protocol."""


class Phase(enum.Enum):
    """
    What a connection waits for.
    """

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    LINGER = "linger"


class RequestReader:
    """
    The half of a connection that reads heads; `kagimori.http.protocol.Connection` is the other.

    Args:
        limits: what a head may cost.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._headers: Headers = []
        self._head_bytes = 0
        self._raw_bytes = 0
        self._upgrades = 0
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self.url = b""
        self.expects_continue = False
        self.phase = Phase.HEAD

    # --- for the other half to say

    def begin(self) -> None:
        """
        Take note that a request begins.
        """
        raise NotImplementedError

    def accept(self, scope: Message, *, keep_alive: bool) -> None:
        """
        Take a request whose head is whole and sound.
        """
        raise NotImplementedError

    def refuse(self, status: int, reason: str) -> None:
        """
        Refuse what came.
        """
        raise NotImplementedError

    def malformed(self) -> None:
        """
        Refuse what is no HTTP.
        """
        raise NotImplementedError

    # --- reading

    def parse(self, data: bytes) -> bytes | None:
        """
        Feed the parser; return what is to be parsed anew, if anything.
        """
        unfinished = self.phase is Phase.HEAD
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.malformed()
        else:
            if unfinished and self.phase is Phase.HEAD:
                # The parser keeps an unfinished field to itself, however long it grows.
                self._raw_bytes += len(data)
                if self._raw_bytes > self._limits.header_bytes:
                    self.refuse(431, "The header of the request is too large.")
        return None

    # --- the parser

    def on_message_begin(self) -> None:
        """
        Begin a request.
        """
        if self.phase is Phase.LINGER:
            return
        self.begin()
        self.phase = Phase.HEAD
        self.url = b""
        self._headers = []
        self._head_bytes = self._raw_bytes = 0
        self.expects_continue = False

    def on_url(self, url: bytes) -> None:
        """
        Take a part of the target.
        """
        self.url += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """
        Take one header field. A field of a trailer is counted and thrown away.
        """
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.header_bytes:
            self.refuse(431, "The header of the request is too large.")
        elif self.phase is Phase.HEAD:
            name = name.lower()
            if name == b"expect":
                self.expects_continue = value.lower() == b"100-continue"
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                self.refuse(400, "The transfer coding of the request is not known.")
            self._headers.append((name, value))
            if len(self._headers) > self._limits.header_fields:
                self.refuse(431, "The request has too many header fields.")

    def on_headers_complete(self) -> None:
        """
        Hand the request to the application.
        """
        if self.phase is Phase.LINGER:
            return
        if self._head_bytes > self._limits.header_bytes:
            self.refuse(431, "The header of the request is too large.")
            return
        scope = self._scope()
        if scope is None:
            self.refuse(400, "The target of the request cannot be used.")
            return
        if self._parser.should_upgrade():
            # The parser takes what follows for another protocol and would swallow the body.
            return
        self._head_bytes = 0
        self.phase = Phase.BODY
        self.accept(
            scope,
            keep_alive=scope["http_version"] == "1.1"
            and self._parser.should_keep_alive(),
        )

    def _scope(self) -> Message | None:
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            return None
        target = read_target(self.url, self._headers)
        if target is None:
            return None
        raw_path, query = target
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": "http",
            "method": self._parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self._headers,
        }

    def _decline_upgrade(self, rest: bytes) -> bytes | None:
        # RFC 9110 section 7.8: an upgrade may be ignored, and some clients (Java's) offer one
        # with their first request. The head is parsed anew without the offer.
        self._upgrades += 1
        if self._upgrades > UPGRADES:
            self.refuse(
                400, "The connection asks for another protocol again and again."
            )
            return None
        headers = b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, value in self._headers
            if name not in (b"connection", b"upgrade", b"http2-settings")
        )
        method = self._parser.get_method()
        self._parser = httptools.HttpRequestParser(self)
        self.phase = Phase.HEAD
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, self.url, headers, rest)
