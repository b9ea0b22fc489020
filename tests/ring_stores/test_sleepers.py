"""
Writers that sleep, for as long as they like, between looking and doing (attack K8).

A file server or a virtual machine may hold a call back until others have long gone on. The
tests hold back one system call of one writer, let others act, and then let it happen.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kagimori.errors import ConflictError
from kagimori.keys.store import Element, KeyStore
from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore
from kagimori.ring_stores.journal import Journal
from kagimori.ring_stores.workbench import Workbenches
from kagimori.testing.conformance.key_store import ONE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import change, named, revocation
from tests.ring_stores.dying import CALLS
from tests.ring_stores.places import document, folder, reading

THREE = named("three")
_ONE_ID = "11111111-1111-4111-8111-111111111111"
NEWER = revocation(_ONE_ID, "newer")
NEWEST = revocation(_ONE_ID, "newest")
MOST_CALLS = 100

Open = Callable[[Path], KeyStore]
Act = Callable[[Path], None]


@contextlib.contextmanager
def meanwhile(held_back: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """
    Hold back the call of a number, from 0, that changes files; `act`, and let it happen.
    """
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        acting: list[str] = []

        def held(name: str, real):
            def call(*args, **kwargs):
                reads = name == "open" and not args[1] & (os.O_WRONLY | os.O_CREAT)
                if not reads and not acting:
                    seen.append(name)
                    if len(seen) == held_back + 1:
                        acting.append(name)
                        act()
                        acting.clear()
                return real(*args, **kwargs)

            return call

        for name in CALLS:
            patch.setattr(os, name, held(name, getattr(os, name)))
        yield seen


def delete_one(store: KeyStore) -> None:
    change(store, (), (ONE.name,))
    change(store, (THREE,), ())


def replace_one(store: KeyStore) -> None:
    change(store, (NEWEST,), ())
    change(store, (THREE,), ())


def delete_and_add_one_again(store: KeyStore) -> None:
    change(store, (), (ONE.name,))
    change(store, (NEWER,), ())


@pytest.mark.parametrize("open_store", [folder, document])
@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (((NEWER,), ()), delete_one, of(TWO, THREE)),
        (((NEWER,), ()), replace_one, of(NEWEST, TWO, THREE)),
        (((), (ONE.name,)), delete_and_add_one_again, of(NEWER, TWO)),
    ],
    ids=["deleted", "replaced", "added again"],
)
def test_K8_whatever_call_a_writer_sleeps_over_it_undoes_nothing(
    open_store: Open, tmp_path: Path, own, others, expected
):
    """
    K8: at whichever call a commit sleeps, what others commit meanwhile stands; nothing they
    deleted or replaced comes back, nothing they added goes, in .NET's files neither.
    """
    for held_back in range(MOST_CALLS):
        place = tmp_path / str(held_back)
        open_store(place).commit([ONE, TWO], (), None)
        version = open_store(place).load().version
        woken: list[str] = []

        def act(place=place, woken=woken):
            others(open_store(place))
            woken.append("others")

        store = open_store(place)
        with meanwhile(held_back, act), contextlib.suppress(ConflictError):
            store.commit(*own, version)
        if not woken:
            break
        assert expected == meaning(open_store(place).load())
        for left in (place / "ring").glob("*state-*"):
            left.unlink()
        assert expected == meaning(open_store(place).load())
    assert held_back > 8


@pytest.mark.parametrize("call", ["replace", "rmdir"])
@pytest.mark.parametrize("open_store", [folder, document])
def test_K8_who_slept_over_finishing_a_commit_undoes_nothing_of_dotnets(
    open_store: Open, tmp_path: Path, call: str
):
    """
    K8: a commit that another writer finished is not put in place once more, over what .NET
    added or deleted since.
    """
    open_store(tmp_path).commit([ONE, TWO], (), None)

    def others():
        store = open_store(tmp_path)
        store.load()
        if isinstance(store, FolderStore):
            (tmp_path / "ring" / f"{ONE.name}.xml").unlink()
        else:
            path = tmp_path / "ring" / "ring.xml"
            text = path.read_text("utf-8")
            end = "</repository>"
            path.write_text(text.replace(end, THREE.xml + end), "utf-8")

    position = _position(open_store, tmp_path / "measured", call)
    version = open_store(tmp_path).load().version
    with meanwhile(position, others):
        open_store(tmp_path).commit([NEWER], (), version)

    expected = of(TWO) if open_store is folder else of(NEWER, TWO, THREE)
    assert expected == meaning(open_store(tmp_path).load())


def _position(open_store: Open, place: Path, call: str) -> int:
    open_store(place).commit([ONE, TWO], (), None)
    version = open_store(place).load().version
    with meanwhile(MOST_CALLS, lambda: None) as seen:
        open_store(place).commit([NEWER], (), version)
    return seen.index(call)


def test_K8_a_document_that_slept_through_many_commits_is_not_another_ring(
    tmp_path: Path,
):
    """
    K8: also beyond the predecessors that a state remembers, an old document stays away.
    """
    document(tmp_path).commit([ONE, TWO], (), None)

    def others():
        delete_one(document(tmp_path))
        for number in range(70):
            change(document(tmp_path), (named(f"turn {number % 2}"),), ())

    position = _position(document, tmp_path / "measured", "replace")
    version = document(tmp_path).load().version
    with meanwhile(position, others):
        document(tmp_path).commit([NEWER], (), version)

    expected = of(TWO, THREE, named("turn 0"), named("turn 1"))
    assert expected == meaning(document(tmp_path).load())


def test_K8_a_commit_on_a_document_put_in_its_place_survives_a_crash(tmp_path: Path):
    """
    K8: a commit on another ring's document stands before it is put in place, too.
    """
    document(tmp_path).commit([ONE, TWO], (), None)
    other = DocumentStore(tmp_path / "other.xml")
    other.commit([THREE], (), None)
    path = tmp_path / "ring" / "ring.xml"
    path.write_bytes((tmp_path / "other.xml").read_bytes())
    before = path.read_bytes()
    change(document(tmp_path), (named("four"),), ())

    path.write_bytes(before)
    assert of(THREE, named("four")) == meaning(document(tmp_path).load())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """
    A ring of which one element was replaced and then removed.
    """
    store = FolderStore(tmp_path / "ring")
    store.commit([ONE, TWO], (), None)
    change(store, (NEWER,), ())
    change(store, (), (ONE.name,))
    return tmp_path / "ring"


def _laid(tmp_path: Path, element: Element) -> str:
    FolderStore(tmp_path / "aside").commit([element], (), None)
    return (tmp_path / "aside" / f"{element.name}.xml").read_text("utf-8")


@pytest.mark.parametrize(
    ("element", "is_stale"), [(ONE, True), (NEWER, True), (NEWEST, False)]
)
def test_K8_a_removed_file_that_comes_back_is_not_of_the_ring(
    place: Path, tmp_path: Path, element: Element, is_stale: bool
):
    """
    K8: a removed file that lies there again, also as it was before it was replaced, is
    ignored by readers and taken away by writers; other content under its name is a foreign
    writer's, and merged. Later commits remember.
    """
    path = place / f"{ONE.name}.xml"
    back = _laid(tmp_path, element)
    expected = of(TWO) if is_stale else of(TWO, element)
    for _ in range(2):
        path.write_text(back, "utf-8")
        assert expected == meaning(FolderStore(place, read_only=True).load())
        assert path.exists()
        assert expected == meaning(FolderStore(place).load())
        assert is_stale != path.exists()

        path.write_text(back, "utf-8")
        change(FolderStore(place), (THREE,), ())
        expected |= of(THREE)
        assert is_stale != path.exists()


def test_K8_what_we_add_again_is_of_the_ring_and_stays(place: Path, tmp_path: Path):
    """
    K8: the very content that was removed is welcome once a commit has added it again; what
    only was replaced is an older element, which an operator may restore.
    """
    change(FolderStore(place), (ONE,), ())
    assert of(ONE, TWO) == meaning(FolderStore(place).load())

    (place / f"{ONE.name}.xml").write_text(_laid(tmp_path, NEWER), "utf-8")
    assert of(NEWER, TWO) == meaning(FolderStore(place).load())


def test_K8_the_record_of_what_was_removed_is_bounded(tmp_path: Path):
    """
    K8: it holds the latest 256 names and 8 contents a name.
    """
    store = FolderStore(tmp_path / "ring")
    many = [named(str(number)) for number in range(257)]
    store.commit([*many, ONE], (), None)
    change(store, (), (many[0].name,))
    change(store, (), [element.name for element in many[1:]])
    for number in range(9):
        change(store, (revocation(_ONE_ID, str(number)),), ())

    journal = Journal(tmp_path / "ring", "state-", ".xml")
    taken = journal.latest().taken
    assert [element.name for element in many[1:]] == list(taken.gone)
    assert [(ONE.name, 8)] == [(n, len(d)) for n, d in taken.replaced.items()]


@pytest.mark.parametrize(
    ("open_store", "before"), [(folder, "state-"), (document, "ring.xml.state-")]
)
def test_what_a_dead_writer_was_working_with_goes_at_the_next_load(
    open_store: Open, tmp_path: Path, before: str
):
    """
    A dead writer's workbench may hold keys: whoever may write removes it; others leave it.
    """
    open_store(tmp_path).commit([ONE, TWO], (), None)
    ring = tmp_path / "ring"
    with Workbenches(ring, before).set_up(1):
        (bench,) = ring.glob(".*.tmp")
        (bench / "key").write_text("a key")
        reading(open_store)(tmp_path).load()
        assert bench.exists()
        open_store(tmp_path).load()
        assert not bench.exists()


def test_K11_a_link_in_a_workbenchs_place_leads_nowhere(place: Path, tmp_path: Path):
    """
    K11: what a link of a workbench's name points to is not touched; the link goes.
    """
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("x")
    link = place / f".state-1-{'0' * 24}.tmp"
    link.symlink_to(tmp_path / "mine")

    assert of(TWO) == meaning(FolderStore(place).load())
    assert "x" == (tmp_path / "mine" / "note").read_text()
    assert not link.is_symlink()
