"""
What a response says of a session to caches and to those who have to wait.
"""

from __future__ import annotations

from kagimori.errors import KagimoriError

RETRY_AFTER = 5
"""Seconds after which a request that met an outage may be sent again: one probe of the ring."""


def retry_after(error: KagimoriError) -> int:
    """
    Return the seconds for ``Retry-After``: what a vault or a store asked for, or a few.
    """
    return max(1, int(getattr(error, "retry_after", None) or RETRY_AFTER))


def caching(existing: str, *, sets: bool) -> str:
    """
    Return the ``Cache-Control`` of a response that depends on the session, or sets it.
    """
    words = {word.strip().lower() for word in existing.split(",")}
    if "no-store" in words or ("private" in words and not sets):
        return existing
    return "no-store"


def varying(existing: str) -> str:
    """
    Return the ``Vary`` of a response that depends on the session.
    """
    words = [word.strip() for word in existing.split(",") if word.strip()]
    if any(word.lower() in {"*", "cookie"} for word in words):
        return existing
    return ", ".join([*words, "Cookie"])
