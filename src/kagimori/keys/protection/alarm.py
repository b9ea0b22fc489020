"""
Telling of what is wrong with a ring: once when it begins, once when it is over.
"""

from __future__ import annotations

from collections.abc import Callable

from kagimori.errors import KagimoriError
from kagimori.events import Severity


class Alarm:
    """
    Remembers what was told last.

    Args:
        emit: tells of an event: name, severity, fields.
    """

    def __init__(self, emit: Callable[..., None]) -> None:
        self._emit = emit
        self._told = ""

    def tell(self, problem: KagimoriError | None, *, is_unreadable: bool) -> None:
        """
        Tell of a problem that is new, or that the last one is over.

        Args:
            is_unreadable: whether the ring could not be read or looked at.
        """
        text = problem.text if problem else ""
        if text == self._told:
            return
        self._told = text
        if problem is None:
            self._emit("ring.recovered")
            return
        self._emit(
            "ring.unreadable" if is_unreadable else "ring.troubled",
            Severity.ALARM,
            code=problem.code,
            text=problem.text,
            hint=problem.hint,
            detail=problem.detail,
        )
