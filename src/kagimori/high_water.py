"""
How far a ring and a database have come: a mark that a restored backup lies below (attack K7).

Rules of this module:

1. The mark lies in the data folder, the counts lie in the ring and in the database. A count is
   raised first and marked then, so the mark is never above an honest count.
2. Below the mark nothing is signed, until an operator accepts by name what was restored: refresh
   tokens that were used, and revocations that were made since the backup, count again as if
   they had never been.
3. A mark only rises, but by that acceptance. Several processes may share one.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from kagimori.errors import ConfigError, RestoredError
from kagimori.storage.store import Collection, Store

FILE_NAME = "high-water.json"

OWNER = "default"
"""The tenant whose documents hold the count of the database."""


class Part(enum.Enum):
    """
    What has a mark.
    """

    RING = "ring"
    DATABASE = "database"


class Marks(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    The marks of a data folder.

    Attributes:
        ring: the highest generation of the protection ring that was seen.
        database: the highest count of the database that was seen.
    """

    ring: int = 0
    database: int = 0

    def check(self, part: Part, count: int) -> None:
        """
        Refuse a part that is below its mark.

        Raises:
            RestoredError: it is; the text says what it means and how it is accepted.
        """
        mark: int = getattr(self, part.value)
        if count >= mark:
            return
        what = {
            Part.RING: "keys made since are gone, and what they protected cannot be read",
            Part.DATABASE: "refresh tokens used and revocations made since count again as if "
            "they had never been",
        }[part]
        raise RestoredError(
            f"The {part.value} is older than this data folder remembers ({count} < {mark}): "
            f"a backup was restored; {what}.",
            hint=f"If this is meant: kagimori doctor --accept-restored {part.value}",
            part=part.value,
        )


class Beat(msgspec.Struct, frozen=True):
    """
    The count of a database.
    """

    count: int


BEATS: Collection[Beat] = Collection("beat", Beat)


async def read_count(store: Store) -> tuple[int, datetime]:
    """
    Return the count of a database, and its time.

    Raises:
        StoreError: as the store raises.
    """
    loaded = await store.load_many(OWNER, [BEATS.key("database")])
    found = BEATS.maybe(loaded.documents[0])
    return (found.value.count if found else 0), loaded.now


async def raise_count(store: Store) -> int:
    """
    Raise the count of a database by one, and return it.

    Raises:
        StoreError: as the store raises.
    """

    def decide(beat: Beat | None, now: datetime) -> tuple[Beat, int]:
        count = (beat.count if beat else 0) + 1
        return Beat(count), count

    return await BEATS.update(store, OWNER, "database", decide)


class HighWater:
    """
    The marks in a data folder.

    Args:
        folder: the data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._known = Marks()

    def read(self) -> Marks:
        """
        Return the marks.

        Raises:
            ConfigError: the file is there and cannot be understood.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Marks()
        except OSError as exc:
            raise ConfigError(
                f"{self._path} cannot be read: {exc.strerror}.",
                hint="Run as the user who owns the data folder.",
            ) from None
        try:
            return msgspec.json.decode(data, type=Marks)
        except msgspec.DecodeError:
            raise ConfigError(
                f"{self._path} is damaged, so it cannot be told whether the ring and the "
                "database are of today.",
                hint="Check that nothing was restored; then delete the file.",
            ) from None

    def raise_to(self, part: Part, count: int) -> None:
        """
        Take note of a count; a lower one than the mark changes nothing.

        Raises:
            ConfigError: the folder does not take the file.
        """
        if count <= getattr(self._known, part.value):
            return
        with self._locked():
            marks = self.read()
            if count > getattr(marks, part.value):
                marks = msgspec.structs.replace(marks, **{part.value: count})
                self._write(marks)
            self._known = marks

    def accept(self, part: Part, count: int) -> None:
        """
        Lower the mark to a count: an operator has accepted what was restored.

        Raises:
            ConfigError: the folder does not take the file.
        """
        with self._locked():
            self._known = msgspec.structs.replace(self.read(), **{part.value: count})
            self._write(self._known)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # The lock is the folder's own: no file is left behind.
        try:
            handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise self._refused(exc) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _write(self, marks: Marks) -> None:
        temporary = self._path.with_name(f".{FILE_NAME}.tmp")
        try:
            temporary.unlink(missing_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(marks) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as exc:
            raise self._refused(exc) from None

    def _refused(self, exc: OSError) -> ConfigError:
        return ConfigError(
            f"{self._path} cannot be written: {exc.strerror}.",
            hint="Check that the data folder is yours, writable, and not full.",
        )
