"""
What a Redis server lets a ring do, and whether it might lose one.

Rules of this module:

1. Nothing is left behind: what is appended on trial is taken away in the same transaction.
2. A server that does not tell of its settings is no fault: hosted ones refuse CONFIG.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kagimori.errors import KagimoriError
from kagimori.keys.findings import Finding

if TYPE_CHECKING:
    from kagimori.ring_stores.redis import RedisStore

_SETTINGS = ("appendonly", "save", "maxmemory", "maxmemory-policy")
_EVICTS = "A ring that was evicted is gone, and everybody is signed out."


def examine(store: RedisStore) -> tuple[Finding, ...]:
    """
    Try each right separately, and look at the server's settings.
    """
    found = [
        _tried("read", lambda: len(store.load().elements), "{} elements were read.")
    ]
    if not store.is_read_only:
        found.append(
            _tried(
                "write if unchanged",
                lambda: _write(store),
                "An item was appended and taken away in one transaction.",
            )
        )
    if found[0].ok:
        found += _settings(store)
    return tuple(found)


def worries(store: RedisStore) -> tuple[Finding, ...]:
    """
    Return the settings by which the server might lose the ring, as far as it tells.
    """
    return tuple(finding for finding in _settings(store) if not finding.ok)


def lost_at_restart(store: RedisStore) -> str:
    """
    Say why the ring does not last; empty where it does, or where the server does not tell.
    """
    said = " ".join(finding.text for finding in worries(store)).removesuffix(".")
    return f"{store.name}: {said}" if said else ""


def _tried(right: str, work: Callable[[], object], text: str) -> Finding:
    try:
        return Finding(right, ok=True, text=text.format(work()))
    except KagimoriError as error:
        return Finding(right, ok=False, text=error.text, remedy=error.hint)


def _write(store: RedisStore) -> None:
    blank = f"blank-{secrets.token_hex(8)}"

    def work(client: Any) -> None:
        with client.pipeline() as pipe:
            pipe.watch(store.key)
            pipe.llen(store.key)
            pipe.multi()
            pipe.rpush(store.key, blank)
            pipe.lrem(store.key, -1, blank)
            pipe.execute()

    store.run(work)


def _settings(store: RedisStore) -> Iterator[Finding]:
    told = _told(store.client, store.key)
    if {"appendonly", "save"} <= told.keys():
        kept = told["appendonly"] == "yes" or bool(told["save"])
        yield Finding(
            "lasting",
            kept,
            "The server writes to its disk."
            if kept
            else "The server keeps nothing on its disk: a restart loses the ring.",
            ""
            if kept
            else "Set appendonly yes (redis.conf, or CONFIG SET and REWRITE).",
        )
    else:
        text = "The server does not tell whether it writes to its disk."
        yield Finding("lasting", ok=True, text=text)
    if {"maxmemory", "maxmemory-policy"} <= told.keys():
        policy = told["maxmemory-policy"]
        safe = told["maxmemory"] == "0" or not policy.startswith("allkeys-")
        yield Finding(
            "eviction",
            safe,
            "The server evicts no key without an expiry."
            if safe
            else f"The server may evict the ring (maxmemory-policy {policy}). {_EVICTS}",
            "" if safe else "Set maxmemory-policy noeviction or volatile-lru.",
        )
    seconds = told.get("ttl", "-1")
    if seconds.isdigit():
        yield Finding(
            "expiry",
            ok=False,
            text=f"The list expires in {seconds} seconds. {_EVICTS}",
            remedy=f"PERSIST {store.key}",
        )


def _told(client: Any, key: str) -> dict[str, str]:
    """
    Return the settings that the server tells of, by CONFIG or else by INFO, in one question.
    """
    with client.pipeline(transaction=False) as pipe:
        for name in _SETTINGS:
            pipe.config_get(name)
        pipe.info("memory")
        pipe.info("persistence")
        pipe.ttl(key)
        try:
            *settings, memory, persistence, ttl = pipe.execute(raise_on_error=False)
        except Exception:  # noqa: BLE001 - then there is nothing to tell
            return {}
    told: dict[str, str] = {}
    if isinstance(persistence, dict) and persistence.get("aof_enabled"):
        told |= {"appendonly": "yes", "save": ""}
    if isinstance(memory, dict):
        told["maxmemory"] = _text(memory.get("maxmemory", 0))
        told["maxmemory-policy"] = _text(memory.get("maxmemory_policy", ""))
    for setting in settings:
        if isinstance(setting, dict):
            told |= {_text(name): _text(value) for name, value in setting.items()}
    if isinstance(ttl, int):
        told["ttl"] = str(ttl)
    return told


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
