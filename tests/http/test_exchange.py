"""
Answers: the short way past ASGI's messages sends what the long way does.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from kagimori.errors import OAuthError
from kagimori.http.cycle import CYCLE, Cycle
from kagimori.http.exchange import (
    JSON_NO_STORE,
    NO_STORE,
    TEXT_NO_STORE,
    Disconnected,
    Exchange,
    HeaderSet,
    public,
    request_ids,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Peer:
    """
    A connection that remembers what was written.
    """

    def __init__(self, *, paused=False):
        self.write_paused = paused
        self.written = b""
        self.finished = 0

    def write(self, data):
        self.written += data

    async def drained(self):
        self.write_paused = False

    def wants_more(self):
        self.wanted = True

    def default_headers(self):
        return b"date: today\r\n"

    def answered(self):
        self.finished += 1


def exchanged(work, *, knows, method="GET", body=(b"",), keep_alive=True, paused=False):
    """
    Let an application work on an exchange that knows its cycle or not; return the peer.
    """
    peer = Peer(paused=paused)
    scope = {"type": "http", "method": method, "headers": []}
    cycle = Cycle(peer, scope, keep_alive=keep_alive, expects_continue=False)
    if knows:
        scope["extensions"] = {CYCLE: cycle}
    for part in body:
        cycle.feed(part)
    cycle.end()
    exchange = Exchange(scope, cycle.receive, cycle.send, "id", NOW)
    asyncio.run(work(exchange))
    return peer


ANSWERS = {
    "json": (200, JSON_NO_STORE, b'{"a":1}', ()),
    "empty": (200, NO_STORE, b"", ()),
    "text": (401, TEXT_NO_STORE, b"no", ((b"www-authenticate", b"Bearer"),)),
    "document": (200, public(5, b'"e"', b"application/json"), b"{}", ()),
    "not modified": (304, public(5, b'"e"', b"application/json"), b"", ()),
    "preflight": (204, HeaderSet(*NO_STORE, (b"allow", b"POST")), b"", ()),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("origin", [None, b"https://a.example"])
def test_both_ways_send_the_same_bytes(name, method, keep_alive, origin):
    """
    Whether the application knows its cycle or speaks ASGI, the peer sees one answer.
    """
    status, headers, body, extra = ANSWERS[name]

    async def work(exchange):
        exchange.origin = origin
        await exchange.answer(status, headers, body, extra)
        assert status == exchange.status

    def fields(peer):
        head, _, rest = peer.written.partition(b"\r\n\r\n")
        return sorted(head.split(b"\r\n")), rest

    short = exchanged(work, knows=True, method=method, keep_alive=keep_alive)
    long = exchanged(work, knows=False, method=method, keep_alive=keep_alive)

    assert fields(short) == fields(long)
    assert 1 == short.finished == long.finished
    assert b"x-request-id: id\r\n" in short.written
    assert (b"connection: close" in short.written) == (not keep_alive)
    assert (b"content-length" in short.written) == (status not in (204, 304))
    assert short.written.endswith(b"\r\n\r\n" + (body if method == "GET" else b""))


def test_a_peer_that_takes_nothing_is_waited_for():
    """
    While the peer's buffers are full the answer waits, and is sent once.
    """

    async def work(exchange):
        await exchange.answer(*ANSWERS["json"])

    peer = exchanged(work, knows=True, paused=True)

    assert 1 == peer.written.count(b"HTTP/1.1 200")
    assert 1 == peer.finished


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
def test_a_line_end_in_a_header_is_never_encoded(value):
    """
    Neither shared fields nor those of one answer may hold one.
    """

    async def work(exchange):
        with pytest.raises(ValueError, match="line end"):
            await exchange.answer(200, NO_STORE, b"", ((b"x", value),))

    with pytest.raises(ValueError, match="line end"):
        HeaderSet((b"x", value))
    assert b"" == exchanged(work, knows=True).written


@pytest.mark.parametrize("knows", [True, False])
def test_S1_the_body_is_taken_once_and_bounded(knows):
    """
    The limit holds either way; a body that was taken is not there a second time.
    """
    got = []

    async def work(exchange):
        got.append(await exchange.body(6))

    async def too_much(exchange):
        with pytest.raises(OAuthError, match="too large"):
            await exchange.body(5)

    exchanged(work, knows=knows, body=(b"abc", b"def"))
    exchanged(work, knows=knows, body=())
    exchanged(too_much, knows=knows, body=(b"abc", b"def"))

    assert [b"abcdef", b""] == got


def test_a_peer_that_left_gives_no_body():
    """
    Then no answer is due.
    """

    async def work(exchange):
        exchange._cycle.disconnect()
        with pytest.raises(Disconnected):
            await exchange.body(100)
        await exchange.answer(*ANSWERS["json"])

    assert b"" == exchanged(work, knows=True).written


def test_texts_of_errors_are_printable_ascii():
    """
    TOK-5: whatever an error says, quotes and foreign characters never leave.
    """

    async def work(exchange):
        await exchange.refuse(
            OAuthError(
                "invalid_request",
                'a "quoted" \\ 鍵\n',
                challenge='Basic realm="é\r\nx: y"',
                retry_after=3,
            )
        )

    written = exchanged(work, knows=True).written

    assert b'"error_description":"a ?quoted? ? ??"' in written
    assert b'www-authenticate: Basic realm="???x: y"\r\n' in written
    assert b"retry-after: 3\r\n" in written


def test_ids_are_unique_and_begin_anew_with_each_process():
    """
    Counted within a process, random between processes.
    """
    one, two = request_ids(), request_ids()

    ids = [one() for _ in range(1000)] + [two() for _ in range(1000)]

    assert 2000 == len(set(ids))
    assert 2 == len({each[:10] for each in ids})
