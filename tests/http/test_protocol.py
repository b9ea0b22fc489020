"""
The connection: what it takes, what it refuses, and that limits hold (attack S1).
"""

from __future__ import annotations

import asyncio

import pytest

from kagimori.settings import Limits
from tests.http.listening import Echo, listening

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def once(data, limits=None, app=None):
    """
    Send bytes on a connection of their own; return the answer and what the application saw.
    """

    async def run():
        echo = app or Echo()
        async with listening(echo, limits) as server:
            peer = await server.peer()
            await peer.send(data)
            return await peer.answer(), echo.scopes

    return asyncio.run(run())


def test_S1_a_request_is_answered_and_the_connection_stays_open():
    """
    A sound request gets its answer, and a second one on the same connection too.
    """

    async def run():
        async with listening(Echo()) as server:
            peer = await server.peer()
            await peer.send(GET)
            first = await peer.answer()
            await peer.send(
                b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            )
            return first, await peer.answer()

    first, second = asyncio.run(run())

    assert (200, b"GET / ") == (first[0], first[2])
    assert (200, b"POST /x abc") == (second[0], second[2])
    assert "connection" not in second[1]


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"POST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX y: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_S1_what_can_be_framed_in_two_ways_or_none_is_refused(data):
    """
    A request that a proxy might read otherwise gets 400 and the connection ends.
    """
    (status, headers, body), _ = once(data)

    assert 400 == status
    assert "close" == headers["connection"]
    assert "no-store" == headers["cache-control"]
    assert headers["x-request-id"]
    assert b'"error":"invalid_request"' in body


def test_S1_chunked_bodies_are_read_and_trailers_never_become_headers():
    """
    A chunked body arrives whole; a trailer cannot add an Authorization field.
    """
    (status, _, body), scopes = once(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\nAuthorization: Basic x\r\n\r\n"
    )

    assert (200, b"POST / abcde") == (status, body)
    assert [b"host", b"transfer-encoding"] == [n for n, _ in scopes[0]["headers"]]


def test_A17_an_absolute_target_takes_the_place_of_host():
    """
    RFC 9112: the authority of an absolute-form target counts, not Host.
    """
    (status, _, body), scopes = once(
        b"GET http://evil:81/p?q=1 HTTP/1.1\r\nHost: a\r\n\r\n"
    )

    assert (200, b"GET /p ") == (status, body)
    assert [(b"host", b"evil:81")] == scopes[0]["headers"]
    assert b"q=1" == scopes[0]["query_string"]


def test_S1_an_offer_to_upgrade_is_ignored_and_the_body_is_kept():
    """
    Java's client offers h2c with its first request: the request is answered as it stands.
    """

    async def run():
        async with listening(Echo()) as server:
            peer = await server.peer()
            offer = (
                b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 3\r\n\r\nabc"
            )
            await peer.send(offer + GET)
            answers = [await peer.answer(), await peer.answer()]
            await peer.send(offer * 10)
            return answers, await peer.rest()

    answers, rest = asyncio.run(run())

    assert [b"POST /x abc", b"GET / "] == [body for _, _, body in answers]
    assert b"400 Bad Request" in rest


