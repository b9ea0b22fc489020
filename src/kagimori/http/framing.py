"""
The first line of a request, and the answer of a connection that refuses one.

Rules of this module:

1. A target is a path, or has an authority that then takes the place of ``Host`` (RFC 9112 section
   3.2.2). Anything else is refused.
2. A refusal is an error answer like every other, with an id and without a word of the peer's.
"""

from __future__ import annotations

import secrets

import httptools

from kagimori.http.cycle import STATUS_LINES, Headers


def read_target(target: bytes, headers: Headers) -> tuple[bytes, bytes] | None:
    """
    Return path and query of a request's target, ``None`` if it is none that we serve.

    Args:
        headers: of the request; the ``Host`` in them is replaced where the target has one.
    """
    if b"#" in target or not target.isascii():
        return None
    if not target.startswith(b"/"):
        target = _absolute(target, headers)
        if not target:
            return None
    path, _, query = target.partition(b"?")
    return path, query


def _absolute(target: bytes, headers: Headers) -> bytes:
    if target == b"*":
        return b"/*"
    try:
        parsed = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return b""
    if parsed.schema not in (b"http", b"https") or not parsed.host:
        return b""
    host: bytes = parsed.host
    if parsed.port:
        host += b":%d" % parsed.port
    headers[:] = [(name, value) for name, value in headers if name != b"host"]
    headers.append((b"host", host))
    path: bytes = parsed.path or b"/"
    return path + (b"?" + parsed.query if parsed.query else b"")


def refusal(status: int, reason: str) -> bytes:
    """
    Return a whole answer that ends the connection.
    """
    body = b'{"error":"invalid_request","error_description":"%b"}' % reason.encode()
    return (
        STATUS_LINES[status]
        + b"content-type: application/json\r\n"
        + b"cache-control: no-store\r\n"
        + b"x-content-type-options: nosniff\r\n"
        + b"x-request-id: %b\r\n" % secrets.token_hex(8).encode()
        + b"content-length: %d\r\n" % len(body)
        + b"connection: close\r\n\r\n"
        + body
    )
