"""
Faults of the disk, the file and its neighbours (K8).

Each is a clear text that says what to do, none a traceback, and nothing is half-written.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kagimori.errors import KagimoriError, SchemaError, StoreError
from kagimori.storage.sqlite import SqliteStore
from kagimori.storage.store import ABSENT, DocumentKey, Put
from kagimori.testing.clock import FixedClock

NAME = "kagimori.db"
TENANT = "acme"
FULL = "There is no room on the disk for the database"
DISK = "The disk failed under the database"
READ_ONLY = "cannot be written: it or its folder is read-only"
DAMAGED = "is damaged or is not a database"

Story = Callable[[SqliteStore], Awaitable[None]]


def play(place: Path, story: Story, *, patience: float = 5.0) -> None:
    """
    Open the database in a folder, tell a story with it, and close it.
    """

    async def told() -> None:
        store = SqliteStore.open(place / NAME, clock=FixedClock(), patience=patience)
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(told())


async def put(store: SqliteStore, id_: str, body: bytes = b"x") -> None:
    """
    Make one note.
    """
    await store.commit(TENANT, [Put("note", id_, body, ABSENT, {"tag": "t"})])


def fill(place: Path, notes: int = 400) -> None:
    """
    Make a database of many pages, all of them in the file itself.
    """

    async def story(store: SqliteStore) -> None:
        changes = [
            Put("note", f"{n}", bytes([n % 256]) * 900, ABSENT, {"tag": f"{n % 7}"})
            for n in range(notes)
        ]
        await store.commit(TENANT, changes)

    play(place, story)


def run(story: str, place: Path, *before: str) -> dict[str, object]:
    """
    Play a story of `fault_worker` in a process of its own, and return what it tells.
    """
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.storage.fault_worker", story, place],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert (0, b"") == (done.returncode, done.stderr)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def on_small_disk(place: Path) -> tuple[str, ...]:
    """
    Return the command in front of another that gives it a disk of 4 MB at `place`.

    The disk lives in a mount namespace of that process alone, and ends with it.
    """
    mount = 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"'
    return ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(place))


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = [*on_small_disk(Path("/mnt")), "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


# A real disk of 4 MB where the machine lets us make one; a limit on file sizes everywhere.
DISKS = ["size_limit", *(["small_disk"] if _can_mount() else [])]


@pytest.mark.parametrize("disk", DISKS)
def test_K8_a_full_disk_loses_nothing_and_passes(tmp_path: Path, disk: str):
    """
    No room left: the commit fails whole, with the reason; reads go on; with room it goes on.
    """
    before = on_small_disk(tmp_path) if disk == "small_disk" else ()
    told = run(disk, tmp_path, *before)

    expected = FULL if disk == "small_disk" else DISK
    assert str(told["text"]).startswith(expected)
    assert told["hint"]
    assert told["transient"] is True
    written = told["written"]
    assert isinstance(written, int)
    assert written > 0
    assert 2 * written == told["during"]
    assert 2 * written + 2 == told["after"] == told["reopened"]
    assert told["loaded"] is True


def test_K8_a_full_database_fails_whole_and_goes_on(tmp_path: Path):
    """
    All commits that shared a transaction fail whole, and succeed once there is room.
    """

    async def story(store: SqliteStore) -> None:
        await put(store, "before")
        connection = store._writer._connection
        assert connection is not None
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}").close()
        puts = [put(store, f"{n}", bytes(50_000)) for n in range(5)]
        answers = await asyncio.gather(*puts, return_exceptions=True)

        for answer in answers:
            assert isinstance(answer, StoreError)
            assert answer.text.startswith(FULL)
            assert answer.transient
        assert 1 == await store.count(TENANT, "note")
        assert 1 == await store.count(TENANT, "note", ("tag", "t"))

        connection.execute("PRAGMA max_page_count = 1000000").close()
        await asyncio.gather(*(put(store, f"{n}", bytes(50_000)) for n in range(5)))
        assert 6 == await store.count(TENANT, "note", ("tag", "t"))

    play(tmp_path, story)


@pytest.mark.parametrize("disk", DISKS)
def test_K8_no_room_for_an_empty_database(tmp_path: Path, disk: str):
    """
    A disk that is full at the first start is named as such, and the next start succeeds.
    """
    before = on_small_disk(tmp_path) if disk == "small_disk" else ()
    told = run(f"{disk}_at_first", tmp_path, *before)

    assert str(told["text"]).startswith(FULL if disk == "small_disk" else DISK)
    assert told["hint"]
    assert told["transient"] is True


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "refused"),
    [
        (0o600, 0o700, False),
        (0o400, 0o700, True),
        (0o600, 0o500, True),
        (0o000, 0o700, True),
    ],
)
def test_a_read_only_file_or_folder_is_refused_at_once(
    tmp_path: Path, file_mode: int, folder_mode: int, refused: bool
):
    """
    What may not be written is refused when it is opened, not at the first commit.
    """
    place = tmp_path / "data"
    place.mkdir()
    fill(place)
    (place / NAME).chmod(file_mode)
    place.chmod(folder_mode)
    told = run("unprivileged", place)
    place.chmod(0o700)

    if refused:
        assert READ_ONLY in str(told["text"])
        assert told["hint"]
        assert told["transient"] is False
    else:
        assert {} == told


def test_a_read_only_folder_takes_no_new_database(tmp_path: Path):
    """
    Where a database cannot be made, the reason is the folder's; where it can, it is made.
    """
    place = tmp_path / "data"
    place.mkdir(mode=0o500)
    assert READ_ONLY in str(run("unprivileged", place)["text"])

    place.chmod(0o700)
    assert {} == run("unprivileged", place)


@pytest.mark.parametrize(
    ("path", "create", "text"),
    [
        ("missing/kagimori.db", True, "cannot be opened"),
        ("missing.db", False, "cannot be opened"),
        ("file/kagimori.db", True, "cannot be opened"),
        ("folder", True, "is not a regular file"),
        ("link", True, "is not a regular file"),
        ("dangling", True, "is not a regular file"),
        ("real.db", False, ""),
        ("new.db", True, ""),
    ],
)
def test_only_a_regular_file_is_opened(
    tmp_path: Path, path: str, create: bool, text: str
):
    """
    Folders, links (which may lead out of the data folder) and missing folders are refused.
    """
    SqliteStore.open(tmp_path / "real.db", clock=FixedClock())
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real.db")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere.db")

    async def story() -> None:
        store = SqliteStore.open(tmp_path / path, clock=FixedClock(), create=create)
        await put(store, "1")
        await store.close()

    if text:
        with pytest.raises(StoreError, match=text) as caught:
            asyncio.run(story())
        assert caught.value.hint
        assert not caught.value.transient
    else:
        asyncio.run(story())
    assert not (tmp_path / "nowhere.db").exists()


def test_every_file_is_for_the_owner_alone(tmp_path: Path):
    """
    Database, log and shared memory have mode 0600 even where the umask would allow all.
    """

    async def story(store: SqliteStore) -> None:
        await put(store, "1")
        await store.count(TENANT, "note")
        modes.update(
            (entry.name, stat.S_IMODE(entry.stat().st_mode))
            for entry in os.scandir(tmp_path)
        )

    modes: dict[str, int] = {}
    before = os.umask(0)
    try:
        play(tmp_path, story)
    finally:
        os.umask(before)

    assert {NAME: 0o600, f"{NAME}-wal": 0o600, f"{NAME}-shm": 0o600} == modes
    assert [NAME] == [path.name for path in tmp_path.iterdir()]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    """
    Text, noise and a cut-off header are named as what they are, and left as they are.
    """
    for content in (b"not a database\n" * 100, random.Random(1).randbytes(8192)):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(StoreError, match=DAMAGED) as caught:
            SqliteStore.open(tmp_path / NAME, clock=FixedClock())

        assert "backup" in caught.value.hint
        assert not caught.value.transient
        assert content == (tmp_path / NAME).read_bytes()


def test_an_empty_file_is_an_empty_database(tmp_path: Path):
    """
    A file without a byte, as a crash at the very start leaves it, is filled.
    """
    (tmp_path / NAME).touch(0o600)

    play(tmp_path, lambda store: put(store, "1"))


@pytest.mark.parametrize("keep", [100, 512, 4096, 5000, 20_000])
def test_a_truncated_database_is_refused(tmp_path: Path, keep: int):
    """
    Wherever the file was cut off, opening or using it says that it is damaged.
    """
    fill(tmp_path)
    os.truncate(tmp_path / NAME, keep)

    async def story(store: SqliteStore) -> None:
        for n in range(400):
            await store.load_many(TENANT, [DocumentKey("note", f"{n}")])

    with pytest.raises(StoreError, match=DAMAGED) as caught:
        play(tmp_path, story)
    assert not caught.value.transient


def test_flipped_bytes_never_surface_as_anything_else(tmp_path: Path):
    """
    Whatever bytes are flipped, a call answers or raises our error; the sound twin answers.
    """
    fill(tmp_path, 60)
    sound = (tmp_path / NAME).read_bytes()
    chance = random.Random(4)
    damaged = answered = 0
    for round_ in range(150):
        content = bytearray(sound)
        for _ in range(30 if round_ else 0):
            content[chance.randrange(16, len(content))] = chance.randrange(256)
        (tmp_path / NAME).write_bytes(content)

        async def story(store: SqliteStore) -> None:
            nonlocal damaged, answered
            for call in (
                lambda: store.load_many(TENANT, [DocumentKey("note", "1")]),
                lambda: store.find(TENANT, "note", ("tag", "1")),
                lambda: store.count(TENANT, "note"),
                lambda: store.commit(TENANT, [Put("note", "new", b"", ABSENT)]),
                store.purge,
            ):
                try:
                    await call()
                    answered += 1
                except KagimoriError as exc:
                    assert exc.text  # noqa: PT017 - counted, not expected
                    damaged += 1

        try:
            play(tmp_path, story)
        except StoreError:
            damaged += 1
        if round_ == 0:
            assert (0, 5) == (damaged, answered)
    assert damaged > 5


def test_a_lock_held_by_another_program_passes(tmp_path: Path):
    """
    A commit waits for a lock for a while, then fails as passing; reads go on.

    Once the lock is gone, commits do too.
    """

    async def story(store: SqliteStore) -> None:
        await put(store, "1")
        other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        puts = [put(store, f"held {n}") for n in range(3)]
        answers = await asyncio.gather(*puts, return_exceptions=True)
        for answer in answers:
            assert isinstance(answer, StoreError)
            assert "locked by another process" in answer.text
            assert answer.hint
            assert answer.transient
        assert 1 == await store.count(TENANT, "note")

        other.execute("ROLLBACK")
        other.close()
        await put(store, "2")
        assert 2 == await store.count(TENANT, "note")

    play(tmp_path, story, patience=0.1)


def test_a_lock_held_at_the_first_start_passes(tmp_path: Path):
    """
    A file that another program keeps to itself cannot be opened for now; later it can.
    """
    other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked") as caught:
        SqliteStore.open(tmp_path / NAME, clock=FixedClock(), patience=0.05)
    assert caught.value.transient

    other.execute("ROLLBACK")
    other.close()
    play(tmp_path, lambda store: put(store, "1"))


@pytest.mark.parametrize("gone", [NAME, f"{NAME}-wal"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_removed_file_takes_no_more_commits(tmp_path: Path, gone: str, replace: bool):
    """
    A commit into a removed or replaced file, which would be lost, is refused.

    So is the poll, by which readers hear of it.
    """

    async def story(store: SqliteStore) -> None:
        await put(store, "1")
        assert 0 == await store.change_counter()
        content = (tmp_path / gone).read_bytes()
        (tmp_path / gone).unlink()
        if replace:
            (tmp_path / gone).write_bytes(content)
        for call in (put(store, "2"), store.change_counter()):
            with pytest.raises(StoreError, match="removed or replaced") as caught:
                await call
            assert caught.value.hint
            assert not caught.value.transient

    play(tmp_path, story)


def test_another_programs_database_is_left_alone(tmp_path: Path):
    """
    A sound SQLite file with somebody else's tables is refused and not touched.
    """
    other = sqlite3.connect(tmp_path / NAME)
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.commit()
    other.close()
    before = (tmp_path / NAME).read_bytes()

    with pytest.raises(StoreError, match="another program") as caught:
        SqliteStore.open(tmp_path / NAME, clock=FixedClock())
    assert not isinstance(caught.value, SchemaError)
    assert before == (tmp_path / NAME).read_bytes()


def test_missing_tables_are_named_as_such(tmp_path: Path):
    """
    A database of ours without its tables is refused with a text, not with a statement.
    """
    fill(tmp_path)
    other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    other.execute("DROP TABLE document_index")
    other.close()

    async def story(store: SqliteStore) -> None:
        assert 400 == await store.count(TENANT, "note")
        for call in (store.find(TENANT, "note", ("tag", "1")), put(store, "new")):
            with pytest.raises(SchemaError, match="tables") as caught:
                await call
            assert caught.value.hint
            assert "SELECT" not in str(caught.value)
        assert 400 == await store.count(TENANT, "note")

    play(tmp_path, story)
