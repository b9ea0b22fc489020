"""
The marks that a restored backup lies below (attack K7).
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from kagimori.errors import ConfigError, RestoredError
from kagimori.high_water import FILE_NAME, HighWater, Part, raise_count, read_count
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore


def test_K7_a_mark_rises_and_refuses_what_lies_below(tmp_path):
    """
    What is at the mark or above passes; below it is refused by name.
    """
    water = HighWater(tmp_path)
    water.raise_to(Part.DATABASE, 5)
    water.raise_to(Part.DATABASE, 3)

    water.read().check(Part.DATABASE, 5)
    water.read().check(Part.DATABASE, 6)
    water.read().check(Part.RING, 0)
    with pytest.raises(RestoredError, match="database is older") as caught:
        water.read().check(Part.DATABASE, 4)

    assert "--accept-restored database" in caught.value.hint
    assert "database" == caught.value.params["part"]


def test_K7_the_mark_outlives_the_process(tmp_path):
    """
    Another process of the same folder sees it; the file is its owner's alone.
    """
    HighWater(tmp_path).raise_to(Part.RING, 7)

    with pytest.raises(RestoredError, match="ring is older"):
        HighWater(tmp_path).read().check(Part.RING, 6)

    assert 0o600 == (tmp_path / FILE_NAME).stat().st_mode & 0o777
    assert [FILE_NAME] == [path.name for path in tmp_path.iterdir()]


def test_K7_an_operator_accepts_by_name(tmp_path):
    """
    Accepting one part leaves the other's mark; from there it rises again.
    """
    water = HighWater(tmp_path)
    water.raise_to(Part.RING, 7)
    water.raise_to(Part.DATABASE, 9)

    water.accept(Part.DATABASE, 4)

    water.read().check(Part.DATABASE, 4)
    with pytest.raises(RestoredError):
        water.read().check(Part.RING, 6)
    water.raise_to(Part.DATABASE, 5)
    with pytest.raises(RestoredError):
        HighWater(tmp_path).read().check(Part.DATABASE, 4)


def test_a_damaged_file_is_told_and_not_taken_for_none(tmp_path):
    """
    Unreadable is not absent: somebody has to look.
    """
    (tmp_path / FILE_NAME).write_text("{")

    with pytest.raises(ConfigError, match="damaged") as caught:
        HighWater(tmp_path).read().check(Part.RING, 1)

    assert "restored" in caught.value.hint


def test_a_folder_that_is_gone_is_told(tmp_path):
    """
    A mark that cannot be written is an error with a hint, and leaves nothing behind.
    """
    with pytest.raises(ConfigError, match="cannot be written"):
        HighWater(tmp_path / "absent").raise_to(Part.RING, 1)


def test_many_writers_never_lower_the_mark(tmp_path):
    """
    Processes raise it at once; the highest stays.
    """
    threads = [
        threading.Thread(target=HighWater(tmp_path).raise_to, args=(Part.RING, n))
        for n in range(1, 40)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert 39 == HighWater(tmp_path).read().ring


def test_the_count_of_a_database_rises_by_one():
    """
    It begins at nothing and each beat adds one, whoever beats.
    """

    async def scene():
        store = MemoryStore(FixedClock())
        first, _ = await read_count(store)
        await asyncio.gather(*(raise_count(store) for _ in range(4)))
        last, now = await read_count(store)
        return first, last, now

    first, last, now = asyncio.run(scene())

    assert (0, 4) == (first, last)
    assert now.tzinfo is not None
