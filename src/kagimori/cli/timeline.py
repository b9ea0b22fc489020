"""
Draws the lives of keys on one time axis, in characters.

Rules of this module:

1. It draws from the times of a key alone and reads no clock: ``now`` is an argument.
2. Every phase has its own character, so the drawing needs no colour; a plain set of characters
   serves terminals without UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


class Life(Protocol):
    """
    The times of a key that a drawing needs.
    """

    @property
    def published(self) -> datetime | None:
        """
        Say when it entered the JWKS or the ring.
        """
        ...

    @property
    def activates(self) -> datetime | None:
        """
        Say from when on it signs or protects.
        """
        ...

    @property
    def due(self) -> datetime | None:
        """
        Say when a successor should take over.
        """
        ...

    @property
    def retires(self) -> datetime | None:
        """
        Say when its successor takes over.
        """
        ...

    @property
    def expires(self) -> datetime | None:
        """
        Say when nothing that it made can be alive.
        """
        ...


@dataclass(frozen=True, slots=True)
class Marks:
    """
    The characters of a drawing.
    """

    waiting: str
    signing: str
    verifying: str
    empty: str
    now: str


FINE = Marks(waiting="┄", signing="█", verifying="▒", empty=" ", now="│")
PLAIN = Marks(waiting=".", signing="#", verifying="=", empty=" ", now="|")


def marks_for(encoding: str | None) -> Marks:
    """
    Return the characters that a stream of this encoding can show.
    """
    try:
        f"{FINE.waiting}{FINE.signing}{FINE.verifying}{FINE.now}".encode(
            encoding or "ascii"
        )
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return FINE


@dataclass(frozen=True, slots=True)
class Axis:
    """
    The stretch of time that a drawing covers.
    """

    start: datetime
    end: datetime
    columns: int

    def column(self, instant: datetime) -> int:
        """
        Return the column in which an instant falls, 0 to `columns`.
        """
        share = (instant - self.start) / (self.end - self.start)
        return max(0, min(self.columns, round(share * self.columns)))


def axis_of(lives: Sequence[Life], now: datetime, columns: int) -> Axis:
    """
    Return the axis on which all these lives and `now` fit, with a little air on both sides.
    """
    instants = [now]
    for life in lives:
        instants.extend(
            instant
            for instant in (
                life.published,
                life.activates,
                life.due,
                life.retires,
                life.expires,
            )
            if instant is not None
        )
    start, end = min(instants), max(instants)
    air = max((end - start) / 20, timedelta(seconds=1))
    return Axis(start - air, end + air, columns)


def draw(life: Life, axis: Axis, now: datetime, marks: Marks) -> str:
    """
    Return the life of one key as a line of `axis.columns` characters.

    Published and waiting, then signing or protecting, then verifying only; where a key has no
    successor yet it is drawn to the end of the axis.
    """
    line = [marks.empty] * axis.columns
    published = life.published or life.activates
    activates = life.activates or published
    if published is None or activates is None:
        return "".join(line)
    retires = life.retires or axis.end
    expires = (life.expires or axis.end) if life.retires else retires
    phases = [
        (published, activates, marks.waiting),
        (activates, retires, marks.signing),
        (retires, max(retires, expires), marks.verifying),
    ]
    # The shortest is drawn last and takes a column at least, so that none goes unseen.
    phases.sort(key=lambda phase: phase[0] - phase[1])
    for begin, end, mark in phases:
        first, last = axis.column(begin), axis.column(end)
        if begin < end and first == last and first < axis.columns:
            last = first + 1
        for column in range(first, last):
            line[column] = mark
    here = min(axis.column(now), axis.columns - 1)
    line[here] = marks.now
    return "".join(line)
