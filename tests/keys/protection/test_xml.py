"""
Strict XML.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.errors import RingMalformedError
from kagimori.keys.protection import xml
from tests.keys.protection.world import VECTORS

BOMB = '<!DOCTYPE a [<!ENTITY b "xxxxxxxxxx"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text",
        "<a>",
        "<a/><b/>",
        "<a></b>",
        "<a b='1' b='2'/>",
        "<p:a/>",
        "<a>&b;</a>",
        "<a>\x00</a>",
        BOMB,
        "<!DOCTYPE a><a/>",
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        '<?xml-stylesheet href="x"?><a/>',
        "<a><?php ?></a>",
        "<a>" * 65 + "</a>" * 65,
        "<a>\ud800</a>",
    ],
)
def test_what_is_not_plain_xml_is_refused(text: str):
    """
    No document type, entity or instruction; well-formed and not deep; one class of error.
    """
    with pytest.raises(RingMalformedError) as caught:
        xml.parse(text)
    assert "xxxx" not in str(caught.value) + caught.value.detail


@pytest.mark.parametrize("data", [b"\xff\xfe<", b"<a>\xff</a>", b"\x00", b"<a/>\x00"])
def test_bytes_that_are_no_text_are_refused(data: bytes):
    """
    Bytes of no encoding are refused as anything else that is not XML.
    """
    with pytest.raises(RingMalformedError):
        xml.parse(data)


def test_sizes_are_bounded():
    """
    More than 10 MB is refused before it is parsed; as deep as allowed is read.
    """
    with pytest.raises(RingMalformedError, match="larger"):
        xml.parse(b"<a>" + b" " * xml.MOST_BYTES + b"</a>")
    assert "a" == xml.parse("<a>" * 64 + "</a>" * 64).tag


@pytest.mark.parametrize(
    "head", ["", "\ufeff", xml.DECLARATION, "\ufeff" + xml.DECLARATION]
)
def test_byte_order_mark_and_declaration_may_be_there(head: str):
    """
    Both are read, in text and in bytes.
    """
    assert "鍵" == xml.parse(f"{head}<a>鍵</a>").text
    assert "鍵" == xml.parse(f"{head}<a>鍵</a>".encode()).text


def test_prefixes_mean_nothing():
    """
    An attribute or element is told by its namespace, whatever the prefix.
    """
    spellings = [
        '<p:a xmlns:p="urn:x" q:b="1" xmlns:q="urn:y"/>',
        '<a xmlns="urn:x" z:b="1" xmlns:z="urn:y"/>',
    ]

    assert 1 == len({xml.write(xml.parse(spelling)) for spelling in spellings})


def test_files_of_dotnet_survive_reading_and_writing():
    """
    Every ring file of .NET is the same tree after having been written by us.
    """
    paths = sorted((VECTORS / "rings").rglob("*.xml"))
    for path in paths:
        first = xml.write(xml.parse(path.read_bytes()))
        assert first == xml.write(xml.parse(first))

    assert len(paths) > 10


def test_an_indented_document_lies_as_dotnets():
    """
    A clear ring file of .NET comes out to the character but for the prefix of one attribute.
    """
    (path,) = (VECTORS / "rings" / "AES_256_GCM").glob("*.xml")
    text = path.read_text("utf-8")
    root = xml.parse(text)
    for node in root.iter():
        node.tail = None
        if len(node):
            node.text = None

    written = xml.write(root, indent=True, declaration=True)
    assert text == "\ufeff" + written.replace("d4p1", "p4")


texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
)


@given(texts, texts, st.booleans())
def test_any_text_survives(text: str, value: str, indent: bool):
    """
    Whatever XML can hold comes back from element and attribute, indented or not.
    """
    language = "{http://www.w3.org/XML/1998/namespace}lang"
    root = xml.element("{urn:x}a", {"b": value, "{urn:y}c": value, language: "en"})
    xml.child(root, "d", text=text)
    xml.child(root, "{urn:y}e")
    xml.comment(root, " note ")
    back = xml.parse(xml.write(root, indent=indent))

    assert root.attrib == back.attrib
    assert text == (back[0].text or "")
    assert text.strip() == xml.text_of(back)
    assert 2 == len(xml.children(back))
