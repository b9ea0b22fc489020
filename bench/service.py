"""
Figures of the server against node-oidc-provider.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import servers
from bench.figure import PAIRS, Better, Figure, in_turns
from bench.load import CLIENT_CREDENTIALS, REFRESH, Load

TOKENS = 100_000


@dataclass(frozen=True)
class _Side:
    """
    One of two servers under the same load.

    The processor time of a request is kept as well: it tells the same as the rate where the
    server has a core for itself, and more where the machine does other work.
    """

    server: servers.Server
    path: str
    environment: Mapping[str, str]
    load: Load
    costs: list[float] = field(default_factory=list)

    def turn(self) -> float:
        """
        Return the requests in a second.
        """
        before = self.server.cpu_seconds
        run = self.load.run(self.server.url(self.path), self.environment)
        self.costs.append((self.server.cpu_seconds - before) / run.requests * 1e6)
        return run.rate

    @property
    def cost(self) -> str:
        """
        The median processor time of a request.
        """
        return f"{statistics.median(self.costs):.0f} µs"


def _against_peer(
    load: Load, environment: Mapping[str, str]
) -> tuple[list[float], list[float], dict[str, str]]:
    """
    Return the rates of both servers under the same load, in turns, and what a request costs.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        servers.peer() as theirs,
        servers.ours(Path(name) / "data") as ours,
    ):
        us = _Side(ours, "/oauth/token", environment, load)
        them = _Side(theirs, "/token", servers.PEER, load)
        rates = in_turns(us.turn, them.turn)
    costs = {"processor time of a request, ours": us.cost, "the peer's": them.cost}
    return *rates, costs


def client_credentials() -> Figure:
    """
    Measure the rate of client_credentials, ES256, one process.
    """
    ours, theirs, costs = _against_peer(CLIENT_CREDENTIALS, servers.MACHINE)
    return Figure(
        "client-credentials",
        "client_credentials, ES256, one process, against node-oidc-provider",
        "wrk, 1 thread, 32 connections, 4 s a turn; client_secret_basic; the peer with its "
        "memory adapter, we on SQLite",
        "requests/s",
        Better.HIGHER,
        2.0,
        ours,
        theirs,
        costs,
    )


def refresh() -> Figure:
    """
    Measure the rate of refreshes with rotation: ours durable, the peer's kept nowhere.
    """
    ours, theirs, costs = _against_peer(REFRESH, servers.LEGACY)
    return Figure(
        "refresh",
        "refresh with rotation, durable, against node-oidc-provider that keeps nothing",
        "wrk, 16 threads with one connection each, 4 s a turn, each its own family; we on "
        "SQLite with synchronous=FULL, the peer with its memory adapter",
        "requests/s",
        Better.HIGHER,
        1.5,
        ours,
        theirs,
        costs,
    )


def start() -> Figure:
    """
    Time the way from the command to the first token, on a folder that is there.
    """
    costs: list[float] = []

    def first_token(data: Path) -> float:
        begin = time.perf_counter()
        server = servers.start_ours(data)
        try:
            servers.await_answer(server)
            status, _ = server.post(
                "/oauth/token",
                "grant_type=client_credentials&scope=api",
                servers.MACHINE["BASIC"],
            )
            taken = time.perf_counter() - begin
            costs.append(server.cpu_seconds)
        finally:
            servers.stop(server.process)
        if status != 200:
            raise RuntimeError(f"The first token was refused with {status}.")
        return taken

    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        empty = first_token(data)
        first_token(data)
        values = [first_token(data) for _ in range(PAIRS)]
    return Figure(
        "start",
        "from `kagimori serve --demo` to the first token",
        "a new process each time on a data folder that is there, files in the disk cache, "
        "client_credentials asked as soon as /healthz answers",
        "s",
        Better.LOWER,
        1.0,
        values,
        extra={
            "on an empty folder": f"{empty:.2f} s",
            "processor time of it": f"{statistics.median(costs):.2f} s",
        },
    )


def memory() -> Figure:
    """
    Measure the resident memory of one worker after 100,000 tokens.
    """

    def resident(process: psutil.Process) -> float:
        every = [process, *process.children(recursive=True)]
        return float(max(child.memory_info().rss for child in every)) / 1e6

    kinds = itertools.cycle(
        [
            (CLIENT_CREDENTIALS, servers.MACHINE),
            (REFRESH, servers.LEGACY),
        ]
    )
    values: list[float] = []
    with (
        tempfile.TemporaryDirectory() as name,
        servers.ours(Path(name) / "data") as ours,
    ):
        process = psutil.Process(ours.process.pid)
        at_start = resident(process)
        made = 0
        while made < 2 * TOKENS:
            load, environment = next(kinds)
            made += load.run(ours.url("/oauth/token"), environment).requests
            if made >= TOKENS:
                values.append(resident(process))
    return Figure(
        "memory",
        "resident memory of one worker from 100,000 tokens to 200,000",
        "client_credentials and refresh in turns, 4 s each, by wrk",
        "MB",
        Better.LOWER,
        100,
        values,
        extra={
            "at the start": f"{at_start:.1f} MB",
            "at the first reading": f"{values[0]:.1f} MB",
            "at the last": f"{values[-1]:.1f} MB",
        },
    )


FIGURES = {
    "client-credentials": client_credentials,
    "refresh": refresh,
    "start": start,
    "memory": memory,
}
