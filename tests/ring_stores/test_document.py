"""
What a ring in one document looks like, beside foreign writers too.
"""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kagimori.errors import RingMalformedError, StoreError
from kagimori.keys.protection import elements, xml
from kagimori.keys.store import Element, Snapshot
from kagimori.ring_stores.document import DocumentStore
from kagimori.testing.conformance.key_store import ONE, STATE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import change, named


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """
    The document of a ring of two elements.
    """
    path = tmp_path / "ring" / "ring.xml"
    DocumentStore(path).commit([ONE, TWO, STATE], (), None)
    return path


def append_as_dotnet(path: Path, element: Element) -> None:
    """
    Add an element as .NET's single-document stores do, which keep what else is there.
    """
    text = path.read_text("utf-8")
    path.write_text(
        text.replace("</repository>", element.xml + "</repository>"), "utf-8"
    )


def test_the_document_lies_as_dotnet_lays_it(path: Path):
    """
    One line with byte order mark and declaration, under <repository>; for the owner alone.
    """
    text = path.read_text("utf-8")
    head = '\ufeff<?xml version="1.0" encoding="utf-8"?><repository><revocation version="1">'

    assert text.startswith(head)
    assert "\n" not in text
    assert ["revocation", "revocation", "{urn:kagimori:ring:1}state"] == [
        root.tag for root in xml.children(xml.parse(text))
    ]
    assert {0o600} == {stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}


def test_any_root_and_an_empty_file_are_read(tmp_path: Path):
    """
    The root's name is not looked at; a file of no bytes is an empty ring.
    """
    path = tmp_path / "ring.xml"
    path.write_text("")
    assert Snapshot((), None) == DocumentStore(path).load()

    path.write_text(f"<anything>{ONE.xml}\n {TWO.xml}</anything>")
    assert of(ONE, TWO) == meaning(DocumentStore(path).load())


def test_what_dotnet_appends_is_kept(path: Path):
    """
    An element that a foreign writer added is there at once, and after our next commit.
    """
    append_as_dotnet(path, named("three"))
    assert of(ONE, TWO, named("three")) == meaning(DocumentStore(path).load())

    change(DocumentStore(path), (named("four"),), (ONE.name,))
    expected = of(TWO, named("three"), named("four"))
    assert expected == meaning(DocumentStore(path).load())


def test_a_foreign_writer_that_read_before_us_takes_nothing_back(path: Path):
    """
    Who writes back what it had read before our commit, with an element of its own, undoes
    nothing: both changes are in the ring, and what we removed stays removed.
    """
    before = path.read_text("utf-8")
    change(DocumentStore(path), (named("ours"),), (ONE.name,))
    path.write_text(before, "utf-8")
    append_as_dotnet(path, named("theirs"))

    expected = of(TWO, named("ours"), named("theirs"))
    assert expected == meaning(DocumentStore(path, read_only=True).load())
    assert expected == meaning(DocumentStore(path).load())
    # And it has been put right for foreign readers too.
    roots = xml.children(xml.parse(path.read_text("utf-8")))
    assert set(expected) | {"state"} == {elements.friendly_name(root) for root in roots}


def test_a_lost_document_is_not_a_lost_ring(path: Path):
    """
    Where the document was deleted, the last commit still has it.
    """
    path.unlink()
    assert of(ONE, TWO) == meaning(DocumentStore(path).load())
    assert path.exists()


def test_a_copied_document_is_a_whole_ring(path: Path, tmp_path: Path):
    """
    The document alone, without what lies beside it, is the ring, state included.
    """
    copy = tmp_path / "copy.xml"
    copy.write_bytes(path.read_bytes())
    snapshot = DocumentStore(copy).load()

    assert of(ONE, TWO) == meaning(snapshot)
    state = next(e for e in snapshot.elements if e.name == elements.STATE)
    assert 7 == elements.read_state(xml.parse(state.xml)).generation
    change(DocumentStore(copy), (named("three"),), ())
    assert of(ONE, TWO, named("three")) == meaning(DocumentStore(copy).load())


def test_another_ring_put_in_its_place_is_the_ring(path: Path, tmp_path: Path):
    """
    Who replaces the document by another ring of ours means it.
    """
    other = tmp_path / "other.xml"
    DocumentStore(other).commit([named("other"), STATE], (), None)
    path.write_bytes(other.read_bytes())

    assert of(named("other")) == meaning(DocumentStore(path).load())
    change(DocumentStore(path), (named("three"),), ())
    assert of(named("other"), named("three")) == meaning(DocumentStore(path).load())


@pytest.mark.parametrize("text", ["<repository>", "nothing", "<a><!DOCTYPE b></a>"])
def test_a_broken_document_makes_the_ring_unreadable(path: Path, text: str):
    """
    A document that is not well-formed is an error, never an empty ring.
    """
    path.write_text(text)

    with pytest.raises(RingMalformedError):
        DocumentStore(path).load()


def test_a_folder_in_the_documents_place_is_told_of(tmp_path: Path):
    """
    A location of the other layout is explained.
    """
    (tmp_path / "ring.xml").mkdir()

    with pytest.raises(StoreError) as caught:
        DocumentStore(tmp_path / "ring.xml").load()
    assert "layout=document" in caught.value.hint


def test_modes_are_named(path: Path):
    """
    K11: a document that others may read or write is told of, and so is its folder.
    """
    store = DocumentStore(path)
    assert () == store.loose_modes()
    assert not store.others_may_write()

    path.chmod(0o664)
    assert "0664" in store.loose_modes()[0]
    assert store.others_may_write()
    path.chmod(0o600)
    path.parent.chmod(0o770)
    assert store.others_may_write()
