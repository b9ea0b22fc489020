"""
``kagimori ring doctor``: each right by itself, and what slots read of each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import uvicorn

import kagimori
from kagimori.integrations.asgi import PeerMiddleware
from kagimori.integrations.peer import PATH, TOKEN
from kagimori.testing.clock import FixedClock

WORD = "peer-" * 9


@contextlib.contextmanager
def slot(folder, application="shop", clock=None) -> Iterator[str]:
    """
    Serve an application whose ring lies in a folder; yield its address.
    """
    ring = kagimori.open_ring(
        f"file://{folder}/ring", application=application, wrapper="plaintext:"
    )

    async def shop(scope, receive, send):
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    app = PeerMiddleware(shop, ring, token=WORD, clock=clock)
    config = uvicorn.Config(app, port=0, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        ring.close()


@contextlib.contextmanager
def stranger(status: int, body: bytes = b"", **headers: str) -> Iterator[str]:
    """
    Serve something else, which remembers nothing and answers the same to everybody.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def asking(ring):
    """
    A program with a ring and the slots' token.
    """
    ring.environ[TOKEN] = WORD
    return ring


# --- rights --------------------------------------------------------------------------------


def test_doctor_tries_each_right_by_itself(ring):
    """
    Reads, conditional write, wrapping, unwrapping, opening and clock, all as they must be.
    """
    ring.wrap()
    ring.ok("init", "--ring", f"file://{ring.folder}/wrapped")

    told = ring.json("doctor", "--ring", f"file://{ring.folder}/wrapped")

    verdicts = {
        (each["part"], each["right"]): each["verdict"] for each in told["findings"]
    }
    expected = {
        ("store", "read"): "good",
        ("store", "write if unchanged"): "good",
        ("wrapper", "wrap"): "good",
        ("wrapper", "unwrap"): "good",
        ("ring", "open"): "good",
        ("ring", "clock"): "good",
    }
    # In a container the folder's place may be a worry too.
    assert expected.items() <= verdicts.items()


def test_doctor_tells_worries_from_faults(ring, redis_server):
    """
    A server that keeps nothing on its disk serves: a warning, and no fault.
    """
    ring.environ["KAGIMORI_RING"] = f"redis://127.0.0.1:{redis_server.port}/5"
    with redis_server.client() as client:
        before = client.config_get("save")["save"]
        client.config_set("save", "")
        try:
            ring.ok("init")
            told = ring.json("doctor")
        finally:
            client.config_set("save", before)

    verdicts = {each["right"]: each["verdict"] for each in told["findings"]}
    assert "warning" == verdicts["lasting"]
    assert "good" == verdicts["write if unchanged"]


def test_doctor_leaves_nothing_behind(ring):
    """
    The files of the ring are the same after it, name by name and byte by byte.
    """

    def files():
        folder = ring.folder / "ring"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = files()
    ring.ok("doctor")

    assert before == files()


def test_doctor_warns_of_clear_keys(ring):
    """
    A ring whose keys lie in the clear serves, with a warning and what to do.
    """
    shown = ring.ok("doctor").stdout

    assert "! ring, file modes: Keys lie in the clear" in shown
    assert "rewrap" in shown


def test_doctor_names_the_one_part_that_is_wrong(ring):
    """
    With the wrong passphrase the store is sound and the ring does not open.
    """
    ring.wrap()
    named = ("--ring", f"file://{ring.folder}/wrapped")
    ring.ok("init", *named)
    ring.environ["RING_PASSPHRASE"] = "not the words that it was made with"

    result = ring("doctor", "--json", *named)

    assert 1 == result.exit_code
    verdicts = {
        (each["part"], each["right"]): each["verdict"]
        for each in json.loads(result.stdout)["findings"]
    }
    assert (
        "good" == verdicts["store", "read"] == verdicts["store", "write if unchanged"]
    )
    assert "bad" == verdicts["ring", "open"]


def test_K11_doctor_names_a_passphrase_that_others_may_read(ring, tmp_path):
    """
    The mode of a secret's file is a finding, with chmod as the remedy.
    """
    path = tmp_path / "passphrase"
    path.write_text("four words and more words")
    path.chmod(0o644)
    named = ("--ring", f"file://{tmp_path}/other", "--wrapper")
    ring.ok("init", *named, f"passphrase:file:{path}")

    result = ring("doctor", *named, f"passphrase:file:{path}")

    assert 1 == result.exit_code
    assert "has mode 0644" in result.stdout
    assert "chmod 600" in result.stdout
    path.chmod(0o600)
    ring.ok("doctor", *named, f"passphrase:file:{path}")


def test_doctor_says_what_to_do_where_there_is_no_ring(bare):
    """
    A missing ring is a finding, not a failure of the doctor.
    """
    result = bare("doctor")

    assert 1 == result.exit_code
    assert "kagimori ring init" in result.stdout


# --- slots ---------------------------------------------------------------------------------


def test_two_slots_on_one_ring_read_each_other(asking):
    """
    Blue and green on the same ring: each can read what the other wrote.
    """
    with slot(asking.folder) as blue, slot(asking.folder) as green:
        shown = asking.ok("doctor", "--peer", blue, "--peer", green).stdout

    first, second = blue.removeprefix("http://"), green.removeprefix("http://")
    assert f"{second} can read what {first} wrote." in shown
    assert f"{first} can read what {second} wrote." in shown


