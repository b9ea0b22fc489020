"""
A real Kagimori server process, its client and its command line, for tests.

The server is the program itself in a process of its own: its listeners, its files, its signals.
Readiness is polled, logs are kept in files, and a process is only ever ended by its own id.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

from click.testing import CliRunner, Result

from kagimori.cli.main import main
from kagimori.keys.key import COOKIE_ALGORITHM
from kagimori.tokens.verifier import TokenVerifier

KAGIMORI = (sys.executable, "-m", "kagimori.cli.main")
FORM = "application/x-www-form-urlencoded"
PASSWORD = {"grant_type": "password", "username": "test", "password": "test"}
MACHINE_GRANT = {"grant_type": "client_credentials", "scope": "api"}
EMERGENCY = ("keys", "rotate", "signing", "--now", "--emergency", "--yes")
NO_THROTTLE = {
    "KAGIMORI_THROTTLE_SUBJECT_PER_MINUTE": "1000000",
    "KAGIMORI_THROTTLE_ADDRESS_PER_MINUTE": "1000000",
    "KAGIMORI_THROTTLE_ACCOUNT_PER_HOUR": "1000000",
}

FIRST_KEYS = {
    ("signing", "ES256"): 1,
    ("signing", "RS256"): 1,
    ("cookie", COOKIE_ALGORITHM): 1,
    ("protection", "AES_256_GCM"): 1,
}
"""The current keys of a fresh installation, by use and algorithm."""

LOST = (OSError, http.client.HTTPException)
"""What a client sees of a server that dies: the answer is lost, whatever was done."""

START_SECONDS = 60.0

T = TypeVar("T")


def basic(client: str, secret: str) -> str:
    """
    Return the value of an ``Authorization`` header.
    """
    return "Basic " + base64.b64encode(f"{client}:{secret}".encode()).decode()


TESTCLIENT = basic("testclient", "secret")
MACHINE = basic("machine", "secret")


def eventually(found: Callable[[], T], seconds: float, pause: float = 0.02) -> T:
    """
    Return the first true value that `found` gives, or its last one after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < deadline:
        time.sleep(pause)
    return value


def free_port() -> int:
    """
    Return a port that is free on both loopback addresses.

    Chosen below the range from which the kernel takes ports for outgoing connections, so that
    it is still free a moment later, and when a killed server starts again.
    """
    while True:
        port = random.randint(20_000, 32_000)
        if all(_is_free(host, port) for host in ("127.0.0.1", "::1")):
            return port


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError:
        # A machine without IPv6 has the port free there too.
        return family == socket.AF_INET6 and not _has_ipv6()
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# --- tokens --------------------------------------------------------------------------------


def _part(token: str, number: int) -> dict[str, Any]:
    part = token.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def claims(token: str) -> dict[str, Any]:
    """
    Return what a JWT says, unverified.
    """
    return _part(token, 1)


def header(token: str) -> dict[str, Any]:
    """
    Return the header of a JWT, unverified.
    """
    return _part(token, 0)


def kid(token: str) -> str:
    """
    Return the id of the key that signed a JWT.
    """
    return header(token)["kid"]


# --- client --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """
    What the server answered; header names are in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.status} {self.body[:300]!r}"


