"""
Strict reading and plain writing of the small XML documents of a key ring.

Rules of this module:

1. No document type, no entity, no processing instruction; sizes and depth are bounded before
   anything is built. Whatever breaks a rule is a `RingMalformedError` that quotes nothing.
2. Names are ``{namespace}local``. Prefixes mean nothing: writers choose them freely.
3. Whatever is read can be written back with the same meaning, comments included.
"""

from __future__ import annotations

from typing import NoReturn
from xml.etree import ElementTree as ET
from xml.parsers import expat

from kagimori.errors import RingMalformedError

MOST_BYTES = 10 * 1024 * 1024
MOST_DEPTH = 64

DATA_PROTECTION = "http://schemas.asp.net/2015/03/dataProtection"
KAGIMORI = "urn:kagimori:ring:1"
"""The namespace of our own root elements, which .NET skips."""

_XML = "http://www.w3.org/XML/1998/namespace"
_HINT = "Restore it from a backup; no key is made in its place."

DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'
BOM = "\ufeff"

Element = ET.Element

# Not the standard library's `escape`: its module imports all of urllib, which a program that
# only opens a ring would wait for.
_IN_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#xD;"})
_IN_ATTRIBUTE = _IN_TEXT | str.maketrans({'"': "&quot;", "\n": "&#xA;", "\t": "&#x9;"})


class _RefusedError(Exception):
    """
    A rule of this module was broken; the text says which.
    """


class _Builder:
    """
    Takes expat's events and builds elements.
    """

    def __init__(self) -> None:
        self._builder = ET.TreeBuilder(insert_comments=True)
        self._depth = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _RefusedError("it nests too deeply")
        named = {_braced(key): value for key, value in attributes.items()}
        self._builder.start(_braced(name), named)

    def end(self, name: str) -> None:
        self._depth -= 1
        self._builder.end(_braced(name))

    def data(self, text: str) -> None:
        self._builder.data(text)

    def comment(self, text: str) -> None:
        if self._depth:
            self._builder.comment(text)

    def refuse(self, *_: object) -> NoReturn:
        raise _RefusedError("it holds a document type, an entity or an instruction")

    def close(self) -> Element:
        return self._builder.close()


def _braced(name: str) -> str:
    return "{" + name if "}" in name else name


def parse(source: str | bytes, *, what: str = "The ring") -> Element:
    """
    Read one XML document, with or without BOM and declaration.

    Args:
        what: what is read, as the beginning of an error's sentence.

    Raises:
        RingMalformedError: not well-formed, or refused by the rules of this module.
    """
    # Text is handed over as UTF-8 whatever its declaration says.
    encoding = "utf-8" if isinstance(source, str) else None
    try:
        data = source.encode("utf-8") if isinstance(source, str) else source
    except UnicodeEncodeError:
        raise RingMalformedError(f"{what} is no valid text.", hint=_HINT) from None
    if len(data) > MOST_BYTES:
        raise RingMalformedError(
            f"{what} is larger than {MOST_BYTES} bytes.", hint=_HINT
        )
    builder = _Builder()
    parser = expat.ParserCreate(encoding, "}")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.CommentHandler = builder.comment
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.EntityDeclHandler = builder.refuse
    parser.ProcessingInstructionHandler = builder.refuse
    parser.ExternalEntityRefHandler = builder.refuse
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat's own signature
        return builder.close()
    except _RefusedError as refusal:
        raise RingMalformedError(f"{what} is refused: {refusal}.", hint=_HINT) from None
    except (expat.ExpatError, ValueError, LookupError) as error:
        # The parser names line and column, never content.
        where = str(error) if isinstance(error, expat.ExpatError) else "bad encoding"
        raise RingMalformedError(
            f"{what} is not well-formed XML.",
            hint=_HINT,
            detail=where,
        ) from None


