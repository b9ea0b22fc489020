"""
One figure: what is measured, against what, and what it must hold.
"""

from __future__ import annotations

import enum
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAIRS = 9
"""How often both sides take turns."""


class Better(enum.Enum):
    """
    Which way a figure is good.
    """

    HIGHER = "≥"
    LOWER = "≤"


class MissingPeerError(Exception):
    """
    What a figure is measured against is not here; the text says how to get it.
    """


@dataclass(frozen=True)
class Figure:
    """
    A figure that was measured.

    Attributes:
        name: how the command line names it.
        title: what was measured, for people.
        how: the conditions, so that somebody else can measure it again.
        unit: of `ours` and `theirs`.
        better: which way is good.
        bar: what `median` must hold: a ratio where there are two sides, else a value.
        ours: our values, one a turn.
        theirs: the other side's values, one a turn; empty where there is no other side.
        extra: what else was seen, by name.
    """

    name: str
    title: str
    how: str
    unit: str
    better: Better
    bar: float
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def values(self) -> list[float]:
        """
        The ratio of each pair, or our values where there is no other side.
        """
        if not self.theirs:
            return list(self.ours)
        return [
            ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)
        ]

    @property
    def median(self) -> float:
        """
        What is held against the bar.
        """
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        """
        Whether the bar is held.
        """
        if self.better is Better.HIGHER:
            return self.median >= self.bar
        return self.median <= self.bar

    def record(self, conditions: Mapping[str, str]) -> dict[str, object]:
        """
        Return all there is to know about the figure, as JSON has it.
        """
        return {
            **asdict(self),
            "better": self.better.value,
            "median": round(self.median, 4),
            "lowest": round(min(self.values), 4),
            "highest": round(max(self.values), 4),
            "pairs": len(self.values),
            "met": self.met,
            "conditions": dict(conditions),
        }

    def save(self, conditions: Mapping[str, str]) -> None:
        """
        Write the figure into `bench/results`.
        """
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(self.record(conditions), indent=1, ensure_ascii=False)
        (RESULTS / f"{self.name}.json").write_text(text + "\n", "utf-8")


def in_turns(
    ours: Callable[[], float], theirs: Callable[[], float], pairs: int = PAIRS
) -> tuple[list[float], list[float]]:
    """
    Let both sides take turns, after one turn each that does not count.

    Who goes first changes with every pair, so that neither always finds the warmer machine.
    """
    ours()
    theirs()
    first: list[float] = []
    second: list[float] = []
    for turn in range(pairs):
        if turn % 2:
            second.append(theirs())
            first.append(ours())
        else:
            first.append(ours())
            second.append(theirs())
    return first, second
