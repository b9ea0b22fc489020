"""
Where the programs of real servers come from.

A missing program fails the test that needs it, unless ``KAGIMORI_ALLOW_MISSING`` names it or its
package. As root it is installed from the distribution first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

_ALLOWED = "KAGIMORI_ALLOW_MISSING"
_LOCK = "kagimori-tests-installing.lock"
_TIMEOUT = 600
_QUIET = {
    "DEBIAN_FRONTEND": "noninteractive",
    # Packages of servers start them unless the system is said to be in single-user mode.
    "RUNLEVEL": "1",
}


def require(program: str, *, apt: str, also_in: Iterable[str] = ()) -> Path:
    """
    Return the path of a program (or of a library's file), installed first where that may be.

    `also_in` are patterns of folders beside PATH and the sbin folders, such as
    ``/usr/lib/postgresql/*/bin``; of several matches the last one counts.
    """
    found = find(program, also_in)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install(apt, program, also_in)
        found = find(program, also_in)
    if found is None:
        missing(program, apt, f"Install the package {apt} (apt-get install {apt}).")
    return found


def missing(program: str, package: str, how: str) -> None:
    """
    Fail the test for a program that is not there, or skip it where that is allowed.
    """
    allowed = {name.strip() for name in os.environ.get(_ALLOWED, "").split(",")}
    if allowed & {program, package}:
        pytest.skip(f"{program} is missing, which {_ALLOWED} allows")
    pytest.fail(
        f"{program} is missing. {how} To leave its tests out: {_ALLOWED}={program}.",
        pytrace=False,
    )


def find(program: str, also_in: Iterable[str] = ()) -> Path | None:
    """
    Return the path of a program that is installed.
    """
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path:
        return Path(path)
    for pattern in also_in:
        matches = sorted(Path("/").glob(f"{pattern.lstrip('/')}/{program}"))
        if matches:
            return matches[-1]
    return None


def _install(package: str, program: str, also_in: Iterable[str]) -> None:
    # Several test processes may want it at once; apt itself does not wait.
    with (Path(tempfile.gettempdir()) / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if find(program, also_in):
            return
        for words in (
            ["update", "-qq"],
            ["install", "-qq", "-y", "--no-install-recommends", package],
        ):
            subprocess.run(
                ["apt-get", *words],
                env={**os.environ, **_QUIET},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
            )
