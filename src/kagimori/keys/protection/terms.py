"""
What verbs go by, and after how long every node knows a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from kagimori.keys.protection.contents import Contents, ProtectionPolicy
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.ticks import to_datetime

DOTNET_SIGHT = timedelta(days=3)
"""After how long a .NET node has seen a new key, at the latest, with a day to spare."""


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What verbs go by, apart from the ring itself.

    Attributes:
        nodes_see: after how long a node of ours has seen a change: two probe intervals.
    """

    policy: ProtectionPolicy
    nodes_see: timedelta = timedelta(seconds=10)


def propagation(contents: Contents, terms: Terms) -> timedelta:
    """
    Say how long after it came into the ring a key is known to every node.

    Envelopes that no .NET package has show that no .NET node shares the ring.
    """
    shared = any(
        key.stored.opens_in_dotnet for key in contents.keys if not key.is_revoked
    )
    return DOTNET_SIGHT if shared else terms.nodes_see


def came_in(contents: Contents, key: ProtectionKey) -> datetime:
    """
    Return since when a key is in this ring: its making, unless it came from another ring.
    """
    created = key.timeline.created
    entered = contents.state.entered.get(key.id)
    return created if entered is None else max(created, to_datetime(entered))
