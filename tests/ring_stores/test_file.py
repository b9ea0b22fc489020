"""
What a folder looks like, and what it refuses.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from kagimori.errors import (
    ConflictError,
    RingReadOnlyError,
    RingUnreadableError,
    StoreError,
)
from kagimori.keys.store import Element
from kagimori.ring_stores.file import FolderStore
from kagimori.ring_stores.journal import Journal
from kagimori.testing.conformance.key_store import ONE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import change, named

REVOCATION = (
    '\ufeff<?xml version="1.0" encoding="utf-8"?>\n'
    '<revocation version="1">\n'
    "  <revocationDate>2022-09-28T22:13:20.0000001Z</revocationDate>\n"
    '  <key id="11111111-1111-4111-8111-111111111111" />\n'
    "  <reason>one</reason>\n"
    "</revocation>"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """
    The folder of a ring of two elements.
    """
    FolderStore(tmp_path / "ring").commit([ONE, TWO], (), None)
    return tmp_path / "ring"


def write_as_dotnet(place: Path, element: Element) -> None:
    (place / f"{element.name}.xml").write_text("\ufeff" + element.xml, "utf-8")


def test_files_lie_as_dotnet_lays_them(place: Path):
    """
    One element a file, named as .NET names it, indented, with a byte order mark; beside them
    one state file, which carries nothing any more.
    """
    names = sorted(path.name for path in place.iterdir())

    assert [f"{ONE.name}.xml", f"{TWO.name}.xml", "state-1.xml"] == names
    assert REVOCATION == (place / f"{ONE.name}.xml").read_text("utf-8")
    assert "revocation" not in (place / "state-1.xml").read_text("utf-8")


def test_K11_modes_are_for_the_owner_alone(tmp_path: Path):
    """
    K11: folder 0700 and files 0600, whatever the umask says.
    """
    before = os.umask(0)
    try:
        FolderStore(tmp_path / "above" / "ring").commit([ONE], (), None)
    finally:
        os.umask(before)
    place = tmp_path / "above" / "ring"

    assert 0o700 == stat.S_IMODE(place.stat().st_mode)
    assert 0o700 == stat.S_IMODE(place.parent.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert () == FolderStore(place).loose_modes()
    assert not FolderStore(place).others_may_write()


@pytest.mark.parametrize(
    ("mode", "is_loose", "may_write"),
    [
        (384, False, False),
        (416, True, False),
        (388, True, False),
        (400, True, True),
        (386, True, True),
    ],
)
def test_K11_loose_modes_are_named(place: Path, mode, is_loose, may_write):
    """
    K11: who may read or write a file beside its owner is told of, by path and mode.
    """
    (place / f"{ONE.name}.xml").chmod(mode)
    store = FolderStore(place)

    assert is_loose == any(f"{mode:04o}" in text for text in store.loose_modes())
    assert may_write == store.others_may_write()


def test_K11_a_link_in_the_folder_is_refused_and_a_linked_folder_is_not(
    place: Path, tmp_path: Path
):
    """
    K11: the folder may be a link; a file in it that is a link makes the ring unreadable.
    """
    (tmp_path / "linked").symlink_to(place)
    assert of(ONE, TWO) == meaning(FolderStore(tmp_path / "linked").load())

    real = place / f"{ONE.name}.xml"
    real.rename(tmp_path / "elsewhere.xml")
    real.symlink_to(tmp_path / "elsewhere.xml")
    with pytest.raises(RingUnreadableError, match="is a link"):
        FolderStore(place).load()


def test_K11_a_pipe_in_the_folder_does_not_hang(place: Path):
    """
    K11: what is no regular file is refused, not waited for.
    """
    os.mkfifo(place / "key-pipe.xml")

    with pytest.raises(RingUnreadableError, match="no regular file"):
        FolderStore(place).load()


def test_what_dotnet_adds_and_removes_is_seen(place: Path):
    """
    Files of .NET writers are merged at the next load, and what they delete is gone for good.
    """
    store = FolderStore(place)
    write_as_dotnet(place, named("three"))
    assert of(ONE, TWO, named("three")) == meaning(store.load())

    (place / f"{TWO.name}.xml").unlink()
    change(store, (named("four"),), ())
    expected = of(ONE, named("three"), named("four"))
    assert expected == meaning(store.load()) == meaning(FolderStore(place).load())


def test_a_change_of_dotnets_makes_a_decision_stale(place: Path):
    """
    What was decided before a .NET writer came is refused, although no state of ours moved.
    """
    store = FolderStore(place)
    version = store.load().version
    write_as_dotnet(place, named("three"))

    with pytest.raises(ConflictError):
        store.commit([named("four")], (), version)
    store.commit([named("four")], (), store.load().version)


def test_other_files_are_none_of_the_rings_business(place: Path):
    """
    Temporary files of anybody, notes and subfolders do not disturb.
    """
    for name in ("0f1e.tmp", "notes.txt", ".state-9.xml.tmp"):
        (place / name).write_text("<not xml")
    (place / "sub").mkdir()
    (place / "sub" / "key-x.xml").write_text("<not xml")

    assert of(ONE, TWO) == meaning(FolderStore(place).load())


def test_what_dead_writers_left_is_swept_after_an_hour(place: Path):
    """
    Old temporary files go with the next commit; fresh ones stay, their writer may live.
    """
    old, fresh = place / ".0a.tmp", place / ".0b.tmp"
    for path in (old, fresh):
        path.write_text("half an elem")
    os.utime(old, (1, 1))
    change(FolderStore(place), (named("three"),), ())

    assert not old.exists()
    assert fresh.exists()


@pytest.mark.parametrize("number", [1, 2])
def test_a_broken_state_file_makes_the_ring_unreadable(place: Path, number: int):
    """
    A state file that is not well-formed or of another kind is an error with a hint, never an
    empty ring.
    """
    for text in ("", "<state", "<state/>", ONE.xml):
        (place / f"state-{number}.xml").write_text(text)
        with pytest.raises(RingUnreadableError) as caught:
            FolderStore(place).load()
        assert "backup" in caught.value.hint


def test_text_that_is_no_utf8_makes_the_ring_unreadable(place: Path):
    """
    A file of other bytes is an error with a hint.
    """
    (place / "key-x.xml").write_bytes(b"<key \xff/>")

    with pytest.raises(RingUnreadableError, match="UTF-8"):
        FolderStore(place).load()


def test_a_file_of_any_size_is_not_read(place: Path):
    """
    Files are bounded before they are read.
    """
    with (place / "key-x.xml").open("wb") as file:
        file.truncate(11 * 1024 * 1024)

    with pytest.raises(RingUnreadableError, match="larger"):
        FolderStore(place).load()


@pytest.mark.parametrize(
    "name", ["../key-x", "a/b", "", "key x", "state-5", "kéy", "a" * 201, "key.x"]
)
def test_a_name_never_becomes_a_path(place: Path, name: str):
    """
    Names are held to the letters that .NET allows, and never to that of a state file.
    """
    with pytest.raises(StoreError):
        FolderStore(place).commit(
            [Element(name, ONE.xml)], (), FolderStore(place).load().version
        )
    with pytest.raises(StoreError):
        FolderStore(place).commit((), [name], FolderStore(place).load().version)
    assert of(ONE, TWO) == meaning(FolderStore(place).load())


def test_a_folder_without_hard_links_works_as_well(tmp_path: Path, monkeypatch):
    """
    Where the file system knows no hard links, a rename that refuses to replace commits.
    """

    def refused(*_args, **_kwargs):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    store = FolderStore(tmp_path / "ring")
    first = store.commit([ONE], (), None)
    with pytest.raises(ConflictError):
        store.commit([TWO], (), None)
    store.commit([TWO], (), first.version)

    assert of(ONE, TWO) == meaning(store.load())


def test_a_writer_that_slept_through_other_commits_has_lost(place: Path):
    """
    A number that is free again lies below the ring's: taking it commits nothing.
    """
    store, journal = FolderStore(place), Journal(place, "state-", ".xml")
    slept = journal.read(1).followed_by("", {"key-late": ONE.xml}, ())
    for name in ("three", "four"):
        change(store, (named(name),), ())
    assert ["state-3.xml"] == [path.name for path in place.glob("state-*")]

    with pytest.raises(ConflictError):
        journal.publish(slept)
    assert of(ONE, TWO, named("three"), named("four")) == meaning(store.load())
    assert ["state-3.xml"] == [path.name for path in place.glob("state-*")]


def test_a_writer_that_slept_right_after_its_commit_has_won(place: Path):
    """
    Others may have committed on top before it looks again: its change is in the ring.
    """
    store, journal = FolderStore(place), Journal(place, "state-", ".xml")
    mine = journal.read(1).followed_by("", {named("mine").name: named("mine").xml}, ())
    real = journal.latest

    def latest():
        change(store, (named("three"),), ())
        change(store, (named("four"),), ())
        return real()

    journal.latest = latest
    journal.publish(mine)

    expected = of(ONE, TWO, named("mine"), named("three"), named("four"))
    assert expected == meaning(store.load())


def test_K8_who_slept_while_putting_a_commit_in_place_brings_nothing_back(place: Path):
    """
    K8: finishing a commit stops where a later one has come.
    """
    store, journal = FolderStore(place), Journal(place, "state-", ".xml")
    state = journal.read(1).followed_by("", {named("x").name: named("x").xml}, ())
    journal.publish(state)
    change(store, (), (named("x").name,))

    store._apply(state)

    assert of(ONE, TWO) == meaning(store.load())


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_place_that_cannot_be_used_is_told_of(tmp_path: Path, is_folder: bool):
    """
    A file where the folder should be, or a part of the path that is a file: what to do is said.
    """
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" if is_folder else tmp_path / "file" / "ring"
    store = FolderStore(path)

    for act in (store.load, store.probe, lambda: store.commit([ONE], (), None)):
        with pytest.raises(StoreError) as caught:
            act()
        assert not caught.value.transient
        assert "folder" in caught.value.hint


@pytest.mark.parametrize(
    ("code", "transient"),
    [(errno.EACCES, False), (errno.EROFS, False), (errno.EIO, True)],
)
def test_what_the_system_refuses_says_whether_it_may_pass(
    place: Path, monkeypatch, code: int, transient: bool
):
    """
    Missing rights and read-only mounts are permanent, an I/O error may pass.
    """

    def refused(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    version = FolderStore(place).load().version
    monkeypatch.setattr(os, "write", refused)
    with pytest.raises(StoreError) as caught:
        FolderStore(place).commit([named("three")], (), version)

    assert transient == caught.value.transient
    assert of(ONE, TWO) == meaning(FolderStore(place).load())


def test_read_only_leaves_everything_as_it_is(place: Path):
    """
    A read-only store reads a commit that its writer did not finish, and finishes nothing.
    """
    journal = Journal(place, "state-", ".xml")
    three = named("three")
    journal.publish(
        journal.read(1).followed_by("", {three.name: three.xml}, (TWO.name,))
    )
    before = sorted(path.name for path in place.iterdir())
    reader = FolderStore(place, read_only=True)

    assert of(ONE, three) == meaning(reader.load())
    assert before == sorted(path.name for path in place.iterdir())
    with pytest.raises(RingReadOnlyError):
        reader.commit((), (), reader.load().version)
