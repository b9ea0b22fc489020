"""
One server process: its start, its end, and what happens between (parts of attacks S1, K13).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal

import msgspec
import pytest

from kagimori.compose import open_installation
from kagimori.errors import ConfigError, RingMissingError, StoreError
from kagimori.founding import open_demo
from kagimori.http import background
from kagimori.http import server as serving
from kagimori.http.listeners import bind_admin, bind_public, close_all
from kagimori.http.server import ServerProcess, bounded
from kagimori.settings import Limits, ServerSettings, Settings, read_settings
from tests.http.world import MACHINE, template

FORM = b"grant_type=client_credentials&scope=api"
HEAD = (
    b"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
    b"Authorization: " + MACHINE.encode() + b"\r\n"
    b"Content-Length: %d\r\n\r\n" % len(FORM)
)


class Running:
    """
    A server process in this process, with a report and its ports.
    """

    def __init__(self, process, report, task):
        self.process = process
        self.report = report
        self.task = task
        self.port = int(report.addresses[0].rpartition(":")[2])
        self.admin = int(report.admin.rpartition(":")[2])

    async def ask(self, data, port=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return answer

    async def get(self, path, port=None):
        line = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return await self.ask(line.encode(), port)


async def started(tmp_path, opening=None, **server):
    data = tmp_path / "data"
    if not data.exists():
        shutil.copytree(await template(today=True), data)
    settings = msgspec.structs.replace(
        read_settings(data, {}),
        server=ServerSettings(
            listen="localhost:0", admin_listen="127.0.0.1:0", **server
        ),
    )
    told = asyncio.get_running_loop().create_future()
    more = {} if opening is None else {"opening": opening}
    sockets = bind_public(settings), bind_admin(settings)
    process = ServerProcess(settings, *sockets, **more)
    task = asyncio.ensure_future(process.run(told.set_result))
    await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        close_all([*sockets[0], *sockets[1]])
        task.result()
    return Running(process, told.result(), task)


def run(work):
    with asyncio.Runner() as runner:
        return runner.run(work())


def test_a_server_starts_serves_and_drains(tmp_path):
    """
    Both listeners answer; the report says how it stands; SIGTERM ends it.
    """

    async def scene():
        running = await started(tmp_path)
        token = await running.ask(
            HEAD.replace(b"Host", b"Connection: close\r\nHost") + FORM
        )
        ready = await running.get("/readyz")
        figures = await running.get("/metrics", running.admin)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running.task, 20)
        return running.report, token, ready, figures

    report, token, ready, figures = run(scene)

    assert token.startswith(b"HTTP/1.1 200")
    assert ready.startswith(b"HTTP/1.1 200")
    assert b"kagimori_tokens_issued_total" in figures
    assert "http://localhost:3000" == report.issuer
    assert ["ES256", "RS256"] == [
        key.algorithm for key in report.keys if key.use == "signing"
    ]
    assert {"current"} == {key.state for key in report.keys}
    assert {"demo", "legacy_clients", "bearer_in_query"} == {
        u.code for u in report.unfit
    }
    assert all(
        unfit.command.partition(" ")[0].endswith("kagimori") for unfit in report.unfit
    )
    assert any("/oauth/token" in line for line in report.transcript)
    assert "" == report.problem


def test_SIGTERM_lets_a_request_in_flight_end(tmp_path):
    """
    A request whose body is still on its way is answered; idle connections and new ones end.
    """

    async def scene():
        running = await started(tmp_path)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(HEAD + FORM[:10])
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", running.port)
        await asyncio.sleep(0.1)
        running.process.end()
        ended = await asyncio.wait_for(idle.read(), 10)
        with pytest.raises(OSError, match=r"[Rr]efused|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(FORM[10:])
        answer = await asyncio.wait_for(reader.read(), 10)
        await asyncio.wait_for(running.task, 10)
        writer.close()
        idle_writer.close()
        return ended, answer

    ended, answer = run(scene)

    assert b"" == ended
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer


def test_SIGTERM_waits_no_longer_than_the_drain(tmp_path):
    """
    A request that never ends is given up when the time is over.
    """

    async def scene():
        limits = Limits(drain_seconds=0.3)

        async def opening(settings, **more):
            return open_installation(settings, **more)

        running = await started(tmp_path, opening)
        for server in running.process._servers:
            server.config.timeout_graceful_shutdown = limits.drain_seconds
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(HEAD)
        await asyncio.sleep(0.1)
        running.process.end()
        await asyncio.wait_for(running.task, 5)
        rest = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return rest

    assert b"200 OK" not in run(scene)


def test_ctrl_c_ends_at_once_and_writes_the_ledger(tmp_path):
    """
    What is open is dropped; what was counted is in the database.
    """

    async def scene():
        running = await started(tmp_path)
        await running.ask(HEAD.replace(b"Host", b"Connection: close\r\nHost") + FORM)
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(HEAD)
        await asyncio.sleep(0.1)
        begin = asyncio.get_running_loop().time()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(running.task, 5)
        took = asyncio.get_running_loop().time() - begin
        writer.close()
        found = open_installation(read_settings(tmp_path / "data", {}))
        try:
            live = [
                (await found.keys.preview("default", _signing(), key.kid)).live_tokens
                for key in await found.keys.list("default")
                if key.use == "signing"
            ]
        finally:
            await found.close()
        return took, live

    took, live = run(scene)

    assert took < 3
    assert 1 == sum(count or 0 for count in live)


def _signing():
    from kagimori.keys.timeline import KeyUse

    return KeyUse.SIGNING


def test_a_permanent_fault_ends_the_start(tmp_path):
    """
    A missing ring is the error itself; nothing goes on listening.
    """

    async def scene():
        shutil.copytree(await template(today=True), tmp_path / "data")
        shutil.rmtree(tmp_path / "data" / "ring")
        await started(tmp_path)

    with pytest.raises(RingMissingError):
        run(scene)


def test_K13_a_passing_fault_starts_unready_and_recovers(tmp_path, monkeypatch):
    """
    The server listens, says why it is not ready, signs nothing, and opens as soon as it can.
    """
    monkeypatch.setattr(serving, "RETRY_FIRST", 0.2)
    broken = [True]

    async def opening(settings, **more):
        if broken[0]:
            raise StoreError("The vault does not answer.", transient=True)
        return open_installation(settings, **more)

    async def scene():
        running = await started(tmp_path, opening)
        close = HEAD.replace(b"Host", b"Connection: close\r\nHost") + FORM
        before = await running.get("/readyz", running.admin), await running.ask(close)
        broken[0] = False
        for _ in range(200):
            await asyncio.sleep(0.05)
            ready = await running.get("/readyz")
            if ready.startswith(b"HTTP/1.1 200"):
                break
        after = await running.ask(close)
        running.process.end()
        await running.task
        return running.report, before, after

    report, (ready, refused), after = run(scene)

    assert "The vault does not answer." in report.problem
    assert b"The vault does not answer." in ready
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"retry-after" in refused
    assert after.startswith(b"HTTP/1.1 200")


def test_an_opening_that_makes_what_is_missing_serves_a_new_folder(tmp_path):
    """
    The demo's opening makes the world and the server serves from it.
    """
    from kagimori.founding import demo_settings

    async def scene():
        data = tmp_path / "fresh"
        settings = demo_settings(data, {"KAGIMORI_LISTEN": "localhost:0"})
        settings = msgspec.structs.replace(
            settings,
            issuer="http://localhost:3000",
            server=ServerSettings(listen="localhost:0", admin_listen="127.0.0.1:0"),
        )
        told = asyncio.get_running_loop().create_future()
        process = ServerProcess(
            settings, bind_public(settings), bind_admin(settings), open_demo
        )
        task = asyncio.ensure_future(process.run(told.set_result))
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
        process.end()
        await task
        return told.result(), data

    report, data = run(scene)

    assert report.demo
    assert (data / "kagimori.toml").exists()


def test_serve_lets_go_of_a_port_when_the_other_cannot_be_had(stream):
    """
    A named admin address that is taken ends the start; the public port is free again.
    """
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        settings = Settings(
            issuer="http://localhost:3000",
            server=ServerSettings(
                listen="127.0.0.1:0", admin_listen=f"127.0.0.1:{taken}"
            ),
        )
        with pytest.raises(ConfigError, match="is taken"):
            serving.serve(settings, lambda _: None)


def test_S1_connections_never_exceed_what_the_process_can_open(monkeypatch):
    """
    The limit follows the file descriptors that can be had.
    """
    asked = []
    limits = [(256, 512), (512, 512)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits.pop(0))
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: asked.append(wanted))

    found = bounded(Limits(connections=4096))

    assert [(512, 512)] == asked
    assert 512 - serving.SPARE_FILES == found.connections

    monkeypatch.setattr(resource, "getrlimit", lambda _: (8192, 8192))
    assert 4096 == bounded(Limits(connections=4096)).connections


def test_the_background_tells_a_failure_once_and_its_end(stream):
    """
    A database that vanishes under the server is logged once, and again when it is back.
    """
    calls = iter(
        [StoreError("gone"), StoreError("gone"), ValueError("secret"), None, None]
    )

    async def work():
        error = next(calls, None)
        if error is not None:
            raise error

    async def scene():
        task = asyncio.ensure_future(background.repeat("poll", 0.01, work))
        await asyncio.sleep(0.2)
        task.cancel()

    asyncio.run(scene())
    names = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]

    assert ["background.failing", "background.broken", "background.recovered"] == names
    assert "secret" not in stream.getvalue()
