"""
Starting a server program and ending it by its process id.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_START_SECONDS = 60
_STOP_SECONDS = 30


def free_port() -> int:
    """
    Return a port of the loopback interface that nobody listens on.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    """
    Whether somebody listens on a port of the loopback interface.
    """
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def own_folder(prefix: str, user: str | None = None) -> Iterator[Path]:
    """
    Make a folder with a short path that `user` owns, and remove it at the end.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"kagimori-{prefix}-"))
    try:
        if user is not None:
            shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_file(path: Path, content: bytes, user: str | None = None) -> Path:
    """
    Write a file that `user` alone may read.
    """
    path.write_bytes(content)
    path.chmod(0o600)
    if user is not None:
        shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
    return path


class ServerProcess:
    """
    A server program as a child process; it can be stopped, paused and started again.

    Args:
        command: the program, which stays in the foreground.
        log: where its output goes.
        is_ready: whether it answers.
        user: the account that it runs as; root itself is needed for another one.
        stop_signal: what ends it orderly.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        is_ready: Callable[[], bool],
        *,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [str(word) for word in command]
        self._log = log
        self._is_ready = is_ready
        self._user = user
        self._stop_signal = stop_signal
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """
        Start it and wait until it answers.
        """
        group = None if self._user is None else pwd.getpwnam(self._user).pw_gid
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                user=self._user,
                group=group,
                extra_groups=None if group is None else [],
                start_new_session=True,
            )
        until = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                said = self._log.read_text(errors="replace")[-4000:]
                raise AssertionError(f"{self._command[0]} did not start:\n{said}")
            time.sleep(0.02)

    def stop(self) -> None:
        """
        End it and wait until it is gone.
        """
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(self._stop_signal)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """
        Stop it for a while.
        """
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def paused(self, *others: int) -> Iterator[None]:
        """
        Let it and its processes `others` hang for a while: connections stand, nobody answers.
        """
        pids = (self.pid, *others)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + _STOP_SECONDS
        while not all(map(_stands_still, pids)) and time.monotonic() < until:
            time.sleep(0.005)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    states = []
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            states.append(task.read_text().rpartition(")")[2].split()[0])
    return set(states) <= {"T", "t", "Z", "X"}
