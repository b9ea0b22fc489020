"""
Where races are run: a store of either kind, real threads, and a barrier.
"""

from __future__ import annotations

import asyncio
import threading

from kagimori.errors import ConflictError
from kagimori.storage.sqlite import SqliteStore
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore
from kagimori.testing.spy_store import SpyStore
from tests.tokens.world import PUBLIC, TENANT, Desk, Ring

HERD = 50
ROUNDS = 30
"""How often a race is repeated at most until its losing branch has been seen."""


class Referee(SpyStore):
    """
    Counts lost compare-and-swaps, of all threads.
    """

    conflicts = 0

    async def commit(self, tenant, changes):
        try:
            return await super().commit(tenant, changes)
        except ConflictError:
            self.conflicts += 1
            raise


class Arena:
    """
    One store and one ring, for as many desks as there are racers.
    """

    def __init__(self, kind, folder, policy=PUBLIC):
        self.clock = FixedClock()
        self.ring = Ring()
        self.policy = policy
        if kind == "sqlite":
            path = folder / f"{len(list(folder.iterdir()))}.db"
            inner = SqliteStore.open(path, clock=self.clock)
        else:
            inner = MemoryStore(self.clock)
        self.store = Referee(inner)
        self.desk = self.new_desk()

    def new_desk(self):
        """
        Return a desk as another instance of the server has one.
        """
        return Desk(self.store, self.ring, self.policy)

    def run(self, coroutine):
        return asyncio.run(coroutine)

    def sign_in(self, **fields):
        return self.run(self.desk.open(self.clock, **fields)).token.text

    def redeem(self, text, **fields):
        return self.run(self.desk.redeem(text, **fields))

    def family(self, text):
        found = self.run(self.desk.families.inspect_token(TENANT, text))
        return found.family

    def after(self, time):
        self.clock.advance(time)
        return self

    def __enter__(self):
        self.run(self.desk.add_user())
        return self

    def __exit__(self, *_):
        self.run(self.store.close())


def race(jobs):
    """
    Run each job on a thread and an event loop of its own, all from one barrier.

    Args:
        jobs: functions that return a coroutine.
    """
    barrier = threading.Barrier(len(jobs))
    results, errors = [None] * len(jobs), []

    def run(number, job):
        async def start():
            barrier.wait()
            return await job()

        try:
            results[number] = asyncio.run(start())
        except BaseException as exc:  # noqa: BLE001 - raised again below
            errors.append(exc)
            barrier.abort()

    threads = [
        threading.Thread(target=run, args=(number, job))
        for number, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def herd(arena, text, size=HERD, **fields):
    """
    Let a herd of instances present one token at once; return the verdicts.
    """
    desks = [arena.new_desk() for _ in range(size)]
    return race([lambda desk=desk: desk.redeem(text, **fields) for desk in desks])


def outcomes(verdicts):
    return [verdict.outcome.name for verdict in verdicts]


def texts(verdicts):
    return {verdict.token.text for verdict in verdicts if verdict.token is not None}