class Client:
    """
    One kept-alive connection, opened when it is needed. Belongs to one thread.

    Never repeats a request by itself: whether a lost answer may be asked for again is what many
    tests are about.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 30) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """
        Send one request and return the whole answer.

        Raises:
            OSError, http.client.HTTPException: the answer was lost.
        """
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            response = self._connection.getresponse()
            content = response.read()
        except BaseException:
            self._connection.close()
            raise
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, content)

    def get(self, path: str, token: str | None = None, **headers: str) -> Answer:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return self.send("GET", path, headers=headers)

    def post(
        self, path: str, form: Mapping[str, str], authorization: str | None = None
    ) -> Answer:
        headers = {"Content-Type": FORM}
        if authorization is not None:
            headers["Authorization"] = authorization
        return self.send("POST", path, urlencode(form).encode(), headers)

    def ok(
        self, form: Mapping[str, str], authorization: str | None, path: str = ""
    ) -> dict[str, Any]:
        """
        Return the members of a successful token answer.
        """
        answer = self.post(f"{path}/oauth/token", form, authorization)
        assert 200 == answer.status, str(answer)
        return answer.json

    def password_grant(self) -> dict[str, Any]:
        return self.ok(PASSWORD, TESTCLIENT)

    def machine_token(self) -> str:
        return self.ok(MACHINE_GRANT, MACHINE)["access_token"]

    def try_refresh(self, token: str, authorization: str = TESTCLIENT) -> Answer:
        form = {"refresh_token": token, "grant_type": "refresh_token"}
        return self.post("/oauth/token", form, authorization)

    def refresh(self, token: str, authorization: str = TESTCLIENT) -> dict[str, Any]:
        answer = self.try_refresh(token, authorization)
        assert 200 == answer.status, str(answer)
        return answer.json

    def secret(self, token: str) -> Answer:
        """
        Show a token of the legacy API in the query string, as in the transcript.
        """
        return self.get(f"/secret?access_token={token}")

    def api_secret(self, token: str) -> Answer:
        return self.get("/api/secret", token)

    def jwks(self, path: str = "") -> dict[str, Any]:
        answer = self.get(f"{path}/oidc/jwks")
        assert 200 == answer.status, str(answer)
        return answer.json

    def kids(self, path: str = "") -> set[str]:
        return {key["kid"] for key in self.jwks(path)["keys"]}


# --- command line --------------------------------------------------------------------------


class Program:
    """
    Runs commands on one data folder: in this process, or as the real program (`spawn`).

    In this process from one thread only: standard output is captured.
    """

    def __init__(self, data: Path) -> None:
        self.data = data

    def __call__(
        self, *arguments: str, typed: str | None = None, language: str = "en"
    ) -> Result:
        return CliRunner().invoke(
            main,
            ["--lang", language, *arguments],
            input=typed,
            env={"KAGIMORI_DATA": str(self.data), "NO_COLOR": "1"},
        )

    def ok(self, *arguments: str, typed: str | None = None) -> Result:
        result = self(*arguments, typed=typed)
        assert 0 == result.exit_code, (arguments, result.output, result.exception)
        return result

    def json(self, *arguments: str, typed: str | None = None) -> Any:
        return json.loads(self.ok(*arguments, "--json", typed=typed).stdout)

    def fails(self, code: int, *arguments: str, typed: str | None = None) -> str:
        """
        Run a command that must end with an exit code; return what it said.
        """
        result = self(*arguments, typed=typed)
        assert code == result.exit_code, (arguments, result.output, result.exception)
        return result.stderr

    def spawn(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*KAGIMORI, *arguments],
            env=environment({"KAGIMORI_DATA": str(self.data)}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def listed(
        self, use: str = "signing", tenant: str = "default"
    ) -> list[dict[str, Any]]:
        listed = self.json("keys", "list", "--tenant", tenant)
        return [key for key in listed if key["use"] == use]

    def current(self, algorithm: str = "ES256", tenant: str = "default") -> str:
        """
        Return the id of the one key that signs with an algorithm now.
        """
        (found,) = [
            key["kid"]
            for key in self.listed(tenant=tenant)
            if (key["algorithm"], key["state"]) == (algorithm, "current")
        ]
        return found


def environment(
    more: Mapping[str, str] | None = None, *, measured: bool = False
) -> dict[str, str]:
    """
    Return this process's environment without our own variables, and with others.

    Args:
        measured: whether coverage is measured in the process. It doubles the time of a start,
            and what is killed leaves no figures.
    """
    hidden = ("KAGIMORI_",) if measured else ("KAGIMORI_", "COVERAGE_PROCESS_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    return {**kept, "LANG": "C.UTF-8", "NO_COLOR": "1", **(more or {})}


# --- server --------------------------------------------------------------------------------


class Server:
    """
    One server on one data folder, which can be started and ended many times.

    Args:
        data: the data folder; made by the first start of a demo.
        demo: whether it serves a demo world.
        port: where it listens; left out, a free one, the same at every start.
        workers: how many processes serve.
        environ: variables of the server's process.
        lead: a command that runs the program, such as one that sets limits.
        measured: whether coverage is measured in its processes; they must end by themselves.
    """

    def __init__(
        self,
        data: Path,
        *,
        demo: bool = True,
        port: int | None = None,
        workers: int = 1,
        environ: Mapping[str, str] | None = None,
        lead: Sequence[str] = (),
        measured: bool = False,
    ) -> None:
        self.data = data
        self.program = Program(data)
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.environ = dict(environ or {})
        self.demo = demo
        self.workers = workers
        self._lead = tuple(lead)
        self._measured = measured
        self._clients: list[Client] = []
        self._said = data.with_name(f"{data.name}-{self.port}.out")
        self._log = data.with_name(f"{data.name}-{self.port}.log")

    @property
    def issuer(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def said(self) -> str:
        """
        What the last start wrote to standard output.
        """
        return self._said.read_text("utf-8")

    @property
    def log(self) -> str:
        """
        What all starts wrote to standard error.
        """
        return self._log.read_text("utf-8") if self._log.exists() else ""

    @property
    def report(self) -> Any:
        """
        The start report as a value; the server must have been started with it.
        """
        # Answers may come before the report is out.
        assert eventually(lambda: self.said.strip(), 30)  # noqa: PLW0108 - read anew
        return json.loads(self.said)

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        """
        Start the process, and wait for nothing.
        """
        command = [*self._lead, *KAGIMORI, "serve", "--data", str(self.data)]
        command += [
            "--listen",
            f"127.0.0.1:{self.port}",
            "--admin-listen",
            "127.0.0.1:0",
        ]
        if self.demo:
            command.append("--demo")
        if self.workers > 1:
            command += ["--workers", str(self.workers)]
        self._said.parent.mkdir(parents=True, exist_ok=True)
        with self._said.open("wb") as said, self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=log,
                env=environment(self.environ, measured=self._measured),
            )
        return self.process

    def start(self, *options: str, for_people: bool = False) -> Server:
        """
        Start and wait until it is ready, and has said all that it says.

        Args:
            for_people: let it say so in words; otherwise `report` is a value.
        """
        self.launch(*options, *(() if for_people else ("--json",)))
        self.await_ready()
        assert eventually(lambda: self._has_spoken(for_people), START_SECONDS)
        return self

    def _has_spoken(self, for_people: bool) -> bool:
        if for_people:
            return "Ctrl-C" in self.said
        try:
            return bool(self.report)
        except ValueError:
            return False

    def await_ready(self, seconds: float = START_SECONDS) -> None:
        ready = eventually(lambda: self.ready() or self.is_over, seconds, 0.01)
        told = f"The server did not get ready.\n{self.said}\n{self.log}"
        assert ready, told
        assert not self.is_over, told

    def ready(self) -> bool:
        answer = self.probe("/readyz")
        return answer is not None and answer.status == 200

    def probe(self, path: str, port: int | None = None) -> Answer | None:
        """
        Ask once on a connection of its own; ``None`` while nobody answers.
        """
        with Client(port or self.port, timeout=5) as client:
            try:
                return client.get(path)
            except LOST:
                return None

    def admin(self, path: str) -> Answer:
        """
        Ask the admin listener.
        """
        answer = self.probe(path, int(self.report["admin"].rpartition(":")[2]))
        assert answer is not None
        return answer

    @property
    def is_over(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def client(self) -> Client:
        """
        Return a new connection, closed with the server.
        """
        made = Client(self.port)
        self._clients.append(made)
        return made

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> int:
        """
        Let it drain and end; return its exit status.
        """
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """
        End it as a power cut would: no handler runs.
        """
        self.signal(signal.SIGKILL)
        self.wait()

    def refuses(self, code: int = 3) -> str:
        """
        Start it, expecting that it cannot: return the plain text that it gave.
        """
        before = len(self.log)
        status = self.launch().wait(START_SECONDS)
        text = self.log[before:]
        assert code == status, (status, text, self.said)
        assert "Traceback" not in text, text
        return text

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()


@contextlib.contextmanager
def serving(data: Path, **options: Any) -> Iterator[Server]:
    """
    Serve a folder for the time of a block.
    """
    server = Server(data, **options)
    try:
        yield server.start()
    finally:
        server.close()


def verifier_of(server: Server, jwks: Mapping[str, Any]) -> TokenVerifier:
    """
    Return a verifier of the API `api` as another program would have it: a JWKS and no more.
    """
    return TokenVerifier.from_jwks(
        dict(jwks), issuer=server.issuer, audience="urn:kagimori:api"
    )
