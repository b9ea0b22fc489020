"""
A real Redis.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import redis

from tests.servers.installing import require
from tests.servers.processes import ServerProcess, free_port, own_folder


class RedisServer:
    """
    A Redis server of its own; nothing of it lies on the disk.
    """

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.port = port
        self.folder = folder
        self.process = ServerProcess(
            [
                require("redis-server", apt="redis-server"),
                *("--port", str(port), "--bind", "127.0.0.1", "--dir", folder),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                *options,
            ],
            folder / "log",
            self._answers,
        )

    @classmethod
    @contextlib.contextmanager
    def running(cls, *options: str) -> Iterator[RedisServer]:
        """
        Start one in a folder of its own, with further options of its command line.
        """
        require("redis-server", apt="redis-server")
        with own_folder("redis") as folder:
            server = cls(folder, free_port(), *options)
            server.process.start()
            try:
                yield server
            finally:
                server.process.stop()

    @contextlib.contextmanager
    def client(self, **options: object) -> Iterator[redis.Redis]:
        """
        Connect as the default user.
        """
        client = redis.Redis(host="127.0.0.1", port=self.port, **options)
        try:
            yield client
        finally:
            client.close()

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
