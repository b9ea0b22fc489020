"""
A list of a ring on a Redis server, seen from our store and from .NET.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kagimori.addresses import Address
from kagimori.ring_stores import redis
from tests.ring_stores.sql_places import table_of
from tests.servers.redis import RedisServer

PASSWORD = "sekret-of-a-user-77ab"


class World:
    """
    A list's name on a server.
    """

    def __init__(self, server: RedisServer, place: Path) -> None:
        self.server = server
        self.key = table_of(place)
        (place / "password").write_text(PASSWORD)
        self._place = place

    def store(
        self, *, read_only: bool = False, port: int = 0, user: str = "", key: str = ""
    ) -> redis.RedisStore:
        who = f"{user}@" if user else ""
        address = (
            f"redis://{who}127.0.0.1:{port or self.server.port}/0?key={key or self.key}"
        )
        if user:
            address += f"&password-file={self._place}/password"
        store = redis.open_store(Address.parse(address), read_only=read_only)
        assert isinstance(store, redis.RedisStore)
        return store

    def run(self, *words: Any) -> Any:
        with self.server.client() as client:
            return client.execute_command(*words)

    def push(self, text: str) -> None:
        """
        Append an item as .NET does.
        """
        self.run("RPUSH", self.key, text)

    def items(self) -> list[str]:
        """
        Read the list as .NET does.
        """
        return [item.decode() for item in self.run("LRANGE", self.key, 0, -1)]

    def user(self, *rules: str) -> str:
        name = f"user-{self.key[-8:]}"
        self.run("ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", *rules)
        return name
