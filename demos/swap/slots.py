"""
The slots: processes of the shop, and one of ASP.NET Core where there is one.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

_NAMES = frozenset(
    {
        "KAGIMORI_RING",
        "KAGIMORI_RING_WRAPPER",
        "DataProtectionBlobContainerUri",
        "DataProtectionKeyIdentifier",
    }
)
_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_PAUSE = 0.02
_LISTENING = re.compile(rb"Now listening on: (http://127\.0\.0\.1:\d+)")


class SlotError(Exception):
    """
    A slot did not start.
    """


def find_dotnet() -> Path | None:
    """
    Return `dp-peer`, a real ASP.NET Core application, where there is one.
    """
    named = os.environ.get("KAGIMORI_DP_PEER")
    peer = Path(named) if named else _ROOT.parent / "shared/peers/aspnet/dp-peer"
    return peer if peer.is_file() else None


@contextmanager
def python_slots(
    folder: Path, settings: Mapping[str, Mapping[str, str]]
) -> Iterator[list[str]]:
    """
    Run slots of the shop until the block ends; yield their addresses.

    Args:
        folder: their output goes to files here.
        settings: by the slot's name the variables that name its ring.

    Raises:
        SlotError: one did not start.
    """
    with ExitStack() as running:
        # All at once: that several find no ring yet, and one makes it, has to go well.
        started = {
            slot: running.enter_context(_python(slot, folder / f"{slot}.log", ring))
            for slot, ring in settings.items()
        }
        for slot, url in started.items():
            try:
                key_of(url)
            except (httpx2.HTTPError, ValueError, KeyError):
                text = (folder / f"{slot}.log").read_text("utf-8", "replace")
                raise SlotError(text) from None
        yield list(started.values())


@contextmanager
def _python(slot: str, log: Path, ring: Mapping[str, str]) -> Iterator[str]:
    # Made here and handed down: nobody else can take the port in between, and whoever calls
    # before the slot is up waits for it.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number, port = listening.fileno(), listening.getsockname()[1]
        words = [sys.executable, "-m", "demos.swap.shop", slot, str(number)]
        # A ring that this machine names is none of the demonstration's.
        kept = {name: text for name, text in os.environ.items() if name not in _NAMES}
        environment = {**kept, **ring}
        process = _start(words, log, environment, _ROOT, inherited=(number,))
    with _stopped_at_end(process):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def dotnet_slot(program: Path, log: Path, arguments: Sequence[str]) -> Iterator[str]:
    """
    Run the application of .NET until the block ends; yield its address.

    Raises:
        SlotError: it did not start.
    """
    # Port 0 is one that is free, and is named in the log, which needs --verbose.
    listen = ("--urls", "http://127.0.0.1:0", "--verbose")
    words = [str(program), "serve", *listen, *arguments]
    process = _start(words, log, dict(os.environ), log.parent)
    with _stopped_at_end(process):
        end = time.monotonic() + _START_SECONDS
        while not (found := _LISTENING.search(log.read_bytes())):
            if process.poll() is not None or time.monotonic() > end:
                raise SlotError(log.read_text("utf-8", "replace"))
            time.sleep(_PAUSE)
        yield found[1].decode()


def key_of(url: str) -> str:
    """
    Return the id of the key that a slot of ours protects with.
    """
    answer = httpx2.get(f"{url}/slot", trust_env=False, timeout=_START_SECONDS)
    key: str = answer.json()["key"]
    return key


def _start(
    words: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    folder: Path,
    *,
    inherited: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            pass_fds=inherited,
        )


@contextmanager
def _stopped_at_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
