"""
Twenty processes open a ring that is not there yet (attack K4).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kagimori import open_ring

PROCESSES = 20


@pytest.mark.parametrize(
    ("layout", "wrapper"),
    [("", "passphrase:file:{}/passphrase"), ("?layout=document", "plaintext:")],
)
def test_K4_twenty_processes_make_one_key(tmp_path: Path, layout: str, wrapper: str):
    """
    K4: 20 processes that start together on an empty place make exactly one key, and each
    opens what every other one protected.
    """
    (tmp_path / "passphrase").write_text("correct horse battery staple")
    (tmp_path / "passphrase").chmod(0o600)
    location = f"file://{tmp_path}/ring{layout}"
    wrapper = wrapper.format(tmp_path)
    command = [sys.executable, "-m", "tests.ring_stores.ring_worker", location, wrapper]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    try:
        assert {"ready\n"} == {worker.stdout.readline() for worker in workers}
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        keys = [worker.stdout.readline().strip() for worker in workers]
        payloads = [worker.stdout.readline() for worker in workers]
        opened = [worker.communicate("".join(payloads), 120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    assert 1 == len(set(keys))
    assert {"hello\n" * PROCESSES} == set(opened)
    ring = open_ring(location, application="shop", wrapper=wrapper)
    assert [keys[0]] == [key.id for key in tuple(ring.keys())]
    assert 1 == ring.generation
