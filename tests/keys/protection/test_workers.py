"""
Many threads and forked workers on one ring, as web servers have them.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from datetime import timedelta

import pytest

from kagimori.errors import ProtectionError
from kagimori.wrappers.passphrase import PassphraseWrapper
from tests.keys.protection.vault import Vault
from tests.keys.protection.world import World

THREADS = 100
CHILDREN = 4
PAYLOADS = 50


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def in_child(work: Callable[[], bytes]) -> bytes:
    """
    Fork as gunicorn does, and return what the child's work gave.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads that other tests may have left.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(work())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        given = pipe.read()
    os.waitpid(child, 0)
    return given


def test_a_hundred_threads_share_a_ring_that_turns(world: World):
    """
    All protect and open while another thread rotates, revokes and rewraps; nothing is refused
    but what was revoked, and no nonce comes twice.
    """
    ring = world.ring(wrapper=Vault())
    protector = ring.protector("a")
    start, done = threading.Barrier(THREADS + 1), threading.Event()
    made: list[bytes] = []
    failures: list[BaseException] = []

    def work() -> None:
        start.wait()
        try:
            for _ in range(20):
                sealed = protector.protect_bytes(b"x")
                made.append(sealed)
                assert b"x" == protector.unprotect_bytes(sealed).payload
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    start.wait()
    for _ in range(3):
        world.clock.advance(timedelta(seconds=30))
        ring.rotate(immediate=True)
        ring.rewrap()
    done.set()
    for thread in threads:
        thread.join(60)

    assert [] == failures
    assert THREADS * 20 == len(made) == len({one[20:48] for one in made})


def test_forked_workers_never_repeat_a_nonce(world: World):
    """
    Each child's payloads differ from its siblings' and from the parent's, made from the same
    ring object at the same time.
    """
    protector = world.ring().protector("a")
    protector.protect(b"warm")
    parts = [
        in_child(
            lambda: b"".join(protector.protect_bytes(b"") for _ in range(PAYLOADS))
        )
        for _ in range(CHILDREN)
    ]
    parts.append(b"".join(protector.protect_bytes(b"") for _ in range(PAYLOADS)))
    size = 20 + 16 + 12 + 16
    nonces = {
        part[at + 20 : at + 48] for part in parts for at in range(0, len(part), size)
    }

    assert [size * PAYLOADS] * (CHILDREN + 1) == [len(part) for part in parts]
    assert (CHILDREN + 1) * PAYLOADS == len(nonces)


def test_forked_workers_look_for_themselves(world: World):
    """
    A child sees what came after the fork, makes keys that the parent sees, and neither waits for
    a thread that exists in the other only.
    """
    wrapper = PassphraseWrapper(b"shared")
    ring = world.ring(wrapper=wrapper)
    protector = ring.protector("a")
    assert ring._live._flight.take()
    key = ring._live.contents.keys[0].material
    key._lock.acquire()
    wrapper._lock.acquire()

    def work() -> bytes:
        world.clock.advance(timedelta(seconds=10))
        ring.refresh()
        ring.rotate(immediate=True)
        return protector.protect_bytes(b"of the child")

    sealed = in_child(work)
    wrapper._lock.release()
    key._lock.release()
    ring._live._flight.land()

    assert b"of the child" == protector.unprotect_bytes(sealed).payload
    assert 2 == len(ring.keys())


def test_many_children_on_an_empty_place_make_one_key(world: World):
    """
    Pain 2: workers that start together on nothing agree on one key.
    """
    start, go = os.pipe()
    outcomes = []

    def child() -> None:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                os.read(start, 1)
                ring = world.ring(wrapper=PassphraseWrapper(b"shared"))
                os.write(writer, ring.current_key_id.encode())
            finally:
                os._exit(0)
        os.close(writer)
        outcomes.append((pid, reader))

    for _ in range(6):
        child()
    os.write(go, b"x" * 6)
    ids = set()
    for pid, reader in outcomes:
        with os.fdopen(reader, "rb") as pipe:
            ids.add(pipe.read())
        os.waitpid(pid, 0)
    os.close(go)
    os.close(start)

    assert 1 == len(ids)
    assert 1 == len(list(world.place.glob("key-*.xml")))


def test_a_revocation_reaches_a_worker_that_was_idle(world: World):
    """
    After a pause the first payload waits for one look: it is not opened by what was true before.
    """
    ring, idle = world.ring(), world.ring()
    sealed = ring.protector("a").protect(b"x")
    assert b"x" == idle.protector("a").unprotect(sealed).payload
    ring.revoke(ring.current_key_id)
    world.clock.advance(timedelta(seconds=10))

    with pytest.raises(ProtectionError):
        idle.protector("a").unprotect(sealed)
    new = ring.protector("a").protect(b"y")
    assert b"y" == idle.protector("a").unprotect(new).payload
