"""
Instants and spans as people read them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from kagimori.cli.texts import Texts

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def stamp(instant: datetime | None) -> str:
    """
    Return an instant in UTC to the second, or a dash.
    """
    if instant is None:
        return "–"
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def ago(texts: Texts, span: timedelta) -> str:
    """
    Return a span in its largest fitting unit, rounded down; nothing is shorter than a second.
    """
    total = max(int(abs(span).total_seconds()), 1)
    for name, size in _UNITS:
        if total >= size * (1 if size == 1 else 2):
            return texts(f"span.{name}s", count=total // size)
    return texts("span.seconds", count=total)


_LIFETIME = re.compile(r"(\d{1,6})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def lifetime(text: str | None) -> timedelta | None:
    """
    Return the span that an operator typed: a number and one of ``s``, ``m``, ``h``, ``d``.

    Raises:
        click.UsageError: it is none.
    """
    if text is None:
        return None
    found = _LIFETIME.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise click.UsageError(f"{text!r}: 30s, 10m, 12h, 90d")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
