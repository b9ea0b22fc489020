"""
One server process: two listeners, one installation, a calm start and a calm end.

Rules of this module:

1. Permanent faults end the start with the error; passing ones let it begin unready, and it tries
   again by itself (DESIGN section 9).
2. SIGTERM drains: no new connection, requests in flight end, then the ledger is written. Ctrl-C
   drops what is open, writes the ledger and ends at once.
3. What was loaded at the start is taken out of the garbage collector's sight: it never becomes
   garbage, and looking through it again and again would stop requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import uvicorn
import uvloop

from kagimori.clock import Clock, SystemClock
from kagimori.compose import Installation, Issuers, is_transient, open_installation
from kagimori.errors import KagimoriError
from kagimori.events import EventSink, FanOut
from kagimori.http import logs
from kagimori.http.app import make_admin_app, make_app
from kagimori.http.background import Background, repeat
from kagimori.http.listeners import address_of, bind_admin, bind_public, close_all
from kagimori.http.live import Live
from kagimori.http.metrics import Metrics
from kagimori.http.places import Places
from kagimori.http.protocol import Connection, sweep
from kagimori.http.report import StartReport, make_report
from kagimori.settings import Limits, Settings

RETRY_FIRST = 1.0
RETRY_MOST = 30.0
SPARE_FILES = 64
"""File descriptors that are kept for everything but connections."""

_M_MMAP_THRESHOLD = -3
"""The number of that option in glibc's `mallopt`."""

OnStart = Callable[[StartReport], None]


class Opening(Protocol):
    """
    Opens the installation of some settings.
    """

    async def __call__(
        self, settings: Settings, *, clock: Clock, events: EventSink
    ) -> Installation:
        """
        Open it.

        Raises:
            KagimoriError: it cannot be opened.
        """
        ...


async def _open_existing(
    settings: Settings, *, clock: Clock, events: EventSink
) -> Installation:
    return open_installation(settings, clock=clock, events=events)


def serve(
    settings: Settings, on_start: OnStart, *, opening: Opening = _open_existing
) -> None:
    """
    Serve until told to end.

    Args:
        settings: of the installation.
        on_start: told once, when requests are taken.
        opening: opens the installation; the demo's makes what is missing of it.

    Raises:
        KagimoriError: the server cannot start, and waiting would not help.
    """
    logs.configure(settings.server.log_level)
    public = bind_public(settings)
    try:
        admin = bind_admin(settings)
    except KagimoriError:
        close_all(public)
        raise
    try:
        if settings.server.workers > 1:
            from kagimori.http.workers import supervise  # noqa: PLC0415 - seldom

            supervise(settings, public, admin, on_start, opening)
        else:
            run(ServerProcess(settings, public, admin, opening), on_start)
    finally:
        close_all([*public, *admin])


def run(process: ServerProcess, on_start: OnStart) -> None:
    """
    Run one server process to its end.

    Raises:
        KagimoriError: it cannot start, and waiting would not help.
    """
    _give_memory_back()

    def started(report: StartReport) -> None:
        on_start(report)
        _settle_memory()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(process.run(started))


