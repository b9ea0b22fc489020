"""
Real ASP.NET Core Data Protection for live tests: `dp-peer`'s commands and its web application.

Tests that use it are marked ``dp_peer`` and ask for the fixture `dp_peer`.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from kagimori import open_ring
from tests.wrappers.certificates import pfx

LISTENING = re.compile(rb"Now listening on: (http://127\.0\.0\.1:\d+)")


class Peer:
    """
    The .NET program on one ring, under one application name.

    Args:
        layout: ``folder`` or ``document``.
        wrapped: ``plain`` or ``certificate``.
    """

    def __init__(
        self,
        program: Path,
        place: Path,
        layout: str = "folder",
        wrapped: str = "plain",
        *,
        application: str | None = "shop",
        purposes: Sequence[str] = ("cookie", "v2", "鍵"),
    ) -> None:
        self.program = program
        self.place = place
        self.application = application
        self.purposes = tuple(purposes)
        self.folder = place / "ring"
        self.location = f"file://{self.folder}"
        self.options = ["--dir", str(self.folder)]
        if layout == "document":
            self.location = f"file://{place}/ring.xml?layout=document"
            self.options = ["--document", str(place / "ring.xml")]
        self.wrapper = "plaintext:"
        if wrapped == "certificate":
            path = place / "ring.pfx"
            path.write_bytes(pfx("ring", b"secret"))
            path.chmod(0o600)
            self.options += ["--pfx", str(path), "--password", "secret"]
            password = place / "ring.password"
            password.write_text("secret")
            password.chmod(0o600)
            self.wrapper = f"certificate:{path}?password-file={password}"

    def run(
        self, command: str, *arguments: str, given: Iterable[str] = ()
    ) -> list[Any]:
        """
        Run one command on the ring; return its answers, one a line.
        """
        return run(self.program, command, *self.options, *arguments, given=given)

    def keys(self) -> dict[str, Any]:
        return self.run("list")[0]

    def protect(self, payloads: Iterable[bytes], *arguments: str) -> list[str]:
        lines = [b64encode(payload).decode() for payload in payloads]
        said = self.run("protect", *self._chain(), *arguments, given=lines)
        return [line["payload"] for line in said]

    def unprotect(self, payloads: Iterable[str], *arguments: str) -> list[Any]:
        return self.run("unprotect", *self._chain(), *arguments, given=payloads)

    def opened(self, payloads: Iterable[str], *arguments: str) -> list[bytes | None]:
        """
        Return what .NET reads in payloads, ``None`` for those that it refuses.
        """
        said = self.unprotect(payloads, *arguments)
        return [b64decode(line["plaintext"]) if line["ok"] else None for line in said]

    def ring(self, **options: Any):
        """
        Open the same ring here.
        """
        return open_ring(
            self.location,
            application=self.application,
            wrapper=self.wrapper,
            **options,
        )

    @contextmanager
    def serve(self, *arguments: str) -> Iterator[Server]:
        """
        Run the web application on the ring, on a free port, until the block ends.
        """
        with serve(
            self.program, self.place, *self.options, *self._app(), *arguments
        ) as server:
            yield server

    def _app(self) -> list[str]:
        return [] if self.application is None else ["--app", self.application]

    def _chain(self) -> list[str]:
        purposes = [part for one in self.purposes for part in ("--purpose", one)]
        return [*self._app(), *purposes]


def run(
    program: Path, command: str, *arguments: str, given: Iterable[str] = ()
) -> list[Any]:
    """
    Run one command of `dp-peer`; return its answers, one a line.
    """
    done = subprocess.run(
        [program, command, *arguments],
        input="".join(f"{line}\n" for line in given),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


class Questions:
    """
    One process of a command that answers a line with a line, such as ``resolve``.
    """

    def __init__(self, program: Path, command: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [program, command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> Any:
        process = self._process
        assert process.stdin
        assert process.stdout
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def close(self) -> None:
        with self._process as process:
            # The pipe's end is how it learns that there are no more questions.
            process.communicate(timeout=60)


@dataclass(frozen=True)
class Server:
    """
    The web application, running.
    """

    url: str

    def browser(self, cookies: Mapping[str, str] | None = None) -> Browser:
        return Browser(self, dict(cookies or {}))


@dataclass(frozen=True)
class Reply:
    """
    What a browser was answered.
    """

    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Browser:
    """
    Keeps the cookies that it is given, and sends them back: to another server as well.
    """

    server: Server
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **query: Any) -> Reply:
        return self._send("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, form: Mapping[str, str]) -> Reply:
        return self._send("POST", path, urlencode(form))

    def _send(self, method: str, target: str, body: str | None = None) -> Reply:
        address = urlsplit(self.server.url)
        assert address.hostname
        connection = http.client.HTTPConnection(
            address.hostname, address.port, timeout=60
        )
        headers = {}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, target, body, headers)
            reply = connection.getresponse()
            text = reply.read().decode()
            for line in reply.headers.get_all("Set-Cookie", []):
                name, _, value = line.partition(";")[0].partition("=")
                self.cookies[name] = value
                if not value:
                    del self.cookies[name]
            return Reply(reply.status, text)
        finally:
            connection.close()


@contextmanager
def serve(program: Path, place: Path, *arguments: str) -> Iterator[Server]:
    """
    Run `dp-peer serve` on a free port of this machine until the block ends.

    Args:
        place: a folder for its output.
        arguments: ring, application and scheme, as for every command.
    """
    said = place / f"serve-{time.monotonic_ns()}.log"
    with (
        said.open("wb") as output,
        subprocess.Popen(
            # Port 0 is a port that is free, named in the log, which needs --verbose.
            [program, "serve", "--urls", "http://127.0.0.1:0", "--verbose", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=place,
        ) as process,
    ):
        try:
            yield Server(_listening(process, said))
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _listening(process: subprocess.Popen[bytes], said: Path) -> str:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        found = LISTENING.search(said.read_bytes())
        if found:
            return found[1].decode()
        assert process.poll() is None, said.read_text("utf-8", "replace")
        time.sleep(0.02)
    raise AssertionError(said.read_text("utf-8", "replace"))
