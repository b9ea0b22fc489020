"""
Which waiting key a verb means that was not told one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from kagimori.keys.protection.contents import Contents
from kagimori.keys.protection.plan import Plan


def first_choice(
    decide: Callable[..., Plan], key_id: str | None
) -> Callable[[Contents, datetime], Plan]:
    """
    Return a decision about one waiting key, the same one however often it is asked.

    Else who loses to another writer would do to the next key what was meant for the first.

    Args:
        decide: takes contents, ``now`` and ``key_id``.
        key_id: left out, the first that waits when it is asked for the first time.
    """
    chosen = key_id

    def decided(contents: Contents, now: datetime) -> Plan:
        nonlocal chosen
        if chosen is None:
            chosen = next((key.id for key in contents.waiting(now)), None)
        return decide(contents, now, key_id=chosen)

    return decided
