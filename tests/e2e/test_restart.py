"""
Stopping and starting again loses nothing.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import stat
import threading
import time
from urllib.parse import urlencode

import psutil
import pytest

from kagimori.compose import opened
from kagimori.keys.timeline import KeyUse
from kagimori.settings import read_settings
from tests.e2e.server import (
    EMERGENCY,
    FORM,
    LOST,
    NO_THROTTLE,
    PASSWORD,
    TESTCLIENT,
    basic,
    claims,
    eventually,
    kid,
)


class SlowPeer:
    """
    Sends a sign-in in two parts, so that it is in flight for as long as a test wants.
    """

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), 20)
        self._body = urlencode(PASSWORD).encode()
        head = (
            f"POST /oauth/token HTTP/1.1\r\nHost: localhost:{port}\r\n"
            f"Authorization: {TESTCLIENT}\r\nContent-Type: {FORM}\r\n"
            f"Content-Length: {len(self._body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self._socket.sendall(head.encode())
        # It asks for the body once it has begun with the request.
        asked = b""
        while not asked.endswith(b"\r\n\r\n"):
            asked += self._socket.recv(100)
        assert asked.startswith(b"HTTP/1.1 100 ")
        self._socket.sendall(self._body[:10])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._socket.close()

    def finish(self):
        """
        Send the rest; return what comes until the server closes.
        """
        self._socket.sendall(self._body[10:])
        return self.rest()

    def rest(self):
        answer = b""
        try:
            while data := self._socket.recv(65_536):
                answer += data
        except OSError:
            return answer
        return answer


def refuses_connections(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


def live_tokens(data, name):
    """
    Return how many living tokens the ledger knows of a key.
    """

    async def ask():
        async with opened(read_settings(data, {})) as installation:
            seen = await installation.keys.preview("default", KeyUse.SIGNING, name)
            return seen.live_tokens

    return asyncio.run(ask())


# --- the same folder -----------------------------------------------------------------------


def test_R12_starting_again_keeps_families_tokens_and_keys(demo):
    """
    After SIGTERM, Ctrl-C and kill -9 alike: refresh and access tokens, keys, people, clients.
    """
    program = demo.program
    program.ok(*EMERGENCY)
    program.ok(
        "users", "create", "mina", "--password-stdin", typed="six quiet mills turn\n"
    )
    secret = program.json("clients", "add-secret", "machine")["secret"]
    client = demo.client()
    token, machine = client.password_grant()["refresh_token"], client.machine_token()
    keys = program.json("keys", "list")
    people = program.json("users", "list")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        token = client.refresh(token)["refresh_token"]
        demo.signal(number)
        status = demo.wait()
        client.close()
        demo.start()

        assert status == (-9 if number == signal.SIGKILL else 0)
        assert 200 == client.api_secret(machine).status
        renewed = client.refresh(token)
        assert renewed == {
            **client.refresh(token),
            "access_token": renewed["access_token"],
        }
        token = renewed["refresh_token"]
        listed = program.json("keys", "list")
        assert [k["kid"] for k in keys] == [k["kid"] for k in listed]
        assert people == program.json("users", "list")
        form = {"grant_type": "client_credentials"}
        assert client.ok(form, basic("machine", secret))
    assert [] == demo.report["earlier_issuers"]
    # K11: the owner's alone, and regular files only.
    for path in demo.data.rglob("*"):
        mode = path.stat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        assert 0 == mode & 0o077, path


def test_what_an_operator_took_out_of_a_demo_stays_out(demo):
    """
    The command that the start report names makes it fit: starting again does not undo it.
    """
    assert 200 == demo.client().post("/oauth/token", PASSWORD, TESTCLIENT).status
    demo.program.ok("clients", "delete", "testclient", "--yes")
    demo.stop()

    demo.start()

    assert ["machine"] == [c["id"] for c in demo.program.json("clients", "list")]
    assert 401 == demo.client().post("/oauth/token", PASSWORD, TESTCLIENT).status
    assert "legacy_clients" not in {unfit["code"] for unfit in demo.report["unfit"]}


def test_another_port_is_another_issuer_and_earlier_tokens_stay_good(demo, make_server):
    """
    The issuer follows the port; what was issued at earlier ones is accepted, and it says so.
    """
    first = demo.client()
    tokens, machine = first.password_grant(), first.machine_token()
    demo.program.ok("clients", "create", "watch", "--api", "api", "--may-introspect")
    watch = basic(
        "watch", demo.program.json("clients", "add-secret", "watch")["secret"]
    )
    demo.stop()

    moved = make_server(demo.data, environ=NO_THROTTLE).start(for_people=True)
    client = moved.client()
    renewed = client.refresh(tokens["refresh_token"])
    there = client.machine_token()

    assert f"keys of {moved.issuer}" in moved.said
    assert demo.issuer in moved.said
    assert "accepted" in moved.said
    assert 200 == client.secret(tokens["access_token"]).status
    assert 200 == client.api_secret(machine).status
    seen = client.post("/oauth/introspect", {"token": machine}, watch)
    assert True is seen.json["active"]
    assert (demo.issuer, moved.issuer) == tuple(
        claims(token)["iss"] for token in (machine, there)
    )
    assert moved.issuer == claims(renewed["access_token"])["iss"]
    document = client.get("/.well-known/openid-configuration").json
    assert moved.issuer == document["issuer"]
    assert document["token_endpoint"].startswith(moved.issuer)
    moved.stop()

    demo.start()
    assert [moved.issuer] == demo.report["earlier_issuers"]
    first = demo.client()
    assert demo.issuer == claims(first.machine_token())["iss"]
    assert 200 == first.api_secret(there).status
    assert 200 == first.api_secret(machine).status
    assert first.refresh(renewed["refresh_token"])


# --- the end of a server -------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_drains_what_is_in_flight(make_server, workers):
    """
    No new connection, unready, the request in flight gets its answer, the ledger is written.
    """
    server = make_server(environ=NO_THROTTLE, workers=workers, measured=True).start()
    client = server.client()
    kept = client.machine_token()
    with SlowPeer(server.port) as peer:
        children = psutil.Process(server.process.pid).children()
        server.signal(signal.SIGTERM)
        assert eventually(lambda: refuses_connections(server.port), 5)
        assert not server.is_over

        answer = peer.finish()

    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert b'"refresh_token":"kgm_rt_' in answer
    assert 0 == server.wait()
    assert not any(child.is_running() for child in children)
    assert 2 == live_tokens(server.data, kid(kept))
    assert "Traceback" not in server.log
    with pytest.raises(LOST):
        client.get("/healthz")
    # What was answered while it drained holds.
    server.start()
    token = answer.partition(b'"refresh_token":"')[2].partition(b'"')[0].decode()
    assert server.client().refresh(token)


def test_a_drain_ends_although_a_request_does_not(make_server):
    """
    At most `limits.drain_seconds`: a peer that sends nothing more keeps no server from ending.
    """
    environ = {**NO_THROTTLE, "KAGIMORI_LIMITS_DRAIN_SECONDS": "1"}
    server = make_server(environ=environ, measured=True).start()
    with SlowPeer(server.port) as peer:
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        status = server.wait()
        lasted = time.monotonic() - begun
        answer = peer.rest()

    assert 0 == status
    assert 0.8 <= lasted < 6
    assert b"HTTP/1.1 200" not in answer
    assert "Traceback" not in server.log


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_at_once_and_writes_the_ledger(make_server, workers):
    """
    What is open is dropped; every token that left is counted all the same.
    """
    server = make_server(environ=NO_THROTTLE, workers=workers, measured=True).start()
    client = server.client()
    tokens = [client.machine_token() for _ in range(7)]
    with SlowPeer(server.port) as peer:
        begun = time.monotonic()
        server.signal(signal.SIGINT)
        status = server.wait()
        lasted = time.monotonic() - begun
        answer = peer.rest()

    assert 0 == status
    assert lasted < 5
    assert b"HTTP/1.1 200" not in answer
    assert 7 == live_tokens(server.data, kid(tokens[0]))
    assert "Traceback" not in server.log
    server.start()
    assert {200} == {server.client().api_secret(token).status for token in tokens}


def test_sigterm_under_load_loses_no_acknowledged_refresh(demo):
    """
    Clients that refresh while the server drains go on with what they were last given.
    """
    last = {}

    def refresh(number):
        with demo.client() as client:
            token = client.password_grant()["refresh_token"]
            try:
                while True:
                    last[number] = token
                    token = client.refresh(token)["refresh_token"]
            except LOST:
                return

    threads = [threading.Thread(target=refresh, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(last) == 6, 10)
    status = demo.stop()
    for thread in threads:
        thread.join()

    demo.start()

    assert 0 == status
    assert all(demo.client().refresh(token) for token in last.values())


# --- its beginning -------------------------------------------------------------------------


def test_a_server_whose_database_is_locked_starts_unready_and_gets_ready_by_itself(
    demo,
):
    """
    A passing fault: it listens, says why, signs nothing, and goes on when the lock is gone.
    """
    demo.stop()
    database = sqlite3.connect(demo.data / "kagimori.db", isolation_level=None)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        database.execute("PRAGMA user_version = 0")
        demo.launch("--json")
        answer = eventually(lambda: demo.probe("/readyz"), 60)
        assert answer is not None, demo.log
        assert 503 == answer.status
        assert 200 == demo.probe("/healthz").status
        with demo.client() as client:
            refused = client.post("/oauth/token", PASSWORD, TESTCLIENT)
            assert 503 == refused.status
            assert int(refused.headers["retry-after"]) >= 1
        problem = demo.admin("/readyz").json["problems"][0]
        assert "locked by another process" in problem["text"]
        database.execute("ROLLBACK")
    finally:
        database.close()

    assert eventually(demo.ready, 60)
    assert demo.client().password_grant()
    assert "Traceback" not in demo.log


def test_the_start_report_says_calmly_how_it_stands(make_server):
    """
    Where data lies, which keys are current and until when, what is unfit and what mends it.
    """
    server = make_server(measured=True).start(for_people=True)
    keys = [k for k in server.program.json("keys", "list") if k["state"] == "current"]

    said = server.said

    assert str(server.data) in said
    for key in keys:
        assert key["kid"] in said
        assert key["due"][:10] in said
    assert "Not fit for production" in said
    assert "init --issuer URL --wrapper URL" in said
    assert f"localhost:{server.port}/oauth/token" in said
    assert len(said.splitlines()) < 40
    assert 0 == server.stop()