def test_S1_pipelined_requests_are_answered_in_order():
    """
    Requests sent at once are answered one after the other; nothing follows a close.
    """

    async def run():
        async with listening(Echo()) as server:
            peer = await server.peer()
            await peer.send(
                b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
                b"GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            return await peer.rest()

    rest = asyncio.run(run())

    assert [b"GET /1 ", b"GET /2 ", b"GET /3 "] == [
        part.split(b"HTTP/1.1")[0] for part in rest.split(b"\r\n\r\n")[1:]
    ]


def test_S1_nonsense_after_a_sound_request_does_not_cost_its_answer():
    """
    The sound request is answered, then the connection ends.
    """

    async def run():
        async with listening(Echo()) as server:
            peer = await server.peer()
            await peer.send(GET + b"NONSENSE\r\n\r\n")
            return await peer.rest()

    rest = asyncio.run(run())

    assert rest.startswith(b"HTTP/1.1 200 OK")
    assert 1 == rest.count(b"HTTP/1.1")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"X: " + b"x" * 3800 + b"\r\n", 200),
        (b"X: " + b"x" * 4200 + b"\r\n", 431),
        (b"X: " + b"x" * 300_000 + b"\r\n", 431),
        (b"X: y\r\n" * 18, 200),
        (b"X: y\r\n" * 21, 431),
        (b"X: y\r\n" * 50_000, 431),
    ],
)
def test_S1_headers_have_a_bound(head, status):
    """
    Size and number of header fields are bounded, with and without an end in sight.
    """
    limits = Limits(header_bytes=4096, header_fields=20)
    (got, headers, _), _ = once(
        b"GET / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n", limits
    )

    assert status == got
    assert ("connection" in headers) == (status == 431)


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nX: ", b"GET /", b"GET / HTTP/1.1\r\nX"]
)
def test_S1_an_endless_header_field_is_cut_off(start):
    """
    A field, a name or a target that never ends is refused once it passes the limit.
    """

    async def run():
        async with listening(Echo(), Limits(header_bytes=4096)) as server:
            peer = await server.peer()
            await peer.send(start)
            sent = 0
            while sent < 1_000_000:
                peer.writer.write(b"x" * 1000)
                await asyncio.sleep(0)
                sent += 1000
                if peer.reader.at_eof() or server.refused:
                    break
            return await peer.answer(), sent, server.refused

    (status, _, _), sent, refused = asyncio.run(run())

    assert 431 == status
    assert [431] == refused
    assert sent < 1_000_000


def test_S1_slow_headers_end_the_connection():
    """
    A header that is not whole in time gets 408; a silent connection just ends.
    """

    async def run():
        async with listening(Echo(), Limits(header_seconds=10)) as server:
            slow, silent = await server.peer(), await server.peer()
            await slow.send(b"GET / HTTP/1.1\r\nHost")
            await server.sweep_later(9)
            still = len(server.connections)
            await server.sweep_later(11)
            return still, await slow.answer(), await silent.rest()

    still, (status, _, _), silent = asyncio.run(run())

    assert 2 == still
    assert 408 == status
    assert b"" == silent


def test_S1_a_slow_body_ends_the_connection_and_the_work():
    """
    A body that is not whole in time gets 408, and the application learns of it.
    """

    async def run():
        echo = Echo()
        async with listening(echo, Limits(body_seconds=30)) as server:
            peer = await server.peer()
            await peer.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"
            )
            await server.sweep_later(29)
            open_ = len(server.connections)
            await server.sweep_later(31)
            answer = await peer.answer()
            return open_, answer, echo.disconnects

    open_, (status, _, _), disconnects = asyncio.run(run())

    assert 1 == open_
    assert 408 == status
    assert 1 == disconnects


def test_S1_an_idle_connection_ends_and_a_waiting_one_does_not():
    """
    Idle connections go after their time; one whose answer is being made stays.
    """

    async def run():
        hold = asyncio.Event()
        async with listening(Echo(hold), Limits(keep_alive_seconds=75)) as server:
            busy = await server.peer()
            await busy.send(GET)
            await server.sweep_later(10_000)
            hold.set()
            answer = await busy.answer()
            await server.sweep_later(74)
            open_ = len(server.connections)
            await server.sweep_later(76)
            return answer, open_, await busy.rest()

    (status, _, _), open_, rest = asyncio.run(run())

    assert 200 == status
    assert 1 == open_
    assert b"" == rest


def test_S1_connections_are_counted():
    """
    Beyond the limit a connection is told so and closed; a place that is left is given again.
    """

    async def run():
        async with listening(Echo(), Limits(connections=2)) as server:
            one, two = await server.peer(), await server.peer()
            await one.send(GET)
            await one.answer()
            refused = await (await server.peer()).answer()
            two.writer.close()
            while len(server.connections) > 1:
                await server.sweep_later(3)
            three = await server.peer()
            await three.send(GET)
            return refused, await three.answer()

    refused, taken = asyncio.run(run())

    assert 503 == refused[0]
    assert 200 == taken[0]


def test_S1_an_answer_before_the_body_is_read_by_the_peer():
    """
    An application that does not want the body answers; what follows is thrown away.
    """

    async def impatient(scope, receive, send):
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    async def run():
        async with listening(impatient) as server:
            peer = await server.peer()
            await peer.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n"
            )
            for _ in range(20):
                peer.writer.write(b"x" * 100_000)
                await asyncio.sleep(0)
            return await peer.rest()

    rest = asyncio.run(run())

    assert rest.startswith(b"HTTP/1.1 413")
    assert rest.endswith(b"no")


