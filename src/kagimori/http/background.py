"""
What a server does between requests.

Rules of this module:

1. A failure is logged once when it begins and once when it is over, and never ends the loop.
2. Nothing here is needed for the next second of serving: requests are served from memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kagimori.compose import Installation
from kagimori.errors import KagimoriError
from kagimori.http import logs
from kagimori.http.live import Live
from kagimori.http.metrics import Metrics
from kagimori.http.places import Places

POLL = 0.25
TICK = 1.0
PURGE = 60.0
BEAT = 60.0
PURGED = 1000
PURGES = 100

Work = Callable[[], Awaitable[None]]


class Background:
    """
    The loops that keep an installation alive.

    Args:
        installation: what is kept alive.
        live: judged again after each tick.
        places: told of tenants' hosts.
        metrics: shared with other workers.
    """

    def __init__(
        self, installation: Installation, live: Live, places: Places, metrics: Metrics
    ) -> None:
        self._metrics = metrics
        self._installation = installation
        self._live = live
        self._places = places
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """
        Start all loops.
        """
        for name, seconds, work in (
            ("poll", POLL, self._poll),
            ("tick", TICK, self._tick),
            ("purge", PURGE, self._purge),
            ("beat", BEAT, self._beat),
        ):
            self._tasks.append(
                asyncio.create_task(repeat(name, seconds, work), name=name)
            )

    async def stop(self) -> None:
        """
        End all loops.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _poll(self) -> None:
        if await self._installation.poll():
            self._places.set_hosts(self._installation.hosts)

    async def _tick(self) -> None:
        rings, clock = self._installation.rings, self._installation.clock
        try:
            # One that fails takes its turn from no other; the first failure is told.
            await in_turn(
                lambda: rings.tick(clock.now()),
                rings.flush_ledger,
                self._installation.check_marks,
            )
        finally:
            self._live.judge()
            self._metrics.ready = not self._live.problems(clock.now())
            self._metrics.share()

    async def _purge(self) -> None:
        for _ in range(PURGES):
            if await self._installation.store.purge(PURGED) < PURGED:
                return

    async def _beat(self) -> None:
        await self._installation.beat()


async def in_turn(*works: Callable[[], Awaitable[object]]) -> None:
    """
    Do one after the other, whatever becomes of those before.

    Raises:
        Exception: the first that was raised, after all are done.
    """
    first: Exception | None = None
    for work in works:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - raised below
            first = first or error
    if first is not None:
        raise first


async def repeat(name: str, seconds: float, work: Work) -> None:
    """
    Do something again and again, whatever becomes of it.
    """
    failing = False
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except KagimoriError as error:
            if not failing:
                logs.logger().error(
                    "background.failing",
                    work=name,
                    error=error.code,
                    text=error.text,
                    detail=error.detail,
                )
            failing = True
        except Exception as error:  # noqa: BLE001 - the loop must go on
            logs.logger().error("background.broken", work=name, **logs.describe(error))
            failing = True
        else:
            if failing:
                logs.logger().info("background.recovered", work=name)
            failing = False
