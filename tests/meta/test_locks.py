"""
The locked requirements.
"""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.meta.tree import ROOT

LOCKS = ("runtime", "server", "dev")


def read_lock(name: str) -> dict[str, tuple[str, ...]]:
    """
    Return each pin of a lock with its hashes.
    """
    text = (ROOT / f"requirements/{name}.txt").read_text("utf-8")
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    return {
        entry.split(" \\")[0].strip(): tuple(re.findall(r"--hash=(\S+)", entry))
        for entry in entries
    }


def names(requirements: list[str]) -> set[str]:
    """
    Return the names of requirements, without versions and extras.
    """
    return {re.split(r"[\[><=; ]", text)[0].lower() for text in requirements}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_is_exact_and_has_hashes(lock: str):
    """
    Nothing is installed that was not seen when the lock was written.
    """
    for pin, hashes in read_lock(lock).items():
        assert re.match(r"[a-z0-9-]+==[0-9][^ ]*( ; .+)?$", pin)
        assert hashes
        assert all(value.startswith("sha256:") for value in hashes)


def test_locks_contain_each_other():
    """
    What users install is what was tested: the same pins in all three locks.
    """
    # Markers aside: what more packages ask for together may hold on more platforms.
    runtime, server, dev = (
        {(pin.partition(" ;")[0], hashes) for pin, hashes in read_lock(name).items()}
        for name in LOCKS
    )

    assert runtime <= server
    assert server <= dev


def test_locks_hold_what_the_project_asks_for():
    """
    A dependency added to pyproject.toml or dev.in without `make lock` is noticed.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = (ROOT / "requirements/dev.in").read_text("utf-8").splitlines()
    locked = {name: names(list(read_lock(name))) for name in LOCKS}

    assert names(project["dependencies"]) <= locked["runtime"]
    assert names(project["optional-dependencies"]["server"]) <= locked["server"]
    assert (
        names([line for line in wanted if line and not line.startswith("#")])
        <= (locked["dev"])
    )
