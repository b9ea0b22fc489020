"""
Times a function of a few microseconds.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from itertools import repeat

SLICE = 0.03
"""Seconds that one slice of a turn takes."""

SLICES = 5
"""How many slices a turn has; the fastest counts, since others only ever take time away."""


def microseconds(action: Callable[[], object]) -> Callable[[], float]:
    """
    Return a turn: the mean time of one call, in microseconds, in its fastest slice.
    """
    count = 64
    while _run(action, count) < SLICE:
        count *= 2

    def turn() -> float:
        return min(_run(action, count) for _ in range(SLICES)) / count * 1e6

    return turn


def _run(action: Callable[[], object], count: int) -> float:
    """
    Return the seconds of this thread that `count` calls took, without garbage collection.

    The thread's own time, not the wall's: a machine that does other work too distorts it less.
    """
    gc.collect()
    gc.disable()
    try:
        begin = time.thread_time()
        for _ in repeat(None, count):
            action()
        return time.thread_time() - begin
    finally:
        gc.enable()
