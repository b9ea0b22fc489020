"""
The rows of a ring's table as they were read in one moment.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from kagimori.errors import ConfigError, RingMalformedError
from kagimori.keys.protection import elements
from kagimori.keys.store import Element, Snapshot
from kagimori.ring_stores.marks import Mark, digest_of, name_of, read_mark

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Row:
    """
    A row; `xml` is empty where the row is no element.
    """

    id: int
    friendly: str | None
    xml: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """
    All rows, by id.

    Attributes:
        rows: every one, those that are no elements too.
        elements: the name of each element with its row; our state left out.
        mark: our state element: of several the newest.
        marked: the ids of the rows that hold one.
    """

    rows: tuple[Row, ...]
    elements: tuple[tuple[str, Row], ...]
    mark: Mark
    marked: tuple[int, ...]

    @classmethod
    def of(cls, found: Sequence[Sequence[object]], where: str) -> Reading:
        """
        Take what a query of id, friendly name and XML gave.

        Raises:
            RingMalformedError: an element is no XML, or the columns are of other types.
        """
        rows = []
        named = []
        mark = Mark()
        marked = []
        for id_, friendly, text in found:
            if type(id_) is not int or not _is_text(friendly) or not _is_text(text):
                raise RingMalformedError(f"{where} holds columns of other types.")
            row = Row(id_, _or_none(friendly), _or_none(text) or "")
            rows.append(row)
            if not row.xml.strip():
                continue
            if (its_mark := read_mark(row.xml)) is not None:
                mark = its_mark
                marked.append(id_)
                continue
            what = f"The element in row {id_} of {where}"
            named.append((name_of(row.xml, what, row.friendly), row))
        return cls(tuple(rows), tuple(named), mark, tuple(marked))

    @property
    def version(self) -> str | None:
        """
        What a commit is compared with; ``None`` where nothing is stored.
        """
        if not self.elements and not self.marked:
            return None
        parts = (
            part
            for row in self.rows
            if row.xml
            for part in (str(row.id), row.friendly or "", row.xml)
        )
        return f"{self.rows[-1].id}.{digest_of(parts)}"

    def snapshot(self) -> Snapshot:
        """
        Return the ring that the rows are.
        """
        found = [Element(name, row.xml) for name, row in self.elements]
        if self.mark.ring_state:
            found.append(Element(elements.STATE, self.mark.ring_state))
        return Snapshot(tuple(found), self.version)

    def following(self, given: Sequence[tuple[str, str]]) -> list[Row]:
        """
        Return rows for names and texts, on the ids from the highest one on.
        """
        top = max(self.rows[-1].id, 0) if self.rows else 0
        return [
            Row(number, friendly, text)
            for number, (friendly, text) in enumerate(given, top + 1)
        ]

    def ids_of(self, names: Collection[str]) -> list[int]:
        """
        Return the ids of elements of these names and of our state, by id.
        """
        named = [row.id for name, row in self.elements if name in names]
        return sorted([*named, *self.marked])

    def without(self, names: Collection[str]) -> list[Row]:
        """
        Return the rows that `ids_of` leaves.
        """
        gone = set(self.ids_of(names))
        return [row for row in self.rows if row.id not in gone]


def table_of(text: str) -> tuple[str, ...]:
    """
    Return the parts of ``table`` or ``schema.table``.

    Raises:
        ConfigError: this names no table.
    """
    parts = tuple(text.split("."))
    # A longer name would be cut by some databases: two rings would become one.
    if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise ConfigError(
            "A ring's table is named by letters, digits, _, - and $, at most 63 of them, "
            "or by schema.table."
        )
    return parts


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
