"""
One request on its way through the application, and the one place where answers are made.

Rules of this module:

1. Every answer names its request (``X-Request-Id``, ours; an incoming one is never believed) and
   says how it may be cached (attack S3). Header fields that many share are encoded once.
2. An error answer is JSON with ``error`` and ``error_description`` (RFC 6749 section 5.2), also
   where no OAuth endpoint made it.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

import msgspec
from starlette.types import Receive, Scope, Send

from kagimori.errors import KagimoriError, OAuthError
from kagimori.http.cycle import CYCLE, Cycle
from kagimori.oauth.faults import translate
from kagimori.oauth.requests import TenantContext

Header = tuple[bytes, bytes]


class HeaderSet:
    """
    Header fields that many answers share, encoded once.

    Attributes:
        block: the fields as they stand on the wire.

    Raises:
        ValueError: a field holds a line end.
    """

    __slots__ = ("_fields", "block")

    def __init__(self, *fields: Header) -> None:
        self._fields = fields
        self.block = encode_fields(fields)

    def __iter__(self) -> Iterator[Header]:
        return iter(self._fields)


def encode_fields(fields: Iterable[Header]) -> bytes:
    """
    Return header fields as they stand on the wire.

    Raises:
        ValueError: a field holds a line end, by which somebody would write answers of their own.
    """
    lines = [b"%b: %b\r\n" % field for field in fields]
    block = b"".join(lines)
    if not len(lines) == block.count(b"\n") == block.count(b"\r"):
        raise ValueError("a header field holds a line end")
    return block


_COMMON: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_JSON: Header = (b"content-type", b"application/json")

NO_STORE = HeaderSet(
    (b"cache-control", b"no-store"),
    (b"pragma", b"no-cache"),
    *_COMMON,
)
"""Headers of every answer that holds something secret, or an error."""

JSON_NO_STORE = HeaderSet(_JSON, *NO_STORE)
"""The same for JSON."""

TEXT_NO_STORE = HeaderSet(
    (b"content-type", b"text/plain; charset=utf-8"),
    *NO_STORE,
)
"""The same for text."""

ANY_ORIGIN: Header = (b"access-control-allow-origin", b"*")

_encode = msgspec.json.Encoder().encode


def public(max_age: int, etag: bytes, content_type: bytes) -> HeaderSet:
    """
    Return the headers of a document that anyone may keep for `max_age` seconds.
    """
    return HeaderSet(
        (b"content-type", content_type),
        (b"cache-control", b"public, max-age=%d" % max_age),
        (b"etag", etag),
        *_COMMON,
        ANY_ORIGIN,
    )


class Disconnected(Exception):  # noqa: N818 - no error: the peer left
    """
    The peer is gone, so no answer is due.
    """


class Exchange:
    """
    One request and its answer.

    Attributes:
        scope: the ASGI scope.
        headers: the request's header fields; one that may stand once only stands once.
        request_id: what the answer and the log name the request by.
        now: the instant of the request, read once.
        address: where it came from, proxies seen through.
        tenant: whose endpoint it is for; ``None`` on the admin listener.
        route: the name of the endpoint, for metrics.
        status: what was answered; 0 while nothing was.
        origin: the value of ``Access-Control-Allow-Origin`` for this answer.
    """

    __slots__ = (
        "_cycle",
        "_receive",
        "_send",
        "address",
        "headers",
        "now",
        "origin",
        "request_id",
        "route",
        "scope",
        "status",
        "tenant",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, now: datetime
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        extensions = scope.get("extensions")
        self._cycle: Cycle | None = extensions.get(CYCLE) if extensions else None
        self.request_id = request_id
        self.now = now
        self.headers: dict[bytes, bytes] = {}
        self.address = ""
        self.tenant: TenantContext | None = None
        self.route = "unknown"
        self.status = 0
        self.origin: bytes | None = None

    async def body(self, limit: int) -> bytes:
        """
        Return the body of the request.

        Raises:
            OAuthError: 413 ``invalid_request``: it is larger than `limit` bytes.
            Disconnected: the peer left before it was whole.
        """
        whole = None if self._cycle is None else self._cycle.take()
        if whole is not None:
            if len(whole) > limit:
                raise _too_large()
            return whole
        length = self.headers.get(b"content-length")
        # A number of thousands of digits is not worth converting.
        if length and length.isdigit() and (len(length) > 12 or int(length) > limit):
            raise _too_large()
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body: bytes = message["body"]
        if not message.get("more_body"):
            if len(body) > limit:
                raise _too_large()
            return body
        parts = [body]
        size = len(body)
        while message.get("more_body"):
            if size > limit:
                raise _too_large()
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            parts.append(message["body"])
            size += len(parts[-1])
        if size > limit:
            raise _too_large()
        return b"".join(parts)

    async def answer(
        self,
        status: int,
        headers: HeaderSet,
        body: bytes = b"",
        extra: tuple[Header, ...] = (),
    ) -> None:
        """
        Send the answer.
        """
        self.status = status
        if self.origin is not None:
            extra = (
                *extra,
                (b"access-control-allow-origin", self.origin),
                (b"vary", b"Origin"),
            )
        request_id = self.request_id.encode("ascii")
        if self._cycle is not None:
            block = b"%bx-request-id: %b\r\n" % (headers.block, request_id)
            if extra:
                block += encode_fields(extra)
            if self._cycle.answer(status, block, body):
                return
        fields = [*headers, (b"x-request-id", request_id), *extra]
        if status not in (204, 304):
            fields.append((b"content-length", b"%d" % len(body)))
        send = self._send
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def fail(
        self,
        status: int,
        error: str,
        description: str,
        extra: tuple[Header, ...] = (),
    ) -> None:
        """
        Send an error answer.
        """
        body = _encode({"error": error, "error_description": description})
        await self.answer(status, JSON_NO_STORE, body, extra)

    async def refuse(self, error: KagimoriError) -> None:
        """
        Send the answer that an error of the domain stands for.

        A store or a ring that does not answer is never the client's fault (REV-5): it is told
        to come back, and keeps its tokens.
        """
        error = translate(error)
        extra: tuple[Header, ...] = ()
        if error.challenge is not None:
            extra += ((b"www-authenticate", _header_value(error.challenge)),)
        if error.retry_after is not None:
            extra += ((b"retry-after", b"%d" % error.retry_after),)
        await self.fail(
            error.status,
            error.error,
            _printable(error.description or error.error),
            extra,
        )


def request_ids() -> Callable[[], str]:
    """
    Return a source of request ids: random for the process, counted within it.
    """
    prefix = secrets.token_hex(5)
    counter = itertools.count(1)
    return lambda: f"{prefix}{next(counter):08x}"


def _printable(text: str) -> str:
    # RFC 6749 section 5.2: %x20-21 / %x23-5B / %x5D-7E.
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)


def _header_value(text: str) -> bytes:
    return "".join(c if " " <= c <= "~" else "?" for c in text).encode("ascii")


def _too_large() -> OAuthError:
    return OAuthError("invalid_request", "The body is too large.", status=413)
