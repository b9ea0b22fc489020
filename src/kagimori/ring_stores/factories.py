"""
Stores from what applications have at hand: a factory of connections or of clients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from kagimori.errors import ConfigError
from kagimori.keys.store import KeyStore


def store_of(factory: Callable[[], object], *, read_only: bool = False) -> KeyStore:
    """
    Return the store of a factory of DB-API 2.0 connections, or of clients of ``redis``.

    The ring lies where .NET has it by default: in the table ``DataProtectionKeys``, in the list
    ``DataProtection-Keys``. For another place make `kagimori.ring_stores.sql.SqlStore` or
    `kagimori.ring_stores.redis.RedisStore`. The factory is called once to see what it makes.

    Raises:
        ConfigError: it makes neither.
    """
    made: Any = factory()
    if hasattr(made, "pipeline") and hasattr(made, "rpush"):
        from kagimori.ring_stores.redis import RedisStore

        return RedisStore(lambda: made, read_only=read_only)
    if hasattr(made, "cursor") and hasattr(made, "rollback"):
        from kagimori.ring_stores.sql_connection import driver_of
        from kagimori.ring_stores.sql_store import SqlStore

        name = f"a connection of {driver_of(made)}"
        with contextlib.suppress(Exception):
            made.close()
        connect: Any = factory
        return SqlStore(connect, name=name, read_only=read_only)
    raise ConfigError(
        f"A {type(made).__name__} is neither a DB-API 2.0 connection nor a Redis client."
    )
