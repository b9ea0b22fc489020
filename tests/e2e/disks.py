"""
Disks that are full or read-only, as far as this machine lets a test have them.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.server import Server

AS_OWNER_ONLY = (
    ("setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override")
    if os.geteuid() == 0
    else ()
)
"""What runs a program so that rights of files count for it, also where tests run as root."""


class SmallDisk:
    """
    A file system of its own, which can be filled.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, server: Server) -> None:
        with (
            self._filler.open("wb", buffering=0) as filler,
            contextlib.suppress(OSError),
        ):
            while True:
                filler.write(bytes(4096))

    def free(self, server: Server) -> None:
        self._filler.unlink()


class LimitedFiles(SmallDisk):
    """
    Where nothing can be mounted: no file of the server's may grow, which is a quota's way.
    """

    def fill(self, server: Server) -> None:
        self._limit(server, 16 * 1024)

    def free(self, server: Server) -> None:
        self._limit(server, resource.RLIM_INFINITY)

    def _limit(self, server: Server, size: int) -> None:
        assert server.process is not None
        limits = (size, resource.RLIM_INFINITY)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """
    Give a disk that can be filled, for the time of a block.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "kagimori", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode != 0:
        yield LimitedFiles(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """
    Take the right to write away from a folder and all in it, for the time of a block.
    """
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & 0o555)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
