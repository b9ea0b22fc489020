"""
Load on a server, by wrk.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.servers import shared, wrk


class BadAnswerError(Exception):
    """
    A server answered something else than 200: what was measured is worth nothing.
    """


@dataclass(frozen=True)
class Run:
    """
    What one run of wrk told.
    """

    rate: float
    requests: int


@dataclass(frozen=True)
class Load:
    """
    One kind of load.

    Attributes:
        script: finds the wrk script.
        threads: how many threads wrk has.
        connections: how many connections, all told.
        seconds: how long a run takes.
    """

    script: Callable[[], Path]
    threads: int
    connections: int
    seconds: int

    def run(self, url: str, environment: Mapping[str, str]) -> Run:
        """
        Put the load on a URL; every answer must be 200.
        """
        said = subprocess.run(
            [
                wrk(),
                f"-t{self.threads}",
                f"-c{self.connections}",
                f"-d{self.seconds}s",
                *("-s", self.script(), url),
            ],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
        requests = re.search(r"(\d+) requests in", said)
        if "Non-2xx" in said or "status " in said or not rate or not requests:
            raise BadAnswerError(said)
        return Run(float(rate[1]), int(requests[1]))


CLIENT_CREDENTIALS = Load(lambda: shared("bench/client_credentials.lua"), 1, 32, 4)
REFRESH = Load(lambda: shared("bench/refresh.lua"), 16, 16, 4)
SPREAD_REFRESH = Load(lambda: Path(__file__).parent / "spread_refresh.lua", 16, 16, 4)
