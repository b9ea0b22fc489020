"""
Whole rings in databases and in Redis, opened by their addresses.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kagimori import open_ring
from kagimori.errors import StoreError
from kagimori.ring_stores import redis
from kagimori.testing.clock import FixedClock
from tests.ring_stores.sql_places import table_of

PROCESSES = 20


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "redis"])
def location(request, tmp_path) -> str:
    """
    Return the address of a place where no ring is yet.
    """
    (tmp_path / "passphrase").write_text("correct horse battery staple")
    (tmp_path / "passphrase").chmod(0o600)
    name = table_of(tmp_path)
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/ring.db?table={name}"
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        return f"redis://127.0.0.1:{server.port}/0?key={name}"
    kind = request.param
    server = request.getfixturevalue("postgres" if kind == "postgresql" else "mariadb")
    who, database = (
        ("postgres", "postgres") if kind == "postgresql" else ("root", "rings")
    )
    (tmp_path / "password").write_text(server.password)
    (tmp_path / "password").chmod(0o600)
    return (
        f"{kind}://{who}@127.0.0.1:{server.port}/{database}?table={name}"
        f"&password-file={tmp_path}/password"
    )


def opened(location: str, tmp_path: Path, **options: Any) -> Any:
    return open_ring(
        location,
        application="shop",
        wrapper=f"passphrase:file:{tmp_path}/passphrase",
        **options,
    )


def test_two_slots_share_a_ring(location, tmp_path):
    """
    What blue protects green opens, before and after a rotation that green made.
    """
    clock = FixedClock()
    blue = opened(location, tmp_path, clock=clock)
    green = opened(location, tmp_path, clock=clock)
    first = blue.protector("cookie").protect(b"one")
    assert b"one" == green.protector("cookie").unprotect(first).payload
    green.rotate(immediate=True, reason="a test")
    clock.advance(timedelta(seconds=6))
    blue.tick()

    second = blue.protector("cookie").protect(b"two")
    found = green.protector("cookie").unprotect(second)
    assert (b"two", False) == (found.payload, found.needs_renewal)
    assert blue.protector("cookie").unprotect(first).needs_renewal
    assert blue.generation == green.generation == 2
    reader = opened(location, tmp_path, clock=clock, read_only=True)
    assert b"two" == reader.protector("cookie").unprotect(second).payload


def test_a_ring_serves_on_while_its_store_is_down(
    location, tmp_path, request, monkeypatch
):
    """
    The last good ring serves while the server is away, says so, and recovers.
    """
    if location.startswith("sqlite"):
        path = tmp_path / "ring.db"
        away, back = (
            (lambda: path.rename(tmp_path / "away.db")),
            (lambda: (tmp_path / "away.db").rename(path)),
        )
    elif location.startswith("redis"):
        process = request.getfixturevalue("redis_server").process
        away, back = None, None
    else:
        name = "postgres" if location.startswith("postgresql") else "mariadb"
        process = request.getfixturevalue(name).process
        away, back = process.stop, process.start
    monkeypatch.setattr(redis, "_READ_SECONDS", 0.5)
    clock = FixedClock()
    ring = opened(location, tmp_path, clock=clock)
    token = ring.protector("cookie").protect(b"one")
    for _ in range(2):
        clock.advance(timedelta(seconds=6))
        ring.tick()
    clock.advance(timedelta(seconds=6))
    if away is None:
        # It keeps nothing on its disk, so it is only made to hang.
        with process.paused():
            ring.tick()
            problem = ring.problem
    else:
        away()
        try:
            ring.tick()
            problem = ring.problem
        finally:
            back()
    assert problem is not None
    assert location.startswith("sqlite") or isinstance(problem, StoreError)
    assert b"one" == ring.protector("cookie").unprotect(token).payload
    clock.advance(timedelta(seconds=61))
    ring.tick()

    assert ring.problem is None


def test_K4_twenty_processes_make_one_key(location, tmp_path):
    """
    K4: 20 processes that start together on an empty place make exactly one key, and each
    opens what every other one protected.
    """
    module = "tests.ring_stores.ring_worker"
    command = [sys.executable, "-m", module, location, "plaintext:"]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    try:
        assert {"ready\n"} == {worker.stdout.readline() for worker in workers}
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        keys = [worker.stdout.readline().strip() for worker in workers]
        payloads = [worker.stdout.readline() for worker in workers]
        said = [worker.communicate("".join(payloads), 120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    assert 1 == len(set(keys))
    assert {"hello\n" * PROCESSES} == set(said)
    ring = open_ring(location, application="shop", wrapper="plaintext:")
    assert [keys[0]] == [key.id for key in tuple(ring.keys())]
    assert 1 == ring.generation