class ServerProcess:
    """
    One process that serves.

    Args:
        settings: of the installation.
        public, admin: sockets that listen already.
        opening: opens the installation.
    """

    def __init__(
        self,
        settings: Settings,
        public: Sequence[socket.socket],
        admin: Sequence[socket.socket],
        opening: Opening = _open_existing,
    ) -> None:
        self._opening = opening
        self._settings = settings
        self._public = list(public)
        self._admin = list(admin)
        self._system = SystemClock()
        self._clock = ServerClock(self._system)
        self._metrics = Metrics()
        self._events = FanOut(logs.LogSink(settings.server.log_level), self._metrics)
        self._live = Live()
        self._places = Places(settings, Issuers(settings))
        self._background: Background | None = None
        self._servers: list[_Server] = []
        self._ending = asyncio.Event()
        self._at_once = False

    def end(self, *, at_once: bool = False) -> None:
        """
        End: after the requests in flight, or at once.
        """
        self._at_once = self._at_once or at_once
        self._live.draining = True
        for server in self._servers:
            server.should_exit = True
            server.force_exit = server.force_exit or self._at_once
        self._ending.set()

    async def run(self, on_start: OnStart) -> None:
        """
        Serve until `end` is called or a signal comes.

        Raises:
            KagimoriError: the installation cannot be opened, and waiting would not help.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.end)
        loop.add_signal_handler(
            signal.SIGINT, functools.partial(self.end, at_once=True)
        )
        problem: KagimoriError | None = None
        try:
            await self._open()
        except KagimoriError as error:
            if not is_transient(error):
                raise
            problem = self._live.opening = error
        others = [asyncio.create_task(repeat("sweep", 1.0, self._sweep))]
        if problem is not None:
            others.append(asyncio.create_task(self._open_later()))
        limits = bounded(self._settings.limits)
        app = make_app(
            self._live, self._settings, self._clock, self._metrics, self._places
        )
        admin_app = make_admin_app(self._live, self._clock, self._metrics)
        public = self._listen(app, limits)
        admin = self._listen(admin_app, limits)
        self._servers = [public, admin]
        serving = [
            asyncio.create_task(public._serve(self._public)),  # noqa: SLF001 - see below
            asyncio.create_task(admin._serve(self._admin)),  # noqa: SLF001 - likewise
        ]
        try:
            await self._report(on_start, problem)
            if self._ending.is_set():
                self.end()
            await self._ending.wait()
            await asyncio.gather(*serving)
        finally:
            self.end(at_once=True)
            for task in others:
                task.cancel()
            await asyncio.gather(*serving, *others, return_exceptions=True)
            await self._close()

    def _listen(self, app: Any, limits: Limits) -> _Server:
        # `uvicorn.Server.serve` would take the signals for itself; what it does beyond that is
        # `_serve`, which is all that is used of it.
        config = uvicorn.Config(
            app,
            http=functools.partial(  # type: ignore[arg-type]  # makes protocols, as a class does
                Connection, limits=limits, refused=self._metrics.refused
            ),
            ws="none",
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=limits.drain_seconds,  # type: ignore[arg-type]  # floats do
        )
        config.load()
        return _Server(config)

    async def _report(self, on_start: OnStart, problem: KagimoriError | None) -> None:
        for server in self._servers:
            await server.ready.wait()
        report = await make_report(
            self._settings,
            self._live.installation,
            [address_of(each) for each in self._public],
            address_of(self._admin[0]),
            problem,
        )
        on_start(report)

    # --- the installation ------------------------------------------------------------------

    async def _open(self) -> None:
        installation = await self._opening(
            self._settings, clock=self._system, events=self._events
        )
        self._clock.follow(installation.clock)
        try:
            await installation.start()
            with contextlib.suppress(KagimoriError):
                # What cannot be written now is tried each minute; serving needs none of it.
                await installation.beat()
        except BaseException:
            await installation.close()
            raise
        self._serve_from(installation)

    def _serve_from(self, installation: Installation) -> None:
        self._places.set_hosts(installation.hosts)
        self._live.serve(installation)
        self._background = Background(
            installation, self._live, self._places, self._metrics
        )
        self._background.start()

    async def _open_later(self) -> None:
        pause = RETRY_FIRST
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_MOST)
            try:
                await self._open()
            except KagimoriError as error:
                # A fault that became permanent is told by `/readyz`; probes may call for help.
                self._live.opening = error
                logs.logger().error("opening.failed", error=error.code, text=error.text)
            else:
                logs.logger().info("opening.done")
                return

    async def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for server in self._servers:
            sweep(server.server_state.connections, now)

    async def _close(self) -> None:
        if self._background is not None:
            await self._background.stop()
        self._metrics.share(alive=False)
        installation = self._live.installation
        if installation is not None:
            await installation.close()


class _Server(uvicorn.Server):
    """
    One listener.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class ServerClock:
    """
    The clock of the requests: this machine's until an installation is open, then its.
    """

    def __init__(self, clock: Clock) -> None:
        self.now = clock.now

    def follow(self, clock: Clock) -> None:
        """
        Show the time of another clock from now on.
        """
        self.now = clock.now


def bounded(limits: Limits) -> Limits:
    """
    Return limits whose connections this process has file descriptors for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        room = max(16, soft - SPARE_FILES)
        if room < limits.connections:
            logs.logger().warning("connections.bounded", connections=room)
            import msgspec  # noqa: PLC0415 - seldom

            return msgspec.structs.replace(limits, connections=room)
    return limits


def _give_memory_back() -> None:
    # Each password hash takes 19 MiB for a moment. Once such a piece was freed, glibc keeps the
    # next ones for itself, some for each thread, unless its threshold is fixed.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)


def _settle_memory() -> None:
    gc.collect()
    gc.freeze()
    # Requests make next to no cycles: look for them seldom.
    gc.set_threshold(50_000, 20, 50)
