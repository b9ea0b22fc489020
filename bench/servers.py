"""
The servers that are measured: ours and the peer.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.figure import MissingPeerError

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "bench"
KAGIMORI = Path(sys.executable).parent / "kagimori"

FORM = "application/x-www-form-urlencoded"
LEGACY = {"BASIC": "dGVzdGNsaWVudDpzZWNyZXQ="}
"""For wrk: the demo world's testclient:secret, which has refresh tokens."""
MACHINE = {"BASIC": "bWFjaGluZTpzZWNyZXQ=", "SCOPE": "api"}
"""For wrk: the demo world's machine:secret, for client_credentials."""
PEER = {"BASIC": "YmVuY2g6YmVuY2gtc2VjcmV0", "SCOPE": "api"}
"""For wrk: the peer's bench:bench-secret."""


@dataclass(frozen=True)
class Server:
    """
    A server that runs.
    """

    process: subprocess.Popen[bytes]
    host: str
    port: int
    log: Path | None = None

    def url(self, path: str) -> str:
        """
        Return the address of a path.
        """
        return f"http://{self.host}:{self.port}{path}"

    @property
    def cpu_seconds(self) -> float:
        """
        The processor time that the server's processes have used so far.
        """
        first = psutil.Process(self.process.pid)
        times = [
            child.cpu_times() for child in (first, *first.children(recursive=True))
        ]
        return float(sum(each.user + each.system for each in times))

    def post(self, path: str, form: str, basic: str) -> tuple[int, bytes]:
        """
        Send one form on a connection of its own.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(
                "POST",
                path,
                form,
                {"Content-Type": FORM, "Authorization": f"Basic {basic}"},
            )
            answer = connection.getresponse()
            return answer.status, answer.read()


def free_port() -> int:
    """
    Return a port that was free a moment ago.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def shared(path: str) -> Path:
    """
    Return a file of the shared folder, which holds the peer and the wrk scripts.
    """
    folder = Path(os.environ.get("KAGIMORI_SHARED", ROOT.parent / "shared"))
    if not (folder / path).exists():
        raise MissingPeerError(
            f"{path} is not here; name its folder in KAGIMORI_SHARED"
        )
    return folder / path


def wrk() -> str:
    """
    Return the program wrk; install it where that may be done.
    """
    if not shutil.which("wrk") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "--yes", "--quiet", "wrk"],
            check=False,
            stdout=subprocess.DEVNULL,
        )
    found = shutil.which("wrk")
    if not found:
        raise MissingPeerError("wrk is not here; install the package `wrk`")
    return found


def peer_folder() -> Path:
    """
    Return a folder with node-oidc-provider installed in it.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        raise MissingPeerError("node is not here; install Node.js 20 or later with npm")
    folder = BUILD / "node-oidc-provider"
    if not (folder / "node_modules" / "oidc-provider").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        for source in shared("bench/node-oidc-provider").iterdir():
            # Not copy2: the shared files may be read-only.
            (folder / source.name).write_bytes(source.read_bytes())
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=folder,
            check=True,
        )
    return folder


def await_answer(server: Server, path: str = "/healthz", seconds: float = 60) -> None:
    """
    Wait until a server answers, whatever it says.
    """
    deadline = time.monotonic() + seconds
    while True:
        if server.process.poll() is not None:
            said = server.log.read_text("utf-8")[-2000:] if server.log else ""
            raise RuntimeError(
                f"The server ended with {server.process.returncode}.\n{said}"
            )
        connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                connection.getresponse().read()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return


def stop(process: subprocess.Popen[bytes]) -> None:
    """
    End a server as an operator would, and by force if it does not listen.
    """
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_ours(data: Path, port: int | None = None) -> Server:
    """
    Start `kagimori serve --demo` on a data folder; does not wait.
    """
    port = port or free_port()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KAGIMORI_", "COVERAGE_"))
    }
    data.parent.mkdir(parents=True, exist_ok=True)
    said = data.with_suffix(".log")
    with said.open("ab") as log:
        process = subprocess.Popen(
            [
                KAGIMORI,
                *("serve", "--demo", "--data", data, "--listen", f"127.0.0.1:{port}"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    return Server(process, "127.0.0.1", port, said)


@contextlib.contextmanager
def ours(data: Path) -> Iterator[Server]:
    """
    Run our server with the demo world on a data folder.
    """
    server = start_ours(data)
    try:
        await_answer(server)
        yield server
    finally:
        stop(server.process)


@contextlib.contextmanager
def peer() -> Iterator[Server]:
    """
    Run node-oidc-provider with its memory adapter.
    """
    port = free_port()
    process = subprocess.Popen(
        ["node", "server.mjs"],
        cwd=peer_folder(),
        env={**os.environ, "PORT": str(port), "NODE_ENV": "production"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Server(process, "127.0.0.1", port)
    try:
        await_answer(server, "/jwks")
        yield server
    finally:
        stop(process)
