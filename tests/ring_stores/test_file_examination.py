"""
What the doctor asks of a ring in files.
"""

from __future__ import annotations

import errno
import os

import pytest

from kagimori.keys.store import Element
from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore

KEY = Element("key-1", '<key id="1" version="1" />')


@pytest.fixture(params=["folder", "document"])
def open_store(request, tmp_path):
    """
    Return what opens a store of each layout at one place.
    """

    def opened(**options):
        if request.param == "folder":
            return FolderStore(tmp_path / "ring", **options)
        return DocumentStore(tmp_path / "ring" / "ring.xml", **options)

    return opened


def rights(findings):
    return {each.right: each.ok for each in findings if each.right != "lasting"}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*")}


def test_reading_and_writing_are_tried_and_nothing_is_left_behind(open_store, tmp_path):
    """
    Both rights hold, and the folder is the same byte by byte.
    """
    store = open_store()
    store.commit([KEY], [], None)
    before = files(tmp_path / "ring")

    found = rights(store.examine())

    assert {"read": True, "write if unchanged": True} == found
    assert before == files(tmp_path / "ring")


def test_a_store_that_never_writes_is_not_asked_to(open_store):
    """
    Opened read-only there is one right to try.
    """
    open_store().commit([KEY], [], None)

    assert {"read": True} == rights(open_store(read_only=True).examine())


def test_a_ring_that_is_not_there_is_not_made(open_store, tmp_path):
    """
    Examining makes no folder.
    """
    found = open_store().examine()

    assert not (tmp_path / "ring").exists()
    assert any("no folder" in each.text for each in found)


def test_what_cannot_be_read_or_written_is_said_with_a_remedy(open_store, tmp_path):
    """
    A file where the folder should be: each right fails by itself.
    """
    (tmp_path / "ring").write_text("not a folder")

    found = open_store().examine()

    assert {"read": False, "write if unchanged": False} == rights(found)
    assert all(each.text for each in found)


def test_a_damaged_document_can_still_be_written_to(open_store, tmp_path):
    """
    Reading and writing are told apart.
    """
    store = open_store()
    store.commit([KEY], [], None)
    for path in (tmp_path / "ring").glob("*.xml"):
        if not path.name.startswith("state-"):
            path.write_text("<repository><")

    found = rights(store.examine())

    # Files of a folder are made sense of one by one, above the store.
    assert found["read"] is isinstance(store, FolderStore)
    assert found["write if unchanged"]


def test_a_share_that_refuses_folders_is_told_of(open_store, tmp_path, monkeypatch):
    """
    Commits go through folders of their own, so files alone are not enough.
    """
    store = open_store()
    store.commit([KEY], [], None)
    before = files(tmp_path / "ring")

    def refused(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "refused")

    monkeypatch.setattr(os, "mkdir", refused)
    found = store.examine()

    assert {"read": True, "write if unchanged": False} == rights(found)
    assert any("right" in each.remedy for each in found if not each.ok)
    assert before == files(tmp_path / "ring")