def test_S1_a_large_body_is_not_held_in_memory():
    """
    Reading stops while the application does not ask for more.
    """

    async def run():
        asked = asyncio.Event()
        seen = []

        async def slow(scope, receive, send):
            await asked.wait()
            more = True
            while more:
                message = await receive()
                seen.append(len(message["body"]))
                more = message["more_body"]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"%d" % sum(seen)})

        async with listening(slow) as server:
            peer = await server.peer()
            size = 20_000_000
            peer.writer.write(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
                + b"x" * size
            )
            await asyncio.sleep(0.2)
            asked.set()
            return await peer.answer(), seen

    (status, _, body), seen = asyncio.run(run())

    assert (200, b"20000000") == (status, body)
    assert seen[0] < 1_000_000


def test_an_expected_100_is_sent_when_the_body_is_wanted():
    """
    Expect: 100-continue is honoured before the body is read.
    """

    async def run():
        async with listening(Echo()) as server:
            peer = await server.peer()
            await peer.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                b"Content-Length: 3\r\n\r\n"
            )
            interim = await peer.reader.readuntil(b"\r\n\r\n")
            await peer.send(b"abc")
            return interim, await peer.answer()

    interim, (status, _, body) = asyncio.run(run())

    assert b"HTTP/1.1 100 Continue\r\n\r\n" == interim
    assert (200, b"POST / abc") == (status, body)


def test_a_half_closed_peer_still_gets_its_answer():
    """
    A peer that closes its sending half after the request reads the answer.
    """

    async def run():
        hold = asyncio.Event()
        async with listening(Echo(hold)) as server:
            peer = await server.peer()
            await peer.send(GET)
            peer.writer.write_eof()
            await asyncio.sleep(0.05)
            hold.set()
            return await peer.rest()

    rest = asyncio.run(run())

    assert rest.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in rest


def test_a_head_answer_has_no_body_and_http_1_0_closes():
    """
    HEAD gets the length and no body; HTTP/1.0 is answered and closed.
    """

    async def run():
        async with listening(Echo()) as server:
            head, old = await server.peer(), await server.peer()
            await head.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await old.send(b"GET / HTTP/1.0\r\n\r\n")
            return await head.rest(), await old.rest()

    head, old = asyncio.run(run())

    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 7" in head
    assert old.endswith(b"GET / ")


def test_streamed_answers_are_chunked():
    """
    An answer in parts without a length is sent in chunks.
    """

    async def parts(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"c"})

    async def run():
        async with listening(parts) as server:
            peer = await server.peer()
            await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return await peer.rest()

    rest = asyncio.run(run())

    assert b"transfer-encoding: chunked" in rest
    assert rest.endswith(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
def test_a_line_end_in_a_header_never_leaves(value):
    """
    An application that lets a line end into a header gets an error, the peer nothing of it.
    """
    caught = []

    async def split(scope, receive, send):
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"x", value)],
                }
            )
            await send({"type": "http.response.body", "body": b""})
        except RuntimeError as error:
            caught.append(str(error))
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"fault"})

    (status, headers, body), _ = once(GET, app=_remembering(split))

    assert (500, b"fault") == (status, body)
    assert "set-cookie" not in headers
    assert ["a header of the answer holds a line end"] == caught


def _remembering(app):
    class Remembering:
        scopes = ()

        async def __call__(self, scope, receive, send):
            await app(scope, receive, send)

    return Remembering()


def test_draining_lets_a_request_end_and_closes_the_rest():
    """
    At shutdown a busy connection gets its answer, an idle one ends at once.
    """

    async def run():
        hold = asyncio.Event()
        async with listening(Echo(hold)) as server:
            busy, idle = await server.peer(), await server.peer()
            await busy.send(GET)
            await asyncio.sleep(0.05)
            for connection in list(server.connections):
                connection.shutdown()
            ended = await idle.rest()
            hold.set()
            return ended, await busy.rest()

    ended, rest = asyncio.run(run())

    assert b"" == ended
    assert b"connection: close" in rest
