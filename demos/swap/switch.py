"""
The switch before the slots: a reverse proxy that sends each request to the slot whose turn it is.

Rules of this module:

1. One request a connection, so that the next one may go elsewhere.
2. Nothing is read of a request but the end of its head; cookies are between browser and slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from urllib.parse import urlsplit

_CONNECTION = re.compile(rb"\r\nConnection:[^\r]*", re.IGNORECASE)
_MOST_HEAD = 64 * 1024
_SECONDS = 30.0
_UNAVAILABLE = (
    b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class Switch:
    """
    A running switch; it stands until its block ends.

    Attributes:
        url: its address, the only one that browsers know.
    """

    def __init__(self) -> None:
        self.url = ""
        self._turns: Iterator[str] = iter(())

    @classmethod
    @contextmanager
    def standing(cls) -> Iterator[Switch]:
        """
        Put one up on a free port of this machine, in a thread of its own.
        """
        switch, loop = cls(), asyncio.new_event_loop()
        server = loop.run_until_complete(
            asyncio.start_server(switch.pass_on, "127.0.0.1", 0, limit=_MOST_HEAD)
        )
        switch.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield switch
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            server.close()
            loop.run_until_complete(_finish())
            loop.close()

    def to(self, *urls: str) -> None:
        """
        Send what comes from now on to a slot, or to several in turn.
        """
        self._turns = cycle(urls)

    async def pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """
        Pass one request to the slot whose turn it is, and the answer back.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                await self._exchange(reader, writer)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            with contextlib.suppress(OSError):
                writer.write(_UNAVAILABLE)
        finally:
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return
        slot = urlsplit(next(self._turns, ""))
        if slot.port is None:
            raise ConnectionRefusedError
        from_slot, to_slot = await asyncio.open_connection(slot.hostname, slot.port)
        body = asyncio.create_task(_pour(reader, to_slot))
        try:
            # Rule 1: the slot closes the connection after its answer.
            head = _CONNECTION.sub(b"", head[:-2]) + b"Connection: close\r\n\r\n"
            to_slot.write(head)
            await to_slot.drain()
            await _pour(from_slot, writer)
        finally:
            body.cancel()
            to_slot.close()


async def _finish() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*left, return_exceptions=True)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_MOST_HEAD):
        writer.write(piece)
        await writer.drain()
