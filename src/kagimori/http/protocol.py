"""
The connection: HTTP/1.1 with limits that hold (attack S1).

uvicorn's own protocol limits neither the size of header fields nor the time to send them, and
writes an answer in two pieces. This one takes its place behind `uvicorn.Server` and says:

1. A request has a header of at most so many bytes and fields, whole within so many seconds, and
   a body whole within so many seconds. One deadline per connection stands for all of them and is
   looked at by one sweep a second, so that a request costs no timer.
2. What cannot be framed in one way only is refused and the connection ends: both lengths, a
   trailer that would become a header, an upgrade, a target that is no path. A proxy in front and
   we then never disagree about where a request ends.
3. A refusal is read by the peer before the connection goes: what it still sends is thrown away
   for a moment, since closing at once would reset the answer on its way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from kagimori.http.cycle import CYCLE, Cycle, Message
from kagimori.http.framing import refusal
from kagimori.http.reader import Phase, RequestReader
from kagimori.settings import Limits

LINGER = 2.0
"""Seconds for which a refused peer may still talk before the connection goes."""

READ_AHEAD = 64 * 1024
"""Bytes of a body that are held before the application asks for them."""

_NEVER = float("inf")


class Connection(RequestReader, asyncio.Protocol):
    """
    One connection of one peer.

    Args:
        config, server_state, app_state, _loop: as `uvicorn.Server` gives them.
        limits: what the connection may cost.
        refused: told of each status with which the connection itself refused something.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        refused: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._loop = _loop or asyncio.get_running_loop()
        self._app: Any = config.loaded_app
        self._state = server_state
        self._connections: set[Any] = server_state.connections
        super().__init__(limits)
        self._refused = refused
        self._transport: asyncio.Transport | None = None
        self._defaults_of: object = None
        self._defaults = b""
        self._drained: asyncio.Future[None] | None = None
        self._reading = True
        self._pipeline: deque[Cycle] = deque()
        self._parsed: Cycle | None = None
        self.cycle: Cycle | None = None
        self.deadline = _NEVER
        self.write_paused = False

    # --- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Take the connection, or refuse it where there are too many.
        """
        self._transport = cast("asyncio.Transport", transport)
        self.client = _address(transport.get_extra_info("peername"))
        self.server = _address(transport.get_extra_info("sockname"))
        self._connections.add(self)
        if len(self._connections) > self._limits.connections:
            self.refuse(503, "Too many connections are open; try again in a moment.")
            return
        self.deadline = self._loop.time() + self._limits.header_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """
        Tell whoever still works for this peer that it is gone.
        """
        self._connections.discard(self)
        for cycle in (self.cycle, self._parsed, *self._pipeline):
            if cycle is not None:
                cycle.disconnect()
        self._pipeline.clear()
        self.resume_writing()
        self.deadline = _NEVER
        self._transport = None

    def eof_received(self) -> bool:
        """
        Keep the connection while an answer is due: a peer may close its half early.
        """
        if self.cycle is None or self._parsed is not None:
            return False
        self._end_after(self._pipeline[-1] if self._pipeline else self.cycle)
        return True

    def pause_writing(self) -> None:
        """
        Hold answers back: the peer does not take them.
        """
        self.write_paused = True

    def resume_writing(self) -> None:
        """
        Let answers go on.
        """
        self.write_paused = False
        waiter, self._drained = self._drained, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        """
        Parse what the peer sent.
        """
        if self.phase is Phase.LINGER:
            return
        if self.phase is Phase.IDLE:
            self.phase = Phase.HEAD
            self.deadline = self._loop.time() + self._limits.header_seconds
        rest: bytes | None = data
        while rest is not None and self.phase is not Phase.LINGER:
            rest = self.parse(rest)

    # --- what a cycle asks for (see `kagimori.http.cycle.Peer`)

    def write(self, data: bytes) -> None:
        """
        Send bytes to the peer.
        """
        if self._transport is not None:
            self._transport.write(data)

    async def drained(self) -> None:
        """
        Wait until the peer has taken enough of what was sent.
        """
        if self.write_paused:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await self._drained

    def wants_more(self) -> None:
        """
        Go on reading, where reading was held back.
        """
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    def default_headers(self) -> bytes:
        """
        Return the encoded header lines that uvicorn renews each second.
        """
        headers = self._state.default_headers
        if headers is not self._defaults_of:
            self._defaults_of = headers
            self._defaults = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        return self._defaults

    def answered(self) -> None:
        """
        Go on to the next request, or end the connection.
        """
        self._state.total_requests += 1
        cycle = self.cycle
        if cycle is None or self._transport is None or self.phase is Phase.LINGER:
            return
        if cycle.more_body:
            # Answered before the body was read: the rest of it must not look like a request.
            self._linger()
        elif not cycle.keep_alive:
            self.shut()
        elif self._pipeline:
            self._start(self._pipeline.popleft())
        else:
            self.cycle = None
            if self.phase is Phase.ANSWER:
                self.phase = Phase.IDLE
                self.deadline = self._loop.time() + self._limits.keep_alive_seconds
            self.wants_more()

    # --- what the reader finds

    def begin(self) -> None:
        """
        Give the header its time, unless what came before still counts.
        """
        if self.deadline == _NEVER:
            self.deadline = self._loop.time() + self._limits.header_seconds

    def accept(self, scope: Message, *, keep_alive: bool) -> None:
        """
        Hand a request to the application, at once or after those before it.
        """
        cycle = Cycle(
            self, scope, keep_alive=keep_alive, expects_continue=self.expects_continue
        )
        scope["extensions"] = {CYCLE: cycle}
        self._parsed = cycle
        self.deadline = self._loop.time() + self._limits.body_seconds
        if self.cycle is None:
            self._start(cycle)
        else:
            self._pause_reading()
            self._pipeline.append(cycle)

    def on_body(self, body: bytes) -> None:
        """
        Pass on a part of the body.
        """
        cycle = self._parsed
        if cycle is None or cycle.complete or self.phase is not Phase.BODY:
            return
        cycle.feed(body)
        if cycle.buffered > READ_AHEAD:
            self._pause_reading()

    def on_message_complete(self) -> None:
        """
        End the request.
        """
        if self.phase is Phase.LINGER or self._parsed is None:
            return
        self._parsed.end()
        self._parsed = None
        self.phase = Phase.ANSWER
        self.deadline = _NEVER

    # --- ourselves

    def shutdown(self) -> None:
        """
        End the connection as soon as nothing is owed to the peer (called by uvicorn).
        """
        if self.cycle is None or self.phase is Phase.LINGER:
            self.shut()
        else:
            self.cycle.keep_alive = False

    def shut(self) -> None:
        """
        Close the connection once what was written is out.
        """
        if self._transport is not None:
            self._transport.close()

    def refuse(self, status: int, reason: str) -> None:
        """
        Answer on the application's behalf and end the connection.
        """
        if self.phase is Phase.LINGER or self._transport is None:
            return
        self._refused(status)
        owed = self.cycle
        if owed is None or not owed.started:
            self._transport.write(refusal(status, reason))
        for cycle in (owed, self._parsed, *self._pipeline):
            if cycle is not None:
                cycle.disconnect()
        self._linger()

    def expire(self, now: float) -> None:
        """
        End the connection if its deadline is over.
        """
        if now < self.deadline or self._transport is None:
            return
        if self.phase is Phase.LINGER:
            self._transport.abort()
        elif self.phase is Phase.IDLE or (self.phase is Phase.HEAD and not self.url):
            # Nobody asked anything yet, so there is nothing to answer.
            self.shut()
        else:
            self.refuse(408, "The request did not arrive in time.")

    def _start(self, cycle: Cycle) -> None:
        self.cycle = cycle
        task = self._loop.create_task(self._run(cycle))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    async def _run(self, cycle: Cycle) -> None:
        try:
            await self._app(cycle.scope, cycle.receive, cycle.send)
        finally:
            # The application answers everything itself; a cycle left open means that it was
            # cancelled by the end of the drain.
            if not cycle.complete and self.phase is not Phase.LINGER:
                self.shut()

    def malformed(self) -> None:
        """
        End the connection: what follows cannot be read, what came before is answered.
        """
        if self._parsed is None and self.cycle is not None:
            self._end_after(self._pipeline[-1] if self._pipeline else self.cycle)
        else:
            self.refuse(400, "The request is no HTTP/1.1 that we understand.")

    def _end_after(self, last: Cycle) -> None:
        # What came before is sound and gets its answers; what follows is never read.
        last.keep_alive = False
        self._pause_reading()

    def _pause_reading(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _linger(self) -> None:
        self.phase = Phase.LINGER
        self.deadline = self._loop.time() + LINGER
        self._parsed = None
        self._pipeline.clear()
        if self._transport is not None and not self._transport.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self.wants_more()


def sweep(connections: Iterable[object], now: float) -> None:
    """
    End every connection whose deadline is over.
    """
    for connection in tuple(connections):
        if isinstance(connection, Connection):
            connection.expire(now)


def _address(name: Any) -> tuple[str, int] | None:
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    return None
