"""
A connection under test: our protocol before a small application, and a raw peer.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from kagimori.http.protocol import Connection, sweep
from kagimori.settings import Limits


class Echo:
    """
    Answers with the method, the path and the body; remembers the scopes it saw.
    """

    def __init__(self, hold: asyncio.Event | None = None) -> None:
        self.scopes = []
        self.disconnects = 0
        self._hold = hold

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        if self._hold is not None:
            await self._hold.wait()
        said = f"{scope['method']} {scope['path']} ".encode() + body
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": said})


class Peer:
    """
    Speaks bytes to the server.
    """

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """
        Read one answer.
        """
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(
            line.lower().split(": ", 1) for line in lines[1:] if ": " in line
        )
        size = int(headers.get("content-length", "0"))
        body = await asyncio.wait_for(self.reader.readexactly(size), 10)
        return int(lines[0].split(" ")[1]), headers, body

    async def rest(self) -> bytes:
        """
        Read until the server closes.
        """
        return await asyncio.wait_for(self.reader.read(), 10)


class Listening:
    """
    A running server.
    """

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.peers = []

    @property
    def connections(self):
        return self.server.server_state.connections

    async def peer(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        self.peers.append(peer)
        return peer

    async def sweep_later(self, seconds: float) -> None:
        """
        Do what the sweep will do once so many seconds have passed.
        """
        await asyncio.sleep(0.05)
        sweep(self.connections, asyncio.get_running_loop().time() + seconds)


@asynccontextmanager
async def listening(app, limits: Limits | None = None) -> AsyncIterator[Listening]:
    """
    Serve an application on a free port for the time of a block.
    """
    refused = []
    config = uvicorn.Config(
        app,
        http=functools.partial(
            Connection, limits=limits or Limits(), refused=refused.append
        ),
        lifespan="off",
        ws="none",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        log_config=None,
        port=0,
    )
    server = uvicorn.Server(config)
    config.load()
    task = asyncio.ensure_future(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    running = Listening(server, port)
    running.refused = refused
    try:
        yield running
    finally:
        for peer in running.peers:
            peer.writer.close()
        server.should_exit = True
        server.force_exit = True
        await task
