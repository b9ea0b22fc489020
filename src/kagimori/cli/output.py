"""
How the command line shows things: aligned tables, calm colours, JSON.

Rules of this module:

1. Results go to standard output, everything else (notices, warnings, errors) to standard error,
   so that a pipe sees results only.
2. With ``--json`` standard output holds one JSON value and nothing else.
3. Colour appears only on a terminal, and never alone carries a meaning. `NO_COLOR` is honoured.
4. Text that came from outside is stripped of control characters before it reaches a terminal
   (attack S4).
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from typing import IO, Any

import click
import msgspec

from kagimori.cli.texts import Texts

STYLES = {
    "next": "cyan",
    "current": "green",
    "previous": "yellow",
    "retired": "bright_black",
    "revoked": "red",
    "warning": "yellow",
    "error": "red",
    "good": "green",
    "quiet": "bright_black",
}


def width(text: str) -> int:
    """
    Return how many terminal columns a text takes: East Asian wide characters take two.
    """
    total = 0
    for character in text:
        if unicodedata.combining(character):
            continue
        total += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return total


def pad(text: str, columns: int) -> str:
    """
    Return the text followed by the blanks that bring it to `columns`.
    """
    return text + " " * max(0, columns - width(text))


def clean(text: str) -> str:
    """
    Return the text with control characters made visible.
    """
    return "".join(
        character if character.isprintable() else f"\\x{ord(character):02x}"
        for character in text
    )


class Output:
    """
    Where one command writes to.

    Args:
        texts: the language.
        as_json: whether results are JSON.
        out, err: the streams; standard ones when left out.
    """

    def __init__(
        self,
        texts: Texts,
        *,
        as_json: bool = False,
        out: IO[str] | None = None,
        err: IO[str] | None = None,
    ) -> None:
        self.texts = texts
        self.as_json = as_json
        self._out = out or sys.stdout
        self._err = err or sys.stderr

    def _coloured(self, stream: IO[str]) -> bool:
        return stream.isatty() and not os.environ.get("NO_COLOR")

    def style(self, text: str, name: str) -> str:
        """
        Return the text in the colour of a state, where colours are shown.
        """
        if not self._coloured(self._out) or name not in STYLES:
            return text
        return click.style(text, fg=STYLES[name])

    def json(self, value: Any) -> None:
        """
        Write one JSON value as the result.
        """
        data = msgspec.json.format(msgspec.json.encode(value), indent=2)
        self._out.write(data.decode() + "\n")
        self._out.flush()

    def line(self, text: str = "") -> None:
        """
        Write one line of a result; nothing while results are JSON.
        """
        if not self.as_json:
            self._out.write(text + "\n")
            self._out.flush()

    def say(self, key: str, /, **params: object) -> None:
        """
        Write one line of a result by its text's key.
        """
        self.line(self.texts(key, **params))

    def notice(self, key: str, /, **params: object) -> None:
        """
        Write one line beside the result, on standard error.
        """
        self._err.write(self.texts(key, **params) + "\n")
        self._err.flush()

    def warn(self, text: str) -> None:
        """
        Write one warning, on standard error.
        """
        self._alert(self.texts("output.warning"), text, "warning")

    def error(self, text: str, hint: str = "") -> None:
        """
        Write what went wrong and what to do, on standard error.
        """
        self._alert(self.texts("output.error"), text, "error")
        if hint:
            self._err.write(f"  {self.texts('output.hint')} {clean(hint)}\n")
            self._err.flush()

    def _alert(self, label: str, text: str, style: str) -> None:
        shown = (
            click.style(label, fg=STYLES[style], bold=True)
            if self._coloured(self._err)
            else label
        )
        self._err.write(f"{shown} {clean(text)}\n")
        self._err.flush()

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], state: int = -1
    ) -> None:
        """
        Write an aligned table.

        Args:
            headings: one per column.
            rows: the cells; shown as they are, control characters made visible.
            state: the column that holds a key's state and gets its colour.
        """
        cells = [[clean(cell) for cell in row] for row in rows]
        widths = [
            max([width(heading), *(width(row[column]) for row in cells)])
            for column, heading in enumerate(headings)
        ]
        self.line(
            "  ".join(
                self.style(pad(heading, widths[column]), "quiet")
                for column, heading in enumerate(headings)
            ).rstrip()
        )
        for row in cells:
            shown = [
                self.style(pad(cell, widths[column]), cell.lower())
                if column == state
                else pad(cell, widths[column])
                for column, cell in enumerate(row)
            ]
            self.line("  ".join(shown).rstrip())
