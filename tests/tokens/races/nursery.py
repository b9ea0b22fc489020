"""
Makes processes of servers quickly: one that has imported everything, and forks on demand.

A child opens the database and the ring for itself, does its job, and writes what it came to as
lines of JSON. It may be killed at any instant; the parent knows its process id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from kagimori.clock import SystemClock
from kagimori.events import NullSink
from kagimori.opening import open_ring
from kagimori.storage.sqlite import SqliteStore
from tests.tokens.races.arena import Referee, race
from tests.tokens.world import TENANT, Desk

ROOT = Path(__file__).parents[3]


class ShiftedClock:
    """
    The machine's clock, some seconds on.
    """

    def __init__(self, seconds=0.0):
        self._by = timedelta(seconds=seconds)

    def now(self):
        return SystemClock().now() + self._by


def ring_in(folder):
    return open_ring(
        f"file://{folder}/ring",
        application="kagimori",
        wrapper="plaintext:",
        events=NullSink(),
    )


def server_in(folder, seconds=0.0, referee=Referee, **fields):
    """
    Return a desk on the database and the ring of a folder.
    """
    clock = ShiftedClock(seconds)
    store = referee(SqliteStore.open(Path(folder) / "kagimori.db", clock=clock))
    return Desk(store, ring_in(folder), **fields)


# --- what children do ----------------------------------------------------------------------


class KilledAfter(Referee):
    """
    The process dies by SIGKILL the moment its commit is durable.
    """

    async def commit(self, tenant, changes):
        await super().commit(tenant, changes)
        os.kill(os.getpid(), signal.SIGKILL)


class KilledBefore(Referee):
    """
    The process dies by SIGKILL when all is decided and nothing is written.
    """

    async def commit(self, tenant, changes):
        os.kill(os.getpid(), signal.SIGKILL)


def tell(out, **fields):
    # One write: what a reader sees is whole lines, or a last one cut off by a kill.
    os.write(out, json.dumps(fields).encode() + b"\n")


def redeem_once(job, out):
    referee = {"after": KilledAfter, "before": KilledBefore}[job["dies"]]
    desk = server_in(job["folder"], referee=referee)
    verdict = asyncio.run(desk.redeem(job["text"]))
    tell(out, outcome=verdict.outcome.name)


def herd_together(job, out):
    """
    Be a server with some threads; begin when the flag of all is there.
    """
    desk = server_in(job["folder"], job.get("seconds", 0.0))
    tell(out, ready=True)
    wait_for(Path(job["flag"]))
    verdicts = race([lambda: desk.redeem(job["text"])] * job["threads"])
    for verdict in verdicts:
        tell(
            out,
            outcome=verdict.outcome.name,
            text=verdict.token and verdict.token.text,
        )
    tell(out, conflicts=desk.store.conflicts, events=desk.events.names)


def chain(job, out):
    """
    Refresh as fast as it goes; what is told is what a client has been answered.
    """
    desk = server_in(job["folder"])
    flag = job.get("flag")

    async def go():
        text = job["text"]
        tell(out, ready=True)
        if flag:
            wait_for(Path(flag))
        while True:
            verdict = await desk.redeem(text)
            if verdict.token is None:
                tell(out, outcome=verdict.outcome.name)
                return
            text = verdict.token.text
            tell(out, text=text)

    asyncio.run(go())


def revoke(job, out):
    desk = server_in(job["folder"])
    tell(out, ready=True)
    wait_for(Path(job["flag"]))
    revocation = desk.families.revocation
    asyncio.run(revocation.revoke_user(TENANT, job["user"]))
    tell(out, revoked=True)


def wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


JOBS = {each.__name__: each for each in (redeem_once, herd_together, chain, revoke)}


def main():
    """
    Fork a child for each line of standard input; answer with its process id.
    """
    # Children that end are forgotten by the kernel; nobody waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                JOBS[job["job"]](job, out)
            except BaseException as exc:  # noqa: BLE001 - told to the parent
                tell(out, error=repr(exc))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


# --- what tests do -------------------------------------------------------------------------


class Child:
    """
    A process that does a job.
    """

    def __init__(self, pid, out):
        self.pid = pid
        self._out = out

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self):
        """
        Return all that it told once it is gone.
        """
        deadline = time.monotonic() + 60
        while self.is_alive:
            assert time.monotonic() < deadline, "a child does not end"
            time.sleep(0.001)
        return self.told()

    @property
    def is_alive(self):
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def told(self):
        if not self._out.exists():
            return []
        lines = self._out.read_bytes().split(b"\n")
        found = [json.loads(line) for line in lines[:-1]]
        assert not [each["error"] for each in found if "error" in each]
        return found

    def until(self, count):
        """
        Wait until it has told some lines.
        """
        deadline = time.monotonic() + 30
        while len(self.told()) < count:
            assert self.is_alive, self.told()
            assert time.monotonic() < deadline
            time.sleep(0.0005)


class Nursery:
    """
    Starts children, each with a file for what it tells.
    """

    def __init__(self, folder):
        self._folder = folder
        self._count = 0
        self._children = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.tokens.races.nursery"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def spawn(self, job, **fields):
        self._count += 1
        out = self._folder / f"child-{self._count}.jsonl"
        line = {"job": job.__name__, "out": str(out), "folder": str(self._folder)}
        self._process.stdin.write(json.dumps(line | fields) + "\n")
        self._process.stdin.flush()
        child = Child(int(self._process.stdout.readline()), out)
        self._children.append(child)
        return child

    def close(self):
        for child in self._children:
            child.kill()
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


if __name__ == "__main__":
    main()
