"""
Clean environments outside the tree.
"""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def clean_environment() -> dict[str, str]:
    """
    Return the environment without what would lead a child back into the tree.
    """
    foreign = ("PYTHON", "COVERAGE", "COV_", "KAGIMORI", "VIRTUAL_ENV", "PYTEST")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign)
    }


class CleanEnvironment:
    """
    A virtual environment that holds one lock and the wheel, and nothing else.
    """

    def __init__(self, folder: Path, lock: str, requirement: str) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        venv.create(folder / "venv", with_pip=True, symlinks=True)
        self.pip("install", "--require-hashes", "-r", str(ROOT / "requirements" / lock))
        # Without an index this succeeds only if the lock holds all that the wheel asks for.
        self.pip("install", "--no-index", requirement)

    def pip(self, *arguments: str) -> None:
        """
        Run pip in the environment.
        """
        self.run("python", "-m", "pip", "--quiet", *arguments)

    def run(self, program: str, *arguments: str) -> str:
        """
        Run a program of the environment to its end; return what it printed.
        """
        done = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
