"""
Real servers for tests: the console command, a free port, a folder of its own.

Each server is a child that is ended by its process id; what it says is kept for the test.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

TESTCLIENT = "Basic " + base64.b64encode(b"testclient:secret").decode()
MACHINE = "Basic " + base64.b64encode(b"machine:secret").decode()
PASSWORD = {"grant_type": "password", "username": "test", "password": "test"}
MACHINE_FORM = {"grant_type": "client_credentials", "scope": "api"}

START = 60.0
"""Seconds that a start may take on a machine that is busy with other tests."""

UNTHROTTLED = {
    "KAGIMORI_THROTTLE_SUBJECT_PER_MINUTE": "1000000",
    "KAGIMORI_THROTTLE_ADDRESS_PER_MINUTE": "1000000",
    "KAGIMORI_THROTTLE_ACCOUNT_PER_HOUR": "1000000",
}


def command(*arguments: str) -> list[str]:
    """
    Return the console command, as installed beside this Python or from the tree.
    """
    script = Path(sys.executable).with_name("kagimori")
    if script.exists():
        return [str(script), *arguments]
    return [sys.executable, "-m", "kagimori.cli.main", *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Return an environment in which nothing of ours is said but `more`.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KAGIMORI_")}
    return {**kept, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(more or {})}


def free_port() -> int:
    """
    Return a port that nothing listens on at the moment.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Answer:
    """
    What a server answered.
    """

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"Answer({self.status}, {self.body[:300]!r})"


class Client:
    """
    One connection to a server; opened again when it is lost.
    """

    def __init__(self, port, timeout=30.0):
        self._port = port
        self._timeout = timeout
        self._connection = None

    def request(self, method, path, body=None, headers=None) -> Answer:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=self._timeout
            )
        try:
            self._connection.request(method, path, body, headers or {})
            answer = self._connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        except BaseException:
            self.close()
            raise

    def get(self, path, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.request("GET", path, headers=headers)

    def post(self, path, form, authorization=None):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if authorization:
            headers["Authorization"] = authorization
        return self.request("POST", path, urlencode(form), headers)

    def sign_in(self):
        return self._good(self.post("/oauth/token", PASSWORD, TESTCLIENT))

    def refresh(self, token):
        form = {"refresh_token": token, "grant_type": "refresh_token"}
        return self.post("/oauth/token", form, TESTCLIENT)

    def machine(self):
        return self._good(self.post("/oauth/token", MACHINE_FORM, MACHINE))

    def _good(self, answer):
        assert 200 == answer.status, answer
        return answer.json

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Server:
    """
    A `kagimori serve` that runs.

    Args:
        data: its folder.
        port: where it listens; a free one when left out.
        arguments: further ones of the command line.
        environ: further variables.
        demo: whether it is a demo world.
        before: called in the child before it becomes the server.
    """

    def __init__(
        self, data, *, port=None, arguments=(), environ=None, demo=True, before=None
    ):
        self.data = Path(data)
        self.port = port or free_port()
        self._logs = self.data.parent / f"{self.data.name}.{time.monotonic_ns()}"
        self._logs.mkdir(parents=True)
        self._out, self._err = self._logs / "out", self._logs / "err"
        call = command(
            "serve",
            *(["--demo"] if demo else []),
            "--json",
            "--data",
            str(self.data),
            "--listen",
            f"localhost:{self.port}",
            "--admin-listen",
            "127.0.0.1:0",
            *arguments,
        )
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                call,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                env=environment({**UNTHROTTLED, **(environ or {})}),
                preexec_fn=before,
            )
        self.client = Client(self.port)

    # --- what it says

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def said(self) -> str:
        return self.out + self.err

    @property
    def report(self) -> dict:
        return json.loads(self.out)

    @property
    def admin_port(self) -> int:
        return int(self.report["admin"].rpartition(":")[2])

    @property
    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.err.splitlines() if line[:1] == "{"]

    def wait_for_log(self, event, seconds=20.0):
        """
        Return the first line of an event, once it is written.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.log:
                if line["event"] == event:
                    return line
            time.sleep(0.05)
        raise AssertionError(f"{event} was never logged: {self.said}")

    # --- its life

    def start(self) -> Server:
        """
        Wait until it has started.
        """
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said
            if self.out.endswith("}\n"):
                return self
            time.sleep(0.02)
        raise AssertionError(f"did not start: {self.said}")

    def wait(self, seconds=30.0) -> int:
        """
        Wait until it has ended; return its exit status.
        """
        return self.process.wait(seconds)

    def stop(self) -> int:
        """
        Let it drain and end.
        """
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """
        Kill it at once (kill -9).
        """
        self.client.close()
        self.process.kill()
        self.process.wait(30)

    def end(self) -> None:
        """
        End it, whatever it takes.
        """
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)


@contextmanager
def serving(data, **more) -> Iterator[Server]:
    """
    Run a server for the time of a block.
    """
    server = Server(data, **more)
    try:
        yield server.start()
    finally:
        server.end()


def cli(*arguments, data=None, environ=None, check=0):
    """
    Run one command; return what it printed as JSON, or its completed process if `check` is None.
    """
    more = {"KAGIMORI_DATA": str(data)} if data else {}
    done = subprocess.run(
        command(*arguments),
        env=environment({**more, **(environ or {})}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if check is None:
        return done
    assert check == done.returncode, done.stdout + done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def rotate(data, *arguments):
    """
    Turn the signing key at once, by the command line.
    """
    return cli(
        "keys",
        "rotate",
        "signing",
        *(arguments or ("--now", "--emergency")),
        "--yes",
        "--json",
        data=data,
    )
