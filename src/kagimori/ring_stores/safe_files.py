"""
The few file operations that a ring in files stands on.

Rules of this module:

1. Links are refused: a file of a ring is a regular file, opened without following (K11).
2. What is written is whole and on the disk before it gets its name. Names are given by a link
   that refuses to replace, or by a rename that replaces at once; both hold on network shares.
3. There are no locks and no watchers: neither can be trusted across machines.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from kagimori.errors import RingUnreadableError, StoreError

FILE_MODE = 0o600
FOLDER_MODE = 0o700
MOST_BYTES = 10 * 1024 * 1024
STALE_TEMPORARY = 3600.0

_TEMPORARY = ".tmp"
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NO_BLOCK = getattr(os, "O_NONBLOCK", 0)
_CLOSE = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NO_LINKS = {
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EXDEV,
}
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EINTR,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENFILE,
    errno.EBUSY,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
}
_HINTS = {
    errno.ENOSPC: "The disk is full: make room.",
    errno.EDQUOT: "The quota is used up: make room.",
    errno.EROFS: "The file system is mounted read-only: open the ring with read_only=True, or "
    "mount it for writing.",
    errno.EACCES: "Give the user of this process the right to it.",
    errno.EPERM: "Give the user of this process the right to it.",
    errno.ENOTDIR: "A part of the path is a file, not a folder.",
    errno.EISDIR: "It is a folder: a ring in a folder is named without layout=document.",
}


@contextlib.contextmanager
def declared(where: str) -> Iterator[None]:
    """
    Turn an `OSError` into the store's declared error, with what to do about it.

    Raises:
        StoreError: the operating system refused; `transient` where it may pass by itself.
    """
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        reason = os.strerror(code) if code else type(error).__name__
        raise StoreError(
            f"The ring at {where} cannot be reached or written: {reason}.",
            hint=_HINTS.get(code, ""),
            detail=str(error),
            transient=code in _PASSING,
        ) from error


def read_text(path: Path) -> str:
    """
    Return a file's text without its byte order mark.

    Raises:
        FileNotFoundError: there is none.
        RingUnreadableError: it is a link, no regular file, too large, or no UTF-8.
        OSError: as the operating system says.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _NO_FOLLOW | _NO_BLOCK | _CLOSE | _BINARY)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK}:
            raise _not_regular(path) from None
        raise
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _not_regular(path)
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise RingUnreadableError(f"{path} is larger than {MOST_BYTES} bytes.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RingUnreadableError(
            f"{path} is no UTF-8 text.",
            hint="Restore it from a backup; no key is made in its place.",
        ) from None


def _not_regular(path: Path) -> RingUnreadableError:
    return RingUnreadableError(
        f"{path} is a link or no regular file, which a ring refuses.",
        hint="Put the file itself there; the ring's folder may be a link, its files may not.",
    )


def write_temporary(folder: Path, text: str) -> Path:
    """
    Write text to a new file of a name that no reader looks at, down to the disk.

    Raises:
        OSError: as the operating system says; then no file is left.
    """
    path = folder / f".{secrets.token_hex(12)}{_TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _CLOSE | _BINARY
    handle = os.open(path, flags, FILE_MODE)
    try:
        try:
            data = text.encode("utf-8")
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return path


def give_new_name(temporary: Path, target: Path) -> None:
    """
    Give a temporary file its name if nothing has that name yet: the compare-and-swap.

    Raises:
        FileExistsError: something has that name; nothing was changed.
        OSError: as the operating system says.
    """
    try:
        try:
            os.link(temporary, target, follow_symlinks=False)
        except FileExistsError:
            # A network share may say so after its own answer was lost on the way.
            if not _is_same(temporary, target):
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _rename_without_replacing(temporary, target)
            return
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False


def _rename_without_replacing(temporary: Path, target: Path) -> None:
    # Shares without hard links (SMB, FAT): the rename that refuses to replace.
    if os.name == "nt":
        temporary.rename(target)
        return
    library = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(temporary), os.fsencode(target)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(old, new, 4)
    elif hasattr(library, "renameat2"):
        failed = library.renameat2(-100, old, -100, new, 1)
    else:
        failed = -1
        ctypes.set_errno(errno.ENOSYS)
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def give_name(temporary: Path, target: Path) -> None:
    """
    Give a temporary file its name, replacing at once what has it.

    Raises:
        OSError: as the operating system says; then the temporary file is gone.
    """
    try:
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove(path: Path) -> None:
    """
    Remove a file; one that is not there is no error.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def sync_folder(folder: Path) -> None:
    """
    Bring the names in a folder down to the disk, where the system can do that.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY | _CLOSE)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network shares know no fsync of a folder; their server sees to it.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """
    Make a folder for its owner alone, with the folders above it, unless it is there.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(FOLDER_MODE)
        sync_folder(folder.parent)


def drop_stale_temporaries(folder: Path) -> None:
    """
    Remove temporary files that writers left behind when they died.
    """
    border = time.time() - STALE_TEMPORARY
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(_TEMPORARY):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < border:
                        Path(entry.path).unlink()


def loose_modes(paths: list[Path]) -> tuple[str, ...]:
    """
    Say of which paths group or world may do what, for warnings and `doctor`.
    """
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if os.name != "nt" and mode & 0o077:
                found.append(f"{path} has mode {mode:04o}")
    return tuple(found)


def others_may_write(paths: list[Path]) -> bool:
    """
    Whether group or world may write to one of these.
    """
    for path in paths:
        with contextlib.suppress(OSError):
            if os.name != "nt" and path.stat().st_mode & 0o022:
                return True
    return False
