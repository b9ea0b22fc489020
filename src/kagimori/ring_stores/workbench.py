"""
Where a writer puts a commit in place, so that one who slept can change nothing any more.

Looking first and renaming then is no protection: a process may sleep between the two for as
long as its machine or its file server likes. Rules of this module:

1. Whoever puts state n in place makes a folder of its own, which is named after n, and only
   then looks whether state n is still the one to be put in place.
2. A file gets to its place by a rename out of that folder, and goes by a rename into it.
3. Whoever puts a later state in place removes those folders first, and whoever has put state
   n in place removes them last. A rename out of or into a folder that is gone fails, at the
   file server too, however late it arrives there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from kagimori.ring_stores import safe_files

_TRIES = 200
_FULL = {errno.ENOTEMPTY, errno.EEXIST}
_BY_HANDLE = (
    os.unlink in os.supports_dir_fd
    and os.listdir in os.supports_fd
    and hasattr(os, "O_NOFOLLOW")
)


class SupersededError(Exception):
    """
    The workbench is gone: others have put this state in place, or a later one.
    """


class Workbench:
    """
    The folder of one writer that puts one state in place.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def place(self, text: str, target: Path) -> None:
        """
        Write a file, and replace at once what has its name.

        Raises:
            SupersededError: others were faster; nothing was changed.
            OSError: as the operating system says.
        """
        try:
            temporary = safe_files.write_temporary(self._path, text)
            safe_files.give_name(temporary, target)
        except FileNotFoundError:
            raise SupersededError from None

    def take(self, path: Path) -> None:
        """
        Take a file away; one that is not there is no error.

        Raises:
            SupersededError: others were faster; nothing was changed.
            OSError: as the operating system says.
        """
        try:
            path.replace(self._path / secrets.token_hex(12))
        except FileNotFoundError:
            if not self._path.is_dir():
                raise SupersededError from None


class Workbenches:
    """
    The workbenches of one ring.

    Args:
        folder: where the ring's state files lie.
        before: what a state file's name begins with; the number follows.
    """

    def __init__(self, folder: Path, before: str) -> None:
        self._folder = folder
        self._before = before
        self._pattern = re.compile(
            rf"\.{re.escape(before)}([1-9]\d{{0,17}})-[0-9a-f]{{24}}\.tmp", re.ASCII
        )

    @contextlib.contextmanager
    def set_up(self, number: int) -> Iterator[Workbench]:
        """
        Make a workbench for a state, and remove it in the end.

        Raises:
            OSError: as the operating system says.
        """
        path = self._folder / f".{self._before}{number}-{secrets.token_hex(12)}.tmp"
        path.mkdir(safe_files.FOLDER_MODE)
        try:
            yield Workbench(path)
        finally:
            with contextlib.suppress(OSError):
                _remove(path)

    def clear(self, number: int) -> None:
        """
        Remove the workbenches of this state and of those before.

        Raises:
            OSError: one cannot be removed; then nothing may be put in place.
        """
        for path in list(self._folder.iterdir()):
            found = self._pattern.fullmatch(path.name)
            if found and int(found[1]) <= number:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_symlink():
        safe_files.remove(path)
        return
    # Its owner may be at work in it, but has a bounded number of files to move.
    for _ in range(_TRIES):
        try:
            _empty(path)
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in _FULL:
                raise
        else:
            return
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))


def _empty(path: Path) -> None:
    if not _BY_HANDLE:
        for inner in list(path.iterdir()):
            safe_files.remove(inner)
        return
    # By the handle: a link in the folder's place must not lead to anybody else's files.
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(handle):  # noqa: PTH208 - by the handle, not by the path
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)
