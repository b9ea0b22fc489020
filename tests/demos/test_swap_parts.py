"""
What the slot swap's demonstration is made of: its switch, its slots, its words.
"""

from __future__ import annotations

import http.client
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from demos.swap.slots import SlotError, dotnet_slot, python_slots
from demos.swap.switch import Switch
from demos.swap.words import WORDS


@contextmanager
def slot(name: str) -> Iterator[str]:
    """
    Serve an address that answers with a name, and what was sent to it.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            said = name.encode() + body
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.send_header("X-Connection", self.headers["Connection"])
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def post(url: str, body: bytes = b"") -> tuple[int, bytes, str | None]:
    """
    Return status, body and what the slot was told of the connection.
    """
    parts = urlsplit(url)
    assert parts.hostname
    link = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    try:
        link.request("POST", "/", body, {"Connection": "keep-alive"})
        answer = link.getresponse()
        return answer.status, answer.read(), answer.headers["X-Connection"]
    finally:
        link.close()


def test_the_switch_sends_each_request_to_the_slot_whose_turn_it_is():
    """
    To one, to another, or to both in turn; each request comes alone on its connection.
    """
    with slot("blue") as blue, slot("green") as green, Switch.standing() as switch:
        switch.to(blue)
        assert [(200, b"blue", "close")] * 2 == [post(switch.url), post(switch.url)]
        switch.to(green)
        assert (200, b"green", "close") == post(switch.url)
        switch.to(blue, green)
        assert [b"blue", b"green"] * 2 == [post(switch.url)[1] for _ in range(4)]
        large = b"x" * 300_000
        assert b"blue" + large == post(switch.url, large)[1]


def test_the_switch_says_when_there_is_no_slot():
    """
    A slot that is down and one that was never named are answered for with 502; the next is not.
    """
    with slot("green") as green, Switch.standing() as switch:
        assert 502 == post(switch.url)[0]
        with slot("blue") as blue:
            switch.to(blue)
            assert 200 == post(switch.url)[0]
        assert 502 == post(switch.url)[0]
        switch.to(green)
        assert 200 == post(switch.url)[0]


def test_a_slot_that_does_not_start_says_why(tmp_path):
    """
    What the process wrote is the error: here, that the ring's address is malformed.
    """
    settings = {"blue": {"KAGIMORI_RING": "nowhere", "KAGIMORI_RING_WRAPPER": ""}}

    with (
        pytest.raises(SlotError, match="begins with its kind and a colon"),
        python_slots(tmp_path, settings),
    ):
        pass


@pytest.mark.dp_peer
def test_a_dotnet_slot_that_does_not_start_says_why(dp_peer, tmp_path):
    """
    Likewise: here, that no ring is named.
    """
    with (
        pytest.raises(SlotError, match="--dir or --document is needed"),
        dotnet_slot(dp_peer, tmp_path / "log", []),
    ):
        pass


def test_both_languages_say_the_same():
    """
    The same texts, with the same places to fill in.
    """

    def places(language: str) -> dict[str, list[str]]:
        return {
            key: sorted(
                name for _, name, _, _ in string.Formatter().parse(text) if name
            )
            for key, text in WORDS[language].items()
        }

    assert places("en") == places("ja")
