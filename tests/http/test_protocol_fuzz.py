"""
Any bytes in any pieces at a connection (attacks S1, S6).

A transport in memory takes the place of the socket, so that thousands of conversations fit.
"""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from kagimori.http.protocol import Connection
from kagimori.settings import Limits

EXAMPLES = settings().max_examples
"""100 in `make test`, 10,000 in `make soak`."""

LIMITS = Limits(header_bytes=400, header_fields=12, body_bytes=1024)


class Wire:
    """
    A transport that remembers what was written.
    """

    def __init__(self):
        self.written = bytearray()
        self.closing = self.ended = False
        self.reading = True

    def get_extra_info(self, name):
        return ("127.0.0.1", 1)

    def write(self, data):
        if not self.closing:
            self.written += data

    def write_eof(self):
        self.ended = True

    def can_write_eof(self):
        return True

    def close(self):
        self.closing = True

    abort = close

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class Seen:
    """
    An application that answers with the length of the body; remembers what it was asked.
    """

    def __init__(self):
        self.requests = []

    async def __call__(self, scope, receive, send):
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            if not message["more_body"]:
                break
        self.requests.append((scope["method"], scope["path"], size))
        body = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def converse(pieces):
    """
    Hand pieces to a connection as a transport would; return what was written and asked.
    """

    async def scene():
        app = Seen()
        state = SimpleNamespace(
            connections=set(), tasks=set(), default_headers=[], total_requests=0
        )
        connection = Connection(
            SimpleNamespace(loaded_app=app), state, {}, limits=LIMITS
        )
        wire = Wire()
        connection.connection_made(wire)
        for piece in pieces:
            for _ in range(50):
                # A transport hands on nothing while reading is paused.
                if wire.reading or wire.closing:
                    break
                await asyncio.sleep(0)
            if wire.closing or not wire.reading:
                break
            connection.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        held = connection._raw_bytes, len(connection._headers)
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert not state.connections
        return bytes(wire.written), app.requests, held

    return asyncio.run(scene())


def statuses(written):
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", written)]


TOKEN = st.text("abcXYZ-:;, \t\x00\x7f\xff\r\n()<>@", max_size=12)
LINE = st.builds(
    lambda name, sep, value, end: f"{name}{sep}{value}{end}".encode("latin-1"),
    st.sampled_from(
        [
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Upgrade",
            "Expect",
            "Content-Type",
            "X",
            "",
            " X",
            "Host ",
        ]
    ),
    st.sampled_from([": ", ":", " : ", "", "\t:"]),
    st.one_of(
        TOKEN,
        st.sampled_from(
            [
                "a",
                "0",
                "5",
                "-1",
                "+5",
                "99999999999999999999",
                "chunked",
                "gzip, chunked",
                "close",
                "keep-alive",
                "upgrade",
                "h2c",
                "websocket",
                "100-continue",
            ]
        ),
    ),
    st.sampled_from(["\r\n", "\n", "\r", "\r\n "]),
)
REQUEST = st.builds(
    lambda method, target, version, lines, body: (
        f"{method} {target} {version}\r\n".encode("latin-1")
        + b"".join(lines)
        + b"\r\n"
        + body
    ),
    st.sampled_from(
        ["GET", "POST", "HEAD", "OPTIONS", "CONNECT", "PRI", "get", "M-SEARCH", ""]
    ),
    st.one_of(
        st.sampled_from(
            [
                "/",
                "/oauth/token",
                "*",
                "http://a/b",
                "//x",
                "/%zz",
                "/a b",
                "a:1",
                "/?a=1#f",
                "",
            ]
        ),
        st.text(max_size=6).map(lambda t: "/" + t.encode("utf-8").decode("latin-1")),
    ),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "http/1.1", ""]),
    st.lists(LINE, max_size=6),
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [
                b"",
                b"5\r\nhello\r\n0\r\n\r\n",
                b"0\r\n\r\n",
                b"0\r\nX: y\r\n\r\n",
                b"zz\r\n",
            ]
        ),
    ),
)
STREAM = st.lists(st.one_of(REQUEST, st.binary(max_size=40)), max_size=4).map(b"".join)


def cut(stream, cuts):
    places = sorted({min(place, len(stream)) for place in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(places)]


@settings(max_examples=EXAMPLES * 4)
@given(STREAM, st.lists(st.integers(0, 300), max_size=6))
def test_S6_any_bytes_in_any_pieces_get_a_sound_answer_or_none(stream, cuts):
    """
    Nothing raises; every answer is whole, below 500 and one of ours; memory stays bounded.
    """
    written, asked, (raw, fields) = converse(cut(stream, cuts))

    assert all(status < 500 for status in statuses(written))
    assert len(asked) <= len(statuses(written))
    assert fields <= LIMITS.header_fields + 1
    assert raw <= LIMITS.header_bytes + len(stream)
    for _, path, _ in asked:
        assert path.startswith("/")


@settings(max_examples=EXAMPLES * 2)
@given(
    st.lists(
        st.sampled_from(
            [
                b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
                b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
                (
                    b"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: z\r\n\r\n"
                ),
                b"HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n",
                (
                    b"POST /5 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
                    b"Content-Length: 3\r\n\r\nabc"
                ),
            ]
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(0, 500), max_size=12),
)
def test_S1_how_a_stream_is_cut_never_changes_what_it_means(requests, cuts):
    """
    The same requests are seen in the same order, whole or byte by byte.
    """
    stream = b"".join(requests)
    whole, asked, _ = converse([stream])

    again, cut_asked, _ = converse(cut(stream, cuts))

    assert asked == cut_asked
    assert whole == again
    assert len(requests) == len(asked)


@settings(max_examples=EXAMPLES)
@given(
    st.binary(min_size=1, max_size=64),
    st.sampled_from([b"GET / HTTP/1.1\r\n", b"GET /", b""]),
)
def test_S1_what_never_ends_is_never_kept(filler, start):
    """
    A header without an end is refused once it passes the limit, whatever it consists of.
    """
    filler = filler.replace(b"\n", b"x").replace(b"\r", b"y")
    pieces = [start] + [filler * 8] * 200

    _, asked, (raw, fields) = converse(pieces)

    assert [] == asked
    assert raw <= LIMITS.header_bytes + len(filler) * 8
    assert fields <= LIMITS.header_fields + 1
