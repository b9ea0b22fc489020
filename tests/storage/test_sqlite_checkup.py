"""
What the doctor is told of a database file.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kagimori.errors import StoreError
from kagimori.storage.sqlite_checkup import check_up
from kagimori.storage.sqlite_connection import Database


def test_a_sound_database_is_called_sound(tmp_path: Path):
    """
    Its journal is a write-ahead log, nothing is damaged, and the sizes are those of the disk.
    """
    path = tmp_path / "a % b?.db"
    Database(path).open(create=True)
    found = check_up(path)

    assert ("wal", "") == (found.journal_mode, found.damage)
    assert path.stat().st_size == found.size_bytes
    assert found.free_bytes > 0


def test_damage_is_told_and_not_raised(tmp_path: Path):
    """
    A database whose pages are not what they should be is examined to the end.
    """
    path = tmp_path / "kagimori.db"
    Database(path).open(create=True)
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 4 * 4096] = random.Random(1).randbytes(4096)
    path.write_bytes(content)

    assert check_up(path).damage


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be opened"), (b"x" * 9000, "damaged")]
)
def test_what_cannot_be_examined_is_an_error(
    tmp_path: Path, content: bytes | None, message: str
):
    """
    A missing file and one that is no database are told apart, with what to do.
    """
    path = tmp_path / "kagimori.db"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(StoreError, match=message) as caught:
        check_up(path)
    assert caught.value.hint
    assert content is not None or not path.exists()
