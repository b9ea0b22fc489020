"""
A proxy that notes what it is asked for, and serves nobody.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """
    Yield its address, and the method and target of each request that comes.
    """
    asked: list[str] = []

    def serve() -> None:
        while True:
            try:
                link, _ = server.accept()
            except OSError:  # closed
                return
            with link:
                line = link.recv(65536).split(b"\r\n")[0]
                asked.append(line.rpartition(b" ")[0].decode("latin-1"))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
