"""
Our state element in a store that keeps elements as rows or items, and what names a commit in it.

Rules of this module:

1. Each commit of ours writes the state element anew, under a random name of its own. So no
   version of a ring ever comes back, and whoever lost the answer to a commit finds out by that
   name, or by the names of the commits before, whether it was done.
2. .NET skips the element. It is told by what it is, not by what it is called.
3. Text that lies in the store is one line: .NET's stores of this kind write no indentation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kagimori.errors import RingMalformedError, StoreError
from kagimori.keys.protection import elements, xml
from kagimori.keys.store import Element

MOST_ELEMENTS = 20_000

_LINEAGE = 64
_COMMIT = "commit"
_AFTER = "after"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mark:
    """
    The state element of a ring.

    Attributes:
        commit: the name of the commit that wrote it; empty where there was none.
        lineage: the names of the commits before, the newest first.
        ring_state: the ring's own state element as text; empty where it has given none.
    """

    commit: str = ""
    lineage: tuple[str, ...] = ()
    ring_state: str = field(default="", repr=False)

    def descends_from(self, commit: str) -> bool:
        """
        Whether a commit of this name was done.
        """
        return commit == self.commit or commit in self.lineage

    def followed_by(self, commit: str, ring_state: str) -> Mark:
        """
        Return the mark of a commit on this one; an empty `ring_state` keeps what there is.
        """
        before = (self.commit,) if self.commit else ()
        return Mark(
            commit,
            (*before, *self.lineage)[:_LINEAGE],
            ring_state or self.ring_state,
        )

    def text(self) -> str:
        """
        Return the element as it lies in the store.
        """
        if self.ring_state:
            root = xml.parse(self.ring_state, what="The ring's state")
        else:
            root = xml.element(f"{{{xml.KAGIMORI}}}state")
        root.set(_COMMIT, self.commit)
        root.set(_AFTER, " ".join(self.lineage))
        return xml.write(root)


def read_mark(text: str) -> Mark | None:
    """
    Read our state element; ``None`` for any other element.
    """
    if xml.KAGIMORI not in text:
        return None
    try:
        root = xml.parse(text)
    except RingMalformedError:
        return None
    if not elements.is_state(root):
        return None
    commit = root.attrib.pop(_COMMIT, "")
    lineage = tuple(root.attrib.pop(_AFTER, "").split()[:_LINEAGE])
    return Mark(commit, lineage, xml.write(root) if root.get("generation") else "")


def one_line(element: Element) -> str:
    """
    Return an element's text without layout.
    """
    return xml.write(xml.parse(element.xml, what=f"The element {element.name}"))


def name_of(text: str, what: str, given: str | None = None) -> str:
    """
    Return the name of a stored element: the one it was given, else what follows from its text.

    Raises:
        RingMalformedError: it has no usable name, and its text is no XML.
    """
    if given and given != elements.STATE and _NAME.fullmatch(given):
        return given
    return elements.friendly_name(xml.parse(text, what=what))


def digest_of(parts: Iterable[str]) -> str:
    """
    Return a digest of texts in their order.
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:32]


def bounded(count: int, where: str) -> None:
    """
    Refuse a ring with more elements than any ring has.

    Raises:
        StoreError: there are more.
    """
    if count > MOST_ELEMENTS:
        raise StoreError(f"{where} holds more than {MOST_ELEMENTS} elements.")


def split_state(add: Sequence[Element]) -> tuple[str, list[Element]]:
    """
    Return the state element's text among what is added (empty without one), and the others.
    """
    state = next((one.xml for one in add if one.name == elements.STATE), "")
    return state, [one for one in add if one.name != elements.STATE]
