"""
A relay before a server that cuts a connection at a chosen moment.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Cutting:
    """
    Relays connections to a port of the loopback interface.

    Args:
        target: the server's port.
        at: what the client says when the connection is cut; it is cut once.
        delivered: whether the server still hears it. The client never sees the answer.
    """

    def __init__(self, target: int, at: bytes, *, delivered: bool) -> None:
        self._target = target
        self._at = at
        self._delivered = delivered
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[Cutting]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            for one in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                deaf = threading.Event()
                for words in ((client, server, deaf), (server, client, deaf)):
                    threading.Thread(
                        target=self._relay, args=words, daemon=True
                    ).start()

    def _relay(
        self, source: socket.socket, sink: socket.socket, deaf: threading.Event
    ) -> None:
        is_client = sink.getpeername()[1] == self._target
        with contextlib.suppress(OSError):
            while said := source.recv(65536):
                if is_client and not self.cuts and self._at in said:
                    self.cuts += 1
                    deaf.set()
                    if self._delivered:
                        sink.sendall(said)
                        # The server's answer says that it is done; nobody hears it.
                        continue
                    break
                if not is_client and deaf.is_set():
                    break
                sink.sendall(said)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
