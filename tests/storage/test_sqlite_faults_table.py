"""
Every fault that SQLite or the system can name has a text, a hint, and passes or does not.
"""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import msgspec
import pytest

from kagimori.errors import SchemaError
from kagimori.storage import sqlite_faults


def named(name: str, message: str = "SELECT hunter2") -> sqlite3.Error:
    """
    Return an error of SQLite as the module raises it.
    """
    error = sqlite3.OperationalError(message)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "text", "transient"),
    [
        ("SQLITE_FULL", "no room", True),
        ("SQLITE_IOERR_WRITE", "disk failed", True),
        ("SQLITE_IOERR_FSYNC", "disk failed", True),
        ("SQLITE_NOMEM", "memory", True),
        ("SQLITE_IOERR_NOMEM", "disk failed", True),
        ("SQLITE_BUSY", "locked", True),
        ("SQLITE_BUSY_RECOVERY", "locked", True),
        ("SQLITE_LOCKED", "locked", True),
        ("SQLITE_PROTOCOL", "locked", True),
        ("SQLITE_READONLY_DBMOVED", "read-only", False),
        ("SQLITE_CANTOPEN", "cannot be opened", False),
        ("SQLITE_PERM", "cannot be opened", False),
        ("SQLITE_CORRUPT_INDEX", "damaged", False),
        ("SQLITE_NOTADB", "damaged", False),
        ("SQLITE_ERROR", "damaged", False),
        ("SQLITE_TOOBIG", "refused", False),
    ],
)
def test_a_fault_is_told_without_the_statement(
    tmp_path: Path, name: str, text: str, transient: bool
):
    """
    The text says what is wrong with which file, the detail SQLite's name for it.
    """
    path = str(tmp_path / "kagimori.db")
    error = sqlite_faults.fault(named(name), path)

    assert text in error.text
    assert path in error.text
    assert error.hint
    assert transient is error.transient
    assert "hunter2" not in f"{error} {error.detail}"


def test_missing_tables_are_told_from_damage(tmp_path: Path):
    """
    What a fixed statement does not find is missing; damaged text and JSON are damage.
    """
    path = str(tmp_path / "kagimori.db")
    missing = sqlite_faults.fault(named("SQLITE_ERROR", "no such table: a"), path)
    assert isinstance(missing, SchemaError)

    for error in (
        named("SQLITE_ERROR", "malformed JSON"),
        sqlite3.OperationalError("Could not decode to UTF-8 column"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        msgspec.DecodeError("JSON is malformed"),
        msgspec.ValidationError("Expected `str`"),
    ):
        assert "damaged" in sqlite_faults.fault(error, path).text


@pytest.mark.parametrize(
    ("number", "text", "transient"),
    [
        (errno.ENOSPC, "no room", True),
        (errno.EDQUOT, "no room", True),
        (errno.EROFS, "read-only", False),
        (errno.EACCES, "read-only", False),
        (errno.ENOENT, "cannot be opened", False),
        (errno.EIO, "cannot be opened", False),
    ],
)
def test_the_systems_faults_are_told_alike(number: int, text: str, transient: bool):
    """
    What the system says of the file before SQLite sees it has the same texts.
    """
    error = sqlite_faults.os_fault(OSError(number, "hunter2"), "/data/kagimori.db")

    assert text in error.text
    assert error.hint
    assert transient is error.transient
    assert errno.errorcode[number] == error.detail


def test_a_connection_is_given_up_after_faults_that_last():
    """
    After a fault of the disk or the file a connection is opened anew; a lock does no harm.
    """
    for name in ("SQLITE_IOERR_READ", "SQLITE_CORRUPT", "SQLITE_NOTADB"):
        assert sqlite_faults.is_lasting(named(name))
    for name in ("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_CONSTRAINT_UNIQUE"):
        assert not sqlite_faults.is_lasting(named(name))
