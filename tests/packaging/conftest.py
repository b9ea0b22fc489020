"""
The built wheel, installed where there is no source tree.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.clean import ROOT, CleanEnvironment, clean_environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Return the wheel, built from the tree as it lies.
    """
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        check=True,
        timeout=120,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def library(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    """
    Return an environment that holds the library alone.
    """
    folder = tmp_path_factory.mktemp("library")
    return CleanEnvironment(folder, "runtime.txt", f"kagimori @ {wheel.as_uri()}")


@pytest.fixture(scope="module")
def server(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    """
    Return an environment that holds the library and the extra `server`.
    """
    folder = tmp_path_factory.mktemp("server")
    requirement = f"kagimori[server] @ {wheel.as_uri()}"
    return CleanEnvironment(folder, "server.txt", requirement)
