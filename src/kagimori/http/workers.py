"""
Several worker processes behind one listener, and the parent that keeps them.

Rules of this module:

1. The parent binds the sockets, starts the workers and restarts those that die. It holds no key
   and opens no database while it waits.
2. Workers share nothing but the sockets and the store: each polls and ticks for itself, and all
   switch keys at the same instant because their states follow from times.
3. A worker whose parent is gone drains and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from kagimori.clock import SystemClock
from kagimori.compose import is_transient
from kagimori.errors import ConfigError, KagimoriError
from kagimori.events import NullSink
from kagimori.http import logs
from kagimori.http.listeners import address_of, close_all
from kagimori.http.metrics import SHARED_FOLDER, mark_dead
from kagimori.http.report import StartReport, make_report
from kagimori.http.server import OnStart, Opening
from kagimori.settings import Settings

PERMANENT = 3
"""The exit status of a worker that cannot start, however often."""

SHORT_LIFE = 5.0
"""Seconds; a worker that lived shorter is restarted after a pause only."""

_LOOK = 0.1
_START = 30.0


@dataclass
class _Worker:
    """
    A running worker.
    """

    process: subprocess.Popen[bytes]
    ready: int
    started: float
    is_ready: bool = False


def supervise(
    settings: Settings,
    public: Sequence[socket.socket],
    admin: Sequence[socket.socket],
    on_start: OnStart,
    opening: Opening,
) -> None:
    """
    Serve with several workers until told to end.

    Raises:
        KagimoriError: the installation cannot be opened, and waiting would not help.
    """
    report = asyncio.run(_look(settings, public, admin, opening))
    folder = tempfile.mkdtemp(prefix="kagimori-metrics-")
    try:
        Parent(settings, public, admin, folder).run(report, on_start)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _look(
    settings: Settings,
    public: Sequence[socket.socket],
    admin: Sequence[socket.socket],
    opening: Opening,
) -> StartReport:
    """
    Open the installation once, so that what is permanently wrong is told before anything runs.
    """
    addresses = [address_of(each) for each in public]
    try:
        installation = await opening(settings, clock=SystemClock(), events=NullSink())
    except KagimoriError as error:
        if not is_transient(error):
            raise
        return await make_report(settings, None, addresses, address_of(admin[0]), error)
    try:
        await installation.start()
        return await make_report(
            settings, installation, addresses, address_of(admin[0])
        )
    except KagimoriError as error:
        if not is_transient(error):
            raise
        return await make_report(settings, None, addresses, address_of(admin[0]), error)
    finally:
        await installation.close()


class Parent:
    """
    Keeps the workers of one server.

    Args:
        settings: of the installation.
        public, admin: sockets that listen already.
        metrics: a folder in which the workers add up their figures.
    """

    def __init__(
        self,
        settings: Settings,
        public: Sequence[socket.socket],
        admin: Sequence[socket.socket],
        metrics: str,
    ) -> None:
        self._settings = settings
        self._public = public
        self._admin = admin
        self._metrics = metrics
        # Nobody writes here: that it ends tells the workers that the parent is gone.
        self._lifeline, self._life = os.pipe()
        self._workers: list[_Worker] = []
        self._signal: signal.Signals | None = None

    def run(self, report: StartReport, on_start: OnStart) -> None:
        """
        Start the workers, keep them, and end them.
        """
        before = {
            each: signal.signal(each, self._told)
            for each in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            for _ in range(self._settings.server.workers):
                self._workers.append(self._start())
            self._await_ready()
            if self._signal is None:
                on_start(report)
            while self._signal is None:
                time.sleep(_LOOK)
                self._tend()
        finally:
            self._end()
            for each, handler in before.items():
                signal.signal(each, handler)

    def _told(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)

    def _start(self) -> _Worker:
        reads, writes = os.pipe()
        sockets = [each.fileno() for each in self._public]
        admin = [each.fileno() for each in self._admin]
        command = [
            sys.executable,
            "-m",
            "kagimori.http.worker",
            str(self._settings.data),
            ",".join(map(str, sockets)),
            ",".join(map(str, admin)),
            str(writes),
            str(self._lifeline),
        ]
        process = subprocess.Popen(  # noqa: S603 - ourselves
            command,
            pass_fds=[*sockets, *admin, writes, self._lifeline],
            env={**os.environ, SHARED_FOLDER: self._metrics},
            stdin=subprocess.DEVNULL,
        )
        os.close(writes)
        os.set_blocking(reads, False)
        return _Worker(process, reads, time.monotonic())

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START
        while self._signal is None and time.monotonic() < deadline:
            if all(self._is_ready(worker) for worker in self._workers):
                return
            self._tend()
            time.sleep(0.01)

    def _is_ready(self, worker: _Worker) -> bool:
        if not worker.is_ready:
            with contextlib.suppress(BlockingIOError):
                worker.is_ready = bool(os.read(worker.ready, 1))
        return worker.is_ready

    def _tend(self) -> None:
        for position, worker in enumerate(self._workers):
            status = worker.process.poll()
            if status is None or self._signal is not None:
                continue
            os.close(worker.ready)
            mark_dead(self._metrics, worker.process.pid)
            if status == PERMANENT:
                raise ConfigError(
                    "A worker cannot start; its message stands above.",
                    hint="Mend what it names, then start again.",
                )
            logs.logger().error("worker.died", pid=worker.process.pid, status=status)
            if time.monotonic() - worker.started < SHORT_LIFE:
                time.sleep(1.0)
            self._workers[position] = self._start()

    def _end(self) -> None:
        # A socket that is still open somewhere takes connections that nobody answers.
        close_all([*self._public, *self._admin])
        number = self._signal or signal.SIGTERM
        running = [w.process for w in self._workers if w.process.poll() is None]
        for process in running:
            process.send_signal(number)
        deadline = time.monotonic() + self._settings.limits.drain_seconds + 5
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for worker in self._workers:
            with contextlib.suppress(OSError):
                os.close(worker.ready)
        os.close(self._life)
        os.close(self._lifeline)
