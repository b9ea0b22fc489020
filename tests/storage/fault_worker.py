"""
Stories about faults that a test process must not bring on itself.

``python -m tests.storage.fault_worker STORY FOLDER`` plays one and prints what happened as JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from kagimori.clock import SystemClock
from kagimori.errors import StoreError
from kagimori.storage.sqlite import SqliteStore
from kagimori.storage.store import ABSENT, DocumentKey, Put

BODY = os.urandom(200_000)


def told(error: StoreError) -> dict[str, object]:
    """
    Return what an error says.
    """
    return {"text": error.text, "hint": error.hint, "transient": error.transient}


async def fill(place: Path, make_room: Callable[[], object]) -> dict[str, object]:
    """
    Write pairs of documents until it fails, make room, and write on.
    """
    store = SqliteStore.open(place / "kagimori.db", clock=SystemClock())
    written, error = 0, None
    while error is None and written < 1000:
        pair = [Put("note", f"{written}-{side}", BODY, ABSENT) for side in "ab"]
        try:
            await store.commit("acme", pair)
            written += 1
        except StoreError as exc:
            error = exc
    assert error is not None, "the disk never filled"
    # While it is full, reads go on and writes fail alike.
    during = await store.count("acme", "note")
    again: StoreError | None = None
    try:
        await store.commit("acme", pair)
    except StoreError as exc:
        again = exc
    assert again is None or told(again) == told(error)
    make_room()
    await store.commit("acme", pair)
    loaded = await store.load_many("acme", [DocumentKey("note", f"{written}-a")])
    after = await store.count("acme", "note")
    await store.close()
    store = SqliteStore.open(place / "kagimori.db", clock=SystemClock())
    reopened = await store.count("acme", "note")
    await store.close()
    return {
        **told(error),
        "written": written,
        "during": during,
        "after": after,
        "reopened": reopened,
        "loaded": loaded.documents[0] is not None and loaded.documents[0].body == BODY,
    }


async def size_limit(place: Path) -> dict[str, object]:
    """
    A file may not grow past 4 MB; then it may.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, hard))
    return await fill(
        place, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    )


async def small_disk(place: Path) -> dict[str, object]:
    """
    The folder is a disk of 4 MB, on which somebody else's file lies; it is removed.
    """
    ballast = place / "ballast"
    ballast.write_bytes(os.urandom(1_500_000))
    return await fill(place, ballast.unlink)


async def begin(place: Path, make_room: Callable[[], object]) -> dict[str, object]:
    """
    Open a database where there is no room for one, make room, and open it again.
    """
    answer: dict[str, object] = {}
    try:
        SqliteStore.open(place / "kagimori.db", clock=SystemClock())
    except StoreError as exc:
        answer = told(exc)
    make_room()
    store = SqliteStore.open(place / "kagimori.db", clock=SystemClock())
    await store.commit("acme", [Put("note", "1", b"", ABSENT)])
    await store.close()
    return answer


async def size_limit_at_first(place: Path) -> dict[str, object]:
    """
    A file may not even hold an empty database; then it may.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    return await begin(
        place, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    )


async def small_disk_at_first(place: Path) -> dict[str, object]:
    """
    Somebody else's file fills the disk; it is removed.
    """
    ballast = place / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(place).free))
    return await begin(place, ballast.unlink)


async def unprivileged(place: Path) -> dict[str, object]:
    """
    Open a database with the rights that the file's modes give, whoever runs the tests.
    """
    _drop_capabilities()
    try:
        store = SqliteStore.open(place / "kagimori.db", clock=SystemClock())
        await store.commit("acme", [Put("note", "new", b"", ABSENT)])
        await store.close()
    except StoreError as exc:
        return told(exc)
    return {}


def _drop_capabilities() -> None:
    # capset(2): root without capabilities is bound by modes like everybody else.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


STORIES: dict[str, Callable[[Path], Awaitable[dict[str, object]]]] = {
    story.__name__: story
    for story in (
        size_limit,
        small_disk,
        size_limit_at_first,
        small_disk_at_first,
        unprivileged,
    )
}


async def _main(story: str, place: str) -> None:
    sys.stdout.write(json.dumps(await STORIES[story](Path(place))))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:3]))