def write(element: Element, *, indent: bool = False, declaration: bool = False) -> str:
    """
    Return an element as XML text.

    Args:
        indent: one element a line, as .NET's file store writes.
        declaration: put the XML declaration in front.
    """
    parts: list[str] = []
    _write(element, parts, "", 0, indent=indent)
    head = DECLARATION + ("\n" if indent else "") if declaration else ""
    return head + "".join(parts)


def _write(
    node: Element, parts: list[str], default: str, depth: int, *, indent: bool
) -> None:
    if is_comment(node):
        parts.append(f"<!--{node.text or ''}-->")
        return
    namespace, local = split(node.tag)
    attributes: list[str] = []
    # A prefix on attributes alone, fresh in each element, so that nothing is inherited.
    for name, value in node.attrib.items():
        space, name_local = split(name)
        if space == _XML:
            attributes.append(f'xml:{name_local}="{_quoted(value)}"')
        elif space:
            prefix = f"d{depth + 1}p{len(attributes) + 1}"
            attributes.append(f'{prefix}:{name_local}="{_quoted(value)}"')
            attributes.append(f'xmlns:{prefix}="{_quoted(space)}"')
        else:
            attributes.append(f'{name_local}="{_quoted(value)}"')
    if namespace != default:
        attributes.append(f'xmlns="{_quoted(namespace)}"')
    parts.append("<" + " ".join([local, *attributes]))
    text = node.text or ""
    if not len(node) and not text:
        parts.append(" />")
        return
    parts.append(">")
    # Only what holds nothing but elements may be laid out anew.
    spread = indent and len(node) and not _has_text(node)
    if not spread:
        parts.append(_escaped(text))
    for child in node:
        if spread:
            parts.append("\n" + "  " * (depth + 1))
        _write(child, parts, namespace, depth + 1, indent=indent)
        if not spread:
            parts.append(_escaped(child.tail or ""))
    if spread:
        parts.append("\n" + "  " * depth)
    parts.append(f"</{local}>")


def _has_text(node: Element) -> bool:
    texts = [node.text, *(child.tail for child in node)]
    return any(text and text.strip() for text in texts)


def _escaped(text: str) -> str:
    return text.translate(_IN_TEXT)


def _quoted(text: str) -> str:
    return text.translate(_IN_ATTRIBUTE)


def split(tag: str) -> tuple[str, str]:
    """
    Return namespace and local name of a ``{namespace}local`` name.
    """
    if tag[:1] == "{":
        namespace, _, local = tag[1:].partition("}")
        return namespace, local
    return "", tag


def is_comment(node: Element) -> bool:
    """
    Whether a node of the tree is a comment: those have a function for a tag.
    """
    return callable(node.tag)


def text_of(element: Element) -> str:
    """
    Return all text in an element and below, comments left out, trimmed.
    """
    parts: list[str] = []
    _gather(element, parts)
    return "".join(parts).strip()


def _gather(element: Element, parts: list[str]) -> None:
    if not is_comment(element):
        parts.append(element.text or "")
        for child in element:
            _gather(child, parts)
            parts.append(child.tail or "")


def children(element: Element) -> list[Element]:
    """
    Return the child elements, comments left out.
    """
    return [child for child in element if not is_comment(child)]


def only_child(element: Element) -> Element:
    """
    Return the one child element.

    Raises:
        RingMalformedError: there is none, or more than one.
    """
    found = children(element)
    if len(found) != 1:
        raise RingMalformedError("A wrapped secret holds not exactly one element.")
    return found[0]


def element(
    tag: str, attributes: dict[str, str] | None = None, text: str = ""
) -> Element:
    """
    Make an element.
    """
    made = ET.Element(tag, attributes or {})
    made.text = text or None
    return made


def child(
    parent: Element, tag: str, attributes: dict[str, str] | None = None, text: str = ""
) -> Element:
    """
    Make an element at the end of another one.
    """
    made = element(tag, attributes, text)
    parent.append(made)
    return made


def comment(parent: Element, text: str) -> None:
    """
    Put a comment at the end of an element.
    """
    parent.append(ET.Comment(text))
