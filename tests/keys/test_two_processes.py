"""
Real processes on one SQLite file: one creation, one switch, and crashes in the middle.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import time
from datetime import datetime, timedelta

import pytest

from kagimori.admin.audit import Trail, verify_trail
from kagimori.admin.keys import KeyAdmin
from kagimori.clock import SystemClock
from kagimori.errors import KagimoriError
from kagimori.keys.documents import RINGS
from kagimori.keys.tenant_rings import TenantRings
from kagimori.keys.timeline import KeyState, KeyUse
from kagimori.opening import open_ring
from kagimori.storage.sqlite import SqliteStore
from tests.keys.worlds import CAUSE, FAST, SIGNING, TENANT

# Forked from a process that has imported everything: a start costs milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.keys.worlds"])
LIFE = timedelta(minutes=10)


def opened(folder):
    """
    Open ring and store as a server process does.
    """
    clock = SystemClock()
    ring = open_ring(
        f"file://{folder}/ring", application="kagimori", wrapper="plaintext:"
    )
    store = SqliteStore.open(folder / "test.db", clock=clock)
    return clock, ring, store


def started(folder):
    """
    Return what one process holds, not started yet.
    """
    clock, ring, store = opened(folder)
    rings = TenantRings(store, ring, clock, journal=Trail(), plan=FAST)
    keys = KeyAdmin(store, ring, clock, Trail())
    return clock, store, rings, keys


def create(folder, gate, told):
    """
    Start on an empty store together with others; tell which keys are served.
    """

    async def main():
        clock, store, rings, _ = started(folder)
        gate.wait()
        await rings.start([TENANT])
        told.put(rings.jwks(TENANT, clock.now()).body)
        await store.close()

    asyncio.run(main())


def sign(folder, path, gate, stop):
    """
    Sign all the time as a server would, and write down when with which key.
    """

    async def main():
        clock, store, rings, _ = started(folder)
        await rings.start([TENANT])
        samples = []
        gate.wait()
        while not stop.is_set():
            await rings.refresh()
            await rings.tick(clock.now())
            for _ in range(20):
                now = clock.now()
                key = await rings.signing_key(TENANT, None, now, now + LIFE)
                samples.append((now.isoformat(), key.id))
                await asyncio.sleep(0.002)
        await rings.flush_ledger()
        await store.close()
        path.write_text(json.dumps(samples))

    asyncio.run(main())


def turn_for_ever(folder, seed):
    """
    Rotate, cancel, revoke and sign until killed.
    """

    async def main():
        clock, _, rings, keys = started(folder)
        await rings.start([TENANT])
        step = seed
        while True:
            step += 1
            try:
                await rings.refresh()
                await rings.tick(clock.now())
                now = clock.now()
                until = now + LIFE * (step % 9)
                key = await rings.signing_key(TENANT, None, now, until)
                await rings.flush_ledger()
                if step % 3 == 0:
                    await keys.rotate(TENANT, SIGNING, replace=True, cause=CAUSE)
                elif step % 3 == 1:
                    await keys.cancel(TENANT, SIGNING, cause=CAUSE)
                else:
                    await keys.revoke(TENANT, SIGNING, key.id, cause=CAUSE)
            except KagimoriError:
                # Refusals are part of the mix.
                continue

    asyncio.run(main())


def test_K4_twenty_processes_on_an_empty_store_make_one_ring(tmp_path):
    """
    K4, row 5: exactly one ring, served by all.
    """
    opened(tmp_path)[2]
    gate, told = PROCESSES.Barrier(20), PROCESSES.Queue()
    workers = [
        PROCESSES.Process(target=create, args=(tmp_path, gate, told)) for _ in range(20)
    ]
    for worker in workers:
        worker.start()
    bodies = {told.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join(60)

    assert [0] * 20 == [worker.exitcode for worker in workers]
    assert 1 == len(bodies)
    assert 1 == len(json.loads(bodies.pop())["keys"])


def test_two_processes_switch_at_the_same_instant(tmp_path):
    """
    Whoever signs: the old key before `activates`, the new one from it on. No exception.
    """
    _, store, rings, keys = started(tmp_path)
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    gate, stop = PROCESSES.Barrier(3), PROCESSES.Event()
    workers = [
        PROCESSES.Process(target=sign, args=(tmp_path, path, gate, stop))
        for path in paths
    ]

    async def main():
        await rings.start([TENANT])
        for worker in workers:
            worker.start()
        gate.wait(120)
        await asyncio.sleep(0.5)
        outcome = await keys.rotate(
            TENANT, SIGNING, now_flag=True, emergency=True, cause=CAUSE
        )
        await asyncio.sleep(0.5)
        stop.set()
        return outcome

    outcome = asyncio.run(main())
    for worker in workers:
        worker.join(60)
    asyncio.run(store.close())

    for path in paths:
        samples = json.loads(path.read_text())
        assert {outcome.key.kid, outcome.ended[0].kid} == {kid for _, kid in samples}
        for now, kid in samples:
            is_new = datetime.fromisoformat(now) >= outcome.key.activates
            assert is_new == (kid == outcome.key.kid)


@pytest.mark.parametrize("kills", [10])
def test_K8_killed_in_the_middle_of_rotations_the_ring_is_whole(tmp_path, kills):
    """
    K8: after each ``kill -9`` one current key, a whole trail, and every key readable.
    """
    _, store, rings, _ = started(tmp_path)
    asyncio.run(rings.start([TENANT]))
    for number in range(kills):
        before = asyncio.run(generation(tmp_path))
        workers = [
            PROCESSES.Process(target=turn_for_ever, args=(tmp_path, number + n))
            for n in range(2)
        ]
        for worker in workers:
            worker.start()
        # Killed at one more moment each time, once they are in the middle of it.
        give_up = time.monotonic() + 60
        while asyncio.run(generation(tmp_path)) == before:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        time.sleep(0.037 * (number % 20))
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
            worker.join(60)
        asyncio.run(check_whole(tmp_path))
    asyncio.run(store.close())
    assert asyncio.run(generation(tmp_path)) > kills


async def check_whole(folder):
    """
    Assert what must hold whatever died.
    """
    clock, ring, store = opened(folder)
    rings = TenantRings(store, ring, clock)
    await rings.start()
    now = clock.now()
    document = (await RINGS.get(store, TENANT, SIGNING.value)).value
    states = [document.ring().state(key, now) for key in document.keys]
    assert 1 == states.count(KeyState.CURRENT)
    assert states.count(KeyState.NEXT) <= 1
    assert rings.problem is None
    assert await rings.signing_key(TENANT, None, now, now + LIFE)
    assert await verify_trail(store, TENANT)
    await store.close()
    ring.close()


async def generation(folder):
    """
    Return how often the ring has turned.
    """
    _, ring, store = opened(folder)
    found = await RINGS.get(store, TENANT, KeyUse.SIGNING.value)
    await store.close()
    ring.close()
    return found.value.generation
