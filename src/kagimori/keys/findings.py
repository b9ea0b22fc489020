"""
What an adapter found out about its own rights, one at a time.

Stores and wrappers may have ``examine() -> tuple[Finding, ...]``: it tries each right
separately against the real service, leaves nothing behind there, and never raises for a right
that is missing. `ring doctor` shows what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One right, tried.

    Attributes:
        right: what was tried, in a few words: ``read``, ``write if unchanged``, ``wrap``,
            ``unwrap``, ``anonymous read``.
        ok: whether all is as it must be; for ``anonymous read`` that it is *not* possible.
        text: one sentence on what happened; never a secret.
        remedy: what to do about it in the provider's own words; empty where nothing is to do.
    """

    right: str
    ok: bool
    text: str
    remedy: str = ""
