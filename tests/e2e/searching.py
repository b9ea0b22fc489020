"""
Finds secrets in bytes, however they were written down.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

PIECE = 24
"""Bytes of a long needle that are looked for: SQLite may split a value between pages."""

SHORTEST = 8
"""Bytes below which a find means nothing."""

_STANDARD = b"+/"
_URL = b"-_"


class Secrets:
    """
    Everything that must never lie readable, by what it is.
    """

    def __init__(self) -> None:
        self._values: dict[str, set[bytes]] = {}

    def add(self, what: str, *values: str | bytes) -> None:
        """
        Take note of secrets; what a text encodes is a secret too.
        """
        known = self._values.setdefault(what, set())
        for value in values:
            raw = value.encode() if isinstance(value, str) else value
            assert len(raw) >= SHORTEST, what
            known.add(raw)
            if isinstance(value, str):
                known.update(d for d in _decoded(value) if len(d) >= SHORTEST)

    def count(self, what: str) -> int:
        return len(self._values.get(what, ()))

    @property
    def kinds(self) -> set[str]:
        return set(self._values)

    def needles(self) -> Iterator[tuple[str, bytes]]:
        """
        Give every byte sequence that would be a find, with what it would be of.
        """
        for what, values in self._values.items():
            for value in values:
                for form in written(value):
                    for piece in pieces(form):
                        yield what, piece

    def find(self, places: Iterable[tuple[str, bytes]]) -> list[str]:
        """
        Return what was found where; the secrets themselves are not repeated.
        """
        # Thousands of needles in megabytes: one look at each position, by how needles begin.
        heads: dict[bytes, set[tuple[str, bytes]]] = {}
        for what, needle in self.needles():
            heads.setdefault(needle[:SHORTEST], set()).add((what, needle))
        found = []
        for name, content in places:
            # PEM breaks its lines, and JSON writes the breaks as two characters.
            joined = (
                content.replace(b"\\n", b"").replace(b"\r", b"").replace(b"\n", b"")
            )
            kinds = {
                what
                for text in {content, joined}
                for at in range(len(text))
                if (head := text[at : at + SHORTEST]) in heads
                for what, needle in heads[head]
                if text.startswith(needle, at)
            }
            found += [f"{what} in {name}" for what in sorted(kinds)]
        return found


def _decoded(text: str) -> Iterator[bytes]:
    # Prefixes such as kgm_rt_ are no part of what follows them.
    for part in {text, text.rpartition("_")[2], *_tails(text)}:
        padded = part + "=" * (-len(part) % 4)
        for alternative in (None, _URL):
            try:
                yield base64.b64decode(padded, altchars=alternative, validate=True)
            except (binascii.Error, ValueError):
                continue


def _tails(text: str) -> Iterator[str]:
    if text.startswith("kgm_"):
        yield text.split("_", 2)[2]


def written(value: bytes) -> set[bytes]:
    """
    Return the ways in which bytes may be written down.
    """
    forms = {value, value.hex().encode(), value.hex().upper().encode()}
    forms.add(quote(value, safe="").encode())
    for skipped in range(3):
        # Within a longer text, base64 may begin at any of three places.
        aligned = value[skipped:]
        aligned = aligned[: len(aligned) // 3 * 3]
        if len(aligned) >= SHORTEST - 2:
            forms.add(base64.b64encode(aligned))
            forms.add(base64.urlsafe_b64encode(aligned))
    return forms


def pieces(form: bytes) -> set[bytes]:
    """
    Return parts of a long needle, any of which is a find.
    """
    if len(form) <= 2 * PIECE:
        return {form}
    middle = len(form) // 2
    return {form[:PIECE], form[middle : middle + PIECE], form[-PIECE:]}


def contents(folder: Path) -> list[tuple[str, bytes]]:
    """
    Return all files below a folder with what they hold.
    """
    return [
        (str(path.relative_to(folder)), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
