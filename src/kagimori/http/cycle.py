"""
One HTTP request and its answer, as an ASGI server sees them.

Rules of this module:

1. An answer that is whole leaves in one write: head and body together. Two writes are two system
   calls, and they were the greatest single cost of a token.
2. A header value that holds a line end is a fault of ours and ends the connection, since it
   would let somebody write an answer of their own.
3. Nothing that the peer does raises here: whoever hangs up gets silence.
4. An application that knows a `Cycle` may take the body and give the answer without the messages
   of ASGI. What it gets and what the peer sees are the same.
"""

from __future__ import annotations

import asyncio
import http
from typing import Any, Protocol

Headers = list[tuple[bytes, bytes]]
Message = dict[str, Any]

DISCONNECT: Message = {"type": "http.disconnect"}

CYCLE = "kagimori.cycle"
"""The extension by which an application finds the `Cycle` of a request, where there is one."""

_BODILESS = frozenset({204, 304})

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in http.HTTPStatus
}


class Peer(Protocol):
    """
    The connection that a cycle belongs to.
    """

    write_paused: bool

    def write(self, data: bytes) -> None:
        """
        Send bytes to the peer.
        """
        ...

    async def drained(self) -> None:
        """
        Wait until the peer has taken enough of what was sent.
        """
        ...

    def wants_more(self) -> None:
        """
        Go on reading: the application is ready for more of the body.
        """
        ...

    def default_headers(self) -> bytes:
        """
        Return the header lines that every answer has, encoded.
        """
        ...

    def answered(self) -> None:
        """
        Take note that the answer is out.
        """
        ...


class Cycle:
    """
    The ASGI side of one request.
    """

    __slots__ = (
        "_chunked",
        "_chunks",
        "_ended",
        "_expects_continue",
        "_head",
        "_peer",
        "_waiter",
        "buffered",
        "complete",
        "disconnected",
        "keep_alive",
        "more_body",
        "scope",
        "started",
    )

    def __init__(
        self, peer: Peer, scope: Message, *, keep_alive: bool, expects_continue: bool
    ) -> None:
        self._peer = peer
        self.scope = scope
        self.keep_alive = keep_alive
        self._expects_continue = expects_continue
        self._chunks: list[bytes] = []
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._head: Message | None = None
        self._chunked = False
        self.buffered = 0
        self.more_body = True
        self.started = False
        self.complete = False
        self.disconnected = False

    # --- from the connection

    def feed(self, body: bytes) -> None:
        """
        Take a part of the request's body.
        """
        self._chunks.append(body)
        self.buffered += len(body)
        self._wake()

    def end(self) -> None:
        """
        Take note that the request's body is whole.
        """
        self.more_body = False
        self._wake()

    def disconnect(self) -> None:
        """
        Take note that the peer is gone, or is given up.
        """
        self.disconnected = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- towards an application that knows it

    def take(self) -> bytes | None:
        """
        Return the body if it is whole and untouched; ``None``: it is to be received.
        """
        if self.more_body or self._ended or self.disconnected:
            return None
        self._ended = True
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def answer(self, status: int, block: bytes, body: bytes) -> bool:
        """
        Send a whole answer at once; say whether that could be done.

        Args:
            block: encoded header lines, without the length; whoever made them has seen to it
                that no value holds a line end.
        """
        peer = self._peer
        if self.disconnected:
            return True
        if self.started or peer.write_paused:
            return False
        parts = [STATUS_LINES[status], peer.default_headers(), block]
        if status not in _BODILESS:
            parts.append(b"content-length: %d\r\n" % len(body))
        if self.more_body:
            # An answer that does not wait for the body ends the connection.
            self.keep_alive = False
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if self.scope["method"] != "HEAD":
            parts.append(body)
        peer.write(b"".join(parts))
        self.started = self.complete = True
        peer.answered()
        return True

    # --- towards any application (ASGI)

    async def receive(self) -> Message:
        """
        Return the next part of the body, or that the peer is gone (ASGI).
        """
        if self._expects_continue and self.more_body and not self.disconnected:
            self._expects_continue = False
            self._peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.disconnected or self.complete):
            if not self._ended and (self._chunks or not self.more_body):
                chunks, self._chunks = self._chunks, []
                self.buffered = 0
                self._ended = not self.more_body
                return {
                    "type": "http.request",
                    "body": chunks[0] if len(chunks) == 1 else b"".join(chunks),
                    "more_body": self.more_body,
                }
            self._peer.wants_more()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return DISCONNECT

    async def send(self, message: Message) -> None:
        """
        Send the head or a part of the body of the answer (ASGI).

        Raises:
            RuntimeError: the application broke the order of ASGI messages, or a header of its
                holds a line end.
        """
        if self.disconnected:
            return
        if self._peer.write_paused:
            await self._peer.drained()
        kind = message["type"]
        if not self.started:
            if kind != "http.response.start":
                raise RuntimeError(f"{kind} came before the answer's head")
            self.started = True
            self._head = message
            return
        if kind != "http.response.body" or self.complete:
            raise RuntimeError(f"{kind} came after the answer was whole")
        body: bytes = message.get("body", b"")
        last = not message.get("more_body", False)
        head, self._head = self._head, None
        parts: list[bytes] = []
        if head is not None:
            self.started = False  # until it is known that the head can be sent
            parts = self._encode_head(head, len(body), last=last)
            self.started = True
        if self.scope["method"] != "HEAD":
            if self._chunked:
                if body:
                    parts += (b"%x\r\n" % len(body), body, b"\r\n")
                if last:
                    parts.append(b"0\r\n\r\n")
            else:
                parts.append(body)
        self._peer.write(b"".join(parts))
        if last:
            self.complete = True
            self._peer.answered()

    def _encode_head(self, head: Message, length: int, *, last: bool) -> list[bytes]:
        status: int = head["status"]
        lines: list[bytes] = []
        count = 0
        sized = status in _BODILESS
        for name, value in head.get("headers") or ():
            if name == b"connection":
                self.keep_alive = False
                continue
            if name == b"content-length":
                sized = True
            count += 1
            lines += (name, b": ", value, b"\r\n")
        block = b"".join(lines)
        if not count == block.count(b"\n") == block.count(b"\r"):
            raise RuntimeError("a header of the answer holds a line end")
        parts = [STATUS_LINES[status], self._peer.default_headers(), block]
        if not sized:
            if last:
                parts.append(b"content-length: %d\r\n" % length)
            else:
                self._chunked = self.scope["method"] != "HEAD"
                parts.append(b"transfer-encoding: chunked\r\n")
        if self.more_body:
            # An answer that does not wait for the body ends the connection.
            self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        return parts
