"""
A process that dies, and a disk that fills up, at a chosen system call.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CALLS = ("open", "write", "fsync", "link", "replace", "unlink", "mkdir", "rmdir")
GROWING = ("open", "write", "link", "replace", "mkdir")


class Died(BaseException):
    """
    The process is gone: no handler of ours runs to any effect any more.
    """


class Calls:
    """
    Counts system calls that change files, and lets the one at `fatal` be the last.

    Args:
        fatal: the number of the call, from 0; beyond the last one nothing happens.
        full_disk: instead of dying, refuse from there on whatever would need room.
    """

    def __init__(self, fatal: int, *, full_disk: bool = False) -> None:
        self.count = 0
        self._fatal = fatal
        self._full_disk = full_disk

    @property
    def struck(self) -> bool:
        return self.count > self._fatal

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
            yield

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & (os.O_WRONLY | os.O_CREAT):
                return real(*args, **kwargs)
            mine, self.count = self.count, self.count + 1
            if mine < self._fatal:
                return real(*args, **kwargs)
            if self._full_disk:
                if name in GROWING:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*args, **kwargs)
            if name == "write" and mine == self._fatal:
                real(args[0], args[1][: len(args[1]) // 2])
            raise Died

        return call
