"""
A ring as one XML document, as ASP.NET Core's Azure Blob store lays it out.

Rules of this module (`aspnet-data-protection.md` 2.6):

1. The children of the root are the ring, whatever the root's name; no bytes are an empty ring.
2. It is written unindented, with byte order mark and declaration, under ``<repository>``.
3. Nothing is interpreted: elements of others are kept as they are, and so are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kagimori.errors import RingUnreadableError, StoreError
from kagimori.keys.protection import elements, xml
from kagimori.keys.store import Element

MOST_BYTES = xml.MOST_BYTES
CONTENT_TYPE = "application/xml; charset=utf-8"


@dataclass(frozen=True, slots=True)
class OneDocument:
    """
    The elements of a document, in its order.
    """

    elements: tuple[Element, ...] = ()

    @classmethod
    def read(cls, data: bytes, where: str) -> OneDocument:
        """
        Take a document apart.

        Raises:
            RingMalformedError: it is no XML document that a ring may be.
            RingUnreadableError: it is too large.
        """
        if not data:
            return cls()
        if len(data) > MOST_BYTES:
            raise too_large(where)
        roots = xml.children(xml.parse(data, what=where))
        return cls(tuple(_element(root) for root in roots))

    def write(self) -> bytes:
        """
        Return the document's bytes.

        Raises:
            StoreError: it would be larger than any reader takes.
        """
        inner = "".join(element.xml for element in self.elements)
        text = f"{xml.BOM}{xml.DECLARATION}<repository>{inner}</repository>"
        data = text.encode()
        if len(data) > MOST_BYTES:
            raise StoreError(
                f"The ring would be larger than {MOST_BYTES} bytes.",
                hint="Delete keys that nothing needs any more.",
            )
        return data

    def changed(self, add: Iterable[Element], remove: Iterable[str]) -> OneDocument:
        """
        Return the document after a change.

        Raises:
            RingMalformedError: an element to add is no XML.
        """
        added = [_compact(element) for element in add]
        gone = {element.name for element in added} | set(remove)
        kept = [element for element in self.elements if element.name not in gone]
        return OneDocument((*kept, *added))

    def holds(self, add: Iterable[Element], remove: Iterable[str]) -> bool:
        """
        Whether a change is in place, to tell what became of a write that was not answered.

        Our state is looked at only where it is the whole change: a later writer replaces it.
        """
        added = {_compact(element) for element in add}
        others = {element for element in added if element.name != elements.STATE}
        names = {element.name for element in self.elements}
        gone = set(remove) - {element.name for element in added}
        return (others or added) <= set(self.elements) and not gone & names


def too_large(where: str) -> RingUnreadableError:
    """
    Return the error of a document beyond the limit.
    """
    return RingUnreadableError(
        f"{where} is larger than {MOST_BYTES} bytes.",
        hint="This is no ring: check the location.",
    )


def _compact(element: Element) -> Element:
    return _element(xml.parse(element.xml, what=f"The element {element.name}"))


def _element(root: xml.Element) -> Element:
    root.tail = None
    return Element(elements.friendly_name(root), xml.write(root))
