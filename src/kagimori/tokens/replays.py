"""
How often this instance has answered a replay (K of requirements B7).

Replays write nothing, so that a herd is no storm of writes; what is counted lives in memory,
per instance, and is a brake rather than a verdict.
"""

from __future__ import annotations

import threading
from collections import OrderedDict


class ReplayCounts:
    """
    Counts replays by family and generation, in bounded memory.

    Where the bound is reached, the entry that was counted least lately is forgotten.
    Safe to share between threads.

    Args:
        limit: how many generations are remembered at most.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._counts: OrderedDict[tuple[str, int], int] = OrderedDict()

    def of(self, family_id: str, generation: int) -> int:
        """
        Return how many replays of a generation were answered here.
        """
        return self._counts.get((family_id, generation), 0)

    def add(self, family_id: str, generation: int) -> None:
        """
        Count one replay.
        """
        key = (family_id, generation)
        with self._lock:
            self._counts[key] = self._counts.pop(key, 0) + 1
            if len(self._counts) > self._limit:
                self._counts.popitem(last=False)

    def __len__(self) -> int:
        return len(self._counts)