def test_one_peer_is_compared_with_the_ring_named_here(asking):
    """
    With one --peer the ring of this machine is the other slot, examined first.
    """
    with slot(asking.folder) as green:
        told = asking.json("doctor", "--peer", green + PATH)

    assert [True, True] == [each["reads"] for each in told["peers"]["crossings"]]
    assert told["findings"]


def test_slots_with_rings_of_their_own_are_told_so(asking, tmp_path):
    """
    The classic fault of a slot swap: each slot has a ring of its own.
    """
    with slot(tmp_path / "blue") as blue, slot(tmp_path / "green") as green:
        result = asking("doctor", "--peer", blue, "--peer", green)

    assert 1 == result.exit_code
    assert result.stdout.count("cannot read what") == 2
    assert result.stdout.count("They use different rings") == 2


def test_slots_with_different_application_names_are_told_so(asking):
    """
    Same ring, other name: the difference is named.
    """
    with slot(asking.folder) as blue, slot(asking.folder, "Shop") as green:
        result = asking("doctor", "--peer", blue, "--peer", green)

    assert 1 == result.exit_code
    assert result.stdout.count("The application name differs") == 2
    assert "different rings" not in result.stdout


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"", "another token"),
        (404, b"", "no such endpoint"),
        (429, b"", "asked too often"),
        (503, b"", "cannot use its ring"),
        (200, b"<html>", "not as a peer does"),
        (200, b'{"protected": 1}', "not as a peer does"),
    ],
)
def test_what_answers_instead_of_a_peer_is_named(asking, status, body, said):
    """
    Another token, no endpoint, a ring that is down: the finding says which.
    """
    with stranger(status, body) as there:
        result = asking("doctor", "--peer", there)

    assert 1 == result.exit_code
    assert said in result.stdout
    assert WORD not in result.output


def test_a_redirect_is_not_followed_with_the_token(asking):
    """
    The token goes to the address that was named, and nowhere else.
    """
    with (
        slot(asking.folder) as elsewhere,
        stranger(307, Location=elsewhere + PATH) as there,
    ):
        result = asking("doctor", "--peer", there)

    assert 1 == result.exit_code
    assert "status 307" in result.stdout


@pytest.mark.parametrize(
    "url", ["http://green.example.com", "ftp://x", "https://u:p@x", "green"]
)
def test_the_token_is_sent_by_https_only(asking, url):
    """
    Without TLS only this machine is asked; other addresses are refused before anything is sent.
    """
    asking.fails(3, "doctor", "--peer", url)


def test_without_the_token_nobody_is_asked(ring):
    """
    The token comes from the environment alone.
    """
    assert os.environ.get(TOKEN) is None
    assert TOKEN in ring.fails(3, "doctor", "--peer", "https://green.example.com")
    assert 2 == ring("doctor", *["--peer", "https://x"] * 3).exit_code
    ring.environ[TOKEN] = "too short"
    said = ring.fails(3, "doctor", "--peer", "https://green.example.com")
    assert "too short" not in said


# --- faults --------------------------------------------------------------------------------


def test_doctor_finds_a_clock_that_is_behind(bare):
    """
    A ring whose newest key comes from the future is a fault of this clock, or of that one.
    """
    clock = FixedClock(datetime.now(UTC) + timedelta(hours=2))
    location = f"file://{bare.folder}/ring"
    kagimori.open_ring(
        location, application="shop", wrapper="plaintext:", clock=clock
    ).close()

    result = bare("doctor")

    assert 1 == result.exit_code
    assert "✗ ring, clock:" in result.stdout


def test_doctor_finds_a_place_that_cannot_be_a_ring(bare):
    """
    A file in the folder's place, and an address of no kind, are findings of the store.
    """
    (bare.folder / "ring").write_text("not a folder")

    assert 1 == bare("doctor").exit_code
    assert "✗ store" in bare("doctor").stdout
    assert "✗ store" in bare("doctor", "--ring", "gopher://x").stdout
    assert "✗ wrapper" in bare("doctor", "--wrapper", "passphrase:env:NOBODY").stdout


def test_doctor_finds_a_key_that_came_after_the_second_envelopes(ring):
    """
    A key without a second envelope beside others that have one is warned of.
    """
    ring.environ["SECOND"] = "seven other words in a safe"
    ring.ok("rewrap", "--recovery", "passphrase:env:SECOND")
    before = ring.ok("doctor").stdout
    ring.ok("rotate")

    assert "second envelope" not in before
    assert "without a second envelope" in ring.ok("doctor").stdout


def test_two_clocks_that_differ_are_told_of(asking):
    """
    Slots that read each other and disagree about the time are not good.
    """
    with slot(asking.folder) as blue:
        with slot(asking.folder) as green:
            good = asking("doctor", "--peer", blue, "--peer", green)
        clock = FixedClock(datetime.now(UTC) + timedelta(minutes=2))
        with slot(asking.folder, clock=clock) as late:
            bad = asking("doctor", "--peer", blue, "--peer", late)

    assert 0 == good.exit_code
    assert 1 == bad.exit_code
    assert "The clocks differ by +1" in bad.stdout
