"""
A wire that loses answers: a TCP proxy on loopback, which tests tell what to drop.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 65536


@dataclass
class Wire:
    """
    A proxy to a port.

    Attributes:
        port: where it listens.
        lose: what befalls connections that carry a request from now on: ``""`` nothing,
            ``"request"`` it never arrives, ``"answer"`` its answer is lost, ``"end"`` the end of
            its answer is, ``"both"`` nobody ever answers, and the connection stands.
        methods: of which requests.
        times: how many of them.
        lost: how many were met.
    """

    target: int
    port: int = 0
    lose: str = ""
    methods: tuple[bytes, ...] = (b"PUT",)
    times: int = 0
    lost: int = 0
    _open: list[socket.socket] = field(default_factory=list)

    @classmethod
    @contextmanager
    def running(cls, target: int) -> Iterator[Wire]:
        wire = cls(target)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            wire.port = listener.getsockname()[1]
            thread = threading.Thread(
                target=wire._accept, args=(listener,), daemon=True
            )
            thread.start()
            try:
                yield wire
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                wire.cut()
                thread.join()

    def losing(self, what: str, times: int = 1, *methods: bytes) -> None:
        """
        Lose something of the next requests.
        """
        self.lose, self.times, self.methods = what, times, methods or (b"PUT",)

    def cut(self) -> None:
        """
        Cut all connections that stand.
        """
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        self._open.append(near)
        with suppress(OSError), closing(near):
            far = socket.create_connection(("127.0.0.1", self.target))
            self._open.append(far)
            with closing(far):
                is_losing = threading.Event()
                answers = threading.Thread(
                    target=self._answers, args=(far, near, is_losing), daemon=True
                )
                answers.start()
                self._requests(near, far, is_losing)
                answers.join()

    def _requests(
        self, near: socket.socket, far: socket.socket, is_losing: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := near.recv(_CHUNK):
                if self.times and data.split(b" ", 1)[0] in self.methods:
                    self.times -= 1
                    self.lost += 1
                    if self.lose == "request":
                        break
                    is_losing.set()
                    if self.lose == "both":
                        continue
                far.sendall(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)

    def _answers(
        self, far: socket.socket, near: socket.socket, is_losing: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := far.recv(_CHUNK):
                if is_losing.is_set():
                    if self.lose == "end":
                        near.sendall(data[:-50])
                    break
                near.sendall(data)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)
