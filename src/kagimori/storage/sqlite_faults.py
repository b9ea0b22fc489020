"""
What SQLite says when it fails, said so that a person knows what to do.

Rules of this module:

1. The text names the file, the hint the remedy, the detail SQLite's own name for the fault.
   No statement and no value of one gets into any of them.
2. Transient is what passes by itself, or goes on without a restart once the cause is gone.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from kagimori.errors import SchemaError, StoreError

_RESTORE = (
    "Stop the server, keep a copy of the file and of its -wal, and restore a backup; "
    "`sqlite3 FILE .recover` may save what is left."
)


_LASTING = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_NOMEM")


FAULTS = (sqlite3.Error, UnicodeDecodeError, msgspec.DecodeError)
"""What calls of SQLite raise; the last two where damaged text is read or quoted."""


def is_busy(error: Exception) -> bool:
    """
    Say whether another connection was in the way, so that trying again helps.
    """
    return _name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL"))


def is_lasting(error: Exception) -> bool:
    """
    Say whether the connection must not be used any more after this.
    """
    return _name(error).startswith(_LASTING)


def locked(path: str) -> StoreError:
    """
    Return the error for a database that another process did not let go of in time.
    """
    return StoreError(
        f"The database {path} is locked by another process.",
        hint="Find the program that holds it open (a backup, a shell) and end it.",
        detail="SQLITE_BUSY",
        transient=True,
    )


def closed(path: str) -> StoreError:
    """
    Return the error for a store that was closed.
    """
    return StoreError(f"The database {path} was closed.", transient=True)


def replaced(path: str) -> StoreError:
    """
    Return the error for a database whose file is not the one that was opened any more.
    """
    return StoreError(
        f"The database {path} was removed or replaced while it was open.",
        hint="Put the file back together with its -wal, or restore a backup, and restart.",
        detail="the file's identity changed",
    )


def fault(error: Exception, path: str) -> StoreError:
    """
    Return the `StoreError` for what SQLite raised.
    """
    name = _name(error)
    family = "_".join(name.split("_")[:2])
    if family == "SQLITE_IOERR" and _no_space(path):
        family = "SQLITE_FULL"
    if family == "SQLITE_CANTOPEN" and Path(path).exists() and not is_writable(path):
        family = "SQLITE_READONLY"
    # Our statements are fixed, so what they name is missing from this file.
    if family == "SQLITE_ERROR" and str(error).startswith("no such"):
        return _without_tables(path, name)
    if is_busy(error):
        return locked(path)
    return _FAMILIES.get(family, _refused)(path, name)


def os_fault(error: OSError, path: str) -> StoreError:
    """
    Return the `StoreError` for what the operating system raised.
    """
    name = errno.errorcode.get(error.errno or 0, "OSError")
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return _full(path, name)
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return read_only(path, name)
        case _:
            return cannot_open(path, name)


def is_writable(path: str) -> bool:
    """
    Say whether the file and its folder may be written; the -wal comes and goes beside it.
    """
    folder = Path(path).parent
    return os.access(path, os.R_OK | os.W_OK) and os.access(folder, os.W_OK | os.X_OK)


def read_only(path: str, detail: str) -> StoreError:
    """
    Return the error for a file or folder that may not be written.
    """
    return StoreError(
        f"The database {path} cannot be written: it or its folder is read-only.",
        hint="Give the server's user the right to write both, and mount the disk writable.",
        detail=detail,
    )


def cannot_open(path: str, detail: str) -> StoreError:
    """
    Return the error for a file that could not be opened or made.
    """
    return StoreError(
        f"The database {path} cannot be opened.",
        hint="See that the folder is there and that the server's user owns both.",
        detail=detail,
    )


def foreign(path: str) -> StoreError:
    """
    Return the error for a sound database that is not ours.
    """
    return StoreError(
        f"The database {path} belongs to another program.",
        hint="Name another file, or none: it is made when missing.",
        detail="application_id",
    )


def damaged(path: str, detail: str) -> StoreError:
    """
    Return the error for a file that is not a sound database.
    """
    return StoreError(
        f"The database {path} is damaged or is not a database.",
        hint=_RESTORE,
        detail=detail,
    )


def _full(path: str, detail: str) -> StoreError:
    return StoreError(
        f"There is no room on the disk for the database {path}.",
        hint="Free some space or raise the quota; the server then goes on by itself.",
        detail=detail,
        transient=True,
    )


def _failing(path: str, detail: str) -> StoreError:
    return StoreError(
        f"The disk failed under the database {path}.",
        hint="Look at the disk, its quota, and the limit on the size of files.",
        detail=detail,
        transient=True,
    )


def _without_memory(path: str, detail: str) -> StoreError:
    return StoreError(
        f"There is not enough memory for the database {path}.",
        hint="Give the server more memory, or end what takes it.",
        detail=detail,
        transient=True,
    )


def _without_tables(path: str, detail: str) -> StoreError:
    return SchemaError(
        f"The database {path} does not have the tables it should.",
        hint=_RESTORE,
        detail=detail,
    )


def _refused(path: str, detail: str) -> StoreError:
    return StoreError(
        f"The database {path} refused what was asked of it.",
        hint="Run `kagimori doctor`.",
        detail=detail,
    )


_FAMILIES: Mapping[str, Callable[[str, str], StoreError]] = {
    "SQLITE_FULL": _full,
    "SQLITE_IOERR": _failing,
    "SQLITE_NOMEM": _without_memory,
    "SQLITE_READONLY": read_only,
    "SQLITE_CANTOPEN": cannot_open,
    "SQLITE_PERM": cannot_open,
    "SQLITE_AUTH": cannot_open,
    "SQLITE_CORRUPT": damaged,
    "SQLITE_NOTADB": damaged,
    "SQLITE_FORMAT": damaged,
    "SQLITE_ERROR": damaged,
    "SQLITE_MISMATCH": damaged,
    # Text that is not UTF-8, or JSON that is none.
    "OperationalError": damaged,
    "UnicodeDecodeError": damaged,
    "DecodeError": damaged,
    "ValidationError": damaged,
}


def _no_space(path: str) -> bool:
    # Some systems report a full disk as a failed write, and a failed write of the shared memory
    # is never called anything else.
    try:
        state = os.statvfs(Path(path).parent)
    except OSError:
        return False
    return state.f_bavail * state.f_frsize < 64 * 1024


def _name(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", None) or type(error).__name__
